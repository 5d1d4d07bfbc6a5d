//! Access keys: who signs calls, and for which tenant. Secrets are kept sealed.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain::{TenantId, Timestamp};
use rand::RngExt as _;

use crate::row::parse;
use crate::{Store, StoreError};

/// An access key with its secret. Does not print the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// Its public name.
    pub id: String,
    /// Whose calls it signs.
    pub tenant: TenantId,
    /// What it signs with.
    pub secret: String,
    /// A key that is not active signs nothing.
    pub active: bool,
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

/// A key in a list, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// Its public name.
    pub id: String,
    /// Whether it may sign.
    pub active: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Store {
    /// Makes a key for the tenant. This is the only time at which its secret is told.
    pub async fn create_access_key(&self, tenant: &TenantId) -> Result<AccessKey, StoreError> {
        let key = AccessKey {
            id: format!("WK{}", random_text(20)),
            tenant: tenant.clone(),
            secret: random_text(40),
            active: true,
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

    /// The key with this id, of whatever tenant: it is how the tenant of a call is found.
    pub async fn access_key(&self, id: &str) -> Result<Option<AccessKey>, StoreError> {
        let Some(row) = sqlx::query!(
            "select tenant, secret_sealed, active from access_key where id = $1",
            id
        )
        .fetch_optional(&self.pool)
        .await?
        else {
            return Ok(None);
        };
        let secret = self.seal.open(&purpose(id), &row.secret_sealed)?;
        Ok(Some(AccessKey {
            id: id.to_owned(),
            tenant: parse("access_key.tenant", &row.tenant)?,
            secret: String::from_utf8(secret).map_err(|_| StoreError::Unseal)?,
            active: row.active,
        }))
    }

    /// The tenant's keys, oldest first.
    pub async fn access_keys(&self, tenant: &TenantId) -> Result<Vec<ListedKey>, StoreError> {
        let rows = sqlx::query!(
            "select id, active, created_at from access_key where tenant = $1 order by created_at, id",
            tenant.as_str()
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| ListedKey {
                id: row.id,
                active: row.active,
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
}

/// A sealed secret opens for its own key only.
fn purpose(id: &str) -> String {
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
