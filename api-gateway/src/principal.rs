//! Who calls.

use domain::UserId;

/// Who calls: a key, and the user whose key it is.
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
    /// The principal that a verified key stands for.
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
