//! The answer of a call that is not done.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A call that is not done. All fields are texts: some SDKs stop at another type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Error {
    /// Stable, for programs. The examples are those of every call.
    pub code: String,
    /// The cause and the remedy, for people.
    pub message: String,
    /// Name of this call in the gateway's log.
    pub request_id: String,
    /// The name under which the caller knows the service.
    #[serde(default)]
    pub host_id: String,
    /// Always empty.
    #[serde(default)]
    pub recommend: String,
    /// With NoPermission: which policies do not allow the call, and how.
    pub access_denied_detail: Option<AccessDeniedDetail>,
}

/// The policies that do not allow a call, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct AccessDeniedDetail {
    /// The action that is not allowed, such as `smc:StartReplicationJob`.
    pub auth_action: String,
    /// Name or id of the caller.
    pub auth_principal_display_name: String,
    /// The account of the caller.
    pub auth_principal_owner_id: String,
    /// The kind of the caller.
    pub auth_principal_type: String,
    /// ExplicitDeny or ImplicitDeny.
    pub no_permission_type: String,
    /// The kind of the policies.
    pub policy_type: String,
}
