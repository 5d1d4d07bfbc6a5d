//! The content of a job's `StatusInfo`: a JSON text with the failure, if there is one, and the measured progress of the
//! run.

use serde::{Deserialize, Serialize};

use crate::disk::{DiskIndex, Moment};

/// Free space of a disk that is copied although the job would skip it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedFreeSpace {
    /// The disk's index.
    pub disk: DiskIndex,
    /// Reason for the copy, in printable words that can follow a colon.
    pub reason: String,
}

/// The content of a job's `StatusInfo`. Absent parts are left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusInfo {
    /// The failure's code, as in `ErrorCode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Sentences about what happened and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_msg: Option<String>,
    /// Activity of the run, or what it waits for, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
    /// Place in the tenant's queue, from 1, while the job waits for a slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<i64>,
    /// The run's number, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<i32>,
    /// Bytes of the source's disks that are on the target, flushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_durable: Option<u64>,
    /// Bytes of all disks of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<u64>,
    /// Bytes that crossed the wire in this run so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_wire: Option<u64>,
    /// Bytes of free space of the source's file systems that were left out: the image has zeros there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_free: Option<u64>,
    /// Disks whose free space is copied although the job would skip it, and the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copied_free_space: Vec<CopiedFreeSpace>,
    /// Durable bytes per second, measured over a recent period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_bytes_per_sec: Option<u64>,
    /// Seconds to the end of the phase at that rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_secs: Option<u64>,
    /// Number of unreadable ranges of the source's disks, which are zeros on the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable_ranges: Option<u64>,
    /// Bytes of the unreadable ranges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable_bytes: Option<u64>,
    /// Consistency of the copy, once everything is copied: true to one moment, or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Moment>,
    /// Circumstances that may keep the next run from completing, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The transport that carries the disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// Reason for the choice of the transport.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport_reason: Option<String>,
}

impl StatusInfo {
    /// Returns the JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a struct of strings and integers has a JSON form")
    }

    /// Parses the JSON text; an empty text is an empty info.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        if text.is_empty() {
            Ok(Self::default())
        } else {
            serde_json::from_str(text)
        }
    }
}
