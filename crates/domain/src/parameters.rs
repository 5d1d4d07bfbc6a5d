//! `ReplicationParameters`: a JSON object text that tunes one job's transfer (SMC API §1.4).

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rate::Rate;

/// Longest accepted text, in characters.
pub const MAX_LENGTH: usize = 2048;

/// The settings that the text requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationParameters {
    /// Maximum number of bytes per second that the agent sends; `None` is no limit. On the wire: Kbit/s, 0 for no
    /// limit.
    pub bandwidth_limit_bytes_per_sec: Option<u64>,
    /// zstd level 1–19; `Some(0)` disables compression; `None` lets the sender balance link and processor.
    pub compress_level: Option<i32>,
    /// Treatment of sectors that can't be read.
    pub bad_sectors: BadSectors,
    /// Verifies the target before the receipt: the target is read again and the roots are compared.
    pub checksum: bool,
    /// Sends the copy over TLS on TCP only, for networks that let nothing else through.
    pub tunnel: bool,
    /// Load that the agent may put on its server.
    pub efficiency_level: EfficiencyLevel,
    /// Treatment of free space.
    #[serde(default)]
    pub free_space: FreeSpace,
    /// Treatment of a copy whose disk was written meanwhile.
    #[serde(default)]
    pub consistency: Consistency,
}

/// Treatment of a copy whose disk was written between the first read and the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// The copy is not delivered. A delivered image is what the disks held at one moment, as after a crash of the
    /// server.
    #[default]
    Crash,
    /// The copy is delivered and reported as not one moment in time.
    Fuzzy,
}

impl Consistency {
    /// Every value.
    pub const ALL: [Self; 2] = [Self::Crash, Self::Fuzzy];

    /// Returns the name that people write.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Fuzzy => "fuzzy",
        }
    }
}

impl FromStr for Consistency {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|what| text.eq_ignore_ascii_case(what.as_str()))
            .ok_or("crash or fuzzy")
    }
}

/// Treatment of space that the file systems of a disk do not use. Space can be skipped if it is certain to be free
/// while nothing writes to the disk. The image then has zeros there instead of the remains of deleted files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FreeSpace {
    /// Free space is left out where that is safe.
    #[default]
    Skip,
    /// Free space is copied like everything else.
    Copy,
}

impl FreeSpace {
    /// Every value.
    pub const ALL: [Self; 2] = [Self::Skip, Self::Copy];

    /// Returns the name that people write.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Copy => "copy",
        }
    }
}

impl FromStr for FreeSpace {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|what| text.eq_ignore_ascii_case(what.as_str()))
            .ok_or("skip or copy")
    }
}

/// Load that the agent may put on its server. On the wire: 1 to 3.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EfficiencyLevel {
    /// 1: the source has other things to do.
    Gentle,
    /// 2.
    #[default]
    Usual,
    /// 3: the source is there to be copied.
    Full,
}

impl EfficiencyLevel {
    /// Returns the level with this number.
    #[must_use]
    pub fn from_number(level: u64) -> Option<Self> {
        match level {
            1 => Some(Self::Gentle),
            2 => Some(Self::Usual),
            3 => Some(Self::Full),
            _ => None,
        }
    }

    fn number(self) -> u64 {
        match self {
            Self::Gentle => 1,
            Self::Usual => 2,
            Self::Full => 3,
        }
    }

    /// Returns the number of parallel streams of the copy. Each has a thread on the source that reads, hashes and
    /// compresses.
    #[must_use]
    pub fn streams(self) -> u32 {
        match self {
            Self::Gentle => 1,
            Self::Usual => 2,
            Self::Full => 4,
        }
    }
}

/// Treatment of sectors that a source's disk can't read after several tries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadSectors {
    /// The run fails and reports the disk and the offset.
    #[default]
    Fail,
    /// The image has zeros in place of the sectors, and its manifest lists them.
    Zero,
}

impl BadSectors {
    /// Returns the policy with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Fail, Self::Zero]
            .into_iter()
            .find(|policy| policy.as_str() == name)
    }

    /// Returns the name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Zero => "zero",
        }
    }
}

/// The text can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidParameters {
    /// Not a JSON object.
    #[error(
        "ReplicationParameters must be a JSON object such as {{\"bandwidth_limit\":0,\"compress_level\":1,\"checksum\":true}}"
    )]
    NotAnObject,
    /// Longer than [`MAX_LENGTH`].
    #[error("ReplicationParameters must have at most {MAX_LENGTH} characters")]
    TooLong,
    /// An unknown key.
    #[error("ReplicationParameters must not have the key {0:?}: docs/api.md lists the known keys")]
    UnknownKey(String),
    /// A value out of range or of another type.
    #[error("ReplicationParameters: {key} must be {wanted}")]
    InvalidValue {
        /// The key as it was given.
        key: String,
        /// Description of the allowed values.
        wanted: &'static str,
    },
}

impl ReplicationParameters {
    /// Parses the text, with the keys of both generations (`BandwidthLimit` and `bandwidth_limit`, in any case). The
    /// contract's own example `BandWidthLimit:0` is not JSON. It is read as it is meant: pairs of key and value.
    pub fn parse(text: &str) -> Result<Self, InvalidParameters> {
        if text.chars().count() > MAX_LENGTH {
            return Err(InvalidParameters::TooLong);
        }
        let mut parameters = Self::default();
        for (key, value) in pairs(text)? {
            parameters.set(&key, &value)?;
        }
        Ok(parameters)
    }

    /// Limits the copy to this rate, or lifts the limit.
    pub fn set_bandwidth_limit(&mut self, limit: Option<Rate>) {
        self.bandwidth_limit_bytes_per_sec = limit.map(|limit| limit.kilobits_per_sec() * 125);
    }

    /// Returns the text that requests these settings, without the defaults.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut pairs = serde_json::Map::new();
        let mut say = |key: &str, value: Option<Value>| {
            pairs.extend(value.map(|value| (key.to_owned(), value)));
        };
        let kilobits = self.bandwidth_limit_bytes_per_sec.map(|limit| limit / 125);
        say("bandwidth_limit", kilobits.map(Value::from));
        say("compress_level", self.compress_level.map(Value::from));
        let policy = Some(self.bad_sectors).filter(|policy| *policy != BadSectors::default());
        say("bad_sectors", policy.map(|policy| policy.as_str().into()));
        say("checksum", self.checksum.then_some(Value::Bool(true)));
        let level =
            Some(self.efficiency_level).filter(|level| *level != EfficiencyLevel::default());
        say("efficiency_level", level.map(|level| level.number().into()));
        let free_space = Some(self.free_space).filter(|what| *what != FreeSpace::default());
        say("free_space", free_space.map(|what| what.as_str().into()));
        let consistency = Some(self.consistency).filter(|what| *what != Consistency::default());
        say("consistency", consistency.map(|what| what.as_str().into()));
        say("use_ssh_tunnel", self.tunnel.then_some(Value::Bool(true)));
        Value::Object(pairs).to_string()
    }

    /// Returns true if a started job may have these parameters in place of others. The limit may differ, because a run
    /// applies it while it copies. The consistency may differ too, because the next run applies it.
    #[must_use]
    pub fn may_replace_those_of_a_started_job(&self, others: &Self) -> bool {
        let changed = Self {
            bandwidth_limit_bytes_per_sec: self.bandwidth_limit_bytes_per_sec,
            consistency: self.consistency,
            ..others.clone()
        };
        *self == changed
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), InvalidParameters> {
        let invalid = |wanted| InvalidParameters::InvalidValue {
            key: key.to_owned(),
            wanted,
        };
        let plain_key: String = key.chars().filter(|&character| character != '_').collect();
        match plain_key.to_ascii_lowercase().as_str() {
            "bandwidthlimit" => {
                let kilobits =
                    number(value).ok_or_else(|| invalid("a number of Kbit/s, 0 for no limit"))?;
                self.bandwidth_limit_bytes_per_sec =
                    (kilobits > 0).then(|| kilobits.saturating_mul(125));
            }
            "compresslevel" => {
                let level = number(value)
                    .filter(|level| *level <= 19)
                    .ok_or_else(|| invalid("a level from 0 to 19"))?;
                self.compress_level = i32::try_from(level).ok();
            }
            "badsectors" => {
                self.bad_sectors = value
                    .as_str()
                    .and_then(BadSectors::from_name)
                    .ok_or_else(|| invalid("\"fail\" or \"zero\""))?;
            }
            "checksum" => self.checksum = boolean(value).ok_or_else(|| invalid("true or false"))?,
            "usesshtunnel" => {
                self.tunnel = boolean(value).ok_or_else(|| invalid("true or false"))?
            }
            "efficiencylevel" => {
                self.efficiency_level = number(value)
                    .and_then(EfficiencyLevel::from_number)
                    .ok_or_else(|| invalid("a level from 1 to 3"))?;
            }
            "freespace" => {
                let text = value.as_str().unwrap_or_default();
                self.free_space = text.parse().map_err(invalid)?;
            }
            "consistency" => {
                let text = value.as_str().unwrap_or_default();
                self.consistency = text.parse().map_err(invalid)?;
            }
            _ => return Err(InvalidParameters::UnknownKey(key.to_owned())),
        }
        Ok(())
    }
}

fn pairs(text: &str) -> Result<Vec<(String, Value)>, InvalidParameters> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(object)) => Ok(object.into_iter().collect()),
        Ok(_) => Err(InvalidParameters::NotAnObject),
        Err(_) => text
            .trim()
            .trim_start_matches('{')
            .trim_end_matches('}')
            .split(',')
            .map(|pair| {
                let (key, value) = pair.split_once(':').ok_or(InvalidParameters::NotAnObject)?;
                let bare = |part: &str| part.trim().trim_matches('"').to_owned();
                Ok((bare(key), Value::String(bare(value))))
            })
            .collect(),
    }
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn boolean(value: &Value) -> Option<bool> {
    value
        .as_bool()
        .or_else(|| match value.as_str()?.to_ascii_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_key_sets_and_the_documents_own_example_are_read() {
        let wanted = ReplicationParameters {
            bandwidth_limit_bytes_per_sec: Some(125_000),
            compress_level: Some(7),
            checksum: true,
            ..Default::default()
        };
        for text in [
            r#"{"bandwidth_limit":1000,"compress_level":7,"checksum":true}"#,
            r#"{"BandwidthLimit":1000,"CompressLevel":7,"Checksum":true}"#,
            r#"{"bandwidth_limit":"1000","compress_level":"7","checksum":"True"}"#,
            "{BandWidthLimit:1000,CompressLevel:7,Checksum:true}",
        ] {
            assert_eq!(
                ReplicationParameters::parse(text).as_ref(),
                Ok(&wanted),
                "{text}"
            );
        }
        assert_eq!(
            ReplicationParameters::parse("BandWidthLimit:0"),
            Ok(ReplicationParameters::default())
        );
        assert_eq!(
            ReplicationParameters::parse(""),
            Ok(ReplicationParameters::default())
        );
    }

    #[test]
    fn free_space_stays_behind_unless_it_is_asked_for() {
        let free_space = |text| ReplicationParameters::parse(text).map(|found| found.free_space);
        assert_eq!(free_space(""), Ok(FreeSpace::Skip));
        assert_eq!(free_space(r#"{"free_space":"skip"}"#), Ok(FreeSpace::Skip));
        assert_eq!(free_space(r#"{"FreeSpace":"Copy"}"#), Ok(FreeSpace::Copy));
    }

    #[test]
    fn an_image_is_one_moment_unless_a_fuzzy_one_is_asked_for() {
        let consistency = |text| ReplicationParameters::parse(text).map(|found| found.consistency);
        assert_eq!(consistency(""), Ok(Consistency::Crash));
        assert_eq!(
            consistency(r#"{"consistency":"crash"}"#),
            Ok(Consistency::Crash)
        );
        let fuzzy = ReplicationParameters::parse(r#"{"Consistency":"Fuzzy"}"#).unwrap();
        assert_eq!(fuzzy.consistency, Consistency::Fuzzy);
        assert_eq!(ReplicationParameters::parse(&fuzzy.to_json()), Ok(fuzzy));
        let refused = consistency(r#"{"consistency":"application"}"#).unwrap_err();
        assert!(
            refused.to_string().contains("must be crash or fuzzy"),
            "{refused}"
        );
    }

    #[test]
    fn a_tunnel_and_an_efficiency_level_are_read() {
        let text = r#"{"use_ssh_tunnel":true,"efficiency_level":3}"#;
        let parameters = ReplicationParameters::parse(text).unwrap();
        assert!(parameters.tunnel);
        assert_eq!(parameters.efficiency_level, EfficiencyLevel::Full);
        let usual = ReplicationParameters::parse(r#"{"EfficiencyLevel":"2"}"#);
        assert_eq!(usual, ReplicationParameters::parse(""));
    }

    #[test]
    fn a_started_job_takes_another_limit_and_consistency_and_nothing_else() {
        let parse = |text| ReplicationParameters::parse(text).unwrap();
        let present = parse(r#"{"bandwidth_limit":1000,"checksum":true}"#);
        for (text, is_so) in [
            (r#"{"bandwidth_limit":2000,"checksum":true}"#, true),
            (r#"{"Checksum":true}"#, true),
            (r#"{"checksum":true,"consistency":"fuzzy"}"#, true),
            (r#"{"bandwidth_limit":1000}"#, false),
            (
                r#"{"bandwidth_limit":1000,"checksum":true,"compress_level":3}"#,
                false,
            ),
        ] {
            assert_eq!(
                parse(text).may_replace_those_of_a_started_job(&present),
                is_so,
                "{text}"
            );
        }
    }

    #[test]
    fn a_run_fails_at_a_bad_sector_unless_zeros_are_asked_for() {
        let asked = |text| ReplicationParameters::parse(text).map(|read| read.bad_sectors);
        assert_eq!(asked(""), Ok(BadSectors::Fail));
        assert_eq!(asked(r#"{"bad_sectors":"fail"}"#), Ok(BadSectors::Fail));
        assert_eq!(asked(r#"{"BadSectors":"zero"}"#), Ok(BadSectors::Zero));
        let refused = asked(r#"{"bad_sectors":"skip"}"#).unwrap_err().to_string();
        assert!(
            refused.contains("must be \"fail\" or \"zero\""),
            "{refused}"
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            "[]",
            "7",
            "{\"compress_level\":20}",
            "{\"speed\":1}",
            "{\"efficiency_level\":4}",
            "{\"checksum\":2}",
            "{\"free_space\":true}",
            "nonsense",
            &"x".repeat(2049),
        ] {
            assert!(ReplicationParameters::parse(text).is_err(), "{text}");
        }
    }
}
