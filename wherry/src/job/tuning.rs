//! Tuning of a job's copy: the flags that become `ReplicationParameters`.

use std::str::FromStr;

use clap::{ArgAction, Args};
use domain::parameters::{
    BadSectors, Consistency, EfficiencyLevel, FreeSpace, ReplicationParameters,
};
use domain::rate::{InvalidRate, Rate};

#[derive(Debug, Args)]
pub(super) struct Tuning {
    /// Most that the agent sends, such as 100mbit or 12.5MB/s; none for no limit.
    #[arg(long, value_name = "RATE")]
    bandwidth_limit: Option<Limit>,
    /// zstd level of the copy: 0 for none, up to 19. Without it, the sender weighs link against processor.
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(i32).range(0..=19))]
    compress_level: Option<i32>,
    /// Handling of sectors that the source can't read: the run fails, as without it, or the image has zeros there and
    /// its manifests list them.
    #[arg(long, value_name = "fail|zero", value_parser = bad_sectors)]
    bad_sectors: Option<BadSectors>,
    /// Re-read the copied disks and compare them before the image is made.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    checksum: Option<bool>,
    /// Copy over TLS on TCP only, where nothing else is let through.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    tunnel: Option<bool>,
    /// Load that the source may carry: 1 (one thread), 2 (two, as without it) or 3 (four).
    #[arg(long, value_name = "LEVEL", value_parser = efficiency_level)]
    efficiency_level: Option<EfficiencyLevel>,
    /// skip: leave out what the file systems of a disk that nobody uses call free, as without it; copy: every byte.
    #[arg(long, value_name = "WHAT")]
    free_space: Option<FreeSpace>,
    /// crash: the image is one moment in time, and a disk that is written while it is copied fails the run, as without
    /// it; fuzzy: it is delivered all the same, and says so.
    #[arg(long, value_name = "crash|fuzzy")]
    consistency: Option<Consistency>,
}

#[derive(Debug, Clone, Copy)]
struct Limit(Option<Rate>);

impl FromStr for Limit {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        match text {
            "none" => Ok(Self(None)),
            rate => rate.parse().map(|rate| Self(Some(rate))),
        }
    }
}

fn efficiency_level(text: &str) -> Result<EfficiencyLevel, &'static str> {
    let level = text.parse().ok().and_then(EfficiencyLevel::from_number);
    level.ok_or("give 1, 2 or 3")
}

fn bad_sectors(text: &str) -> Result<BadSectors, &'static str> {
    BadSectors::from_name(text).ok_or("give fail or zero")
}

impl Tuning {
    /// These flags in place of the values in `present`; `None` if there are none.
    pub(super) fn applied_to(&self, present: &ReplicationParameters) -> Option<String> {
        let mut parameters = present.clone();
        let mut is_given = false;
        let mut set = |given: bool| is_given |= given;
        if let Some(Limit(rate)) = self.bandwidth_limit {
            set(true);
            parameters.set_bandwidth_limit(rate);
        }
        if let Some(level) = self.compress_level {
            set(true);
            parameters.compress_level = Some(level);
        }
        if let Some(policy) = self.bad_sectors {
            set(true);
            parameters.bad_sectors = policy;
        }
        if let Some(checksum) = self.checksum {
            set(true);
            parameters.checksum = checksum;
        }
        if let Some(tunnel) = self.tunnel {
            set(true);
            parameters.tunnel = tunnel;
        }
        if let Some(level) = self.efficiency_level {
            set(true);
            parameters.efficiency_level = level;
        }
        if let Some(what) = self.free_space {
            set(true);
            parameters.free_space = what;
        }
        if let Some(what) = self.consistency {
            set(true);
            parameters.consistency = what;
        }
        is_given.then(|| parameters.to_json())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        tuning: Tuning,
    }

    fn applied(line: &str, present: &str) -> Option<String> {
        let words = ["only"].into_iter().chain(line.split_whitespace());
        let present = ReplicationParameters::parse(present).unwrap();
        Only::parse_from(words).tuning.applied_to(&present)
    }

    #[test]
    fn what_is_not_given_stays_as_it_is() {
        let present = r#"{"BandwidthLimit":1000,"Checksum":true}"#;
        assert_eq!(applied("", present), None);
        assert_eq!(
            applied("--bandwidth-limit 2mbit", present).as_deref(),
            Some(r#"{"bandwidth_limit":2000,"checksum":true}"#)
        );
        assert_eq!(
            applied("--bandwidth-limit none --checksum=false", present).as_deref(),
            Some("{}")
        );
        assert_eq!(
            applied("--tunnel --efficiency-level 3 --compress-level 0", "").as_deref(),
            Some(r#"{"compress_level":0,"efficiency_level":3,"use_ssh_tunnel":true}"#)
        );
        assert_eq!(
            applied("--free-space copy", present).as_deref(),
            Some(r#"{"bandwidth_limit":1000,"checksum":true,"free_space":"copy"}"#)
        );
        assert_eq!(
            applied("--bad-sectors zero", "").as_deref(),
            Some(r#"{"bad_sectors":"zero"}"#)
        );
        assert_eq!(
            applied("--consistency fuzzy", "").as_deref(),
            Some(r#"{"consistency":"fuzzy"}"#)
        );
        assert!(Only::try_parse_from(["only", "--consistency", "vss"]).is_err());
        assert!(Only::try_parse_from(["only", "--bandwidth-limit", "9"]).is_err());
        assert!(Only::try_parse_from(["only", "--bad-sectors", "skip"]).is_err());
    }
}
