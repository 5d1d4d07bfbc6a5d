//! Handling of SIGTERM and SIGINT.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{ExitCode, Shutdown};

/// Time that a process has to end by itself after the second signal.
const EXIT_GRACE: Duration = Duration::from_secs(3);

/// Installs the handlers: from now on the first SIGTERM or SIGINT drains, and the second exits. If a thread hangs and
/// the process does not end within three seconds of the second signal, it is ended with [`ExitCode::Interrupted`].
///
/// # Errors
/// The kernel refuses the handlers.
pub fn handle_signals(shutdown: &Shutdown) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = shutdown.clone();
    // Not in a task group: this task must outlive them all, and has nothing to end.
    tokio::spawn(async move {
        next(&mut terminate, &mut interrupt).await;
        tracing::info!("draining: a second signal ends the process at once");
        shutdown.drain();
        next(&mut terminate, &mut interrupt).await;
        tracing::warn!("second signal: ending without draining");
        shutdown.exit();
        tokio::time::sleep(EXIT_GRACE).await;
        #[expect(
            clippy::disallowed_methods,
            reason = "the last resort: some thread hangs, and the operator has asked twice"
        )]
        std::process::exit(ExitCode::Interrupted.code());
    });
    Ok(())
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
}
