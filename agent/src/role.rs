//! The agent's life: lock the state directory, inspect the disks, register once, keep the connection.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pki::KeyPair;
use service::{Policy, Readiness, Shutdown, TaskGroup, health};
use tokio::sync::watch;
use transfer::limits::SharedLimit;

use crate::assignment::{Assignments, Board, Sending};
use crate::gateway::{self, Link, Renewal};
use crate::instance;
use crate::inventory::{self, Collector, Snapshot};
use crate::state_dir::{Registration, StateDir};
use crate::{ActivationCode, Config, Error};

/// Longest pause between two inspections of the disks: heartbeats may be rare, but a failing disk must be known soon.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Runs the agent until it is asked to end.
///
/// # Errors
/// Errors that a person must act on: see [`Error`]. A gateway or receiver that does not answer is no error; the agent
/// keeps calling.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), Error> {
    // Ends with this call, whatever the call's outcome.
    let shutdown = shutdown.child();
    let readiness = Readiness::new();
    let connected = readiness.condition("agent.gateway");
    let lived = health::shown(
        config.health,
        readiness,
        &shutdown,
        Box::pin(live(&config, &shutdown, connected)),
    )
    .await;
    shutdown.exit();
    lived
}

async fn live(
    config: &Config,
    shutdown: &Shutdown,
    connected: health::Condition,
) -> Result<(), Error> {
    refuse_repeated_disks(config).await?;
    let state = Arc::new(StateDir::open(&config.state_dir)?);
    let key = state.key()?;
    let tasks = TaskGroup::new(shutdown.clone());
    let snapshots = look_at_the_disks(config, &tasks).await;
    let registration = tokio::select! {
        registered = registration(config, &state, &key, &snapshots) => registered?,
        () = shutdown.draining() => return Ok(()),
    };
    tracing::info!(source_id = %registration.source_id, server = %config.server, "this server is a source");
    let board = Board::default();
    let sending = Sending {
        key_pem: key.to_pem().into(),
        board: board.clone(),
        snapshots: snapshots.clone(),
        reconnect_most: config.reconnect_max(),
        shared_limit: config.bandwidth_limit.map(SharedLimit::new),
        change_tracking: config.change_tracking,
        scratch: config.state_dir.clone(),
    };
    let link = Link {
        config: config.clone(),
        source_id: registration.source_id.clone(),
        endpoint: gateway::endpoint(config, &registration, &key)?,
        renewal: Renewal::new(Arc::clone(&state), key, registration),
        snapshots,
        assignments: Assignments::new(tasks.clone(), sending),
        board,
        instance: instance::of_this_process(&config.state_dir),
        connected,
        is_clock_off: false,
    };
    tasks.start_once("link", link.hold(shutdown.clone()));
    tasks.join(config.drain_timeout()).await?;
    Ok(())
}

/// Refuses to start with one disk under two names. If the disks do not answer, the inventory reports that later.
async fn refuse_repeated_disks(config: &Config) -> Result<(), Error> {
    let named = config.disks();
    let looking = tokio::task::spawn_blocking(move || inventory::repeated_among(&named));
    match tokio::time::timeout(config.request_timeout(), looking).await {
        Ok(Ok(Some(message))) => Err(Error::DiskRepeated { message }),
        _ => Ok(()),
    }
}

/// Starts the task that inspects the disks, and waits briefly for its first result.
async fn look_at_the_disks(config: &Config, tasks: &TaskGroup) -> watch::Receiver<Snapshot> {
    let collector = Arc::new(Mutex::new(Collector::new(config)));
    let (sender, mut snapshots) = watch::channel(Snapshot::unknown());
    let interval = config.heartbeat_interval().min(LOOK_INTERVAL);
    let sender = Arc::new(sender);
    tasks.start("inventory", Policy::restart(), move || {
        inventory::keep_up(Arc::clone(&collector), Arc::clone(&sender), interval)
    });
    // A disk that hangs must not keep the agent from reporting that.
    let _ = tokio::time::timeout(config.request_timeout(), snapshots.changed()).await;
    snapshots
}

async fn registration(
    config: &Config,
    state: &StateDir,
    key: &KeyPair,
    snapshots: &watch::Receiver<Snapshot>,
) -> Result<Registration, Error> {
    if let Some(registration) = state.registration()? {
        let has_code = config.activation_code.is_some() || config.activation_code_file.is_some();
        if !gateway::has_expired(&registration) {
            return Ok(registration);
        }
        // The key is the same, so the gateway answers with the existing source.
        tracing::warn!(source_id = %registration.source_id, has_code, "the agent's certificate has expired: an activation code is needed to register it again");
        if !has_code {
            return Ok(registration);
        }
    }
    let code = match (&config.activation_code, &config.activation_code_file) {
        (Some(code), _) => code.clone(),
        (None, Some(path)) => ActivationCode::read(path).await?,
        (None, None) => return Err(Error::NotRegistered),
    };
    let inventory = snapshots.borrow().inventory.clone();
    let registration = gateway::register(config, &code, key, inventory).await?;
    state.keep(&registration)?;
    Ok(registration)
}
