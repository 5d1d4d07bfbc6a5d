//! The operators of conditions (SMC API §4.3), and their comparisons.

use std::cmp::Ordering;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use ipnet::IpNet;

use super::wildcard::matches;

/// The comparison of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    Text(Likeness),
    Number(Order),
    Time(Order),
    Truth,
    Address,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Likeness {
    Equal,
    EqualIgnoringCase,
    Like,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    fn holds(self, found: Ordering) -> bool {
        match self {
            Self::Equal => found.is_eq(),
            Self::Less => found.is_lt(),
            Self::LessOrEqual => found.is_le(),
            Self::Greater => found.is_gt(),
            Self::GreaterOrEqual => found.is_ge(),
        }
    }
}

/// An operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operator {
    pub(super) name: &'static str,
    pub(super) relation: Relation,
    /// True if the operator holds when the relation does not.
    pub(super) is_negative: bool,
}

const fn positive(name: &'static str, relation: Relation) -> Operator {
    Operator {
        name,
        relation,
        is_negative: false,
    }
}

const fn negative(name: &'static str, relation: Relation) -> Operator {
    Operator {
        name,
        relation,
        is_negative: true,
    }
}

/// Every operator.
pub(super) const ALL: [Operator; 21] = [
    positive("StringEquals", Relation::Text(Likeness::Equal)),
    negative("StringNotEquals", Relation::Text(Likeness::Equal)),
    positive(
        "StringEqualsIgnoreCase",
        Relation::Text(Likeness::EqualIgnoringCase),
    ),
    negative(
        "StringNotEqualsIgnoreCase",
        Relation::Text(Likeness::EqualIgnoringCase),
    ),
    positive("StringLike", Relation::Text(Likeness::Like)),
    negative("StringNotLike", Relation::Text(Likeness::Like)),
    positive("NumericEquals", Relation::Number(Order::Equal)),
    negative("NumericNotEquals", Relation::Number(Order::Equal)),
    positive("NumericLessThan", Relation::Number(Order::Less)),
    positive(
        "NumericLessThanEquals",
        Relation::Number(Order::LessOrEqual),
    ),
    positive("NumericGreaterThan", Relation::Number(Order::Greater)),
    positive(
        "NumericGreaterThanEquals",
        Relation::Number(Order::GreaterOrEqual),
    ),
    positive("DateEquals", Relation::Time(Order::Equal)),
    negative("DateNotEquals", Relation::Time(Order::Equal)),
    positive("DateLessThan", Relation::Time(Order::Less)),
    positive("DateLessThanEquals", Relation::Time(Order::LessOrEqual)),
    positive("DateGreaterThan", Relation::Time(Order::Greater)),
    positive(
        "DateGreaterThanEquals",
        Relation::Time(Order::GreaterOrEqual),
    ),
    positive("Bool", Relation::Truth),
    positive("IpAddress", Relation::Address),
    negative("NotIpAddress", Relation::Address),
];

/// A value of a policy, parsed for its operator.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value {
    /// The text of the policy.
    pub(super) text: String,
    reading: Reading,
}

#[derive(Debug, Clone, PartialEq)]
enum Reading {
    Text,
    Number(f64),
    Time(DateTime<Utc>),
    Truth(bool),
    Network(IpNet),
}

impl Value {
    /// Parses a value for this relation. The error is a sentence about what the value should be.
    pub(super) fn read(relation: Relation, text: &str) -> Result<Self, &'static str> {
        let reading = match relation {
            Relation::Text(_) => Some(Reading::Text),
            Relation::Number(_) => number(text).map(Reading::Number),
            Relation::Time(_) => DateTime::parse_from_rfc3339(text)
                .ok()
                .map(|time| Reading::Time(time.to_utc())),
            Relation::Truth => truth(text).map(Reading::Truth),
            Relation::Address => network(text).map(Reading::Network),
        };
        let reading = reading.ok_or(match relation {
            Relation::Text(_) => "a text",
            Relation::Number(_) => "a number in quotes, such as \"10\" or \"2.5\"",
            Relation::Time(_) => "a time in quotes, such as \"2026-11-23T18:00:00Z\"",
            Relation::Truth => "\"true\" or \"false\", in quotes",
            Relation::Address => {
                "an address or a network, such as \"203.0.113.7\", \"203.0.113.0/24\" or \"2001:db8::/32\" (IPv4 not written as IPv6)"
            }
        })?;
        Ok(Self {
            text: text.to_owned(),
            reading,
        })
    }
}

fn number(text: &str) -> Option<f64> {
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'));
    text.parse()
        .ok()
        .filter(|number: &f64| is_plain && number.is_finite())
}

fn truth(text: &str) -> Option<bool> {
    [("true", true), ("false", false)]
        .into_iter()
        .find(|(name, _)| text.eq_ignore_ascii_case(name))
        .map(|(_, truth)| truth)
}

/// Parses a network; an address is a network of one. Callers with mapped IPv4 addresses are known by their IPv4
/// address, so a mapped network would match no caller and is refused.
fn network(text: &str) -> Option<IpNet> {
    let network = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .ok()?;
    let is_mapped = match network {
        IpNet::V4(_) => false,
        IpNet::V6(network) => network.addr().to_ipv4_mapped().is_some(),
    };
    (!is_mapped).then_some(network)
}

impl Relation {
    /// Returns true if `fact`, known of the call, has this relation to the value. `None` if the two can't be compared.
    pub(super) fn holds(self, fact: &str, value: &Value) -> Option<bool> {
        match (self, &value.reading) {
            (Self::Text(likeness), Reading::Text) => Some(match likeness {
                Likeness::Equal => fact == value.text,
                Likeness::EqualIgnoringCase => fact.to_lowercase() == value.text.to_lowercase(),
                Likeness::Like => matches(&value.text, fact, 0),
            }),
            (Self::Number(order), Reading::Number(wanted)) => number(fact)?
                .partial_cmp(wanted)
                .map(|found| order.holds(found)),
            (Self::Time(order), Reading::Time(wanted)) => {
                let time = DateTime::parse_from_rfc3339(fact).ok()?.to_utc();
                Some(order.holds(time.cmp(wanted)))
            }
            (Self::Truth, Reading::Truth(wanted)) => Some(truth(fact)? == *wanted),
            (Self::Address, Reading::Network(network)) => {
                let address: IpAddr = fact.parse().ok()?;
                Some(network.contains(&address.to_canonical()))
            }
            _ => None,
        }
    }
}
