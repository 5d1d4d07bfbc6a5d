//! One attempt at sending the disks of an assignment.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domain::disk::DiskIndex;
use domain::parameters::{BadSectors, Consistency, FreeSpace};
use domain::{Failure, FailureCode};
use proto::agent as wire;
use proto::agent::assignment_report::State;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transfer::disk::Files;
use transfer::plan::Candidates;
use transfer::sender::{
    Broken, Compression, MOST_STREAMS, Preference, SendConfig, SendProgress, SourceDisk,
    default_connections, default_streams,
};
use transfer::{Carrier, Identity};

use super::Key;
use super::send::Sending;
use crate::inventory::{self, Snapshot};

/// Longest wait for the address of a receiver's name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What an attempt should know of those before it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Before {
    /// The carrier that broke under the last one.
    pub broken_carrier: Option<Carrier>,
    /// Whether a disk was written under one of them.
    pub was_written: bool,
}

/// Sends the disks until the receiver has given its receipts. When it is cancelled it takes leave of the receiver, which keeps
/// what it has; the outcome is without meaning then.
pub(super) async fn send(
    sending: &Sending,
    key: &Key,
    assignment: watch::Receiver<wire::Assignment>,
    before: Before,
    cancel: CancellationToken,
) -> Result<(), Broken> {
    let wanted = assignment.borrow().clone();
    check_all(sending, wanted.disks.clone())
        .await
        .map_err(Broken::before_sending)?;
    let receiver = resolve(&wanted.receiver_address)
        .await
        .map_err(Broken::before_sending)?;
    let (limits, limit) = watch::channel(limit_of(&wanted));
    let (progress, seen) = watch::channel(SendProgress::default());
    let config = config(sending, wanted, receiver, before, limit);
    let outcome = tokio::select! {
        outcome = transfer::sender::send(config, cancel, progress) => outcome,
        never = follow(sending, key, assignment, limits, seen.clone()) => match never {},
    };
    outcome
        .map(drop)
        .map_err(|error| Broken::new(&error, &seen.borrow()))
}

fn config(
    sending: &Sending,
    wanted: wire::Assignment,
    receiver: SocketAddr,
    before: Before,
    bandwidth_limit: watch::Receiver<Option<u64>>,
) -> SendConfig {
    let free_space = if wanted.copy_free_space {
        FreeSpace::Copy
    } else {
        FreeSpace::Skip
    };
    SendConfig {
        receiver,
        carrier: if wanted.tcp_only {
            Preference::Pinned(Carrier::Tcp)
        } else {
            Preference::Probe {
                broken: before.broken_carrier,
            }
        },
        server_name: wanted.receiver_name,
        identity: Identity {
            authority_pem: wanted.authority_pem,
            certificate_pem: wanted.certificate_pem,
            key_pem: sending.key_pem.to_string(),
        },
        ticket: wanted.ticket,
        disks: wanted
            .disks
            .into_iter()
            .map(|disk| source_disk(disk, free_space))
            .collect(),
        sources: Arc::new(Files),
        change_tracking: sending.change_tracking,
        bad_sectors: if wanted.zero_bad_sectors {
            BadSectors::Zero
        } else {
            BadSectors::Fail
        },
        consistency: if wanted.fuzzy {
            Consistency::Fuzzy
        } else {
            Consistency::Crash
        },
        ends_at_a_write: before.was_written,
        compression: match wanted.compress_level {
            None => Compression::Auto,
            Some(0) => Compression::Off,
            Some(level) => Compression::Level(level),
        },
        streams: match wanted.streams {
            0 => default_streams(),
            streams => (streams as usize).min(MOST_STREAMS),
        },
        connections: default_connections(),
        bandwidth_limit,
        shared_limit: sending.shared_limit.clone(),
        scratch: sending.scratch.clone(),
    }
}

fn source_disk(assigned: wire::AssignedDisk, free_space: FreeSpace) -> SourceDisk {
    SourceDisk {
        // An index of the inventory, as `check` has seen.
        index: DiskIndex(u16::try_from(assigned.index).unwrap_or(u16::MAX)),
        path: assigned.path.into(),
        size_bytes: assigned.size_bytes,
        candidates: Candidates::All,
        free_space,
    }
}

fn limit_of(assignment: &wire::Assignment) -> Option<u64> {
    Some(assignment.bandwidth_limit_bytes_per_sec).filter(|limit| *limit > 0)
}

/// While a transfer runs, takes new limits to it and its progress to the board.
async fn follow(
    sending: &Sending,
    key: &Key,
    mut assignment: watch::Receiver<wire::Assignment>,
    limits: watch::Sender<Option<u64>>,
    mut progress: watch::Receiver<SendProgress>,
) -> Infallible {
    loop {
        let ended = tokio::select! {
            changed = assignment.changed() => changed,
            changed = progress.changed() => changed,
        };
        limits.send_replace(limit_of(&assignment.borrow_and_update()));
        let (bytes_wire, copied) = {
            let seen = progress.borrow_and_update();
            (seen.bytes_wire, Arc::clone(&seen.copied_free_space))
        };
        sending.board.note_copied(key, &copied);
        if bytes_wire > 0 {
            sending.board.say(key, State::Sending, None);
            sending.board.note_bytes(key, bytes_wire);
        }
        if ended.is_err() {
            // One of the two is over, and with it, in a moment, the transfer.
            std::future::pending::<()>().await;
        }
    }
}

async fn resolve(address: &str) -> Result<SocketAddr, Failure> {
    let looked_up = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(address)).await;
    let reason = match looked_up {
        Ok(Ok(mut found)) => match found.next() {
            Some(address) => return Ok(address),
            None => "it has no address".to_owned(),
        },
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the name service does not answer".to_owned(),
    };
    Err(Failure::new(
        FailureCode::ReceiverUnreachable,
        format!(
            "This source can't find the receiver {address}: {reason}. Check the name service of this server."
        ),
    ))
}

async fn check_all(sending: &Sending, disks: Vec<wire::AssignedDisk>) -> Result<(), Failure> {
    let snapshot = sending.snapshots.borrow().clone();
    let checked = tokio::task::spawn_blocking(move || {
        disks
            .iter()
            .try_for_each(|assigned| check(assigned, &snapshot))
    });
    checked.await.unwrap_or_else(|error| {
        Err(Failure::new(
            FailureCode::Internal,
            format!("the disks could not be checked: {error}"),
        ))
    })
}

/// A disk that may be sent is one of this source's, can be read, and is what it was when the job was created.
fn check(assigned: &wire::AssignedDisk, snapshot: &Snapshot) -> Result<(), Failure> {
    let is_ours = snapshot
        .inventory
        .disks
        .iter()
        .any(|disk| disk.index == assigned.index && disk.path == assigned.path);
    if !is_ours {
        let changed = || {
            changed(&format!(
                "This source has no disk {} at {} any more.",
                assigned.index, assigned.path
            ))
        };
        return Err(snapshot.failure.clone().unwrap_or_else(changed));
    }
    let size_bytes = inventory::measure(Path::new(&assigned.path))?.size_bytes;
    if size_bytes != assigned.size_bytes {
        return Err(changed(&format!(
            "The disk {} has {size_bytes} bytes and had {} when the job was created.",
            assigned.path, assigned.size_bytes
        )));
    }
    Ok(())
}

fn changed(what: &str) -> Failure {
    Failure::new(
        FailureCode::SourceDiskChanged,
        format!("{what} Delete the job and create a new one."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(path: &Path, size_bytes: u64) -> wire::AssignedDisk {
        wire::AssignedDisk {
            index: 0,
            path: path.display().to_string(),
            size_bytes,
        }
    }

    fn snapshot(path: &Path) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.inventory.disks.push(wire::Disk {
            index: 0,
            path: path.display().to_string(),
            ..wire::Disk::default()
        });
        snapshot
    }

    #[test]
    fn only_an_unchanged_disk_of_this_source_is_sent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, [1; 100]).unwrap();
        assert_eq!(check(&assigned(&path, 100), &snapshot(&path)), Ok(()));

        let grown = check(&assigned(&path, 99), &snapshot(&path)).unwrap_err();
        assert_eq!(grown.code, FailureCode::SourceDiskChanged);
        assert!(
            grown.message.contains("100") && grown.message.contains("99"),
            "{grown}"
        );

        let foreign = check(&assigned(Path::new("/etc/shadow"), 100), &snapshot(&path));
        assert_eq!(foreign.unwrap_err().code, FailureCode::SourceDiskChanged);

        std::fs::remove_file(&path).unwrap();
        let lost = check(&assigned(&path, 100), &snapshot(&path)).unwrap_err();
        assert_eq!(lost.code, FailureCode::SourceDiskUnreadable);
    }
}
