//! Permissions of callers: every call of every service, and the data port over both transports, with every kind of
//! certificate that there is. The table in `docs/security.md` is what this test finds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use domain::{ImageId, InstanceId, JobId, SourceId};
use hyper_util::rt::TokioIo;
use pki::{Authority, Identity};
use prost::Message as _;
use proto::receiver as wire;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use service::Shutdown;
use testkit::cluster::{Cluster, ClusterConfig};
use testkit::wait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic_prost::ProstCodec;
use transfer::protocol::{ToReceiver, control_header, encode_control};
use transport::ALPN;

const PATIENCE: Duration = Duration::from_secs(30);

/// Outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The connection is not made: no call is read.
    NoConnection,
    /// The caller receives the answer that it may not call.
    Denied,
    /// The service reads the call's content.
    Heard,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::NoConnection => "–",
            Self::Denied => "denied",
            Self::Heard => "**heard**",
        }
    }
}

/// A kind of certificate, and one of it.
struct Kind {
    name: &'static str,
    identity: Option<Identity>,
}

/// A run: its authority, and a receiver of its own in this process.
struct Run {
    authority: Authority,
    source: SourceId,
    directory: tempfile::TempDir,
    shutdown: Shutdown,
}

impl Run {
    async fn start(source: &SourceId) -> anyhow::Result<Self> {
        let run = Self {
            authority: Authority::generate("run", pki::RUN_VALIDITY)?,
            source: source.clone(),
            directory: tempfile::tempdir()?,
            shutdown: Shutdown::new(),
        };
        let server = run.authority.issue_server(&["receiver".to_owned()])?;
        let instance = wire::InstanceConfig {
            instance_id: InstanceId::generate().to_string(),
            epoch: 1,
            authority_pem: run.authority.certificate_pem().to_owned(),
            certificate_pem: server.certificate_pem,
            key_pem: server.key_pem,
            listen_ip: "127.0.0.1".to_owned(),
            image_store: run.directory.path().display().to_string(),
            work: Some(wire::Work {
                job_id: JobId::generate().to_string(),
                run: 1,
                source_id: source.to_string(),
                image_id: ImageId::generate().to_string(),
                image_name: "web".to_owned(),
                disks: vec![wire::TargetDisk {
                    index: 0,
                    source_size_bytes: 1 << 20,
                    target_size_bytes: 1 << 20,
                    ..wire::TargetDisk::default()
                }],
                ticket_secret: vec![7; 32],
                checksum: false,
            }),
        };
        std::fs::write(
            run.directory.path().join("instance"),
            instance.encode_to_vec(),
        )?;
        let config = receiver::Config {
            reserve_mib: Some(0),
            dir: run.directory.path().to_owned(),
            health: None,
            qemu_img: "qemu-img".into(),
        };
        tokio::spawn(receiver::run(config, run.shutdown.clone()));
        wait::until(PATIENCE, "the receiver is ready", async || {
            Ok(run.directory.path().join("ready").exists())
        })
        .await?;
        Ok(run)
    }

    fn agent(&self) -> anyhow::Result<Identity> {
        Ok(self.authority.issue_client(self.source.as_str())?)
    }

    fn worker(&self) -> anyhow::Result<Identity> {
        Ok(self.authority.issue_client(wire::CONTROL_NAME)?)
    }

    async fn data_port(&self) -> anyhow::Result<u16> {
        let door = Door::Socket {
            path: self.directory.path().join(wire::CONTROL_SOCKET),
            authority_pem: Some(self.authority.certificate_pem().to_owned()),
        };
        let channel = door.channel(Some(&self.worker()?))?;
        let mut client = wire::receiver_service_client::ReceiverServiceClient::new(channel);
        let admitted = client.admit(wire::AdmitRequest { epoch: 1 }).await?;
        Ok(u16::try_from(admitted.into_inner().data_port)?)
    }
}

/// Address of a service.
enum Door {
    Tcp {
        address: String,
        authority_pem: String,
    },
    /// A Unix socket, with TLS if there is an authority.
    Socket {
        path: PathBuf,
        authority_pem: Option<String>,
    },
}

impl Door {
    fn channel(&self, identity: Option<&Identity>) -> anyhow::Result<Channel> {
        let tls = |authority_pem: &str, name: &str| {
            let tls = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(authority_pem))
                .domain_name(name);
            match identity {
                Some(identity) => tls.identity(tonic::transport::Identity::from_pem(
                    &identity.certificate_pem,
                    &identity.key_pem,
                )),
                None => tls,
            }
        };
        Ok(match self {
            Self::Tcp {
                address,
                authority_pem,
            } => Endpoint::from_shared(address.clone())?
                .tls_config(tls(authority_pem, "localhost"))?
                .connect_lazy(),
            Self::Socket {
                path,
                authority_pem,
            } => {
                let endpoint = match authority_pem {
                    Some(pem) => Endpoint::from_static("https://receiver")
                        .tls_config(tls(pem, "receiver"))?,
                    // A caller with a certificate offers it, but this service does not speak TLS.
                    None => match identity {
                        Some(some) => Endpoint::from_static("https://gateway")
                            .tls_config(tls(&some.certificate_pem, "gateway"))?,
                        None => Endpoint::from_static("http://gateway"),
                    },
                };
                let path = path.clone();
                endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
                    let path = path.clone();
                    async move {
                        service::local_socket::connect(&path)
                            .await
                            .map(TokioIo::new)
                    }
                }))
            }
        })
    }

    /// Makes a call with an empty message.
    async fn call(&self, path: &str, identity: Option<&Identity>) -> anyhow::Result<Outcome> {
        let mut client = tonic::client::Grpc::new(self.channel(identity)?);
        let call = async {
            if client.ready().await.is_err() {
                return Ok(Outcome::NoConnection);
            }
            let codec = ProstCodec::<(), ()>::default();
            // A stream of answers may have none for a while: that it was begun is enough.
            let answer = client
                .server_streaming(tonic::Request::new(()), path.parse()?, codec)
                .await;
            let refused = match answer {
                Ok(_) => return Ok(Outcome::Heard),
                Err(refused) => refused,
            };
            ensure!(refused.code() != Code::Unimplemented, "{path}: {refused}");
            Ok(match refused.code() {
                _ if std::error::Error::source(&refused).is_some() => Outcome::NoConnection,
                Code::PermissionDenied | Code::Unauthenticated => Outcome::Denied,
                _ => Outcome::Heard,
            })
        };
        tokio::time::timeout(PATIENCE, call)
            .await
            .with_context(|| format!("{path} does not answer"))?
    }
}

/// The paths of all calls of the services.
fn calls(service: &str) -> anyhow::Result<Vec<(String, String)>> {
    let all = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS)?;
    let mut found = Vec::new();
    for file in &all.file {
        for described in file.service.iter().filter(|found| found.name() == service) {
            for method in &described.method {
                let path = format!("/{}.{service}/{}", file.package(), method.name());
                found.push((format!("{service}.{}", method.name()), path));
            }
        }
    }
    ensure!(!found.is_empty(), "{service} has no calls");
    Ok(found)
}

/// TLS as a sender speaks it.
fn sender_tls(run: &Run, identity: Option<&Identity>) -> anyhow::Result<rustls::ClientConfig> {
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(run.authority.certificate_pem())?)?;
    let tls = rustls::ClientConfig::builder().with_root_certificates(roots);
    let mut tls = match identity {
        Some(identity) => tls.with_client_auth_cert(
            vec![certificate(&identity.certificate_pem)?],
            PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?,
        )?,
        None => tls.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![ALPN.to_vec()];
    Ok(tls)
}

/// A first message that is refused, which proves that it was read.
fn not_hello() -> Vec<u8> {
    let body = encode_control(&ToReceiver::Sent {
        streams: 0,
        disks: Vec::new(),
    });
    [control_header(&body).as_slice(), &body].concat()
}

async fn over_tcp(run: &Run, port: u16, identity: Option<&Identity>) -> anyhow::Result<bool> {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(sender_tls(run, identity)?));
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let answered = async {
        let mut stream = connector
            .connect(ServerName::try_from("receiver").ok()?, stream)
            .await
            .ok()?;
        let message = [&[0; 1 + 16], not_hello().as_slice()].concat();
        stream.write_all(&message).await.ok()?;
        stream.read(&mut [0]).await.ok()
    };
    Ok(answered.await.is_some_and(|read| read > 0))
}

async fn over_quic(run: &Run, port: u16, identity: Option<&Identity>) -> anyhow::Result<bool> {
    let tls = QuicClientConfig::try_from(sender_tls(run, identity)?)?;
    let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into())?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
    let connecting = endpoint.connect(([127, 0, 0, 1], port).into(), "receiver")?;
    let answered = async {
        let connection = connecting.await.ok()?;
        let (mut send, mut receive) = connection.open_bi().await.ok()?;
        send.write_all(&not_hello()).await.ok()?;
        receive.read(&mut [0]).await.ok()?
    };
    Ok(answered.await.is_some_and(|read| read > 0))
}

/// One row of the table: what, and an outcome for each kind of certificate.
type Row = (String, Vec<Outcome>);

async fn rows_of(door: &Door, service: &str, kinds: &[Kind]) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, path) in calls(service)? {
        let mut outcomes = Vec::new();
        for kind in kinds {
            outcomes.push(door.call(&path, kind.identity.as_ref()).await?);
        }
        rows.push((name, outcomes));
    }
    // A service that does the same for all its calls needs one row.
    let is_one = rows.windows(2).all(|pair| pair[0].1 == pair[1].1);
    if is_one && let Some((_, outcomes)) = rows.pop() {
        rows = vec![(format!("{service}: every call"), outcomes)];
    }
    Ok(rows)
}

fn table(kinds: &[Kind], rows: &[Row]) -> String {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    let mut table = format!(
        "| | {} |\n|---{}|\n",
        names.join(" | "),
        "|---".repeat(kinds.len())
    );
    for (name, outcomes) in rows {
        let outcomes: Vec<&str> = outcomes.iter().map(|outcome| outcome.as_str()).collect();
        table.push_str(&format!("| {name} | {} |\n", outcomes.join(" | ")));
    }
    table
}

/// `docs/security.md` holds the table between two markers. `UPDATE=1` writes it.
fn compare(table: &str) -> anyhow::Result<()> {
    const BEGIN: &str = "<!-- who may call what: begin -->\n";
    const END: &str = "<!-- who may call what: end -->";
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/security.md"));
    let page = std::fs::read_to_string(path)?;
    let begin = page
        .find(BEGIN)
        .context("the page marks the table's begin")?
        + BEGIN.len();
    let end = page.find(END).context("the page marks the table's end")?;
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, format!("{}{table}{}", &page[..begin], &page[end..]))?;
    } else {
        assert_eq!(&page[begin..end], table, "run this test once with UPDATE=1");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_hears_only_the_certificates_that_the_page_says() -> anyhow::Result<()> {
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let socket = tempfile::tempdir()?;
    let socket = socket.path().join("admin.sock");
    let cluster = Cluster::start(ClusterConfig {
        binary: env!("CARGO_BIN_EXE_wherry").into(),
        workers: 0,
        environment: vec![(
            "WHERRY_ADMIN_SOCKET".to_owned(),
            socket.display().to_string(),
        )],
    })
    .await?;
    let deployment = api_gateway::agents::authority(&cluster.store).await?;
    let (source, neighbour) = (SourceId::generate(), SourceId::generate());
    let (run, other) = (Run::start(&source).await?, Run::start(&source).await?);
    let forger = Authority::generate("run", pki::RUN_VALIDITY)?;
    let kind = |name, identity| Kind { name, identity };
    let kinds = [
        kind("none", None),
        kind(
            "of an authority of one's own",
            Some(forger.issue_client(wire::CONTROL_NAME)?),
        ),
        kind(
            "registration of the source",
            Some(deployment.issue_client(source.as_str())?),
        ),
        kind(
            "registration of another source",
            Some(deployment.issue_client(neighbour.as_str())?),
        ),
        kind(
            "gateway's",
            Some(deployment.issue_server(&["localhost".to_owned()])?),
        ),
        kind("run: agent", Some(run.agent()?)),
        kind("run: worker", Some(run.worker()?)),
        kind(
            "run: receiver",
            Some(run.authority.issue_server(&["receiver".to_owned()])?),
        ),
        kind("another run: agent", Some(other.agent()?)),
        kind("another run: worker", Some(other.worker()?)),
    ];

    let agents = Door::Tcp {
        address: cluster.agents_endpoint(),
        authority_pem: deployment.certificate_pem().to_owned(),
    };
    let receiver = Door::Socket {
        path: run.directory.path().join(wire::CONTROL_SOCKET),
        authority_pem: Some(run.authority.certificate_pem().to_owned()),
    };
    let operators = Door::Socket {
        path: socket,
        authority_pem: None,
    };
    let mut rows = rows_of(&agents, "AgentService", &kinds).await?;
    let port = run.data_port().await?;
    let (mut quic, mut tcp) = (Vec::new(), Vec::new());
    for kind in &kinds {
        let outcome = |is_heard| {
            if is_heard {
                Outcome::Heard
            } else {
                Outcome::NoConnection
            }
        };
        let identity = kind.identity.as_ref();
        quic.push(outcome(
            tokio::time::timeout(PATIENCE, over_quic(&run, port, identity)).await??,
        ));
        tcp.push(outcome(
            tokio::time::timeout(PATIENCE, over_tcp(&run, port, identity)).await??,
        ));
    }
    rows.push(("data port over QUIC".to_owned(), quic));
    rows.push(("data port over TCP".to_owned(), tcp));
    rows.extend(rows_of(&receiver, "ReceiverService", &kinds).await?);
    rows.extend(rows_of(&operators, "AdminService", &kinds).await?);
    for run in [&run, &other] {
        run.shutdown.drain();
    }
    compare(&table(&kinds, &rows))
}
