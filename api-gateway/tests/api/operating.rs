//! Operating a gateway: starts without a dependency, health, metrics, an outage of Postgres, draining.

use std::error::Error as _;
use std::time::{Duration, Instant};

use api_gateway::Server;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::Connection as _;
use store::SealKey;

use crate::fixture::{Fixture, PATIENCE, config, form};

/// Returns the message with which a gateway does not start, with its causes.
async fn refusal_to_start(flags: &[&str]) -> String {
    let seal = format!("--seal-key={}", SealKey::generate_hex());
    let flags: Vec<&str> = flags.iter().copied().chain([seal.as_str()]).collect();
    let error = Server::bind(config(&flags))
        .await
        .expect_err("it can't start");
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}

#[tokio::test]
async fn a_start_that_cannot_be_says_what_is_missing() {
    let database = testkit::postgres().await;
    let url = format!("--database-url={}", database.url());

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("a bound address");
    assert_eq!(
        refusal_to_start(&[&url, &format!("--api={address}")]).await,
        format!("address {address} is in use by another program: choose another with --api")
    );

    drop(taken);
    let nobody = format!("--database-url=postgres://wherry:secret@{address}/wherry");
    let unreachable = refusal_to_start(&[&nobody, "--api-timeout-ms=2500"]).await;
    let sentence = format!(
        "can't connect to PostgreSQL at {address}/wherry: is it running, and is the database URL right?"
    );
    assert!(unreachable.starts_with(&sentence), "{unreachable}");
    assert!(!unreachable.contains("secret"), "{unreachable}");
    let unreadable = refusal_to_start(&["--database-url=nonsense"]).await;
    let sentence =
        "the database URL is not of the form postgres://user:password@host:port/database";
    assert!(unreadable.starts_with(sentence), "{unreadable}");

    let empty = database
        .url()
        .rsplit_once('/')
        .map(|(server, _)| format!("{server}/empty"))
        .expect("a path");
    let mut connection = sqlx::PgConnection::connect(&database.url())
        .await
        .expect("the server");
    sqlx::raw_sql("create database empty")
        .execute(&mut connection)
        .await
        .expect("a database");
    assert_eq!(
        refusal_to_start(&[&format!("--database-url={empty}")]).await,
        "the database has no Wherry schema, or an older one: `wherry migrate` brings it to this version"
    );

    // The first start has made the deployment's authority, sealed with a key of its own.
    let other_key = refusal_to_start(&[&url]).await;
    assert_eq!(
        other_key,
        "the deployment's certificate authority can't be read: a sealed secret can't be opened: the seal key is not the one it was sealed with"
    );
}

async fn get(fixture: &Fixture, path: &str) -> (u16, String) {
    let response = reqwest::get(format!("http://{}{path}", fixture.health))
        .await
        .expect("an answer");
    (
        response.status().as_u16(),
        response.text().await.expect("a text"),
    )
}

/// Waits until `/readyz` answers with this status.
async fn ready(fixture: &Fixture, status: u16) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (found, text) = get(fixture, "/readyz").await;
        if found == status {
            return;
        }
        assert!(Instant::now() < deadline, "still {found}: {text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn calls_are_counted_by_action_and_code() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    tenant.call("DescribeSourceServers", &[]).await;
    tenant
        .code("StopReplicationJob", &[("JobId", "j-none")])
        .await;
    fixture.raw("GET", "Action=Nonsense", &[], "").await;
    assert_eq!(get(&fixture, "/healthz").await, (200, "ok\n".to_owned()));
    let (_, metrics) = get(&fixture, "/metrics").await;
    for wanted in [
        r#"wherry_api_request_seconds_count{action="DescribeSourceServers",code="OK"} 1"#,
        r#"wherry_api_request_seconds_count{action="StopReplicationJob",code="InvalidJobId.NotFound"} 1"#,
        r#"wherry_api_request_seconds_count{action="unknown",code="MissingVersion"} 1"#,
        "wherry_api_requests_in_flight 0",
    ] {
        assert!(metrics.contains(wanted), "{wanted} is not in\n{metrics}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn without_postgres_calls_are_refused_in_time_and_work_again_with_it() {
    let fixture = Fixture::start_with(&["--api-timeout-ms=5000"]).await;
    let tenant = fixture.tenant("one").await;
    tenant.call("DescribeSourceServers", &[]).await;
    ready(&fixture, 200).await;

    // Stopped, not ended: connections stay open without an answer, as when a network goes silent.
    let server =
        i32::try_from(fixture.database.server().pid().expect("it runs")).expect("a process id");
    let processes = testkit::program::family(server);
    for pid in &processes {
        kill(Pid::from_raw(*pid), Signal::SIGSTOP).expect("our own process");
    }
    ready(&fixture, 503).await;
    let asked = Instant::now();
    let refusal = tenant.refusal("DescribeSourceServers", &[]).await;
    assert_eq!(
        (refusal.code.as_str(), refusal.http_status),
        ("ServiceUnavailable", 503)
    );
    assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
    for pid in &processes {
        kill(Pid::from_raw(*pid), Signal::SIGCONT).expect("our own process");
    }
    ready(&fixture, 200).await;
    tenant.call("DescribeSourceServers", &[]).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_drain_lets_a_call_under_way_end() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[1]).await;
    // Holds the call inside its transaction.
    let mut blocker = fixture.pool.begin().await.expect("a transaction");
    sqlx::query("select id from tenant where id = $1 for update")
        .bind(tenant.id.as_str())
        .execute(&mut *blocker)
        .await
        .expect("the lock");
    let changes = [
        ("SourceId", source.as_str()),
        ("SystemDiskSize", "20"),
        ("RegionId", "local"),
    ];
    let query = form(&tenant.signed("GET", "CreateReplicationJob", &changes));
    let url = format!("http://{}/?{query}", fixture.address);
    let call = tokio::spawn(async move {
        reqwest::get(url)
            .await
            .expect("an answer")
            .status()
            .as_u16()
    });
    wait_for_a_blocked_statement(&fixture).await;
    let address = fixture.address;
    let stopped = tokio::spawn(fixture.stop());
    let deadline = Instant::now() + PATIENCE;
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        assert!(
            Instant::now() < deadline,
            "a draining gateway takes no new connections"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    blocker.rollback().await.expect("the end of the lock");
    assert_eq!(call.await.expect("no panic"), 200);
    stopped.await.expect("it drains");
}

async fn wait_for_a_blocked_statement(fixture: &Fixture) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (blocked,): (i64,) = sqlx::query_as("select count(*) from pg_locks where not granted")
            .fetch_one(&fixture.pool)
            .await
            .expect("the database");
        if blocked > 0 {
            return;
        }
        assert!(Instant::now() < deadline, "no statement waits for the lock");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_trace_of_a_call_goes_with_the_messages_that_it_causes() {
    let endpoint = "http://127.0.0.1:1".parse().expect("a URL");
    let _traced = telemetry::init(&telemetry::TelemetryConfig {
        // There is no listener: spans are made, and dropped when they can't be sent.
        otlp_endpoint: Some(endpoint),
        ..telemetry::TelemetryConfig::default()
    });
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[1]).await;
    let job = tenant.job(&source).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let headers = [("traceparent", &*format!("00-{trace}-00f067aa0ba902b7-01"))];
    let query = form(&tenant.signed("GET", "StartReplicationJob", &[("JobId", job.as_str())]));
    assert_eq!(fixture.raw("GET", &query, &headers, "").await.status, 200);
    let parents: Vec<(String,)> = sqlx::query_as("select headers ->> 'traceparent' from outbox")
        .fetch_all(&fixture.pool)
        .await
        .expect("the outbox");
    assert!(!parents.is_empty());
    for (parent,) in parents {
        assert!(parent.starts_with(&format!("00-{trace}-")), "{parent}");
    }
    fixture.stop().await;
}
