//! Access keys: the signers of calls, and their tenants. Secrets are kept sealed.

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

/// An access key with its secret, and the facts that decide about its calls. Does not print the secret.
#[derive(Clone, PartialEq)]
pub struct AccessKey {
    /// Public name of the key.
    pub id: String,
    /// Tenant of the calls that the key signs.
    pub tenant: TenantId,
    /// Secret that signs calls.
    pub secret: String,
    /// True if the key may sign. Calls of an inactive key are refused.
    pub active: bool,
    /// User of the key; `None` is the account itself, which needs no policy.
    pub user: Option<KeyUser>,
    /// Facts about a temporary key; `None` for a lasting key.
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
    /// Id of the user.
    pub id: UserId,
    /// Name of the user.
    pub name: String,
    /// The policies attached to the user.
    pub policies: Arc<[Policy]>,
}

/// Facts about a temporary key. Does not print the hash of its token.
#[derive(Clone, PartialEq)]
pub struct Temporary {
    /// Time until which the key signs.
    pub expires_at: Timestamp,
    /// Upper bound of the holder's rights.
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
    /// Returns true if `token` is the security token of this key, compared in constant time. A lasting key has no
    /// token.
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

/// Returns true if `text` has the form of a security token.
pub fn is_security_token(text: &str) -> bool {
    text.len() == TOKEN_LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Returns the key that hashes a token. A token belongs to one access key: hashed with another id, it has another hash.
fn token_key(id: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, id.as_bytes())
}

/// Prefix of the ids of temporary keys.
pub const TEMPORARY_PREFIX: &str = "STS.";

/// Lifetimes that a temporary key can have, in seconds.
pub const TEMPORARY_SECS: RangeInclusive<u64> = 900..=43_200;

const TOKEN_LENGTH: usize = 64;

/// A new temporary key. Only this value shows its secret and token. Does not print them.
#[derive(Clone, PartialEq, Eq)]
pub struct TemporaryKey {
    /// Public name of the key.
    pub id: String,
    /// Secret that signs calls.
    pub secret: String,
    /// Token that must accompany every call.
    pub security_token: String,
    /// Time until which the key signs.
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

/// Outcome of a request for a user's key.
#[derive(Debug, Clone, PartialEq)]
pub enum CreateUserKey {
    /// The key, whose secret is shown only now.
    Created(AccessKey),
    /// The tenant has no such user.
    NoUser,
}

/// Outcome of a request for a temporary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateTemporaryKey {
    /// The key, whose secret and token are shown only now.
    Created(TemporaryKey),
    /// The tenant has no such user.
    NoUser,
    /// The lifetime is outside [`TEMPORARY_SECS`].
    InvalidLifetime,
    /// The session policy is invalid; the sentence gives the reason.
    InvalidPolicy(InvalidPolicy),
}

/// A key in a list, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// Public name of the key.
    pub id: String,
    /// True if the key may sign.
    pub active: bool,
    /// Name of the key's user; `None` is the account itself.
    pub user: Option<String>,
    /// Time until which the key signs, if it is temporary.
    pub expires_at: Option<Timestamp>,
    /// Time of creation.
    pub created_at: Timestamp,
}

impl Store {
    /// Creates a key for the tenant itself. Only this answer shows its secret.
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

    /// Creates a key for a user.
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
        // Read again, so that the key comes with its user's policies.
        Ok(match self.access_key(&id).await? {
            Some(key) => CreateUserKey::Created(key),
            None => CreateUserKey::NoUser,
        })
    }

    /// Creates a temporary key for a user or for the account itself. The key permits at most what `session_policy`
    /// allows.
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

    /// Returns the key with this id, of any tenant. The key determines the tenant of a call.
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

    /// Returns the tenant's keys and those of its users, oldest first.
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

    /// Enables or disables a key. Gateways notice within the lifetime of their cached entries. False if the tenant has
    /// no such key.
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

    /// Deletes a key of the tenant or of one of its users. False if the key does not exist.
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

    /// Deletes at most 10,000 temporary keys that expired `age` ago, and returns their number. Until then their holders
    /// receive an answer that the key has expired.
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

/// Returns the purpose of a key's sealed secret. A sealed secret opens for its own key only.
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

/// A cache of recently read keys. It is bounded, and each entry expires soon, so a disabled key signs for at most that
/// long. Only existing keys are kept, so callers with unknown keys can't fill the cache.
#[derive(Debug, Clone)]
pub struct KeyCache {
    store: Store,
    capacity: usize,
    time_to_live: Duration,
    entries: Arc<Mutex<HashMap<String, (Instant, AccessKey)>>>,
}

impl KeyCache {
    /// Creates a cache of at most `capacity` keys, each for `time_to_live`.
    pub fn new(store: Store, capacity: usize, time_to_live: Duration) -> Self {
        Self {
            store,
            capacity,
            time_to_live,
            entries: Arc::default(),
        }
    }

    /// Returns the key of [`Store::access_key`], possibly from the cache.
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
        // A full cache does not take the key, which is then read again next time.
        if entries.len() < self.capacity {
            entries.insert(key.id.clone(), (Instant::now(), key));
        }
    }
}
