//! Jobs that deliver again and again: made, shown, changed, cut over.

use domain::JobId;
use domain::job::State;
use serde_json::json;

use crate::fixture::{Fixture, GIB, Tenant};

const MODIFY: &str = "ModifyReplicationJobAttribute";
const CUT_OVER: &str = "CutOverReplicationJob";

async fn job(fixture: &Fixture, tenant: &Tenant) -> JobId {
    let source = fixture.source(tenant, "web", &[GIB]).await;
    let parameters = [
        ("SourceId", source.as_str()),
        ("SystemDiskSize", "20"),
        ("RunOnce", "False"),
        ("Frequency", "6"),
        ("MaxNumberOfImageToKeep", "3"),
    ];
    let answer = tenant.call("CreateReplicationJob", &parameters).await;
    answer["JobId"]
        .as_str()
        .expect("a job")
        .parse()
        .expect("a job's id")
}

/// Starts the job and lets its run end, as a worker and a scheduler do.
async fn deliver(fixture: &Fixture, tenant: &Tenant, job: &JobId) {
    tenant
        .call("StartReplicationJob", &[("JobId", job.as_str())])
        .await;
    fixture.set_state(job, State::Waiting).await;
    for statement in [
        "update job_run set ended_at = started_at + interval '1 hour' where job_id = $1",
        "insert into image (id, tenant, job_id, source_id, run, epoch, region_id, name, state)
         select 'm-1', tenant, id, source_id, run, epoch, region_id, name, 'available' from job where id = $1",
        "update job set image_id = 'm-1' where id = $1",
        "insert into timer (job_id, kind, due_at) values ($1, 'run', '2027-01-01T00:00:00Z')",
        "update job set valid_until = '2027-01-02T00:00:00Z' where id = $1",
    ] {
        fixture.execute(statement, job.as_str()).await;
    }
}

#[tokio::test]
async fn frequency_images_and_runs_are_shown_and_changed() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let job = job(&fixture, &tenant).await;
    let id = ("JobId", job.as_str());
    let shown = tenant.describe(&job).await;
    assert_eq!(
        (
            &shown["RunOnce"],
            &shown["Frequency"],
            &shown["MaxNumberOfImageToKeep"]
        ),
        (&json!(false), &json!(6), &json!(3))
    );
    assert_eq!(
        shown["ReplicationJobRuns"],
        json!({ "ReplicationJobRun": [] })
    );
    tenant
        .call(MODIFY, &[id, ("MaxNumberOfImageToKeep", "4")])
        .await;
    deliver(&fixture, &tenant, &job).await;
    tenant.call(MODIFY, &[id, ("Frequency", "12")]).await;
    let shown = tenant.describe(&job).await;
    assert_eq!(
        (
            &shown["Status"],
            &shown["Frequency"],
            &shown["MaxNumberOfImageToKeep"]
        ),
        (&json!("Waiting"), &json!(12), &json!(4))
    );
    let runs = shown["ReplicationJobRuns"]["ReplicationJobRun"]
        .as_array()
        .expect("a list");
    assert_eq!(runs.len(), 1);
    assert_eq!(
        (&runs[0]["Type"], &runs[0]["ImageId"]),
        (&json!("Manual"), &json!("m-1"))
    );
    assert!(runs[0]["StartTime"].is_string() && runs[0]["EndTime"].is_string());

    fixture
        .execute(
            "update timer set due_at = '2027-01-01T00:00:00Z' where job_id = $1 and kind = 'run'",
            job.as_str(),
        )
        .await;
    let explained = tenant.call("ExplainReplicationJob", &[id]).await;
    let next = explained["Next"].as_str().expect("a sentence");
    assert!(
        next.starts_with("Its next run starts by itself at 2027-01-01T00:00:00Z"),
        "{next}"
    );

    tenant.call("StartReplicationJob", &[id]).await;
    let refusal = tenant.refusal(MODIFY, &[id, ("Frequency", "2")]).await;
    assert_eq!(refusal.code, "ReplicationJob.InvalidStatus");
    assert!(
        refusal.message.ends_with("status: Ready, Waiting."),
        "{}",
        refusal.message
    );
    fixture.set_state(&job, State::Stopped).await;
    assert_eq!(
        tenant.code(MODIFY, &[id, ("Frequency", "2")]).await,
        "ReplicationJob.InvalidStatus"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn what_is_not_waiting_is_not_cut_over() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let stranger = fixture.tenant("two").await;
    let job = job(&fixture, &tenant).await;
    let id = ("JobId", job.as_str());
    let refusal = tenant.refusal(CUT_OVER, &[id]).await;
    assert_eq!(
        (refusal.code.as_str(), refusal.http_status),
        ("ReplicationJob.InvalidStatus", 400)
    );
    assert!(
        refusal.message.ends_with("following status: Waiting."),
        "{}",
        refusal.message
    );
    deliver(&fixture, &tenant, &job).await;
    assert_eq!(
        stranger.code(CUT_OVER, &[id]).await,
        "InvalidJobId.NotFound"
    );
    fixture
        .execute(
            "update source set last_seen_at = now() - interval '1 hour' where id in (select source_id from job where id = $1)",
            job.as_str(),
        )
        .await;
    let last_run = [id, ("SyncData", "true")];
    assert_eq!(
        tenant.code(CUT_OVER, &last_run).await,
        "SourceServerState.Invalid"
    );
    // Without a last run the source is not needed.
    tenant.call(CUT_OVER, &[id]).await;
    assert_eq!(tenant.describe(&job).await["Status"], "Finished");
    assert_eq!(
        tenant.code(CUT_OVER, &last_run).await,
        "ReplicationJob.InvalidStatus"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_last_run_is_a_run_and_a_waiting_job_claims_its_source() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let job = job(&fixture, &tenant).await;
    deliver(&fixture, &tenant, &job).await;
    let shown = tenant.describe(&job).await;
    let again = [
        ("SourceId", shown["SourceId"].as_str().expect("an id")),
        ("SystemDiskSize", "20"),
    ];
    assert_eq!(
        tenant.code("CreateReplicationJob", &again).await,
        "SourceServerState.Invalid"
    );
    tenant
        .call(CUT_OVER, &[("JobId", job.as_str()), ("SyncData", "True")])
        .await;
    let shown = tenant.describe(&job).await;
    assert_eq!(
        (&shown["Status"], &shown["BusinessStatus"]),
        (&json!("Running"), &json!("Preparing"))
    );
    assert_eq!(
        shown["ReplicationJobRuns"]["ReplicationJobRun"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_job_that_delivers_once_is_not_made_to_repeat() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let job = tenant.job(&source).await;
    for (name, code) in [
        ("Frequency", "InvalidFrequency"),
        ("MaxNumberOfImageToKeep", "InvalidMaxNumberOfImageToKeep"),
    ] {
        let parameters = [("JobId", job.as_str()), (name, "2")];
        assert_eq!(tenant.code(MODIFY, &parameters).await, code);
    }
    let shown = tenant.describe(&job).await;
    assert_eq!(shown["RunOnce"], true);
    assert!(shown.get("Frequency").is_none());
    fixture.stop().await;
}
