//! HTTPS, a renewed certificate, and reverse proxies.

use std::path::Path;
use std::time::Duration;

use pki::Authority;
use smc::{Client, Credentials};
use testkit::wait;

use crate::fixture::{Fixture, REGION, Tenant, form};

fn write_certificate(directory: &Path, authority: &Authority) {
    let names = ["localhost".to_owned()];
    let identity = authority.issue_server(&names).unwrap();
    std::fs::write(directory.join("key.pem"), identity.key_pem).unwrap();
    std::fs::write(directory.join("chain.pem"), identity.certificate_pem).unwrap();
}

fn client(fixture: &Fixture, tenant: &Tenant, authority: &Authority) -> Client {
    let port = fixture.tls_address.expect("it was asked for").port();
    let credentials = Credentials::new(&tenant.key.id, &tenant.key.secret);
    let endpoint = format!("https://localhost:{port}");
    Client::trusting(
        &endpoint,
        credentials,
        REGION,
        Some(authority.certificate_pem()),
    )
    .unwrap()
}

#[tokio::test]
async fn https_is_served_with_the_operators_certificate_and_its_renewal() {
    let directory = tempfile::tempdir().unwrap();
    let first = Authority::generate("first", pki::RUN_VALIDITY).unwrap();
    write_certificate(directory.path(), &first);
    let fixture = Fixture::start_with(&[
        "--api-tls=127.0.0.1:0",
        &format!(
            "--api-certificate={}",
            directory.path().join("chain.pem").display()
        ),
        &format!("--api-key={}", directory.path().join("key.pem").display()),
    ])
    .await;
    let tenant = fixture.tenant("acme").await;
    let call = [("PageSize", "1")];
    client(&fixture, &tenant, &first)
        .call_by_name("DescribeSourceServers", &call)
        .await
        .unwrap();
    let second = Authority::generate("second", pki::RUN_VALIDITY).unwrap();
    client(&fixture, &tenant, &second)
        .call_by_name("DescribeSourceServers", &call)
        .await
        .expect_err("a certificate of another authority");

    write_certificate(directory.path(), &second);
    wait::some(
        Duration::from_secs(30),
        "the new certificate is served",
        async || {
            Ok(client(&fixture, &tenant, &second)
                .call_by_name("DescribeSourceServers", &call)
                .await
                .ok())
        },
    )
    .await
    .unwrap();
    fixture.stop().await;
}

#[tokio::test]
async fn a_gateway_that_requires_tls_takes_a_trusted_proxys_word_and_nobody_elses() {
    for (proxies, header, wanted) in [
        ("127.0.0.0/8", "https", ""),
        ("127.0.0.0/8", "http", "InvalidProtocol.NeedSsl"),
        ("10.0.0.0/8", "https", "InvalidProtocol.NeedSsl"),
    ] {
        let flags = ["--api-require-tls", &format!("--trusted-proxies={proxies}")];
        let fixture = Fixture::start_with(&flags).await;
        let tenant = fixture.tenant("acme").await;
        let call = form(&tenant.signed("GET", "DescribeSourceServers", &[]));
        let answer = fixture
            .raw("GET", &call, &[("x-forwarded-proto", header)], "")
            .await;
        assert_eq!(answer.code(), wanted, "{proxies} {header}");
        if !wanted.is_empty() {
            let call = form(&tenant.signed("GET", "DescribeSourceServers", &[("Format", "XML")]));
            let answer = fixture
                .raw("GET", &call, &[("x-forwarded-proto", header)], "")
                .await;
            assert_eq!(answer.content_type, "text/xml;charset=utf-8");
        }
        fixture.stop().await;
    }
}
