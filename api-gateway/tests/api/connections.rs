//! Connections that hold a place without need, at the API and at the agents' listener, and their cost to other callers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{ImageId, JobId, SourceId};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use testkit::wait;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::fixture::{Fixture, Tenant, form};

/// Every limit is one second, but the gateway runs beside other tests.
const SHORT: [&str; 5] = [
    "--api-first-byte-secs=1",
    "--api-handshake-secs=1",
    "--api-first-request-secs=1",
    "--api-idle-secs=1",
    "--api-least-rate-secs=1",
];
const PATIENCE: Duration = Duration::from_secs(20);

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// `GET /` of HTTP/2, without a signature.
const HTTP2_REQUEST: &[u8] = b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a";

/// Frames of HTTP/2.
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;

/// Reads to the end, as a peer that is connected and sends no request: pings of HTTP/2 are answered. Returns true if
/// there was a GOAWAY.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<bool> {
    let mut has_goaway = false;
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return Ok(has_goaway);
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await?;
        let (kind, flags) = (head[3], head[4]);
        has_goaway |= kind == GOAWAY;
        if flags & ACK == 0 && (kind == PING || kind == SETTINGS) {
            let payload = if kind == PING { payload } else { Vec::new() };
            let length = u8::try_from(payload.len()).expect("a ping has 8 bytes");
            let mut answer = vec![0, 0, length, kind, ACK, 0, 0, 0, 0];
            answer.extend(payload);
            // The other side may be gone already; the next read returns the error.
            let _gone = stream.write_all(&answer).await;
        }
    }
}

/// Reads and drops everything, to the end.
async fn read_all(mut stream: impl AsyncRead + Unpin) {
    let mut ignored = [0; 4096];
    while matches!(stream.read(&mut ignored).await, Ok(read) if read > 0) {}
}

async fn in_time<T>(what: &str, ending: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, ending).await;
    ended.unwrap_or_else(|_| panic!("{what}: still open after {PATIENCE:?}"))
}

fn query(tenant: &Tenant, action: &str, parameters: &[(&str, &str)]) -> String {
    form(&tenant.signed("GET", action, parameters))
}

async fn metrics(fixture: &Fixture) -> String {
    let url = format!("http://{}/metrics", fixture.health);
    let response = reqwest::get(url).await.expect("an answer");
    response.text().await.expect("a text")
}

#[tokio::test]
async fn connections_to_the_api_that_want_nothing_are_closed() {
    let fixture = Fixture::start_with(&SHORT).await;
    let tenant = fixture.tenant("one").await;
    let call = query(&tenant, "DescribeSourceServers", &[]);
    let whole = format!("GET /?{call} HTTP/1.1\r\nhost: a\r\n\r\n");
    let unsent = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n";
    for (what, bytes) in [
        ("silence", &b""[..]),
        ("half a preface of HTTP/2", b"PRI * HTTP"),
        ("half a head of HTTP/1", b"GET / HTTP/1.1\r\nhost: "),
        ("one request and no other", whole.as_bytes()),
        ("a body that never comes", unsent.as_bytes()),
    ] {
        let mut stream = TcpStream::connect(fixture.address).await.expect(what);
        stream.write_all(bytes).await.expect(what);
        in_time(what, read_all(stream)).await;
    }
    for (what, request, wants_goaway) in [
        ("HTTP/2 without a request", &b""[..], false),
        ("HTTP/2 with one request and no other", HTTP2_REQUEST, true),
    ] {
        let mut stream = TcpStream::connect(fixture.address).await.expect(what);
        let bytes = [HTTP2_PREFACE, request].concat();
        stream.write_all(&bytes).await.expect(what);
        let has_goaway = in_time(what, linger(stream)).await.expect(what);
        assert!(has_goaway || !wants_goaway, "{what}");
    }
    let metrics = metrics(&fixture).await;
    for reason in ["silent", "idle"] {
        let series =
            format!("wherry_connections_ended_total{{listener=\"api\",reason=\"{reason}\"}}");
        let line = metrics.lines().find(|line| line.starts_with(&series));
        assert!(
            line.is_some_and(|line| !line.ends_with(" 0")),
            "{reason}: {line:?}"
        );
    }
    fixture.stop().await;
}

#[tokio::test]
async fn connections_to_the_api_over_tls_shake_hands_in_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = pki::Authority::generate("test", pki::RUN_VALIDITY).expect("an authority");
    let identity = authority
        .issue_server(&["localhost".to_owned()])
        .expect("a certificate");
    let (chain, key) = (
        directory.path().join("chain.pem"),
        directory.path().join("key.pem"),
    );
    std::fs::write(&chain, identity.certificate_pem).expect("a file");
    std::fs::write(&key, identity.key_pem).expect("a file");
    let (chain, key) = (
        format!("--api-certificate={}", chain.display()),
        format!("--api-key={}", key.display()),
    );
    let flags = [
        &SHORT[..],
        &["--api-tls=127.0.0.1:0", chain.as_str(), key.as_str()],
    ]
    .concat();
    let fixture = Fixture::start_with(&flags).await;
    let address = fixture.tls_address.expect("it was asked for");
    for (what, bytes) in [
        ("silence", &b""[..]),
        ("half a ClientHello", b"\x16\x03\x01\x02\0\x01"),
    ] {
        let mut stream = TcpStream::connect(address).await.expect(what);
        stream.write_all(bytes).await.expect(what);
        in_time(what, read_all(stream)).await;
    }
    let stream = TcpStream::connect(address).await.expect("a connection");
    let shaken = connector(authority.certificate_pem(), None, b"http/1.1");
    let stream = shaken
        .connect(server_name(), stream)
        .await
        .expect("a handshake");
    in_time("a handshake and nothing more", read_all(stream)).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_download_that_nobody_reads_is_ended_and_one_that_is_read_is_not() {
    let fixture = Fixture::start_with(&SHORT).await;
    let tenant = fixture.tenant("one").await;
    let image = ImageId::generate();
    sqlx::query(
        "insert into image (id, tenant, job_id, source_id, run, epoch, region_id, name, state, location, description)
         values ($1, $2, $3, 's-1', 1, 1, 'local', 'web', 'available', 'here', '{\"disks\":[]}')",
    )
    .bind(image.as_str())
    .bind(tenant.id.as_str())
    .bind(JobId::generate().as_str())
    .execute(&fixture.pool)
    .await
    .expect("an image");
    let directory = fixture.image_store.path().join(image.as_str());
    std::fs::create_dir(&directory).expect("a directory");
    const BYTES: u64 = 256 << 20;
    let file = std::fs::File::create(directory.join("disk-0.raw")).expect("a file");
    file.set_len(BYTES).expect("a long file");

    let parameters = [("ImageId", image.as_str()), ("File", "disk-0.raw")];
    let request = || {
        let query = query(&tenant, "DownloadImage", &parameters);
        format!("GET /?{query} HTTP/1.1\r\nhost: a\r\n\r\n")
    };
    let mut unread = TcpStream::connect(fixture.address)
        .await
        .expect("a connection");
    unread
        .write_all(request().as_bytes())
        .await
        .expect("a request");
    let mut read = TcpStream::connect(fixture.address)
        .await
        .expect("a connection");
    read.write_all(request().as_bytes())
        .await
        .expect("a request");
    // Three times as long as a reader may rest; each read takes more than the least rate requires.
    let reading = Instant::now();
    let mut taken = 0;
    let mut buffer = vec![0; 1 << 20];
    while reading.elapsed() < Duration::from_secs(3) {
        taken += read.read(&mut buffer).await.expect("it goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wait::until(PATIENCE, "the one that nobody reads is ended", async || {
        let metrics = metrics(&fixture).await;
        let series = "wherry_connections_ended_total{listener=\"api\",reason=\"slow\"} 1";
        Ok(metrics.contains(series))
    })
    .await
    .expect("it is counted");
    read.read_exact(&mut buffer)
        .await
        .expect("the other goes on");
    assert!(taken > 0);
    drop((read, unread));
    fixture.stop().await;
}

#[tokio::test]
async fn a_house_full_of_strangers_serves_right_callers_of_the_api() {
    let fixture = Fixture::start_with(&[
        "--api-connections=16",
        "--api-strangers=8",
        "--api-strangers-per-address=8",
    ])
    .await;
    let tenant = fixture.tenant("one").await;
    let mut known = TcpStream::connect(fixture.address)
        .await
        .expect("a connection");
    let call = async |known: &mut TcpStream| {
        let call = query(&tenant, "DescribeSourceServers", &[]);
        let request = format!("GET /?{call} HTTP/1.1\r\nhost: a\r\n\r\n");
        known
            .write_all(request.as_bytes())
            .await
            .expect("it is open");
        let mut answer = vec![0; 4096];
        let read = in_time("a known connection", known.read(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer[..read.expect("an answer")]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    call(&mut known).await;
    let mut strangers = Vec::new();
    for _ in 0..100 {
        strangers.push(
            TcpStream::connect(fixture.address)
                .await
                .expect("a connection"),
        );
    }
    call(&mut known).await;
    in_time("a new call", tenant.call("DescribeSourceServers", &[])).await;
    in_time("the oldest stranger", read_all(&mut strangers[0])).await;
    call(&mut known).await;
    fixture.stop().await;
}

fn server_name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

/// Returns TLS of a client that trusts this authority and has this certificate, if any.
fn connector(
    authority_pem: &str,
    identity: Option<pki::Identity>,
    protocol: &[u8],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let authority = pki::certificate_der(authority_pem).expect("a certificate");
    roots.add(authority).expect("an authority");
    let config = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(identity) => {
            let chain = pki::certificate_der(&identity.certificate_pem).expect("a certificate");
            let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).expect("a key");
            let config = config.with_client_auth_cert(vec![chain], key);
            config.expect("an identity")
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn connections_of_agents_without_a_certificate_live_for_a_moment() {
    let fixture = Fixture::start_with(&["--agents-stranger-secs=1"]).await;
    let address = fixture.agents_address;
    let authority = api_gateway::agents::authority(&fixture.store)
        .await
        .expect("the authority");
    let authority_pem = authority.certificate_pem();
    for (what, bytes) in [
        ("silence", &b""[..]),
        ("half a ClientHello", b"\x16\x03\x01\x02\0\x01"),
    ] {
        let mut stream = TcpStream::connect(address).await.expect(what);
        stream.write_all(bytes).await.expect(what);
        in_time(what, read_all(stream)).await;
    }
    let identity = authority
        .issue_client(SourceId::generate().as_str())
        .expect("a certificate");
    let connect = async |identity| {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let connector = connector(authority_pem, identity, b"h2");
        connector
            .connect(server_name(), stream)
            .await
            .expect("a handshake")
    };
    let mut known = connect(Some(identity)).await;
    known.write_all(HTTP2_PREFACE).await.expect("it is open");
    let known = tokio::spawn(linger(known));
    let silent = connect(None).await;
    in_time("no certificate and silence", read_all(silent)).await;
    let mut lingers = connect(None).await;
    lingers.write_all(HTTP2_PREFACE).await.expect("it is open");
    in_time("no certificate and answered pings", linger(lingers))
        .await
        .expect("an end");
    assert!(!known.is_finished(), "who has a certificate stays");
    known.abort();
    fixture.stop().await;
}
