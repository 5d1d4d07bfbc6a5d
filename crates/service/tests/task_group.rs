//! Effects of a task's death, and of draining on tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use service::{Policy, Shutdown, TaskFailure, TaskGroup};

const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn a_failing_task_is_restarted_until_it_succeeds() {
    let shutdown = Shutdown::new();
    let tasks = TaskGroup::new(shutdown.clone());
    let starts = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&starts);
    tasks.start("flaky", Policy::restart(), move || {
        let start = seen.fetch_add(1, Ordering::SeqCst);
        async move { if start < 3 { Err("not yet") } else { Ok(()) } }
    });
    tasks.join(DEADLINE).await.expect("it recovered");
    assert_eq!(starts.load(Ordering::SeqCst), 4);
    assert!(!shutdown.is_draining(), "a restart is no reason to drain");
    let metrics = telemetry::render();
    assert!(
        metrics.contains(r#"wherry_task_failures_total{task="flaky",action="restart"} 3"#),
        "{metrics}",
    );
}

#[tokio::test]
async fn a_panic_of_an_essential_task_drains_the_process_and_is_reported() {
    let shutdown = Shutdown::new();
    let tasks = TaskGroup::new(shutdown.clone());
    tasks.start_once("fragile", async {
        if std::hint::black_box(true) {
            panic!("index 7 is out of bounds");
        }
        Ok::<_, String>(())
    });
    let failure = tasks.join(DEADLINE).await.expect_err("it panicked");
    assert!(shutdown.is_draining() && !shutdown.is_exiting());
    let TaskFailure::Failed { task, source } = failure else {
        panic!("{failure:?}")
    };
    assert_eq!(
        (task, source.to_string().as_str()),
        ("fragile", "panicked: index 7 is out of bounds")
    );
}

#[tokio::test]
async fn an_exit_policy_ends_everything_at_once() {
    let shutdown = Shutdown::new();
    let tasks = TaskGroup::new(shutdown.clone());
    tasks.start("endless", Policy::essential(), || {
        std::future::pending::<Result<(), String>>()
    });
    let exit = Policy {
        on_error: service::OnError::Exit,
        ..Policy::essential()
    };
    tasks.start("fatal", exit, async || {
        Err::<(), _>("the data directory is gone")
    });
    let failure = tasks.join(DEADLINE).await.expect_err("fatal");
    assert_eq!(failure.to_string(), "task fatal failed");
    assert!(shutdown.is_exiting());
}

#[tokio::test(start_paused = true)]
async fn draining_drops_loops_and_lets_servers_finish() {
    let shutdown = Shutdown::new();
    let tasks = TaskGroup::new(shutdown.clone());
    tasks.start("loop", Policy::restart(), || {
        std::future::pending::<Result<(), String>>()
    });
    let finished = Arc::new(AtomicUsize::new(0));
    let (drain, count) = (shutdown.clone(), Arc::clone(&finished));
    tasks.start_once("server", async move {
        drain.draining().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        count.fetch_add(1, Ordering::SeqCst);
        Ok::<_, String>(())
    });
    shutdown.drain();
    tasks.join(DEADLINE).await.expect("both ended in time");
    assert_eq!(finished.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_misses_the_deadline_is_cut_off_and_named() {
    let shutdown = Shutdown::new();
    let tasks = TaskGroup::new(shutdown.clone());
    tasks.start("stubborn", Policy::essential(), || {
        std::future::pending::<Result<(), String>>()
    });
    shutdown.drain();
    let failure = tasks.join(DEADLINE).await.expect_err("it never ends");
    assert_eq!(
        failure.to_string(),
        "still running after 5s of draining: stubborn"
    );
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_does_not_wait_for_the_deadline() {
    let shutdown = Shutdown::new();
    let tasks = TaskGroup::new(shutdown.clone());
    tasks.start("stubborn", Policy::essential(), || {
        std::future::pending::<Result<(), String>>()
    });
    shutdown.exit();
    let before = tokio::time::Instant::now();
    tasks.join(DEADLINE).await.expect("asked for");
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_failed_task_is_not_started_again_while_draining() {
    let shutdown = Shutdown::new();
    let tasks = TaskGroup::new(shutdown.clone());
    let drain = shutdown.clone();
    tasks.start("late", Policy::restart().finishes(), move || {
        drain.drain();
        async { Err::<(), _>("postgres is away") }
    });
    tasks
        .join(DEADLINE)
        .await
        .expect("a restart policy does not fail the group");
}
