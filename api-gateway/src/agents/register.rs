//! The registration of a server as a source: the name that it gets, and the messages of a refusal.

use domain::name::Name;
use ring::digest::{SHA256, digest};
use store::agent::Refusal;
use tonic::{Code, Status};

use super::inventory::invalid;

/// Hashes the secret of an activation code. An access token keeps only this hash.
pub(super) fn code_hash(activation_secret: &str) -> Vec<u8> {
    digest(&SHA256, activation_secret.as_bytes())
        .as_ref()
        .to_vec()
}

/// Returns the name of a new source: the one that the operator chose, or one made from the host's name.
pub(super) fn name(wanted: &str, host_name: Option<&str>) -> Result<Name, Status> {
    if wanted.is_empty() {
        Ok(from_host_name(host_name.unwrap_or_default()))
    } else {
        Name::parse(wanted).map_err(|error| invalid(&format!("{wanted:?} is no name: {error}")))
    }
}

/// Makes a source's name from a host name, which has dots and may begin with a digit; a source's name may not.
fn from_host_name(host_name: &str) -> Name {
    let allowed = |character: char| {
        if character.is_alphanumeric() || character == '_' {
            character
        } else {
            '-'
        }
    };
    let cleaned: String = host_name.chars().map(allowed).take(100).collect();
    Name::parse(&cleaned)
        .or_else(|_| Name::parse(&format!("server-{cleaned}")))
        .expect("a letter, and letters, digits and dashes after it, are a name")
}

/// Returns the message that the agent prints when it may not register, with the remedy.
pub(super) fn refused(refusal: &Refusal) -> Status {
    let (code, message) = match refusal {
        Refusal::UnknownCode => (
            Code::Unauthenticated,
            "there is no such activation code: check that it was copied whole, or create a new one".to_owned(),
        ),
        Refusal::Expired => (
            Code::PermissionDenied,
            "the activation code has expired: create a new one".to_owned(),
        ),
        Refusal::Disabled => (
            Code::PermissionDenied,
            "the activation code has been disabled: create a new one".to_owned(),
        ),
        Refusal::UsedUp { max_count } => (
            Code::PermissionDenied,
            format!("the activation code has been used up: it was for {max_count} servers. Create a new one"),
        ),
        Refusal::QuotaReached { max_sources } => (
            Code::ResourceExhausted,
            format!(
                "the account has {max_sources} sources, which is its quota: delete sources that are no longer needed, or have the quota raised"
            ),
        ),
        Refusal::OtherTenant => (
            Code::PermissionDenied,
            "this server's key is registered with another account: give the agent another state directory".to_owned(),
        ),
        Refusal::Deleting => (
            Code::FailedPrecondition,
            "the source of this server is being deleted: try again when it is gone, or give the agent another state directory".to_owned(),
        ),
    };
    Status::new(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_name_gives_a_name() {
        for (host_name, wanted) in [
            ("web-01", "web-01"),
            ("web01.example.com", "web01-example-com"),
            ("3par", "server-3par"),
            ("", "server-"),
            ("x", "server-x"),
            ("-", "server--"),
            ("http://a", "http---a"),
            ("köln", "köln"),
        ] {
            assert_eq!(from_host_name(host_name).as_str(), wanted);
        }
        assert!(from_host_name(&"1".repeat(300)).as_str().len() <= 128);
    }

    #[test]
    fn a_chosen_name_is_taken_as_it_is_or_refused() {
        assert_eq!(name("db-1", Some("host")).unwrap().as_str(), "db-1");
        assert_eq!(name("1 2", None).unwrap_err().code(), Code::InvalidArgument);
    }
}
