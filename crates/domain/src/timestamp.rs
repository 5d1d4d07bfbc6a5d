//! Wall-clock time as the SMC API writes it: `YYYY-MM-DDThh:mm:ssZ`, UTC, whole seconds.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, SubsecRound as _, Utc};
use serde::{Deserialize, Serialize};

/// A moment in UTC. It is printed and parsed in whole seconds and keeps the precision of its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(DateTime<Utc>);

/// The text is not a time of the form `YYYY-MM-DDThh:mm:ssZ`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a UTC time of the form YYYY-MM-DDThh:mm:ssZ")]
pub struct InvalidTimestamp(String);

const FORMAT: &str = "%Y-%m-%dT%H:%M:%SZ";

impl Timestamp {
    /// Returns the same moment as a chrono value, for Postgres.
    pub fn as_datetime(self) -> DateTime<Utc> {
        self.0
    }

    /// Returns the seconds since 1970-01-01T00:00:00Z.
    pub fn unix_seconds(self) -> i64 {
        self.0.timestamp()
    }

    /// Returns the moment that is `seconds` after 1970-01-01T00:00:00Z, if a calendar can express it.
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        DateTime::from_timestamp(seconds, 0).map(Self)
    }

    /// Returns the duration from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        (self.0 - earlier.0).to_std().unwrap_or_default()
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(moment: DateTime<Utc>) -> Self {
        Self(moment)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.trunc_subsecs(0).format(FORMAT).fmt(f)
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let invalid = || InvalidTimestamp(text.to_owned());
        // chrono accepts `2027-1-2` and a leap second; the API's form has neither.
        if !text.is_ascii() || text.len() != "2027-01-02T03:04:05Z".len() || &text[17..19] == "60" {
            return Err(invalid());
        }
        NaiveDateTime::parse_from_str(text, FORMAT)
            .map(|moment| Self(moment.and_utc()))
            .map_err(|_| invalid())
    }
}

impl TryFrom<String> for Timestamp {
    type Error = InvalidTimestamp;

    fn try_from(text: String) -> Result<Self, InvalidTimestamp> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(moment: Timestamp) -> String {
        moment.to_string()
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0 + by)
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, by: Duration) -> Self {
        Self(self.0 - by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_documented_form_is_read() {
        for good in ["2026-11-23T06:48:13Z", "2024-02-29T00:00:00Z"] {
            assert_eq!(good.parse::<Timestamp>().unwrap().to_string(), good);
        }
        for bad in [
            "2027-02-30T00:00:00Z",
            "2026-11-23T06:48:13.5Z",
            "2026-11-23T06:48:13+00:00",
            "2026-11-23 06:48:13Z",
            "2026-11-23T06:48:60Z",
            "2026-1-23T006:48:13Z",
            "",
            "ääääääääää",
        ] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad:?} must be refused");
        }
    }
}
