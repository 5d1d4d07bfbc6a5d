//! Activation codes, with which agents register.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::list::lists;
use super::values::texts;
use super::{Done, Id, operations, paged};

operations! {
    CreateAccessToken -> CreateAccessTokenAnswer,
    ListAccessTokens -> ListAccessTokensAnswer,
    DisableAccessToken -> Done,
    DeleteAccessToken -> Done,
}

paged!(ListAccessTokens: access_tokens of AccessToken);

texts! {
    /// The state of an activation code.
    AccessTokenStatus { Activated = "activated", Unactivated = "unactivated", Expired = "expired" }
}

/// Makes an activation code with which agents register as sources of this account. The code is shown only here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct CreateAccessToken {
    /// The code's name; default `Token_<AccessTokenId>`.
    #[schema(format = "name", min_length = 2, max_length = 128)]
    pub name: Option<String>,
    /// More about it.
    #[schema(max_length = 256, pattern = "^(?!https?://)")]
    pub description: Option<String>,
    /// Number of agents that may register with it: 1 to 1000, unless the operator has set another limit; default 100.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub count: Option<i32>,
    /// Number of days for which it is valid: 1 to 90, unless the operator has set another limit; default 30.
    #[schema(minimum = 1, maximum = 3650)]
    pub time_to_live_in_days: Option<i32>,
}

/// An activation code that was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateAccessTokenAnswer {
    /// The code's public name.
    pub access_token_id: String,
    /// The code: a secret, and behind a dot the fingerprint of the authority that agents must find.
    pub access_token_code: String,
}

/// Lists activation codes, newest first, without the codes themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ListAccessTokens {
    /// Ids of codes.
    #[schema(max_items = 100, value_type = Option<Vec<Id>>)]
    pub access_token_id: Option<Vec<String>>,
    /// The exact name.
    #[schema(max_length = 256)]
    pub name: Option<String>,
    /// The state.
    pub status: Option<AccessTokenStatus>,
    /// The page, from 1; default 1.
    #[schema(minimum = 1, maximum = 4_294_967_295_i64)]
    pub page_number: Option<u32>,
    /// Rows on a page; default 20.
    #[schema(minimum = 1, maximum = 50)]
    pub page_size: Option<u32>,
}

/// Activation codes on a page.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct ListAccessTokensAnswer {
    /// The page.
    pub page_number: u32,
    /// Rows on a page at most.
    pub page_size: u32,
    /// Rows on all pages.
    pub total_count: i64,
    /// The codes of this page.
    pub access_tokens: AccessTokens,
}

lists! {
    /// A list of activation codes.
    AccessTokens { "AccessToken": AccessToken }
}

/// An activation code. Counts and days are texts: that is how the API has them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct AccessToken {
    /// The code's public name.
    pub access_token_id: String,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Number of agents that may register with it.
    pub count: String,
    /// Number of agents that have registered with it.
    pub registered_count: String,
    /// activated, unactivated (disabled or used up) or expired.
    pub status: String,
    /// Number of days for which it is valid, from its creation.
    pub time_to_live_in_days: String,
    /// Time of its creation.
    pub creation_time: String,
}

/// Lets no more agents register with a code. Those that have stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DisableAccessToken {
    /// The code's public name.
    #[schema(max_length = 128)]
    pub access_token_id: String,
}

/// Removes a code. Agents that registered with it stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteAccessToken {
    /// The code's public name.
    #[schema(max_length = 128)]
    pub access_token_id: String,
}
