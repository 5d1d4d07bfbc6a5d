//! The bus against a real NATS: delivery, redelivery, and recovery from a wipe, a restart and invalid data.

use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, BusConfig, Delivery, Received};
use domain::job::{Event, State};
use domain::message::{Command, JobChanged, Message, TraceHeaders};
use domain::{Epoch, JobId, Run, SourceId, TenantId};
use futures::StreamExt as _;
use prost::Message as _;
use testkit::{TestNats, wait};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

async fn connect(nats: &TestNats) -> Bus {
    Bus::connect(&BusConfig::new(nats.url(), "test"))
        .await
        .expect("NATS runs")
}

fn stop(job_id: &JobId) -> Message {
    Message::Command(Command::StopRun {
        job_id: job_id.clone(),
    })
}

async fn publish(bus: &Bus, job_id: &JobId) {
    bus.publish(&stop(job_id), Uuid::now_v7(), &TraceHeaders::new())
        .await
        .expect("the stream takes it");
}

/// Returns the next command within the patience, whatever NATS must recover from first.
async fn next(commands: &mut bus::Commands) -> anyhow::Result<Delivery> {
    wait::some(PATIENCE, "a command comes", async || {
        match commands.next(1, SHORT).await.unwrap_or_default().pop() {
            Some(Received::Command(delivery)) => Ok(Some(delivery)),
            Some(Received::Undecodable(_, reason)) => {
                anyhow::bail!("undecodable: {reason}")
            }
            None => Ok(None),
        }
    })
    .await
}

#[tokio::test]
async fn a_command_comes_once_with_its_trace_and_is_gone_when_acknowledged() -> anyhow::Result<()> {
    let nats = testkit::nats().await;
    let bus = connect(&nats).await;
    let (job_id, id) = (JobId::generate(), Uuid::now_v7());
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = TraceHeaders::from([("traceparent".to_owned(), trace.to_owned())]);
    // A relay that died between publishing and marking publishes twice.
    bus.publish(&stop(&job_id), id, &headers).await?;
    bus.publish(&stop(&job_id), id, &headers).await?;
    let mut commands = bus.commands();
    let delivery = next(&mut commands).await?;
    assert_eq!(delivery.command, Command::StopRun { job_id });
    assert_eq!(delivery.headers, headers);
    delivery.acknowledge().await?;
    assert!(
        commands.next(5, SHORT).await?.is_empty(),
        "the second publication was dropped"
    );
    Ok(())
}

#[tokio::test]
async fn a_command_that_is_put_off_comes_again() -> anyhow::Result<()> {
    let nats = testkit::nats().await;
    let bus = connect(&nats).await;
    publish(&bus, &JobId::generate()).await;
    let mut commands = bus.commands();
    let first = next(&mut commands).await?;
    assert_eq!(first.deliveries, 1);
    first.later(Duration::from_millis(100)).await?;
    let again = next(&mut commands).await?;
    assert_eq!((again.deliveries, &again.command), (2, &first.command));
    Ok(())
}

#[tokio::test]
async fn nobody_gets_more_than_asked_for_and_two_workers_never_the_same() -> anyhow::Result<()> {
    let nats = testkit::nats().await;
    let bus = connect(&nats).await;
    let jobs: Vec<JobId> = (0..6).map(|_| JobId::generate()).collect();
    for job_id in &jobs {
        publish(&bus, job_id).await;
    }
    let (mut first, mut second) = (bus.commands(), connect(&nats).await.commands());
    let mut seen = Vec::new();
    wait::until(PATIENCE, "all six come", async || {
        for batch in [first.next(2, SHORT).await?, second.next(2, SHORT).await?] {
            assert!(batch.len() <= 2, "two were asked for");
            seen.extend(batch.into_iter().map(|received| match received {
                Received::Command(delivery) => delivery.command,
                Received::Undecodable(_, reason) => panic!("undecodable: {reason}"),
            }));
        }
        Ok(seen.len() >= jobs.len())
    })
    .await?;
    let expected: Vec<Command> = jobs
        .into_iter()
        .map(|job_id| Command::StopRun { job_id })
        .collect();
    assert_eq!(seen.len(), expected.len(), "each once");
    assert!(expected.iter().all(|command| seen.contains(command)));
    Ok(())
}

#[tokio::test]
async fn nonsense_is_handed_out_with_its_headers_and_stops_nobody() -> anyhow::Result<()> {
    let nats = testkit::nats().await;
    let bus = connect(&nats).await;
    let raw = raw_client(&nats).await?;
    let jetstream = async_nats::jetstream::new(raw);
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("traceparent", "00-of-somebody");
    headers.insert("Sent-By", "a later version");
    jetstream
        .publish_with_headers("wherry.cmd.start_run", headers, "nonsense".into())
        .await?
        .await?;
    let job_id = JobId::generate();
    publish(&bus, &job_id).await;
    let mut commands = bus.commands();
    let mut received = Vec::new();
    wait::until(PATIENCE, "both messages come", async || {
        received.extend(commands.next(2, SHORT).await?);
        Ok(received.len() == 2)
    })
    .await?;
    let [
        Received::Undecodable(nonsense, reason),
        Received::Command(delivery),
    ] = received.as_slice()
    else {
        panic!("{received:?}");
    };
    assert_eq!(nonsense.payload, b"nonsense");
    assert_eq!(nonsense.headers["Sent-By"], "a later version");
    nonsense.bury(reason).await?;
    assert_eq!(delivery.command, Command::StopRun { job_id });
    delivery.acknowledge().await?;

    let dead = jetstream.get_stream(bus::DEAD_LETTERS).await?;
    let kept = dead
        .get_last_raw_message_by_subject("wherry.dead.wherry.cmd.start_run")
        .await?;
    assert_eq!(kept.payload.as_ref(), b"nonsense");
    assert_eq!(
        kept.headers.get("Sent-By").unwrap().as_str(),
        "a later version"
    );
    assert_eq!(
        kept.headers.get("Wherry-Reason").unwrap().as_str(),
        reason.as_str()
    );
    let mut queue = jetstream.get_stream(bus::COMMANDS).await?;
    wait::until(PATIENCE, "the queue is empty", async || {
        Ok(queue.info().await?.state.messages == 0)
    })
    .await?;

    bus.send_again(&nonsense.subject, &nonsense.payload, &nonsense.headers)
        .await?;
    let again = wait::some(PATIENCE, "it comes again", async || {
        Ok(commands.next(1, SHORT).await?.pop())
    })
    .await?;
    let Received::Undecodable(again, _) = again else {
        panic!("{again:?}");
    };
    assert_eq!(
        (&again.payload, &again.headers["Sent-By"]),
        (&nonsense.payload, &nonsense.headers["Sent-By"])
    );
    Ok(())
}

#[tokio::test]
async fn streams_and_consumers_that_are_gone_are_made_again() -> anyhow::Result<()> {
    let nats = testkit::nats().await;
    let bus = connect(&nats).await;
    let mut commands = bus.commands();
    publish(&bus, &JobId::generate()).await;
    next(&mut commands).await?.acknowledge().await?;

    let jetstream = async_nats::jetstream::new(raw_client(&nats).await?);
    jetstream.delete_stream(bus::COMMANDS).await?;
    let job_id = JobId::generate();
    wait::until(PATIENCE, "the stream is there again", async || {
        Ok(bus
            .publish(&stop(&job_id), Uuid::now_v7(), &TraceHeaders::new())
            .await
            .is_ok())
    })
    .await?;
    assert_eq!(
        next(&mut commands).await?.command,
        Command::StopRun { job_id }
    );

    jetstream
        .get_stream(bus::COMMANDS)
        .await?
        .delete_consumer("workers")
        .await?;
    let job_id = JobId::generate();
    publish(&bus, &job_id).await;
    let found = wait::some(PATIENCE, "the new command comes", async || {
        let delivery = next(&mut commands).await?;
        Ok((delivery.command
            == Command::StopRun {
                job_id: job_id.clone(),
            })
        .then_some(delivery))
    });
    found.await?;
    Ok(())
}

#[tokio::test]
async fn nudges_and_changes_reach_who_listens() -> anyhow::Result<()> {
    let nats = testkit::nats().await;
    let (speaker, listener) = (connect(&nats).await, connect(&nats).await);
    let mut nudges = listener.nudges().await?;
    let source_id = SourceId::generate();
    let changed = JobChanged {
        tenant: TenantId::generate(),
        job_id: JobId::generate(),
        event: Event::Finish,
        from: State::Cleaning,
        to: State::Finished,
        run: Run(1),
        epoch: Epoch(2),
    };
    let subject = format!("wherry.evt.{}.{}", changed.tenant, changed.job_id);
    let mut changes = raw_client(&nats).await?.subscribe(subject).await?;
    // A subscription takes effect at the server shortly after the call. Messages until then may be lost, and are
    // repeated.
    let said = async {
        loop {
            speaker.nudge(&source_id).await.expect("NATS runs");
            let message = Message::JobChanged(changed.clone());
            speaker
                .publish(&message, Uuid::now_v7(), &TraceHeaders::new())
                .await
                .expect("NATS runs");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let heard = async { (nudges.next().await, changes.next().await) };
    let (nudged, told) = tokio::select! {
        () = said => unreachable!("it is said for ever"),
        heard = tokio::time::timeout(PATIENCE, heard) => heard?,
    };
    assert_eq!(nudged, Some(source_id));
    let told = told.context("the subscription ended")?;
    let told = proto::event::JobChanged::decode(told.payload)?;
    assert_eq!((told.job_id, told.epoch), (changed.job_id.to_string(), 2));
    assert_eq!(
        (told.event.as_str(), told.to_state.as_str()),
        ("finish", "finished")
    );
    Ok(())
}

#[tokio::test]
async fn without_nats_the_error_says_what_to_do() {
    let error = Bus::connect(&BusConfig::new("nats://127.0.0.1:1", "test"))
        .await
        .expect_err("nobody listens");
    assert!(
        error.to_string().contains("is nats-server running there"),
        "{error}"
    );
}

async fn raw_client(nats: &TestNats) -> anyhow::Result<async_nats::Client> {
    let address: async_nats::ServerAddr = nats.url().parse()?;
    let (user, password) = (
        address.username().unwrap_or_default().to_owned(),
        address.password().unwrap_or_default().to_owned(),
    );
    Ok(
        async_nats::ConnectOptions::with_user_and_password(user, password)
            .connect(address)
            .await?,
    )
}
