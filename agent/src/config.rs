//! Settings of the agent.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::parser::ValueSource;
use domain::rate::Rate;
use tonic::transport::Uri;

use crate::ActivationCode;

/// The agent's gateway, its disks, and its time limits.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Address at which the gateway listens for agents, such as `https://gateway.example:8701`.
    #[arg(long, env = "WHERRY_SERVER", value_parser = server)]
    pub server: Uri,
    /// File with the activation code (`AccessTokenCode`) that makes this server a source; `-` is standard input. Needed
    /// once: a registered agent does not read it. WHERRY_ACTIVATION_CODE may have the code itself.
    #[arg(long, env = "WHERRY_ACTIVATION_CODE_FILE", value_name = "FILE")]
    pub activation_code_file: Option<PathBuf>,
    /// The code itself. Not for people to type: every account of a server can see its command lines.
    #[arg(long, hide = true)]
    pub activation_code: Option<ActivationCode>,
    /// Directory of the agent's key and certificate; made with mode 0700. Whoever has it is this source.
    #[arg(
        long,
        env = "WHERRY_STATE_DIR",
        default_value = "/var/lib/wherry-agent"
    )]
    pub state_dir: PathBuf,
    /// Name that the source gets when it registers. Without it, the host name.
    #[arg(long, env = "WHERRY_NAME")]
    pub name: Option<String>,
    /// Path of a disk of the source, a block device or a file; repeated for each disk, at most 17. The first is the
    /// system disk. Without any, the agent finds the machine's disks itself. The environment holds one path a line.
    #[arg(long, env = "WHERRY_DISK", value_name = "PATH", value_parser = DiskPathsParser)]
    pub disk: Vec<DiskPaths>,
    /// Address that serves `/healthz`, `/readyz` and `/metrics`. Without it, none is served.
    #[arg(long, env = "WHERRY_HEALTH")]
    pub health: Option<SocketAddr>,
    /// Most that this server sends, such as 100mbit or 12.5MB/s, whatever the jobs' own limits are. Jobs that are
    /// copied at once share it evenly.
    #[arg(long, env = "WHERRY_BANDWIDTH_LIMIT", value_name = "RATE")]
    pub bandwidth_limit: Option<Rate>,
    /// Don't read again what was read once, while the kernel says that nothing was written to a disk since. Set it to
    /// false where other machines write to this server's disks too.
    #[arg(long, env = "WHERRY_CHANGE_TRACKING", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub change_tracking: bool,
    /// Seconds between heartbeats while nothing happens.
    #[arg(long, env = "WHERRY_HEARTBEAT_SECS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub heartbeat_secs: u32,
    /// Seconds that one call to the gateway may take, and the connection before it.
    #[arg(long, env = "WHERRY_REQUEST_TIMEOUT_SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub request_timeout_secs: u64,
    /// Longest pause in seconds before a lost gateway or receiver is called again. The first pause is half a second.
    #[arg(long, env = "WHERRY_RECONNECT_MAX_SECS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub reconnect_max_secs: u64,
    /// Seconds that sends have to end when the agent is asked to.
    #[arg(long, env = "WHERRY_DRAIN_SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub drain_secs: u64,
}

impl Config {
    /// Returns the disks that the operator named, as absolute paths: no tool may mistake a path for an option.
    pub(crate) fn disks(&self) -> Vec<PathBuf> {
        self.disk
            .iter()
            .flat_map(|paths| &paths.0)
            .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()))
            .collect()
    }

    pub(crate) fn heartbeat_interval(&self) -> Duration {
        Duration::from_secs(self.heartbeat_secs.into())
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_secs)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_secs)
    }

    /// Returns the pauses between attempts: half a second, then longer up to the limit, for ever. Each is stretched at
    /// random, so that a fleet that lost its gateway does not reconnect all at once.
    pub(crate) fn pauses(&self) -> Pauses {
        Pauses::new(self.reconnect_max())
    }

    pub(crate) fn reconnect_max(&self) -> Duration {
        Duration::from_secs(self.reconnect_max_secs)
    }
}

/// The path of one `--disk`, or all paths of `WHERRY_DISK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskPaths(Vec<PathBuf>);

/// Reads [`DiskPaths`]. A flag holds one path, whatever characters are in it; the environment has one variable for all
/// paths.
#[derive(Debug, Clone)]
struct DiskPathsParser;

impl TypedValueParser for DiskPathsParser {
    type Value = DiskPaths;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<DiskPaths, clap::Error> {
        self.parse_ref_(command, argument, value, ValueSource::CommandLine)
    }

    fn parse_ref_(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
        source: ValueSource,
    ) -> Result<DiskPaths, clap::Error> {
        let separator = |byte: &u8| source == ValueSource::EnvVariable && *byte == b'\n';
        let paths: Vec<PathBuf> = value
            .as_bytes()
            .split(separator)
            .filter(|path| !path.is_empty())
            .map(|path| Path::new(OsStr::from_bytes(path)).to_owned())
            .collect();
        if paths.is_empty() && source != ValueSource::EnvVariable {
            // This parser's error names the flag, as every other path's error does.
            PathBufValueParser::new().parse_ref(command, argument, value)?;
        }
        Ok(DiskPaths(paths))
    }
}

/// Pauses between attempts at something that must be tried for ever.
#[derive(Debug)]
pub(crate) struct Pauses {
    most: Duration,
    next: backon::ExponentialBackoff,
}

impl Pauses {
    pub fn new(most: Duration) -> Self {
        Self {
            most,
            next: exponential(most),
        }
    }

    /// Returns the next pause.
    pub fn next(&mut self) -> Duration {
        self.next.next().unwrap_or(self.most)
    }

    /// Begins with short pauses again, after a success.
    pub fn reset(&mut self) {
        self.next = exponential(self.most);
    }
}

fn exponential(most: Duration) -> backon::ExponentialBackoff {
    use backon::BackoffBuilder as _;

    backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500).min(most))
        .with_max_delay(most)
        .with_jitter()
        .without_max_times()
        .build()
}

fn server(text: &str) -> Result<Uri, String> {
    let hint = "give it as https://HOST:PORT, such as https://gateway.example:8701";
    let uri: Uri = text.parse().map_err(|_| hint.to_owned())?;
    let is_whole = uri.scheme_str() == Some("https")
        && uri.host().is_some_and(|host| !host.is_empty())
        && uri.port().is_some();
    if is_whole {
        Ok(uri)
    } else {
        Err(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_a_whole_https_url() {
        for good in [
            "https://gateway.example:8701",
            "https://127.0.0.1:1",
            "https://[::1]:8701/",
        ] {
            assert!(server(good).is_ok(), "{good}");
        }
        for bad in [
            "gateway:8701",
            "http://gateway:8701",
            "https://gateway",
            "https://:8701",
            "",
        ] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn a_disk_s_path_may_hold_any_character() {
        use clap::Parser as _;

        let paths = [
            "/srv/web,1.raw",
            "/srv/a b",
            "/srv/new\nline",
            "/srv/'\";$(x)",
            "/srv/日本語",
        ];
        let mut line: Vec<&OsStr> = ["agent", "--server", "https://h:1"].map(OsStr::new).into();
        for path in paths {
            line.extend([OsStr::new("--disk"), OsStr::new(path)]);
        }
        let not_text = OsStr::from_bytes(b"/srv/\xff");
        line.extend([OsStr::new("--disk"), not_text]);
        let config = Flags::parse_from(line).config;
        let mut wanted: Vec<PathBuf> = paths.map(PathBuf::from).into();
        wanted.push(not_text.into());
        assert_eq!(config.disks(), wanted);

        let dash = Flags::parse_from(["agent", "--server", "https://h:1", "--disk=-dash.raw"]);
        let here = std::env::current_dir().unwrap();
        assert_eq!(dash.config.disks(), [here.join("-dash.raw")]);
    }

    #[test]
    fn the_environment_has_one_path_a_line_and_a_flag_has_one() {
        let parse = |text: &str, source| {
            let command = clap::Command::new("agent");
            DiskPathsParser.parse_ref_(&command, None, OsStr::new(text), source)
        };
        let paths = |paths: &[&str]| DiskPaths(paths.iter().map(PathBuf::from).collect());
        let text = "/dev/a,b\n/dev/c\n";
        let from_environment = parse(text, ValueSource::EnvVariable).unwrap();
        assert_eq!(from_environment, paths(&["/dev/a,b", "/dev/c"]));
        let from_flag = parse(text, ValueSource::CommandLine).unwrap();
        assert_eq!(from_flag, paths(&[text]));
        assert_eq!(
            parse("", ValueSource::EnvVariable).unwrap(),
            paths(&[]),
            "the agent finds the disks"
        );
        assert!(parse("", ValueSource::CommandLine).is_err());
    }

    #[test]
    fn pauses_never_end_and_stay_below_twice_their_limit() {
        let mut pauses = Pauses::new(Duration::from_secs(4));
        let seen: Vec<Duration> = (0..100).map(|_| pauses.next()).collect();
        assert!(
            seen.iter().all(|pause| *pause < Duration::from_secs(8)),
            "{seen:?}"
        );
        assert!(seen[99] >= Duration::from_secs(4), "{seen:?}");
        pauses.reset();
        assert!(pauses.next() < Duration::from_secs(1));
    }
}
