//! Each test has a database and a NATS of its own.

use std::time::Instant;

#[tokio::test]
async fn two_databases_share_a_schema_and_nothing_else() {
    let (first, second) = (testkit::postgres().await, testkit::postgres().await);
    assert_ne!(first.url(), second.url());
    let (one, two) = (first.pool().await, second.pool().await);
    sqlx::raw_sql("insert into tenant (id, name) values ('t-1', 'one')")
        .execute(&one)
        .await
        .expect("a tenant");
    let count = |pool| sqlx::query_scalar::<_, i64>("select count(*) from tenant").fetch_one(pool);
    assert_eq!(count(&one).await.expect("a count"), 1);
    assert_eq!(count(&two).await.expect("a count"), 0);
    first
        .store()
        .await
        .ping()
        .await
        .expect("the store reaches it");
}

#[tokio::test]
async fn servers_are_gone_after_the_test_that_used_them() {
    let started = Instant::now();
    let database = testkit::postgres().await;
    let nats = testkit::nats().await;
    println!("both servers were ready after {:?}", started.elapsed());
    let pids = [database.server().pid(), nats.server().pid()];
    drop((database, nats));
    for pid in pids {
        let pid = pid.expect("it ran");
        assert!(
            !std::path::Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} still runs"
        );
    }
}
