//! The API as types: a struct for each request and each answer, with the names of the wire.
//!
//! All that describes the API is made of these types. The gateway reads requests into them and serves the answers,
//! clients call with them, and their derived schemas become `docs/api.md` and `docs/openapi.json`: a doc comment here
//! is a sentence there. The bounds in `#[schema(…)]` of a request are the rules by which the gateway checks its
//! parameters.
//!
//! Texts of the wire stay texts, also where they are ids, names or times. Each side parses what it needs: a client must
//! be able to show the answer of a later gateway. For the same reason a field that an answer lacks is read as its
//! default.

mod access_token;
mod error;
mod image;
mod job;
mod jobs;
mod list;
mod parameters;
mod source_server;
mod tag;
mod values;
mod workgroup;

use std::ops::Deref;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

pub use access_token::*;
pub use error::*;
pub use image::*;
pub use job::*;
pub use jobs::*;
pub use parameters::{flatten, pairs};
pub use source_server::*;
pub use tag::*;
pub use values::*;
pub use workgroup::*;

/// A request: its fields are the parameters of an operation.
pub trait Operation: Serialize + DeserializeOwned + ToSchema + Send + Sync {
    /// Name of the operation, `Action` on the wire.
    const ACTION: &'static str;
    /// The answer of a call that is done.
    type Answer: ToSchema + Send;
}

/// Says which operation a request is for, by its own name, and which answer it has.
macro_rules! operations {
    ($($request:ident -> $answer:ty,)*) => {
        $(impl crate::model::Operation for $request {
            const ACTION: &'static str = stringify!($request);
            type Answer = $answer;
        })*
    };
}
use operations;

/// Says which field of an answer has the rows of a list, and what they are.
macro_rules! paged {
    ($request:ident: $field:ident of $row:ty) => {
        impl crate::model::Paged for $request {
            type Row = $row;

            fn set_page(&mut self, number: u32, size: u32) {
                (self.page_number, self.page_size) = (Some(number), Some(size));
            }

            fn rows(answer: Self::Answer) -> Vec<Self::Row> {
                answer.$field.into_iter().collect()
            }
        }
    };
}
use paged;

/// An operation whose answer is a list, page by page.
pub trait Paged: Operation<Answer: DeserializeOwned> {
    /// A row.
    type Row: Serialize;

    /// Asks for a page, from 1, and for so many rows on it.
    fn set_page(&mut self, number: u32, size: u32);

    /// The rows of the page.
    fn rows(answer: Self::Answer) -> Vec<Self::Row>;
}

/// An answer, with the id of its call.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Answered<A> {
    /// The fields of the operation's answer.
    #[serde(flatten)]
    pub answer: A,
    /// Name of this call in the gateway's log.
    #[serde(rename = "RequestId", default)]
    pub request_id: String,
}

impl<A> Deref for Answered<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.answer
    }
}

/// The answer of operations that say no more than that they are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Done {}

/// The answer of operations that answer with the bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, format = Binary)]
pub struct File(());

/// The wire form of an answer or a part of one. Fields without a value are left out: some SDKs can't read nulls.
///
/// # Panics
/// If `part` has no form in JSON, which no type of this module can bring about.
pub fn to_json(part: &impl Serialize) -> Value {
    without_nulls(serde_json::to_value(part).expect("a type of the API has a form in JSON"))
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        scalar => scalar,
    }
}
