//! Activation codes, with which agents register: make, list, disable, delete.

use domain::name::Name;
use domain::{AccessTokenId, TenantId};
use serde_json::{Value, json};
use store::access_token::{
    AccessToken, AccessTokenFilter, AccessTokenQuota, AccessTokenStatus, CreateAccessToken,
    NewAccessToken,
};
use store::{Store, StoreError};

use crate::Refusal;
use crate::answer::{Answer, list};
use crate::arguments::{Arguments, Parameter, Rule};
use crate::operation::{Call, Effect, Operation, PAGE_NUMBER, Resource, field, page};

/// Bounds of what an operator can allow an account; its quotas are narrower (SMC API §5.6).
pub const MOST_USES: i64 = 1_000_000;
/// See [`MOST_USES`].
pub const MOST_DAYS: i64 = 3650;

pub(super) const CREATE: Operation = Operation {
    name: "CreateAccessToken",
    summary: "Makes an activation code with which agents register as sources of this account. The code is shown only here.",
    parameters: &[
        Parameter::optional(
            "Name",
            Rule::Name,
            "The code's name; default Token_<AccessTokenId>.",
        ),
        Parameter::optional("Description", Rule::SourceDescription, "More about it."),
        Parameter::optional(
            "Count",
            Rule::Integer(1, MOST_USES),
            "How many agents may register with it: 1 to 1000, unless the operator has set another limit; default 100.",
        ),
        Parameter::optional(
            "TimeToLiveInDays",
            Rule::Integer(1, MOST_DAYS),
            "How many days it is valid: 1 to 90, unless the operator has set another limit; default 30.",
        ),
    ],
    answer: &[
        field("AccessTokenId", "string", "The code's public name."),
        field(
            "AccessTokenCode",
            "string",
            "The code: a secret, and behind a dot the fingerprint of the authority that agents must find.",
        ),
    ],
    refusals: &["QuotaExceeded.AccessToken"],
    effect: Effect::Writes,
    resources: &[Resource::any("accessToken")],
    handler: |call, arguments| Box::pin(create(call, arguments)),
};

/// What an activation code is to be.
pub struct NewToken<'a> {
    /// What people call it; without it, `Token_<id>`.
    pub name: Option<&'a Name>,
    /// More about it.
    pub description: &'a str,
    /// How many agents may register with it, if that was said.
    pub count: Option<i32>,
    /// How many days it is valid, if that was said.
    pub days: Option<i32>,
}

/// What became of making an activation code.
#[derive(Debug)]
pub enum TokenMade {
    /// It is there: its id, and the code itself, which is not kept.
    Made(AccessTokenId, String),
    /// A quota of the tenant does not allow it.
    Refused(AccessTokenQuota),
}

/// Makes an activation code. `authority_fingerprint` is what agents must find.
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
        CreateAccessToken::Created => {
            TokenMade::Made(id, format!("{secret}.{authority_fingerprint}"))
        }
        CreateAccessToken::Refused(quota) => TokenMade::Refused(quota),
    })
}

async fn create(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let number = |name| {
        let number = arguments.integer(name)?;
        i32::try_from(number).ok()
    };
    let new = NewToken {
        name: arguments.name("Name"),
        description: arguments.text("Description").unwrap_or_default(),
        count: number("Count"),
        days: number("TimeToLiveInDays"),
    };
    let fingerprint = &call.gateway.authority_fingerprint;
    match create_token(&call.gateway.store, fingerprint, &call.tenant, new).await? {
        TokenMade::Made(id, code) => Ok(Answer::fields(json!({
            "AccessTokenId": id,
            "AccessTokenCode": code,
        }))),
        TokenMade::Refused(quota) => Err(refused(quota)),
    }
}

fn refused(quota: AccessTokenQuota) -> Refusal {
    let bounded = |parameter, limit| {
        let because = format!("It is a whole number from 1 to {limit}, the limit of this account.");
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

/// 192 bits, as 48 hexadecimal digits: nobody guesses it, and its plain SHA-256 tells nothing.
fn hex_secret() -> String {
    let bytes: [u8; 24] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) const LIST: Operation = Operation {
    name: "ListAccessTokens",
    summary: "Lists activation codes, newest first, without the codes themselves.",
    parameters: &[
        Parameter::list("AccessTokenId.N", 100, Rule::Text(128), "Ids of codes."),
        Parameter::optional("Name", Rule::Text(256), "The exact name."),
        Parameter::optional(
            "Status",
            Rule::OneOf(&["activated", "unactivated", "expired"]),
            "The state.",
        ),
        PAGE_NUMBER,
        Parameter::optional(
            "PageSize",
            Rule::Integer(1, 50),
            "Rows on a page; default 20.",
        ),
    ],
    answer: &[
        field("PageNumber", "integer", "The page."),
        field("PageSize", "integer", "Rows on a page at most."),
        field("TotalCount", "integer", "Rows on all pages."),
        field(
            "AccessTokens.AccessToken[].AccessTokenId",
            "string",
            "The code's public name.",
        ),
        field("AccessTokens.AccessToken[].Name", "string", "Its name."),
        field(
            "AccessTokens.AccessToken[].Description",
            "string",
            "Its description.",
        ),
        field(
            "AccessTokens.AccessToken[].Count",
            "string",
            "How many agents may register with it.",
        ),
        field(
            "AccessTokens.AccessToken[].RegisteredCount",
            "string",
            "How many have.",
        ),
        field(
            "AccessTokens.AccessToken[].Status",
            "string",
            "activated, unactivated (disabled or used up) or expired.",
        ),
        field(
            "AccessTokens.AccessToken[].TimeToLiveInDays",
            "string",
            "How many days it is valid from its making.",
        ),
        field(
            "AccessTokens.AccessToken[].CreationTime",
            "string",
            "When it was made.",
        ),
    ],
    refusals: &[],
    effect: Effect::Reads,
    resources: &[Resource::any("accessToken")],
    handler: |call, arguments| Box::pin(list_tokens(call, arguments)),
};

async fn list_tokens(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let mut page = page(&arguments);
    if arguments.integer("PageSize").is_none() {
        page.size = 20;
    }
    let status = arguments.text("Status");
    let filter = AccessTokenFilter {
        ids: arguments.texts("AccessTokenId.N"),
        name: arguments.text("Name").map(str::to_owned),
        status: AccessTokenStatus::ALL
            .into_iter()
            .find(|known| Some(known.as_str()) == status),
    };
    let listed = call
        .gateway
        .store
        .access_tokens(&call.tenant, &filter, page)
        .await?;
    Ok(Answer::fields(json!({
        "PageNumber": page.number,
        "PageSize": page.size,
        "TotalCount": listed.total,
        "AccessTokens": list("AccessToken", listed.rows.iter().map(show)),
    })))
}

/// Counts and days are texts: that is how the API has them.
fn show(token: &AccessToken) -> Value {
    json!({
        "AccessTokenId": token.id,
        "Name": token.name,
        "Description": token.description,
        "Count": token.max_count.to_string(),
        "RegisteredCount": token.registered.to_string(),
        "Status": token.status.as_str(),
        "TimeToLiveInDays": token.valid_days.to_string(),
        "CreationTime": token.created_at,
    })
}

const TOKEN_ID: &[Parameter] = &[Parameter::required(
    "AccessTokenId",
    Rule::Text(128),
    "The code's public name.",
)];

pub(super) const DISABLE: Operation = Operation {
    name: "DisableAccessToken",
    summary: "Lets no more agents register with a code. Those that have stay.",
    parameters: TOKEN_ID,
    answer: &[],
    refusals: &["InvalidAccessTokenId.NotFound"],
    effect: Effect::Writes,
    resources: &[Resource::one("accessToken", "AccessTokenId")],
    handler: |call, arguments| Box::pin(disable(call, arguments)),
};

async fn disable(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let id = token_id(&arguments)?;
    if call
        .gateway
        .store
        .disable_access_token(&call.tenant, &id)
        .await?
    {
        Ok(Answer::done())
    } else {
        Err(Refusal::not_found("AccessTokenId"))
    }
}

pub(super) const DELETE: Operation = Operation {
    name: "DeleteAccessToken",
    summary: "Removes a code. Agents that registered with it stay.",
    parameters: TOKEN_ID,
    answer: &[],
    refusals: &["InvalidAccessTokenId.NotFound"],
    effect: Effect::Writes,
    resources: &[Resource::one("accessToken", "AccessTokenId")],
    handler: |call, arguments| Box::pin(delete(call, arguments)),
};

async fn delete(call: Call, arguments: Arguments) -> Result<Answer, Refusal> {
    let id = token_id(&arguments)?;
    if call
        .gateway
        .store
        .delete_access_token(&call.tenant, &id)
        .await?
    {
        Ok(Answer::done())
    } else {
        Err(Refusal::not_found("AccessTokenId"))
    }
}

fn token_id(arguments: &Arguments) -> Result<AccessTokenId, Refusal> {
    arguments
        .required_text("AccessTokenId")
        .parse()
        .map_err(|_| Refusal::not_found("AccessTokenId"))
}
