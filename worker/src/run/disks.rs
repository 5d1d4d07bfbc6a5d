//! The disks of a run. The job's disks are compared with the source's disks, the received disks, and the image. A
//! server whose disk is missing from its image is not migrated, and must not appear to be.

use domain::disk::{DiskRecord, Moment};
use domain::parameters::Consistency;
use domain::{Failure, FailureCode};
use proto::receiver::{StatusResponse, receipt};
use store::run::RunDisk;

/// Checks that each disk of the source is still the one that the job was created for.
///
/// # Errors
/// A disk is missing or is a different one, with the sentence for the tenant.
pub(super) fn are_unchanged(disks: &[RunDisk]) -> Result<(), Failure> {
    disks
        .iter()
        .find_map(|disk| {
            let now = disk.found.as_ref().map(DiskRecord::from);
            disk.as_created().check(now.as_ref()).err()
        })
        .map_or(Ok(()), |what| {
            Err(Failure::new(
                FailureCode::SourceDiskChanged,
                format!(
                    "{what} Give the source its disk back and start the job again, or delete the job and create a new one."
                ),
            ))
        })
}

/// Returns true if the receiver has given a receipt for every disk of the job, each over all bytes of the source's.
pub(super) fn have_arrived(disks: &[RunDisk], status: &StatusResponse) -> bool {
    let has_receipt = |disk: &RunDisk| {
        status.disks.iter().any(|received| {
            received.index == u32::from(disk.target.index.0)
                && received
                    .receipt
                    .as_ref()
                    .is_some_and(|receipt| receipt.size_bytes == disk.source_bytes)
        })
    };
    !disks.is_empty() && status.disks.len() == disks.len() && disks.iter().all(has_receipt)
}

/// Returns the moment of the copy, if every disk has its receipt.
pub(super) fn moment_of(status: &StatusResponse) -> Option<Moment> {
    let receipts = status.disks.iter().map(|disk| disk.receipt.as_ref());
    let receipts: Option<Vec<_>> = receipts.collect();
    let moments = receipts?.into_iter().map(|receipt| match receipt.moment() {
        receipt::Moment::One => Moment::One,
        receipt::Moment::Several => Moment::Several,
        receipt::Moment::Unspecified => Moment::Unknown,
    });
    Some(Moment::of_all(moments))
}

/// Checks that a received copy is as consistent as the job requires. The agent checks first; this check covers an agent
/// that does not.
///
/// # Errors
/// A disk was written meanwhile, with the sentence for the tenant.
pub(super) fn are_consistent(
    disks: &[RunDisk],
    wanted: Consistency,
    status: &StatusResponse,
) -> Result<(), Failure> {
    if wanted == Consistency::Fuzzy {
        return Ok(());
    }
    let is_written = |disk: &&RunDisk| {
        status.disks.iter().any(|received| {
            let receipt = received.receipt.as_ref();
            received.index == u32::from(disk.target.index.0)
                && receipt.is_some_and(|receipt| receipt.moment() == receipt::Moment::Several)
        })
    };
    disks.iter().find(is_written).map_or(Ok(()), |disk| {
        Err(Failure::new(
            FailureCode::SourceDiskChanged,
            format!(
                "The disk {} was written while it was copied: the copy is not one moment in time. Stop what writes to the disk, then start the job \
                 again; what was copied is kept.",
                disk.path
            ),
        ))
    })
}

/// Checks that the image's description has every disk of the job, each with the requested size.
///
/// # Errors
/// The disks differ, with the sentence for the tenant.
pub(super) fn are_described(
    disks: &[RunDisk],
    description: &store::JsonValue,
) -> Result<(), Failure> {
    let wanted: Vec<Described> = disks
        .iter()
        .map(|disk| Described {
            index: u64::from(disk.target.index.0),
            size_bytes: disk.target.size_bytes(),
            source_bytes: disk.source_bytes,
        })
        .collect();
    let described: Option<Vec<Described>> = description["disks"]
        .as_array()
        .and_then(|described| described.iter().map(Described::read).collect());
    if described.as_deref() == Some(wanted.as_slice()) {
        return Ok(());
    }
    tracing::error!(?wanted, ?described, "an image has other disks than its job");
    Err(Failure::new(
        FailureCode::ImageFailed,
        "The image that was made does not have the disks that the job asks for. It is not delivered. Tell the operator, then start the job again.",
    ))
}

#[derive(Debug, PartialEq, Eq)]
struct Described {
    index: u64,
    size_bytes: u64,
    source_bytes: u64,
}

impl Described {
    fn read(disk: &store::JsonValue) -> Option<Self> {
        Some(Self {
            index: disk["index"].as_u64()?,
            size_bytes: disk["size_bytes"].as_u64()?,
            source_bytes: disk["source_bytes"].as_u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use domain::disk::{DiskIdentity, DiskIndex, DiskLayout, Fact, GIB, SourceDisk, TargetDisk};
    use proto::receiver::{DiskStatus, Receipt};

    use super::*;

    fn disk(index: u16, source_bytes: u64) -> RunDisk {
        let path = format!("/dev/vd{index}");
        RunDisk {
            path: path.clone(),
            source_bytes,
            target: TargetDisk {
                index: DiskIndex(index),
                size_gib: 20,
            },
            identity: None,
            found: Some(source_disk(index, &path, source_bytes)),
        }
    }

    fn source_disk(index: u16, path: &str, size_bytes: u64) -> SourceDisk {
        SourceDisk {
            index: DiskIndex(index),
            path: path.to_owned(),
            size_bytes,
            used_bytes: None,
            partitions: Vec::new(),
            layout: DiskLayout::default(),
            identity: None,
            in_use: String::new(),
        }
    }

    fn received(index: u32, size_bytes: u64) -> DiskStatus {
        DiskStatus {
            index,
            size_bytes,
            bytes_durable: size_bytes,
            receipt: Some(Receipt {
                size_bytes,
                ..Receipt::default()
            }),
            ..DiskStatus::default()
        }
    }

    #[test]
    fn a_disk_that_is_gone_moved_or_grew_is_named() {
        let whole = [disk(0, 1000), disk(1, 2000)];
        assert_eq!(are_unchanged(&whole), Ok(()));
        for (found, said) in [
            (None, "no disk 1 any more; it was /dev/vd1"),
            (
                Some(("/dev/vdc", 2000)),
                "Disk 1 of the source is /dev/vdc and was /dev/vd1",
            ),
            (
                Some(("/dev/vd1", 30 * GIB)),
                "Disk 1 of the source (/dev/vd1) has 32212254720 bytes and had 2000",
            ),
        ] {
            let mut disks = whole.clone();
            disks[1].found = found.map(|(path, size_bytes)| source_disk(1, path, size_bytes));
            let failure = are_unchanged(&disks).unwrap_err();
            assert_eq!(failure.code, FailureCode::SourceDiskChanged);
            assert!(failure.message.contains(said), "{failure}");
        }
    }

    #[test]
    fn a_disk_of_another_name_is_the_same_and_another_disk_of_its_name_is_not() {
        let serial = |serial: &str| {
            Some(DiskIdentity::default().with(Fact::Serial, Some(serial.to_owned())))
        };
        let mut disks = [disk(0, 1000)];
        disks[0].identity = serial("A");
        let found = |path, identity| SourceDisk {
            identity,
            ..source_disk(3, path, 1000)
        };
        disks[0].found = Some(found("/dev/vdd", serial("A")));
        assert_eq!(are_unchanged(&disks), Ok(()));
        disks[0].found = Some(found("/dev/vd0", serial("B")));
        let failure = are_unchanged(&disks).unwrap_err();
        assert_eq!(failure.code, FailureCode::SourceDiskChanged);
        assert!(failure.message.contains("is another disk"), "{failure}");
    }

    #[test]
    fn a_copy_is_complete_with_a_receipt_for_every_disk_of_the_job() {
        let disks = [disk(0, 1000), disk(1, 2000)];
        let status = |disks| StatusResponse {
            disks,
            ..StatusResponse::default()
        };
        let both = status(vec![received(0, 1000), received(1, 2000)]);
        assert!(have_arrived(&disks, &both));
        for lacking in [
            status(vec![]),
            status(vec![received(0, 1000)]),
            status(vec![received(0, 1000), received(1, 1999)]),
            status(vec![received(0, 1000), received(2, 2000)]),
            status(vec![
                received(0, 1000),
                DiskStatus {
                    receipt: None,
                    ..received(1, 2000)
                },
            ]),
        ] {
            assert!(!have_arrived(&disks, &lacking), "{lacking:?}");
        }
        assert!(
            !have_arrived(&[], &status(vec![])),
            "no disk is no migration"
        );
    }

    #[test]
    fn a_copy_of_a_disk_that_was_written_is_delivered_only_where_a_fuzzy_one_is_wanted() {
        let disks = [disk(0, 1000), disk(1, 2000)];
        let of = |moment: receipt::Moment| {
            let mut second = received(1, 2000);
            let receipt = second.receipt.as_mut().unwrap();
            receipt.set_moment(moment);
            let mut first = received(0, 1000);
            first
                .receipt
                .as_mut()
                .unwrap()
                .set_moment(receipt::Moment::One);
            StatusResponse {
                disks: vec![first, second],
                ..StatusResponse::default()
            }
        };
        for (moment, is_of) in [
            (receipt::Moment::One, Moment::One),
            (receipt::Moment::Several, Moment::Several),
            (receipt::Moment::Unspecified, Moment::Unknown),
        ] {
            let status = of(moment);
            assert_eq!(moment_of(&status), Some(is_of));
            assert_eq!(are_consistent(&disks, Consistency::Fuzzy, &status), Ok(()));
            let wanted = are_consistent(&disks, Consistency::Crash, &status);
            assert_eq!(wanted.is_err(), is_of == Moment::Several, "{wanted:?}");
        }
        let failure = are_consistent(&disks, Consistency::Crash, &of(receipt::Moment::Several));
        let failure = failure.unwrap_err();
        assert_eq!(failure.code, FailureCode::SourceDiskChanged);
        assert!(
            failure.message.contains("/dev/vd1 was written"),
            "{failure}"
        );
        assert_eq!(moment_of(&StatusResponse::default()), Some(Moment::Unknown));
    }

    #[test]
    fn an_image_with_other_disks_than_the_job_is_not_delivered() {
        let disks = [disk(0, 1000), disk(1, 2000)];
        let described = |index: u16, source_bytes: u64| serde_json::json!({"index": index, "size_bytes": 20 * GIB, "source_bytes": source_bytes});
        let whole = serde_json::json!({"disks": [described(0, 1000), described(1, 2000)]});
        assert_eq!(are_described(&disks, &whole), Ok(()));
        for other in [
            serde_json::json!({}),
            serde_json::json!({"disks": [described(0, 1000)]}),
            serde_json::json!({"disks": [described(0, 1000), described(1, 1000)]}),
        ] {
            let failure = are_described(&disks, &other).unwrap_err();
            assert_eq!(failure.code, FailureCode::ImageFailed);
        }
    }
}
