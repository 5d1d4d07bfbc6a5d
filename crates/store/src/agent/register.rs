//! Registration of a server as a source.
//!
//! The tenant's row is locked first, so that two registrations can't both take the last place of a quota or the same
//! name. An agent that lost the answer registers the same key again and receives the same source. The repetition uses
//! up nothing.
//!
//! A registration is audited in the same transaction. A refusal is audited if the code's account should know of it. An
//! unknown code leaves no row, because anyone who reaches the port could fill the audit with such rows.

use domain::name::Name;
use domain::{SourceId, TenantId};

use super::{Inventory, system_info, write_disks};
use crate::audit::{self, Actor, NewEntry};
use crate::row::parse;
use crate::{Store, StoreError, Transaction};

/// The description in the API's samples.
const DESCRIPTION: &str = "Server Source Imported By GotoAliyun.";

/// Characters of the source's id that distinguish it from another source of the same name.
const SUFFIX_LENGTH: usize = 6;

/// Longest name (SMC API §1.0).
const NAME_LENGTH: usize = 128;

/// A server that requests to become a source.
#[derive(Debug, Clone, Copy)]
pub struct Registration<'a> {
    /// SHA-256 of the activation code's secret.
    pub code_hash: &'a [u8],
    /// DER of the public key (SubjectPublicKeyInfo) that the agent has proved to own.
    pub public_key: &'a [u8],
    /// The requested name. If another source of the tenant has it, the end of the new id is appended.
    pub name: &'a Name,
    /// Inventory of the server.
    pub inventory: &'a Inventory,
    /// Address that the call came from, for the audit.
    pub origin: &'a str,
    /// Id of the call, for the audit.
    pub request_id: &'a str,
}

/// Outcome of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// The server is a source from now on.
    New(Owner),
    /// The key was registered before: the server is this source.
    Known(Owner),
    /// The server is not a source, for this reason.
    Refused(Refusal),
}

/// A source and its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The source.
    pub source_id: SourceId,
    /// The source's tenant.
    pub tenant: TenantId,
}

/// Reason why a server may not register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No activation code has this hash.
    UnknownCode,
    /// The code's validity is over.
    Expired,
    /// The tenant has disabled the code.
    Disabled,
    /// The code has registered as many servers as it may.
    UsedUp {
        /// Number of servers that may register.
        max_count: i32,
    },
    /// The tenant has as many sources as it may.
    QuotaReached {
        /// Number of sources that the tenant may have.
        max_sources: i32,
    },
    /// The key belongs to a source of another tenant.
    OtherTenant,
    /// The key belongs to a source that is being deleted.
    Deleting,
}

impl Refusal {
    /// Returns the code for the audit.
    fn code(&self) -> &'static str {
        match self {
            Self::UnknownCode => "UnknownCode",
            Self::Expired => "Expired",
            Self::Disabled => "Disabled",
            Self::UsedUp { .. } => "UsedUp",
            Self::QuotaReached { .. } => "QuotaExceeded.SourceServer",
            Self::OtherTenant => "OtherTenant",
            Self::Deleting => "Deleting",
        }
    }
}

struct Code {
    id: String,
    tenant: TenantId,
    max_sources: i32,
    max_count: i32,
    is_used_up: bool,
    has_expired: bool,
    is_disabled: bool,
}

impl Store {
    /// Registers a server as a source, if its activation code and its tenant's quota allow it.
    pub async fn register_agent(
        &self,
        registration: Registration<'_>,
    ) -> Result<Registered, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let Some(code) = lock_code(&mut transaction, registration.code_hash).await? else {
            return Ok(Registered::Refused(Refusal::UnknownCode));
        };
        let registered = register(&mut transaction, &registration, &code).await?;
        let (outcome, made) = match &registered {
            Registered::New(owner) => ("OK", vec![owner.source_id.to_string()]),
            // Nothing was changed: the agent had lost the answer.
            Registered::Known(_) => return Ok(registered),
            Registered::Refused(refusal) => (refusal.code(), Vec::new()),
        };
        let entry = NewEntry {
            actor: Actor::Agent,
            tenant: Some(&code.tenant),
            access_key: &code.id,
            user_name: "",
            origin: registration.origin,
            request_id: registration.request_id,
            operation: "RegisterAgent",
            resources: &made,
            outcome: Some(outcome),
        };
        audit::insert(&mut *transaction, &entry).await?;
        transaction.commit().await?;
        Ok(registered)
    }
}

async fn register(
    transaction: &mut Transaction<'_>,
    registration: &Registration<'_>,
    code: &Code,
) -> Result<Registered, StoreError> {
    if let Some(known) = known(transaction, registration, code).await? {
        return Ok(known);
    }
    if let Some(refusal) = refusal(transaction, code).await? {
        return Ok(Registered::Refused(refusal));
    }
    let Some(source_id) = insert(transaction, registration, code).await? else {
        // Another tenant's registration of the same key has been committed since the check.
        return Ok(Registered::Refused(Refusal::OtherTenant));
    };
    sqlx::query!(
        "update access_token set registered = registered + 1 where id = $1",
        code.id
    )
    .execute(&mut **transaction)
    .await?;
    write_disks(transaction, &source_id, &registration.inventory.disks, true).await?;
    Ok(Registered::New(Owner {
        source_id,
        tenant: code.tenant.clone(),
    }))
}

async fn lock_code(
    transaction: &mut Transaction<'_>,
    code_hash: &[u8],
) -> Result<Option<Code>, StoreError> {
    // Two statements, so that the rows are locked in the order tenant, code.
    let Some(tenant) = sqlx::query!(
        "select id, max_sources from tenant
         where id = (select tenant from access_token where code_hash = $1) for update",
        code_hash
    )
    .fetch_optional(&mut **transaction)
    .await?
    else {
        return Ok(None);
    };
    let row = sqlx::query!(
        r#"select id, max_count, registered >= max_count as "is_used_up!", expires_at <= now() as "has_expired!",
                  disabled_at is not null as "is_disabled!"
           from access_token where code_hash = $1 for update"#,
        code_hash
    )
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(|row| {
        Ok(Code {
            id: row.id,
            tenant: parse("tenant.id", &tenant.id)?,
            max_sources: tenant.max_sources,
            max_count: row.max_count,
            is_used_up: row.is_used_up,
            has_expired: row.has_expired,
            is_disabled: row.is_disabled,
        })
    })
    .transpose()
}

/// Returns the source that the key belongs to already, whatever has happened to the code meanwhile.
async fn known(
    transaction: &mut Transaction<'_>,
    registration: &Registration<'_>,
    code: &Code,
) -> Result<Option<Registered>, StoreError> {
    let row = sqlx::query!(
        "select id, tenant, deleting from source where public_key = $1",
        registration.public_key
    )
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(|row| {
        Ok(if row.tenant != code.tenant.as_str() {
            Registered::Refused(Refusal::OtherTenant)
        } else if row.deleting {
            Registered::Refused(Refusal::Deleting)
        } else {
            Registered::Known(Owner {
                source_id: parse("source.id", &row.id)?,
                tenant: code.tenant.clone(),
            })
        })
    })
    .transpose()
}

async fn refusal(
    transaction: &mut Transaction<'_>,
    code: &Code,
) -> Result<Option<Refusal>, StoreError> {
    if code.is_disabled {
        return Ok(Some(Refusal::Disabled));
    }
    if code.has_expired {
        return Ok(Some(Refusal::Expired));
    }
    if code.is_used_up {
        return Ok(Some(Refusal::UsedUp {
            max_count: code.max_count,
        }));
    }
    let sources = sqlx::query_scalar!(
        r#"select count(*) as "count!" from source where tenant = $1"#,
        code.tenant.as_str()
    )
    .fetch_one(&mut **transaction)
    .await?;
    let is_full = sources >= i64::from(code.max_sources);
    Ok(is_full.then_some(Refusal::QuotaReached {
        max_sources: code.max_sources,
    }))
}

async fn insert(
    transaction: &mut Transaction<'_>,
    registration: &Registration<'_>,
    code: &Code,
) -> Result<Option<SourceId>, StoreError> {
    let source_id = SourceId::generate();
    let inventory = registration.inventory;
    let is_taken = sqlx::query_scalar!(
        r#"select exists (select 1 from source where tenant = $1 and name = $2) as "is_taken!""#,
        code.tenant.as_str(),
        registration.name.as_str()
    )
    .fetch_one(&mut **transaction)
    .await?;
    let name = match is_taken {
        true => told_apart(registration.name.as_str(), &source_id),
        false => registration.name.as_str().to_owned(),
    };
    let inserted = sqlx::query!(
        "insert into source (id, tenant, name, description, public_key, access_token, agent_version, architecture, platform,
                             kernel_level, system_info)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict (public_key) do nothing",
        source_id.as_str(),
        code.tenant.as_str(),
        name,
        DESCRIPTION,
        registration.public_key,
        code.id,
        inventory.agent_version,
        inventory.architecture,
        inventory.platform,
        inventory.kernel_level,
        system_info(inventory) as _,
    )
    .execute(&mut **transaction)
    .await?
    .rows_affected();
    Ok((inserted == 1).then_some(source_id))
}

/// Returns the name with the end of the id. Host names such as `localhost` are common, and a fleet must register
/// without manual work.
fn told_apart(name: &str, source_id: &SourceId) -> String {
    let id = source_id.as_str();
    let suffix = &id[id.len() - SUFFIX_LENGTH..];
    let room = NAME_LENGTH - SUFFIX_LENGTH - 1;
    let kept: String = name.chars().take(room).collect();
    format!("{kept}-{suffix}")
}
