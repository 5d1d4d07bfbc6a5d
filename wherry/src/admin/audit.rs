//! `wherry admin audit`: who changed what.

use clap::{Args, Subcommand};
use proto::admin as wire;
use serde_json::{Value, json};

use super::socket::{Client, said};
use super::{Answer, rows};

/// Rows of one request.
const PAGE: i64 = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Lists every call that changed something, or tried to, the newest last.
    List(List),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only what concerned the tenant with this name, or with this id if it is gone.
    #[arg(long)]
    tenant: Option<String>,
    /// Only from this time on, such as 2026-11-23T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only this operation, such as DeleteReplicationJob or DeleteTenant.
    #[arg(long)]
    operation: Option<String>,
    /// Only calls with this access key, of the user with this name, or `operator`.
    #[arg(long)]
    principal: Option<String>,
    /// Only with this outcome: OK, an error's code, or Unknown for calls that nobody was left to answer.
    #[arg(long)]
    outcome: Option<String>,
}

impl AuditCommand {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<Answer> {
        let Self::List(list) = self;
        let mut found: Vec<wire::AuditRow> = Vec::new();
        loop {
            let request = wire::ListAuditRequest {
                after: found.last().map_or(0, |row| row.seq),
                limit: PAGE,
                tenant: list.tenant.clone().unwrap_or_default(),
                since: list.since.clone().unwrap_or_default(),
                until: list.until.clone().unwrap_or_default(),
                operation: list.operation.clone().unwrap_or_default(),
                principal: list.principal.clone().unwrap_or_default(),
                outcome: list.outcome.clone().unwrap_or_default(),
            };
            let page = client.list_audit(request).await.map_err(said)?;
            let page = page.into_inner().rows;
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        let answer = found.into_iter().map(describe).collect();
        Ok((answer, render))
    }
}

fn describe(row: wire::AuditRow) -> Value {
    json!({
        "Seq": row.seq,
        "Time": row.time,
        "Actor": row.actor,
        "Tenant": row.tenant,
        "AccessKeyId": row.access_key_id,
        "User": row.user,
        "Origin": row.origin,
        "RequestId": row.request_id,
        "Operation": row.operation,
        "Resources": row.resources,
        "Outcome": row.outcome,
        "Calls": row.calls,
    })
}

fn render(audit: &Value) -> String {
    let mut shown = audit.clone();
    for row in shown.as_array_mut().into_iter().flatten() {
        let ids = row["Resources"].as_array().into_iter().flatten();
        let ids: Vec<&str> = ids.filter_map(Value::as_str).collect();
        row["Resources"] = json!(ids.join(" "));
        // One column for who it was: a user, else the key, else the operator.
        let who = ["User", "AccessKeyId", "Actor"]
            .map(|name| row[name].as_str().unwrap_or_default().to_owned());
        let who = who.into_iter().find(|name| !name.is_empty());
        row["Principal"] = json!(who);
    }
    rows(
        &shown,
        &[
            "Time",
            "Tenant",
            "Principal",
            "Origin",
            "Operation",
            "Resources",
            "Outcome",
            "Calls",
            "RequestId",
        ],
    )
}
