//! The official SDK clients against a whole Wherry: `tests/sdk` has the cases, this gives them a deployment.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use domain::TenantId;
use serde_json::json;
use store::Store;
use store::key::{AccessKey, CreateTemporaryKey, CreateUserKey, TemporaryKey};
use store::network::{CreateNetwork, Network, VSwitch};
use store::policy::CreatePolicy;
use store::tenant::{CallRates, CreateTenant, Quotas};
use store::user::{AttachPolicy, CreateUser};
use testkit::cluster::{Cluster, ClusterConfig, JobOptions, REGION, Source, Tenant};
use tokio::process::Command;

const MIB: u64 = 1 << 20;

const VPC: &str = "vpc-sdk";
const VSWITCH: &str = "vsw-sdk";

/// A suite takes some ten seconds; on a slow machine more.
const SUITE_TIMEOUT: Duration = Duration::from_secs(300);

/// A cluster, and the settings that a suite reads of it.
struct Deployment {
    cluster: Cluster,
    environment: Vec<(&'static str, String)>,
    /// Their agents run as long as these live.
    _sources: Vec<Source>,
}

impl Deployment {
    /// Two sources of one tenant, its network and its users; a neighbour with a source and a job; accounts that soon have called or made
    /// as much as they may.
    async fn start() -> anyhow::Result<Self> {
        let cluster = Cluster::start(ClusterConfig {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_wherry")),
            workers: 1,
            environment: Vec::new(),
        })
        .await?;
        let (alice, bob) = (cluster.tenant("alice").await?, cluster.tenant("bob").await?);
        let mut sources = Vec::new();
        for name in ["first", "second"] {
            sources.push(alice.source(&cluster, name, &[24 * MIB, 4 * MIB]).await?);
        }
        let foreign = bob.source(&cluster, "foreign", &[MIB]).await?;
        let job = foreign
            .create_job(&cluster, "foreign", &JobOptions::default())
            .await?;
        let (reader, temporary) = readers(&cluster.store, &alice).await?;
        network(&cluster.store, &alice).await?;
        let keys = json!({
            "owner": [alice.key.id, alice.key.secret],
            "reader": [reader.id, reader.secret],
            "temporary": [temporary.id, temporary.secret, temporary.security_token],
            "busy": busy(&cluster.store).await?,
            "small": small(&cluster.store).await?,
        });
        let endpoint = alice.client.endpoint();
        let host = endpoint.host_str().context("an endpoint has a host")?;
        let port = endpoint.port().context("a test's endpoint has a port")?;
        let environment = vec![
            ("WHERRY_TEST_ENDPOINT", format!("{host}:{port}")),
            ("WHERRY_TEST_REGION", REGION.to_owned()),
            ("WHERRY_TEST_KEYS", keys.to_string()),
            ("WHERRY_TEST_VPC", VPC.to_owned()),
            ("WHERRY_TEST_VSWITCH", VSWITCH.to_owned()),
            ("WHERRY_TEST_FOREIGN_SOURCE", foreign.id.to_string()),
            ("WHERRY_TEST_FOREIGN_JOB", job.id.to_string()),
        ];
        sources.push(foreign);
        Ok(Self {
            cluster,
            environment,
            _sources: sources,
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

/// Keys of a user of the tenant who may look at everything and change nothing: a lasting one and a temporary one.
async fn readers(store: &Store, tenant: &Tenant) -> anyhow::Result<(AccessKey, TemporaryKey)> {
    const USER: &str = "reader";
    let may_read = json!({
        "Version": "1",
        "Statement": [{"Effect": "Allow", "Action": ["smc:Describe*", "smc:List*"], "Resource": "*"}],
    });
    let tenant = &tenant.id;
    let user = store.create_user(tenant, USER).await?;
    ensure!(matches!(user, CreateUser::Created(_)), "{user:?}");
    let policy = store
        .create_policy(tenant, "may-read", &may_read.to_string())
        .await?;
    ensure!(policy == CreatePolicy::Created, "{policy:?}");
    let attached = store.attach_policy(tenant, USER, "may-read").await?;
    ensure!(attached == AttachPolicy::Attached, "{attached:?}");
    let lasting = match store.create_user_key(tenant, USER).await? {
        CreateUserKey::Created(key) => key,
        other => bail!("{other:?}"),
    };
    let hour = Duration::from_secs(3600);
    match store
        .create_temporary_key(tenant, Some(USER), hour, None)
        .await?
    {
        CreateTemporaryKey::Created(temporary) => Ok((lasting, temporary)),
        other => bail!("{other:?}"),
    }
}

async fn network(store: &Store, tenant: &Tenant) -> anyhow::Result<()> {
    let vpc = Network::Vpc {
        id: VPC.to_owned(),
        region_id: REGION.to_owned(),
    };
    let vswitch = Network::VSwitch(VSwitch {
        id: VSWITCH.to_owned(),
        vpc: VPC.to_owned(),
        region_id: String::new(),
        receiver_host: Some("127.0.0.1".to_owned()),
    });
    for network in [vpc, vswitch] {
        let made = store.create_network(&tenant.id, &network).await?;
        ensure!(made == CreateNetwork::Created, "{made:?}");
    }
    Ok(())
}

/// The key of an account that may call once a second.
async fn busy(store: &Store) -> anyhow::Result<[String; 2]> {
    let (tenant, key) = account(store, "busy", &Quotas::default()).await?;
    let once = CallRates {
        account_per_second: 1,
        operation_per_second: 1,
    };
    ensure!(store.set_call_rates(&tenant, once).await?);
    Ok(key)
}

/// The key of an account that may have no workgroup.
async fn small(store: &Store) -> anyhow::Result<[String; 2]> {
    let quotas = Quotas {
        max_workgroups: 0,
        ..Quotas::default()
    };
    Ok(account(store, "small", &quotas).await?.1)
}

async fn account(
    store: &Store,
    name: &str,
    quotas: &Quotas,
) -> anyhow::Result<(TenantId, [String; 2])> {
    match store.create_tenant(name, quotas).await? {
        CreateTenant::Created(tenant) => {
            let key = store.create_access_key(&tenant.id).await?;
            Ok((tenant.id, [key.id, key.secret]))
        }
        other => bail!("{other:?}"),
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
