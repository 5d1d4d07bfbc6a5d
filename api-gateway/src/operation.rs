//! An operation: the types of its request and its answer, the terms on which it is done, and its handler.

use std::pin::Pin;
use std::sync::Arc;

use axum::http::HeaderMap;
use domain::TenantId;
use serde::Serialize;
use smc::model;

use crate::answer::Answer;
use crate::arguments::{Arguments, Parameter};
use crate::gateway::Gateway;
use crate::principal::Principal;
use crate::schema::{Of, Schemas};
use crate::{Refusal, operations};

/// A call whose signature is verified.
#[derive(Debug, Clone)]
pub struct Call {
    /// The state that all calls share.
    pub gateway: Arc<Gateway>,
    /// The account that calls. No statement runs without it.
    pub tenant: TenantId,
    /// The key and its user, for the audit.
    pub principal: Principal,
    /// The HTTP headers, for operations that answer with a stream.
    pub headers: Arc<HeaderMap>,
}

/// A request that this gateway answers.
pub trait Handle: model::Operation<Answer: Serialize> {
    /// The terms of the operation.
    const TERMS: Terms;

    /// Answers a call whose parameters were checked.
    fn handle(self, call: Call) -> impl Future<Output = Result<Self::Answer, Refusal>> + Send;
}

/// The terms of an operation, beside the types of its request and its answer.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Its effect on rows.
    pub effect: Effect,
    /// The resources that the caller must be allowed to touch.
    pub resources: &'static [Resource],
    /// Error codes of its own, beyond those of its parameters' rules and of every call.
    pub refusals: &'static [&'static str],
    /// Parameters of SMC that are not offered, with everything below their names, and the sentence for the caller.
    pub not_offered: &'static [(&'static str, &'static str)],
}

/// An answer that is being made.
pub type Answering = Pin<Box<dyn Future<Output = Result<Answer, Refusal>> + Send>>;

/// One field of an answer, for the reference.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its path, such as `SourceServers.SourceServer[].SourceId`.
    pub path: String,
    /// `string`, `integer`, `number` or `boolean`.
    pub kind: &'static str,
    /// Its meaning.
    pub meaning: String,
}

/// The effect of an operation on the rows of its tenant. Operations that change rows are audited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It only reads.
    Reads,
    /// It changes rows.
    Writes,
}

/// A resource that a caller must be allowed to touch: `acs:smc:<region>:<account>:<kind>/<id>` (SMC API §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// Its kind, such as `sourceServer`.
    pub kind: &'static str,
    /// The parameter that names it, one or a list; `None` stands for all of the kind, `*`.
    pub named_by: Option<&'static str>,
    /// The parameter whose value is the kind, in whatever case; then `kind` is `*`.
    pub kind_by: Option<&'static str>,
    /// The region that it is in.
    pub place: Place,
}

/// The region that a resource is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The gateway's own.
    Own,
    /// The region that `RegionId` names; without it, every region of the account.
    Asked,
    /// The region that `RegionId` names; without it, the gateway's own.
    AskedOrOwn,
    /// The region in which the resource is stored; for all of a kind, every region of the account.
    Stored,
}

impl Resource {
    /// Makes the entry for all resources of a kind.
    pub const fn any(kind: &'static str) -> Self {
        Self {
            kind,
            named_by: None,
            kind_by: None,
            place: Place::Own,
        }
    }

    /// Makes the entry for the resource that `parameter` names.
    pub const fn one(kind: &'static str, parameter: &'static str) -> Self {
        Self {
            kind,
            named_by: Some(parameter),
            kind_by: None,
            place: Place::Own,
        }
    }

    /// Makes the entry for the resources that the list `parameter` names, of the kind that `kind_by` names.
    pub const fn of_kind(kind_by: &'static str, parameter: &'static str) -> Self {
        Self {
            kind: "*",
            named_by: Some(parameter),
            kind_by: Some(kind_by),
            place: Place::Own,
        }
    }

    /// Places the resource in the region that the call names.
    pub const fn in_asked_region(self) -> Self {
        Self {
            place: Place::Asked,
            ..self
        }
    }

    /// Places the resource in the region that the call names, or in the gateway's own.
    pub const fn in_asked_or_own_region(self) -> Self {
        Self {
            place: Place::AskedOrOwn,
            ..self
        }
    }

    /// Places the resource in the region in which it is stored.
    pub const fn where_it_lies(self) -> Self {
        Self {
            place: Place::Stored,
            ..self
        }
    }
}

/// One operation.
#[derive(Debug)]
pub struct Operation {
    /// Its name, `Action` on the wire.
    pub name: &'static str,
    /// Its purpose, in a sentence.
    pub summary: String,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// The schemas of its request.
    pub request: Schemas,
    /// The schemas of its answer.
    pub answer: Schemas,
    /// The fields of its answer beyond `RequestId`.
    pub fields: Vec<Field>,
    /// Error codes of its own, beyond those of its parameters' rules and of every call.
    pub refusals: &'static [&'static str],
    /// Its effect on rows.
    pub effect: Effect,
    /// The resources that the caller must be allowed to touch.
    pub resources: &'static [Resource],
    /// Its handler.
    pub handler: fn(Call, Arguments) -> Answering,
}

impl Operation {
    /// Makes the operation of a request.
    pub fn of<O: Handle + 'static>() -> Self {
        Self::new::<O>(O::TERMS, |call, arguments| {
            Box::pin(async move {
                let answer = arguments.into_request::<O>().handle(call).await?;
                Ok(Answer::fields(&answer))
            })
        })
    }

    /// Makes the operation of a request that `handler` answers, on these terms.
    pub fn new<O: model::Operation>(
        terms: Terms,
        handler: fn(Call, Arguments) -> Answering,
    ) -> Self {
        let request = Schemas::of::<O>(Of::Request);
        let answer = Schemas::of::<O::Answer>(Of::Answer);
        Self {
            name: O::ACTION,
            summary: request.description().to_owned(),
            parameters: Parameter::of(&request, terms.not_offered),
            fields: answer.fields(),
            request,
            answer,
            refusals: terms.refusals,
            effect: terms.effect,
            resources: terms.resources,
            handler,
        }
    }

    /// Returns true if it answers with the bytes of a file instead of fields.
    pub fn answers_file(&self) -> bool {
        self.fields.is_empty() && self.answer.is_binary()
    }

    /// Returns the operation of this name; names are case-sensitive.
    pub fn named(name: &str) -> Option<&'static Self> {
        operations::all()
            .iter()
            .find(|operation| operation.name == name)
    }
}

/// Returns the page that a call asks for.
pub fn page(number: Option<u32>, size: Option<u32>) -> store::Page {
    store::Page {
        number: number.unwrap_or(1),
        size: size.unwrap_or(10),
    }
}
