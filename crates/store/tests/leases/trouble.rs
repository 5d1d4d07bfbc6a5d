//! Errors that may be retried, the data kept for a retry, and renewals that do not wait for other connections.

use std::time::Duration;

use domain::message::TraceHeaders;
use store::run::Observation;
use store::{ConnectConfig, ErrorKind, Store};

use super::{Bench, TTL};

/// Returns a store that waits only briefly for its only connection.
async fn with_one_connection(bench: &Bench) -> Store {
    let mut small = ConnectConfig::new(bench.database.url(), "small");
    small.max_connections = 1;
    small.acquire_timeout = Duration::from_millis(300);
    Store::connect(&small, bench.store.seal_key().clone())
        .await
        .unwrap()
}

#[tokio::test]
async fn what_somebody_holds_locked_for_long_may_be_tried_again() {
    let bench = Bench::new().await;
    let lease = bench.lease("w").await;
    let mut patient = ConnectConfig::new(bench.database.url(), "test");
    patient.statement_timeout = Duration::from_millis(300);
    let impatient = Store::connect(&patient, bench.store.seal_key().clone())
        .await
        .unwrap();
    let mut holder = bench.pool.begin().await.unwrap();
    sqlx::query("select from job for update")
        .execute(&mut *holder)
        .await
        .unwrap();
    let observation = Observation::default();
    let refused = impatient
        .observe(&bench.job, lease.epoch, &observation)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Retry, "{refused:?}");
    holder.rollback().await.unwrap();
    let written = impatient
        .observe(&bench.job, lease.epoch, &observation)
        .await;
    assert!(
        written.unwrap().is_some(),
        "the same call, once the row is free"
    );
}

#[tokio::test]
async fn leases_are_renewed_while_every_other_connection_is_in_use() {
    let bench = Bench::new().await;
    let store = with_one_connection(&bench).await;
    let lease = bench.lease("w").await;
    let _in_use = store.listen(&["anything"]).await.unwrap();
    store.ping().await.unwrap_err();
    let held = [(bench.job.clone(), lease.epoch)];
    let renewed = store.renew_leases("w", &held, TTL).await.unwrap();
    assert_eq!(renewed.len(), 1);
}

#[tokio::test]
async fn a_message_that_dies_twice_is_kept_once_and_goes_when_it_was_sent_again() {
    let bench = Bench::new().await;
    let store = &bench.store;
    let headers = TraceHeaders::from([("traceparent".to_owned(), "00-1".to_owned())]);
    for reason in ["first", "second"] {
        store
            .bury_message("wherry.cmd.stop_run", b"nonsense", &headers, reason)
            .await
            .unwrap();
    }
    let letters = store.dead_letters(None, 10).await.unwrap();
    let [letter] = letters.as_slice() else {
        panic!("one message: {letters:?}")
    };
    assert_eq!((letter.times, letter.reason.as_str()), (2, "second"));
    assert_eq!(letter.headers, headers);
    assert!(store.take_retried_letter().await.unwrap().is_none());
    assert!(!store.retry_dead_letter(letter.id + 1).await.unwrap());
    assert!(store.retry_dead_letter(letter.id).await.unwrap());

    let taken = store.take_retried_letter().await.unwrap().unwrap();
    assert_eq!(&taken.letter, letter);
    assert!(
        store.take_retried_letter().await.unwrap().is_none(),
        "another relay leaves it alone"
    );
    drop(taken);
    let again = testkit::wait::some(TTL, "a relay that fell leaves it", async || {
        Ok(store.take_retried_letter().await?)
    });
    again.await.unwrap().sent().await.unwrap();
    assert!(store.dead_letters(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_row_of_the_outbox_that_could_not_be_read_goes_back_into_it() {
    let bench = Bench::new().await;
    let store = &bench.store;
    bench.write("delete from outbox", &[]).await;
    bench
        .write(
            "insert into outbox (id, message) values (gen_random_uuid(), '{\"of\": \"a later version\"}')",
            &[],
        )
        .await;
    store
        .take_messages(10)
        .await
        .unwrap()
        .published(&[])
        .await
        .unwrap();
    let letter = store.dead_letters(None, 10).await.unwrap().pop().unwrap();
    assert_eq!(letter.subject, "outbox");
    assert!(store.retry_dead_letter(letter.id).await.unwrap());
    assert!(store.take_retried_letter().await.unwrap().is_none());
    assert!(store.dead_letters(None, 10).await.unwrap().is_empty());
    let batch = store.take_messages(10).await.unwrap();
    assert_eq!(
        batch.unreadable.len(),
        1,
        "this version still can't read it"
    );
}

#[tokio::test]
async fn a_pool_without_a_free_connection_and_a_killed_one_may_be_tried_again() {
    let bench = Bench::new().await;
    let store = with_one_connection(&bench).await;
    let listener = store.listen(&["anything"]).await.unwrap();
    let waited = store.ping().await.unwrap_err();
    assert_eq!(waited.kind(), ErrorKind::Retry, "{waited:?}");
    drop(listener);
    testkit::wait::until(TTL, "the connection is free again", async || {
        Ok(store.ping().await.is_ok())
    })
    .await
    .unwrap();
    bench
        .write(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'small'",
            &[],
        )
        .await;
    if let Err(error) = store.ping().await {
        assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
    }
    store.ping().await.expect("a connection of its own making");
}
