//! Nothing of one account can be seen, changed or told apart from nothing by another: every operation, across two accounts.

use serde_json::Value;

use crate::fixture::{Fixture, GIB};

#[tokio::test]
async fn two_accounts_know_nothing_of_each_other() {
    let fixture = Fixture::start().await;
    let (one, two) = (fixture.tenant("one").await, fixture.tenant("two").await);
    let source = fixture.source(&one, "web", &[GIB]).await;
    let job = one.job(&source).await;
    let token = one.call("CreateAccessToken", &[]).await["AccessTokenId"]
        .as_str()
        .expect("an id")
        .to_owned();
    sqlx::query(
        "insert into image (id, tenant, job_id, source_id, run, epoch, region_id, name, state)
         values ('m-1', $1, $2, $3, 1, 1, 'local', 'web', 'available')",
    )
    .bind(one.id.as_str())
    .bind(job.as_str())
    .bind(source.as_str())
    .execute(&fixture.pool)
    .await
    .expect("an image");

    for (action, filter) in [
        ("DescribeSourceServers", ("SourceId.1", source.as_str())),
        ("DescribeReplicationJobs", ("JobId.1", job.as_str())),
        ("ListAccessTokens", ("AccessTokenId.1", token.as_str())),
        ("DescribeImages", ("ImageId.1", "m-1")),
    ] {
        assert_eq!(
            one.call(action, &[filter]).await["TotalCount"],
            1,
            "{action}"
        );
        for filters in [&[][..], &[filter]] {
            let answer = two.call(action, filters).await;
            assert_eq!(answer["TotalCount"], 0, "{action} {filters:?}");
            assert!(!mentions(&answer, source.as_str()) && !mentions(&answer, job.as_str()));
        }
    }
    for (action, parameter, missing, more) in [
        (
            "ModifySourceServerAttribute",
            ("SourceId", source.as_str()),
            "s-none",
            &[("Name", "mine")][..],
        ),
        (
            "DeleteSourceServer",
            ("SourceId", source.as_str()),
            "s-none",
            &[("Force", "true")],
        ),
        (
            "CreateReplicationJob",
            ("SourceId", source.as_str()),
            "s-none",
            &[("SystemDiskSize", "20")],
        ),
        (
            "ModifyReplicationJobAttribute",
            ("JobId", job.as_str()),
            "j-none",
            &[("Name", "mine")],
        ),
        (
            "StartReplicationJob",
            ("JobId", job.as_str()),
            "j-none",
            &[],
        ),
        ("StopReplicationJob", ("JobId", job.as_str()), "j-none", &[]),
        (
            "DeleteReplicationJob",
            ("JobId", job.as_str()),
            "j-none",
            &[],
        ),
        (
            "ExplainReplicationJob",
            ("JobId", job.as_str()),
            "j-none",
            &[],
        ),
        (
            "DisableAccessToken",
            ("AccessTokenId", token.as_str()),
            "at-none",
            &[],
        ),
        (
            "DeleteAccessToken",
            ("AccessTokenId", token.as_str()),
            "at-none",
            &[],
        ),
        ("DeleteImage", ("ImageId", "m-1"), "m-none", &[]),
        (
            "DownloadImage",
            ("ImageId", "m-1"),
            "m-none",
            &[("File", "disk-0.raw")],
        ),
    ] {
        let with = |id| [&[(parameter.0, id)], more].concat();
        let theirs = two.refusal(action, &with(parameter.1)).await;
        let nobodys = two.refusal(action, &with(missing)).await;
        assert_eq!(
            theirs.code,
            format!("Invalid{}.NotFound", parameter.0),
            "{action}"
        );
        assert_eq!(
            (theirs.message, theirs.http_status),
            (nobodys.message, nobodys.http_status),
            "{action}"
        );
    }
    assert_eq!(
        one.describe(&job).await["Status"],
        "Ready",
        "nothing was changed"
    );

    // Names are each account's own.
    let other = fixture.source(&two, "web", &[GIB]).await;
    let named = [
        ("SourceId", other.as_str()),
        ("SystemDiskSize", "20"),
        ("Name", "move"),
    ];
    two.call("CreateReplicationJob", &named).await;
    one.call(
        "ModifyReplicationJobAttribute",
        &[("JobId", job.as_str()), ("Name", "move")],
    )
    .await;
    fixture.stop().await;
}

fn mentions(answer: &Value, id: &str) -> bool {
    answer.to_string().contains(id)
}
