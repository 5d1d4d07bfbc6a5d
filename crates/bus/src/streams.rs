//! The streams and their subjects.

use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use domain::message::Command;
use domain::{JobId, TenantId};

/// The work queue: each command goes to one worker.
pub const COMMANDS: &str = "JOB_CMD";

/// Changes of jobs, for observers.
pub const EVENTS: &str = "JOB_EVT";

/// Messages that could not be read or processed, unchanged.
pub const DEAD_LETTERS: &str = "JOB_DEAD";

/// The consumer that all workers share.
pub(crate) const WORKERS: &str = "workers";

pub(crate) const COMMAND_PREFIX: &str = "wherry.cmd.";
pub(crate) const EVENT_PREFIX: &str = "wherry.evt.";
pub(crate) const NUDGE_PREFIX: &str = "wherry.nudge.";
/// Prefix of a dead letter's original subject.
pub(crate) const DEAD_PREFIX: &str = "wherry.dead.";

/// Number of commands that may wait. Further commands are refused and stay in the outbox.
const MOST_COMMANDS: i64 = 100_000;
/// Time that changes are kept, and maximum of their bytes.
const EVENTS_KEPT: Duration = Duration::from_secs(24 * 3600);
const EVENTS_BYTES: i64 = 256 << 20;
/// Time that dead letters are kept in the stream, and maximum of their bytes. The rows of `dead_letter` stay until a
/// person has handled them.
const DEAD_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
const DEAD_BYTES: i64 = 64 << 20;
/// Window within which a message of the same id is accepted once.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// Time after which an unacknowledged command goes to another worker.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(30);
/// Maximum number of commands that are delivered but not acknowledged, over all workers.
const MOST_UNACKNOWLEDGED: i64 = 10_000;
/// Maximum size of a message in bytes.
const MOST_BYTES: i32 = 64 << 10;

pub(crate) fn all() -> [Config; 3] {
    [
        Config {
            name: COMMANDS.to_owned(),
            description: Some("Work for workers. Each is a hint to look at a row.".to_owned()),
            subjects: vec![format!("{COMMAND_PREFIX}*")],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            max_messages: MOST_COMMANDS,
            max_message_size: MOST_BYTES,
            duplicate_window: DUPLICATE_WINDOW,
            ..Config::default()
        },
        Config {
            name: EVENTS.to_owned(),
            description: Some("Changes of jobs, for consoles and watchers.".to_owned()),
            subjects: vec![format!("{EVENT_PREFIX}>")],
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            max_age: EVENTS_KEPT,
            max_bytes: EVENTS_BYTES,
            max_message_size: MOST_BYTES,
            duplicate_window: DUPLICATE_WINDOW,
            ..Config::default()
        },
        Config {
            name: DEAD_LETTERS.to_owned(),
            description: Some("Commands that nobody could read or do.".to_owned()),
            subjects: vec![format!("{DEAD_PREFIX}>")],
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            max_age: DEAD_KEPT,
            max_bytes: DEAD_BYTES,
            duplicate_window: DUPLICATE_WINDOW,
            ..Config::default()
        },
    ]
}

pub(crate) fn workers() -> pull::Config {
    pull::Config {
        durable_name: Some(WORKERS.to_owned()),
        description: Some("All workers; each pulls what it has slots for.".to_owned()),
        ack_wait: ACK_WAIT,
        max_ack_pending: MOST_UNACKNOWLEDGED,
        ..pull::Config::default()
    }
}

pub(crate) fn command_subject(command: &Command) -> String {
    let kind = match command {
        Command::StartRun { .. } => "start_run",
        Command::StopRun { .. } => "stop_run",
        Command::RemoveJob { .. } => "remove_job",
        Command::RemoveImage { .. } => "remove_image",
    };
    format!("{COMMAND_PREFIX}{kind}")
}

pub(crate) fn event_subject(tenant: &TenantId, job_id: &JobId) -> String {
    format!("{EVENT_PREFIX}{tenant}.{job_id}")
}
