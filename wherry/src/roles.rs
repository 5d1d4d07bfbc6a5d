//! One role as a process: config, telemetry, run, drain, flush, exit code.

use std::time::Duration;

use clap::Args;
use service::{ExitCode, Shutdown};
use telemetry::TelemetryConfig;

macro_rules! roles {
    ($($name:ident, $config:path, $run:path, $service:literal;)+) => {$(
        #[derive(Debug, Args)]
        pub(crate) struct $name {
            #[command(flatten)]
            config: $config,
            #[command(flatten)]
            telemetry: TelemetryConfig,
        }

        impl $name {
            pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
                let config = self.config;
                process(self.telemetry, $service, |shutdown| async move { Ok($run(config, shutdown).await?) })
            }
        }
    )+};
}

roles! {
    Agent, agent::Config, agent::run, "wherry-agent";
}

#[cfg(feature = "service")]
roles! {
    Gateway, api_gateway::Config, api_gateway::run, "wherry-gateway";
    Scheduler, scheduler::Config, scheduler::run, "wherry-scheduler";
    Worker, worker::Config, worker::run, "wherry-worker";
    Receiver, receiver::Config, receiver::run, "wherry-receiver";
}

/// Runs `work` as a process that drains at the first signal and exits at the second.
pub(crate) fn process<F>(
    mut telemetry: TelemetryConfig,
    service_name: &'static str,
    work: impl FnOnce(Shutdown) -> F,
) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<()>>,
{
    telemetry.service_name = service_name;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        let guard = telemetry::init(&telemetry)?;
        let shutdown = Shutdown::new();
        service::handle_signals(&shutdown)?;
        let ended = work(shutdown.clone()).await;
        guard.shutdown().await;
        ended.map(|()| {
            if shutdown.is_exiting() {
                ExitCode::Interrupted
            } else {
                ExitCode::Ok
            }
        })
    });
    // A thread that hangs in a system call must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    ended
}

/// Brings the database to this version's schema.
#[cfg(feature = "service")]
#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// Postgres, as postgres://user:password@host:port/database.
    #[arg(long, env = "WHERRY_DATABASE_URL", hide_env_values = true)]
    database_url: String,
}

#[cfg(feature = "service")]
impl Migrate {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        store::migrate(&store::ConnectConfig::new(
            self.database_url,
            "wherry migrate",
        ))
        .await?;
        crate::output::line("The database has this version's schema.");
        Ok(ExitCode::Ok)
    }
}
