//! Nonces of signed calls and their partitions, against a real Postgres.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::Timestamp;
use futures::future::join_all;
use sqlx::PgPool;
use store::Store;

const HOUR: i64 = 3600;

/// Returns the first second of the hour that Postgres is in, and of the hours beside it.
async fn full_hours(pool: &PgPool) -> [i64; 3] {
    let now: i64 = sqlx::query_scalar("select extract(epoch from now())::bigint")
        .fetch_one(pool)
        .await
        .expect("the time");
    let this = now - now % HOUR;
    [this - HOUR, this, this + HOUR]
}

async fn uses(store: &Store, key: &str, nonce: &str, second: i64) -> bool {
    let at = Timestamp::from_unix_seconds(second).expect("a time");
    store.use_nonce(key, nonce, at).await.expect("the database")
}

async fn partitions(pool: &PgPool) -> BTreeSet<i64> {
    let names: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_inherits join pg_class on pg_class.oid = inhrelid
         where inhparent = 'signature_nonce'::regclass and relkind = 'r'",
    )
    .fetch_all(pool)
    .await
    .expect("the catalogue");
    let hour = |name: &String| name.rsplit('_').next().and_then(|hour| hour.parse().ok());
    names.iter().filter_map(hour).collect()
}

#[tokio::test]
async fn a_nonce_is_used_once_by_each_key_on_either_side_of_a_full_hour() {
    let database = testkit::postgres().await;
    let (store, pool) = (database.store().await, database.pool().await);
    for (number, full) in full_hours(&pool).await.into_iter().enumerate() {
        // The last second of an hour, then the first of the next; and in reverse order.
        let both = [
            (format!("up-{number}"), [full - 1, full]),
            (format!("down-{number}"), [full, full - 1]),
        ];
        for (nonce, seconds) in both {
            for second in seconds {
                let call = format!("{nonce}-{second}");
                assert!(uses(&store, "one", &call, second).await, "{call}");
            }
            // Copies of the same calls, in both orders too.
            for second in seconds.into_iter().chain(seconds.into_iter().rev()) {
                let call = format!("{nonce}-{second}");
                assert!(!uses(&store, "one", &call, second).await, "{call}");
            }
            let call = format!("{nonce}-{full}");
            assert!(
                uses(&store, "two", &call, full).await,
                "each key has its own"
            );
        }
        // The same nonce in another call of the same hour is refused as well.
        let again = format!("up-{number}-{full}");
        assert!(!uses(&store, "one", &again, full + 1).await);
    }
}

#[tokio::test]
async fn of_copies_sent_at_once_one_passes_even_where_no_partition_was_made() {
    let database = testkit::postgres().await;
    let (store, pool) = (database.store().await, database.pool().await);
    let [_, this, _] = full_hours(&pool).await;
    for hour in [this, this + 100 * HOUR] {
        for round in 0..5 {
            let nonce = format!("n-{round}");
            let copies = (0..8).map(|_| uses(&store, "one", &nonce, hour + round));
            let passed = join_all(copies).await.into_iter().filter(|passed| *passed);
            assert_eq!(passed.count(), 1, "{nonce} of {hour}");
        }
    }
}

#[tokio::test]
async fn partitions_are_made_ahead_and_dropped_whole_by_many_gateways_at_once() {
    let database = testkit::postgres().await;
    let (store, pool) = (database.store().await, database.pool().await);
    let [_, this, _] = full_hours(&pool).await;
    let (old, young) = (this - 5 * HOUR, this - HOUR);
    for second in [old, young, this] {
        assert!(uses(&store, "one", "n", second).await);
    }
    assert!(partitions(&pool).await.contains(&(old / HOUR)));
    // Calls continue meanwhile.
    let calls = (0..50).map(|number| {
        let (store, nonce) = (store.clone(), format!("m-{number}"));
        async move { uses(&store, "one", &nonce, this).await }
    });
    let kept = Duration::from_secs(2 * 3600);
    let kept = (0..8).map(|_| store.keep_nonces(kept));
    let (passed, dropped) = tokio::join!(join_all(calls), join_all(kept));
    assert!(passed.into_iter().all(|passed| passed));
    let dropped: i64 = dropped
        .into_iter()
        .map(|dropped| dropped.expect("kept"))
        .sum();
    assert!(dropped >= 1, "each is dropped by one of them: {dropped}");
    let there = partitions(&pool).await;
    assert!(!there.contains(&(old / HOUR)), "{there:?}");
    for ahead in -1..=3 {
        let hour = this / HOUR + ahead;
        assert!(there.contains(&hour), "{hour} of {there:?}");
    }
    for second in [young, this] {
        assert!(!uses(&store, "one", "n", second).await, "it is remembered");
    }
}
