//! What an operation is: one entry of the table from which calls are checked and answered, and `docs/api.md` is made.

use std::pin::Pin;
use std::sync::Arc;

use axum::http::HeaderMap;
use domain::TenantId;

use crate::answer::Answer;
use crate::arguments::{Arguments, Parameter, Rule};
use crate::gateway::Gateway;
use crate::principal::Principal;
use crate::{Refusal, operations};

/// A call whose signature is verified.
#[derive(Debug, Clone)]
pub struct Call {
    /// What every call shares.
    pub gateway: Arc<Gateway>,
    /// Who calls. No statement runs without it.
    pub tenant: TenantId,
    /// Which key and user of it, for the audit.
    pub principal: Principal,
    /// The HTTP headers, for operations that answer with a stream.
    pub headers: Arc<HeaderMap>,
}

/// Answers a call with checked parameters.
pub type Handler =
    fn(Call, Arguments) -> Pin<Box<dyn Future<Output = Result<Answer, Refusal>> + Send>>;

/// One field of an answer, for the reference.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its path, such as `SourceServers.SourceServer[].SourceId`.
    pub path: &'static str,
    /// `string`, `integer`, `number` or `boolean`; [`BYTES`] for the one field of an answer that is a file.
    pub kind: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// The kind of the field that stands for an answer which is a file.
pub const BYTES: &str = "bytes";

/// Whether an operation changes something. Those that do are audited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It only reads.
    Reads,
    /// It changes rows.
    Writes,
}

/// What a caller must be allowed to touch: `acs:smc:<region>:<account>:<kind>/<id>` (SMC API §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// Its kind, such as `sourceServer`.
    pub kind: &'static str,
    /// The parameter that names it, one or a list; `None` is all of the kind, `*`.
    pub named_by: Option<&'static str>,
    /// The parameter whose value is the kind, in whatever case; then `kind` is `*`.
    pub kind_by: Option<&'static str>,
    /// In which region it is.
    pub place: Place,
}

/// In which region a resource is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The gateway's own.
    Own,
    /// The one that `RegionId` names; without it, every one that the account has.
    Asked,
    /// The one that `RegionId` names; without it, the gateway's own.
    AskedOrOwn,
    /// The one in which it lies; for all of a kind, every one that the account has.
    Stored,
}

impl Resource {
    /// All resources of a kind.
    pub const fn any(kind: &'static str) -> Self {
        Self {
            kind,
            named_by: None,
            kind_by: None,
            place: Place::Own,
        }
    }

    /// The resource that `parameter` names.
    pub const fn one(kind: &'static str, parameter: &'static str) -> Self {
        Self {
            kind,
            named_by: Some(parameter),
            kind_by: None,
            place: Place::Own,
        }
    }

    /// The resources that the list `parameter` names, of the kind that `kind_by` names.
    pub const fn of_kind(kind_by: &'static str, parameter: &'static str) -> Self {
        Self {
            kind: "*",
            named_by: Some(parameter),
            kind_by: Some(kind_by),
            place: Place::Own,
        }
    }

    /// In the region that the call names.
    pub const fn in_asked_region(self) -> Self {
        Self {
            place: Place::Asked,
            ..self
        }
    }

    /// In the region that the call names, or in the gateway's own.
    pub const fn in_asked_or_own_region(self) -> Self {
        Self {
            place: Place::AskedOrOwn,
            ..self
        }
    }

    /// In the region in which it lies.
    pub const fn where_it_lies(self) -> Self {
        Self {
            place: Place::Stored,
            ..self
        }
    }
}

/// One operation.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// Its name, `Action` on the wire.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Its parameters.
    pub parameters: &'static [Parameter],
    /// The fields of its answer beyond `RequestId`.
    pub answer: &'static [Field],
    /// Error codes of its own, beyond those of its parameters' rules and of every call.
    pub refusals: &'static [&'static str],
    /// Whether it changes something.
    pub effect: Effect,
    /// What the caller must be allowed to touch.
    pub resources: &'static [Resource],
    /// Answers it.
    pub handler: Handler,
}

impl Operation {
    /// The operation of this name; names are case-sensitive.
    pub fn named(name: &str) -> Option<&'static Self> {
        operations::ALL
            .iter()
            .copied()
            .find(|operation| operation.name == name)
    }

    /// Whether it answers with the bytes of a file instead of fields.
    pub fn answers_file(&self) -> bool {
        self.answer.iter().any(|field| field.kind == BYTES)
    }
}

/// Describes a field, shortly.
pub const fn field(path: &'static str, kind: &'static str, meaning: &'static str) -> Field {
    Field {
        path,
        kind,
        meaning,
    }
}

/// `PageNumber` of every list.
pub const PAGE_NUMBER: Parameter = Parameter::optional(
    "PageNumber",
    Rule::Integer(1, 4_294_967_295),
    "The page, from 1; default 1.",
);
/// `PageSize` of every list.
pub const PAGE_SIZE: Parameter = Parameter::optional(
    "PageSize",
    Rule::Integer(1, 50),
    "Rows on a page; default 10.",
);

/// The page that the call asks for.
pub fn page(arguments: &Arguments) -> store::Page {
    let or = |name, default| {
        arguments
            .integer(name)
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(default)
    };
    store::Page {
        number: or("PageNumber", 1),
        size: or("PageSize", 10),
    }
}
