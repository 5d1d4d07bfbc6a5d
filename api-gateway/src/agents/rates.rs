//! Rates of agents' calls: of a source by its certificate, and of a server that registers by its address.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

use domain::SourceId;
use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use service::door::Network;
use telemetry::Metric;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::Config;

/// Heartbeats and watches that a source may make at once. A heartbeat follows each nudge, and each change of its disks
/// or runs.
const BURST: NonZeroU32 = NonZeroU32::new(20).expect("it is not zero");

/// Registrations from one address at once, for each that is allowed per second.
const REGISTRATION_BURST: NonZeroU32 = NonZeroU32::new(10).expect("it is not zero");

/// Number of callers at which those without recent calls are dropped.
const KEPT: usize = 20_000;

type Buckets<K> = RateLimiter<K, HashMapStateStore<K>, DefaultClock>;

/// The used part of each caller's rate.
#[derive(Debug)]
pub(super) struct Rates {
    sources: Buckets<SourceId>,
    addresses: Buckets<Network>,
}

impl Rates {
    pub fn new(config: &Config) -> Self {
        let registrations = config.agents_registrations_per_sec;
        let registrations = Quota::per_second(registrations)
            .allow_burst(registrations.saturating_mul(REGISTRATION_BURST));
        Self {
            sources: RateLimiter::hashmap(Quota::per_second(NonZeroU32::MIN).allow_burst(BURST)),
            addresses: RateLimiter::hashmap(registrations),
        }
    }

    /// Counts a call of a source.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED with the time after which the call is taken.
    pub fn source(&self, call: &'static str, source_id: &SourceId) -> Result<(), Status> {
        check(&self.sources, source_id).map_err(|wait| too_early(call, wait))
    }

    /// Counts a registration from an address.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED with the time after which the call is taken.
    pub fn registration(&self, address: std::net::IpAddr) -> Result<(), Status> {
        check(&self.addresses, &Network::of(address)).map_err(|wait| too_early("register", wait))
    }
}

fn check<K: Hash + Eq + Clone>(buckets: &Buckets<K>, key: &K) -> Result<(), Duration> {
    if buckets.len() > KEPT {
        buckets.retain_recent();
    }
    let checked = buckets.check_key(key);
    checked.map_err(|full| full.wait_time_from(DefaultClock::default().now()))
}

/// Returns the answer to a call that came too early: `retry-after` has whole seconds, as in HTTP.
fn too_early(call: &'static str, wait: Duration) -> Status {
    telemetry::counter(Metric::AgentCallsDeferred, &[("call", call)]).increment(1);
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let mut metadata = MetadataMap::new();
    metadata.insert("retry-after", seconds.max(1).into());
    let message = format!("too many calls: call again in {} seconds", seconds.max(1));
    Status::with_metadata(Code::ResourceExhausted, message, metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(per_sec: u32) -> Rates {
        Rates::new(&Config {
            agents_registrations_per_sec: NonZeroU32::new(per_sec).unwrap(),
            ..Config::for_tests()
        })
    }

    #[test]
    fn a_source_that_calls_too_often_is_told_when_to_come_again_and_others_are_not() {
        let rates = rates(1);
        let (one, other) = (SourceId::generate(), SourceId::generate());
        for _ in 0..BURST.get() {
            rates.source("heartbeat", &one).unwrap();
        }
        let refused = rates.source("heartbeat", &one).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.metadata().get("retry-after").unwrap(), "1");
        rates.source("heartbeat", &other).unwrap();
    }

    #[test]
    fn registrations_are_counted_by_address_and_by_customer_of_ipv6() {
        let rates = rates(1);
        for number in 0..REGISTRATION_BURST.get() {
            let address = format!("2001:db8::{number:x}").parse().unwrap();
            rates.registration(address).unwrap();
        }
        let here = "2001:db8::ffff".parse().unwrap();
        assert!(rates.registration(here).is_err());
        for elsewhere in ["2001:db8:0:1::1", "192.0.2.1"] {
            rates.registration(elsewhere.parse().unwrap()).unwrap();
        }
    }
}
