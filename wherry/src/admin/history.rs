//! `wherry admin history`: what happened to all jobs, in the order in which it happened.

use clap::Args;
use proto::admin as wire;
use serde_json::{Value, json};

use super::socket::{Client, said};
use super::{Answer, rows};

/// Rows of one request.
const PAGE: i64 = 10_000;

#[derive(Debug, Args)]
pub(super) struct History {
    /// Only what happened behind this row.
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    after: i64,
    /// Rows at most.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
    /// Only the jobs of the tenant with this name.
    #[arg(long)]
    tenant: Option<String>,
}

impl History {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<Answer> {
        let mut found: Vec<wire::HistoryRow> = Vec::new();
        let mut left = self.limit;
        while left > 0 {
            let request = wire::ListHistoryRequest {
                after: found.last().map_or(self.after, |row| row.seq),
                limit: left.min(PAGE),
                tenant: self.tenant.clone().unwrap_or_default(),
            };
            let page = client.list_history(request).await.map_err(said)?;
            let page = page.into_inner().rows;
            if page.is_empty() {
                break;
            }
            left -= i64::try_from(page.len())?;
            found.extend(page);
        }
        Ok((found.into_iter().map(describe).collect(), list))
    }
}

fn describe(row: wire::HistoryRow) -> Value {
    json!({
        "Seq": row.seq,
        "Time": row.time,
        "Tenant": row.tenant,
        "JobId": row.job_id,
        "Event": row.event,
        "From": row.from,
        "To": row.to,
        "Run": row.run,
        "Epoch": row.epoch,
        "Actor": row.actor,
        "Detail": row.detail,
        "Cause": row.cause,
    })
}

fn list(history: &Value) -> String {
    rows(
        history,
        &[
            "Seq", "Time", "Tenant", "JobId", "Event", "From", "To", "Run", "Epoch", "Actor",
            "Detail", "Cause",
        ],
    )
}
