//! Access keys: who signs calls, and for which tenant. Secrets are kept sealed.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain::policy::{InvalidPolicy, Policy};
use domain::{TenantId, Timestamp, UserId};
use rand::RngExt as _;
use ring::hmac;

use crate::row::{parse, parse_opt};
use crate::{Store, StoreError};

/// An access key with its secret, and what deciding about its calls takes. Does not print the secret.
#[derive(Clone, PartialEq)]
pub struct AccessKey {
    /// Its public name.
    pub id: String,
    /// Whose calls it signs.
    pub tenant: TenantId,
    /// What it signs with.
    pub secret: String,
    /// A key that is not active signs nothing.
    pub active: bool,
    /// The user whose key it is; `None` is the account itself, which needs no policy.
    pub user: Option<KeyUser>,
    /// What makes it a temporary key; `None` is a key that lasts.
    pub temporary: Option<Temporary>,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey")
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

/// The user of a key.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyUser {
    /// Its id.
    pub id: UserId,
    /// Its name.
    pub name: String,
    /// The policies attached to it.
    pub policies: Arc<[Policy]>,
}

/// What makes a key temporary. Does not print what its token is checked with.
#[derive(Clone, PartialEq)]
pub struct Temporary {
    /// Until when it signs.
    pub expires_at: Timestamp,
    /// What its holder may do at most.
    pub session_policy: Option<Arc<Policy>>,
    token_hash: Vec<u8>,
}

impl fmt::Debug for Temporary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Temporary")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl AccessKey {
    /// Whether this is the security token of this key, compared in constant time. A key that lasts has none.
    pub fn has_security_token(&self, token: &str) -> bool {
        self.temporary.as_ref().is_some_and(|temporary| {
            hmac::verify(
                &token_key(&self.id),
                token.as_bytes(),
                &temporary.token_hash,
            )
            .is_ok()
        })
    }
}

/// Whether a text has the form of a security token.
pub fn is_security_token(text: &str) -> bool {
    text.len() == TOKEN_LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// A token belongs to one key: hashed with another's id it is another hash.
fn token_key(id: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, id.as_bytes())
}

/// What ids of temporary keys begin with.
pub const TEMPORARY_PREFIX: &str = "STS.";

/// Lengths of life that a temporary key can have, in seconds.
pub const TEMPORARY_SECS: RangeInclusive<u64> = 900..=43_200;

const TOKEN_LENGTH: usize = 64;

/// A new temporary key. This is the only time at which its secret and token are told. Does not print them.
#[derive(Clone, PartialEq, Eq)]
pub struct TemporaryKey {
    /// Its public name.
    pub id: String,
    /// What it signs with.
    pub secret: String,
    /// What must go with every call.
    pub security_token: String,
    /// Until when it signs.
    pub expires_at: Timestamp,
}

impl fmt::Debug for TemporaryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TemporaryKey")
            .field("id", &self.id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What became of making a key for a user.
#[derive(Debug, Clone, PartialEq)]
pub enum CreateUserKey {
    /// The key; its secret is told only now.
    Created(AccessKey),
    /// The tenant has no such user.
    NoUser,
}

/// What became of making a temporary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateTemporaryKey {
    /// The key; its secret and token are told only now.
    Created(TemporaryKey),
    /// The tenant has no such user.
    NoUser,
    /// The life is shorter or longer than [`TEMPORARY_SECS`].
    InvalidLifetime,
    /// The session policy is none; the sentence says why.
    InvalidPolicy(InvalidPolicy),
}

/// A key in a list, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// Its public name.
    pub id: String,
    /// Whether it may sign.
    pub active: bool,
    /// The name of its user; `None` is the account itself.
    pub user: Option<String>,
    /// Until when it signs, if it is temporary.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Store {
    /// Makes a key for the tenant itself. This is the only time at which its secret is told.
    pub async fn create_access_key(&self, tenant: &TenantId) -> Result<AccessKey, StoreError> {
        let key = AccessKey {
            id: lasting_id(),
            tenant: tenant.clone(),
            secret: random_text(40),
            active: true,
            user: None,
            temporary: None,
        };
        sqlx::query!(
            "insert into access_key (id, tenant, secret_sealed) values ($1, $2, $3)",
            key.id,
            tenant.as_str(),
            self.seal.seal(&purpose(&key.id), key.secret.as_bytes()),
        )
        .execute(&self.pool)
        .await?;
        Ok(key)
    }

    /// Makes a key for a user.
    ///
    /// # Errors
    /// The database fails.
    pub async fn create_user_key(
        &self,
        tenant: &TenantId,
        user: &str,
    ) -> Result<CreateUserKey, StoreError> {
        let id = lasting_id();
        let secret = random_text(40);
        let inserted = sqlx::query!(
            "insert into access_key (id, tenant, secret_sealed, user_id)
             select $1, tenant, $3, id from ram_user where tenant = $2 and name = $4 for key share",
            id,
            tenant.as_str(),
            self.seal.seal(&purpose(&id), secret.as_bytes()),
            user
        )
        .execute(&self.pool)
        .await?;
        if inserted.rows_affected() == 0 {
            return Ok(CreateUserKey::NoUser);
        }
        // Read again, so that it comes with its user's policies.
        Ok(match self.access_key(&id).await? {
            Some(key) => CreateUserKey::Created(key),
            None => CreateUserKey::NoUser,
        })
    }

    /// Makes a temporary key for a user, or for the account itself, which does at most what `session_policy` allows.
    ///
    /// # Errors
    /// The database fails.
    pub async fn create_temporary_key(
        &self,
        tenant: &TenantId,
        user: Option<&str>,
        lifetime: Duration,
        session_policy: Option<&str>,
    ) -> Result<CreateTemporaryKey, StoreError> {
        if !TEMPORARY_SECS.contains(&lifetime.as_secs()) {
            return Ok(CreateTemporaryKey::InvalidLifetime);
        }
        if let Some(Err(invalid)) = session_policy.map(Policy::parse) {
            return Ok(CreateTemporaryKey::InvalidPolicy(invalid));
        }
        let id = format!("{TEMPORARY_PREFIX}{}", random_text(24));
        let secret = random_text(40);
        let security_token = random_text(TOKEN_LENGTH);
        let token_hash = hmac::sign(&token_key(&id), security_token.as_bytes());
        let expires_at = sqlx::query_scalar!(
            r#"insert into access_key (id, tenant, secret_sealed, user_id, expires_at, token_hash, session_policy)
               select $1, t.id, $3, u.id, now() + make_interval(secs => $5), $6, $7
               from tenant t left join ram_user u on u.tenant = t.id and u.name = $4
               where t.id = $2 and ($4::text is null or u.id is not null)
               returning expires_at as "expires_at!""#,
            id,
            tenant.as_str(),
            self.seal.seal(&purpose(&id), secret.as_bytes()),
            user,
            lifetime.as_secs_f64(),
            token_hash.as_ref(),
            session_policy
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(match expires_at {
            Some(expires_at) => CreateTemporaryKey::Created(TemporaryKey {
                id,
                secret,
                security_token,
                expires_at: expires_at.into(),
            }),
            None => CreateTemporaryKey::NoUser,
        })
    }

    /// The key with this id, of whatever tenant: it is how the tenant of a call is found.
    pub async fn access_key(&self, id: &str) -> Result<Option<AccessKey>, StoreError> {
        let Some(row) = sqlx::query!(
            r#"select k.tenant, k.secret_sealed, k.active, k.expires_at, k.token_hash, k.session_policy, k.user_id,
                      u.name as "user_name?",
                      array(select p.document from ram_attachment a join ram_policy p on p.tenant = a.tenant and p.name = a.policy
                            where a.tenant = k.tenant and a.user_id = k.user_id order by p.name) as "policies!"
               from access_key k left join ram_user u on u.tenant = k.tenant and u.id = k.user_id
               where k.id = $1"#,
            id
        )
        .fetch_optional(&self.pool)
        .await?
        else {
            return Ok(None);
        };
        let secret = self.seal.open(&purpose(id), &row.secret_sealed)?;
        let user = match row.user_id {
            Some(user_id) => Some(KeyUser {
                id: parse("access_key.user_id", &user_id)?,
                name: row.user_name.unwrap_or_default(),
                policies: row
                    .policies
                    .iter()
                    .map(|document| parse("ram_policy.document", document))
                    .collect::<Result<_, _>>()?,
            }),
            None => None,
        };
        let temporary = match (row.expires_at, row.token_hash) {
            (Some(expires_at), Some(token_hash)) => Some(Temporary {
                expires_at: expires_at.into(),
                session_policy: parse_opt(
                    "access_key.session_policy",
                    row.session_policy.as_deref(),
                )?
                .map(Arc::new),
                token_hash,
            }),
            _ => None,
        };
        Ok(Some(AccessKey {
            id: id.to_owned(),
            tenant: parse("access_key.tenant", &row.tenant)?,
            secret: String::from_utf8(secret).map_err(|_| StoreError::Unseal)?,
            active: row.active,
            user,
            temporary,
        }))
    }

    /// The tenant's keys and those of its users, oldest first.
    pub async fn access_keys(&self, tenant: &TenantId) -> Result<Vec<ListedKey>, StoreError> {
        let rows = sqlx::query!(
            r#"select k.id, k.active, k.created_at, k.expires_at, u.name as "user_name?"
               from access_key k left join ram_user u on u.tenant = k.tenant and u.id = k.user_id
               where k.tenant = $1 order by k.created_at, k.id"#,
            tenant.as_str()
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| ListedKey {
                id: row.id,
                active: row.active,
                user: row.user_name,
                expires_at: row.expires_at.map(Into::into),
                created_at: row.created_at.into(),
            })
            .collect())
    }

    /// Lets a key sign, or not. Gateways notice within the life of their cached entries. False if the tenant has no such key.
    pub async fn set_access_key_active(
        &self,
        tenant: &TenantId,
        id: &str,
        active: bool,
    ) -> Result<bool, StoreError> {
        let updated = sqlx::query!(
            "update access_key set active = $3 where tenant = $1 and id = $2",
            tenant.as_str(),
            id,
            active
        )
        .execute(&self.pool)
        .await?;
        Ok(updated.rows_affected() == 1)
    }

    /// Deletes a key of the tenant or of one of its users. False if there is none.
    ///
    /// # Errors
    /// The database fails.
    pub async fn delete_access_key(&self, tenant: &TenantId, id: &str) -> Result<bool, StoreError> {
        let deleted = sqlx::query!(
            "delete from access_key where tenant = $1 and id = $2",
            tenant.as_str(),
            id
        )
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected() == 1)
    }

    /// Forgets at most 10,000 temporary keys that expired `age` ago, and says how many. Until then their holders read that they expired.
    ///
    /// # Errors
    /// The database fails.
    pub async fn forget_temporary_keys(&self, age: Duration) -> Result<u64, StoreError> {
        let deleted = sqlx::query!(
            "delete from access_key where id in (
                select id from access_key where expires_at < now() - make_interval(secs => $1)
                order by expires_at limit 10000 for update skip locked)",
            age.as_secs_f64()
        )
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }
}

fn lasting_id() -> String {
    format!("WK{}", random_text(20))
}

/// A sealed secret opens for its own key only.
pub(crate) fn purpose(id: &str) -> String {
    format!("access_key/{id}")
}

fn random_text(length: usize) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = rand::rng();
    (0..length)
        .map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())]))
        .collect()
}

/// Keys that were looked up a moment ago. Bounded, and each entry lives shortly: a key that was switched off signs for at most
/// that long. Only keys that exist are kept, so strangers can't fill it.
#[derive(Debug, Clone)]
pub struct KeyCache {
    store: Store,
    capacity: usize,
    time_to_live: Duration,
    entries: Arc<Mutex<HashMap<String, (Instant, AccessKey)>>>,
}

impl KeyCache {
    /// A cache of at most `capacity` keys, each for `time_to_live`.
    pub fn new(store: Store, capacity: usize, time_to_live: Duration) -> Self {
        Self {
            store,
            capacity,
            time_to_live,
            entries: Arc::default(),
        }
    }

    /// [`Store::access_key`], or what it said a moment ago.
    pub async fn access_key(&self, id: &str) -> Result<Option<AccessKey>, StoreError> {
        if let Some(key) = self.fresh(id) {
            return Ok(Some(key));
        }
        let found = self.store.access_key(id).await?;
        if let Some(key) = &found {
            self.keep(key.clone());
        }
        Ok(found)
    }

    fn fresh(&self, id: &str) -> Option<AccessKey> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .get(id)
            .filter(|(since, _)| since.elapsed() < self.time_to_live)
            .map(|(_, key)| key.clone())
    }

    fn keep(&self, key: AccessKey) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.capacity {
            entries.retain(|_, (since, _)| since.elapsed() < self.time_to_live);
        }
        // All are in use: this one is looked up again next time.
        if entries.len() < self.capacity {
            entries.insert(key.id.clone(), (Instant::now(), key));
        }
    }
}
