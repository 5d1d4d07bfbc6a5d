//! Start, Stop and Delete: the states in which each is allowed (SMC API §1.7, §5.4), and the effect of an offline agent
//! on a start.

use domain::job::State;

use crate::fixture::{Fixture, GIB};

#[tokio::test]
async fn each_operation_is_allowed_exactly_where_the_contract_says() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let job = tenant.job(&source).await;
    let id = [("JobId", job.as_str())];
    for state in State::ALL {
        for (action, allowed, wrong) in [
            (
                "StartReplicationJob",
                matches!(
                    state,
                    State::Ready | State::Stopped | State::InError | State::Waiting
                ),
                "ReplicationJob.InvalidStatus",
            ),
            (
                "StopReplicationJob",
                matches!(state, State::Syncing | State::Parked | State::Waiting),
                if state.is_running() {
                    "ReplicationJob.InvalidBusinessStatus"
                } else {
                    "ReplicationJob.InvalidStatus"
                },
            ),
            (
                "DeleteReplicationJob",
                !state.is_running() && state != State::Deleting,
                "ReplicationJob.InvalidStatus",
            ),
        ] {
            fixture.set_state(&job, state).await;
            if allowed {
                tenant.call(action, &id).await;
            } else {
                let refusal = tenant.refusal(action, &id).await;
                assert_eq!(
                    (refusal.code.as_str(), refusal.http_status),
                    (wrong, 400),
                    "{action} in {state}"
                );
                assert!(
                    refusal
                        .message
                        .contains("can only be performed in the following status: "),
                    "{}",
                    refusal.message
                );
            }
        }
    }
    for action in [
        "StartReplicationJob",
        "StopReplicationJob",
        "DeleteReplicationJob",
    ] {
        let refusal = tenant.refusal(action, &[("JobId", "j-none")]).await;
        assert_eq!(
            (refusal.code.as_str(), refusal.http_status),
            ("InvalidJobId.NotFound", 404)
        );
        assert_eq!(tenant.code(action, &[]).await, "MissingJobId");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn what_is_asked_for_is_recorded_and_answered_at_once() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let job = tenant.job(&source).await;
    let id = [("JobId", job.as_str())];
    tenant.call("StartReplicationJob", &id).await;
    fixture.set_state(&job, State::Syncing).await;
    tenant.call("StopReplicationJob", &id).await;
    assert_eq!(
        tenant.describe(&job).await["BusinessStatus"],
        "Syncing",
        "its worker stops it"
    );
    let (intent,): (String,) = sqlx::query_as("select intent from job where id = $1")
        .bind(job.as_str())
        .fetch_one(&fixture.pool)
        .await
        .expect("the job");
    assert_eq!(intent, "stop");
    fixture.set_state(&job, State::Stopped).await;
    tenant.call("DeleteReplicationJob", &id).await;
    assert_eq!(
        tenant.describe(&job).await["Status"],
        "Deleting",
        "a worker removes it"
    );
    let (messages,): (i64,) =
        sqlx::query_as("select count(*) from outbox where message ? 'command'")
            .fetch_one(&fixture.pool)
            .await
            .expect("the outbox");
    assert_eq!(messages, 2, "stop and remove");
    fixture.stop().await;
}

#[tokio::test]
async fn a_job_of_an_offline_source_does_not_start() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let job = tenant.job(&source).await;
    let id = [("JobId", job.as_str())];
    fixture
        .execute(
            "update source set last_seen_at = now() - interval '2 minutes' where id = $1",
            source.as_str(),
        )
        .await;
    let refusal = tenant.refusal("StartReplicationJob", &id).await;
    assert_eq!(refusal.code, "SourceServerState.Invalid");
    assert!(
        refusal
            .message
            .contains("The agent of the source is offline"),
        "{}",
        refusal.message
    );
    assert_eq!(
        tenant.describe(&job).await["Status"],
        "Ready",
        "nothing has happened"
    );
    fixture
        .execute(
            "update source set last_seen_at = now() where id = $1",
            source.as_str(),
        )
        .await;
    tenant.call("StartReplicationJob", &id).await;
    fixture.stop().await;
}

#[tokio::test]
async fn of_starts_sent_at_once_one_starts_the_job() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let job = tenant.job(&source).await;
    let id = [("JobId", job.as_str())];
    let calls = (0..6).map(|_| tenant.client.call_by_name("StartReplicationJob", &id));
    let started = futures::future::join_all(calls)
        .await
        .into_iter()
        .filter(Result::is_ok)
        .count();
    assert_eq!(started, 1);
    let info = tenant.describe(&job).await["StatusInfo"]
        .as_str()
        .expect("a text")
        .to_owned();
    assert!(info.contains("\"run\":1"), "{info}");
    fixture.stop().await;
}
