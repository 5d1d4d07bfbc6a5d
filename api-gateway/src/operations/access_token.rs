//! Activation codes, with which agents register: create, list, disable, delete.

use domain::name::Name;
use domain::{AccessTokenId, TenantId};
use smc::model::{
    self, CreateAccessToken, CreateAccessTokenAnswer, DeleteAccessToken, DisableAccessToken, Done,
    ListAccessTokens, ListAccessTokensAnswer,
};
use store::access_token::{
    AccessToken, AccessTokenFilter, AccessTokenQuota, AccessTokenStatus,
    CreateAccessToken as Creation, NewAccessToken,
};
use store::{Store, StoreError};

use super::{id, name};
use crate::Refusal;
use crate::operation::{Call, Effect, Handle, Resource, Terms, page};

/// Bounds of the quotas that an operator can give an account; the quotas are narrower (SMC API §5.6).
pub const MOST_USES: i64 = 1_000_000;
/// See [`MOST_USES`].
pub const MOST_DAYS: i64 = 3650;

/// Rows on a page, unless the call names a size.
const PAGE_SIZE: u32 = 20;

const ONE: &[Resource] = &[Resource::one("accessToken", "AccessTokenId")];

/// The properties of a new activation code.
pub struct NewToken<'a> {
    /// Its name for people; without it, `Token_<id>`.
    pub name: Option<&'a Name>,
    /// More about it.
    pub description: &'a str,
    /// Number of agents that may register with it, if given.
    pub count: Option<i32>,
    /// Number of days for which it is valid, if given.
    pub days: Option<i32>,
}

/// The outcome of making an activation code.
#[derive(Debug)]
pub enum TokenMade {
    /// The token was made: its id, and the code itself, which is not kept.
    Made(AccessTokenId, String),
    /// A quota of the tenant does not allow it.
    Refused(AccessTokenQuota),
}

/// Makes an activation code. `authority_fingerprint` is the certificate fingerprint that agents must find.
///
/// # Errors
/// The database fails.
pub async fn create_token(
    store: &Store,
    authority_fingerprint: &str,
    tenant: &TenantId,
    new: NewToken<'_>,
) -> Result<TokenMade, StoreError> {
    let id = AccessTokenId::generate();
    let generated =
        Name::parse(&format!("Token_{id}")).expect("an id's text can be part of a name");
    let secret = hex_secret();
    let code_hash = ring::digest::digest(&ring::digest::SHA256, secret.as_bytes());
    let token = NewAccessToken {
        id: &id,
        name: new.name.unwrap_or(&generated),
        description: new.description,
        max_count: new.count,
        valid_days: new.days,
        code_hash: code_hash.as_ref(),
    };
    Ok(match store.create_access_token(tenant, token).await? {
        Creation::Created => TokenMade::Made(id, format!("{secret}.{authority_fingerprint}")),
        Creation::Refused(quota) => TokenMade::Refused(quota),
    })
}

impl Handle for CreateAccessToken {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: &[Resource::any("accessToken")],
        refusals: &["QuotaExceeded.AccessToken"],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<CreateAccessTokenAnswer, Refusal> {
        let name = name(self.name.as_ref());
        let new = NewToken {
            name: name.as_ref(),
            description: self.description.as_deref().unwrap_or_default(),
            count: self.count,
            days: self.time_to_live_in_days,
        };
        let fingerprint = &call.gateway.authority_fingerprint;
        match create_token(&call.gateway.store, fingerprint, &call.tenant, new).await? {
            TokenMade::Made(id, code) => Ok(CreateAccessTokenAnswer {
                access_token_id: id.to_string(),
                access_token_code: code,
            }),
            TokenMade::Refused(quota) => Err(refused(quota)),
        }
    }
}

fn refused(quota: AccessTokenQuota) -> Refusal {
    let bounded = |parameter, limit| {
        let because =
            format!("It must be a whole number from 1 to {limit}, the limit of this account.");
        Refusal::invalid(parameter, because)
    };
    match quota {
        AccessTokenQuota::Uses(limit) => bounded("Count", limit),
        AccessTokenQuota::Days(limit) => bounded("TimeToLiveInDays", limit),
        AccessTokenQuota::Codes(limit) => Refusal::new(
            "QuotaExceeded.AccessToken",
            format!(
                "The maximum number of access tokens is exceeded. This account may have {limit} activation codes: delete some first."
            ),
        ),
    }
}

/// Returns 192 random bits as 48 hexadecimal digits: nobody can guess them, and their plain SHA-256 reveals nothing.
fn hex_secret() -> String {
    let bytes: [u8; 24] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Handle for ListAccessTokens {
    const TERMS: Terms = Terms {
        effect: Effect::Reads,
        resources: &[Resource::any("accessToken")],
        refusals: &[],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<ListAccessTokensAnswer, Refusal> {
        let page = page(self.page_number, self.page_size.or(Some(PAGE_SIZE)));
        let status = self.status.map(model::AccessTokenStatus::as_str);
        let filter = AccessTokenFilter {
            ids: self.access_token_id,
            name: self.name,
            status: AccessTokenStatus::ALL
                .into_iter()
                .find(|known| Some(known.as_str()) == status),
        };
        let store = &call.gateway.store;
        let listed = store.access_tokens(&call.tenant, &filter, page).await?;
        Ok(ListAccessTokensAnswer {
            page_number: page.number,
            page_size: page.size,
            total_count: listed.total,
            access_tokens: listed.rows.into_iter().map(show).collect(),
        })
    }
}

fn show(token: AccessToken) -> model::AccessToken {
    model::AccessToken {
        access_token_id: token.id.to_string(),
        count: token.max_count.to_string(),
        registered_count: token.registered.to_string(),
        status: token.status.as_str().to_owned(),
        time_to_live_in_days: token.valid_days.to_string(),
        creation_time: token.created_at.to_string(),
        name: token.name,
        description: token.description,
    }
}

impl Handle for DisableAccessToken {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: ONE,
        refusals: &["InvalidAccessTokenId.NotFound"],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<Done, Refusal> {
        let id = id::<AccessTokenId>(&self.access_token_id, "AccessTokenId")?;
        let store = &call.gateway.store;
        found(store.disable_access_token(&call.tenant, &id).await?)
    }
}

impl Handle for DeleteAccessToken {
    const TERMS: Terms = Terms {
        effect: Effect::Writes,
        resources: ONE,
        refusals: &["InvalidAccessTokenId.NotFound"],
        not_offered: &[],
    };

    async fn handle(self, call: Call) -> Result<Done, Refusal> {
        let id = id::<AccessTokenId>(&self.access_token_id, "AccessTokenId")?;
        let store = &call.gateway.store;
        found(store.delete_access_token(&call.tenant, &id).await?)
    }
}

fn found(found: bool) -> Result<Done, Refusal> {
    if found {
        Ok(Done {})
    } else {
        Err(Refusal::not_found("AccessTokenId"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Rule;
    use crate::operation::Operation;

    #[test]
    fn the_schema_has_the_bounds_of_what_an_operator_can_allow() {
        let operation = Operation::named("CreateAccessToken").expect("an operation");
        for (name, most) in [("Count", MOST_USES), ("TimeToLiveInDays", MOST_DAYS)] {
            let mut parameters = operation.parameters.iter();
            let found = parameters.find(|parameter| parameter.name == name);
            let rule = &found.expect("a parameter").rule;
            assert!(
                matches!(rule, Rule::Integer(1, to) if *to == most),
                "{rule:?}"
            );
        }
    }
}
