//! `wherry bench`: what the data path does on this machine.

mod measurement;

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use domain::parameters::FreeSpace;
use domain::rate::Rate;
use service::ExitCode;
use transport::{Identity, Kind, MOST_STREAMS};

use crate::output;
use measurement::{Identities, Report, Settings};

/// The word that makes a process the receiver of a measurement.
const RECEIVER: &str = "transfer-receiver";

#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copies a disk over loopback with a sender and a receiver of their own processes, and reports the time and
    /// resources that it took.
    Transfer(Transfer),
    /// The receiver of a measurement; `transfer` starts it.
    #[command(name = RECEIVER, hide = true)]
    Receiver,
}

#[derive(Debug, Args)]
struct Transfer {
    /// Source of the copy: a file or a block device.
    #[arg(long, value_name = "PATH")]
    from: PathBuf,
    /// Target of the copy: a file. One that exists is written over in place.
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
    /// Keep the receiver's chunk map as PATH.chunks: the next copy to PATH sends only what differs.
    #[arg(long)]
    keep: bool,
    /// Pace to this rate, such as 1gbit or 12.5MB/s, as a link of that rate would.
    #[arg(long, value_name = "RATE")]
    link: Option<Rate>,
    /// zstd level, 1 to 19; 0 for none; the sender's choice if absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=19))]
    level: Option<i32>,
    /// Parallel streams, 1 to 16.
    #[arg(long, value_name = "N", default_value_t = transfer::sender::default_streams(), value_parser = streams)]
    streams: usize,
    /// Connections that QUIC spreads them over, 1 to 16, and no more than there are streams.
    #[arg(long, value_name = "N", default_value_t = transfer::sender::default_connections(), value_parser = connections)]
    connections: usize,
    /// skip: leave out what the file systems of a disk that nobody uses call free; copy: every byte.
    #[arg(long, value_name = "WHAT", default_value = "copy")]
    free_space: FreeSpace,
    /// Read the target again before it counts.
    #[arg(long)]
    checksum: bool,
    /// The transport: quic, or tcp for TLS over TCP; the sender's choice if absent.
    #[arg(long, value_name = "NAME", value_parser = transport)]
    transport: Option<Kind>,
    /// The address at which the receiver listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    address: IpAddr,
    /// Words that the receiver's command begins with, such as `ip netns exec NAME` for a network of its own.
    #[arg(long, value_name = "WORDS", default_value = "")]
    via: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Receiver => measurement::receive().await?,
            Command::Transfer(transfer) => transfer.run().await?,
        }
        Ok(ExitCode::Ok)
    }
}

impl Transfer {
    async fn run(self) -> anyhow::Result<()> {
        let settings = Settings {
            from: self.from,
            to: self.to,
            keep: self.keep,
            level: self.level,
            streams: self.streams,
            connections: self.connections,
            link_bytes_per_sec: self.link.map(Rate::bytes_per_sec),
            checksum: self.checksum,
            free_space: self.free_space,
            transport: self.transport,
            address: self.address,
        };
        let program = std::env::current_exe()?;
        let mut words = self
            .via
            .split_whitespace()
            .map(OsStr::new)
            .chain([program.as_os_str()]);
        let first = words.next().unwrap_or(program.as_os_str());
        let mut receiver = tokio::process::Command::new(first);
        receiver.args(words).args(["bench", RECEIVER]);
        let report = measurement::run(settings, identities()?, receiver).await?;
        if self.json {
            output::json(serde_json::to_string_pretty(&report)?);
        } else {
            print(&report);
        }
        Ok(())
    }
}

fn transport(name: &str) -> Result<Kind, &'static str> {
    [Kind::Quic, Kind::Tcp]
        .into_iter()
        .find(|transport| transport.as_str() == name)
        .ok_or("quic or tcp")
}

fn streams(text: &str) -> Result<usize, String> {
    up_to_most(text).ok_or_else(|| format!("a receiver takes 1 to {MOST_STREAMS} streams"))
}

fn connections(text: &str) -> Result<usize, String> {
    up_to_most(text).ok_or_else(|| format!("1 to {MOST_STREAMS}, as many as there can be streams"))
}

fn up_to_most(text: &str) -> Option<usize> {
    let number = text.parse().ok()?;
    (1..=MOST_STREAMS).contains(&number).then_some(number)
}

/// An authority for this one measurement, and both sides' certificates from it.
fn identities() -> anyhow::Result<Identities> {
    let authority = pki::Authority::generate("bench", pki::RUN_VALIDITY)?;
    let identity = |issued: pki::Identity| Identity {
        authority_pem: authority.certificate_pem().to_owned(),
        certificate_pem: issued.certificate_pem,
        key_pem: issued.key_pem,
    };
    Ok(Identities {
        receiver: identity(authority.issue_server(&["receiver".to_owned()])?),
        receiver_name: "receiver".to_owned(),
        sender: identity(authority.issue_client(measurement::SENDER)?),
    })
}

fn print(report: &Report) {
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let memory = |bytes: u64| format!("{} MiB", bytes >> 20);
    let rate = report.bytes_logical as f64 / 1e6 / report.wall_secs;
    let rows = [
        ("wall", format!("{:.3} s, {rate:.0} MB/s", report.wall_secs)),
        ("disk", megabytes(report.bytes_logical)),
        ("zeros and holes", megabytes(report.bytes_zero)),
        ("of these free", megabytes(report.bytes_free)),
        ("read", megabytes(report.bytes_read)),
        ("sent", megabytes(report.bytes_payload)),
        ("on the wire", megabytes(report.bytes_wire)),
        (
            "sender",
            format!(
                "{:.2} s of processor, {}",
                report.sender.cpu_secs,
                memory(report.sender.peak_memory_bytes)
            ),
        ),
        (
            "receiver",
            format!(
                "{:.2} s of processor, {}",
                report.receiver.cpu_secs,
                memory(report.receiver.peak_memory_bytes)
            ),
        ),
        (
            "transport",
            format!(
                "{}: {}",
                report
                    .transport
                    .map_or_else(String::new, |transport| transport.to_string()),
                report.transport_reason
            ),
        ),
        ("root", report.root.clone()),
        ("settings", settings(&report.settings)),
    ];
    for (name, value) in rows {
        output::line(format_args!("{name:<16} {value}"));
    }
}

/// The settings, in the words of the flags.
fn settings(settings: &Settings) -> String {
    let level = settings.level.map_or_else(
        || "level of the sender's choice".to_owned(),
        |level| format!("level {level}"),
    );
    let link = settings
        .link_bytes_per_sec
        .and_then(Rate::from_bytes_per_sec);
    let link = link.map_or_else(|| "no pace".to_owned(), |link| format!("link {link}"));
    let checksum = if settings.checksum { ", checksum" } else { "" };
    format!(
        "{} to {}, {level}, streams {}, connections {}, {link}{checksum}",
        settings.from.display(),
        settings.to.display(),
        settings.streams,
        settings.connections
    )
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bench: Bench,
    }

    #[test]
    fn the_line_of_the_manual_is_understood() {
        Line::command().debug_assert();
        let line = "bench transfer --from a --to b --level 3 --streams 4 --link 1gbit --json";
        let Command::Transfer(transfer) = Line::parse_from(line.split(' ')).bench.command else {
            panic!("not a transfer");
        };
        assert_eq!((transfer.level, transfer.streams), (Some(3), 4));
        assert_eq!(transfer.link.map(Rate::bytes_per_sec), Some(125_000_000));
        for refused in [
            "--streams 17",
            "--streams 0",
            "--connections 0",
            "--connections 17",
            "--link 125000000",
            "--level 20",
        ] {
            let line = format!("bench transfer --from a --to b {refused}");
            assert!(Line::try_parse_from(line.split(' ')).is_err(), "{refused}");
        }
        assert!(Line::try_parse_from(["bench", "transfer", "--from", "a"]).is_err());
    }
}
