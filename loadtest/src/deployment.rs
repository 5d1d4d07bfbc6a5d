//! The Wherry under load: one of our own, or one that runs already.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::Value;
use tokio::process::Child;

use crate::history::Event;
use crate::process;

/// A `wherry up` may take this long until it is ready; its first start makes a database.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// A `wherry up` may take this long to drain.
const END_TIMEOUT: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(100);

/// Rows of the history that are read at once.
const HISTORY_PAGE: usize = 10_000;

/// A Wherry under test: its addresses, and its operator's access.
pub(crate) struct Deployment {
    pub(crate) endpoint: String,
    pub(crate) agent_endpoint: String,
    pub(crate) region: String,
    /// Directory of the images, if it is known here.
    pub(crate) image_store: Option<PathBuf>,
    admin_socket: PathBuf,
    /// The database of a deployment that this test started.
    database: Option<Database>,
    up: Option<Child>,
}

/// Access for rows that are written without the API.
#[derive(Deserialize)]
pub(crate) struct Database {
    #[serde(rename = "database_url")]
    pub(crate) url: String,
    pub(crate) seal_key: String,
}

/// Addresses of a Wherry that runs already.
pub(crate) struct Given {
    pub(crate) endpoint: String,
    pub(crate) agent_endpoint: String,
    pub(crate) region: String,
    pub(crate) admin_socket: PathBuf,
}

#[derive(Deserialize)]
struct Bootstrap {
    endpoint: String,
    agent_endpoint: String,
    region_id: String,
}

#[derive(Deserialize)]
struct Operator {
    admin_socket: PathBuf,
    #[serde(flatten)]
    database: Database,
}

impl Deployment {
    /// One that runs already.
    pub(crate) fn given(given: Given) -> Self {
        Self {
            endpoint: given.endpoint,
            agent_endpoint: given.agent_endpoint,
            region: given.region,
            image_store: None,
            admin_socket: given.admin_socket,
            database: None,
            up: None,
        }
    }

    /// One of our own in `folder`.
    pub(crate) async fn start(
        folder: &Path,
        region: &str,
        slots: Option<usize>,
    ) -> anyhow::Result<Self> {
        let (data_dir, log) = (folder.join("up"), folder.join("up.log"));
        let mut command = process::wherry()?;
        command
            .arg("up")
            .arg("--data-dir")
            .arg(&data_dir)
            .args(["--region", region]);
        for listener in ["--api", "--agents", "--health"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        if let Some(slots) = slots {
            command.args(["--slots", &slots.to_string()]);
        }
        let mut up = process::start(command, &log)?;
        let began = Instant::now();
        // operator.json is what a start writes last.
        let operator = loop {
            if let Ok(operator) = read::<Operator>(&data_dir.join("operator.json")) {
                break operator;
            }
            let ended = up.try_wait()?;
            if ended.is_some() || began.elapsed() > READY_TIMEOUT {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let why = said.lines().last().unwrap_or("it printed nothing");
                bail!(
                    "wherry up did not start: {}",
                    why.trim_start_matches("error: ")
                );
            }
            tokio::time::sleep(PAUSE).await;
        };
        let bootstrap: Bootstrap = read(&data_dir.join("bootstrap.json"))?;
        Ok(Self {
            endpoint: bootstrap.endpoint,
            agent_endpoint: bootstrap.agent_endpoint,
            region: bootstrap.region_id,
            image_store: Some(data_dir.join("images")),
            admin_socket: operator.admin_socket,
            database: Some(operator.database),
            up: Some(up),
        })
    }

    /// The process of a deployment of our own.
    pub(crate) fn process_id(&self) -> Option<i32> {
        self.up.as_ref()?.id()?.try_into().ok()
    }

    /// The database of a deployment of our own.
    pub(crate) fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    /// Runs `wherry admin`.
    async fn admin(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut command = process::wherry()?;
        command
            .arg("admin")
            .args(arguments)
            .args(["--output", "json"]);
        command.arg("--socket").arg(&self.admin_socket);
        process::answer(command).await
    }

    /// Makes a tenant that may have as many jobs, and run as many at once, and gives a client that signs for it.
    pub(crate) async fn tenant(
        &self,
        name: &str,
        jobs: usize,
        running_limit: usize,
    ) -> anyhow::Result<smc::Client> {
        let (jobs, running) = (jobs.to_string(), running_limit.to_string());
        let mut arguments = vec!["tenant", "create", name];
        // No tenant has more sources than jobs.
        arguments.extend(["--max-sources", &jobs, "--max-jobs", &jobs]);
        arguments.extend(["--max-running", &running]);
        let made = self.admin(&arguments).await;
        let made = made.with_context(|| format!("can't make tenant {name}"))?;
        let field = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
        let credentials = smc::Credentials::new(field("AccessKeyId"), field("AccessKeySecret"));
        Ok(smc::Client::new(&self.endpoint, credentials, &self.region)?)
    }

    /// The whole history behind `after`.
    pub(crate) async fn history(&self, after: i64) -> anyhow::Result<Vec<Event>> {
        let mut history: Vec<Event> = Vec::new();
        loop {
            let after = history.last().map_or(after, |row| row.seq).to_string();
            let limit = HISTORY_PAGE.to_string();
            let rows = self
                .admin(&["history", "--after", &after, "--limit", &limit])
                .await?;
            let rows: Vec<Event> =
                serde_json::from_value(rows).context("wherry admin history printed no history")?;
            let is_last = rows.len() < HISTORY_PAGE;
            history.extend(rows);
            if is_last {
                return Ok(history);
            }
        }
    }

    /// Ends the deployment, if it is our own.
    pub(crate) async fn end(mut self) {
        if let Some(mut up) = self.up.take() {
            process::ask_to_end(&up);
            // Too late is no finding of this test: the child is killed when it is dropped.
            let _ended = tokio::time::timeout(END_TIMEOUT, up.wait()).await;
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(path: &PathBuf) -> anyhow::Result<T> {
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}
