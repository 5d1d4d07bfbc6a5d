//! Limits on the rate of calls.

use std::time::Duration;

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

/// Calls until the call is refused, and says how often it was taken and what it was refused with.
async fn flood(tenant: &Tenant, action: &str) -> (usize, String) {
    for taken in 0..50 {
        match tenant.client.call(action, &[("PageSize", "1")]).await {
            Ok(_) => {}
            Err(smc::CallError::Refused(refusal)) => return (taken, refusal.code),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("fifty calls were taken")
}

#[tokio::test]
async fn an_account_that_calls_too_often_is_told_when_to_call_again_and_others_are_not() {
    let fixture = Fixture::start().await;
    let busy = limited(&fixture, 1, 100).await;
    let (taken, code) = flood(&busy, "DescribeSourceServers").await;
    assert_eq!(code, "Throttling.User");
    assert!(
        (2..=4).contains(&taken),
        "a burst of two, and what time gave: {taken}"
    );

    let call = form(&busy.signed("GET", "DescribeReplicationJobs", &[]));
    let address = fixture.address;
    let response = reqwest::get(format!("http://{address}/?{call}"))
        .await
        .unwrap();
    assert_eq!(response.status(), 400);
    let hint = response.headers()["x-acs-retry-after"].to_str().unwrap();
    let wait = Duration::from_millis(hint.parse().unwrap());
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
