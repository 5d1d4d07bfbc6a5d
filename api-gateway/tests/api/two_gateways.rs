//! Two gateways over one database: an effect that must happen once happens once, at whichever gateway the calls arrive.

use std::collections::BTreeSet;

use futures::future::join_all;

use crate::fixture::{Fixture, GIB, REGION, form};

#[tokio::test]
async fn a_nonce_that_one_gateway_took_is_refused_by_the_other() {
    let fixture = Fixture::start().await;
    let second = fixture.second().await;
    let tenant = fixture.tenant("one").await;
    let query = form(&tenant.signed("GET", "DescribeSourceServers", &[]));
    let sent = async |address| {
        let answer = reqwest::get(format!("http://{address}/?{query}")).await;
        let answer = answer.expect("an answer").json::<serde_json::Value>().await;
        answer.expect("JSON")["Code"].as_str().map(str::to_owned)
    };
    assert_eq!(sent(fixture.address).await, None);
    for address in [second.address, fixture.address] {
        let code = sent(address).await;
        assert_eq!(code.as_deref(), Some("SignatureNonceUsed"));
    }
    second.stop().await;
    fixture.stop().await;
}

#[tokio::test]
async fn one_client_token_at_both_gateways_at_once_makes_one_job() {
    let fixture = Fixture::start().await;
    let second = fixture.second().await;
    let tenant = fixture.tenant("one").await;
    let clients = [tenant.client.clone(), second.client(&tenant)];
    for round in 0..5 {
        let source = fixture
            .source(&tenant, &format!("web-{round}"), &[GIB])
            .await;
        let token = format!("round-{round}");
        let parameters = [
            ("SourceId", source.as_str()),
            ("SystemDiskSize", "20"),
            ("RegionId", REGION),
            ("ClientToken", token.as_str()),
        ];
        let calls = (0..6).map(|number: usize| {
            clients[number % 2].call_by_name("CreateReplicationJob", &parameters)
        });
        let jobs: BTreeSet<String> = join_all(calls)
            .await
            .into_iter()
            .map(|answer| answer.expect("an answer")["JobId"].to_string())
            .collect();
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        let filter = [("SourceId.1", source.as_str())];
        let listed = tenant.call("DescribeReplicationJobs", &filter).await;
        assert_eq!(listed["TotalCount"], 1);
    }
    second.stop().await;
    fixture.stop().await;
}

#[tokio::test]
async fn creates_at_both_gateways_at_once_never_pass_the_quota() {
    let fixture = Fixture::start().await;
    let second = fixture.second().await;
    let tenant = fixture.tenant("one").await;
    let quota =
        "update tenant set max_jobs = 3, max_workgroups = 3, max_access_tokens = 3 where id = $1";
    fixture.execute(quota, tenant.id.as_str()).await;
    let clients = [tenant.client.clone(), second.client(&tenant)];
    let mut sources = Vec::new();
    for number in 0..8 {
        sources.push(
            fixture
                .source(&tenant, &format!("web-{number}"), &[GIB])
                .await,
        );
    }
    let names: Vec<String> = (0..8).map(|number| format!("group-{number}")).collect();
    for (action, quota) in [
        ("CreateReplicationJob", "QuotaExceeded.ReplicationJob"),
        ("CreateWorkgroup", "QuotaExceeded.Workgroup"),
        ("CreateAccessToken", "QuotaExceeded.AccessToken"),
    ] {
        let calls = (0..8).map(|number| {
            let parameters = match action {
                "CreateReplicationJob" => vec![
                    ("SourceId", sources[number].as_str()),
                    ("SystemDiskSize", "20"),
                    ("RegionId", REGION),
                ],
                _ => vec![("Name", names[number].as_str())],
            };
            let client = clients[number % 2].clone();
            async move { client.call_by_name(action, &parameters).await }
        });
        let (mut made, mut refused) = (0, 0);
        for answer in join_all(calls).await {
            match answer {
                Ok(_) => made += 1,
                Err(error) if error.code() == Some(quota) => refused += 1,
                Err(error) => panic!("{action}: {error}"),
            }
        }
        assert_eq!((made, refused), (3, 5), "{action}");
    }
    second.stop().await;
    fixture.stop().await;
}
