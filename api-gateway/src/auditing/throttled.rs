//! Calls that were throttled, counted until the audit has them.
//!
//! A row for each would let one account fill the disk with calls that do nothing. They are counted in memory and
//! written once a minute: one row for each key and operation. A gateway that dies loses at most the counts of one
//! minute; nothing was carried out for these calls.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::{RequestId, TenantId};
use store::audit::{Actor, NewEntry};
use store::{Store, StoreError};

use crate::Refusal;
use crate::authentication::Caller;
use crate::operation::Effect;
use crate::request::Incoming;

/// Throttled calls of this gateway that the audit does not have yet. Only verified calls are counted, so there are at
/// most as many entries as keys times operations.
#[derive(Debug, Default)]
pub struct ThrottledCalls {
    calls: Mutex<HashMap<Who, Calls>>,
}

/// The caller and the operation of counted calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Who {
    tenant: TenantId,
    access_key: String,
    operation: &'static str,
}

/// The first call, and the number of calls.
#[derive(Debug)]
struct Calls {
    user_name: String,
    origin: String,
    request_id: String,
    outcome: String,
    count: i64,
}

impl ThrottledCalls {
    /// Counts a refused call if it was throttled and would have changed something.
    pub fn add(
        &self,
        caller: &Caller,
        incoming: &Incoming,
        request_id: &RequestId,
        refusal: &Refusal,
    ) {
        if caller.operation.effect == Effect::Reads || !refusal.is_throttling() {
            return;
        }
        let who = Who {
            tenant: caller.tenant.clone(),
            access_key: caller.principal.access_key_id.clone(),
            operation: caller.operation.name,
        };
        let first = || Calls {
            user_name: caller
                .principal
                .user
                .as_ref()
                .map(|user| user.name.clone())
                .unwrap_or_default(),
            origin: incoming.origin.to_string(),
            request_id: request_id.to_string(),
            outcome: refusal.code.to_string(),
            count: 0,
        };
        self.lock().entry(who).or_insert_with(first).count += 1;
    }

    /// Writes the counts to the audit.
    ///
    /// # Errors
    /// The database fails; unwritten counts are kept for the next time.
    pub async fn write(&self, store: &Store) -> Result<(), StoreError> {
        let taken = std::mem::take(&mut *self.lock());
        let mut left = taken.into_iter();
        while let Some((who, calls)) = left.next() {
            if let Err(error) = write(store, &who, &calls).await {
                self.give_back(std::iter::once((who, calls)).chain(left));
                return Err(error);
            }
        }
        Ok(())
    }

    fn give_back(&self, unwritten: impl Iterator<Item = (Who, Calls)>) {
        let mut all = self.lock();
        for (who, mut calls) in unwritten {
            calls.count += all.get(&who).map_or(0, |since| since.count);
            all.insert(who, calls);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Who, Calls>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write(store: &Store, who: &Who, calls: &Calls) -> Result<(), StoreError> {
    let entry = NewEntry {
        actor: Actor::Tenant,
        tenant: Some(&who.tenant),
        access_key: &who.access_key,
        user_name: &calls.user_name,
        origin: &calls.origin,
        request_id: &calls.request_id,
        operation: who.operation,
        resources: &[],
        outcome: Some(&calls.outcome),
    };
    store.audit_refused(&entry, calls.count).await
}
