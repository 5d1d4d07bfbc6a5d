//! Connections that belong together: the one of the control stream, and others that bring it data streams.
//!
//! A group has a name that only the two ends of its control stream know. Whoever brings a data stream says that name,
//! so nobody else can add one.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::mpsc;

use crate::MOST_STREAMS;

/// The name of a group, and its length.
pub(crate) type Name = [u8; NAME_BYTES];
pub(crate) const NAME_BYTES: usize = 16;

/// Data streams that wait to be taken. The receiver takes them at once, but all of a sender may come at once too.
const WAITING: usize = MOST_STREAMS;

/// The groups that stand, by name.
#[derive(Debug)]
pub struct Groups<S>(Arc<Mutex<HashMap<Name, Group<S>>>>);

#[derive(Debug)]
struct Group<S> {
    streams: mpsc::Sender<S>,
    /// Connections that have joined.
    joined: usize,
}

impl<S> Clone for Groups<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Default for Groups<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S> Groups<S> {
    /// Begins a group.
    pub(crate) fn begin(&self, name: Name) -> io::Result<Arriving<S>> {
        let (sender, streams) = mpsc::channel(WAITING);
        let mut standing = self.lock();
        if standing.contains_key(&name) {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "another connection has this name",
            ));
        }
        let group = Group {
            streams: sender,
            joined: 0,
        };
        standing.insert(name, group);
        drop(standing);
        Ok(Arriving {
            groups: self.clone(),
            name,
            streams,
        })
    }

    /// Returns the queue for the data streams of a group; `None` if there is no such group.
    pub(crate) fn find(&self, name: &Name) -> Option<mpsc::Sender<S>> {
        let standing = self.lock();
        Some(standing.get(name)?.streams.clone())
    }

    /// The same for a connection that stays and brings several streams. `None` also if as many have joined as there may
    /// be streams: each has a window of its own, and what comes over it waits in memory.
    pub(crate) fn join(&self, name: &Name) -> Option<mpsc::Sender<S>> {
        let mut standing = self.lock();
        let group = standing.get_mut(name)?;
        if group.joined == MOST_STREAMS {
            return None;
        }
        group.joined += 1;
        Some(group.streams.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Group<S>>> {
        self.0.lock().expect("no holder of this lock can panic")
    }
}

/// The data streams of a group, as they arrive. The group ends when this is dropped.
#[derive(Debug)]
pub struct Arriving<S> {
    groups: Groups<S>,
    name: Name,
    streams: mpsc::Receiver<S>,
}

impl<S> Arriving<S> {
    /// May be dropped and called again.
    pub(crate) async fn next(&mut self) -> io::Result<S> {
        let next = self.streams.recv().await;
        next.ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
    }
}

impl<S> Drop for Arriving<S> {
    fn drop(&mut self) {
        self.groups.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_connections_join_a_group_than_it_may_have_streams() {
        let groups = Groups::<u8>::default();
        let name = [1; NAME_BYTES];
        assert!(groups.join(&name).is_none(), "it does not stand yet");
        let group = groups.begin(name).unwrap();
        let joined: Vec<_> = (0..MOST_STREAMS + 3)
            .filter_map(|_| groups.join(&name))
            .collect();
        assert_eq!(joined.len(), MOST_STREAMS);
        assert!(groups.find(&name).is_some());
        drop(group);
        assert!(groups.find(&name).is_none());
    }
}
