//! Limits on the rate of calls.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use store::audit::AuditFilter;
use store::tenant::CallRates;

use crate::fixture::{Fixture, Tenant, form};

async fn limited(fixture: &Fixture, account: u32, operation: u32) -> Tenant {
    let tenant = fixture.tenant("busy").await;
    let rates = CallRates {
        account_per_second: account,
        operation_per_second: operation,
    };
    assert!(
        fixture
            .store
            .set_call_rates(&tenant.id, rates)
            .await
            .unwrap()
    );
    tenant
}

/// Calls of a flood: more than a burst takes, at any speed of the machine.
const CALLS: usize = 50;

/// Calls many times at once. Returns the number of accepted calls, and the code of the refused ones.
async fn flood(tenant: &Tenant, action: &str) -> (usize, String) {
    let calls = (0..CALLS).map(|_| tenant.client.call_by_name(action, &[("PageSize", "1")]));
    let mut codes = BTreeSet::new();
    let mut taken = 0;
    for answer in futures::future::join_all(calls).await {
        match answer {
            Ok(_) => taken += 1,
            Err(smc::CallError::Refused(refusal)) => drop(codes.insert(refusal.code)),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(
        codes.len(),
        1,
        "{taken} were taken, the others got {codes:?}"
    );
    (taken, codes.pop_first().expect("one code"))
}

#[tokio::test]
async fn an_account_that_calls_too_often_is_told_when_to_call_again_and_others_are_not() {
    let fixture = Fixture::start().await;
    let busy = limited(&fixture, 1, 100).await;
    let began = Instant::now();
    let (taken, code) = flood(&busy, "DescribeSourceServers").await;
    assert_eq!(code, "Throttling.User");
    let by_time = usize::try_from(began.elapsed().as_secs()).expect("a short time");
    assert!(
        (2..=3 + by_time).contains(&taken),
        "a burst of two, and one for each of {by_time} seconds: {taken}"
    );

    let address = fixture.address;
    // Several at once: one or two places may have become free meanwhile.
    let calls = (0..5).map(|_| {
        let call = form(&busy.signed("GET", "DescribeReplicationJobs", &[]));
        reqwest::get(format!("http://{address}/?{call}"))
    });
    let answers = futures::future::join_all(calls).await;
    let refused = answers
        .into_iter()
        .map(|answer| answer.unwrap())
        .filter(|answer| answer.status() == 400);
    let hints = refused.map(|answer| {
        let hint = answer.headers()["x-acs-retry-after"].to_str().unwrap();
        Duration::from_millis(hint.parse().unwrap())
    });
    let wait = hints.max().expect("one of them is refused");
    assert!(
        wait > Duration::ZERO && wait <= Duration::from_secs(2),
        "{wait:?}"
    );
    tokio::time::sleep(wait).await;
    busy.call("DescribeReplicationJobs", &[]).await;

    let quiet = fixture.tenant("quiet").await;
    quiet.call("DescribeSourceServers", &[]).await;
    fixture.stop().await;
}

#[tokio::test]
async fn one_operation_that_is_called_too_often_leaves_the_others_alone() {
    let fixture = Fixture::start().await;
    let busy = limited(&fixture, 100, 1).await;
    assert_eq!(
        flood(&busy, "DescribeSourceServers").await.1,
        "Throttling.Api"
    );
    busy.call("DescribeReplicationJobs", &[]).await;
    fixture.stop().await;
}

async fn count(pool: &sqlx::PgPool, table: &str) -> i64 {
    let statement = format!("select count(*) from {table}");
    let counted = sqlx::query_scalar(sqlx::AssertSqlSafe(statement));
    counted.fetch_one(pool).await.expect("a count")
}

#[tokio::test]
async fn a_hundred_throttled_calls_leave_no_nonce_and_one_row_of_the_audit() {
    let fixture = Fixture::start().await;
    let busy = limited(&fixture, 100, 1).await;
    let (mut taken, mut throttled) = (0, 0);
    while throttled < 100 {
        match busy
            .code("DeleteImage", &[("ImageId", "m-none")])
            .await
            .as_str()
        {
            "Throttling.Api" => throttled += 1,
            "InvalidImageId.NotFound" => taken += 1,
            "Throttling.User" => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(count(&fixture.pool, "signature_nonce").await, taken);
    let (pool, store) = (fixture.pool.clone(), fixture.store.clone());
    let _database = fixture.database.clone();
    // A gateway that drains writes its counts.
    fixture.stop().await;
    assert_eq!(count(&pool, "signature_nonce").await, taken);
    let rows = store.audit(&AuditFilter::default(), 0, 1000).await;
    let rows = rows.expect("the audit");
    let (of_many, single): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|row| row.outcome.starts_with("Throttling."));
    assert_eq!(i64::try_from(single.len()).expect("few"), taken);
    assert_eq!(of_many.len(), 1, "{of_many:?}");
    let row = &of_many[0];
    assert!(row.calls >= 100, "{row:?}");
    assert_eq!(
        (row.tenant.as_str(), row.operation.as_str()),
        ("busy", "DeleteImage")
    );
    assert_eq!(row.access_key, busy.key.id);
}

#[tokio::test]
async fn a_throttled_call_may_be_sent_again_as_it_was_and_is_taken_once() {
    let fixture = Fixture::start().await;
    let busy = limited(&fixture, 1, 100).await;
    let action = "DescribeReplicationJobs";
    flood(&busy, action).await;
    let call = form(&busy.signed("GET", action, &[]));
    let address = fixture.address;
    let sent = async || {
        let response = reqwest::get(format!("http://{address}/?{call}")).await;
        let answer = response
            .expect("an answer")
            .json::<serde_json::Value>()
            .await;
        answer.expect("JSON")["Code"].as_str().map(str::to_owned)
    };
    let mut answers = Vec::new();
    let limit = Duration::from_secs(30);
    testkit::wait::until(limit, "a copy is taken and another refused", async || {
        let code = sent().await;
        if code.as_deref() != Some("Throttling.User") {
            answers.push(code);
        }
        Ok(answers.len() == 2)
    })
    .await
    .expect("the limits let two calls pass");
    assert_eq!(answers, [None, Some("SignatureNonceUsed".to_owned())]);
    fixture.stop().await;
}
