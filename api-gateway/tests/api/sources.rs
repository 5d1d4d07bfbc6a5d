//! DescribeSourceServers, ModifySourceServerAttribute, DeleteSourceServer.

use domain::job::State;
use serde_json::json;

use crate::fixture::{Fixture, GIB};

#[tokio::test]
async fn a_source_is_shown_with_its_disks_and_state() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let id = fixture
        .source(&tenant, "web", &[20 * GIB, 5 * GIB + 1])
        .await;
    let answer = tenant
        .call("DescribeSourceServers", &[("SourceId.1", id.as_str())])
        .await;
    let source = &answer["SourceServers"]["SourceServer"][0];
    assert_eq!(answer["TotalCount"], 1);
    assert_eq!(source["State"], "Available");
    assert_eq!(source["SystemDiskSize"], 20);
    assert_eq!(
        source["DataDisks"]["DataDisk"],
        serde_json::json!([{ "Index": 1, "Size": 6, "Path": "/dev/vd1" }])
    );
    assert_eq!(source["HeartbeatRate"], 30);
    assert_eq!(source["ErrorCode"], "");
    assert_eq!(source["SystemInfo"], r#"{"cores":"2","hostname":"web"}"#);
    assert!(source.get("StatusInfo").is_none() && source.get("JobId").is_none());
    fixture.stop().await;
}

#[tokio::test]
async fn partitions_are_shown_with_a_source_and_with_its_job() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let id = fixture.source(&tenant, "web", &[20 * GIB, GIB]).await;
    fixture
        .execute(
            r#"update source_disk set partitions = '[
                {"path":"/dev/vda1","start_bytes":1048576,"size_bytes":134217728,"purpose":"boot"},
                {"path":"/dev/vda2","start_bytes":135266304,"size_bytes":21339570176,"purpose":"system"}
            ]' where source_id = $1 and index = 0"#,
            id.as_str(),
        )
        .await;
    fixture
        .execute(
            r#"update source_disk set partitions = '[{"path":"/dev/vdb1","start_bytes":1048576,"size_bytes":1072693248,"purpose":"normal"}]'
               where source_id = $1 and index = 1"#,
            id.as_str(),
        )
        .await;
    fixture
        .execute(
            r#"update source_disk set layout = '{"logical_sector_bytes":512,"physical_sector_bytes":4096,"partition_table":"gpt"}'
               where source_id = $1 and index = 0"#,
            id.as_str(),
        )
        .await;
    let job = tenant.job(&id).await;
    let answer = tenant
        .call("DescribeSourceServers", &[("SourceId.1", id.as_str())])
        .await;
    let source = &answer["SourceServers"]["SourceServer"][0];
    assert_eq!(
        source["SystemDiskParts"]["SystemDiskPart"],
        json!([
            { "CanBlock": true, "Device": "0_0", "Need": true, "Path": "/dev/vda1", "SizeBytes": 134_217_728 },
            { "CanBlock": true, "Device": "0_1", "Need": true, "Path": "/dev/vda2", "SizeBytes": 21_339_570_176_u64 },
        ])
    );
    assert_eq!(
        source["DataDisks"]["DataDisk"][0]["Parts"]["Part"],
        json!([{ "CanBlock": true, "Device": "1_0", "Need": true, "Path": "/dev/vdb1", "SizeBytes": 1_072_693_248 }])
    );
    assert_eq!(
        source["Disks"],
        json!({
            "System": { "Offset": 1_048_576, "Size": 20, "Path": "/dev/vd0", "LogicalSectorBytes": 512, "PhysicalSectorBytes": 4096, "PartitionTable": "gpt", "Parts": { "Part": [
                { "CanBlock": true, "Path": "/dev/vda1", "SizeBytes": 134_217_728, "Type": "Boot" },
                { "CanBlock": true, "Path": "/dev/vda2", "SizeBytes": 21_339_570_176_u64, "Type": "System" },
            ] } },
            "Data": { "Data": [{ "Offset": 1_048_576, "Size": 1, "Path": "/dev/vd1", "Parts": { "Part": [
                { "CanBlock": true, "Path": "/dev/vdb1", "SizeBytes": 1_072_693_248, "Type": "Normal" },
            ] } }] },
        })
    );

    let answer = tenant
        .call("DescribeReplicationJobs", &[("JobId.1", job.as_str())])
        .await;
    let job = &answer["ReplicationJobs"]["ReplicationJob"][0];
    assert_eq!(
        job["SystemDiskParts"]["SystemDiskPart"][1],
        json!({ "Block": true, "Device": "0_1", "SizeBytes": 21_339_570_176_u64 })
    );
    assert_eq!(
        job["DataDisks"]["DataDisk"][0]["Parts"]["Part"],
        json!([{ "Block": true, "Device": "1_0", "SizeBytes": 1_072_693_248 }])
    );
    assert_eq!(
        job["Disks"]["System"]["Parts"]["Part"][0],
        json!({ "Block": true, "Path": "/dev/vda1", "SizeBytes": 134_217_728 })
    );
    fixture.stop().await;
}

#[tokio::test]
async fn the_state_follows_from_agent_and_jobs_and_can_be_filtered_by() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let free = fixture.source(&tenant, "free", &[1]).await;
    let used = fixture.source(&tenant, "used", &[1]).await;
    let silent = fixture.source(&tenant, "silent", &[1]).await;
    let broken = fixture.source(&tenant, "broken", &[1]).await;
    let job = tenant.job(&used).await;
    fixture
        .execute(
            "update source set last_seen_at = now() - interval '2 minutes' where id = $1",
            silent.as_str(),
        )
        .await;
    fixture
        .execute(
            "update source set failure_code = 'SourceServer.DiskUnreadable', failure_message = 'no /dev/vda' where id = $1",
            broken.as_str(),
        )
        .await;
    for (state, mut wanted) in [
        ("Available", vec![&free]),
        ("InUse", vec![&used]),
        ("Unavailable", vec![&silent, &broken]),
        ("Deleting", vec![]),
    ] {
        let answer = tenant
            .call("DescribeSourceServers", &[("State", state)])
            .await;
        let mut found: Vec<&str> = answer["SourceServers"]["SourceServer"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|source| source["SourceId"].as_str().expect("an id"))
            .collect();
        found.sort_unstable();
        wanted.sort();
        assert_eq!(
            found,
            wanted.iter().map(|id| id.as_str()).collect::<Vec<_>>(),
            "{state}"
        );
    }
    let answer = tenant
        .call("DescribeSourceServers", &[("SourceId.1", silent.as_str())])
        .await;
    let source = &answer["SourceServers"]["SourceServer"][0];
    assert_eq!(source["ErrorCode"], "SourceServer.Offline");
    let info = source["StatusInfo"].as_str().expect("a text");
    assert!(
        info.contains("\"error_code\":\"SourceServer.Offline\"") && info.contains("silent since"),
        "{info}"
    );
    let answer = tenant
        .call("DescribeSourceServers", &[("SourceId.1", broken.as_str())])
        .await;
    assert_eq!(
        answer["SourceServers"]["SourceServer"][0]["ErrorCode"],
        "SourceServer.DiskUnreadable"
    );
    let answer = tenant
        .call("DescribeSourceServers", &[("JobId", job.as_str())])
        .await;
    assert_eq!(
        answer["SourceServers"]["SourceServer"][0]["SourceId"],
        used.as_str()
    );
    let answer = tenant
        .call("DescribeSourceServers", &[("Name", "free")])
        .await;
    assert_eq!(answer["TotalCount"], 1);
    let all = tenant.call("DescribeSourceServers", &[]).await;
    let all = all["TotalCount"].as_i64().expect("a number");
    for (filters, wanted) in [
        (&[("RelatedJobType.1", "Server")][..], 1),
        (&[("RelatedJobType.1", "Not_Related")], all - 1),
        (
            &[("RelatedJobType.1", "Os"), ("RelatedJobType.2", "Server")],
            1,
        ),
        (
            &[
                ("RelatedJobType.1", "Not_Related"),
                ("RelatedJobType.2", "Server"),
            ],
            all,
        ),
        (&[("RelatedJobType.1", "VMWare")], 0),
        (&[("ResourceGroupId", "rg-1")], 0),
    ] {
        let answer = tenant.call("DescribeSourceServers", filters).await;
        assert_eq!(answer["TotalCount"], wanted, "{filters:?}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn pages_are_numbered_from_one_and_end_in_an_empty_one() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    for number in 0..5 {
        fixture.source(&tenant, &format!("web{number}"), &[1]).await;
    }
    let mut seen = std::collections::BTreeSet::new();
    for (page, rows) in [("1", 2), ("2", 2), ("3", 1), ("4", 0)] {
        let answer = tenant
            .call(
                "DescribeSourceServers",
                &[("PageSize", "2"), ("PageNumber", page)],
            )
            .await;
        let sources = answer["SourceServers"]["SourceServer"]
            .as_array()
            .expect("a list");
        assert_eq!(
            (sources.len(), &answer["TotalCount"]),
            (rows, &serde_json::json!(5)),
            "page {page}"
        );
        seen.extend(sources.iter().map(|source| source["SourceId"].to_string()));
    }
    assert_eq!(seen.len(), 5);
    for (parameters, code) in [
        (("PageSize", "51"), "InvalidPageSize"),
        (("PageSize", "0"), "InvalidPageSize"),
        (("PageNumber", "0"), "InvalidPageNumber"),
        (("State", "Gone"), "InvalidState"),
        (("SourceId.101", "s-1"), "InvalidSourceId"),
        (("Tag.1.Value", "a"), "MissingTag.Key"),
    ] {
        assert_eq!(
            tenant.code("DescribeSourceServers", &[parameters]).await,
            code
        );
    }
    fixture.stop().await;
}

#[tokio::test]
async fn name_and_description_change_and_names_stay_unique() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let web = fixture.source(&tenant, "web", &[1]).await;
    fixture.source(&tenant, "database", &[1]).await;
    let modify = "ModifySourceServerAttribute";
    tenant
        .call(modify, &[("SourceId", web.as_str()), ("Name", "front")])
        .await;
    tenant
        .call(modify, &[("SourceId", web.as_str()), ("Description", "")])
        .await;
    let answer = tenant
        .call("DescribeSourceServers", &[("SourceId.1", web.as_str())])
        .await;
    let source = &answer["SourceServers"]["SourceServer"][0];
    assert_eq!(
        (source["Name"].as_str(), source["Description"].as_str()),
        (Some("front"), Some(""))
    );
    for (parameters, code) in [
        (
            &[("SourceId", web.as_str()), ("Name", "database")][..],
            "SourceServerName.Duplicate",
        ),
        (
            &[("SourceId", web.as_str()), ("Name", "1web")],
            "InvalidName",
        ),
        (
            &[("SourceId", web.as_str()), ("Description", "http://x")],
            "InvalidDescription",
        ),
        (&[("SourceId", "s-none")], "InvalidSourceId.NotFound"),
        (&[("SourceId", "no id at all")], "InvalidSourceId.NotFound"),
        (&[("Name", "x1")], "MissingSourceId"),
    ] {
        assert_eq!(
            tenant.code(modify, parameters).await,
            code,
            "{parameters:?}"
        );
    }
    fixture
        .execute(
            "update source set deleting = true where id = $1",
            web.as_str(),
        )
        .await;
    assert_eq!(
        tenant.code(modify, &[("SourceId", web.as_str())]).await,
        "SourceServerState.Invalid"
    );
    assert_eq!(
        tenant
            .code("DeleteSourceServer", &[("SourceId", web.as_str())])
            .await,
        "SourceServerState.Invalid"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_source_goes_only_as_far_as_its_jobs_allow() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let unused = fixture.source(&tenant, "unused", &[1]).await;
    tenant
        .call("DeleteSourceServer", &[("SourceId", unused.as_str())])
        .await;
    assert_eq!(
        tenant
            .code("DeleteSourceServer", &[("SourceId", unused.as_str())])
            .await,
        "InvalidSourceId.NotFound"
    );

    let source = fixture.source(&tenant, "used", &[1]).await;
    let job = tenant.job(&source).await;
    let plain = [("SourceId", source.as_str())];
    let forced = [("SourceId", source.as_str()), ("Force", "True")];
    let refusal = tenant.refusal("DeleteSourceServer", &plain).await;
    assert_eq!(refusal.code, "ReplicationJob.Related");
    assert!(
        refusal.message.contains(job.as_str()),
        "{}",
        refusal.message
    );
    tenant
        .call("StartReplicationJob", &[("JobId", job.as_str())])
        .await;
    for parameters in [&plain[..], &forced[..]] {
        assert_eq!(
            tenant.code("DeleteSourceServer", parameters).await,
            "SourceServer.WithRunningReplicationJob"
        );
    }
    fixture.set_state(&job, State::InError).await;
    tenant.call("DeleteSourceServer", &forced).await;
    assert_eq!(tenant.describe(&job).await["Status"], "Deleting");
    let answer = tenant
        .call("DescribeSourceServers", &[("SourceId.1", source.as_str())])
        .await;
    assert_eq!(
        answer["SourceServers"]["SourceServer"][0]["State"],
        "Deleting"
    );

    // The worker removes the job; then the source is removed.
    fixture
        .execute("delete from job where id = $1", job.as_str())
        .await;
    assert_eq!(
        fixture
            .store
            .remove_deleted_sources()
            .await
            .expect("the database"),
        1
    );
    assert_eq!(
        tenant.call("DescribeSourceServers", &[]).await["TotalCount"],
        0
    );
    fixture.stop().await;
}
