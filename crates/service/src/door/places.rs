//! The table of places: the strangers' connections, those of known callers, and the rules by which one is displaced.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::Reason;

/// Most connections of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections that have not proved their identity.
    pub strangers: usize,
    /// Strangers' connections from one address: an IPv4 address, or an IPv6 /64, which one customer has.
    pub strangers_per_address: usize,
    /// Connections of known callers.
    pub known: usize,
    /// Known connections that one caller may have.
    pub known_per_caller: usize,
}

/// The addresses that one stranger is assumed to control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// One IPv4 address.
    V4([u8; 4]),
    /// An IPv6 /64.
    V6([u8; 8]),
}

impl Network {
    /// Returns the network of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let mut prefix = [0; 8];
                prefix.copy_from_slice(&v6.octets()[..8]);
                Self::V6(prefix)
            }
        }
    }
}

/// The connections that have places. Numbers rise with each connection, so the lowest is the oldest.
#[derive(Debug)]
pub(super) struct Places {
    limits: Limits,
    next: u64,
    strangers: BTreeMap<u64, Network>,
    of_network: HashMap<Network, BTreeSet<u64>>,
    known: HashMap<u64, Option<Arc<str>>>,
    of_caller: HashMap<Arc<str>, BTreeSet<u64>>,
}

impl Places {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            next: 0,
            strangers: BTreeMap::new(),
            of_network: HashMap::new(),
            known: HashMap::new(),
            of_caller: HashMap::new(),
        }
    }

    /// Inserts a stranger. Returns its number, and the stranger that it displaces.
    pub fn enter(&mut self, network: Network) -> (u64, Option<(u64, Reason)>) {
        let of_network = self.of_network.get(&network);
        let displaced = match of_network {
            Some(all) if all.len() >= self.limits.strangers_per_address.max(1) => {
                all.first().map(|oldest| (*oldest, Reason::Address))
            }
            _ if self.strangers.len() >= self.limits.strangers.max(1) => {
                let oldest = self.strangers.first_key_value();
                oldest.map(|(oldest, _)| (*oldest, Reason::Crowded))
            }
            _ => None,
        };
        if let Some((oldest, _)) = displaced {
            self.leave(oldest);
        }
        let id = self.next;
        self.next += 1;
        self.strangers.insert(id, network);
        self.of_network.entry(network).or_default().insert(id);
        (id, displaced)
    }

    /// Moves a stranger to the known callers. Returns the connection of the same caller that it displaces. Returns
    /// `None` if the connection stays a stranger: no known place is free, or the connection was displaced itself.
    pub fn prove(&mut self, id: u64, caller: Option<&str>) -> Option<Option<(u64, Reason)>> {
        let of_caller = caller.and_then(|caller| self.of_caller.get(caller));
        let displaced = of_caller
            .filter(|all| all.len() >= self.limits.known_per_caller.max(1))
            .and_then(|all| all.first().map(|oldest| (*oldest, Reason::Caller)));
        let is_full = displaced.is_none() && self.known.len() >= self.limits.known;
        if is_full || !self.strangers.contains_key(&id) {
            return None;
        }
        self.leave(id);
        if let Some((oldest, _)) = displaced {
            self.leave(oldest);
        }
        let caller: Option<Arc<str>> = caller.map(Arc::from);
        if let Some(caller) = &caller {
            let all = self.of_caller.entry(Arc::clone(caller)).or_default();
            all.insert(id);
        }
        self.known.insert(id, caller);
        Some(displaced)
    }

    /// Frees a place, if it is still taken.
    pub fn leave(&mut self, id: u64) {
        if let Some(network) = self.strangers.remove(&id) {
            remove(&mut self.of_network, &network, id);
        } else if let Some(Some(caller)) = self.known.remove(&id) {
            remove(&mut self.of_caller, &caller, id);
        }
    }

    pub fn strangers(&self) -> usize {
        self.strangers.len()
    }
}

fn remove<K: Eq + std::hash::Hash>(all: &mut HashMap<K, BTreeSet<u64>>, key: &K, id: u64) {
    if let Some(of_key) = all.get_mut(key) {
        of_key.remove(&id);
        if of_key.is_empty() {
            all.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_one_of_ipv4_or_a_64_of_ipv6() {
        let network = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
    }

    /// Steps that may happen at a door. Numbers choose an address, a caller, or one of the connections that ever
    /// existed.
    #[derive(Debug, Clone)]
    enum Step {
        Enter(u8),
        Prove(usize, Option<u8>),
        Leave(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..4_u8).prop_map(Step::Enter),
            2 => (any::<usize>(), proptest::option::of(0..3_u8)).prop_map(|(id, caller)| Step::Prove(id, caller)),
            1 => any::<usize>().prop_map(Step::Leave),
        ]
    }

    /// The rules, applied by scanning all connections each time.
    #[derive(Default)]
    struct Model {
        strangers: Vec<(u64, Network)>,
        known: Vec<(u64, Option<String>)>,
        ever: Vec<u64>,
    }

    impl Model {
        fn enter(&mut self, limits: Limits, network: Network) -> Option<u64> {
            let mut here = self.strangers.iter().filter(|(_, of)| *of == network);
            let oldest = if here.clone().count() >= limits.strangers_per_address {
                here.next().map(|(id, _)| *id)
            } else if self.strangers.len() >= limits.strangers {
                self.strangers.first().map(|(id, _)| *id)
            } else {
                None
            };
            self.strangers.retain(|(id, _)| Some(*id) != oldest);
            oldest
        }

        /// Returns true if the connection becomes known, and the connection that it displaces.
        fn prove(
            &mut self,
            limits: Limits,
            id: u64,
            caller: Option<String>,
        ) -> Option<Option<u64>> {
            self.strangers.iter().find(|(of, _)| *of == id)?;
            let of_caller = |(_, of): &&(u64, Option<String>)| caller.is_some() && *of == caller;
            let mut all: Vec<_> = self
                .known
                .iter()
                .filter(of_caller)
                .map(|(id, _)| *id)
                .collect();
            all.sort_unstable();
            let oldest = (all.len() >= limits.known_per_caller).then(|| all[0]);
            if oldest.is_none() && self.known.len() >= limits.known {
                return None;
            }
            self.strangers.retain(|(of, _)| *of != id);
            self.known.retain(|(of, _)| Some(*of) != oldest);
            self.known.push((id, caller));
            Some(oldest)
        }
    }

    proptest! {
        #[test]
        fn strangers_never_take_a_known_place_and_the_oldest_gives_way(
            steps in proptest::collection::vec(step(), 0..200),
            strangers in 1..6_usize, strangers_per_address in 1..4_usize, known in 0..4_usize, known_per_caller in 1..3_usize,
        ) {
            let limits = Limits { strangers, strangers_per_address, known, known_per_caller };
            let (mut places, mut model) = (Places::new(limits), Model::default());
            for step in steps {
                match step {
                    Step::Enter(address) => {
                        let network = Network::V4([192, 0, 2, address]);
                        let expected = model.enter(limits, network);
                        let (id, displaced) = places.enter(network);
                        prop_assert_eq!(displaced.map(|(id, _)| id), expected);
                        model.strangers.push((id, network));
                        model.ever.push(id);
                    }
                    Step::Prove(which, caller) if !model.ever.is_empty() => {
                        let id = model.ever[which % model.ever.len()];
                        let caller = caller.map(|caller| caller.to_string());
                        let expected = model.prove(limits, id, caller.clone());
                        let displaced = places.prove(id, caller.as_deref());
                        prop_assert_eq!(displaced.map(|displaced| displaced.map(|(id, _)| id)), expected);
                    }
                    Step::Leave(which) if !model.ever.is_empty() => {
                        let id = model.ever[which % model.ever.len()];
                        places.leave(id);
                        model.strangers.retain(|(of, _)| *of != id);
                        model.known.retain(|(of, _)| *of != id);
                    }
                    Step::Prove(..) | Step::Leave(_) => {}
                }
                prop_assert!(places.strangers() <= strangers && places.known.len() <= known);
                prop_assert_eq!(places.strangers(), model.strangers.len());
                prop_assert_eq!(places.known.len(), model.known.len());
                prop_assert_eq!(places.of_network.values().map(BTreeSet::len).sum::<usize>(), places.strangers());
            }
        }
    }
}
