//! Effects of an operator's signals. There is one test only, because signals concern the entire process.

use std::time::Duration;

use nix::sys::signal::{Signal, raise};
use service::{Readiness, Shutdown, bind, handle_signals, health};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_first_signal_drains_and_the_second_exits() {
    let shutdown = Shutdown::new();
    handle_signals(&shutdown).expect("the kernel takes the handlers");
    let listener = bind(([127, 0, 0, 1], 0).into(), "--metrics")
        .await
        .expect("a free port");
    let health = tokio::spawn(health::serve(listener, Readiness::new(), shutdown.clone()));

    raise(Signal::SIGTERM).expect("sent");
    tokio::time::timeout(PATIENCE, shutdown.draining())
        .await
        .expect("it drains");
    assert!(!shutdown.is_exiting());
    assert!(!health.is_finished(), "health is shown while draining");

    raise(Signal::SIGINT).expect("sent");
    tokio::time::timeout(PATIENCE, shutdown.exiting())
        .await
        .expect("it exits");
    tokio::time::timeout(PATIENCE, health)
        .await
        .expect("the listener ends with the process")
        .expect("it did not panic")
        .expect("it did not fail");
}
