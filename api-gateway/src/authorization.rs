//! The rights of a caller: policies decide each resource that a call touches (SMC API §4.2, §4.3).
//!
//! Parameters are not checked yet: a caller without the right learns nothing about them. The parameter's text names the
//! resource, however wrong the text. The rule that checks parameters later also decides here which names of a call are
//! that parameter. So no resource is touched without a decision.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::{fmt, slice};

use domain::TenantId;
use domain::policy::{Circumstances, Decision, Policy, Request, decide};
use smc::Pairs;
use smc::model::AccessDeniedDetail;
use store::key::AccessKey;

use crate::Refusal;
use crate::authentication::Caller;
use crate::gateway::Gateway;
use crate::operation::{Operation, Place, Resource};
use crate::principal::Principal;
use crate::request::Incoming;

/// All resources of a kind.
const ANY: &str = "*";

/// The parameter that names a region.
const REGION_ID: &str = "RegionId";

/// The policies by which a caller's calls are decided. Each kind of policies that exists must allow the call.
#[derive(Debug, Clone)]
pub struct Rights {
    /// The policies of the user; `None` is the account itself, which needs none.
    identity: Option<Arc<[Policy]>>,
    /// The session policy of a temporary key.
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

    /// Returns true if no policy restricts the caller: it is the account itself.
    fn are_unlimited(&self) -> bool {
        self.identity.is_none() && self.session.is_none()
    }

    /// Returns the kind of policies that does not allow the request, and its decision.
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

/// Decides if the caller may touch everything that the call touches.
///
/// # Errors
/// `NoPermission` for the first resource that it may not touch.
pub async fn authorize(
    gateway: &Gateway,
    incoming: &Incoming,
    caller: &Caller,
) -> Result<(), Refusal> {
    if caller.rights.are_unlimited() {
        return Ok(());
    }
    let circumstances = Circumstances {
        current_time: Some(gateway.clock.now()),
        is_secure: Some(incoming.origin.is_secure),
        source_ip: incoming.origin.address,
        has_mfa: Some(false),
        source_vpc: None,
    };
    let action = format!("smc:{}", caller.operation.name);
    let touched = touched(caller.operation, &incoming.pairs);
    let regions = Regions::of(gateway, &caller.tenant, &touched, &incoming.pairs).await?;
    for touched in &touched {
        for region in regions.of_touched(touched) {
            let resource = format!("acs:smc:{region}:{}:{touched}", caller.tenant);
            let request = Request {
                action: &action,
                resource: &resource,
                circumstances: &circumstances,
            };
            if let Some((kind, decision)) = caller.rights.denial(&request) {
                return Err(denied(caller, &request, kind, decision));
            }
        }
    }
    Ok(())
}

/// A resource that a call touches; `*` for all of a kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Touched {
    kind: String,
    id: String,
    place: Place,
}

impl fmt::Display for Touched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.id)
    }
}

/// The regions in which the resources of a call lie.
#[derive(Debug)]
struct Regions {
    own: String,
    /// The regions that the call names.
    asked: Vec<String>,
    /// The regions of the account: a list without a region covers all of them.
    all: Vec<String>,
    /// The region of each stored resource, by its id.
    stored: HashMap<String, String>,
}

impl Regions {
    async fn of(
        gateway: &Gateway,
        tenant: &TenantId,
        touched: &BTreeSet<Touched>,
        pairs: &Pairs,
    ) -> Result<Self, Refusal> {
        let own = gateway.region_id.clone();
        let asked = pairs
            .iter()
            .filter(|(name, value)| name == REGION_ID && !value.is_empty())
            .map(|(_, value)| value.clone());
        let mut regions = Self {
            asked: asked.collect(),
            all: vec![own.clone()],
            own,
            stored: HashMap::new(),
        };
        let ids = touched
            .iter()
            .filter(|touched| touched.place == Place::Stored && touched.id != ANY)
            .map(|touched| touched.id.clone());
        let ids: Vec<String> = ids.collect();
        if !ids.is_empty() {
            regions.stored = gateway.store.regions_of(tenant, &ids).await?;
        }
        let lists_all = |touched: &Touched| match touched.place {
            Place::Own | Place::AskedOrOwn => false,
            Place::Asked => regions.asked.is_empty(),
            Place::Stored => touched.id == ANY,
        };
        if touched.iter().any(lists_all) {
            regions.all.extend(gateway.store.regions(tenant).await?);
        }
        Ok(regions)
    }

    /// Returns the regions of a resource. One that does not exist is decided in the gateway's own region: its caller
    /// learns only that it does not exist.
    fn of_touched(&self, touched: &Touched) -> &[String] {
        match touched.place {
            Place::Own => slice::from_ref(&self.own),
            Place::AskedOrOwn if self.asked.is_empty() => slice::from_ref(&self.own),
            Place::Asked if self.asked.is_empty() => &self.all,
            Place::Asked | Place::AskedOrOwn => &self.asked,
            Place::Stored if touched.id == ANY => &self.all,
            Place::Stored => slice::from_ref(self.stored.get(&touched.id).unwrap_or(&self.own)),
        }
    }
}

/// Checks that every resource that the call names is among the decided ones.
///
/// # Panics
/// If one is not: it would be touched without being allowed.
pub fn every_touched_is_named(operation: &Operation, pairs: &Pairs) {
    let touched = touched(operation, pairs);
    for resource in operation.resources {
        let Some(name) = resource.named_by else {
            continue;
        };
        for parameter in operation
            .parameters
            .iter()
            .filter(|known| known.name == name)
        {
            for (name, id) in pairs.iter().filter(|(name, _)| parameter.is_named(name)) {
                let is_decided = id.is_empty() || touched.iter().any(|one| one.id == *id);
                assert!(is_decided, "{}: {name}={id}", operation.name);
            }
        }
    }
}

/// Returns the resources that a call touches.
fn touched(operation: &Operation, pairs: &Pairs) -> BTreeSet<Touched> {
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
            vec![ANY.to_owned()]
        } else {
            values.into_iter().map(str::to_owned).collect()
        }
    };
    let of = |resource: &Resource| -> Vec<Touched> {
        let kinds = match resource.kind_by {
            Some(parameter) => or_any(values(parameter)),
            None => vec![resource.kind.to_owned()],
        };
        let ids = or_any(resource.named_by.map(values).unwrap_or_default());
        kinds
            .iter()
            .flat_map(|kind| {
                ids.iter().map(move |id| Touched {
                    kind: kind.clone(),
                    id: id.clone(),
                    place: resource.place,
                })
            })
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
            "You are not authorized to do this action. You should be authorized by RAM. Resource: {} Action: {}",
            request.resource, request.action
        ),
        detail(&caller.tenant, &caller.principal, request.action, kind, how),
    )
}

/// Returns `AccessDeniedDetail` (SMC API §3.4). The message already has everything, so there is no
/// `EncodedDiagnosticMessage`.
fn detail(
    tenant: &TenantId,
    principal: &Principal,
    action: &str,
    kind: PolicyType,
    how: &str,
) -> AccessDeniedDetail {
    let (principal_type, name) = match &principal.user {
        Some(user) => ("SubUser", user.id.as_str()),
        None => ("Account", tenant.as_str()),
    };
    AccessDeniedDetail {
        auth_action: action.to_owned(),
        auth_principal_display_name: name.to_owned(),
        auth_principal_owner_id: tenant.to_string(),
        auth_principal_type: principal_type.to_owned(),
        no_permission_type: how.to_owned(),
        policy_type: kind.as_str().to_owned(),
    }
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
        let touched = touched(operation, &pairs);
        touched.iter().map(ToString::to_string).collect()
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
            // A parameter that is given twice or not at all is refused later, but decided before.
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

    /// A resource that is named by a parameter outside the table would never be decided.
    #[test]
    fn every_resource_is_named_by_a_parameter_of_its_operation() {
        for operation in operations::all() {
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
