//! Limits on the rate of calls, for each account and for each operation of an account.
//!
//! Each gateway counts for itself: behind two of them an account has twice the rate. This costs no round trip. It still
//! meets the purpose of the limits, which is that one account can't take a gateway from the others.
//!
//! A call is counted when its signature is verified, before anything is written for it. So copies of a call count too.
//! Anyone who holds a signed call can use up its account's rate with it, until the call's time is over.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::TenantId;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota};
use store::Store;
use store::tenant::CallRates;

use crate::Refusal;
use crate::operation::Operation;

/// Time for which an account's limits are kept before they are read again.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// Number of accounts at which those without recent calls are dropped.
const KEPT: usize = 10_000;

/// The limits of the accounts that call.
#[derive(Debug)]
pub struct Throttle {
    store: Store,
    accounts: Mutex<HashMap<TenantId, Arc<Account>>>,
}

/// One account's limits, and the used part of them.
#[derive(Debug)]
struct Account {
    rates: CallRates,
    read_at: Mutex<Instant>,
    all: DefaultDirectRateLimiter,
    each: Mutex<HashMap<&'static str, Arc<DefaultDirectRateLimiter>>>,
}

impl Throttle {
    /// Reads limits from the database.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            accounts: Mutex::default(),
        }
    }

    /// Counts a call.
    ///
    /// # Errors
    /// `Throttling.User` or `Throttling.Api` with the time after which the call would be taken.
    pub async fn count(
        &self,
        tenant: &TenantId,
        operation: &'static Operation,
    ) -> Result<(), Refusal> {
        let account = self.account(tenant).await?;
        check(&account.all).map_err(|wait| {
            Refusal::throttled(
                "Throttling.User",
                "Request was denied due to user flow control.",
                wait,
            )
        })?;
        check(&account.operation(operation.name)).map_err(|wait| {
            Refusal::throttled(
                "Throttling.Api",
                "Request was denied due to api flow control.",
                wait,
            )
        })
    }

    async fn account(&self, tenant: &TenantId) -> Result<Arc<Account>, Refusal> {
        if let Some(account) = self.lock().get(tenant)
            && account.is_fresh()
        {
            return Ok(Arc::clone(account));
        }
        let rates = self.store.call_rates(tenant).await?;
        let mut accounts = self.lock();
        // Checked again: calls that read the limits at the same time share one account, and its used part is kept.
        if let Some(account) = accounts.get(tenant)
            && account.rates == rates
        {
            *account.read_at() = Instant::now();
            return Ok(Arc::clone(account));
        }
        let account = Arc::new(Account::new(rates));
        if accounts.len() >= KEPT {
            accounts.retain(|_, account| account.is_fresh());
        }
        accounts.insert(tenant.clone(), Arc::clone(&account));
        Ok(account)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Account>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn new(rates: CallRates) -> Self {
        Self {
            rates,
            read_at: Mutex::new(Instant::now()),
            all: DefaultDirectRateLimiter::direct(quota(rates.account_per_second)),
            each: Mutex::default(),
        }
    }

    fn is_fresh(&self) -> bool {
        self.read_at().elapsed() < KEPT_FOR
    }

    fn read_at(&self) -> MutexGuard<'_, Instant> {
        self.read_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the limit of one operation. The map is bounded by the table of operations.
    fn operation(&self, name: &'static str) -> Arc<DefaultDirectRateLimiter> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        let limiter = each.entry(name).or_insert_with(|| {
            Arc::new(DefaultDirectRateLimiter::direct(quota(
                self.rates.operation_per_second,
            )))
        });
        Arc::clone(limiter)
    }
}

/// Returns the quota for this number of calls a second. A burst may have the calls of two seconds: an SDK that lists
/// pages does not space its calls.
fn quota(per_second: u32) -> Quota {
    let per_second = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(per_second).allow_burst(per_second.saturating_mul(TWO))
}

const TWO: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);

/// Takes one call's place, or returns the time until there is one.
fn check(limiter: &DefaultDirectRateLimiter) -> Result<(), Duration> {
    limiter
        .check()
        .map_err(|full| full.wait_time_from(DefaultClock::default().now()))
}
