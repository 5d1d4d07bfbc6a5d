//! A collector that does not answer must not slow the process.

use std::time::{Duration, Instant};

use telemetry::{TelemetryConfig, TelemetryError};

/// Far more than a busy machine needs, and far less than waiting for a collector that never answers.
const BOUND: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_collector_costs_neither_time_nor_the_end_of_the_process() {
    // Accepts connections and never answers, which is worse than a collector that refuses.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let config = TelemetryConfig {
        otlp_endpoint: Some(endpoint.parse().expect("an address")),
        ..TelemetryConfig::default()
    };
    let guard = telemetry::init(&config).expect("a silent collector is no error");

    let started = Instant::now();
    for number in 0..20_000 {
        tracing::info_span!("work", number).in_scope(|| ());
    }
    let worked = started.elapsed();
    assert!(worked < BOUND, "20,000 spans took {worked:?}");

    let ending = Instant::now();
    guard.shutdown().await;
    assert!(
        ending.elapsed() < BOUND,
        "the end took {:?}",
        ending.elapsed()
    );

    let again = telemetry::init(&TelemetryConfig::default()).expect_err("set up once");
    assert!(matches!(again, TelemetryError::Installing(_)), "{again:?}");
}

#[test]
fn a_wrong_log_level_says_what_is_possible() {
    let config = TelemetryConfig {
        log_level: "info,=loud=".to_owned(),
        ..TelemetryConfig::default()
    };
    let error = telemetry::init(&config).expect_err("no level");
    assert!(
        error
            .to_string()
            .contains("use error, warn, info, debug or trace"),
        "{error}"
    );
}
