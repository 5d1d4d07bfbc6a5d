//! Every call that changes something leaves a row, whatever its result (`docs/decisions/0005-audit.md`).
//!
//! The row is written before the call is carried out, and completed after it. If it can't be written, the call is not
//! carried out. If it can't be completed, the call is not answered as done. Only ids get into the row. From parameters,
//! it takes those that name resources; from answers, the fields that end in `Id`. From both it takes only texts in the
//! form of an id. So no secret, no activation code and no text of a caller can get in. Calls that are throttled share a
//! row a minute (`throttled`).

mod throttled;

use domain::RequestId;
use domain::id::is_id;
use smc::Pairs;
use store::audit::{Actor, NewEntry};

use crate::Refusal;
use crate::answer::Answer;
use crate::arguments::{Arguments, Parameter};
use crate::authentication::Caller;
use crate::operation::{Call, Effect, Operation};
use crate::request::Incoming;

pub use throttled::ThrottledCalls;

/// The outcome of a call that was carried out.
pub const DONE: &str = "OK";

/// Most ids in one row: as many as a call may name.
const MOST_IDS: usize = 100;

/// Carries out a call whose arguments were checked or refused, and writes the outcome to the audit.
///
/// # Errors
/// The operation's refusal; `ServiceUnavailable` when the row can't be written.
pub async fn carry_out(
    caller: &Caller,
    incoming: &Incoming,
    request_id: &RequestId,
    call: Call,
    arguments: Result<Arguments, Refusal>,
) -> Result<Answer, Refusal> {
    let operation = caller.operation;
    if operation.effect == Effect::Reads {
        return (operation.handler)(call, arguments?).await;
    }
    let store = call.gateway.store.clone();
    let (origin, request_id) = (incoming.origin.to_string(), request_id.to_string());
    let resources = named(operation, &incoming.pairs);
    let entry = NewEntry {
        actor: Actor::Tenant,
        tenant: Some(&caller.tenant),
        access_key: &caller.principal.access_key_id,
        user_name: caller.principal.user.as_ref().map_or("", |user| &user.name),
        origin: &origin,
        request_id: &request_id,
        operation: operation.name,
        resources: &resources,
        outcome: None,
    };
    let arguments = match arguments {
        Ok(arguments) => arguments,
        Err(refusal) => {
            let outcome = Some(refusal.code.as_ref());
            store.begin_audit(&NewEntry { outcome, ..entry }).await?;
            return Err(refusal);
        }
    };
    let id = store.begin_audit(&entry).await?;
    let outcome = (operation.handler)(call, arguments).await;
    let (code, made) = match &outcome {
        Ok(answer) => (DONE, made(answer)),
        Err(refusal) => (refusal.code.as_ref(), Vec::new()),
    };
    store.end_audit(id, code, None, &made).await?;
    outcome
}

/// Returns the ids in the parameters that name the operation's resources.
fn named(operation: &Operation, pairs: &Pairs) -> Vec<String> {
    let named_by: Vec<&str> = operation
        .resources
        .iter()
        .filter_map(|resource| resource.named_by)
        .collect();
    let parameters: Vec<&Parameter> = operation
        .parameters
        .iter()
        .filter(|parameter| named_by.contains(&parameter.name.as_str()))
        .collect();
    let is_named = |name: &str| parameters.iter().any(|parameter| parameter.is_named(name));
    pairs
        .iter()
        .filter(|(name, id)| is_named(name) && is_id(id))
        .map(|(_, id)| id.clone())
        .take(MOST_IDS)
        .collect()
}

/// Returns the ids in an answer.
fn made(answer: &Answer) -> Vec<String> {
    let Answer::Fields(fields) = answer else {
        return Vec::new();
    };
    fields
        .iter()
        .filter(|(name, _)| name.ends_with("Id"))
        .filter_map(|(_, id)| id.as_str().filter(|id| is_id(id)).map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use domain::printable::EVIL;
    use serde_json::json;

    use super::*;
    use crate::operations;

    fn pairs(pairs: &[(&str, &str)]) -> Pairs {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn only_what_names_resources_is_kept() {
        let delete = Operation::named("DeleteReplicationJob").unwrap();
        let given = pairs(&[("JobId", "j-1"), ("Signature", "s"), ("JobId.1", "j-2")]);
        assert_eq!(named(delete, &given), ["j-1"]);
        let tag = Operation::named("TagResources").unwrap();
        let given = pairs(&[
            ("ResourceId.1", "s-1"),
            ("ResourceId.2", "s-2"),
            ("ResourceId.x", "s-3"),
            ("Tag.1.Value", "secret"),
        ]);
        assert_eq!(named(tag, &given), ["s-1", "s-2"]);
        let many = vec![("ResourceId.1".to_owned(), "s-1".to_owned()); 1000];
        assert_eq!(named(tag, &many).len(), MOST_IDS);
        for no_id in EVIL
            .iter()
            .copied()
            .chain(["", "a secret", "s-x 99  operator"])
        {
            assert!(
                named(delete, &pairs(&[("JobId", no_id)])).is_empty(),
                "{no_id:?}"
            );
        }
    }

    #[test]
    fn codes_and_secrets_are_not_among_what_was_made() {
        let answer = Answer::fields(&json!({ "AccessTokenId": "at-1", "AccessTokenCode": "c" }));
        assert_eq!(made(&answer), ["at-1"]);
        // This finds an operation that gives away a secret under a name that ends in Id.
        for operation in operations::all() {
            for field in operation
                .fields
                .iter()
                .filter(|field| field.path.ends_with("Id"))
            {
                let name = field.path.to_lowercase();
                assert!(!name.contains("secret") && !name.contains("code"), "{name}");
            }
        }
    }
}
