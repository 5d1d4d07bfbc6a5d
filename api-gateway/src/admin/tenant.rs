//! Tenants and their quotas.

use domain::name::Name;
use proto::admin as wire;
use store::Store;
use store::operator::{RemoveTenant, RenameTenant};
use store::tenant::{CallRates, CreateTenant, Quotas, Tenant};
use tonic::Status;

use super::{Changed, failed};
use crate::operations::{MOST_DAYS, MOST_USES};

/// Returns the tenant with this name.
pub(super) async fn named(store: &Store, name: &str) -> Result<Tenant, Status> {
    store
        .tenant_named(name)
        .await
        .map_err(failed)?
        .ok_or_else(|| not_found(name))
}

fn not_found(name: &str) -> Status {
    Status::not_found(format!(
        "there is no tenant {name:?}: `wherry admin tenant list` shows all"
    ))
}

fn name_taken(name: &Name) -> Status {
    Status::already_exists(format!(
        "there is a tenant {name} already: `wherry admin tenant list` shows all"
    ))
}

pub(super) fn name(text: &str) -> Result<Name, Status> {
    Name::parse(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

pub(super) async fn create(
    store: &Store,
    request: wire::CreateTenantRequest,
) -> Result<Changed<wire::CreateTenantResponse>, Status> {
    let name = name(&request.name)?;
    let change = request.quotas.unwrap_or_default();
    let quotas = quotas_over(&change, Quotas::default())?;
    let rates = rates_over(&change, CallRates::default())?;
    let CreateTenant::Created(tenant) = store
        .create_tenant(name.as_str(), &quotas)
        .await
        .map_err(failed)?
    else {
        return Err(name_taken(&name));
    };
    if rates != CallRates::default() {
        store
            .set_call_rates(&tenant.id, rates)
            .await
            .map_err(failed)?;
    }
    let key = store.create_access_key(&tenant.id).await.map_err(failed)?;
    let message = wire::CreateTenantResponse {
        tenant: Some(described(&tenant, rates, 0)),
        key: Some(wire::NewKey {
            id: key.id.clone(),
            secret: key.secret,
            ..wire::NewKey::default()
        }),
    };
    let mut changed = Changed::new(tenant.id.clone(), message);
    changed.made = vec![tenant.id.to_string(), key.id];
    Ok(changed)
}

pub(super) async fn list(store: &Store) -> Result<wire::ListTenantsResponse, Status> {
    let mut tenants = Vec::new();
    for tenant in store.tenants().await.map_err(failed)? {
        tenants.push(shown(store, &tenant).await?);
    }
    Ok(wire::ListTenantsResponse { tenants })
}

pub(super) async fn get(
    store: &Store,
    request: wire::GetTenantRequest,
) -> Result<wire::Tenant, Status> {
    shown(store, &named(store, &request.tenant).await?).await
}

pub(super) async fn update(
    store: &Store,
    request: wire::UpdateTenantRequest,
) -> Result<Changed<wire::Tenant>, Status> {
    let mut tenant = named(store, &request.tenant).await?;
    let change = request.quotas.unwrap_or_default();
    let before = store.call_rates(&tenant.id).await.map_err(failed)?;
    let rates = rates_over(&change, before)?;
    let quotas = quotas_over(&change, tenant.quotas)?;
    if let Some(text) = &request.name {
        let name = name(text)?;
        match store.rename_tenant(&tenant.id, &name).await {
            Ok(RenameTenant::Renamed) => tenant.name = name.to_string(),
            Ok(RenameTenant::NameTaken) => return Err(name_taken(&name)),
            Ok(RenameTenant::NotFound) => return Err(not_found(&request.tenant)),
            Err(error) => return Err(failed(error)),
        }
    }
    if quotas != tenant.quotas {
        store
            .set_quotas(&tenant.id, &quotas)
            .await
            .map_err(failed)?;
        tenant.quotas = quotas;
    }
    if rates != before {
        store
            .set_call_rates(&tenant.id, rates)
            .await
            .map_err(failed)?;
    }
    let message = shown(store, &tenant).await?;
    Ok(Changed::new(tenant.id, message))
}

pub(super) async fn delete(
    store: &Store,
    request: wire::DeleteTenantRequest,
) -> Result<Changed<wire::DeleteTenantResponse>, Status> {
    let tenant = named(store, &request.tenant).await?;
    match store.remove_tenant(&tenant.id).await.map_err(failed)? {
        RemoveTenant::Removed => Ok(Changed::new(tenant.id, wire::DeleteTenantResponse {})),
        RemoveTenant::InUse {
            sources,
            jobs,
            images,
        } => Err(Status::failed_precondition(format!(
            "tenant {} has sources: {sources}, jobs: {jobs}, images: {images}. Delete these first, with a key of the tenant",
            tenant.name
        ))),
        RemoveTenant::NotFound => Err(not_found(&request.tenant)),
    }
}

async fn shown(store: &Store, tenant: &Tenant) -> Result<wire::Tenant, Status> {
    let rates = store.call_rates(&tenant.id).await.map_err(failed)?;
    let held = store.bytes_held(&tenant.id).await.map_err(failed)?;
    Ok(described(tenant, rates, held))
}

fn described(tenant: &Tenant, rates: CallRates, held: u64) -> wire::Tenant {
    wire::Tenant {
        id: tenant.id.to_string(),
        name: tenant.name.clone(),
        quotas: Some(wire::Quotas {
            max_sources: tenant.quotas.max_sources,
            max_jobs: tenant.quotas.max_jobs,
            max_running: tenant.quotas.max_running,
            max_workgroups: tenant.quotas.max_workgroups,
            max_workgroup_sources: tenant.quotas.max_workgroup_sources,
            max_access_tokens: tenant.quotas.max_access_tokens,
            max_access_token_uses: tenant.quotas.max_access_token_uses,
            max_access_token_days: tenant.quotas.max_access_token_days,
            max_bytes: tenant.quotas.max_bytes,
            calls_per_second: rates.account_per_second,
            operation_calls_per_second: rates.operation_per_second,
        }),
        created: tenant.created_at.to_string(),
        bytes_held: held,
    }
}

fn quotas_over(change: &wire::QuotaChange, quotas: Quotas) -> Result<Quotas, Status> {
    let over = |given: Option<i32>, before: i32| match given {
        Some(given) if given < 0 => Err(Status::invalid_argument("a quota is 0 or more")),
        given => Ok(given.unwrap_or(before)),
    };
    // The rules of the operation's parameters bound these quotas too.
    let within = |given: Option<i32>, before: i32, most: i64| match given {
        Some(given) if given < 1 || i64::from(given) > most => Err(Status::invalid_argument(
            format!("agents and days of an activation code are 1 to {most}"),
        )),
        given => Ok(given.unwrap_or(before)),
    };
    Ok(Quotas {
        max_sources: over(change.max_sources, quotas.max_sources)?,
        max_jobs: over(change.max_jobs, quotas.max_jobs)?,
        max_running: over(change.max_running, quotas.max_running)?,
        max_workgroups: over(change.max_workgroups, quotas.max_workgroups)?,
        max_workgroup_sources: over(change.max_workgroup_sources, quotas.max_workgroup_sources)?,
        max_access_tokens: over(change.max_access_tokens, quotas.max_access_tokens)?,
        max_access_token_uses: within(
            change.max_access_token_uses,
            quotas.max_access_token_uses,
            MOST_USES,
        )?,
        max_access_token_days: within(
            change.max_access_token_days,
            quotas.max_access_token_days,
            MOST_DAYS,
        )?,
        max_bytes: match change.bytes {
            Some(wire::quota_change::Bytes::MaxBytes(bytes)) => Some(bytes.min(i64::MAX as u64)),
            Some(wire::quota_change::Bytes::NoMaxBytes(true)) => None,
            Some(wire::quota_change::Bytes::NoMaxBytes(false)) | None => quotas.max_bytes,
        },
    })
}

fn rates_over(change: &wire::QuotaChange, rates: CallRates) -> Result<CallRates, Status> {
    let over = |given: Option<u32>, before: u32| match given {
        Some(0) => Err(Status::invalid_argument(
            "a rate is at least one call a second: to lock a tenant out, switch its keys off",
        )),
        given => Ok(given.unwrap_or(before)),
    };
    Ok(CallRates {
        account_per_second: over(change.calls_per_second, rates.account_per_second)?,
        operation_per_second: over(
            change.operation_calls_per_second,
            rates.operation_per_second,
        )?,
    })
}
