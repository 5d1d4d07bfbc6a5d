//! Every metric of Wherry, with the facts that an operator needs to interpret it.
//!
//! A metric belongs here only if it has a place on the dashboard or in an alert; crates/testkit/tests/deploy.rs
//! enforces that. Label values come from small fixed sets: never an id, never text that another party chose.

/// Kinds of metrics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only increases; starts at zero with the process.
    Counter,
    /// A current value.
    Gauge,
    /// A distribution, counted in buckets with these upper bounds, in the unit of the metric's name.
    Histogram(&'static [f64]),
}

/// One label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// The values that it takes.
    pub values: &'static str,
}

/// Everything about one metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spec {
    /// Name as Prometheus receives it; a histogram adds `_bucket`, `_sum` and `_count`.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Its labels; each use gives all of them.
    pub labels: &'static [Label],
    /// Its meaning, in one sentence.
    pub help: &'static str,
}

/// Bounds for answers within a request: 1 ms to 30 s.
const LATENCY_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Bounds for waiting in a queue or for a timer: 10 ms to an hour.
const WAIT_SECONDS: &[f64] = &[
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
];
/// Bounds for the time to move disks: one second to three days.
const RUN_SECONDS: &[f64] = &[
    1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0, 259_200.0,
];
/// Bounds from 1 MB/s to 4 GB/s.
const BYTES_PER_SECOND: &[f64] = &[
    1e6, 4e6, 16e6, 32e6, 64e6, 128e6, 256e6, 512e6, 1e9, 2e9, 4e9,
];

macro_rules! metrics {
    ($($variant:ident: $kind:expr, $name:literal, { $($label:ident: $values:literal),* $(,)? }, $help:literal;)*) => {
        /// Every metric.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Metric {
            $(#[doc = concat!("`", $name, "`: ", $help)] $variant,)*
        }

        impl Metric {
            /// Every metric, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the description of this metric.
            pub const fn spec(self) -> Spec {
                match self {
                    $(Self::$variant => Spec {
                        name: $name,
                        kind: $kind,
                        labels: &[$(Label { name: stringify!($label), values: $values },)*],
                        help: $help,
                    },)*
                }
            }
        }
    };
}

metrics! {
    // The API.
    ApiRequestSeconds: Kind::Histogram(LATENCY_SECONDS), "wherry_api_request_seconds",
        { action: "the API's action, or `unknown`", code: "`OK`, or the error code of the answer" },
        "Time from a request's arrival to its answer; `_count` is the number of requests.";
    ApiRequestsInFlight: Kind::Gauge, "wherry_api_requests_in_flight", {},
        "Requests being answered now.";

    // Jobs.
    Jobs: Kind::Gauge, "wherry_jobs", { state: "state of the job" },
        "Jobs in each state, read from Postgres by every scheduler: take the maximum over schedulers.";
    JobTransitions: Kind::Counter, "wherry_job_transitions_total",
        { event: "event of the state machine", state: "state after it" },
        "Transitions of jobs made by this process.";
    JobEventsIgnored: Kind::Counter, "wherry_job_events_ignored_total",
        { event: "event of the state machine", reason: "`late`, `repeated` or `impossible`" },
        "Events that changed nothing, because the job had moved on or could never have been there.";
    JobStartSeconds: Kind::Histogram(WAIT_SECONDS), "wherry_job_start_seconds", {},
        "Time from a job's start being asked for to a worker holding its first lease of that run.";
    RunSeconds: Kind::Histogram(RUN_SECONDS), "wherry_run_seconds",
        { outcome: "`finished`, `stopped`, `failed`, `removed`, `handed_over` (its worker drained), `parked` (its agent is silent), `yielded` (another account had fewer places) or `lease_lost`" },
        "Time that a worker spent with a run, from its claim to its end here.";
    RunPhaseSeconds: Kind::Histogram(RUN_SECONDS), "wherry_run_phase_seconds",
        { phase: "`preparing`, `syncing`, `processing` or `cleaning`" },
        "Time that a run spent in one phase, ended phases only.";
    RunFailures: Kind::Counter, "wherry_run_failures_total", { code: "failure code of the job" },
        "Runs that ended in an error.";

    // The queue and the scheduler.
    QueueJobs: Kind::Gauge, "wherry_queue_jobs", { state: "`waiting_for_slot`, `waiting_for_worker` or `leased`" },
        "Started jobs by what they wait for, read from Postgres by every scheduler.";
    QueueOldestSeconds: Kind::Gauge, "wherry_queue_oldest_seconds", { state: "`waiting_for_slot` or `waiting_for_worker`" },
        "How long the oldest job has waited for that, zero when none does.";
    JobsAdmitted: Kind::Counter, "wherry_jobs_admitted_total", {},
        "Jobs that were given a slot of their tenant.";
    TimerLatenessSeconds: Kind::Histogram(WAIT_SECONDS), "wherry_timer_lateness_seconds",
        { kind: "`start`, `run`, `expire` or `purge`" },
        "How much later than due a timer was acted upon.";
    OutboxRows: Kind::Gauge, "wherry_outbox_rows", {},
        "Messages written but not yet published.";
    OutboxAgeSeconds: Kind::Gauge, "wherry_outbox_age_seconds", {},
        "Age of the oldest message not yet published, zero when there is none.";
    RelayPublished: Kind::Counter, "wherry_relay_published_total", { outcome: "`published`, `failed` or `unreadable`" },
        "Messages that the relay gave to NATS, or failed to.";
    ReconcilerRepairs: Kind::Counter, "wherry_reconciler_repairs_total", { kind: "what was repaired, from a fixed list" },
        "Jobs that the reconciler had to push on because a message was lost.";
    Messages: Kind::Counter, "wherry_messages_total",
        { stream: "name of the stream", outcome: "`handled`, `ignored`, `retried` or `dead`" },
        "Messages taken from NATS.";

    // Leases and workers.
    LeasesClaimed: Kind::Counter, "wherry_leases_claimed_total", {},
        "Leases granted to this worker.";
    LeasesLost: Kind::Counter, "wherry_leases_lost_total", { reason: "`expired` or `taken`" },
        "Leases that this worker lost before it was done.";
    LeasesSwept: Kind::Counter, "wherry_leases_swept_total", {},
        "Dead leases that the scheduler took away.";
    LeasesHeld: Kind::Gauge, "wherry_leases_held", {},
        "Leases that this worker holds.";
    LeaseRenewalSeconds: Kind::Histogram(LATENCY_SECONDS), "wherry_lease_renewal_seconds", { outcome: "`renewed` or `failed`" },
        "Time of one renewal of all of a worker's leases.";
    WorkerSlotsUsed: Kind::Gauge, "wherry_worker_slots_used", {},
        "Runs that this worker drives.";
    WorkerSlotsLimit: Kind::Gauge, "wherry_worker_slots_limit", {},
        "Runs that this worker may drive at once.";
    Instances: Kind::Gauge, "wherry_instances", {},
        "Intermediate instances on this worker's machine, parked ones too.";

    // Sources.
    Agents: Kind::Gauge, "wherry_agents", { state: "`online` or `offline`" },
        "Registered sources by whether their agent was heard lately, read from Postgres by every scheduler.";
    AgentsConnected: Kind::Gauge, "wherry_agents_connected", {},
        "Agents whose connection is open at this gateway.";
    AgentRegistrations: Kind::Counter, "wherry_agent_registrations_total", { outcome: "`registered` or `refused`" },
        "Attempts of agents to register.";

    // The data path, as receivers report it to the worker.
    TransferBytes: Kind::Counter, "wherry_transfer_bytes_total",
        { kind: "`durable` (written and flushed) or `wire` (received)" },
        "Bytes of disks that receivers took in.";
    TransferBytesPerSecond: Kind::Histogram(BYTES_PER_SECOND), "wherry_transfer_bytes_per_second", {},
        "Mean durable rate of a run's copy, once the copy is done.";
    ReceiverFailures: Kind::Counter, "wherry_receiver_failures_total", { code: "failure code of the receiver" },
        "Failures that receivers reported.";
    ImageBuildSeconds: Kind::Histogram(RUN_SECONDS), "wherry_image_build_seconds", { outcome: "`built` or `failed`" },
        "Time to verify the disks and to build and store an image.";
    StorageFreeBytes: Kind::Gauge, "wherry_storage_free_bytes", { store: "`instances` or `images`" },
        "Free space where instances or images lie.";
    StorageSizeBytes: Kind::Gauge, "wherry_storage_size_bytes", { store: "`instances` or `images`" },
        "Size of the file system where instances or images lie.";

    // Connections.
    Connections: Kind::Gauge, "wherry_connections",
        { listener: "`api`, `agents` or `receiver`", caller: "`stranger` or `known`, by a certificate or a valid signature" },
        "Connections that are open at a listener. A receiver shows its own where its health address is set.";
    ConnectionsEnded: Kind::Counter, "wherry_connections_ended_total",
        { listener: "`api`, `agents` or `receiver`",
          reason: "`crowded`, `address`, `caller`, `silent`, `idle` or `slow`; docs/security.md says what each means" },
        "Connections that a listener ended by itself. Workers count for their receivers.";
    AgentCallsDeferred: Kind::Counter, "wherry_agent_calls_deferred_total", { call: "`register`, `renew`, `heartbeat` or `watch`" },
        "Calls of agents that came too early and were told when to come again.";

    // The process and what it needs.
    DependencyUp: Kind::Gauge, "wherry_dependency_up", { dependency: "`postgres`, `nats` or `stores`: instances and images" },
        "1 while this process reaches it, else 0.";
    PostgresConnections: Kind::Gauge, "wherry_postgres_connections", { state: "`used` or `idle`" },
        "Connections of this process's pool.";
    TaskFailures: Kind::Counter, "wherry_task_failures_total",
        { task: "name of the task", action: "`restart`, `drain` or `exit`" },
        "Background tasks that failed or panicked, by what was done about it.";
    ProcessResidentBytes: Kind::Gauge, "wherry_process_resident_bytes", {},
        "Memory of this process that is in RAM.";
    ProcessCpuSeconds: Kind::Counter, "wherry_process_cpu_seconds_total", {},
        "Processor time of this process, user and system, in whole seconds.";
    ProcessOpenFiles: Kind::Gauge, "wherry_process_open_files", {},
        "File descriptors that this process has open.";
    ProcessUptimeSeconds: Kind::Gauge, "wherry_process_uptime_seconds", {},
        "Time since telemetry was set up in this process.";
    BuildInfo: Kind::Gauge, "wherry_build_info", { version: "version of the program" },
        "Always 1; says which version runs.";
}
