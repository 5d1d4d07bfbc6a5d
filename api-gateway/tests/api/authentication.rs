//! Authentication: the checks of SMC API §3.3, each single fault with its documented code.

use std::collections::HashMap;

use hyper_util::rt::{TokioExecutor, TokioIo};
use smc::{SignatureVersion, v1, v3};

use crate::fixture::{Fixture, V3, form};

const ACTION: &str = "DescribeSourceServers";

#[tokio::test]
async fn each_single_fault_has_its_documented_code() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let good = tenant.signed("GET", ACTION, &[]);
    assert_eq!(fixture.raw("GET", &form(&good), &[], "").await.status, 200);

    for name in [
        "Action",
        "Version",
        "AccessKeyId",
        "Signature",
        "SignatureMethod",
        "SignatureVersion",
        "SignatureNonce",
        "Timestamp",
    ] {
        let mut pairs = tenant.signed("GET", ACTION, &[]);
        pairs.retain(|(known, _)| known != name);
        let answer = fixture.raw("GET", &form(&pairs), &[], "").await;
        assert_eq!(
            (answer.status, answer.code()),
            (400, format!("Missing{name}"))
        );
    }
    for (changes, status, code) in [
        (&[("Version", "2014-05-26")][..], 400, "InvalidVersion"),
        (
            &[("Action", "DescribeRegions")],
            404,
            "InvalidAction.NotFound",
        ),
        (
            &[("Action", "describesourceservers")],
            404,
            "InvalidAction.NotFound",
        ),
        (
            &[("SignatureMethod", "HMAC-MD5")],
            400,
            "InvalidSignatureMethod",
        ),
        (
            &[("SignatureVersion", "2.0")],
            400,
            "InvalidSignatureVersion",
        ),
        (
            &[("AccessKeyId", "nobody")],
            404,
            "InvalidAccessKeyId.NotFound",
        ),
        (
            &[("SecurityToken", "x")],
            400,
            "InvalidSecurityToken.MismatchWithAccessKey",
        ),
        (
            &[("Timestamp", "2026-11-23 12:00:00")],
            400,
            "InvalidTimeStamp.Format",
        ),
        (
            &[("Timestamp", "2020-01-01T00:00:00Z")],
            400,
            "InvalidTimeStamp.Expired",
        ),
        (
            &[("Timestamp", "2099-01-01T00:00:00Z")],
            400,
            "InvalidTimeStamp.Expired",
        ),
    ] {
        let pairs = tenant.signed("GET", ACTION, changes);
        let answer = fixture.raw("GET", &form(&pairs), &[], "").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{changes:?}"
        );
    }
    let answer = fixture
        .raw("PUT", &form(&tenant.signed("PUT", ACTION, &[])), &[], "")
        .await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "UnsupportedHTTPMethod")
    );
    let answer = fixture.raw("GET", "", &[], "").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "MissingAction")
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_wrong_signature_is_answered_with_the_text_that_sdks_parse() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let mut pairs = tenant.signed("GET", ACTION, &[("Name", "a b")]);
    let text = v1::string_to_sign("GET", &pairs);
    pairs.retain(|(name, _)| name != v1::SIGNATURE);
    pairs.push((v1::SIGNATURE.to_owned(), v1::sign("another secret", &text)));
    let answer = fixture.raw("GET", &form(&pairs), &[], "").await;
    assert_eq!(answer.code(), "SignatureDoesNotMatch");
    let message = answer.json()["Message"]
        .as_str()
        .expect("a message")
        .to_owned();
    assert_eq!(
        message,
        format!(
            "Specified signature is not matched with our calculation. server string to sign is:{text}"
        )
    );
    // The text that the SDK compares with its own.
    assert_eq!(message.split_once(':').expect("a colon").1, text);

    let wrong = fixture
        .client(&tenant.key.id, "another secret")
        .signing(SignatureVersion::V3);
    let refusal = wrong
        .call_by_name(ACTION, &[] as &[(&str, &str)])
        .await
        .expect_err("a wrong secret");
    let message = &refusal.refusal().expect("an answer").message;
    assert!(
        message.contains("server StringToSign is [ACS3-HMAC-SHA256\n"),
        "{message}"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn of_eight_copies_sent_at_once_exactly_one_passes() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let query = form(&tenant.signed("GET", ACTION, &[]));
    let calls = (0..8).map(|_| fixture.raw("GET", &query, &[], ""));
    let mut codes: HashMap<String, usize> = HashMap::new();
    for answer in futures::future::join_all(calls).await {
        *codes.entry(answer.code()).or_default() += 1;
    }
    let wanted = HashMap::from([(String::new(), 1), ("SignatureNonceUsed".to_owned(), 7)]);
    assert_eq!(codes, wanted);
    fixture.stop().await;
}

#[tokio::test]
async fn a_stranger_cannot_burn_a_nonce() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let good = tenant.signed("GET", ACTION, &[]);
    let mut forged = good.clone();
    for (name, value) in &mut forged {
        if name == v1::SIGNATURE {
            *value = "AAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned();
        }
    }
    assert_eq!(
        fixture.raw("GET", &form(&forged), &[], "").await.code(),
        "SignatureDoesNotMatch"
    );
    assert_eq!(fixture.raw("GET", &form(&good), &[], "").await.status, 200);
    fixture.stop().await;
}

#[tokio::test]
async fn a_key_that_is_switched_off_signs_nothing_within_seconds() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let switched = fixture
        .store
        .set_access_key_active(&tenant.id, &tenant.key.id, false)
        .await
        .expect("the database");
    assert!(switched);
    assert_eq!(
        tenant.code(ACTION, &[]).await,
        "InvalidAccessKeyId.Inactive"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn v3_signs_what_decides_about_the_call() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[1]).await;
    let client = tenant.signing(SignatureVersion::V3);
    let answer = client
        .call_by_name(ACTION, &[("SourceId.1", source.as_str())])
        .await
        .expect("a V3 call");
    assert_eq!(answer["TotalCount"], 1);

    let unsigned_action = [
        (
            "authorization",
            "ACS3-HMAC-SHA256 Credential=ak,SignedHeaders=host,Signature=00",
        ),
        ("x-acs-action", ACTION),
        ("x-acs-version", smc::API_VERSION),
        ("x-acs-date", "2026-11-23T12:00:00Z"),
        ("x-acs-signature-nonce", "n"),
    ];
    let answer = fixture.raw("POST", "", &unsigned_action, "").await;
    assert_eq!(answer.code(), "IncompleteSignature");
    let answer = fixture
        .raw(
            "POST",
            "",
            &[("authorization", "ACS3-HMAC-SHA256 nonsense")],
            "",
        )
        .await;
    assert_eq!(answer.code(), "IncompleteSignature");
    let answer = fixture.raw("POST", "", &unsigned_action[..1], "").await;
    assert_eq!(answer.code(), "MissingAction");
    fixture.stop().await;
}

#[tokio::test]
async fn v3_signs_the_host_every_header_of_its_own_and_the_body_once() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let host = fixture.address.to_string();
    let call = || V3::new(&host, ACTION);
    let empty = v3::sha256(b"");
    let upper = empty.to_uppercase();
    let other = v3::sha256(b"another body");
    for (call, wanted) in [
        (call(), ""),
        (call().with("x-acs-content-sha256", &empty), ""),
        (call().with("x-acs-content-sha256", &upper), ""),
        (
            call().with("x-acs-content-sha256", &other),
            "IncompleteSignature",
        ),
        (call().with("x-acs-credentials-provider", "static_ak"), ""),
        (
            call()
                .with("x-acs-credentials-provider", "static_ak")
                .unsigned("x-acs-credentials-provider"),
            "IncompleteSignature",
        ),
        (
            call()
                .with("x-acs-retry-attempts", "1")
                .unsigned("x-acs-retry-attempts"),
            "IncompleteSignature",
        ),
        (call().unsigned("host"), "IncompleteSignature"),
        (
            call().with("x-acs-action", "DescribeImages"),
            "IncompleteSignature",
        ),
        (call().with("accept", "*/*").unsigned("accept"), ""),
    ] {
        let named = call.headers.clone();
        let headers = call.signed(&tenant);
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let answer = fixture.raw("POST", "", &headers, "").await;
        assert_eq!(answer.code(), wanted, "{named:?}: {answer:?}");
    }
    fixture.stop().await;
}

/// HTTP/2 has no header Host: its clients sign the authority.
#[tokio::test]
async fn v3_signs_the_authority_of_http2() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let stream = tokio::net::TcpStream::connect(fixture.address)
        .await
        .unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let _driven = tokio::spawn(connection);
    for (signed_host, wanted) in [
        (fixture.address.to_string(), 200),
        ("elsewhere".to_owned(), 400),
    ] {
        let mut request = hyper::Request::post(format!("http://{}/", fixture.address));
        for (name, value) in V3::new(&signed_host, ACTION).signed(&tenant) {
            if name != "host" {
                request = request.header(name, value);
            }
        }
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.version(), hyper::Version::HTTP_2);
        assert_eq!(response.status(), wanted, "{signed_host}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_common_parameter_that_is_given_twice_is_refused() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    for name in ["Action", "Timestamp", "SignatureNonce", "AccessKeyId"] {
        let mut pairs = tenant.signed("GET", ACTION, &[]);
        pairs.push((name.to_owned(), "another".to_owned()));
        let answer = fixture.raw("GET", &form(&pairs), &[], "").await;
        assert_eq!(
            (answer.status, answer.code()),
            (400, format!("Invalid{name}"))
        );
    }
    fixture.stop().await;
}
