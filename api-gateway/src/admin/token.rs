//! Activation codes.

use domain::AccessTokenId;
use proto::admin as wire;
use store::access_token::AccessTokenFilter;
use store::{Page, Store};
use tonic::Status;

use super::tenant::named;
use super::{Changed, failed, tenant};
use crate::operations::{NewToken, create_token};

/// Tokens on a page.
const PAGE_SIZE: u32 = 50;

pub(super) async fn create(
    store: &Store,
    authority_fingerprint: &str,
    request: wire::CreateTokenRequest,
) -> Result<Changed<wire::NewToken>, Status> {
    let owner = named(store, &request.tenant).await?;
    let name = request.name.as_deref().map(tenant::name).transpose()?;
    if !(1..=1000).contains(&request.count) || !(1..=90).contains(&request.days) {
        return Err(Status::invalid_argument(
            "a code is for 1 to 1000 agents and valid for 1 to 90 days",
        ));
    }
    let new = NewToken {
        name: name.as_ref(),
        description: &request.description,
        count: request.count,
        days: request.days,
    };
    let (id, code) = create_token(store, authority_fingerprint, &owner.id, new)
        .await
        .map_err(failed)?;
    let message = wire::NewToken {
        id: id.to_string(),
        code,
    };
    Ok(Changed::new(owner.id, message).with(id.to_string()))
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
