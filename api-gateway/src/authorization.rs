//! What a caller may do: each resource that a call touches is decided by policies (SMC API §4.2, §4.3).
//!
//! Parameters are not checked yet: who may not call learns nothing about them. A resource is named by what the parameter holds, however wrong;
//! which of a call's names are that parameter is said by the same rule that checks them later, so that nothing is touched that was not
//! decided.

use std::collections::BTreeSet;
use std::sync::Arc;

use domain::TenantId;
use domain::policy::{Circumstances, Decision, Policy, Request, decide};
use serde_json::{Value, json};
use smc::Pairs;
use store::key::AccessKey;

use crate::Refusal;
use crate::authentication::Caller;
use crate::gateway::Gateway;
use crate::operation::{Operation, Resource};
use crate::principal::Principal;
use crate::request::Incoming;

/// The policies by which a caller's calls are decided. Each kind that there is must allow.
#[derive(Debug, Clone)]
pub struct Rights {
    /// Those of the user; `None` is the account itself, which needs none.
    identity: Option<Arc<[Policy]>>,
    /// That of a temporary key.
    session: Option<Arc<Policy>>,
}

impl Rights {
    /// The rights of a verified key.
    pub fn of(key: &AccessKey) -> Self {
        Self {
            identity: key.user.as_ref().map(|user| Arc::clone(&user.policies)),
            session: key
                .temporary
                .as_ref()
                .and_then(|temporary| temporary.session_policy.clone()),
        }
    }

    /// The kind of policies that does not allow the request, and how.
    fn denial(&self, request: &Request<'_>) -> Option<(PolicyType, Decision)> {
        let session = self.session.iter().map(|policy| {
            let decision = decide([policy.as_ref()], request);
            (PolicyType::Session, decision)
        });
        let identity = self.identity.iter().map(|policies| {
            let decision = decide(policies.iter(), request);
            (PolicyType::Identity, decision)
        });
        session
            .chain(identity)
            .find(|(_, decision)| *decision != Decision::Allow)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PolicyType {
    Session,
    Identity,
}

impl PolicyType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Session => "SessionPolicy",
            Self::Identity => "AccountLevelIdentityBasedPolicy",
        }
    }
}

/// Decides whether the caller may touch everything that the call touches.
///
/// # Errors
/// `NoPermission` for the first resource that it may not touch.
pub fn authorize(gateway: &Gateway, incoming: &Incoming, caller: &Caller) -> Result<(), Refusal> {
    let circumstances = Circumstances {
        current_time: Some(gateway.clock.now()),
        is_secure: Some(incoming.origin.is_secure),
        source_ip: Some(incoming.origin.address),
        has_mfa: Some(false),
        source_vpc: None,
    };
    let action = format!("smc:{}", caller.operation.name);
    let account = format!("acs:smc:{}:{}", gateway.region_id, caller.tenant);
    for touched in touched(caller.operation, &incoming.pairs) {
        let resource = format!("{account}:{touched}");
        let request = Request {
            action: &action,
            resource: &resource,
            circumstances: &circumstances,
        };
        if let Some((kind, decision)) = caller.rights.denial(&request) {
            return Err(denied(caller, &request, kind, decision));
        }
    }
    Ok(())
}

/// What a call touches, as `kind/id`.
fn touched(operation: &Operation, pairs: &Pairs) -> BTreeSet<String> {
    let values = |parameter: &str| -> BTreeSet<&str> {
        let Some(parameter) = operation
            .parameters
            .iter()
            .find(|known| known.name == parameter)
        else {
            return BTreeSet::new();
        };
        pairs
            .iter()
            .filter(|(name, value)| !value.is_empty() && parameter.is_named(name))
            .map(|(_, value)| value.as_str())
            .collect()
    };
    let or_any = |values: BTreeSet<&'_ str>| -> Vec<String> {
        if values.is_empty() {
            vec!["*".to_owned()]
        } else {
            values.into_iter().map(str::to_owned).collect()
        }
    };
    let of = |resource: &Resource| -> Vec<String> {
        let kinds = match resource.kind_by {
            Some(parameter) => or_any(values(parameter)),
            None => vec![resource.kind.to_owned()],
        };
        let ids = or_any(resource.named_by.map(values).unwrap_or_default());
        kinds
            .iter()
            .flat_map(|kind| ids.iter().map(move |id| format!("{kind}/{id}")))
            .collect()
    };
    operation.resources.iter().flat_map(of).collect()
}

fn denied(caller: &Caller, request: &Request<'_>, kind: PolicyType, decision: Decision) -> Refusal {
    let how = match decision {
        Decision::ExplicitDeny => "ExplicitDeny",
        Decision::Allow | Decision::ImplicitDeny => "ImplicitDeny",
    };
    tracing::debug!(
        resource = request.resource,
        policies = kind.as_str(),
        how,
        "a policy does not allow this"
    );
    Refusal::no_permission(
        format!(
            "You are not authorized to do this action. Resource: {} Action: {}",
            request.resource, request.action
        ),
        detail(&caller.tenant, &caller.principal, request.action, kind, how),
    )
}

/// `AccessDeniedDetail` (SMC API §3.4). Nothing is encoded in it that the message does not say, so there is no `EncodedDiagnosticMessage`.
fn detail(
    tenant: &TenantId,
    principal: &Principal,
    action: &str,
    kind: PolicyType,
    how: &str,
) -> Value {
    let (principal_type, name) = match &principal.user {
        Some(user) => ("SubUser", user.id.as_str()),
        None => ("Account", tenant.as_str()),
    };
    json!({
        "AuthAction": action,
        "AuthPrincipalDisplayName": name,
        "AuthPrincipalOwnerId": tenant.as_str(),
        "AuthPrincipalType": principal_type,
        "NoPermissionType": how,
        "PolicyType": kind.as_str(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations;

    fn named(operation: &str, pairs: &[(&str, &str)]) -> Vec<String> {
        let pairs: Pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let operation = Operation::named(operation).expect("an operation");
        touched(operation, &pairs).into_iter().collect()
    }

    #[test]
    fn every_id_that_a_call_names_is_decided() {
        for (operation, pairs, wanted) in [
            ("DescribeSourceServers", &[][..], &["sourceServer/*"][..]),
            (
                "DescribeSourceServers",
                &[("SourceId.1", "s-1")],
                &["sourceServer/*"],
            ),
            (
                "DeleteSourceServer",
                &[("SourceId", "s-1")],
                &["sourceServer/s-1"],
            ),
            // What is given twice or not at all is refused later, but decided before.
            (
                "DeleteSourceServer",
                &[("SourceId", "s-1"), ("SourceId", "s-2")],
                &["sourceServer/s-1", "sourceServer/s-2"],
            ),
            (
                "DeleteSourceServer",
                &[("SourceId", "")],
                &["sourceServer/*"],
            ),
            (
                "CreateReplicationJob",
                &[("SourceId", "s-1")],
                &["replicationJob/*", "sourceServer/s-1"],
            ),
            (
                "AssociateSourceServers",
                &[
                    ("WorkgroupId", "w-1"),
                    ("SourceId.1", "s-1"),
                    ("SourceId.07", "s-2"),
                    ("SourceId.999999", "s-3"),
                ],
                &[
                    "sourceServer/s-1",
                    "sourceServer/s-2",
                    "sourceServer/s-3",
                    "workgroup/w-1",
                ],
            ),
            (
                "TagResources",
                &[("ResourceType", "sourceserver"), ("ResourceId.1", "s-1")],
                &["sourceserver/s-1"],
            ),
            ("ListTagResources", &[], &["*/*"]),
        ] {
            assert_eq!(named(operation, pairs), wanted, "{operation} {pairs:?}");
        }
    }

    /// A resource that is named by a parameter which the table does not have would never be looked at.
    #[test]
    fn every_resource_is_named_by_a_parameter_of_its_operation() {
        for operation in operations::ALL {
            assert!(!operation.resources.is_empty(), "{}", operation.name);
            for resource in operation.resources {
                for name in resource.named_by.iter().chain(&resource.kind_by) {
                    assert!(
                        operation
                            .parameters
                            .iter()
                            .any(|parameter| parameter.name == *name),
                        "{}: {name}",
                        operation.name
                    );
                }
            }
        }
    }
}
