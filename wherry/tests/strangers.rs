//! Strangers at every door while right callers work: what that costs the right callers, before, during and after. It takes two minutes, so
//! only `make test-long` runs it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use smc::{Client, Credentials};
use testkit::cluster::{Cluster, ClusterConfig, JobOptions, REGION, Tenant};
use testkit::wait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// Calls to the API in each phase, and the pause between two.
const CALLS: u32 = 300;
const CALL_PAUSE: Duration = Duration::from_millis(40);
/// Longest time of a right caller's call during the attack.
const SLOWEST_CALL: Duration = Duration::from_secs(2);

/// Strangers at each door at once. They come from so many addresses that no address has more than its share, and come back when they are ended.
const STRANGERS: u8 = 240;
const ADDRESSES: u8 = 16;
const COMES_BACK: Duration = Duration::from_millis(200);

/// A copy that lasts long enough to be attacked.
const SLOW: &str = r#"{"bandwidth_limit":32000,"compress_level":0}"#;

/// What strangers say before they fall silent.
const OPENINGS: [&[u8]; 4] = [
    b"",
    b"PRI * HTTP",
    b"GET / HTTP/1.1\r\nhost: ",
    b"\x16\x03\x01\x02\0\x01",
];

/// Strangers that hold connections to one door. They go when this is dropped.
struct Strangers(JoinSet<()>);

impl Strangers {
    fn at(door: SocketAddr) -> Self {
        let mut strangers = JoinSet::new();
        for number in 0..STRANGERS {
            strangers.spawn(async move {
                let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2 + number % ADDRESSES), 0));
                let opening = OPENINGS[usize::from(number) % OPENINGS.len()];
                loop {
                    // Whatever becomes of it, the next one follows.
                    let _ended = hold(from, door, opening).await;
                    tokio::time::sleep(COMES_BACK).await;
                }
            });
        }
        Self(strangers)
    }
}

async fn hold(from: SocketAddr, door: SocketAddr, opening: &[u8]) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(from)?;
    let mut stream = socket.connect(door).await?;
    stream.write_all(opening).await?;
    let mut nothing = [0];
    stream.read(&mut nothing).await.map(|_| ())
}

/// What right callers met in one phase.
#[derive(Debug)]
struct Phase {
    p99: Duration,
    slowest: Duration,
    job: Duration,
}

/// Calls the API over one kept connection and over a new one each time, by turns.
async fn calls(cluster: &Cluster, tenant: &Tenant) -> anyhow::Result<Vec<Duration>> {
    let client = || {
        let credentials = Credentials::new(&tenant.key.id, &tenant.key.secret);
        Client::new(&cluster.endpoint(), credentials, REGION)
    };
    let kept = client()?;
    let mut times = Vec::new();
    for number in 0..CALLS {
        let new = client()?;
        let client = if number % 2 == 0 { &kept } else { &new };
        let began = Instant::now();
        let called = client.call("DescribeSourceServers", &[]).await;
        called.with_context(|| format!("call {number}"))?;
        times.push(began.elapsed());
        tokio::time::sleep(CALL_PAUSE).await;
    }
    times.sort_unstable();
    Ok(times)
}

/// Registers a server, migrates it, and lets its agent die half way: each door is passed anew.
async fn job(
    cluster: &Cluster,
    tenant: &Tenant,
    name: &str,
    is_attacked: bool,
) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut source = tenant.source(cluster, name, &[32 * MIB]).await?;
    let options = JobOptions {
        parameters: SLOW.to_owned(),
        ..JobOptions::default()
    };
    let job = source.create_job(cluster, name, &options).await?;
    job.start().await?;
    let receiver = wait::some(PATIENCE, "the receiver listens", async || {
        let Some(pid) = cluster.receiver_now(&job).await? else {
            return Ok(None);
        };
        data_port(pid)
    })
    .await?;
    let _strangers =
        is_attacked.then(|| Strangers::at(SocketAddr::from((Ipv4Addr::LOCALHOST, receiver))));
    job.wait_for_bytes(PATIENCE, 4 * MIB).await?;
    source.agent.kill()?;
    source.agent.restart()?;
    job.wait_for(PATIENCE, &["Finished"]).await?;
    job.check_image().await?;
    Ok(began.elapsed())
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
    name: &str,
    is_attacked: bool,
) -> anyhow::Result<Phase> {
    let (times, job) = tokio::try_join!(
        calls(cluster, tenant),
        job(cluster, tenant, name, is_attacked)
    )?;
    let phase = Phase {
        p99: times[times.len() * 99 / 100],
        slowest: times[times.len() - 1],
        job,
    };
    println!("{name}: {phase:?}");
    Ok(phase)
}

fn address(endpoint: &str) -> anyhow::Result<SocketAddr> {
    let address = endpoint.rsplit('/').next().context("an address")?;
    Ok(address.replace("localhost", "127.0.0.1").parse()?)
}

#[tokio::test]
async fn strangers_at_every_door_keep_no_right_caller_out() -> anyhow::Result<()> {
    if std::env::var_os("WHERRY_LONG").is_none() {
        return Ok(());
    }
    // As few places that the strangers fill all of them at each door.
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
    let tenant = cluster.tenant("alice").await?;
    let before = phase(&cluster, &tenant, "before", false).await?;
    let attack = (
        Strangers::at(address(&cluster.endpoint())?),
        Strangers::at(address(&cluster.agents_endpoint())?),
    );
    let during = phase(&cluster, &tenant, "during", true).await?;
    let metrics = cluster.metrics("gateway").await?;
    drop(attack);
    let after = phase(&cluster, &tenant, "after", false).await?;
    for listener in ["api", "agents"] {
        let series = format!(
            "wherry_connections_ended_total{{listener=\"{listener}\",reason=\"crowded\"}} "
        );
        let ended = metrics
            .lines()
            .find_map(|line| line.strip_prefix(series.as_str()))
            .with_context(|| format!("no {series}"))?;
        println!("{listener}: {ended} strangers made room");
        ensure!(ended != "0", "the door {listener} was never full");
    }
    ensure!(
        during.slowest <= SLOWEST_CALL && after.slowest <= SLOWEST_CALL,
        "{before:?} {during:?} {after:?}"
    );
    Ok(())
}
