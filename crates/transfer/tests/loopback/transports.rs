//! The choice of a transport.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transfer::receiver::Server;
use transfer::sender::{Preference, Reason, SendConfig, SendProgress, send};
use transport::Kind;

use crate::bench::{Bench, MIB, noise};

/// UDP that goes nowhere: a host of its own, whose loopback drops it. Only root can make one.
#[test]
fn where_udp_is_blocked_the_disks_go_over_tcp() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can make a network namespace");
        return Ok(());
    }
    // The thread is the namespace's; all of the test's own threads are made by it.
    let in_namespace = std::thread::spawn(|| {
        if let Err(error) = own_network_without_udp() {
            eprintln!("skipped: this machine can't make a network without UDP: {error:#}");
            return Ok(());
        }
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(over_whatever_works())
    });
    in_namespace.join().expect("the test does not panic")
}

fn own_network_without_udp() -> anyhow::Result<()> {
    // SAFETY: only this thread leaves the namespace; nobody else relies on its network.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET)? };
    // A loopback that takes TCP's port and, by policy, no datagram: each rule is a program of iproute2, which the tests
    // need anyway.
    for rule in [
        "link set lo up",
        "rule add ipproto udp table 77 priority 1",
        "route add blackhole default table 77",
        "rule del priority 0",
        "rule add table local priority 2",
    ] {
        let done = std::process::Command::new("ip")
            .args(rule.split(' '))
            .output()?;
        anyhow::ensure!(
            done.status.success(),
            "ip {rule}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
    Ok(())
}

async fn over_whatever_works() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Tcp, &[&noise(8 * MIB, 14)])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    goes_over_tcp(&bench, &server, address).await
}

/// The way that a firewall blocks UDP mostly: nobody answers. Here that is a port where datagrams come to one who never
/// reads them.
#[tokio::test]
async fn where_udp_meets_silence_the_disks_go_over_tcp() -> anyhow::Result<()> {
    let bench = Bench::new(Kind::Tcp, &[&noise(8 * MIB, 16)])?;
    let (server, behind) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let front = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = front.local_addr()?;
    let _silent = std::net::UdpSocket::bind(address)?;
    let forwarding = tokio::spawn(async move {
        while let Ok((mut from, _)) = front.accept().await {
            tokio::spawn(async move {
                let mut to = tokio::net::TcpStream::connect(behind).await?;
                tokio::io::copy_bidirectional(&mut from, &mut to).await
            });
        }
    });
    let outcome = goes_over_tcp(&bench, &server, address).await;
    forwarding.abort();
    outcome
}

async fn goes_over_tcp(bench: &Bench, server: &Server, address: SocketAddr) -> anyhow::Result<()> {
    let config = SendConfig {
        transport: Preference::Probe { failed: None },
        ..bench.config(address, 1, None)
    };
    let began = std::time::Instant::now();
    let progress = watch::channel(SendProgress::default()).0;
    let report = send(config, CancellationToken::new(), progress).await?;
    let took = began.elapsed();
    // Two seconds of silence, and the rest for a busy machine.
    assert!(took < Duration::from_secs(6), "{took:?}");
    let choice = report
        .progress
        .transport
        .context("a transport was chosen")?;
    assert_eq!(
        (choice.transport, choice.reason),
        (Kind::Tcp, Reason::OtherSilent)
    );
    let status = server.status().borrow().clone();
    assert_eq!(status.transport, Some(Kind::Tcp));
    let reason = status.transport_reason;
    assert!(reason.contains("UDP"), "{reason}");
    bench.check_targets()?;
    Ok(())
}

#[tokio::test]
async fn a_probe_measures_both_and_one_that_broke_is_left_alone() -> anyhow::Result<()> {
    let mut bench = Bench::new(Kind::Quic, &[&noise(2 * MIB, 15)])?;
    bench.checksum = false;
    // Room that is taken but not written: it may be data for all that the choice knows, and costs nothing to read.
    bench.disks[0].1 = 2100 * MIB;
    let disk = std::fs::File::options()
        .write(true)
        .open(&bench.disks[0].0)?;
    rustix::fs::fallocate(&disk, rustix::fs::FallocateFlags::empty(), 0, 2100 * MIB)?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let over = async |transport| {
        let config = SendConfig {
            transport,
            ..bench.config(address, 1, None)
        };
        let progress = watch::channel(SendProgress::default()).0;
        let report = send(config, CancellationToken::new(), progress).await?;
        let choice = report
            .progress
            .transport
            .context("a transport was chosen")?;
        assert_eq!(server.status().borrow().transport, Some(choice.transport));
        anyhow::Ok(choice)
    };
    for failed in [Kind::Quic, Kind::Tcp] {
        let choice = over(Preference::Probe {
            failed: Some(failed),
        })
        .await?;
        assert_eq!(
            (choice.transport, choice.reason),
            (failed.other(), Reason::OtherBroke)
        );
    }
    // On a machine that is busy with other tests a transport may come too late to be measured.
    for _ in 0..20 {
        if let Reason::Measured { quic, tcp } = over(Preference::Measure).await?.reason
            && quic.bytes_per_sec.min(tcp.bytes_per_sec) > 0
            && quic.processor_percent.min(tcp.processor_percent) > 0
        {
            return Ok(());
        }
    }
    panic!("twenty transfers and no measurement");
}
