//! Activation codes.

use domain::AccessTokenId;
use proto::admin as wire;
use store::access_token::{AccessTokenFilter, AccessTokenQuota};
use store::{Page, Store};
use tonic::Status;

use super::tenant::named;
use super::{Changed, failed, tenant};
use crate::operations::{NewToken, TokenMade, create_token};

/// Tokens on a page.
const PAGE_SIZE: u32 = 50;

pub(super) async fn create(
    store: &Store,
    authority_fingerprint: &str,
    request: wire::CreateTokenRequest,
) -> Result<Changed<wire::NewToken>, Status> {
    let owner = named(store, &request.tenant).await?;
    let name = request.name.as_deref().map(tenant::name).transpose()?;
    if request.count < 1 || request.days < 1 {
        return Err(Status::invalid_argument(
            "a code is for at least one agent, and valid for at least one day",
        ));
    }
    let new = NewToken {
        name: name.as_ref(),
        description: &request.description,
        count: Some(request.count),
        days: Some(request.days),
    };
    let made = create_token(store, authority_fingerprint, &owner.id, new).await;
    let (id, code) = match made.map_err(failed)? {
        TokenMade::Made(id, code) => (id, code),
        TokenMade::Refused(quota) => return Err(refused(&owner.name, quota)),
    };
    let message = wire::NewToken {
        id: id.to_string(),
        code,
    };
    Ok(Changed::new(owner.id, message).with(id.to_string()))
}

fn refused(tenant: &str, quota: AccessTokenQuota) -> Status {
    let (what, flag) = match quota {
        AccessTokenQuota::Codes(limit) => {
            (format!("{limit} activation codes"), "--max-access-tokens")
        }
        AccessTokenQuota::Uses(limit) => (
            format!("activation codes for {limit} agents"),
            "--max-access-token-uses",
        ),
        AccessTokenQuota::Days(limit) => (
            format!("activation codes for {limit} days"),
            "--max-access-token-days",
        ),
    };
    Status::resource_exhausted(format!(
        "tenant {tenant} may have {what} at most: `wherry admin quota update {tenant} {flag} …` allows more"
    ))
}

pub(super) async fn list(
    store: &Store,
    request: wire::ListTokensRequest,
) -> Result<wire::ListTokensResponse, Status> {
    let tenant = named(store, &request.tenant).await?;
    let filter = AccessTokenFilter {
        ids: (!request.id.is_empty()).then(|| vec![request.id.clone()]),
        ..AccessTokenFilter::default()
    };
    let page = Page {
        number: request.page.max(1),
        size: PAGE_SIZE,
    };
    let listed = store
        .access_tokens(&tenant.id, &filter, page)
        .await
        .map_err(failed)?;
    let tokens = listed.rows.into_iter().map(|token| wire::Token {
        id: token.id.to_string(),
        name: token.name,
        description: token.description,
        status: token.status.as_str().to_owned(),
        count: token.max_count,
        registered: token.registered,
        days: token.valid_days,
        created: token.created_at.to_string(),
    });
    Ok(wire::ListTokensResponse {
        tokens: tokens.collect(),
        total: listed.total,
    })
}

pub(super) async fn disable(
    store: &Store,
    request: wire::DisableTokenRequest,
) -> Result<Changed<wire::DisableTokenResponse>, Status> {
    let tenant = named(store, &request.tenant).await?;
    let id = id(&tenant.name, &request.id)?;
    let is_disabled = store
        .disable_access_token(&tenant.id, &id)
        .await
        .map_err(failed)?;
    if !is_disabled {
        return Err(not_found(&tenant.name, &request.id));
    }
    Ok(Changed::new(tenant.id, wire::DisableTokenResponse {}))
}

pub(super) async fn delete(
    store: &Store,
    request: wire::DeleteTokenRequest,
) -> Result<Changed<wire::DeleteTokenResponse>, Status> {
    let tenant = named(store, &request.tenant).await?;
    let id = id(&tenant.name, &request.id)?;
    let is_gone = store
        .delete_access_token(&tenant.id, &id)
        .await
        .map_err(failed)?;
    if !is_gone {
        return Err(not_found(&tenant.name, &request.id));
    }
    Ok(Changed::new(tenant.id, wire::DeleteTokenResponse {}))
}

fn id(tenant: &str, text: &str) -> Result<AccessTokenId, Status> {
    text.parse().map_err(|_| not_found(tenant, text))
}

fn not_found(tenant: &str, id: &str) -> Status {
    Status::not_found(format!(
        "tenant {tenant} has no activation code {id}: `wherry admin token list {tenant}` shows all"
    ))
}
