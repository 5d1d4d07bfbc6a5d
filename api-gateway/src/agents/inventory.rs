//! Messages of agents, checked and turned into our own types. Anyone with an activation code can send anything, so
//! every text and number has a bound. A text that a terminal could not show as it is, or that Postgres could not store,
//! is refused here.

use std::collections::BTreeSet;

use domain::disk::{
    DiskIdentity, DiskIndex, DiskLayout, Fact, PartitionPurpose, SourceDisk, SourcePartition,
};
use domain::printable::{is_printable, printable};
use domain::status_info::CopiedFreeSpace;
use domain::{Epoch, Failure, FailureCode, Run};
use proto::agent as wire;
use store::agent::{Caller, Inventory, Report, ReportedState};
use tonic::Status;

/// Longest text of an instance.
const MAX_INSTANCE_TEXT: usize = 256;
/// Longest `SystemInfo` in bytes (SMC API §1.1).
const MAX_SYSTEM_INFO: usize = 1024;
/// Longest name of a version, platform or architecture.
const MAX_WORD: usize = 128;
/// Longest path of a disk.
const MAX_PATH: usize = 4096;
/// Longest text about the use of a disk.
const MAX_IN_USE: usize = 1024;
/// Most partitions of a disk: as many as a table of the usual size has.
const MAX_PARTITIONS: usize = 128;
/// Longest fact about a disk.
const MAX_FACT: usize = 1024;
/// Largest sector that is accepted, in bytes.
const MAX_SECTOR: u32 = 1 << 20;
/// Longest text of a failure; a longer one is cut.
const MAX_FAILURE: usize = 2048;
/// Longest reason for copying the free space of a disk, in characters; a longer one is cut.
const MAX_REASON: usize = 512;
/// Most disks of a source.
const MAX_DISKS: usize = DiskIndex::MAX.0 as usize + 1;
/// Most reports in one heartbeat. A source has one unfinished job.
const MAX_REPORTS: usize = 64;

/// Checks an inventory.
pub(super) fn inventory(inventory: Option<wire::Inventory>) -> Result<Inventory, Status> {
    let inventory = inventory.ok_or_else(|| invalid("the inventory is missing"))?;
    Ok(Inventory {
        agent_version: word("agent_version", inventory.agent_version)?,
        architecture: word("architecture", inventory.architecture)?,
        platform: word("platform", inventory.platform)?,
        kernel_level: inventory.kernel_level,
        system_info: system_info(&inventory.system_info)?,
        disks: disks(inventory.disks)?,
    })
}

fn disks(disks: Vec<wire::Disk>) -> Result<Vec<SourceDisk>, Status> {
    let paths: BTreeSet<&str> = disks.iter().map(|disk| disk.path.as_str()).collect();
    if paths.len() < disks.len() {
        return Err(invalid(
            "two disks of a source can't have one path: name each disk once with --disk",
        ));
    }
    let mut seen = BTreeSet::new();
    let disks = disks
        .into_iter()
        .map(|disk| {
            let index = u16::try_from(disk.index)
                .map(DiskIndex)
                .ok()
                .filter(|index| *index <= DiskIndex::MAX && seen.insert(*index))
                .ok_or_else(|| {
                    invalid("the disks of a source have different indexes from 0 to 16")
                })?;
            Ok(SourceDisk {
                index,
                path: text("path", disk.path, MAX_PATH)?,
                size_bytes: bytes(disk.size_bytes)?,
                used_bytes: disk.used_bytes.map(bytes).transpose()?,
                partitions: partitions(disk.partitions)?,
                layout: DiskLayout {
                    logical_sector_bytes: disk.logical_sector_bytes.map(sector).transpose()?,
                    physical_sector_bytes: disk.physical_sector_bytes.map(sector).transpose()?,
                    partition_table: Some(word("partition_table", disk.partition_table)?)
                        .filter(|kind| !kind.is_empty()),
                },
                identity: disk.identity.map(identity).transpose()?,
                in_use: text("in_use", disk.in_use, MAX_IN_USE)?,
            })
        })
        .collect::<Result<Vec<_>, Status>>()?;
    are_apart(&disks)?;
    Ok(disks)
}

fn partitions(partitions: Vec<wire::Partition>) -> Result<Vec<SourcePartition>, Status> {
    use wire::partition::Purpose;

    if partitions.len() > MAX_PARTITIONS {
        return Err(invalid("a disk has at most 128 partitions"));
    }
    partitions
        .into_iter()
        .map(|partition| {
            Ok(SourcePartition {
                purpose: match partition.purpose() {
                    Purpose::Unspecified => PartitionPurpose::Normal,
                    Purpose::System => PartitionPurpose::System,
                    Purpose::Boot => PartitionPurpose::Boot,
                },
                path: text("path", partition.path, MAX_PATH)?,
                start_bytes: bytes(partition.start_bytes)?,
                size_bytes: bytes(partition.size_bytes)?,
            })
        })
        .collect()
}

fn sector(bytes: u32) -> Result<u32, Status> {
    let is_size = bytes.is_power_of_two() && bytes <= MAX_SECTOR;
    is_size
        .then_some(bytes)
        .ok_or_else(|| invalid("the bytes of a sector are a power of two"))
}

/// Checks the identity of a disk, after dropping the facts of later versions.
fn identity(identity: wire::DiskIdentity) -> Result<DiskIdentity, Status> {
    let identity: DiskIdentity = identity.facts.into_iter().collect();
    for kind in Fact::ALL {
        if let Some(fact) = identity.get(kind) {
            text("a fact about a disk", fact.to_owned(), MAX_FACT)?;
        }
    }
    Ok(identity)
}

/// Refuses two disks with the same unique fact: one disk would be copied twice.
fn are_apart(disks: &[SourceDisk]) -> Result<(), Status> {
    for kind in [Fact::DeviceMapper, Fact::Raid, Fact::File] {
        let mut facts = BTreeSet::new();
        let identities = disks.iter().filter_map(|disk| disk.identity.as_ref());
        let mut known = identities.filter_map(|identity| identity.get(kind));
        if !known.all(|fact| facts.insert(fact)) {
            return Err(invalid(
                "two disks of a source can't be one: name each disk once with --disk",
            ));
        }
    }
    Ok(())
}

fn bytes(bytes: u64) -> Result<u64, Status> {
    i64::try_from(bytes)
        .map(|_| bytes)
        .map_err(|_| invalid("a disk has at most 2^63 - 1 bytes"))
}

fn system_info(text: &str) -> Result<serde_json::Value, Status> {
    if text.len() > MAX_SYSTEM_INFO {
        return Err(invalid("system_info must have at most 1024 bytes"));
    }
    let info = serde_json::from_str(text)
        .ok()
        .filter(serde_json::Value::is_object)
        .ok_or_else(|| invalid("system_info must be the text of a JSON object"))?;
    if !has_printable_texts(&info) {
        return Err(invalid(
            "system_info must not contain control characters or invisible characters",
        ));
    }
    Ok(info)
}

fn has_printable_texts(value: &serde_json::Value) -> bool {
    use serde_json::Value;

    match value {
        Value::String(text) => is_printable(text),
        Value::Array(values) => values.iter().all(has_printable_texts),
        Value::Object(fields) => fields
            .iter()
            .all(|(name, value)| is_printable(name) && has_printable_texts(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

/// Checks the identity of the calling agent; `None` from an agent that sends none.
pub(super) fn caller(instance: Option<wire::Instance>) -> Result<Option<Caller>, Status> {
    let Some(wire::Instance { id, place, host }) = instance else {
        return Ok(None);
    };
    for text in [&id, &place, &host] {
        if text.len() > MAX_INSTANCE_TEXT || !is_printable(text) {
            return Err(invalid(
                "the texts of an instance must have at most 256 bytes and no control characters",
            ));
        }
    }
    if id.is_empty() || place.is_empty() {
        return Err(invalid("an instance must have an id and a place"));
    }
    Ok(Some(Caller {
        instance: id,
        place,
        host,
    }))
}

/// Returns the host name in an inventory.
pub(super) fn host_name(inventory: &Inventory) -> Option<&str> {
    inventory.system_info.get("hostname")?.as_str()
}

/// Checks the failure of a source or an assignment.
pub(super) fn failure(failure: Option<wire::Failure>) -> Option<Failure> {
    failure.map(|failure| {
        // A newer agent may send codes that this gateway does not know; its sentence still describes the failure.
        let code = failure.code.parse().unwrap_or(FailureCode::Internal);
        // A refused failure would reach nobody, so its text is made printable instead.
        let message: String = failure.message.chars().take(MAX_FAILURE).collect();
        Failure::new(code, message)
    })
}

/// Checks the reports on assignments.
pub(super) fn reports(reports: Vec<wire::AssignmentReport>) -> Result<Vec<Report>, Status> {
    if reports.len() > MAX_REPORTS {
        return Err(invalid("a heartbeat has at most 64 reports"));
    }
    reports.into_iter().map(report).collect()
}

fn report(report: wire::AssignmentReport) -> Result<Report, Status> {
    use wire::assignment_report::State;

    let state = match report.state() {
        State::Connecting => ReportedState::Connecting,
        State::Sending => ReportedState::Sending,
        State::Sent => ReportedState::Sent,
        State::Retrying => ReportedState::Retrying,
        State::Failed => ReportedState::Failed,
        State::Unspecified => {
            return Err(invalid("a report says in which state its assignment is"));
        }
    };
    Ok(Report {
        job_id: report
            .job_id
            .parse()
            .map_err(|_| invalid("a report names a job"))?,
        run: Run(report.run),
        epoch: Epoch(report.epoch),
        state,
        failure: failure(report.failure),
        copied_free_space: copied_free_space(report.copied_free_space)?,
    })
}

fn copied_free_space(copied: Vec<wire::CopiedFreeSpace>) -> Result<Vec<CopiedFreeSpace>, Status> {
    if copied.len() > MAX_DISKS {
        return Err(invalid("a report must name each disk at most once"));
    }
    copied
        .into_iter()
        .map(|wire::CopiedFreeSpace { disk_index, reason }| {
            let disk = u16::try_from(disk_index).map(DiskIndex);
            let disk = disk.ok().filter(|disk| *disk <= DiskIndex::MAX);
            let reason: String = reason.chars().take(MAX_REASON).collect();
            Ok(CopiedFreeSpace {
                disk: disk.ok_or_else(|| invalid("the index of a disk must be at most 16"))?,
                reason: printable(&reason).into_owned(),
            })
        })
        .collect()
}

fn word(field: &str, value: String) -> Result<String, Status> {
    text(field, value, MAX_WORD)
}

fn text(field: &str, value: String, most: usize) -> Result<String, Status> {
    if value.len() > most || !is_printable(&value) {
        return Err(invalid(&format!(
            "{field} must have at most {most} bytes and no control or invisible characters, and is {:?}",
            value.chars().take(MAX_WORD).collect::<String>()
        )));
    }
    Ok(value)
}

pub(super) fn invalid(message: &str) -> Status {
    Status::invalid_argument(printable(message))
}

#[cfg(test)]
mod tests {
    use domain::printable::EVIL;
    use serde_json::json;

    use super::*;

    fn good() -> wire::Inventory {
        wire::Inventory {
            system_info: r#"{"hostname":"web-01"}"#.to_owned(),
            disks: vec![disk(0), disk(1)],
            ..wire::Inventory::default()
        }
    }

    fn disk(index: u32) -> wire::Disk {
        wire::Disk {
            index,
            path: format!("/dev/vd{index}"),
            size_bytes: 1 << 30,
            used_bytes: None,
            partitions: Vec::new(),
            logical_sector_bytes: Some(512),
            physical_sector_bytes: Some(4096),
            partition_table: "gpt".to_owned(),
            identity: Some(facts(&[("file", &format!("inode {index}"))])),
            in_use: String::new(),
        }
    }

    fn facts(facts: &[(&str, &str)]) -> wire::DiskIdentity {
        let facts = facts.iter();
        wire::DiskIdentity {
            facts: facts
                .map(|(kind, fact)| ((*kind).to_owned(), (*fact).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn an_inventory_that_postgres_could_not_keep_is_refused() {
        assert_eq!(host_name(&inventory(Some(good())).unwrap()), Some("web-01"));
        let broken: [fn(&mut wire::Inventory); 15] = [
            |inventory| inventory.disks[0].logical_sector_bytes = Some(500),
            |inventory| inventory.disks[0].partition_table = "x".repeat(129),
            |inventory| inventory.disks[1].identity = inventory.disks[0].identity.clone(),
            |inventory| {
                inventory.disks[0].identity = Some(facts(&[("serial", &"x".repeat(1025))]));
            },
            |inventory| inventory.disks[1].path = inventory.disks[0].path.clone(),
            |inventory| inventory.system_info = "[]".to_owned(),
            |inventory| inventory.system_info = r#"{"a":"\u0000"}"#.to_owned(),
            |inventory| inventory.system_info = format!(r#"{{"a":"{}"}}"#, "x".repeat(1024)),
            |inventory| inventory.platform = "a\0b".to_owned(),
            |inventory| inventory.platform = "x".repeat(129),
            |inventory| inventory.disks.push(disk(1)),
            |inventory| inventory.disks.push(disk(17)),
            |inventory| inventory.disks[0].size_bytes = u64::MAX,
            |inventory| inventory.disks[0].partitions = vec![wire::Partition::default(); 129],
            |inventory| {
                inventory.disks[0].partitions = vec![wire::Partition {
                    path: "a\0b".to_owned(),
                    ..wire::Partition::default()
                }];
            },
        ];
        for (number, spoil) in broken.into_iter().enumerate() {
            let mut spoiled = good();
            spoil(&mut spoiled);
            let status = inventory(Some(spoiled)).expect_err("refused");
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{number}");
        }
    }

    #[test]
    fn no_text_of_an_agent_can_deceive_a_reader() {
        type Put = fn(&mut wire::Inventory, &str);
        let texts: [Put; 7] = [
            |inventory, text| inventory.agent_version = text.to_owned(),
            |inventory, text| inventory.architecture = text.to_owned(),
            |inventory, text| inventory.platform = text.to_owned(),
            |inventory, text| inventory.disks[1].path = text.to_owned(),
            |inventory, text| {
                inventory.disks[0].partitions = vec![wire::Partition {
                    path: text.to_owned(),
                    ..wire::Partition::default()
                }];
            },
            |inventory, text| {
                inventory.system_info = json!({ "a": [{ "b": text }] }).to_string();
            },
            |inventory, text| inventory.system_info = json!({ text: "a" }).to_string(),
        ];
        for evil in EVIL {
            for (number, put) in texts.into_iter().enumerate() {
                let mut spoiled = good();
                put(&mut spoiled, evil);
                let status = inventory(Some(spoiled)).expect_err("refused");
                assert!(is_printable(status.message()), "{number}: {status}");
            }
            let code = "SourceServer.Offline".to_owned();
            let message = (*evil).to_owned();
            let kept = failure(Some(wire::Failure { code, message })).expect("kept");
            assert!(is_printable(&kept.message), "{kept}");
        }
    }

    #[test]
    fn a_failure_of_a_newer_agent_keeps_its_sentence() {
        let failure = failure(Some(wire::Failure {
            code: "Source.OnFire".to_owned(),
            message: "The server burns.".to_owned(),
        }));
        assert_eq!(
            failure,
            Some(Failure::new(FailureCode::Internal, "The server burns."))
        );
    }

    #[test]
    fn reasons_of_an_agent_are_bounded_and_printable() {
        let copied = |disk_index, reason: &str| wire::CopiedFreeSpace {
            disk_index,
            reason: reason.to_owned(),
        };
        let long = "x".repeat(2 * MAX_REASON);
        for evil in EVIL.iter().copied().chain([long.as_str()]) {
            let taken = copied_free_space(vec![copied(16, evil)]).unwrap();
            let reason = &taken[0].reason;
            assert!(is_printable(reason), "{reason}");
            assert!(evil.len() < MAX_REASON || reason.len() == MAX_REASON);
        }
        copied_free_space(vec![copied(17, "")]).expect_err("no such disk");
        copied_free_space(vec![copied(0, ""); MAX_DISKS + 1]).expect_err("too many");
    }
}
