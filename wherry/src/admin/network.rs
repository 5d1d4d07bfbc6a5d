//! `wherry admin network`: regions, VPCs and vSwitches of tenants.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use proto::admin as wire;
use proto::admin::network::Kind;
use serde_json::{Value, json};

use super::socket::{Client, said};
use super::{Answer, rows, show};

#[derive(Debug, Subcommand)]
pub(super) enum NetworkCommand {
    /// Gives a tenant a region, a VPC (--vpc) or a vSwitch (--vswitch) in one of its VPCs. Ids that are not given are
    /// made up.
    Create(Create),
    /// Lists a tenant's networks. The region of the service itself is every tenant's and not listed.
    List {
        /// Name of the tenant.
        tenant: String,
    },
    /// Shows one network.
    Show {
        /// Name of the tenant.
        tenant: String,
        /// Id of the region, VPC or vSwitch.
        network: String,
    },
    /// Sets where receivers are reached from a vSwitch. Runs that begin from now on take it up.
    Update {
        /// Name of the tenant.
        tenant: String,
        /// Id of the vSwitch.
        vswitch: String,
        /// Name or address of the worker's machine in that network; empty for the worker's own.
        #[arg(long, value_name = "HOST")]
        receiver_host: String,
    },
    /// Deletes a network. Refused while jobs use it, or networks are in it.
    Delete {
        /// Name of the tenant.
        tenant: String,
        /// Id of the region, VPC or vSwitch.
        network: String,
    },
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["region", "vpc", "vswitch"]))]
pub(super) struct Create {
    /// Name of the tenant.
    #[arg(long)]
    tenant: String,
    /// A further region, or the region of the new VPC.
    #[arg(long, value_name = "REGION", conflicts_with = "vswitch")]
    region: Option<String>,
    /// A VPC; with --vswitch, the one that the vSwitch is in.
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "")]
    vpc: Option<String>,
    /// A vSwitch.
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "", requires = "vpc")]
    vswitch: Option<String>,
    /// Name or address by which agents in the vSwitch reach the workers' receivers; without it, the worker's own.
    #[arg(long, value_name = "HOST", requires = "vswitch", default_value = "")]
    receiver_host: String,
}

impl Create {
    fn network(self) -> wire::Network {
        let region_id = self.region.unwrap_or_default();
        match (self.vswitch, self.vpc) {
            (Some(id), vpc) => wire::Network {
                kind: Kind::Vswitch.into(),
                id,
                vpc_id: vpc.unwrap_or_default(),
                receiver_host: self.receiver_host,
                region_id,
            },
            (None, Some(id)) => wire::Network {
                kind: Kind::Vpc.into(),
                id,
                region_id,
                ..wire::Network::default()
            },
            (None, None) => wire::Network {
                kind: Kind::Region.into(),
                id: region_id,
                ..wire::Network::default()
            },
        }
    }
}

impl NetworkCommand {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<Answer> {
        match self {
            Self::Create(create) => {
                let request = wire::CreateNetworkRequest {
                    tenant: create.tenant.clone(),
                    network: Some(create.network()),
                };
                let made = client.create_network(request).await.map_err(said)?;
                Ok((describe(made.into_inner()), show))
            }
            Self::List { tenant } => {
                let listed = networks(client, &tenant).await?;
                let answer = listed.into_iter().map(describe).collect();
                Ok((answer, |networks| {
                    rows(
                        networks,
                        &["Kind", "Id", "RegionId", "VpcId", "ReceiverHost"],
                    )
                }))
            }
            Self::Show { tenant, network } => {
                Ok((describe(one(client, &tenant, &network).await?), show))
            }
            Self::Update {
                tenant,
                vswitch,
                receiver_host,
            } => {
                let request = wire::UpdateNetworkRequest {
                    tenant: tenant.clone(),
                    id: vswitch.clone(),
                    receiver_host,
                };
                client.update_network(request).await.map_err(said)?;
                Ok((describe(one(client, &tenant, &vswitch).await?), show))
            }
            Self::Delete { tenant, network } => {
                let id = network.clone();
                let request = wire::DeleteNetworkRequest { tenant, id };
                client.delete_network(request).await.map_err(said)?;
                Ok((json!({ "Id": network, "Deleted": true }), show))
            }
        }
    }
}

async fn networks(client: &mut Client, tenant: &str) -> anyhow::Result<Vec<wire::Network>> {
    let tenant = tenant.to_owned();
    let request = wire::ListNetworksRequest { tenant };
    let listed = client.list_networks(request).await.map_err(said)?;
    Ok(listed.into_inner().networks)
}

async fn one(client: &mut Client, tenant: &str, id: &str) -> anyhow::Result<wire::Network> {
    let found = networks(client, tenant).await?;
    let found = found.into_iter().find(|network| network.id == id);
    found.with_context(|| {
        format!(
            "tenant {tenant} has no network {id}: `wherry admin network list {tenant}` shows all"
        )
    })
}

fn describe(network: wire::Network) -> Value {
    let kind = match network.kind() {
        Kind::Region => "region",
        Kind::Vpc => "vpc",
        Kind::Vswitch => "vswitch",
        Kind::Unspecified => "",
    };
    json!({
        "Kind": kind,
        "Id": network.id,
        "RegionId": network.region_id,
        "VpcId": network.vpc_id,
        "ReceiverHost": network.receiver_host,
    })
}
