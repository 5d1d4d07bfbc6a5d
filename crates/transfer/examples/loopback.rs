//! Copies a file or block device over loopback with a sender and a receiver of their own processes, and prints what it took as JSON.
//!
//! `cargo run --release -p transfer --example loopback -- --from FROM --to TO [--level N] [--streams N] [--link BYTES_PER_SEC] [--checksum]`

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use domain::parameters::FreeSpace;
use transfer::bench::{self, Identities, Settings};
use transfer::{Carrier, Identity};

#[derive(Debug, Parser)]
struct Arguments {
    /// File or block device to copy.
    #[arg(long, required_unless_present = "receiver")]
    from: Option<PathBuf>,
    /// File to copy to.
    #[arg(long, required_unless_present = "receiver")]
    to: Option<PathBuf>,
    /// The address at which the receiver listens.
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
    /// What the receiver's command begins with.
    #[arg(long, default_value = "")]
    via: String,
    /// As always.
    #[arg(long)]
    json: bool,
    /// zstd level; 0 for none; the sender's choice if absent.
    #[arg(long)]
    level: Option<i32>,
    /// Parallel streams.
    #[arg(long, default_value_t = transfer::sender::DEFAULT_STREAMS)]
    streams: usize,
    /// Most bytes a second.
    #[arg(long)]
    link: Option<u64>,
    /// Re-read the target before the receipt.
    #[arg(long)]
    checksum: bool,
    /// quic or tcp; the sender's choice if absent.
    #[arg(long)]
    carrier: Option<String>,
    /// Be the receiver.
    #[arg(long, hide = true)]
    receiver: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _first = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    if arguments.receiver {
        return Ok(bench::receive().await?);
    }
    let settings = Settings {
        from: arguments.from.context("FROM is missing")?,
        to: arguments.to.context("TO is missing")?,
        level: arguments.level,
        streams: arguments.streams,
        link_bytes_per_sec: arguments.link,
        checksum: arguments.checksum,
        carrier: match arguments.carrier.as_deref() {
            None => None,
            Some("quic") => Some(Carrier::Quic),
            Some("tcp") => Some(Carrier::Tcp),
            Some(other) => anyhow::bail!("{other} is no carrier"),
        },
        address: arguments.address,
        free_space: FreeSpace::Copy,
    };
    let authority = pki::Authority::generate("bench", pki::RUN_VALIDITY)?;
    let identity = |issued: pki::Identity| Identity {
        authority_pem: authority.certificate_pem().to_owned(),
        certificate_pem: issued.certificate_pem,
        key_pem: issued.key_pem,
    };
    let identities = Identities {
        receiver: identity(authority.issue_server(&["receiver".to_owned()])?),
        receiver_name: "receiver".to_owned(),
        sender: identity(authority.issue_client("bench")?),
    };
    let program = std::env::current_exe()?;
    let mut words = arguments
        .via
        .split_whitespace()
        .map(OsStr::new)
        .chain([program.as_os_str()]);
    let mut receiver = tokio::process::Command::new(words.next().context("a command has a word")?);
    receiver.args(words).arg("--receiver");
    let report = bench::run(settings, identities, receiver).await?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}
