//! `wherry admin tenant` and `quota`.

use clap::{Args, Subcommand};
use proto::admin as wire;
use proto::admin::quota_change::Bytes;
use serde_json::{Value, json};

use super::socket::{Client, said};
use super::{Answer, rows, show};

#[derive(Debug, Subcommand)]
pub(super) enum TenantCommand {
    /// Makes a tenant, and its first access key. This is the only time at which the key's secret is shown.
    Create {
        /// Its name.
        name: String,
        #[command(flatten)]
        quotas: QuotaFlags,
    },
    /// Lists all tenants.
    List,
    /// Shows one tenant.
    Show {
        /// Its name.
        name: String,
    },
    /// Changes a tenant's name and quotas; what is not given stays.
    Update {
        /// Its name.
        name: String,
        /// Its new name.
        #[arg(long, value_name = "NAME")]
        rename: Option<String>,
        #[command(flatten)]
        quotas: QuotaFlags,
    },
    /// Deletes a tenant with its keys and activation codes. Refused while it has sources, jobs or images.
    Delete {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum QuotaCommand {
    /// Shows what a tenant may have.
    Show {
        /// Name of the tenant.
        tenant: String,
    },
    /// Changes what a tenant may have; what is not given stays. Jobs that run above a lowered limit run on.
    Update {
        /// Name of the tenant.
        tenant: String,
        #[command(flatten)]
        quotas: QuotaFlags,
    },
    /// Lists what each tenant may have.
    List,
}

#[derive(Debug, Args)]
pub(super) struct QuotaFlags {
    /// Sources that it may have.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    max_sources: Option<i32>,
    /// Jobs that it may have, in whatever state.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    max_jobs: Option<i32>,
    /// Jobs that may run at once; more wait.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    max_running: Option<i32>,
    /// Workgroups that it may have.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    max_workgroups: Option<i32>,
    /// Sources that one of its workgroups may have.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    max_workgroup_sources: Option<i32>,
    /// Activation codes that it may have.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    max_access_tokens: Option<i32>,
    /// Agents that may register with one of its activation codes.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    max_access_token_uses: Option<i32>,
    /// Days that one of its activation codes may be valid.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    max_access_token_days: Option<i32>,
    /// Bytes that its copies and images may take in the stores, such as `500GiB`, or `unlimited`.
    #[arg(long, value_parser = max_bytes)]
    max_bytes: Option<Bytes>,
    /// Calls a second that it may make at each gateway.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls_per_second: Option<u32>,
    /// Calls a second of any one operation that it may make at each gateway.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    operation_calls_per_second: Option<u32>,
}

impl QuotaFlags {
    fn change(&self) -> Option<wire::QuotaChange> {
        Some(wire::QuotaChange {
            max_sources: self.max_sources,
            max_jobs: self.max_jobs,
            max_running: self.max_running,
            max_workgroups: self.max_workgroups,
            max_workgroup_sources: self.max_workgroup_sources,
            max_access_tokens: self.max_access_tokens,
            max_access_token_uses: self.max_access_token_uses,
            max_access_token_days: self.max_access_token_days,
            calls_per_second: self.calls_per_second,
            operation_calls_per_second: self.operation_calls_per_second,
            bytes: self.max_bytes,
        })
    }
}

fn max_bytes(text: &str) -> Result<Bytes, String> {
    if text == "unlimited" {
        return Ok(Bytes::NoMaxBytes(true));
    }
    text.parse::<bytesize::ByteSize>()
        .map(|size| Bytes::MaxBytes(size.as_u64()))
        .map_err(|_| "must be a number of bytes, such as 500GiB, or `unlimited`".to_owned())
}

impl TenantCommand {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<Answer> {
        match self {
            Self::Create { name, quotas } => {
                let quotas = quotas.change();
                let request = wire::CreateTenantRequest { name, quotas };
                let made = client.create_tenant(request).await.map_err(said)?;
                let made = made.into_inner();
                let mut answer = describe(made.tenant.unwrap_or_default());
                let key = made.key.unwrap_or_default();
                answer["AccessKeyId"] = json!(key.id);
                answer["AccessKeySecret"] = json!(key.secret);
                Ok((answer, show))
            }
            Self::List => {
                list(client, |tenants| {
                    rows(
                        tenants,
                        &[
                            "TenantId",
                            "Name",
                            "MaxSources",
                            "MaxJobs",
                            "MaxRunning",
                            "Created",
                        ],
                    )
                })
                .await
            }
            Self::Show { name } => get(client, name).await,
            Self::Update {
                name,
                rename,
                quotas,
            } => update(client, name, rename, quotas.change()).await,
            Self::Delete { name } => {
                let request = wire::DeleteTenantRequest {
                    tenant: name.clone(),
                };
                client.delete_tenant(request).await.map_err(said)?;
                Ok((json!({ "Name": name, "Deleted": true }), show))
            }
        }
    }
}

impl QuotaCommand {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<Answer> {
        match self {
            Self::Show { tenant } => get(client, tenant).await,
            Self::Update { tenant, quotas } => update(client, tenant, None, quotas.change()).await,
            Self::List => {
                list(client, |tenants| {
                    rows(
                        tenants,
                        &[
                            "Name",
                            "MaxSources",
                            "MaxJobs",
                            "MaxRunning",
                            "MaxWorkgroups",
                            "MaxWorkgroupSources",
                            "MaxBytes",
                            "BytesHeld",
                            "CallsPerSecond",
                            "OperationCallsPerSecond",
                        ],
                    )
                })
                .await
            }
        }
    }
}

async fn get(client: &mut Client, tenant: String) -> anyhow::Result<Answer> {
    let request = wire::GetTenantRequest { tenant };
    let tenant = client.get_tenant(request).await.map_err(said)?;
    Ok((describe(tenant.into_inner()), show))
}

async fn list(client: &mut Client, render: fn(&Value) -> String) -> anyhow::Result<Answer> {
    let request = wire::ListTenantsRequest {};
    let listed = client.list_tenants(request).await.map_err(said)?;
    let tenants = listed.into_inner().tenants.into_iter().map(describe);
    Ok((tenants.collect(), render))
}

async fn update(
    client: &mut Client,
    tenant: String,
    name: Option<String>,
    quotas: Option<wire::QuotaChange>,
) -> anyhow::Result<Answer> {
    let request = wire::UpdateTenantRequest {
        tenant,
        name,
        quotas,
    };
    let tenant = client.update_tenant(request).await.map_err(said)?;
    Ok((describe(tenant.into_inner()), show))
}

fn describe(tenant: wire::Tenant) -> Value {
    let quotas = tenant.quotas.unwrap_or_default();
    json!({
        "TenantId": tenant.id,
        "Name": tenant.name,
        "MaxSources": quotas.max_sources,
        "MaxJobs": quotas.max_jobs,
        "MaxRunning": quotas.max_running,
        "MaxWorkgroups": quotas.max_workgroups,
        "MaxWorkgroupSources": quotas.max_workgroup_sources,
        "MaxAccessTokens": quotas.max_access_tokens,
        "MaxAccessTokenUses": quotas.max_access_token_uses,
        "MaxAccessTokenDays": quotas.max_access_token_days,
        "MaxBytes": quotas.max_bytes,
        "BytesHeld": tenant.bytes_held,
        "CallsPerSecond": quotas.calls_per_second,
        "OperationCallsPerSecond": quotas.operation_calls_per_second,
        "Created": tenant.created,
    })
}
