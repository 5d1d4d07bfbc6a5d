//! The record of events: the history of jobs, and the audit.

use domain::Timestamp;
use proto::admin as wire;
use store::Store;
use store::audit::{AuditFilter, Entry};
use store::history::Happened;
use tonic::Status;

use super::failed;

/// Most rows in one answer. Callers ask again for the rows after the last one.
const MOST: i64 = 10_000;

fn limit(asked: i64) -> i64 {
    asked.clamp(1, MOST)
}

pub(super) async fn history(
    store: &Store,
    request: wire::ListHistoryRequest,
) -> Result<wire::ListHistoryResponse, Status> {
    let tenant = given(request.tenant);
    let rows = store
        .history(request.after, limit(request.limit), tenant.as_deref())
        .await
        .map_err(failed)?;
    Ok(wire::ListHistoryResponse {
        rows: rows.into_iter().map(happened).collect(),
    })
}

fn happened(row: Happened) -> wire::HistoryRow {
    wire::HistoryRow {
        seq: row.seq,
        time: row.at.as_datetime().to_rfc3339(),
        tenant: row.tenant,
        job_id: row.job_id,
        event: row.event.as_str().to_owned(),
        from: row.from.as_str().to_owned(),
        to: row.to.as_str().to_owned(),
        run: row.run.0,
        epoch: row.epoch.0,
        actor: row.actor,
        detail: row.detail,
        cause: row.cause,
    }
}

pub(super) async fn audit(
    store: &Store,
    request: wire::ListAuditRequest,
) -> Result<wire::ListAuditResponse, Status> {
    let filter = AuditFilter {
        tenant: given(request.tenant),
        since: time(&request.since)?,
        until: time(&request.until)?,
        operation: given(request.operation),
        principal: given(request.principal),
        outcome: given(request.outcome),
    };
    let rows = store
        .audit(&filter, request.after, limit(request.limit))
        .await
        .map_err(failed)?;
    Ok(wire::ListAuditResponse {
        rows: rows.into_iter().map(entry).collect(),
    })
}

fn entry(entry: Entry) -> wire::AuditRow {
    wire::AuditRow {
        seq: entry.seq,
        time: entry.at.as_datetime().to_rfc3339(),
        actor: entry.actor,
        tenant: entry.tenant,
        access_key_id: entry.access_key,
        user: entry.user_name,
        origin: entry.origin,
        request_id: entry.request_id,
        operation: entry.operation,
        resources: entry.resources,
        outcome: entry.outcome,
        calls: entry.calls,
    }
}

fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn time(text: &str) -> Result<Option<Timestamp>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        Status::invalid_argument(format!(
            "{text} is no time: write it as 2026-11-23T12:00:00Z, in UTC"
        ))
    })
}
