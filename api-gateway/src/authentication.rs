//! The caller and the operation of a call. The checks of SMC API §3.3 run in their order, so that each single fault has
//! its documented code.
//!
//! A nonce is used up only after the signature matched; else a stranger could use up the nonces of others. It is used
//! up only after the call was counted: a call beyond its account's limits writes nothing.

mod claim;

use std::time::Duration;

use domain::seat::spoken;
use domain::{TenantId, Timestamp};
use smc::{API_VERSION, v1, v3};
use store::key::{AccessKey, is_security_token};

use crate::Refusal;
use crate::authorization::Rights;
use crate::gateway::Gateway;
use crate::operation::Operation;
use crate::principal::Principal;
use crate::request::Incoming;

pub use claim::Claim;
use claim::Signature;

/// Largest difference between a call's time and ours, either way.
const TOLERANCE: Duration = Duration::from_secs(15 * 60);

/// Time for which the nonces of an hour are remembered after its end. It covers the time in which a signature of that
/// hour is still valid. It is more than twice as long, since the clocks of gateways and of Postgres may differ.
pub const NONCE_KEPT_FOR: Duration = Duration::from_secs(60 * 60);

/// Longest nonce that is accepted.
const NONCE_LENGTH: usize = 128;

/// A verified caller.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The account.
    pub tenant: TenantId,
    /// The key, and its user.
    pub principal: Principal,
    /// The caller's rights.
    pub rights: Rights,
    /// The operation that is called.
    pub operation: &'static Operation,
}

/// The nonce of a verified call, which is not used up yet.
#[derive(Debug)]
pub struct Nonce<'a> {
    text: &'a str,
    signed_at: Timestamp,
}

impl Nonce<'_> {
    /// Uses up the nonce.
    ///
    /// A call that was throttled has not used up its nonce. A copy of it is accepted later: once, and only while its
    /// time is not over. The caller's signature allows this, and an SDK repeats such calls by itself. Of two copies
    /// never more than one is carried out, since each must use up its nonce here first.
    ///
    /// # Errors
    /// `SignatureNonceUsed`; the database fails.
    pub async fn use_up(self, gateway: &Gateway, caller: &Caller) -> Result<(), Refusal> {
        let key = &caller.principal.access_key_id;
        let store = &gateway.store;
        if store.use_nonce(key, self.text, self.signed_at).await? {
            return Ok(());
        }
        Err(Refusal::new(
            "SignatureNonceUsed",
            "Specified signature nonce was used already.",
        ))
    }
}

/// Verifies a call. Nothing is written: the nonce is still to be used up.
///
/// # Errors
/// The first check that fails.
pub async fn verify<'a>(
    gateway: &Gateway,
    incoming: &'a Incoming,
) -> Result<(Caller, Nonce<'a>), Refusal> {
    let claim = Claim::read(incoming)?;
    if claim.version != API_VERSION {
        return Err(Refusal::new(
            "InvalidVersion",
            "Specified parameter Version is not valid.",
        ));
    }
    let operation = Operation::named(claim.action).ok_or_else(Refusal::unknown_action)?;
    claim.check_scheme()?;
    let key = gateway
        .keys
        .access_key(claim.access_key_id)
        .await?
        .ok_or_else(Refusal::unknown_access_key)?;
    if !key.active {
        return Err(Refusal::new(
            "InvalidAccessKeyId.Inactive",
            "Specified access key is disabled.",
        ));
    }
    let now = gateway.clock.now();
    check_token(&key, claim.security_token, now)?;
    let signed_at = check_time(claim.timestamp, now)?;
    if claim.nonce.len() > NONCE_LENGTH {
        return Err(Refusal::invalid(
            "SignatureNonce",
            format!("It must have at most {NONCE_LENGTH} characters."),
        ));
    }
    check_signature(&claim, incoming, &key.secret)?;
    let nonce = Nonce {
        text: claim.nonce,
        signed_at,
    };
    let caller = Caller {
        principal: Principal::of(&key),
        rights: Rights::of(&key),
        tenant: key.tenant,
        operation,
    };
    Ok((caller, nonce))
}

/// Checks the session token: a temporary key signs with its token and in its time, and a permanent key has no token.
fn check_token(key: &AccessKey, token: Option<&str>, now: Timestamp) -> Result<(), Refusal> {
    let refused = |why: &str, sentence: &str| {
        let code = format!("InvalidSecurityToken.{why}");
        Err(Refusal::new(code, sentence))
    };
    match (&key.temporary, token) {
        (None, None) => Ok(()),
        (Some(_), None) => Err(Refusal::missing("SecurityToken")),
        (Some(_), Some(token)) if !is_security_token(token) => {
            refused("Malformed", "Specified SecurityToken is malformed.")
        }
        (Some(temporary), Some(token)) if key.has_security_token(token) => {
            if now < temporary.expires_at {
                return Ok(());
            }
            refused("Expired", "Specified SecurityToken is expired.")
        }
        (_, Some(_)) => refused(
            "MismatchWithAccessKey",
            "Specified SecurityToken is mismatch with the AccessKey.",
        ),
    }
}

fn check_time(text: &str, now: Timestamp) -> Result<Timestamp, Refusal> {
    let time: Timestamp = text.parse().map_err(|_| {
        Refusal::new(
            "InvalidTimeStamp.Format",
            "Specified time stamp or date value is not well formatted.",
        )
    })?;
    let (ahead, behind) = (time.since(now), now.since(time));
    if ahead.max(behind) > TOLERANCE {
        let off = if ahead > behind {
            format!("{} ahead of", spoken(ahead))
        } else {
            format!("{} behind", spoken(behind))
        };
        return Err(Refusal::new(
            "InvalidTimeStamp.Expired",
            format!(
                "Specified time stamp or date value is expired. It is {off} the server's time, which is {now}, and may \
                 be off by 15 minutes: set the clock of the caller (NTP), and sign the call anew."
            ),
        ));
    }
    Ok(time)
}

fn check_signature(claim: &Claim<'_>, incoming: &Incoming, secret: &str) -> Result<(), Refusal> {
    match &claim.signature {
        Signature::V1 { signature, .. } => {
            let text = v1::string_to_sign(&incoming.method, &incoming.pairs);
            if v1::verify(secret, &text, signature) {
                return Ok(());
            }
            // SDKs split this message at its colon and compare the rest with their own text.
            Err(Refusal::new(
                "SignatureDoesNotMatch",
                format!(
                    "Specified signature is not matched with our calculation. server string to sign is:{text}"
                ),
            ))
        }
        Signature::V3(authorization) => {
            let headers: Vec<(String, String)> = incoming
                .headers
                .iter()
                .map(|(name, value)| {
                    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                    (name.as_str().to_owned(), value)
                })
                .collect();
            let canonical = v3::canonical_request(&v3::Request {
                method: &incoming.method,
                path: &incoming.path,
                query: &incoming.query,
                headers: &headers,
                signed_headers: &authorization.signed_headers,
                body_sha256: &incoming.body_sha256,
            });
            let text = v3::string_to_sign(&canonical);
            if v3::verify(secret, &text, &authorization.signature) {
                return Ok(());
            }
            Err(Refusal::new(
                "SignatureDoesNotMatch",
                format!(
                    "Specified signature does not match our calculation. server StringToSign is [{text}] server CanonicalRequest is [{canonical}]"
                ),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_may_be_fifteen_minutes_off_either_way() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        for (time, code) in [
            ("2026-11-23T11:45:00Z", None),
            ("2026-11-23T12:15:00Z", None),
            ("2026-11-23T11:44:59Z", Some("InvalidTimeStamp.Expired")),
            ("2026-11-23T12:15:01Z", Some("InvalidTimeStamp.Expired")),
            ("2026-11-23T12:00:00", Some("InvalidTimeStamp.Format")),
            ("now", Some("InvalidTimeStamp.Format")),
        ] {
            let refusal = check_time(time, now).err();
            assert_eq!(
                refusal.as_ref().map(|refusal| refusal.code.as_ref()),
                code,
                "{time}"
            );
        }
    }

    #[test]
    fn a_call_that_is_too_far_off_is_told_by_how_much_and_in_which_direction() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        for (time, off) in [
            ("2026-11-23T09:30:00Z", "2 h 30 min behind the server's"),
            ("2026-11-23T12:16:05Z", "16 min 5 s ahead of the server's"),
        ] {
            let told = check_time(time, now).unwrap_err().message;
            assert!(
                told.contains(off) && told.contains("2026-11-23T12:00:00Z"),
                "{told}"
            );
        }
    }
}
