//! Strangers at every door while right callers work, and what that costs the right callers: before, during and after.
//! It takes minutes, so only `make test-long` runs it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use smc::model::DescribeSourceServers;
use smc::{Client, Credentials};
use testkit::cluster::{Cluster, ClusterConfig, JobOptions, REGION, Tenant};
use testkit::wait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(180);

/// Right calls at a door in each phase, and the pause between two.
const CALLS: u32 = 300;
const CALL_PAUSE: Duration = Duration::from_millis(60);
/// Pause before a call is repeated whose connection was dropped as the oldest unauthenticated one: an agent waits at
/// least this long.
const CALLED_AGAIN: Duration = Duration::from_millis(100);
/// Longest time of a legitimate caller's call during the crowd, until it is answered: of 99 in 100, and of each.
/// Without a crowd it is some 10 ms.
const P99: Duration = Duration::from_millis(500);
const SLOWEST: Duration = Duration::from_secs(5);
/// Longest time of a job. In silence it is some 15 s.
const JOB: Duration = Duration::from_secs(60);

/// Strangers at each door at once, which come back when they are ended. No address has more of them than its share.
const STRANGERS: u8 = 240;
const ADDRESSES: u8 = 16;
const COMES_BACK: Duration = Duration::from_millis(500);

/// First datagrams of QUIC handshakes that are never continued, and the pause between two.
const INITIALS: usize = 1000;
const INITIAL_PAUSE: Duration = Duration::from_millis(2);

/// Copies that last long enough to be attacked: over what the agent finds to be best, and over TCP alone.
const COPIES: [&str; 2] = [
    r#"{"bandwidth_limit":32000,"compress_level":0}"#,
    r#"{"bandwidth_limit":32000,"compress_level":0,"use_ssh_tunnel":true}"#,
];

/// Bytes that strangers send before they fall silent.
const OPENINGS: [&[u8]; 4] = [
    b"",
    b"PRI * HTTP",
    b"GET / HTTP/1.1\r\nhost: ",
    b"\x16\x03\x01\x02\0\x01",
];

/// Strangers at one door. They go when this is dropped.
#[derive(Default)]
struct Strangers(JoinSet<()>);

impl Strangers {
    /// Strangers that hold TCP connections.
    fn at(door: SocketAddr) -> Self {
        let mut strangers = Self::default();
        for number in 0..STRANGERS {
            strangers.0.spawn(async move {
                let opening = OPENINGS[usize::from(number) % OPENINGS.len()];
                loop {
                    // Whatever becomes of it, the next one follows.
                    let _ended = hold(address(number), door, opening).await;
                    tokio::time::sleep(COMES_BACK).await;
                }
            });
        }
        strangers
    }

    /// Others that begin handshakes over QUIC.
    fn and_initials(mut self, door: SocketAddr, initials: Arc<[Vec<u8>]>) -> Self {
        self.0.spawn(async move {
            for (number, initial) in initials.iter().cycle().enumerate() {
                let number = (number % usize::from(ADDRESSES)) as u8;
                if let Ok(socket) = UdpSocket::bind(address(number)).await {
                    let _lost = socket.send_to(initial, door).await;
                }
                tokio::time::sleep(INITIAL_PAUSE).await;
            }
        });
        self
    }
}

/// Source address of a stranger.
fn address(number: u8) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, 2 + number % ADDRESSES), 0).into()
}

async fn hold(from: SocketAddr, door: SocketAddr, opening: &[u8]) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(from)?;
    let mut stream = socket.connect(door).await?;
    stream.write_all(opening).await?;
    stream.read(&mut [0]).await.map(|_| ())
}

/// First datagrams of handshakes, each of another connection.
async fn initials() -> anyhow::Result<Arc<[Vec<u8>]>> {
    let nobody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let tls = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
    let mut tls = tls.with_no_client_auth();
    tls.alpn_protocols = vec![transport::ALPN.to_vec()];
    let tls = QuicClientConfig::try_from(tls)?;
    let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
    let (mut connecting, mut found) = (Vec::new(), Vec::new());
    for _ in 0..INITIALS {
        connecting.push(endpoint.connect(nobody.local_addr()?, "receiver")?);
        let mut datagram = vec![0; 2000];
        let (bytes, _) = nobody.recv_from(&mut datagram).await?;
        datagram.truncate(bytes);
        found.push(datagram);
    }
    Ok(found.into())
}

/// Times of right callers at one door in one phase, and how many of their calls were made again.
#[derive(Debug)]
struct Times {
    p99: Duration,
    slowest: Duration,
    again: u32,
}

impl Times {
    /// Makes calls one after the other. Each is made until it is answered.
    async fn measure(
        what: &str,
        mut call: impl AsyncFnMut(u32) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let (mut times, mut again) = (Vec::new(), 0);
        for number in 0..CALLS {
            let began = Instant::now();
            while let Err(error) = call(number).await {
                if began.elapsed() > SLOWEST {
                    return Err(error.context(format!("{what} {number}")));
                }
                again += 1;
                tokio::time::sleep(CALLED_AGAIN).await;
            }
            times.push(began.elapsed());
            tokio::time::sleep(CALL_PAUSE).await;
        }
        times.sort_unstable();
        Ok(Self {
            p99: times[times.len() * 99 / 100],
            slowest: times[times.len() - 1],
            again,
        })
    }
}

/// Measurements of legitimate callers in one phase.
#[derive(Debug)]
struct Phase {
    api: Times,
    agents: Times,
    /// Time from registration to the image, with an agent that dies half way; and the transport of the copy.
    jobs: Vec<(Duration, String)>,
}

/// Calls the API over one kept connection and over a new one each time, by turns.
async fn calls(cluster: &Cluster, tenant: &Tenant) -> anyhow::Result<Times> {
    let client = || {
        let credentials = Credentials::new(&tenant.key.id, &tenant.key.secret);
        Client::new(&cluster.endpoint(), credentials, REGION)
    };
    let kept = client()?;
    Times::measure("call of the API", async |number| {
        let new = client()?;
        let client = if number % 2 == 0 { &kept } else { &new };
        client.call(&DescribeSourceServers::default()).await?;
        Ok(())
    })
    .await
}

/// An agent's way through its listener's door.
struct RightAgent {
    door: SocketAddr,
    tls: TlsConnector,
}

impl RightAgent {
    /// Registers a server, and has its key and certificate from there on.
    async fn register(cluster: &Cluster, tenant: &Tenant) -> anyhow::Result<Self> {
        let mut source = tenant.source(cluster, "right", &[MIB]).await?;
        source.agent.stop().await?;
        let read = |name: &str| {
            let path = cluster.path("right/state").join(name);
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let (registration, key): (Value, _) = (
            serde_json::from_str(&read("registration.json")?)?,
            read("key.pem")?,
        );
        let certificate = |name: &str| {
            let pem = registration[name].as_str().context("a certificate")?;
            anyhow::Ok(CertificateDer::from_pem_slice(pem.as_bytes())?)
        };
        let mut roots = RootCertStore::empty();
        roots.add(certificate("authority_pem")?)?;
        let mut tls = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![certificate("certificate_pem")?],
                PrivateKeyDer::from_pem_slice(key.as_bytes())?,
            )?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            door: listener(&cluster.agents_endpoint())?,
            tls: TlsConnector::from(Arc::new(tls)),
        })
    }

    /// Connects again and again, until the gateway has said its first word as a server of HTTP/2.
    async fn connects(&self) -> anyhow::Result<Times> {
        Times::measure("connection of an agent", async |_| self.connect().await).await
    }

    async fn connect(&self) -> anyhow::Result<()> {
        let stream = TcpStream::connect(self.door).await?;
        let name = ServerName::try_from("localhost")?;
        let mut stream = self.tls.connect(name, stream).await?;
        let no_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await?;
        stream.write_all(&no_settings).await?;
        stream.flush().await?;
        let read = stream.read(&mut [0]).await?;
        ensure!(read > 0, "the gateway has closed the connection");
        Ok(())
    }
}

/// Registers a server, migrates it, and lets its agent die half way: each door is passed anew.
async fn job(
    cluster: &Cluster,
    tenant: &Tenant,
    name: &str,
    parameters: &str,
    initials: Option<Arc<[Vec<u8>]>>,
) -> anyhow::Result<(Duration, String)> {
    let began = Instant::now();
    let mut source = tenant.source(cluster, name, &[32 * MIB]).await?;
    let options = JobOptions {
        parameters: parameters.to_owned(),
        ..JobOptions::default()
    };
    let job = source.create_job(cluster, name, &options).await?;
    job.start().await?;
    let port = wait::some(PATIENCE, "the receiver listens", async || {
        let receiver = cluster.receiver_now(&job).await?;
        receiver.map_or(Ok(None), data_port)
    })
    .await?;
    let door = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let _strangers = initials.map(|initials| Strangers::at(door).and_initials(door, initials));
    let copying = job.wait_for_bytes(PATIENCE, 4 * MIB).await?;
    source.agent.kill()?;
    source.agent.restart()?;
    job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await?;
    source.agent.stop().await?;
    Ok((began.elapsed(), copying.transport.unwrap_or_default()))
}

/// The port on which a process has both a listener of TCP and a socket of UDP.
fn data_port(pid: i32) -> anyhow::Result<Option<u16>> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Ok(None);
    };
    let sockets: BTreeSet<String> = entries
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| {
            let target = target.to_str()?.strip_prefix("socket:[")?;
            Some(target.strip_suffix(']')?.to_owned())
        })
        .collect();
    let ports = |protocol: &str| -> anyhow::Result<BTreeSet<u16>> {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{protocol}"))?;
        let port = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_its_own = sockets.contains(*fields.get(9)?);
            let port = fields[1].rsplit(':').next()?;
            is_its_own.then(|| u16::from_str_radix(port, 16).ok())?
        };
        Ok(table.lines().filter_map(port).collect())
    };
    Ok(ports("tcp")?.intersection(&ports("udp")?).next().copied())
}

async fn phase(
    cluster: &Cluster,
    tenant: &Tenant,
    agent: &RightAgent,
    name: &str,
    initials: Option<Arc<[Vec<u8>]>>,
) -> anyhow::Result<Phase> {
    let jobs = async {
        let mut times = Vec::new();
        for (number, parameters) in COPIES.iter().enumerate() {
            let name = format!("{name}-{number}");
            times.push(job(cluster, tenant, &name, parameters, initials.clone()).await?);
        }
        anyhow::Ok(times)
    };
    let (api, agents, jobs) = tokio::try_join!(calls(cluster, tenant), agent.connects(), jobs)
        .with_context(|| format!("{name} the strangers"))?;
    let phase = Phase { api, agents, jobs };
    println!("{name}: {phase:?}");
    Ok(phase)
}

fn listener(endpoint: &str) -> anyhow::Result<SocketAddr> {
    let address = endpoint.rsplit('/').next().context("an address")?;
    Ok(address.replace("localhost", "127.0.0.1").parse()?)
}

/// Number of strangers that a door has ended in favour of others, as a role's metrics show it.
async fn crowded(cluster: &Cluster, role: &str, door: &str) -> anyhow::Result<u64> {
    let series =
        format!("wherry_connections_ended_total{{listener=\"{door}\",reason=\"crowded\"}} ");
    let metrics = cluster.metrics(role).await?;
    let ended = metrics.lines().find_map(|line| line.strip_prefix(&series));
    Ok(ended.map_or(Ok(0), str::parse)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_at_every_door_keep_no_right_caller_out() -> anyhow::Result<()> {
    if std::env::var_os("WHERRY_LONG").is_none() {
        return Ok(());
    }
    // A limit so low that the strangers use all of it at each door. A receiver's limit is low anyway.
    let environment = [
        ("WHERRY_API_STRANGERS", "128"),
        ("WHERRY_API_STRANGERS_PER_ADDRESS", "16"),
        ("WHERRY_AGENTS_STRANGERS", "128"),
        ("WHERRY_AGENTS_STRANGERS_PER_ADDRESS", "16"),
    ];
    let cluster = Cluster::start(ClusterConfig {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_wherry")),
        workers: 1,
        environment: environment
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
    })
    .await?;
    let initials = initials().await?;
    let tenant = cluster.tenant("alice").await?;
    let agent = RightAgent::register(&cluster, &tenant).await?;
    let before = phase(&cluster, &tenant, &agent, "before", None).await?;
    let attack = (
        Strangers::at(listener(&cluster.endpoint())?),
        Strangers::at(listener(&cluster.agents_endpoint())?),
    );
    let during = phase(&cluster, &tenant, &agent, "during", Some(initials)).await?;
    drop(attack);
    let after = phase(&cluster, &tenant, &agent, "after", None).await?;
    for (role, door) in [
        ("gateway", "api"),
        ("gateway", "agents"),
        ("worker-1", "receiver"),
    ] {
        let ended = crowded(&cluster, role, door).await?;
        println!("{door}: {ended} strangers made room for others");
        ensure!(ended > 0, "the door {door} was never full");
    }
    for phase in [&before, &after] {
        let again = phase.api.again + phase.agents.again;
        ensure!(again == 0, "calls are lost without strangers: {phase:?}");
    }
    for phase in [&before, &during, &after] {
        let doors = [&phase.api, &phase.agents];
        ensure!(
            doors
                .iter()
                .all(|door| door.p99 <= P99 && door.slowest <= SLOWEST)
                && phase.jobs.iter().all(|(time, _)| *time <= JOB),
            "{before:?} {during:?} {after:?}"
        );
    }
    Ok(())
}
