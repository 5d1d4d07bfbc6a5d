//! Renewal of the agent's certificate. The certificate is valid for a year and is renewed after half of that. So a
//! stolen copy is useful for a year at most, and an agent that was away for half a year is still accepted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pki::{AGENT_VALIDITY, KeyPair};
use proto::agent as wire;
use tokio::time::Instant;
use tonic::transport::Endpoint;

use super::endpoint;
use crate::state_dir::{Registration, StateDir};
use crate::{Config, Error};

/// Pause after a failed renewal.
const PAUSE: Duration = Duration::from_secs(60 * 60);

/// The registration of this server, which contains its certificate, and the time to renew that.
#[derive(Debug)]
pub(crate) struct Renewal {
    state: Arc<StateDir>,
    key: KeyPair,
    registration: Registration,
    due: SystemTime,
    not_before: Option<Instant>,
}

impl Renewal {
    pub fn new(state: Arc<StateDir>, key: KeyPair, registration: Registration) -> Self {
        let due = due(&registration);
        Self {
            state,
            key,
            registration,
            due,
            not_before: None,
        }
    }

    /// Returns true if it is time to ask for a new certificate.
    pub fn is_due(&self) -> bool {
        SystemTime::now() >= self.due && self.not_before.is_none_or(|time| Instant::now() >= time)
    }

    /// Delays the next attempt.
    pub fn put_off(&mut self) {
        self.not_before = Some(Instant::now() + PAUSE);
    }

    /// Stores the new certificate, and returns the endpoint that uses it from the next connection on.
    pub fn renewed(
        &mut self,
        config: &Config,
        answer: wire::RenewResponse,
    ) -> Result<Endpoint, Error> {
        let registration = Registration {
            certificate_pem: answer.certificate_pem,
            ..self.registration.clone()
        };
        let is_ours = pki::certificate_der(&registration.certificate_pem)
            .and_then(|der| pki::public_key_der_of(&der))
            .is_ok_and(|key| key == self.key.public_key_der());
        if !is_ours {
            return Err(Error::Refused {
                server: config.server.to_string(),
                reason: "the new certificate is not over this agent's key".to_owned(),
            });
        }
        let endpoint = endpoint(config, &registration, &self.key)?;
        self.state.keep(&registration)?;
        self.due = due(&registration);
        self.registration = registration;
        Ok(endpoint)
    }
}

/// Returns the moment from which a certificate must be renewed. That is half of its life, or half a year if an earlier
/// version gave it a longer life. An unreadable certificate is due at once.
fn due(registration: &Registration) -> SystemTime {
    match validity(registration) {
        Some((begin, end)) => {
            let life = end.duration_since(begin).unwrap_or_default();
            begin + life.min(AGENT_VALIDITY) / 2
        }
        None => SystemTime::UNIX_EPOCH,
    }
}

/// Returns true if the certificate is no longer valid.
pub(crate) fn has_expired(registration: &Registration) -> bool {
    validity(registration).is_some_and(|(_, end)| SystemTime::now() > end)
}

fn validity(registration: &Registration) -> Option<(SystemTime, SystemTime)> {
    let der = pki::certificate_der(&registration.certificate_pem).ok()?;
    pki::validity_of(&der).ok()
}

#[cfg(test)]
mod tests {
    use domain::SourceId;
    use pki::{Authority, DEPLOYMENT_VALIDITY};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn a_certificate_is_due_at_half_of_its_life_and_never_after_half_a_year() {
        let authority = Authority::generate("Wherry deployment", DEPLOYMENT_VALIDITY).unwrap();
        let key = KeyPair::generate().unwrap();
        for (valid_for, wanted) in [
            (AGENT_VALIDITY, AGENT_VALIDITY / 2),
            (100 * DAY, 50 * DAY),
            (DEPLOYMENT_VALIDITY, AGENT_VALIDITY / 2),
        ] {
            let registration = Registration {
                source_id: SourceId::generate(),
                certificate_pem: authority
                    .issue_client_for("s-1", &key.public_key_der(), valid_for)
                    .unwrap(),
                authority_pem: String::new(),
            };
            let left = due(&registration)
                .duration_since(SystemTime::now())
                .unwrap();
            assert!(
                left <= wanted && left > wanted - DAY,
                "{left:?} of {valid_for:?}"
            );
            assert!(!has_expired(&registration));
        }
    }
}
