//! The messages that a person reads when there is no gateway at the other end.

use smc::model::DescribeSourceServers;
use smc::{CallError, Client, Credentials};

fn client(endpoint: &str) -> Client {
    let credentials = Credentials::new("ak".to_owned(), "sk".to_owned());
    Client::new(endpoint, credentials, "local").expect("an endpoint")
}

async fn describe(endpoint: &str) -> CallError {
    client(endpoint)
        .call(&DescribeSourceServers::default())
        .await
        .expect_err("nobody there can answer")
}

/// Serves one fixed answer to everything.
async fn server(status: u16, body: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    let status = axum::http::StatusCode::from_u16(status).expect("a status");
    let router = axum::Router::new().fallback(async move || (status, body));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address.to_string()
}

#[tokio::test]
async fn no_gateway_gives_a_sentence_that_says_what_to_check() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    drop(listener);
    let error = describe(&address.to_string()).await;
    assert_eq!(
        error.to_string(),
        format!("can't reach http://{address}/: is the gateway running? check --endpoint")
    );
    assert!(error.is_retryable());
}

#[tokio::test]
async fn somebody_else_at_the_address_is_told_apart() {
    for (status, body) in [(404, "not found"), (200, "<html>"), (500, "{}")] {
        let error = describe(&server(status, body).await).await;
        assert!(
            matches!(error, CallError::NotSmc { http_status, .. } if http_status == status),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains("does --endpoint point to a Wherry gateway?")
        );
    }
}

#[tokio::test]
async fn a_refusal_carries_code_message_and_request() {
    let body = r#"{"Code":"InvalidJobId.NotFound","Message":"The specified JobId does not exist.","RequestId":"R","HostId":"h"}"#;
    let error = describe(&server(404, body).await).await;
    assert_eq!(error.code(), Some("InvalidJobId.NotFound"));
    assert_eq!(
        error.to_string(),
        "The specified JobId does not exist. (InvalidJobId.NotFound, request R)"
    );
    assert!(!error.is_retryable());
}
