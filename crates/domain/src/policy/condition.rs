//! Conditions: requirements on a call besides its action and resource.

use std::net::IpAddr;

use super::document::Effect;
use super::operator::{Operator, Relation, Value};
use crate::Timestamp;

/// Facts that conditions can test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `acs:CurrentTime`.
    CurrentTime,
    /// `acs:SecureTransport`: true if the call came over TLS.
    SecureTransport,
    /// `acs:SourceIp`.
    SourceIp,
    /// `acs:MFAPresent`: true if the caller proved a second factor.
    MfaPresent,
    /// `acs:SourceVpc`.
    SourceVpc,
}

impl Key {
    /// Every key.
    pub const ALL: [Self; 5] = [
        Self::CurrentTime,
        Self::SecureTransport,
        Self::SourceIp,
        Self::MfaPresent,
        Self::SourceVpc,
    ];

    /// Returns the name in policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CurrentTime => "acs:CurrentTime",
            Self::SecureTransport => "acs:SecureTransport",
            Self::SourceIp => "acs:SourceIp",
            Self::MfaPresent => "acs:MFAPresent",
            Self::SourceVpc => "acs:SourceVpc",
        }
    }

    /// Returns true if the key's values can be compared by `relation`. An impossible comparison never holds, so in a
    /// Deny it would forbid nothing.
    pub(super) fn can_be(self, relation: Relation) -> bool {
        match relation {
            Relation::Text(_) => true,
            Relation::Number(_) => self == Self::SourceVpc,
            Relation::Time(_) => self == Self::CurrentTime,
            Relation::Truth => matches!(self, Self::SecureTransport | Self::MfaPresent),
            Relation::Address => self == Self::SourceIp,
        }
    }

    /// Returns the operators of the key's own kind, for a sentence.
    pub(super) fn operators(self) -> &'static str {
        match self {
            Self::CurrentTime => "Date… or String… operators",
            Self::SecureTransport | Self::MfaPresent => "Bool or String… operators",
            Self::SourceIp => "IpAddress, NotIpAddress or String… operators",
            Self::SourceVpc => "String… or Numeric… operators",
        }
    }
}

/// Known facts of a call. An unknown fact is `None`: positive operators don't match it, negative ones do. An unknown
/// address is the exception, because it could be any address. It meets each condition of a Deny and none of an Allow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Time of the decision.
    pub current_time: Option<Timestamp>,
    /// True if the call came over TLS.
    pub is_secure: Option<bool>,
    /// Address that the call came from.
    pub source_ip: Option<IpAddr>,
    /// True if the caller proved a second factor.
    pub has_mfa: Option<bool>,
    /// The virtual network that the call came from.
    pub source_vpc: Option<String>,
}

impl Circumstances {
    /// Returns the fact in the form that operators read. Times have whole seconds.
    fn fact(&self, key: Key) -> Option<String> {
        match key {
            Key::CurrentTime => self.current_time.map(|time| time.to_string()),
            Key::SecureTransport => self.is_secure.map(|truth| truth.to_string()),
            Key::SourceIp => self
                .source_ip
                .map(|address| address.to_canonical().to_string()),
            Key::MfaPresent => self.has_mfa.map(|truth| truth.to_string()),
            Key::SourceVpc => self.source_vpc.clone(),
        }
    }
}

/// One operator with one key, and the values that are ORed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    pub(super) operator: Operator,
    pub(super) key: Key,
    pub(super) values: Vec<Value>,
}

impl Condition {
    /// Returns true if the condition is met. A negative operator is met if none of its values applies.
    pub(super) fn is_met(&self, effect: Effect, circumstances: &Circumstances) -> bool {
        if self.key == Key::SourceIp && circumstances.source_ip.is_none() {
            return effect == Effect::Deny;
        }
        let holds_for_any = circumstances.fact(self.key).is_some_and(|fact| {
            self.values.iter().any(|value| {
                self.operator
                    .relation
                    .holds(&fact, value)
                    .unwrap_or_default()
            })
        });
        holds_for_any != self.operator.is_negative
    }
}
