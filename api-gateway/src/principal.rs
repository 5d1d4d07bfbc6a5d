//! The identity of a caller.

use domain::UserId;

/// The identity of a caller: a key, and the key's user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The key that signed the call.
    pub access_key_id: String,
    /// The key's user; `None` is the account itself.
    pub user: Option<PrincipalUser>,
}

/// A user of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrincipalUser {
    /// Its id.
    pub id: UserId,
    /// Its name.
    pub name: String,
}

impl Principal {
    /// Returns the principal of a verified key.
    pub fn of(key: &store::key::AccessKey) -> Self {
        Self {
            access_key_id: key.id.clone(),
            user: key.user.as_ref().map(|user| PrincipalUser {
                id: user.id.clone(),
                name: user.name.clone(),
            }),
        }
    }
}
