//! The official SDK clients, and clients that are generated from the OpenAPI description, against a whole Wherry.
//! `tests/sdk` has the cases; this file gives them a deployment.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use domain::{Epoch, ImageId};
use serde_json::{Value, json};
use smc::model::{
    CreateWorkgroup, DescribeImages, DescribeReplicationJobs, JobStatus, StartReplicationJob,
};
use store::Store;
use store::key::{AccessKey, CreateTemporaryKey, CreateUserKey, TemporaryKey};
use store::network::{CreateNetwork, Network, VSwitch};
use store::policy::CreatePolicy;
use store::tenant::{CallRates, CreateTenant, Quotas};
use store::user::{AttachPolicy, CreateUser};
use tempfile::TempDir;
use testkit::cluster::{Cluster, ClusterConfig, JobOptions, REGION, Source, Tenant};
use tokio::process::Command;

const MIB: u64 = 1 << 20;

const VPC: &str = "vpc-sdk";
const VSWITCH: &str = "vsw-sdk";

/// A suite takes some ten seconds; on a slow machine more.
const SUITE_TIMEOUT: Duration = Duration::from_secs(300);

/// Jobs of the tenant that is filled with rows: of each status enough for every suite to take some.
const FILLED: u32 = 300;

/// Suites that run against one deployment, at most.
const SUITES: u32 = 4;

/// A cluster, and the settings that a suite reads of it.
struct Deployment {
    cluster: Cluster,
    environment: Vec<(&'static str, String)>,
    /// The tenant that suites own; disks and agents of its sources live as long as these.
    owner: Tenant,
    sources: Vec<Source>,
    _certificate: TempDir,
}

impl Deployment {
    /// Starts the deployment. One tenant has two sources, its network and its users; a neighbour has a source and a
    /// job. Further accounts soon reach their limits of calls or of objects. The last one has hundreds of jobs, and
    /// none of them gets a slot.
    async fn start() -> anyhow::Result<Self> {
        let certificate = tempfile::tempdir()?;
        let tls_endpoint = tls(certificate.path())?;
        let file = |name: &str| certificate.path().join(name).display().to_string();
        let cluster = Cluster::start(ClusterConfig {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_wherry")),
            workers: 1,
            environment: vec![
                ("WHERRY_API_TLS".to_owned(), tls_endpoint.clone()),
                ("WHERRY_API_CERTIFICATE".to_owned(), file("chain.pem")),
                ("WHERRY_API_KEY".to_owned(), file("key.pem")),
            ],
        })
        .await?;
        let store = &cluster.store;
        let (alice, bob) = (cluster.tenant("alice").await?, cluster.tenant("bob").await?);
        let mut sources = Vec::new();
        for name in ["first", "second"] {
            sources.push(alice.source(&cluster, name, &[24 * MIB, 4 * MIB]).await?);
        }
        let foreign = bob.source(&cluster, "foreign", &[MIB]).await?;
        let job = foreign
            .create_job(&cluster, "foreign", &JobOptions::default())
            .await?;
        let mut known = json!({
            "$vpc": VPC,
            "$vswitch": VSWITCH,
            "$foreign_source": foreign.id,
            "$foreign_job": job.id,
        });
        sources.push(foreign);
        let small = small(&cluster, &mut known, &mut sources).await?;
        let filled = filled(&cluster, &mut known, &mut sources).await?;
        let (reader, temporary, other) = readers(store, &alice).await?;
        network(store, &alice).await?;
        let keys = json!({
            "owner": [alice.key.id, alice.key.secret],
            "reader": [reader.id, reader.secret],
            "temporary": [temporary.id, temporary.secret, temporary.security_token],
            "other": [other.id, other.secret, other.security_token],
            "inactive": inactive(store, &alice).await?,
            "busy": impatient(store, "busy", 1).await?,
            "insistent": impatient(store, "insistent", 1000).await?,
            "small": [small.key.id, small.key.secret],
            "filled": [filled.key.id, filled.key.secret],
        });
        let endpoint = alice.client.endpoint();
        let host = endpoint.host_str().context("an endpoint has a host")?;
        let port = endpoint.port().context("a test's endpoint has a port")?;
        let environment = vec![
            ("WHERRY_TEST_ENDPOINT", format!("{host}:{port}")),
            ("WHERRY_TEST_TLS_ENDPOINT", tls_endpoint),
            ("NODE_EXTRA_CA_CERTS", file("authority.pem")),
            ("WHERRY_TEST_REGION", REGION.to_owned()),
            ("WHERRY_TEST_KEYS", keys.to_string()),
            ("WHERRY_TEST_KNOWN", known.to_string()),
        ];
        Ok(Self {
            cluster,
            environment,
            owner: alice,
            sources,
            _certificate: certificate,
        })
    }

    /// Compares the images that migrations through the clients have delivered with the disks of their sources.
    async fn check_images(&self) -> anyhow::Result<()> {
        let first_page = DescribeImages {
            page_size: Some(50),
            ..DescribeImages::default()
        };
        let images = self.owner.client.call(&first_page).await?.answer.images;
        let whole: Vec<_> = images
            .iter()
            .filter(|image| image.state == "Available")
            .collect();
        ensure!(!whole.is_empty(), "the migrations left no image");
        for image in whole {
            let source = self
                .sources
                .iter()
                .find(|source| image.source_id == source.id);
            let source =
                source.with_context(|| format!("an image of another source: {image:?}"))?;
            for (index, disk) in source.disks.iter().enumerate() {
                let file = self
                    .cluster
                    .images()
                    .join(&image.image_id)
                    .join(format!("disk-{index}.raw"));
                // The migration requests 20 GiB for the system disk; the other one keeps its size, in whole GiB.
                let gib = if index == 0 { 20 } else { 1 };
                testkit::cluster::disk::check_equal(disk, &file, gib << 30)?;
            }
        }
        Ok(())
    }

    /// Runs a suite, and shows what it said if it failed or ran no test.
    async fn run(
        &self,
        mut command: Command,
        count_of: fn(&str) -> Option<u32>,
    ) -> anyhow::Result<()> {
        command.current_dir(folder());
        let said = self.said(command).await?;
        match count_of(&said) {
            Some(count) if count > 0 => Ok(()),
            _ => bail!("the suite ran no test:\n{said}"),
        }
    }

    /// Runs a program of a suite that must succeed, and returns its output.
    async fn said(&self, mut command: Command) -> anyhow::Result<String> {
        command
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
        Ok(said)
    }

    /// Address of the gateway's public description.
    fn description(&self) -> anyhow::Result<String> {
        Ok(self.owner.client.endpoint().join("openapi.json")?.into())
    }
}

/// An address for HTTPS, its certificate in `directory`, and the authority that vouches for it.
fn tls(directory: &Path) -> anyhow::Result<String> {
    let authority = pki::Authority::generate("sdk test", pki::RUN_VALIDITY)?;
    let identity = authority.issue_server(&["127.0.0.1".to_owned()])?;
    std::fs::write(directory.join("authority.pem"), authority.certificate_pem())?;
    std::fs::write(directory.join("chain.pem"), identity.certificate_pem)?;
    std::fs::write(directory.join("key.pem"), identity.key_pem)?;
    let free = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(free.local_addr()?.to_string())
}

/// Keys of a user of the tenant who may read everything and change nothing: a lasting one and two temporary ones.
async fn readers(
    store: &Store,
    tenant: &Tenant,
) -> anyhow::Result<(AccessKey, TemporaryKey, TemporaryKey)> {
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
    let temporary = async || {
        let hour = Duration::from_secs(3600);
        let made = store.create_temporary_key(tenant, Some(USER), hour, None);
        match made.await? {
            CreateTemporaryKey::Created(temporary) => Ok(temporary),
            other => bail!("{other:?}"),
        }
    };
    Ok((lasting, temporary().await?, temporary().await?))
}

/// A key that was switched off.
async fn inactive(store: &Store, tenant: &Tenant) -> anyhow::Result<[String; 2]> {
    let key = store.create_access_key(&tenant.id).await?;
    ensure!(
        store
            .set_access_key_active(&tenant.id, &key.id, false)
            .await?
    );
    Ok([key.id, key.secret])
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

/// The key of an account that may call each operation once a second, and all together so often.
async fn impatient(
    store: &Store,
    name: &str,
    account_per_second: u32,
) -> anyhow::Result<[String; 2]> {
    let CreateTenant::Created(tenant) = store.create_tenant(name, &Quotas::default()).await? else {
        bail!("there is a tenant {name}")
    };
    let rates = CallRates {
        account_per_second,
        operation_per_second: 1,
    };
    ensure!(store.set_call_rates(&tenant.id, rates).await?);
    let key = store.create_access_key(&tenant.id).await?;
    Ok([key.id, key.secret])
}

/// An account that has a source and a workgroup, and may have no more, nor bring the two together.
async fn small(
    cluster: &Cluster,
    known: &mut Value,
    sources: &mut Vec<Source>,
) -> anyhow::Result<Tenant> {
    let tenant = cluster.tenant("small").await?;
    let source = tenant.source(cluster, "small", &[MIB]).await?;
    let request = CreateWorkgroup {
        name: "only".to_owned(),
        ..CreateWorkgroup::default()
    };
    let group = tenant.client.call(&request).await?;
    let quotas = Quotas {
        max_jobs: 0,
        max_access_tokens: 1,
        max_access_token_uses: 1_000_000,
        max_access_token_days: 3650,
        max_workgroups: 1,
        max_workgroup_sources: 0,
        ..Quotas::default()
    };
    ensure!(cluster.store.set_quotas(&tenant.id, &quotas).await?);
    known["$small_source"] = json!(source.id);
    known["$small_group"] = json!(group.workgroup_id);
    sources.push(source);
    Ok(tenant)
}

/// An account with jobs in every status, and their images. None of the jobs gets a slot. It also has a source with the
/// most disks possible, and a job that waits for its next run, whose source has fallen silent.
async fn filled(
    cluster: &Cluster,
    known: &mut Value,
    sources: &mut Vec<Source>,
) -> anyhow::Result<Tenant> {
    let tenant = cluster.tenant("filled").await?;
    // First, since its rows lie back from now: what comes behind is newer, and the cases take the rows of later pages.
    cluster.store.fill(&tenant.id, REGION, FILLED).await?;
    let wide = tenant.source(cluster, "wide", &[MIB; 17]).await?;
    let mut silent = tenant.source(cluster, "silent", &[MIB, MIB]).await?;
    let again = JobOptions {
        increments: Some((24, 1)),
        ..JobOptions::default()
    };
    let job = silent.create_job(cluster, "silent", &again).await?;
    job.start().await?;
    job.wait_for(SUITE_TIMEOUT, &["Waiting"]).await?;
    silent.agent.stop().await?;
    silent.let_silence_be_long(cluster).await?;
    let quotas = Quotas {
        max_running: 0,
        ..Quotas::default()
    };
    ensure!(cluster.store.set_quotas(&tenant.id, &quotas).await?);
    known["$growing_image"] = json!(images(cluster, &tenant).await?);
    known["$wide_source"] = json!(wide.id);
    known["$silent_source"] = json!(silent.id);
    known["$silent_job"] = json!(job.id);
    sources.extend([wide, silent]);
    Ok(tenant)
}

/// Images that are there, one for each suite; answers with one that is being made, and stays so: its run has no slot.
async fn images(cluster: &Cluster, tenant: &Tenant) -> anyhow::Result<String> {
    let begin = async |job: &str| {
        let image = cluster
            .store
            .begin_image(&job.parse()?, Epoch(0), &ImageId::generate())
            .await?;
        Ok::<_, anyhow::Error>(image.context("nobody else holds the job")?.id)
    };
    let jobs = async |status, size| {
        let request = DescribeReplicationJobs {
            status: Some(status),
            page_size: Some(size),
            ..DescribeReplicationJobs::default()
        };
        let jobs = tenant.client.call(&request).await?.answer.replication_jobs;
        let ids = jobs.into_iter().map(|job| job.job_id);
        Ok::<_, anyhow::Error>(ids.collect::<Vec<_>>())
    };
    let mut ready = jobs(JobStatus::Ready, 1).await?;
    let job_id = ready.pop().context("some jobs are ready")?;
    let growing = StartReplicationJob { job_id };
    tenant.client.call(&growing).await?;
    let growing = begin(&growing.job_id).await?;
    for job in jobs(JobStatus::Finished, SUITES).await? {
        let image = begin(&job).await?;
        let folder = cluster.images().join(image.as_str());
        std::fs::create_dir_all(&folder)?;
        let description = json!({"disks": []});
        std::fs::write(folder.join("image.json"), description.to_string())?;
        let finished = cluster
            .store
            .finish_image(&image, Epoch(0), "here", &description, 0);
        ensure!(finished.await?, "the image of {job}");
    }
    Ok(growing.to_string())
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
async fn clients_that_are_generated_of_the_description_make_signed_calls() -> anyhow::Result<()> {
    let deployment = Deployment::start().await?;
    let work = tempfile::tempdir()?;
    let in_work = |program: PathBuf| {
        let mut command = Command::new(program);
        command.current_dir(work.path());
        command
    };

    let tools = folder().join("../../.tools/sdk/bin");
    let mut generate = in_work(tools.join("openapi-python-client"));
    // Formatters that would run behind it.
    std::fs::write(work.path().join("config.yml"), "post_hooks: []\n")?;
    generate.args(["generate", "--url", &deployment.description()?]);
    generate.args(["--output-path", "wherry_client", "--meta", "none"]);
    generate.args(["--config", "config.yml", "--fail-on-warning"]);
    deployment.said(generate).await?;
    let mut suite = python("test_generated.py");
    suite.env("PYTHONPATH", work.path());
    deployment.run(suite, ran).await?;

    let tools = folder().join("node_modules/.bin");
    std::os::unix::fs::symlink(
        folder().join("node_modules"),
        work.path().join("node_modules"),
    )?;
    let suite = work.path().join("generated.test.mts");
    std::fs::copy(folder().join("generated.test.mts"), suite)?;
    let mut generate = in_work(tools.join("openapi-typescript"));
    generate.args([&deployment.description()?, "--output", "api.d.ts"]);
    deployment.said(generate).await?;
    let mut compile = in_work(tools.join("tsc"));
    compile.args(["--strict", "--target", "es2022", "--module", "nodenext"]);
    compile.args(["--skipLibCheck", "--allowImportingTsExtensions"]);
    compile.args(["--rewriteRelativeImportExtensions", "generated.test.mts"]);
    deployment.said(compile).await?;
    let suite = work.path().join("generated.test.mjs");
    deployment
        .run(node(&suite.display().to_string()), passed)
        .await
}

#[tokio::test]
async fn the_python_clients_find_what_they_know() -> anyhow::Result<()> {
    let deployment = Deployment::start().await?;
    deployment.run(python("test_wire.py"), ran).await?;
    deployment.run(python("test_core.py"), ran).await?;
    deployment.run(python("test_tea.py"), ran).await?;
    deployment.check_images().await
}

#[tokio::test]
async fn the_node_clients_find_what_they_know() -> anyhow::Result<()> {
    let deployment = Deployment::start().await?;
    deployment.run(node("pop_core.test.mjs"), passed).await?;
    deployment
        .run(node("openapi_client.test.mjs"), passed)
        .await?;
    deployment.check_images().await
}
