//! CreateReplicationJob: rules, defaults, preconditions, quota.

use std::collections::BTreeSet;

use domain::Timestamp;
use domain::job::State;

use crate::fixture::{Fixture, GIB, Tenant};

const CREATE: &str = "CreateReplicationJob";

/// Returns the time this many seconds from now.
fn in_seconds(seconds: i64) -> String {
    let now: Timestamp = smc::timestamp().parse().expect("our own form");
    Timestamp::from_unix_seconds(now.unix_seconds() + seconds)
        .expect("a moment")
        .to_string()
}

const DAY: i64 = 24 * 60 * 60;

#[tokio::test]
async fn what_was_not_said_has_a_default() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture
        .source(&tenant, "web", &[3 * GIB, 7 * GIB + 1, 30 * GIB])
        .await;
    let job = tenant.job(&source).await;
    let shown = tenant.describe(&job).await;
    assert_eq!(shown["Status"], "Ready");
    assert!(shown.get("BusinessStatus").is_none());
    assert_eq!(shown["Progress"], 0.0);
    assert_eq!(shown["Name"], format!("Job_{job}"));
    assert_eq!(shown["ImageName"], format!("Image_{job}"));
    assert_eq!(shown["TargetType"], "Image");
    assert_eq!(
        (&shown["NetMode"], &shown["RunOnce"]),
        (&0.into(), &true.into())
    );
    assert_eq!(shown["SystemDiskSize"], 20);
    assert_eq!(
        shown["DataDisks"]["DataDisk"],
        serde_json::json!([{ "Index": 1, "Size": 8 }, { "Index": 2, "Size": 30 }]),
        "disks that nobody named keep their size"
    );
    let time = |name: &str| -> i64 {
        let time: Timestamp = shown[name]
            .as_str()
            .expect("a time")
            .parse()
            .expect("the API's form");
        time.unix_seconds()
    };
    assert_eq!(time("ValidTime") - time("CreationTime"), 30 * DAY);
    assert_eq!(
        (&shown["ErrorCode"], shown.get("StatusInfo")),
        (&"".into(), None)
    );
    fixture.stop().await;
}

#[tokio::test]
async fn everything_that_can_be_said_is_kept() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB, GIB]).await;
    let start = in_seconds(3 * DAY);
    let valid = in_seconds(40 * DAY);
    let replication = r#"{"bandwidth_limit":0,"compress_level":1,"checksum":true}"#;
    let given = [
        ("SourceId", source.as_str()),
        ("SystemDiskSize", "500"),
        ("DataDisk.7.Index", "1"),
        ("DataDisk.7.Size", "21"),
        ("Name", "move-web"),
        ("Description", "the-web-server"),
        ("ImageName", "web-image"),
        ("TargetType", "image"),
        ("NetMode", "0"),
        ("RunOnce", "True"),
        ("JobType", "0"),
        ("ReplicationParameters", replication),
        ("ScheduledStartTime", &start),
        ("ValidTime", &valid),
        ("LicenseType", ""),
    ];
    let answer = tenant.call(CREATE, &given).await;
    let job = answer["JobId"]
        .as_str()
        .expect("a job")
        .parse()
        .expect("a job's id");
    let shown = tenant.describe(&job).await;
    for (name, wanted) in [
        ("Name", "move-web"),
        ("Description", "the-web-server"),
        ("ImageName", "web-image"),
        ("TargetType", "Image"),
        ("ReplicationParameters", replication),
        ("ScheduledStartTime", &start),
        ("ValidTime", &valid),
        ("RegionId", "local"),
        ("SourceId", source.as_str()),
    ] {
        assert_eq!(shown[name], wanted, "{name}");
    }
    assert_eq!(shown["SystemDiskSize"], 500);
    assert_eq!(
        shown["DataDisks"]["DataDisk"],
        serde_json::json!([{ "Index": 1, "Size": 21 }])
    );
    let timers: Vec<(String,)> =
        sqlx::query_as("select kind from timer where job_id = $1 order by kind")
            .bind(job.as_str())
            .fetch_all(&fixture.pool)
            .await
            .expect("timers");
    assert_eq!(timers, [("expire".to_owned(),), ("start".to_owned(),)]);
    fixture.stop().await;
}

#[tokio::test]
async fn without_a_region_a_job_is_made_in_the_gateways() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let given = [
        ("SourceId", source.as_str()),
        ("SystemDiskSize", "20"),
        ("RegionId", ""),
    ];
    let answer = tenant.call(CREATE, &given).await;
    let job = answer["JobId"].as_str().expect("a job").parse();
    let shown = tenant.describe(&job.expect("a job's id")).await;
    assert_eq!(shown["RegionId"], "local");
    fixture.stop().await;
}

#[tokio::test]
async fn sizes_can_be_given_as_disks() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB, GIB, GIB]).await;
    let given = [
        ("SourceId", source.as_str()),
        ("Disks.System.Size", "40"),
        ("Disks.Data.2.Size", "30"),
        ("DataDisk.1.Index", "1"),
        ("DataDisk.1.Size", "25"),
        ("Disks.Data.1.Size", "25"),
    ];
    let answer = tenant.call(CREATE, &given).await;
    let job = answer["JobId"]
        .as_str()
        .expect("a job")
        .parse()
        .expect("a job's id");
    let shown = tenant.describe(&job).await;
    assert_eq!(shown["SystemDiskSize"], 40);
    assert_eq!(
        shown["DataDisks"]["DataDisk"],
        serde_json::json!([{ "Index": 1, "Size": 25 }, { "Index": 2, "Size": 30 }])
    );
    assert_eq!(
        shown["Disks"],
        serde_json::json!({ "System": { "Size": 40 }, "Data": { "Data": [{ "Size": 25 }, { "Size": 30 }] } })
    );
    fixture.stop().await;
}

#[tokio::test]
async fn every_rule_has_its_refusal() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture
        .source(&tenant, "web", &[40 * GIB + 1, 25 * GIB])
        .await;
    let (soon, late) = (in_seconds(6 * DAY), in_seconds(91 * DAY));
    let (past, far) = (in_seconds(-60), in_seconds(31 * DAY));
    let behind_validity = in_seconds(9 * DAY);
    let eight_days = in_seconds(8 * DAY);
    let long = format!("{{\"checksum\":true,\"x\":\"{}\"}}", "y".repeat(2048));
    let cases: Vec<(Vec<(&str, &str)>, &str)> = vec![
        (vec![("SystemDiskSize", "")], "MissingSystemDiskSize"),
        (vec![("SystemDiskSize", "19")], "InvalidSystemDiskSize"),
        (vec![("SystemDiskSize", "501")], "InvalidSystemDiskSize"),
        (vec![("SystemDiskSize", "forty")], "InvalidSystemDiskSize"),
        (vec![("SystemDiskSize", "40")], "InvalidSystemDiskSize"),
        (
            vec![("DataDisk.1.Index", "1"), ("DataDisk.1.Size", "24")],
            "InvalidDataDisk.Size",
        ),
        (
            vec![("DataDisk.1.Index", "1"), ("DataDisk.1.Size", "19")],
            "InvalidDataDisk.Size",
        ),
        (
            vec![("DataDisk.1.Index", "1"), ("DataDisk.1.Size", "32769")],
            "InvalidDataDisk.Size",
        ),
        (
            vec![("DataDisk.1.Index", "17"), ("DataDisk.1.Size", "30")],
            "InvalidDataDisk.Index",
        ),
        (
            vec![("DataDisk.1.Index", "2"), ("DataDisk.1.Size", "30")],
            "ReplicationJobDataDiskIndex.Invalid",
        ),
        (
            vec![
                ("DataDisk.1.Index", "1"),
                ("DataDisk.1.Size", "30"),
                ("DataDisk.2.Index", "1"),
                ("DataDisk.2.Size", "30"),
            ],
            "DataDisk.DuplicateIndex",
        ),
        (vec![("DataDisk.1.Index", "1")], "MissingDataDisk.Size"),
        (vec![("DataDisk.1.Size", "30")], "MissingDataDisk.Index"),
        (
            vec![("DataDisk.1.Part.1.Device", "1_0")],
            "InvalidDataDisk.Part",
        ),
        (vec![("RegionId", "elsewhere")], "InvalidRegionId.NotFound"),
        (vec![("SourceId", "")], "MissingSourceId"),
        (vec![("SourceId", "s-none")], "InvalidSourceId.NotFound"),
        (vec![("Name", "1job")], "InvalidName"),
        (vec![("Name", "a")], "InvalidName"),
        (vec![("Description", "two words")], "InvalidDescription"),
        (vec![("ImageName", "http://x")], "InvalidImageName"),
        (vec![("TargetType", "ContainerImage")], "InvalidTargetType"),
        (vec![("NetMode", "2")], "MissingVSwitchId"),
        (vec![("VSwitchId", "vsw-1")], "InvalidVSwitchId.NotFound"),
        (vec![("InstanceId", "i-1")], "InvalidInstanceId"),
        (
            vec![("ReplicationParameters", "[1]")],
            "InvalidReplicationParameters",
        ),
        (
            vec![("ReplicationParameters", &long)],
            "InvalidReplicationParameters",
        ),
        (vec![("ClientToken", "ü")], "InvalidClientToken"),
        (
            vec![(
                "ClientToken",
                "12345678901234567890123456789012345678901234567890123456789012345",
            )],
            "InvalidClientToken",
        ),
        (vec![("ValidTime", "2026-11-23")], "InvalidValidTime"),
        (vec![("ValidTime", &soon)], "InvalidValidTime"),
        (vec![("ValidTime", &late)], "InvalidValidTime"),
        (
            vec![("ScheduledStartTime", &past)],
            "InvalidScheduledStartTime",
        ),
        (
            vec![("ScheduledStartTime", &far)],
            "InvalidScheduledStartTime",
        ),
        (
            vec![
                ("ScheduledStartTime", &behind_validity),
                ("ValidTime", &eight_days),
            ],
            "InvalidScheduledStartTime",
        ),
        (vec![("RunOnce", "no")], "InvalidRunOnce"),
        (vec![("RunOnce", "false")], "MissingFrequency"),
        (
            vec![("RunOnce", "false"), ("Frequency", "24")],
            "MissingMaxNumberOfImageToKeep",
        ),
        (
            vec![
                ("RunOnce", "false"),
                ("Frequency", "169"),
                ("MaxNumberOfImageToKeep", "1"),
            ],
            "InvalidFrequency",
        ),
        (
            vec![
                ("RunOnce", "false"),
                ("Frequency", "1"),
                ("MaxNumberOfImageToKeep", "11"),
            ],
            "InvalidMaxNumberOfImageToKeep",
        ),
        (
            vec![("MaxNumberOfImageToKeep", "1")],
            "InvalidMaxNumberOfImageToKeep",
        ),
        (vec![("Frequency", "24")], "InvalidFrequency"),
        (vec![("JobType", "1")], "InvalidJobType"),
        (vec![("Tag.1.Key", "aliyun")], "InvalidParameter.TagKey"),
        (
            vec![("Disks.System.Size", "60")],
            "InvalidDisks.System.Size",
        ),
        (
            vec![("SystemDiskSize", ""), ("Disks.System.Size", "501")],
            "InvalidDisks.System.Size",
        ),
        (
            vec![("SystemDiskSize", ""), ("Disks.Data.1.Size", "40")],
            "MissingSystemDiskSize",
        ),
        (vec![("Disks.Data.17.Size", "40")], "InvalidDisks.Data.Size"),
        (vec![("Disks.Data.x.Size", "40")], "InvalidDisks"),
        (
            vec![("Disks.System.LVM", "true")],
            "InvalidDisks.System.LVM",
        ),
        (
            vec![("Disks.Data.1.Part.1.SizeBytes", "1")],
            "InvalidDisks.Data.Part",
        ),
        (vec![("ContainerTag", "v1")], "InvalidContainerTag"),
    ];
    for (changes, code) in cases {
        let mut parameters = vec![("SourceId", source.as_str()), ("SystemDiskSize", "50")];
        for (name, value) in &changes {
            parameters.retain(|(known, _)| known != name);
            parameters.push((name, value));
        }
        let refusal = tenant.refusal(CREATE, &parameters).await;
        assert_eq!(refusal.code, code, "{changes:?}");
        assert!(
            refusal.message.ends_with('.'),
            "a sentence: {}",
            refusal.message
        );
    }
    let answer = tenant.call("DescribeReplicationJobs", &[]).await;
    assert_eq!(answer["TotalCount"], 0, "a refused call leaves nothing");
    let refusal = tenant
        .refusal(
            CREATE,
            &[("SourceId", source.as_str()), ("SystemDiskSize", "40")],
        )
        .await;
    assert!(
        refusal
            .message
            .contains("has 41 GiB (42949672961 bytes), but 40 GiB were asked for"),
        "both sizes are named: {}",
        refusal.message
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_source_has_one_unfinished_job() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let job = tenant.job(&source).await;
    let again = [("SourceId", source.as_str()), ("SystemDiskSize", "20")];
    for state in State::ALL {
        fixture.set_state(&job, state).await;
        if state.is_unfinished() {
            assert_eq!(
                tenant.code(CREATE, &again).await,
                "SourceServerState.Invalid",
                "{state}"
            );
        }
    }
    // Deleting jobs don't count.
    let second = tenant.job(&source).await;
    fixture.set_state(&second, State::Finished).await;
    tenant.job(&source).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_silent_or_leaving_source_takes_no_job() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let parameters = [("SourceId", source.as_str()), ("SystemDiskSize", "20")];
    fixture
        .execute(
            "update source set last_seen_at = now() - interval '2 minutes' where id = $1",
            source.as_str(),
        )
        .await;
    let refusal = tenant.refusal(CREATE, &parameters).await;
    assert_eq!(
        (refusal.code.as_str(), refusal.message.as_str()),
        (
            "SourceServerState.Invalid",
            "The specified source server status: Unavailable is invalid. This operation can only be performed in the following status: Available."
        )
    );
    fixture
        .execute(
            "update source set last_seen_at = now(), deleting = true where id = $1",
            source.as_str(),
        )
        .await;
    assert_eq!(
        tenant.code(CREATE, &parameters).await,
        "SourceServerState.Invalid"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn names_are_unique_and_jobs_are_counted() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    fixture
        .execute(
            "update tenant set max_jobs = 2 where id = $1",
            tenant.id.as_str(),
        )
        .await;
    let mut sources = Vec::new();
    for name in ["one", "two", "three"] {
        sources.push(fixture.source(&tenant, name, &[GIB]).await);
    }
    let with_name = |source, name| {
        [
            ("SourceId", source),
            ("SystemDiskSize", "20"),
            ("Name", name),
        ]
    };
    tenant
        .call(CREATE, &with_name(sources[0].as_str(), "move"))
        .await;
    assert_eq!(
        tenant
            .code(CREATE, &with_name(sources[1].as_str(), "move"))
            .await,
        "ReplicationJobName.Duplicate"
    );
    tenant
        .call(CREATE, &with_name(sources[1].as_str(), "move2"))
        .await;
    let refusal = tenant
        .refusal(CREATE, &with_name(sources[2].as_str(), "move3"))
        .await;
    assert_eq!(refusal.code, "QuotaExceeded.ReplicationJob");
    assert!(
        refusal.message.contains("may have 2 jobs"),
        "{}",
        refusal.message
    );
    fixture.stop().await;
}

#[tokio::test]
async fn creates_at_once_never_pass_the_quota_or_share_a_source() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    fixture
        .execute(
            "update tenant set max_jobs = 3 where id = $1",
            tenant.id.as_str(),
        )
        .await;
    let mut sources = Vec::new();
    for number in 0..6 {
        sources.push(
            fixture
                .source(&tenant, &format!("web{number}"), &[GIB])
                .await,
        );
    }
    let calls = sources
        .iter()
        .chain(&sources)
        .map(|source| create(&tenant, source.as_str(), &[]));
    let made: Vec<Result<String, String>> = futures::future::join_all(calls).await;
    let jobs: BTreeSet<&String> = made.iter().filter_map(|made| made.as_ref().ok()).collect();
    assert_eq!(jobs.len(), 3, "{made:?}");
    for code in made.iter().filter_map(|made| made.as_ref().err()) {
        assert!(
            matches!(
                code.as_str(),
                "QuotaExceeded.ReplicationJob" | "SourceServerState.Invalid"
            ),
            "{code}"
        );
    }
    fixture.stop().await;
}

/// Returns the job's id, or the code of the refusal.
pub(crate) async fn create(
    tenant: &Tenant,
    source: &str,
    more: &[(&str, &str)],
) -> Result<String, String> {
    let mut parameters = vec![("SourceId", source), ("SystemDiskSize", "20")];
    parameters.extend(more);
    match tenant.client.call_by_name(CREATE, &parameters).await {
        Ok(answer) => Ok(answer["JobId"].as_str().expect("a job").to_owned()),
        Err(error) => Err(error.code().unwrap_or("no answer").to_owned()),
    }
}

/// The bounds of a call's waits are in the settings, with a test beside them.
#[tokio::test]
async fn a_call_that_waits_for_a_row_in_vain_is_answered_while_it_is_held() {
    let fixture = Fixture::start_with(&["--api-timeout-ms=5000"]).await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let mut holder = fixture.pool.begin().await.expect("a transaction");
    sqlx::query("select from tenant where id = $1 for update")
        .bind(tenant.id.as_str())
        .execute(&mut *holder)
        .await
        .expect("the row");
    let refused = create(&tenant, source.as_str(), &[]).await;
    assert_eq!(refused, Err("ServiceUnavailable".to_owned()));
    holder.rollback().await.expect("an end");
    create(&tenant, source.as_str(), &[]).await.expect("a job");
    fixture.stop().await;
}
