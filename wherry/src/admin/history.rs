//! `wherry admin history`: what happened to all jobs, in the order in which it happened.

use clap::Args;
use serde_json::{Value, json};
use store::Store;
use store::history::Happened;

use super::{Answer, rows};

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
    pub(super) async fn run(self, store: &Store) -> anyhow::Result<Answer> {
        let happened = store
            .history(self.after, self.limit, self.tenant.as_deref())
            .await?;
        Ok((happened.iter().map(describe).collect(), list))
    }
}

fn describe(row: &Happened) -> Value {
    json!({
        "Seq": row.seq,
        "Time": row.at.as_datetime().to_rfc3339(),
        "Tenant": row.tenant,
        "JobId": row.job_id,
        "Event": row.event.as_str(),
        "From": row.from.as_str(),
        "To": row.to.as_str(),
        "Run": row.run.0,
        "Epoch": row.epoch.0,
        "Actor": row.actor,
        "Detail": row.detail,
    })
}

fn list(history: &Value) -> String {
    rows(
        history,
        &[
            "Seq", "Time", "Tenant", "JobId", "Event", "From", "To", "Run", "Epoch", "Actor",
            "Detail",
        ],
    )
}
