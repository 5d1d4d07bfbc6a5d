//! Health endpoints as a load balancer and Prometheus receive them.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use service::{Dependency, Readiness, Shutdown, health};
use tower::ServiceExt;

async fn get(readiness: &Readiness, shutdown: &Shutdown, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let answer = health::router(readiness.clone(), shutdown.clone())
        .oneshot(request)
        .await
        .expect("the router cannot fail");
    let status = answer.status();
    let body = answer
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
    let postgres = readiness.condition("postgres");
    let nats = readiness.condition("nats");
    postgres.set(true);
    let (status, text) = get(&readiness, &shutdown, "/readyz").await;
    assert_eq!(
        (status, text.as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: nats\n")
    );
    nats.set(true);
    assert_eq!(
        get(&readiness, &shutdown, "/readyz").await.0,
        StatusCode::OK
    );
    postgres.set(false);
    assert_eq!(
        get(&readiness, &shutdown, "/readyz").await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test]
async fn a_draining_process_is_alive_but_not_ready() {
    let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
    shutdown.drain();
    let (status, text) = get(&readiness, &shutdown, "/readyz").await;
    assert_eq!(
        (status, text.as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: draining\n")
    );
    assert_eq!(
        get(&readiness, &shutdown, "/healthz").await.0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn metrics_show_the_process_itself() {
    let (status, text) = get(&Readiness::new(), &Shutdown::new(), "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        text.contains("# TYPE wherry_process_resident_bytes gauge"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_goes_is_named_until_it_is_back_and_so_is_one_that_hangs() {
    let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
    let (answers, answer) = tokio::sync::watch::channel(Some(true));
    let nats = Dependency::new(&readiness, "worker", "nats");
    let looked = tokio::spawn(nats.watch(move || {
        let now = *answer.borrow();
        async move {
            match now {
                Some(is_up) => is_up,
                None => std::future::pending().await,
            }
        }
    }));
    let said = async |after_secs: u64| {
        tokio::time::sleep(std::time::Duration::from_secs(after_secs)).await;
        get(&readiness, &shutdown, "/readyz").await.1
    };
    assert_eq!(
        said(0).await,
        "not ready: worker.nats\n",
        "nobody has looked"
    );
    assert_eq!(said(1).await, "ready\n");
    for broken in [Some(false), None] {
        answers.send_replace(broken);
        assert_eq!(said(5).await, "not ready: worker.nats\n", "{broken:?}");
        answers.send_replace(Some(true));
        assert_eq!(said(5).await, "ready\n");
    }
    looked.abort();
}
