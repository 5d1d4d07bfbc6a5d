//! Networks that the operator has configured: a tenant's additional regions, its VPCs, and their vSwitches.

use std::collections::HashMap;

use domain::{JobId, TenantId};

use crate::{Store, StoreError, Transaction};

/// A network of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// A region beside the gateway's own.
    Region {
        /// Id of the region.
        id: String,
    },
    /// A VPC.
    Vpc {
        /// Id of the VPC.
        id: String,
        /// Region of the VPC.
        region_id: String,
    },
    /// A vSwitch.
    VSwitch(VSwitch),
}

/// A vSwitch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VSwitch {
    /// Id of the vSwitch.
    pub id: String,
    /// The VPC of the vSwitch.
    pub vpc: String,
    /// The region of that VPC.
    pub region_id: String,
    /// Address under which workers' receivers are reached from the vSwitch; `None` for the worker's own address.
    pub receiver_host: Option<String>,
}

/// `NetMode` of the private network.
const PRIVATE: i32 = 2;

/// The network of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobNetwork {
    /// Mode of the network: 0 is the public one; 2 is the private one of the vSwitch.
    pub net_mode: i32,
    /// The vSwitch; empty without one.
    pub vswitch_id: String,
    /// The VPC; empty without one.
    pub vpc_id: String,
}

/// Outcome of a request to configure a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateNetwork {
    /// The network was configured.
    Created,
    /// The id is taken.
    Taken,
    /// The tenant has no such VPC.
    NoVpc,
}

/// Outcome of a request to remove a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveNetwork {
    /// The network was removed.
    Removed,
    /// Number of jobs that use the network, or of networks within it.
    InUse(i64),
    /// The tenant has no network with this id.
    NotFound,
}

/// Requirements of a call for a job's network; absent parts stay unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkChange {
    /// Mode of the network: 0 or 2.
    pub net_mode: Option<i32>,
    /// The vSwitch, which determines its VPC.
    pub vswitch_id: Option<String>,
    /// The VPC.
    pub vpc_id: Option<String>,
}

/// Reason why a job can't have the requested network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkRefusal {
    /// The private network requires a vSwitch, and the job has none.
    NoVSwitch,
    /// The tenant has no such vSwitch in the job's region.
    UnknownVSwitch,
    /// The tenant has no such VPC in the job's region.
    UnknownVpc,
    /// The vSwitch is in another VPC.
    Mismatch,
}

impl NetworkChange {
    /// Returns true if nothing is requested.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the network that a job of this region has after the change. Networks that it uses can't be removed until
    /// the transaction ends.
    pub(crate) async fn over(
        &self,
        current: JobNetwork,
        transaction: &mut Transaction<'_>,
        tenant: &TenantId,
        region_id: &str,
    ) -> Result<Result<JobNetwork, NetworkRefusal>, StoreError> {
        let mut network = JobNetwork {
            net_mode: self.net_mode.unwrap_or(current.net_mode),
            ..current
        };
        if let Some(id) = &self.vswitch_id {
            let Some(vpc) = hold_vswitch(transaction, tenant, region_id, id).await? else {
                return Ok(Err(NetworkRefusal::UnknownVSwitch));
            };
            network.vswitch_id.clone_from(id);
            network.vpc_id = vpc;
        }
        if let Some(id) = &self.vpc_id {
            if network.vswitch_id.is_empty() {
                if !hold_vpc(transaction, tenant, region_id, id).await? {
                    return Ok(Err(NetworkRefusal::UnknownVpc));
                }
                network.vpc_id.clone_from(id);
            } else if *id != network.vpc_id {
                return Ok(Err(NetworkRefusal::Mismatch));
            }
        }
        if network.net_mode == PRIVATE && network.vswitch_id.is_empty() {
            return Ok(Err(NetworkRefusal::NoVSwitch));
        }
        Ok(Ok(network))
    }
}

/// Protects a vSwitch of the region from removal until the transaction ends, and returns its VPC.
async fn hold_vswitch(
    transaction: &mut Transaction<'_>,
    tenant: &TenantId,
    region_id: &str,
    id: &str,
) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar!(
        "select vpc from vswitch join vpc on vpc.id = vswitch.vpc
         where vswitch.tenant = $1 and vswitch.id = $2 and region_id = $3 for key share of vswitch",
        tenant.as_str(),
        id,
        region_id,
    )
    .fetch_optional(&mut **transaction)
    .await?)
}

/// Protects a VPC of the region from removal until the transaction ends; `false` if the tenant has no such VPC.
async fn hold_vpc(
    transaction: &mut Transaction<'_>,
    tenant: &TenantId,
    region_id: &str,
    id: &str,
) -> Result<bool, StoreError> {
    let held = sqlx::query_scalar!(
        "select id from vpc where tenant = $1 and id = $2 and region_id = $3 for key share",
        tenant.as_str(),
        id,
        region_id,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(held.is_some())
}

/// Returns true if the operator has given the tenant this region.
pub(crate) async fn has_region(
    transaction: &mut Transaction<'_>,
    tenant: &TenantId,
    id: &str,
) -> Result<bool, StoreError> {
    let found = sqlx::query_scalar!(
        "select id from region where tenant = $1 and id = $2 for key share",
        tenant.as_str(),
        id
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(found.is_some())
}

impl Store {
    /// Configures a network for a tenant.
    ///
    /// # Errors
    /// The database fails.
    pub async fn create_network(
        &self,
        tenant: &TenantId,
        network: &Network,
    ) -> Result<CreateNetwork, StoreError> {
        let inserted = match network {
            Network::Region { id } => {
                sqlx::query!(
                    "insert into region (tenant, id) values ($1, $2) on conflict do nothing",
                    tenant.as_str(),
                    id
                )
                .execute(&self.pool)
                .await?
            }
            Network::Vpc { id, region_id } => {
                sqlx::query!(
                    "insert into vpc (id, tenant, region_id) values ($1, $2, $3) on conflict do nothing",
                    id,
                    tenant.as_str(),
                    region_id
                )
                .execute(&self.pool)
                .await?
            }
            Network::VSwitch(vswitch) => {
                let has_vpc = sqlx::query_scalar!(
                    "select id from vpc where tenant = $1 and id = $2",
                    tenant.as_str(),
                    vswitch.vpc
                )
                .fetch_optional(&self.pool)
                .await?;
                if has_vpc.is_none() {
                    return Ok(CreateNetwork::NoVpc);
                }
                sqlx::query!(
                    "insert into vswitch (id, tenant, vpc, receiver_host) values ($1, $2, $3, $4) on conflict do nothing",
                    vswitch.id,
                    tenant.as_str(),
                    vswitch.vpc,
                    vswitch.receiver_host.as_deref().unwrap_or_default()
                )
                .execute(&self.pool)
                .await?
            }
        };
        Ok(if inserted.rows_affected() == 1 {
            CreateNetwork::Created
        } else {
            CreateNetwork::Taken
        })
    }

    /// Returns the tenant's networks: regions, VPCs, vSwitches, each by id.
    ///
    /// # Errors
    /// The database fails.
    pub async fn networks(&self, tenant: &TenantId) -> Result<Vec<Network>, StoreError> {
        let rows = sqlx::query!(
            r#"
            select 1 as "kind!", id as "id!", id as "region_id!", '' as "vpc!", '' as "receiver_host!" from region where tenant = $1
            union all
            select 2, id, region_id, id, '' from vpc where tenant = $1
            union all
            select 3, vswitch.id, vpc.region_id, vpc.id, vswitch.receiver_host
            from vswitch join vpc on vpc.id = vswitch.vpc where vswitch.tenant = $1
            order by 1, 2
            "#,
            tenant.as_str()
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| match row.kind {
                1 => Network::Region { id: row.id },
                2 => Network::Vpc {
                    id: row.id,
                    region_id: row.region_id,
                },
                _ => Network::VSwitch(VSwitch {
                    id: row.id,
                    vpc: row.vpc,
                    region_id: row.region_id,
                    receiver_host: Some(row.receiver_host).filter(|host| !host.is_empty()),
                }),
            })
            .collect())
    }

    /// Returns the regions that the operator has given to the tenant.
    ///
    /// # Errors
    /// The database fails.
    pub async fn regions(&self, tenant: &TenantId) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar!(
            "select id from region where tenant = $1 order by id",
            tenant.as_str()
        )
        .fetch_all(&mut *self.connection_as(tenant).await?)
        .await?)
    }

    /// Returns the regions of these jobs and images, by id. Ids that do not belong to the tenant are left out.
    ///
    /// # Errors
    /// The database fails.
    pub async fn regions_of(
        &self,
        tenant: &TenantId,
        ids: &[String],
    ) -> Result<HashMap<String, String>, StoreError> {
        let rows = sqlx::query!(
            r#"select id as "id!", region_id as "region_id!" from job where tenant = $1 and id = any($2)
             union all
             select id, region_id from image where tenant = $1 and id = any($2)"#,
            tenant.as_str(),
            ids
        )
        .fetch_all(&mut *self.connection_as(tenant).await?)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| (row.id, row.region_id))
            .collect())
    }

    /// Returns true if the operator has given the tenant this region.
    ///
    /// # Errors
    /// The database fails.
    pub async fn has_region(&self, tenant: &TenantId, id: &str) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar!(
            "select id from region where tenant = $1 and id = $2",
            tenant.as_str(),
            id
        )
        .fetch_optional(&mut *self.connection_as(tenant).await?)
        .await?;
        Ok(found.is_some())
    }

    /// Returns the address under which the receivers of a job in a private network are reached. `None` for the worker's
    /// own address.
    ///
    /// # Errors
    /// The database fails.
    pub async fn receiver_host_of(&self, job: &JobId) -> Result<Option<String>, StoreError> {
        Ok(sqlx::query_scalar!(
            "select receiver_host from job join vswitch on vswitch.id = job.vswitch_id and vswitch.tenant = job.tenant
             where job.id = $1 and job.net_mode = 2 and receiver_host <> ''",
            job.as_str()
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// Sets the address under which receivers are reached from a vSwitch; `None` for the worker's own address. `false`
    /// without such a vSwitch. Runs that begin from now on use the address.
    ///
    /// # Errors
    /// The database fails.
    pub async fn set_receiver_host(
        &self,
        tenant: &TenantId,
        id: &str,
        host: Option<&str>,
    ) -> Result<bool, StoreError> {
        let updated = sqlx::query!(
            "update vswitch set receiver_host = $3 where tenant = $1 and id = $2",
            tenant.as_str(),
            id,
            host.unwrap_or_default()
        )
        .execute(&self.pool)
        .await?;
        Ok(updated.rows_affected() == 1)
    }

    /// Removes a region, VPC or vSwitch that nothing uses.
    ///
    /// # Errors
    /// The database fails.
    pub async fn remove_network(
        &self,
        tenant: &TenantId,
        id: &str,
    ) -> Result<RemoveNetwork, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // This lock also serialises the creation of jobs, so no job begins to use the network meanwhile.
        sqlx::query!(
            "select id from tenant where id = $1 for no key update",
            tenant.as_str()
        )
        .fetch_optional(&mut *transaction)
        .await?;
        // This lock also serialises the changes of jobs' networks.
        sqlx::query!(
            "select id from vswitch where tenant = $1 and id = $2 for update",
            tenant.as_str(),
            id
        )
        .fetch_optional(&mut *transaction)
        .await?;
        sqlx::query!(
            "select id from vpc where tenant = $1 and id = $2 for update",
            tenant.as_str(),
            id
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let uses = sqlx::query_scalar!(
            r#"select (select count(*) from job where tenant = $1 and state <> 'deleting'
                    and (vswitch_id = $2 or vpc_id = $2 or region_id = $2))
                + (select count(*) from vswitch where tenant = $1 and vpc = $2)
                + (select count(*) from vpc where tenant = $1 and region_id = $2) as "uses!""#,
            tenant.as_str(),
            id
        )
        .fetch_one(&mut *transaction)
        .await?;
        if uses > 0 {
            return Ok(RemoveNetwork::InUse(uses));
        }
        let removed = sqlx::query_scalar!(
            r#"with gone_vswitch as (delete from vswitch where tenant = $1 and id = $2 returning 1),
                gone_vpc as (delete from vpc where tenant = $1 and id = $2 returning 1),
                gone_region as (delete from region where tenant = $1 and id = $2 returning 1)
             select (select count(*) from gone_vswitch) + (select count(*) from gone_vpc)
                + (select count(*) from gone_region) as "removed!""#,
            tenant.as_str(),
            id
        )
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(if removed > 0 {
            RemoveNetwork::Removed
        } else {
            RemoveNetwork::NotFound
        })
    }
}
