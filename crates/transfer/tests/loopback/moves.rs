//! A transfer that moves from QUIC to TCP half way, because UDP is blocked or throttled then: over real sockets,
//! through a proxy that has both transports on one port.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use transfer::receiver::{Server, ServerConfig};
use transfer::sender::{Preference, Reason, SendConfig, SendProgress, send};
use transport::Kind;

use crate::bench::{Bench, MIB, PATIENCE, durable, noise, wait_for};

/// The largest datagram there is.
const DATAGRAM: usize = 65_535;

/// The receiver's flush window: small, so that what is sent again stands out.
const FLUSH_BYTES: u64 = 2 * MIB;

/// Bytes that a sender may have given away and nobody takes: the least window that QUIC has for sending, and the chunks
/// in queues and hands.
const ON_ITS_WAY: u64 = 16 * MIB + 12 * MIB;

/// Stands before a receiver, on one port for both transports. At first it keeps TCP waiting, so that it is QUIC that a
/// transfer begins with.
struct Proxy {
    address: SocketAddr,
    passes_tcp: watch::Sender<bool>,
    /// Most bytes of datagrams a second.
    udp_bytes_per_sec: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Proxy {
    async fn before(receiver: SocketAddr) -> anyhow::Result<Self> {
        let streams = TcpListener::bind("127.0.0.1:0").await?;
        let address = streams.local_addr()?;
        let datagrams = Arc::new(UdpSocket::bind(address).await?);
        let udp_bytes_per_sec = Arc::new(AtomicU64::new(u64::MAX));
        let limit = Arc::clone(&udp_bytes_per_sec);
        let (passes_tcp, opens) = watch::channel(false);
        let tasks = vec![
            tokio::spawn(async move {
                while let Ok((mut from, _)) = streams.accept().await {
                    let mut opens = opens.clone();
                    tokio::spawn(async move {
                        let opened = opens.wait_for(|is_open| *is_open).await;
                        opened.map_err(std::io::Error::other)?;
                        let mut to = TcpStream::connect(receiver).await?;
                        tokio::io::copy_bidirectional(&mut from, &mut to).await
                    });
                }
            }),
            tokio::spawn(async move {
                let _broken = pass_datagrams(&datagrams, receiver, &limit).await;
            }),
        ];
        Ok(Self {
            address,
            passes_tcp,
            udp_bytes_per_sec,
            tasks,
        })
    }

    /// From now on UDP is limited, and TCP passes.
    fn limit_udp(&self, bytes_per_sec: u64) {
        self.passes_tcp.send_replace(true);
        self.udp_bytes_per_sec
            .store(bytes_per_sec, Ordering::Relaxed);
    }
}

/// Passes datagrams on, each sender's from a socket of its own, and drops in both directions what is over the limit.
async fn pass_datagrams(
    front: &Arc<UdpSocket>,
    receiver: SocketAddr,
    limit: &Arc<AtomicU64>,
) -> std::io::Result<()> {
    let mut senders: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM];
    let mut policer = Policer::new(limit);
    loop {
        let (length, from) = front.recv_from(&mut buffer).await?;
        let back = match senders.get(&from) {
            Some(back) => Arc::clone(back),
            None => {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
                back.connect(receiver).await?;
                tokio::spawn(answer(
                    Arc::clone(front),
                    Arc::clone(&back),
                    from,
                    Arc::clone(limit),
                ));
                senders.insert(from, Arc::clone(&back));
                back
            }
        };
        if policer.lets_through(length) {
            let _full = back.send(&buffer[..length]).await;
        }
    }
}

async fn answer(
    front: Arc<UdpSocket>,
    back: Arc<UdpSocket>,
    to: SocketAddr,
    limit: Arc<AtomicU64>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; DATAGRAM];
    let mut policer = Policer::new(&limit);
    loop {
        let length = back.recv(&mut buffer).await?;
        if policer.lets_through(length) {
            let _full = front.send_to(&buffer[..length], to).await;
        }
    }
}

/// Drops what is over the limit, as routers do that police UDP.
struct Policer {
    limit: Arc<AtomicU64>,
    tokens: f64,
    last: Instant,
}

impl Policer {
    fn new(limit: &Arc<AtomicU64>) -> Self {
        Self {
            limit: Arc::clone(limit),
            tokens: 0.0,
            last: Instant::now(),
        }
    }

    fn lets_through(&mut self, length: usize) -> bool {
        let rate = self.limit.load(Ordering::Relaxed) as f64;
        let now = Instant::now();
        self.tokens += now.duration_since(self.last).as_secs_f64() * rate;
        // A tenth of a second's worth may come at once, and a datagram of any size now and then.
        self.tokens = self.tokens.min((rate / 10.0).max(DATAGRAM as f64));
        self.last = now;
        let passes = rate > 0.0 && self.tokens >= length as f64;
        if passes {
            self.tokens -= length as f64;
        }
        passes
    }
}

/// Sends a disk over QUIC, limits UDP once so much is there, and sees the transfer end over TCP. Answers with the
/// reason, and how long the transfer took from there.
async fn moves(
    transport: Preference,
    bandwidth: u64,
    disk_bytes: u64,
    udp_bytes_per_sec: u64,
) -> anyhow::Result<(Reason, Duration)> {
    let mut bench = Bench::new(Kind::Quic, &[&noise(disk_bytes, 20)])?;
    bench.checksum = false;
    let mut config = ServerConfig::new(
        "127.0.0.1:0".parse()?,
        bench.server_identity.clone(),
        "s-agent",
        bench.instance(),
    );
    config.flush_bytes = FLUSH_BYTES;
    config.flush_interval = Duration::from_millis(50);
    let server = Server::bind(config)?;
    server.admit(bench.admission(1)).await?;
    let proxy = Proxy::before(server.address()?).await?;

    let config = SendConfig {
        transport,
        ..bench.config(proxy.address, 1, Some(bandwidth))
    };
    let (progress, mut seen) = watch::channel(SendProgress::default());
    let sending = tokio::spawn(send(config, CancellationToken::new(), progress));
    let status = wait_for(&mut server.status(), |status| {
        durable(status) >= disk_bytes / 2
    })
    .await?;
    anyhow::ensure!(
        status.transport == Some(Kind::Quic),
        "QUIC has carried the first half: {}",
        status.transport_reason
    );
    let (blocked_at, durable_then) = (Instant::now(), durable(&status));
    proxy.limit_udp(udp_bytes_per_sec);

    let is_over_tcp = |seen: &SendProgress| {
        seen.transport
            .is_some_and(|choice| choice.transport == Kind::Tcp)
    };
    let mut over_quic = seen.borrow().clone();
    while !is_over_tcp(&seen.borrow_and_update()) {
        over_quic = seen.borrow().clone();
        tokio::time::timeout(PATIENCE, seen.changed()).await??;
    }
    let report = tokio::time::timeout(PATIENCE, sending).await???;
    let took = blocked_at.elapsed();
    bench.check_targets()?;

    let choice = report
        .progress
        .transport
        .context("a transport was chosen")?;
    let status = server.status().borrow().clone();
    assert_eq!(status.transport, Some(Kind::Tcp));
    assert_eq!(status.transport_reason, choice.to_string());
    let over_tcp = report.progress.bytes_payload;
    assert!(
        report.progress.bytes_equal >= durable_then,
        "what was durable is not sent again: {:?}",
        report.progress
    );
    let again = (over_quic.bytes_payload + over_tcp).saturating_sub(disk_bytes);
    let most = 2 * FLUSH_BYTES + ON_ITS_WAY;
    assert!(
        again <= most,
        "{again} bytes were sent again, at most {most} may be"
    );
    server.shutdown().await?;
    Ok((choice.reason, took))
}

#[tokio::test(flavor = "multi_thread")]
async fn where_udp_is_blocked_half_way_the_rest_goes_over_tcp() -> anyhow::Result<()> {
    let probe = Preference::Probe { failed: None };
    let (reason, took) = moves(probe, 24_000_000, 96 * MIB, 0).await?;
    assert_eq!(reason, Reason::OtherFellSilent);
    // Three looks, the silence of a call that nobody answers, two seconds for the rest, and some for a busy machine.
    assert!(took < Duration::from_secs(20), "{took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_udp_is_throttled_half_way_the_rest_goes_over_tcp() -> anyhow::Result<()> {
    // On loopback only who asks for measurements gets them.
    let (reason, took) = moves(Preference::Measure, 6_000_000, 96 * MIB, 400_000).await?;
    match reason {
        Reason::MeasuredAgain { quic, tcp } => assert!(tcp > quic, "{reason:?}"),
        // So little gets through that a new call may come too late.
        other => assert_eq!(other, Reason::OtherFellSilent),
    }
    // At the throttled rate it would take two minutes.
    assert!(took < Duration::from_secs(60), "{took:?}");
    Ok(())
}
