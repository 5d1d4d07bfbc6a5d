//! A limit that several runs share, over real sockets.

use std::time::Duration;

use anyhow::Context as _;
use domain::rate::Rate;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transfer::limits::SharedLimit;
use transfer::sender::{SendProgress, send};
use transport::Kind;

use crate::bench::{Bench, MIB, noise};

/// Two jobs of one source, each to its own receiver, over real sockets.
#[tokio::test(flavor = "multi_thread")]
async fn two_runs_share_a_limit_evenly_and_keep_to_it() -> anyhow::Result<()> {
    const SHARED: u64 = 16_000_000;
    let rate = Rate::from_bytes_per_sec(SHARED).context("a rate")?;
    let shared = SharedLimit::new(rate);
    let mut runs = Vec::new();
    for (transport, seed) in [(Kind::Quic, 18), (Kind::Tcp, 19)] {
        let bench = Bench::new(transport, &[&noise(128 * MIB, seed)])?;
        let (server, address) = bench.server()?;
        server.admit(bench.admission(1)).await?;
        let mut config = bench.config(address, 1, None);
        config.shared_limit = Some(shared.clone());
        let (progress, sent) = watch::channel(SendProgress::default());
        let sending = tokio::spawn(send(config, CancellationToken::new(), progress));
        runs.push((sending, sent, server, bench));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (first, second) = (rate_of(runs[0].1.clone()), rate_of(runs[1].1.clone()));
    let (first, second) = tokio::try_join!(first, second)?;
    let rates = [first, second];
    let shared = SHARED as f64;
    assert!(
        (first + second - shared).abs() <= shared / 20.0,
        "{rates:?} bytes a second, of {shared} together"
    );
    for rate in &rates {
        let wanted = shared / 2.0;
        assert!(
            (rate - wanted).abs() <= wanted / 20.0,
            "{rates:?} bytes a second, of {wanted} for each"
        );
    }
    for (sending, ..) in &runs {
        sending.abort();
    }
    Ok(())
}

/// Bytes a second over some seconds, from one word of the sender to another.
async fn rate_of(mut sent: watch::Receiver<SendProgress>) -> anyhow::Result<f64> {
    let mut next = async || {
        sent.changed().await?;
        anyhow::Ok((std::time::Instant::now(), sent.borrow().bytes_wire))
    };
    // What was there before is older than now.
    next().await?;
    let first = next().await?;
    // A sender counts whole chunks: they must be little beside all that is sent meanwhile.
    loop {
        let last = next().await?;
        let seconds = last.0.duration_since(first.0).as_secs_f64();
        if seconds >= 12.0 {
            return Ok((last.1 - first.1) as f64 / seconds);
        }
    }
}
