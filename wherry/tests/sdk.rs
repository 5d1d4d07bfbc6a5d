//! The official SDK clients against a whole Wherry: `tests/sdk` has the cases, this gives them a deployment.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use testkit::cluster::{Cluster, ClusterConfig, JobOptions, REGION, Tenant};
use tokio::process::Command;

const MIB: u64 = 1 << 20;

/// A suite takes some ten seconds; on a slow machine more.
const SUITE_TIMEOUT: Duration = Duration::from_secs(300);

/// A cluster, and the settings that a suite reads of it.
struct Deployment {
    cluster: Cluster,
    environment: Vec<(&'static str, String)>,
    _alice: Tenant,
}

impl Deployment {
    /// Two sources of one tenant, and a neighbour with a source and a job.
    async fn start() -> anyhow::Result<Self> {
        let cluster = Cluster::start(ClusterConfig {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_wherry")),
            workers: 1,
            environment: Vec::new(),
        })
        .await?;
        let (alice, bob) = (cluster.tenant("alice").await?, cluster.tenant("bob").await?);
        for name in ["first", "second"] {
            alice.source(&cluster, name, &[24 * MIB, 4 * MIB]).await?;
        }
        let foreign = bob.source(&cluster, "foreign", &[MIB]).await?;
        let job = foreign
            .create_job(&cluster, "foreign", &JobOptions::default())
            .await?;
        let endpoint = alice.client.endpoint();
        let host = endpoint.host_str().context("an endpoint has a host")?;
        let port = endpoint.port().context("a test's endpoint has a port")?;
        let environment = vec![
            ("WHERRY_TEST_ENDPOINT", format!("{host}:{port}")),
            ("WHERRY_TEST_REGION", REGION.to_owned()),
            ("WHERRY_TEST_ACCESS_KEY_ID", alice.key.id.clone()),
            ("WHERRY_TEST_ACCESS_KEY_SECRET", alice.key.secret.clone()),
            ("WHERRY_TEST_FOREIGN_SOURCE", foreign.id.to_string()),
            ("WHERRY_TEST_FOREIGN_JOB", job.id.to_string()),
        ];
        Ok(Self {
            cluster,
            environment,
            _alice: alice,
        })
    }

    /// Runs a suite, and shows what it said if it failed or ran no test.
    async fn run(
        &self,
        mut command: Command,
        count_of: fn(&str) -> Option<u32>,
    ) -> anyhow::Result<()> {
        command
            .current_dir(folder())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            // A machine's proxy is not on the way to its own loopback.
            .env("NO_PROXY", "*")
            .env("HOME", self.cluster.path("home"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(SUITE_TIMEOUT, command.output())
            .await
            .context("the suite did not end")?
            .context("can't start it: run `make setup`")?;
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        ensure!(output.status.success(), "the suite failed:\n{said}");
        match count_of(&said) {
            Some(count) if count > 0 => Ok(()),
            _ => bail!("the suite ran no test:\n{said}"),
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/sdk")
}

fn python(file: &str) -> Command {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/sdk/bin/python3");
    let mut command = Command::new(program);
    command.args(["-W", "ignore", "-m", "unittest", file]);
    command
}

fn node(file: &str) -> Command {
    let mut command = Command::new("node");
    command.args(["--no-deprecation", "--test", "--test-reporter=tap", file]);
    command
}

/// `Ran 12 tests in 3.4s`
fn ran(said: &str) -> Option<u32> {
    let rest = said.split("Ran ").nth(1)?;
    rest.split_whitespace().next()?.parse().ok()
}

/// `# pass 12`
fn passed(said: &str) -> Option<u32> {
    let line = said
        .lines()
        .rev()
        .find(|line| line.starts_with("# pass "))?;
    line.trim_start_matches("# pass ").parse().ok()
}

#[tokio::test]
async fn the_python_clients_find_what_they_know() -> anyhow::Result<()> {
    let deployment = Deployment::start().await?;
    deployment.run(python("test_core.py"), ran).await?;
    deployment.run(python("test_tea.py"), ran).await
}

#[tokio::test]
async fn the_node_clients_find_what_they_know() -> anyhow::Result<()> {
    let deployment = Deployment::start().await?;
    deployment.run(node("pop_core.test.mjs"), passed).await?;
    deployment
        .run(node("openapi_client.test.mjs"), passed)
        .await
}
