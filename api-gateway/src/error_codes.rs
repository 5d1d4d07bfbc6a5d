//! The errors of the API: those that every call can have, and the texts that SMC has for codes.
//!
//! Debug builds, and with them all tests, stop at a code that neither the operation nor the list below names. They also
//! stop at a message that does not begin with its code's text. So the reference and the OpenAPI page have every error
//! that callers see. The types of answers describe the answers' fields.

use crate::Refusal;
use crate::operation::Operation;

/// An error that every call can have.
pub struct CommonError {
    /// Its code.
    pub code: &'static str,
    /// Its HTTP status.
    pub status: u16,
    /// The condition for which it is answered.
    pub when: &'static str,
}

const fn error(code: &'static str, status: u16, when: &'static str) -> CommonError {
    CommonError { code, status, when }
}

/// The errors that every call can have, beside `Missing…` and `Invalid…` of its parameters.
pub const COMMON: &[CommonError] = &[
    error("UnsupportedHTTPMethod", 400, "neither GET nor POST"),
    error("InvalidVersion", 400, "another version than 2019-06-01"),
    error(
        "InvalidAction.NotFound",
        404,
        "no such operation, or a path that is neither `/` nor `/` and its name",
    ),
    error(
        "InvalidSignatureMethod",
        400,
        "another method than HMAC-SHA1 in V1",
    ),
    error(
        "InvalidSignatureVersion",
        400,
        "another version than 1.0 in V1",
    ),
    error(
        "IncompleteSignature",
        400,
        "a V3 header that can't be read, or that signs too little",
    ),
    error(
        "InvalidAccessKeyId.NotFound",
        404,
        "the access key does not exist",
    ),
    error(
        "InvalidAccessKeyId.Inactive",
        400,
        "the access key is switched off",
    ),
    error(
        "MissingSecurityToken",
        400,
        "the access key is a temporary one and came without its security token",
    ),
    error(
        "InvalidSecurityToken.Expired",
        400,
        "the security token's time is over",
    ),
    error(
        "InvalidSecurityToken.Malformed",
        400,
        "the security token is none at all",
    ),
    error(
        "InvalidSecurityToken.MismatchWithAccessKey",
        400,
        "the security token is another key's",
    ),
    error(
        "InvalidTimeStamp.Format",
        400,
        "the time stamp can't be read",
    ),
    error(
        "InvalidTimeStamp.Expired",
        400,
        "the time stamp is more than 15 minutes off",
    ),
    error("SignatureDoesNotMatch", 400, "the signature is wrong"),
    error(
        "SignatureNonceUsed",
        400,
        "the signature's nonce was used before",
    ),
    error(
        "InvalidProtocol.NeedSsl",
        400,
        "the call came over plain HTTP, and this service wants HTTPS",
    ),
    error(
        "Throttling.User",
        400,
        "too many calls of the account: `x-acs-retry-after` says in how many milliseconds to try again",
    ),
    error(
        "Throttling.Api",
        400,
        "too many calls of this operation: `x-acs-retry-after` says in how many milliseconds to try again",
    ),
    error(
        "NoPermission",
        403,
        "the user's policies, or the temporary key's, do not allow it: `AccessDeniedDetail` says how; see [policies](policies.md)",
    ),
    error(
        "InvalidParameter",
        400,
        "a parameter is not UTF-8, or has a NUL character, or a body of JSON is no object",
    ),
    error(
        "RequestTooLarge",
        413,
        "the body is too large, or there are too many parameters",
    ),
    error(
        "InternalError",
        500,
        "a defect: the gateway's log has its cause",
    ),
    error(
        "ServiceUnavailable",
        503,
        "the database is away, slow or busy: try again",
    ),
];

/// The texts in SMC's tables of codes (SMC API §1, §2, §4.1). A message begins with its code's text, and more may
/// follow (`docs/decisions/0010-messages.md`). The call fills the place between two parts of a text.
const TEXTS: &[(&str, &[&str])] = &[
    (
        "UnsupportedHTTPMethod",
        &["This http method is not supported."],
    ),
    (
        "InvalidVersion",
        &["Specified parameter Version is not valid."],
    ),
    (
        "InvalidAction.NotFound",
        &["Specified api is not found, please check your url and method."],
    ),
    (
        "InvalidSignatureMethod",
        &["Specified signature method is not valid."],
    ),
    (
        "IncompleteSignature",
        &["The request signature does not conform to Aliyun standards."],
    ),
    (
        "InvalidAccessKeyId.NotFound",
        &["Specified access key is not found."],
    ),
    (
        "InvalidAccessKeyId.Inactive",
        &["Specified access key is disabled."],
    ),
    (
        "InvalidTimeStamp.Format",
        &["Specified time stamp or date value is not well formatted."],
    ),
    (
        "InvalidTimeStamp.Expired",
        &["Specified time stamp or date value is expired."],
    ),
    (
        "SignatureNonceUsed",
        &["Specified signature nonce was used already."],
    ),
    (
        "InvalidProtocol.NeedSsl",
        &["Your request is denied as lack of ssl protect."],
    ),
    (
        "Throttling.User",
        &["Request was denied due to user flow control."],
    ),
    (
        "Throttling.Api",
        &["Request was denied due to api flow control."],
    ),
    (
        "NoPermission",
        &["You are not authorized to do this action. You should be authorized by RAM."],
    ),
    (
        "InternalError",
        &[
            "An error occurred while processing your request. Please try again. If the problem still exists, please submit a ticket.",
        ],
    ),
    (
        "ServiceUnavailable",
        &["The request has failed due to a temporary failure of the server."],
    ),
    (
        "UnsupportedOperation",
        &["The specified action is not supported."],
    ),
    (
        "IdempotentParameterMismatch",
        &["The request uses the same client token as a previous, but non-identical request."],
    ),
    (
        "SourceServerState.Invalid",
        &[
            "The specified source server status: ",
            " is invalid. This operation can only be performed in the following status: ",
            ".",
        ],
    ),
    (
        "SourceServer.WithRunningReplicationJob",
        &["The specified source server has related replication jobs that are running."],
    ),
    (
        "ReplicationJob.Related",
        &[
            "The specified source server has related replication jobs. Please delete replication jobs: ",
            " before delete this source server.",
        ],
    ),
    (
        "SourceServerName.Duplicate",
        &["The specified source server name already exists. Please modify the source server name."],
    ),
    (
        "ReplicationJobDataDiskIndex.Invalid",
        &["The specified replication job contains data disk index not found in source server."],
    ),
    (
        "VSwitchIdVpcId.Mismatch",
        &["The specified VSwitchId and VpcId does not match."],
    ),
    (
        "QuotaExceeded.ReplicationJob",
        &[
            "The maximum number of replication jobs is exceeded. Please submit a ticket to raise the quota.",
        ],
    ),
    (
        "ReplicationJobName.Duplicate",
        &["The specified replication job name already exists."],
    ),
    (
        "DataDisk.DuplicateIndex",
        &["The source server data disk cannot contain the same index."],
    ),
    (
        "ReplicationJob.InvalidStatus",
        &[
            "The specified replication job status: ",
            " is invalid. This operation can only be performed in the following status: ",
            ".",
        ],
    ),
    (
        "ReplicationJob.InvalidBusinessStatus",
        &[
            "The specified business status: ",
            " of the replication job is invalid. This operation can only be performed in the following status: ",
            ".",
        ],
    ),
    (
        "NumberExceed.Tags",
        &["The maximum number of the Tag parameters cannot exceed 20."],
    ),
    (
        "MissingParameter.ResourceType",
        &["You must specify ResourceType."],
    ),
    (
        "InvalidResourceType.NotFound",
        &["The specified ResourceType does not exist."],
    ),
    (
        "NumberExceed.ResourceIds",
        &["The maximum number of ResourceId parameters cannot exceed 50."],
    ),
    (
        "Duplicate.ResourceId",
        &["The ResourceId contains duplicate values."],
    ),
    (
        "InvalidResourceId.NotFound",
        &["The specified ResourceIds do not exist."],
    ),
];

/// Stops a debug build at a refusal that the tables do not have.
pub fn check(operation: &Operation, refusal: &Refusal) {
    if cfg!(debug_assertions)
        && let Some(flaw) = flaw_of(operation, refusal)
    {
        panic!("{}: {flaw}", operation.name);
    }
}

fn flaw_of(operation: &Operation, refusal: &Refusal) -> Option<String> {
    let code = refusal.code.as_ref();
    let status = refusal.status.as_u16();
    if let Some(common) = COMMON.iter().find(|common| common.code == code) {
        if common.status != status {
            return Some(format!("{code} has status {status}"));
        }
    } else if !operation.refusals.contains(&code) && !is_of_a_parameter(operation, code) {
        return Some(format!(
            "it refuses with {code}, which its table does not have"
        ));
    }
    (!begins_with_its_text(operation, code, &refusal.message))
        .then(|| format!("the message of {code} is {:?}", refusal.message))
}

/// Returns true if the code is that of a parameter's rule.
fn is_of_a_parameter(operation: &Operation, code: &str) -> bool {
    operation.parameters.iter().any(|parameter| {
        let name = parameter.code_name();
        let list = parameter.name.split('.').next().unwrap_or_default();
        code.strip_prefix("Missing")
            .is_some_and(|missing| missing == name && parameter.is_required)
            || code
                .strip_prefix("Invalid")
                .is_some_and(|invalid| invalid == name || (invalid == list && parameter.most > 0))
    })
}

fn begins_with_its_text(operation: &Operation, code: &str, message: &str) -> bool {
    if let Some((_, parts)) = TEXTS.iter().find(|(known, _)| *known == code) {
        let mut rest = message;
        return parts.iter().enumerate().all(|(number, part)| {
            let Some(at) = rest.find(part).filter(|&at| number > 0 || at == 0) else {
                return false;
            };
            rest = &rest[at + part.len()..];
            true
        });
    }
    let name = |prefix| code.strip_prefix(prefix);
    let is_parameter = |name: &str| {
        let mut parameters = operation.parameters.iter();
        parameters.any(|parameter| parameter.code_name() == name)
    };
    if let Some(name) = name("Missing").filter(|name| is_parameter(name)) {
        return message.starts_with(&format!("{name} is mandatory for this action."));
    }
    if let Some(name) = name("Invalid").filter(|name| is_parameter(name)) {
        return message.starts_with(&format!("Specified parameter {name} is not valid."));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations;

    fn flaw(refusal: &Refusal) -> Option<String> {
        let operation = Operation::named("ModifyReplicationJobAttribute").expect("an operation");
        flaw_of(operation, refusal)
    }

    #[test]
    fn what_the_tables_have_passes() {
        for refusal in [
            Refusal::missing("JobId"),
            Refusal::invalid("Name", "It must be shorter."),
            Refusal::not_found("JobId"),
            Refusal::internal(),
            Refusal::unavailable(),
        ] {
            let code = refusal.code.clone();
            assert_eq!(flaw(&refusal), None, "{code}");
        }
    }

    #[test]
    fn what_they_do_not_have_is_caught() {
        for refusal in [
            Refusal::new("ReplicationJob.Lost", "It is lost."),
            Refusal::new(
                "InvalidSourceId.NotFound",
                "The specified SourceId does not exist.",
            ),
            Refusal::missing("Name"),
            Refusal::new("MissingJobId", "Give a JobId."),
            Refusal::new(
                "InternalError",
                "An error occurred while processing your request. Please try again. If the problem still exists, please submit a ticket.",
            ),
            Refusal::new("ReplicationJob.InvalidStatus", "The job runs."),
            Refusal::new(
                "ReplicationJob.InvalidStatus",
                "Sorry. The specified replication job status: Running is invalid.",
            ),
        ] {
            let code = refusal.code.clone();
            assert!(flaw(&refusal).is_some(), "{code}");
        }
    }

    #[test]
    fn every_text_is_that_of_a_code_that_can_be_answered() {
        for (code, _) in TEXTS {
            let is_common = COMMON.iter().any(|common| common.code == *code);
            let is_of_an_operation = operations::all()
                .iter()
                .any(|operation| operation.refusals.contains(code));
            assert!(is_common || is_of_an_operation, "{code}");
        }
    }
}
