//! Rates of transfer: their notation, and their division among several transfers.

use std::fmt;
use std::str::FromStr;

/// Bytes per second, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

/// The text is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rate: give bits a second as 100mbit or 1gbit, or bytes a second as 12.5MB/s")]
pub struct InvalidRate(String);

/// Bits in one of each unit. Longer names come first, because each ends with a shorter one.
const UNITS: [(&str, u64); 11] = [
    ("kbit", 1_000),
    ("mbit", 1_000_000),
    ("gbit", 1_000_000_000),
    ("bit", 1),
    ("kib", 8 << 10),
    ("mib", 8 << 20),
    ("gib", 8 << 30),
    ("kb", 8_000),
    ("mb", 8_000_000),
    ("gb", 8_000_000_000),
    ("b", 8),
];

impl Rate {
    /// Returns the rate, or `None` for zero bytes.
    #[must_use]
    pub fn from_bytes_per_sec(bytes: u64) -> Option<Self> {
        (bytes > 0).then_some(Self(bytes))
    }

    /// Returns the bytes per second.
    #[must_use]
    pub fn bytes_per_sec(self) -> u64 {
        self.0
    }

    /// Returns Kbit/s, the unit of `ReplicationParameters`. The result is at least one, since zero would be no limit.
    #[must_use]
    pub fn kilobits_per_sec(self) -> u64 {
        (self.0 / 125).max(1)
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let parse = || {
            let lower = text.trim().to_ascii_lowercase();
            let bare = lower.strip_suffix("/s").unwrap_or(&lower);
            let (number, bits) = UNITS
                .iter()
                .find_map(|(unit, bits)| Some((bare.strip_suffix(unit)?.trim_end(), *bits)))?;
            let is_plain = number
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.');
            let number: f64 = number.parse().ok().filter(|_| is_plain)?;
            Self::from_bytes_per_sec((number * bits as f64 / 8.0).round() as u64)
        };
        parse().ok_or_else(|| InvalidRate(text.to_owned()))
    }
}

impl fmt::Display for Rate {
    /// Writes the rate in the largest unit of bits that needs at most three decimal places. The text parses to the same
    /// rate.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from(self.0) * 8;
        for (unit, size) in [
            ("gbit", 1_000_000_000_u128),
            ("mbit", 1_000_000),
            ("kbit", 1_000),
        ] {
            if bits >= size && bits % (size / 1_000) == 0 {
                let (whole, rest) = (bits / size, bits % size / (size / 1_000));
                return if rest == 0 {
                    write!(f, "{whole}{unit}")
                } else {
                    let decimals = format!("{rest:03}");
                    write!(f, "{whole}.{}{unit}", decimals.trim_end_matches('0'))
                };
            }
        }
        write!(f, "{bits}bit")
    }
}

/// Divides a rate among several transfers, each with an optional limit. No share exceeds its limit, and the rest is
/// divided evenly among transfers that can use it.
#[must_use]
pub fn fair_shares(total: u64, limits: &[Option<u64>]) -> Vec<u64> {
    let mut order: Vec<usize> = (0..limits.len()).collect();
    order.sort_by_key(|&who| limits[who].unwrap_or(u64::MAX));
    let mut shares = vec![0; limits.len()];
    let (mut left, mut waiting) = (total, limits.len() as u64);
    for who in order {
        let even = left / waiting;
        shares[who] = limits[who].map_or(even, |limit| limit.min(even));
        left -= shares[who];
        waiting -= 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_are_read_as_networks_and_disks_are_labelled() {
        for (text, bytes) in [
            ("1gbit", 125_000_000),
            ("100mbit", 12_500_000),
            ("100 Mbit/s", 12_500_000),
            ("12.5MB/s", 12_500_000),
            ("160000kbit", 20_000_000),
            ("1MiB/s", 1 << 20),
            ("64b/s", 64),
            ("8bit", 1),
        ] {
            let rate = text.parse::<Rate>().map(Rate::bytes_per_sec);
            assert_eq!(rate, Ok(bytes), "{text}");
        }
        for text in [
            "", "100", "fast", "-1mbit", "0mbit", "1e9bit", "nanbit", "infbit", "1 2mbit", "mbit",
        ] {
            let refused = text.parse::<Rate>().expect_err(text).to_string();
            assert!(refused.contains("100mbit"), "{refused}");
        }
    }

    #[test]
    fn a_rate_is_shown_in_its_largest_unit() {
        let shown = |bytes| Rate(bytes).to_string();
        assert_eq!(shown(125_000_000), "1gbit");
        assert_eq!(shown(12_500_000), "100mbit");
        assert_eq!(shown(187_500_000), "1.5gbit");
        assert_eq!(shown(1), "8bit");
    }

    #[test]
    fn what_one_leaves_the_others_share() {
        assert_eq!(fair_shares(90, &[None, None, None]), [30, 30, 30]);
        assert_eq!(fair_shares(90, &[None, Some(10), None]), [40, 10, 40]);
        assert_eq!(fair_shares(90, &[Some(100), Some(20)]), [70, 20]);
        assert_eq!(fair_shares(90, &[Some(10), Some(20)]), [10, 20]);
        assert_eq!(fair_shares(90, &[]), [0_u64; 0]);
    }

    proptest! {
        #[test]
        fn a_shown_rate_reads_back(bytes in 1..1_u64 << 50) {
            let rate = Rate(bytes);
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }

        /// Checks that the shares do not exceed the total and that none exceeds its limit. A share below its limit must
        /// be no smaller than any other share.
        #[test]
        fn shares_are_max_min_fair(total in 0..1_u64 << 40, limits in proptest::collection::vec(proptest::option::of(0..1_u64 << 40), 1..9)) {
            let shares = fair_shares(total, &limits);
            prop_assert!(shares.iter().sum::<u64>() <= total);
            let most = shares.iter().copied().max().unwrap_or(0);
            for (share, limit) in shares.iter().zip(&limits) {
                let is_sated = limit.is_some_and(|limit| *share == limit);
                prop_assert!(is_sated || share + limits.len() as u64 >= most, "{shares:?} of {total} under {limits:?}");
            }
        }
    }
}
