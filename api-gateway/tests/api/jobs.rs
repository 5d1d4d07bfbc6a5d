//! DescribeReplicationJobs, ModifyReplicationJobAttribute, ExplainReplicationJob.

use domain::job::{Event, State};
use domain::message::TraceHeaders;
use domain::status_info::StatusInfo;
use domain::{Failure, FailureCode};
use store::job::{Change, Guard, Transitioned};

use crate::fixture::{Fixture, GIB};

const MODIFY: &str = "ModifyReplicationJobAttribute";

#[tokio::test]
async fn jobs_are_found_by_every_filter() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let web = fixture.source(&tenant, "web", &[GIB]).await;
    let database = fixture.source(&tenant, "database", &[GIB]).await;
    let first = tenant.job(&web).await;
    let second = tenant.job(&database).await;
    tenant
        .call("StartReplicationJob", &[("JobId", second.as_str())])
        .await;
    fixture.set_state(&second, State::Syncing).await;
    let first_name = format!("Job_{first}");
    for (filters, wanted) in [
        (&[][..], vec![&second, &first]),
        (
            &[("JobId.1", first.as_str()), ("JobId.3", "j-none")],
            vec![&first],
        ),
        (&[("SourceId.1", web.as_str())], vec![&first]),
        (&[("Name", first_name.as_str())], vec![&first]),
        (&[("Status", "Running")], vec![&second]),
        (&[("Status", "Ready")], vec![&first]),
        (&[("BusinessStatus", "Syncing")], vec![&second]),
        (&[("BusinessStatus", "Cleaning")], vec![]),
        (
            &[("Status", "Ready"), ("BusinessStatus", "Syncing")],
            vec![],
        ),
        (&[("RegionId", "elsewhere")], vec![]),
        (&[("JobType", "0"), ("Status", "Ready")], vec![&first]),
        (&[("JobType", "2")], vec![]),
        (&[("InstanceId.1", "i-1")], vec![]),
        (&[("ResourceGroupId", "rg-1")], vec![]),
        (&[("PageSize", "1"), ("PageNumber", "2")], vec![&first]),
    ] {
        let answer = tenant.call("DescribeReplicationJobs", filters).await;
        let found: Vec<&str> = answer["ReplicationJobs"]["ReplicationJob"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|job| job["JobId"].as_str().expect("an id"))
            .collect();
        assert_eq!(
            found,
            wanted.iter().map(|id| id.as_str()).collect::<Vec<_>>(),
            "{filters:?}"
        );
    }
    for (filter, code) in [
        (("Status", "running"), "InvalidStatus"),
        (("BusinessStatus", "Copying"), "InvalidBusinessStatus"),
        (("JobId.51", "j-1"), "InvalidJobId"),
        (("JobType", "4"), "InvalidJobType"),
        (("PageSize", "51"), "InvalidPageSize"),
    ] {
        assert_eq!(
            tenant.code("DescribeReplicationJobs", &[filter]).await,
            code,
            "{filter:?}"
        );
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_running_job_shows_measured_progress_and_what_it_does() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let job = tenant.job(&source).await;
    tenant
        .call("StartReplicationJob", &[("JobId", job.as_str())])
        .await;
    let shown = tenant.describe(&job).await;
    assert_eq!(
        (&shown["Status"], &shown["BusinessStatus"]),
        (&"Running".into(), &"Preparing".into())
    );
    let info = StatusInfo::from_json(shown["StatusInfo"].as_str().expect("a text")).expect("JSON");
    assert_eq!((info.queue_position, info.run), (Some(1), Some(1)));

    // The rows that a worker writes while it copies.
    fixture
        .execute(
            "update job set state = 'syncing', admitted_at = now(), bytes_durable = 250, bytes_total = 1000, instance_id = 'i-abc',
                 observed = '{\"run\":1,\"doing\":\"first pass\",\"rate_bytes_per_sec\":10}' where id = $1",
            job.as_str(),
        )
        .await;
    fixture
        .execute(
            "insert into job_event (job_id, tenant, event, from_state, to_state, run, epoch, actor)
             select id, tenant, 'prepared', 'preparing', 'syncing', 1, 1, 'worker w-1' from job where id = $1",
            job.as_str(),
        )
        .await;
    let shown = tenant.describe(&job).await;
    assert_eq!(shown["Progress"], 22.5);
    assert_eq!(shown["BusinessStatus"], "Syncing");
    assert_eq!(shown["TransitionInstanceId"], "i-abc");
    let info = StatusInfo::from_json(shown["StatusInfo"].as_str().expect("a text")).expect("JSON");
    assert_eq!(info.doing.as_deref(), Some("first pass"));
    assert_eq!(
        (info.bytes_durable, info.bytes_total, info.queue_position),
        (Some(250), Some(1000), None)
    );

    fixture
        .execute(
            "update job set state = 'in_error', admitted_at = null, failure_code = 'ReplicationJob.TargetFull',
                 failure_message = 'The store is full.' where id = $1",
            job.as_str(),
        )
        .await;
    let shown = tenant.describe(&job).await;
    assert_eq!(
        (&shown["Status"], &shown["ErrorCode"]),
        (&"InError".into(), &"ReplicationJob.TargetFull".into())
    );
    assert!(shown.get("BusinessStatus").is_none());
    let info = StatusInfo::from_json(shown["StatusInfo"].as_str().expect("a text")).expect("JSON");
    assert_eq!(info.error_msg.as_deref(), Some("The store is full."));
    assert_eq!(info.doing, None, "a job that does not run does nothing");

    // The next run begins without the reports of the last.
    tenant
        .call("StartReplicationJob", &[("JobId", job.as_str())])
        .await;
    let shown = tenant.describe(&job).await;
    assert_eq!(
        (&shown["ErrorCode"], &shown["Progress"]),
        (&"".into(), &0.0.into())
    );
    fixture.stop().await;
}

#[tokio::test]
async fn the_cause_of_a_failure_is_the_operators_and_in_no_answer_of_the_tenant() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let job = tenant.job(&source).await;
    let named = [("JobId", job.as_str())];
    tenant.call("StartReplicationJob", &named).await;
    let failure = Failure::new(FailureCode::ImageFailed, "The image can't be made.");
    let failure = failure.with_cause("can't write /srv/images/m-1: Input/output error");
    let change = Change {
        event: Event::Fail,
        guard: Guard::Unleased,
        actor: "worker w-1",
        detail: "",
        failure: Some(&failure),
        headers: &TraceHeaders::default(),
    };
    let moved = fixture.store.transition(&job, change).await;
    assert!(matches!(moved, Ok(Transitioned::Moved(_))), "{moved:?}");

    let listed = [("JobId.1", job.as_str())];
    for (action, parameters) in [
        ("DescribeReplicationJobs", &listed),
        ("ExplainReplicationJob", &named),
    ] {
        let answer = tenant.call(action, parameters).await.to_string();
        assert!(answer.contains("The image can't be made."), "{answer}");
        assert!(!answer.contains("/srv"), "{answer}");
    }
    let history = fixture.store.history(0, 10, None).await.expect("rows");
    let failed = history.iter().find(|row| row.event == Event::Fail);
    assert_eq!(failed.map(|row| &row.cause), Some(&failure.cause));
    let before = history.iter().filter(|row| row.event != Event::Fail);
    assert!(before.map(|row| &row.cause).all(String::is_empty));
    // The role of tenants' calls can't read it, whatever a statement asks for.
    let mut connection = fixture.pool.acquire().await.expect("a connection");
    let statement = "set role wherry_tenant; select cause from failure_cause";
    let refused = sqlx::raw_sql(statement).fetch_all(&mut *connection).await;
    assert!(refused.is_err(), "{refused:?}");
    fixture.stop().await;
}

const LIMITED: &str = r#"{"bandwidth_limit":1000,"checksum":true}"#;

fn has_still_to_deliver(state: State) -> bool {
    !matches!(state, State::Deleting | State::Finished | State::Expired)
}

#[tokio::test]
async fn what_may_change_depends_on_how_far_the_job_is() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[30 * GIB, GIB]).await;
    let create = [("SourceId", source.as_str()), ("SystemDiskSize", "30")];
    let answer = tenant.call("CreateReplicationJob", &create).await;
    let job: domain::JobId = answer["JobId"]
        .as_str()
        .expect("a job")
        .parse()
        .expect("an id");
    let id = ("JobId", job.as_str());
    let valid = tenant.describe(&job).await["ValidTime"]
        .as_str()
        .expect("a time")
        .to_owned();
    let changes = [
        ("Name", "renamed"),
        ("Description", "described"),
        ("ValidTime", valid.as_str()),
        ("ImageName", "image"),
        ("TargetType", "image"),
        ("SystemDiskSize", "50"),
        ("ReplicationParameters", r#"{"compress_level":3}"#),
        ("ReplicationParameters", LIMITED),
    ];
    for state in State::ALL {
        fixture.set_state(&job, state).await;
        for change in changes {
            let allowed = match change.0 {
                "Name" | "Description" => state != State::Deleting,
                // Of the copy's parameters, a run takes up a new limit only.
                "ValidTime" => has_still_to_deliver(state),
                _ if change.1 == LIMITED => has_still_to_deliver(state),
                _ => state == State::Ready,
            };
            if allowed {
                tenant.call(MODIFY, &[id, change]).await;
            } else {
                let code = tenant.code(MODIFY, &[id, change]).await;
                assert_eq!(
                    code, "ReplicationJob.InvalidStatus",
                    "{change:?} in {state}"
                );
            }
        }
    }
    let shown = tenant.describe(&job).await;
    assert_eq!(
        (&shown["Name"], &shown["SystemDiskSize"]),
        (&"renamed".into(), &50.into())
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_changed_job_keeps_every_rule() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB, 25 * GIB, GIB]).await;
    let job = tenant.job(&source).await;
    let other = fixture.source(&tenant, "other", &[GIB]).await;
    let taken = format!("Job_{}", tenant.job(&other).await);
    let id = ("JobId", job.as_str());
    tenant
        .call(
            MODIFY,
            &[id, ("DataDisk.1.Index", "2"), ("DataDisk.1.Size", "60")],
        )
        .await;
    assert_eq!(
        tenant.describe(&job).await["DataDisks"]["DataDisk"],
        serde_json::json!([{ "Index": 1, "Size": 25 }, { "Index": 2, "Size": 60 }])
    );
    for (change, code) in [
        (
            &[("Name", taken.as_str())][..],
            "ReplicationJobName.Duplicate",
        ),
        (
            &[("DataDisk.1.Index", "1"), ("DataDisk.1.Size", "24")],
            "InvalidDataDisk.Size",
        ),
        (
            &[("DataDisk.1.Index", "9"), ("DataDisk.1.Size", "24")],
            "ReplicationJobDataDiskIndex.Invalid",
        ),
        (
            &[
                ("DataDisk.1.Index", "1"),
                ("DataDisk.1.Size", "25"),
                ("DataDisk.2.Index", "1"),
                ("DataDisk.2.Size", "26"),
            ],
            "DataDisk.DuplicateIndex",
        ),
        (
            &[("ScheduledStartTime", "2020-01-01T00:00:00Z")],
            "InvalidScheduledStartTime",
        ),
        (&[("ValidTime", "2020-01-01T00:00:00Z")], "InvalidValidTime"),
        (&[("Frequency", "2")], "InvalidFrequency"),
        // Fixed properties of a job, or those that another operation changes, are not ignored in silence.
        (&[("RunOnce", "true")], "InvalidRunOnce"),
        (&[("JobType", "0")], "InvalidJobType"),
        (&[("SourceId", source.as_str())], "InvalidSourceId"),
        (&[("Disks.System.Size", "40")], "InvalidDisks"),
        (&[("Tag.1.Key", "rack")], "InvalidTag"),
        (&[("LicenseType", "BYOL")], "InvalidLicenseType"),
        (&[("ResourceGroupId", "rg-1")], "InvalidResourceGroupId"),
        (&[("TargetType", "ContainerImage")], "InvalidTargetType"),
        (&[("JobId", "")], "MissingJobId"),
    ] {
        let mut parameters = vec![id];
        parameters.retain(|(name, _)| change.iter().all(|(changed, _)| changed != name));
        parameters.extend(change);
        assert_eq!(tenant.code(MODIFY, &parameters).await, code, "{change:?}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_job_is_explained_with_its_history() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    fixture
        .execute(
            "update tenant set max_running = 1 where id = $1",
            tenant.id.as_str(),
        )
        .await;
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let job = tenant.job(&source).await;
    let id = [("JobId", job.as_str())];
    let answer = tenant.call("ExplainReplicationJob", &id).await;
    assert_eq!(answer["Now"], "The job has not started.");
    tenant.call("StartReplicationJob", &id).await;
    fixture
        .execute(
            "update source set last_seen_at = now() - interval '2 minutes' where id = $1",
            source.as_str(),
        )
        .await;
    let answer = tenant.call("ExplainReplicationJob", &id).await;
    assert_eq!(
        answer["Now"],
        "The job is started and waits for a free place of a worker: it is number 1 in the queue of this account."
    );
    let reasons = answer["Reasons"]["Reason"].to_string();
    assert!(
        reasons.contains("The agent of the source is silent since"),
        "{reasons}"
    );
    let event = &answer["Events"]["Event"][0];
    assert_eq!(
        (&event["Event"], &event["From"], &event["To"]),
        (&"start".into(), &"ready".into(), &"preparing".into())
    );
    assert_eq!((&event["Actor"], &event["Run"]), (&"api".into(), &1.into()));
    assert_eq!(
        tenant
            .code("ExplainReplicationJob", &[("JobId", "j-none")])
            .await,
        "InvalidJobId.NotFound"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_validity_ends_behind_the_scheduled_start_however_it_is_changed() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let job = tenant.job(&source).await;
    let id = ("JobId", job.as_str());
    let in_days = |days: i64| {
        let now: domain::Timestamp = smc::timestamp().parse().expect("our own form");
        let seconds = now.unix_seconds() + days * 24 * 60 * 60;
        let at = domain::Timestamp::from_unix_seconds(seconds);
        at.expect("a moment").to_string()
    };
    let (eight, nine, ten) = (in_days(8), in_days(9), in_days(10));
    tenant
        .call(MODIFY, &[id, ("ScheduledStartTime", &nine)])
        .await;
    assert_eq!(
        tenant.code(MODIFY, &[id, ("ValidTime", &eight)]).await,
        "InvalidValidTime"
    );
    assert_eq!(
        tenant.code(MODIFY, &[id, ("ValidTime", &nine)]).await,
        "InvalidValidTime"
    );
    tenant.call(MODIFY, &[id, ("ValidTime", &ten)]).await;
    // Both are checked together if both change at once.
    let earlier = in_days(7);
    tenant
        .call(
            MODIFY,
            &[id, ("ScheduledStartTime", &earlier), ("ValidTime", &eight)],
        )
        .await;
    // A start in the past has no effect any more.
    fixture.set_state(&job, State::Stopped).await;
    fixture
        .execute(
            "update job set scheduled_start_at = valid_until where id = $1",
            job.as_str(),
        )
        .await;
    tenant.call(MODIFY, &[id, ("ValidTime", &eight)]).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_clone_and_a_clock_that_is_off_are_told_where_the_owner_looks() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let job = tenant.job(&source).await;
    sqlx::query(
        "update source set cloned_at = now(), rival_seen_at = now(), rival_host = 'twin', clock_ahead_ms = -7200000 where id = $1",
    )
    .bind(source.as_str())
    .execute(&fixture.pool)
    .await
    .expect("updated");
    let listed = tenant.call("DescribeSourceServers", &[]).await;
    let shown = tenant.describe(&job).await;
    let explained = tenant
        .call("ExplainReplicationJob", &[("JobId", job.as_str())])
        .await;
    for told in [
        listed["SourceServers"]["SourceServer"][0]["StatusInfo"].to_string(),
        shown["StatusInfo"].to_string(),
        explained.to_string(),
    ] {
        for part in ["Two servers call", "twin", "2 h 0 min behind the gateway's"] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_disk_in_use_is_warned_of_until_it_is_copied_or_a_fuzzy_image_is_asked_for() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[20 * GIB, GIB]).await;
    let job = tenant.job(&source).await;
    let id = ("JobId", job.as_str());
    let told = async || {
        let text = tenant.describe(&job).await["StatusInfo"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let explained = tenant.call("ExplainReplicationJob", &[id]).await;
        let reasons = explained["Reasons"]["Reason"].to_string();
        let warnings = StatusInfo::from_json(&text).unwrap().warnings;
        assert_eq!(
            warnings.is_empty(),
            !reasons.contains("is used for writing")
        );
        warnings
    };
    assert!(told().await.is_empty());
    let used =
        "update source_disk set in_use = 'mounted at /srv' where source_id = $1 and index = 1";
    fixture.execute(used, source.as_str()).await;
    for state in State::ALL {
        fixture.set_state(&job, state).await;
        let warnings = told().await.join(" ");
        let is_named = warnings.contains("/dev/vd1 is used for writing (mounted at /srv)");
        assert_eq!(is_named, state.may_copy(), "{state}: {warnings}");
    }
    // Parameters that a run takes up at its start may change while there is no run.
    let parameters = |consistency: &str| format!(r#"{{"consistency":"{consistency}"}}"#);
    for state in State::ALL {
        fixture.set_state(&job, State::Ready).await;
        let crash = parameters("crash");
        tenant
            .call(MODIFY, &[id, ("ReplicationParameters", &crash)])
            .await;
        fixture.set_state(&job, state).await;
        let fuzzy = parameters("fuzzy");
        let change = [id, ("ReplicationParameters", fuzzy.as_str())];
        if has_still_to_deliver(state) && !state.is_running() {
            tenant.call(MODIFY, &change).await;
            assert!(told().await.is_empty(), "{state}");
        } else {
            let code = tenant.code(MODIFY, &change).await;
            assert_eq!(code, "ReplicationJob.InvalidStatus", "{state}");
        }
    }
    fixture.stop().await;
}
