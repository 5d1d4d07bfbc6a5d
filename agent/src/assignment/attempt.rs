//! One attempt at sending the disks of an assignment.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domain::disk::{DiskChange, DiskIdentity, DiskIndex, DiskRecord, find_again};
use domain::parameters::{BadSectors, Consistency, FreeSpace};
use domain::{Failure, FailureCode};
use proto::agent as wire;
use proto::agent::assignment_report::State;
use source::Files;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transfer::plan::Candidates;
use transfer::sender::{
    Compression, FailedAttempt, Preference, SendConfig, SendProgress, SourceDisk,
    default_connections, default_streams,
};
use transport::{Identity, Kind, MOST_STREAMS};

use super::Key;
use super::send::Sending;
use crate::inventory::{self, Snapshot};

/// Longest wait for the address of a receiver's name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Facts about the previous attempts that an attempt needs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Before {
    /// The transport that failed in the last one.
    pub failed_transport: Option<Kind>,
    /// True if a disk was written during one of them.
    pub was_written: bool,
}

/// Sends the disks until the receiver has given its receipts. When it is cancelled, it closes the connection to the
/// receiver, which keeps its data; the outcome is then meaningless.
pub(super) async fn send(
    sending: &Sending,
    key: &Key,
    assignment: watch::Receiver<wire::Assignment>,
    before: Before,
    cancel: CancellationToken,
) -> Result<(), FailedAttempt> {
    let mut wanted = assignment.borrow().clone();
    wanted.disks = find_all(sending, wanted.disks)
        .await
        .map_err(FailedAttempt::before_sending)?;
    let receiver = resolve(&wanted.receiver_address)
        .await
        .map_err(FailedAttempt::before_sending)?;
    let (limits, limit) = watch::channel(limit_of(&wanted));
    let (progress, seen) = watch::channel(SendProgress::default());
    let config = config(sending, wanted, receiver, before, limit);
    let outcome = tokio::select! {
        outcome = transfer::sender::send(config, cancel, progress) => outcome,
        never = follow(sending, key, assignment, limits, seen.clone()) => match never {},
    };
    outcome
        .map(drop)
        .map_err(|error| FailedAttempt::new(&error, &seen.borrow()))
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
        transport: if wanted.tcp_only {
            Preference::Pinned(Kind::Tcp)
        } else {
            Preference::Probe {
                failed: before.failed_transport,
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
        index: index(assigned.index),
        path: assigned.path.into(),
        size_bytes: assigned.size_bytes,
        candidates: Candidates::All,
        free_space,
    }
}

fn limit_of(assignment: &wire::Assignment) -> Option<u64> {
    Some(assignment.bandwidth_limit_bytes_per_sec).filter(|limit| *limit > 0)
}

/// While a transfer runs, passes new limits to it and its progress to the board.
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
            // One of the two has ended, and the transfer ends in a moment.
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

async fn find_all(
    sending: &Sending,
    disks: Vec<wire::AssignedDisk>,
) -> Result<Vec<wire::AssignedDisk>, Failure> {
    let snapshot = sending.snapshots.borrow().clone();
    let found = tokio::task::spawn_blocking(move || find(disks, &snapshot));
    found.await.unwrap_or_else(|error| {
        Err(Failure::new(
            FailureCode::Internal,
            format!("the disks could not be checked: {error}"),
        ))
    })
}

/// Returns the assigned disks at their present paths. A disk that may be sent belongs to this source, can be read, and
/// is the same as when the job was created.
fn find(
    disks: Vec<wire::AssignedDisk>,
    snapshot: &Snapshot,
) -> Result<Vec<wire::AssignedDisk>, Failure> {
    let then: Vec<DiskRecord> = disks.iter().map(record_of_assigned).collect();
    let now: Vec<DiskRecord> = snapshot.inventory.disks.iter().map(record).collect();
    let found = find_again(&then, &now);
    let mut disks = disks;
    for ((disk, then), found) in disks.iter_mut().zip(&then).zip(found) {
        let found = found.map(|position| &now[position]);
        // An unreadable disk is not a different disk.
        then.check(found)
            .map_err(|change| snapshot.failure.clone().unwrap_or_else(|| changed(&change)))?;
        if let Some(found) = found {
            check_now(then, found)?;
            if found.path != disk.path {
                tracing::info!(
                    disk = disk.index,
                    path = found.path,
                    was = disk.path,
                    "a disk has another name"
                );
            }
            disk.path.clone_from(&found.path);
        }
    }
    Ok(disks)
}

/// Inspects a found disk once more: another disk may have taken its name since the inventory was made.
fn check_now(then: &DiskRecord, found: &DiskRecord) -> Result<(), Failure> {
    let path = Path::new(&found.path);
    let measured = inventory::measure(path)?;
    let mut now = DiskRecord {
        size_bytes: measured.size_bytes,
        ..found.clone()
    };
    if then.identity.is_some() {
        let seen = inventory::identity_now(path, &measured);
        let known = found.identity.clone().unwrap_or_default();
        // The tools answered before and don't answer now: fewer facts are known, but the disk is not a different one.
        if matches!(known.same_as(&seen), Err(Some(_))) {
            now.identity = Some(seen);
        }
    }
    then.check(Some(&now)).map_err(|change| changed(&change))
}

fn record(disk: &wire::Disk) -> DiskRecord {
    DiskRecord {
        index: index(disk.index),
        path: disk.path.clone(),
        size_bytes: disk.size_bytes,
        identity: identity(disk.identity.as_ref()),
    }
}

fn record_of_assigned(disk: &wire::AssignedDisk) -> DiskRecord {
    DiskRecord {
        index: index(disk.index),
        path: disk.path.clone(),
        size_bytes: disk.size_bytes,
        identity: identity(disk.identity.as_ref()),
    }
}

fn index(index: u32) -> DiskIndex {
    DiskIndex(u16::try_from(index).unwrap_or(u16::MAX))
}

fn identity(identity: Option<&wire::DiskIdentity>) -> Option<DiskIdentity> {
    identity.map(|identity| identity.facts.clone().into_iter().collect())
}

fn changed(change: &DiskChange) -> Failure {
    Failure::new(
        FailureCode::SourceDiskChanged,
        format!("{change} Delete the job and create a new one."),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;

    fn assigned(path: &Path, size_bytes: u64) -> wire::AssignedDisk {
        wire::AssignedDisk {
            index: 0,
            path: path.display().to_string(),
            size_bytes,
            identity: None,
        }
    }

    fn disk(index: u32, path: &Path) -> wire::Disk {
        let measured = inventory::measure(path).unwrap();
        let facts: BTreeMap<_, _> = inventory::identity_now(path, &measured).into();
        wire::Disk {
            index,
            path: path.display().to_string(),
            size_bytes: measured.size_bytes,
            identity: Some(wire::DiskIdentity {
                facts: facts.into_iter().collect(),
            }),
            ..wire::Disk::default()
        }
    }

    fn snapshot(paths: &[&Path]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.inventory.disks = (0..)
            .zip(paths)
            .map(|(index, path)| disk(index, path))
            .collect();
        snapshot
    }

    #[test]
    fn only_an_unchanged_disk_of_this_source_is_sent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, [1; 100]).unwrap();
        let snapshot = snapshot(&[&path]);
        let check = |path: &Path, size_bytes| find(vec![assigned(path, size_bytes)], &snapshot);
        assert_eq!(check(&path, 100), Ok(vec![assigned(&path, 100)]));

        let grown = check(&path, 99).unwrap_err();
        assert_eq!(grown.code, FailureCode::SourceDiskChanged);
        assert!(
            grown.message.contains("100") && grown.message.contains("99"),
            "{grown}"
        );

        let foreign = check(Path::new("/etc/shadow"), 100);
        assert_eq!(foreign.unwrap_err().code, FailureCode::SourceDiskChanged);

        std::fs::remove_file(&path).unwrap();
        let lost = check(&path, 100).unwrap_err();
        assert_eq!(lost.code, FailureCode::SourceDiskUnreadable);
    }

    /// Makes disks with partition tables, so that they are identified whatever the file system records about files.
    fn disks<const COUNT: usize>(directory: &Path, ids: [&str; COUNT]) -> [PathBuf; COUNT] {
        ids.map(|id| {
            let path = directory.join(id);
            std::fs::File::create_new(&path)
                .unwrap()
                .set_len(1 << 20)
                .unwrap();
            let made = std::process::Command::new("sh")
                .args([
                    "-ec",
                    "printf 'label: dos\\nlabel-id: %s\\n' \"$1\" | sfdisk -q \"$2\"",
                    "sh",
                ])
                .args([id.as_ref(), path.as_os_str()])
                .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
                .status()
                .unwrap();
            assert!(made.success());
            path
        })
    }

    #[test]
    fn disks_that_swapped_names_are_not_exchanged_and_another_disk_is_not_sent() {
        let directory = tempfile::tempdir().unwrap();
        let [a, b, c] = disks(directory.path(), ["0x0000000a", "0x0000000b", "0x0000000c"]);
        let before = snapshot(&[&a, &b]);
        let assigned: Vec<wire::AssignedDisk> = before
            .inventory
            .disks
            .iter()
            .map(|disk| wire::AssignedDisk {
                index: disk.index,
                path: disk.path.clone(),
                size_bytes: disk.size_bytes,
                identity: disk.identity.clone(),
            })
            .collect();
        assert_eq!(find(assigned.clone(), &before).unwrap(), assigned);

        let swap = |one: &Path, other: &Path| {
            let aside = directory.path().join("aside");
            std::fs::rename(one, &aside).unwrap();
            std::fs::rename(other, one).unwrap();
            std::fs::rename(&aside, other).unwrap();
        };
        swap(&a, &b);
        let found = find(assigned.clone(), &snapshot(&[&a, &b])).unwrap();
        let [first, second] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!((first.index, Path::new(&first.path)), (0, b.as_path()));
        assert_eq!((second.index, Path::new(&second.path)), (1, a.as_path()));
        // The inventory is out of date: the agent inspects the disk again before it sends.
        let stale = find(assigned.clone(), &before).unwrap_err();
        assert_eq!(stale.code, FailureCode::SourceDiskChanged);
        swap(&a, &b);

        swap(&b, &c);
        let replaced = find(assigned, &snapshot(&[&a, &b])).unwrap_err();
        assert_eq!(replaced.code, FailureCode::SourceDiskChanged);
        assert!(replaced.message.contains("is another disk"), "{replaced}");
    }
}
