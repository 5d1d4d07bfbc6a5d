//! Writes of agents: their registration, their heartbeats, and the reports on their assignments.
//!
//! An agent is identified by its key, and so by the id of its source. Its calls name no tenant; the source's row does.

mod heartbeat;
mod register;
mod seat;

pub use heartbeat::{Heartbeat, Heartbeated, Report, ReportedState, UnknownReportedState};
pub use register::{Owner, Refusal, Registered, Registration};
pub use seat::{Caller, Holder, Seated};

use domain::SourceId;
use domain::disk::{DiskIdentity, DiskLayout, SourceDisk, SourcePartition};
use sqlx::types::Json;

use crate::row::signed;
use crate::{StoreError, Transaction};

/// The inventory that an agent reports of its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Version of the agent, such as `0.1.0`.
    pub agent_version: String,
    /// Architecture of the server, such as `x86_64`.
    pub architecture: String,
    /// Platform of the server, such as `Ubuntu`.
    pub platform: String,
    /// The API's `KernelLevel`.
    pub kernel_level: i32,
    /// JSON object with lower-case keys, for `SystemInfo`.
    pub system_info: serde_json::Value,
    /// The readable disks, each index once.
    pub disks: Vec<SourceDisk>,
}

/// Writes the disks that the agent found. Records of other disks are removed only if `complete` is set: a disk that
/// can't be read now still belongs to the source.
async fn write_disks(
    transaction: &mut Transaction<'_>,
    source_id: &SourceId,
    disks: &[SourceDisk],
    complete: bool,
) -> Result<(), StoreError> {
    let indexes: Vec<i16> = disks
        .iter()
        .map(|disk| i16::try_from(disk.index.0).unwrap_or(i16::MAX))
        .collect();
    if complete {
        sqlx::query!(
            "delete from source_disk where source_id = $1 and not index = any($2)",
            source_id.as_str(),
            &indexes
        )
        .execute(&mut **transaction)
        .await?;
    }
    let paths: Vec<String> = disks.iter().map(|disk| disk.path.clone()).collect();
    let sizes: Vec<i64> = disks.iter().map(|disk| signed(disk.size_bytes)).collect();
    let used: Vec<Option<i64>> = disks
        .iter()
        .map(|disk| disk.used_bytes.map(signed))
        .collect();
    let partitions: Vec<Json<&[SourcePartition]>> = disks
        .iter()
        .map(|disk| Json(disk.partitions.as_slice()))
        .collect();
    let layouts: Vec<Json<&DiskLayout>> = disks.iter().map(|disk| Json(&disk.layout)).collect();
    let identities: Vec<Option<Json<&DiskIdentity>>> = disks
        .iter()
        .map(|disk| disk.identity.as_ref().map(Json))
        .collect();
    let in_use: Vec<String> = disks.iter().map(|disk| disk.in_use.clone()).collect();
    sqlx::query!(
        r#"
        insert into source_disk (source_id, index, path, size_bytes, used_bytes, partitions, layout, identity, in_use)
        select $1, disk.* from unnest($2::smallint[], $3::text[], $4::bigint[], $5::bigint[], $6::jsonb[], $7::jsonb[], $8::jsonb[],
            $9::text[]) as disk
        on conflict (source_id, index) do update set
            path = excluded.path, size_bytes = excluded.size_bytes, used_bytes = excluded.used_bytes,
            partitions = excluded.partitions, layout = excluded.layout, identity = excluded.identity, in_use = excluded.in_use
        where (source_disk.path, source_disk.size_bytes, source_disk.used_bytes, source_disk.partitions, source_disk.layout,
                source_disk.identity, source_disk.in_use)
            is distinct from (excluded.path, excluded.size_bytes, excluded.used_bytes, excluded.partitions, excluded.layout,
                excluded.identity, excluded.in_use)
        "#,
        source_id.as_str(),
        &indexes,
        &paths,
        &sizes,
        &used as &[Option<i64>],
        &partitions as &[Json<&[SourcePartition]>],
        &layouts as &[Json<&DiskLayout>],
        &identities as &[Option<Json<&DiskIdentity>>],
        &in_use,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

fn system_info(inventory: &Inventory) -> Json<&serde_json::Value> {
    Json(&inventory.system_info)
}
