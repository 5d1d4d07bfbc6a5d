//! Workgroups: made, described, changed, filled, emptied, deleted.

use domain::SourceId;
use domain::job::State;
use serde_json::{Value, json};

use crate::fixture::{Fixture, GIB, Tenant};

const DESCRIBE: &str = "DescribeWorkgroups";

async fn group(tenant: &Tenant, name: &str) -> String {
    let answer = tenant.call("CreateWorkgroup", &[("Name", name)]).await;
    answer["WorkgroupId"].as_str().expect("an id").to_owned()
}

async fn associate(tenant: &Tenant, group: &str, sources: &[&SourceId]) {
    let names: Vec<String> = (1..=sources.len())
        .map(|n| format!("SourceId.{n}"))
        .collect();
    let mut parameters = vec![("WorkgroupId", group)];
    for (name, source) in names.iter().zip(sources) {
        parameters.push((name, source.as_str()));
    }
    tenant.call("AssociateSourceServers", &parameters).await;
}

/// Returns the names that pass the filters, in the order of the answer.
async fn names(tenant: &Tenant, filters: &[(&str, &str)]) -> Vec<String> {
    let answer = tenant.call(DESCRIBE, filters).await;
    answer["Workgroups"]["Workgroup"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|group| group["Name"].as_str().expect("a name").to_owned())
        .collect()
}

async fn shown(tenant: &Tenant, group: &str) -> Value {
    let answer = tenant.call(DESCRIBE, &[("WorkgroupId.1", group)]).await;
    answer["Workgroups"]["Workgroup"][0].clone()
}

#[tokio::test]
async fn workgroups_are_made_once_changed_found_and_deleted() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let stranger = fixture.tenant("two").await;
    let create = [
        ("Name", "wave.1"),
        ("Description", "The first of them."),
        ("ClientToken", "t-1"),
        ("Tag.1.Key", "env"),
        ("Tag.1.Value", "live"),
    ];
    let first = tenant.call("CreateWorkgroup", &create).await;
    let id = first["WorkgroupId"].as_str().expect("an id");
    assert!(id.starts_with("w-"), "{id}");
    let again = tenant.call("CreateWorkgroup", &create).await;
    assert_eq!(again["WorkgroupId"], first["WorkgroupId"]);
    let other = [("Name", "wave.2"), ("ClientToken", "t-1")];
    assert_eq!(
        tenant.code("CreateWorkgroup", &other).await,
        "IdempotentParameterMismatch"
    );
    assert_eq!(
        shown(&tenant, id).await,
        json!({
            "WorkgroupId": id, "Name": "wave.1", "Description": "The first of them.", "Status": "NotStarted",
            "Warnings": { "Warning": [] }, "Tags": { "Tag": [{ "Key": "env", "Value": "live" }] },
        })
    );
    group(&tenant, "wave.2").await;
    for (filters, wanted) in [
        (&[][..], vec!["wave.2", "wave.1"]),
        (&[("Name", "wave.1")], vec!["wave.1"]),
        (
            &[("WorkgroupId.1", id), ("WorkgroupId.2", "w-none")],
            vec!["wave.1"],
        ),
        (&[("Tag.1.Key", "env")], vec!["wave.1"]),
        (&[("Status", "NotStarted")], vec!["wave.2", "wave.1"]),
        (&[("Status", "Completed")], vec![]),
        (&[("PageSize", "1"), ("PageNumber", "2")], vec!["wave.1"]),
        (&[("PageNumber", "9")], vec![]),
    ] {
        assert_eq!(names(&tenant, filters).await, wanted, "{filters:?}");
    }
    assert_eq!(names(&stranger, &[]).await, Vec::<String>::new());

    let modify = "ModifyWorkgroupAttribute";
    tenant
        .call(modify, &[("WorkgroupId", id), ("Name", "wave-one")])
        .await;
    let changed = shown(&tenant, id).await;
    assert_eq!(
        (&changed["Name"], &changed["Description"]),
        (&"wave-one".into(), &"The first of them.".into())
    );
    for (action, parameters, code) in [
        ("CreateWorkgroup", vec![], "MissingName"),
        ("CreateWorkgroup", vec![("Name", "1a")], "InvalidName"),
        (
            "CreateWorkgroup",
            vec![("Name", "ok"), ("Description", "x")],
            "InvalidDescription",
        ),
        (DESCRIBE, vec![("Status", "Done")], "InvalidStatus"),
        (
            modify,
            vec![("WorkgroupId", "w-none")],
            "InvalidWorkgroupId.NotFound",
        ),
        (
            "DeleteWorkgroup",
            vec![("WorkgroupId", "?")],
            "InvalidWorkgroupId.NotFound",
        ),
    ] {
        assert_eq!(tenant.code(action, &parameters).await, code);
    }
    for action in [modify, "DeleteWorkgroup"] {
        let refusal = stranger.refusal(action, &[("WorkgroupId", id)]).await;
        assert_eq!(
            (refusal.code.as_str(), refusal.http_status),
            ("InvalidWorkgroupId.NotFound", 404)
        );
    }
    tenant.call("DeleteWorkgroup", &[("WorkgroupId", id)]).await;
    assert_eq!(names(&tenant, &[]).await, ["wave.2"]);
    let quota = "update tenant set max_workgroups = 1 where id = $1";
    fixture.execute(quota, tenant.id.as_str()).await;
    assert_eq!(
        tenant.code("CreateWorkgroup", &[("Name", "more")]).await,
        "QuotaExceeded.Workgroup"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_source_is_in_one_workgroup_and_shows_it() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let stranger = fixture.tenant("two").await;
    let web = fixture.source(&tenant, "web", &[GIB]).await;
    let database = fixture.source(&tenant, "database", &[GIB]).await;
    let foreign = fixture.source(&stranger, "web", &[GIB]).await;
    let (first, second) = (
        group(&tenant, "first").await,
        group(&tenant, "second").await,
    );
    associate(&tenant, &first, &[&web]).await;
    associate(&tenant, &first, &[&web]).await;
    let job = tenant.job(&web).await;
    assert_eq!(tenant.describe(&job).await["WorkgroupId"], first.as_str());
    for (group, count) in [(&first, 1), (&second, 0)] {
        let jobs = tenant
            .call("DescribeReplicationJobs", &[("WorkgroupId", group)])
            .await;
        assert_eq!(jobs["TotalCount"], count);
    }
    let answer = tenant
        .call("DescribeSourceServers", &[("WorkgroupId", &first)])
        .await;
    assert_eq!(answer["TotalCount"], 1);
    let shown = &answer["SourceServers"]["SourceServer"][0];
    assert_eq!(
        (&shown["SourceId"], &shown["WorkgroupId"]),
        (&web.as_str().into(), &first.as_str().into())
    );

    let quota = "update tenant set max_workgroup_sources = 1 where id = $1";
    fixture.execute(quota, tenant.id.as_str()).await;
    let action = "AssociateSourceServers";
    for (group, sources, code) in [
        (
            &second,
            vec![&database, &web],
            "SourceServer.InAnotherWorkgroup",
        ),
        (
            &second,
            vec![&database, &foreign],
            "InvalidSourceId.NotFound",
        ),
        (
            &first,
            vec![&database],
            "QuotaExceeded.WorkgroupSourceServer",
        ),
        (&second, vec![], "MissingSourceId"),
    ] {
        let names = ["SourceId.1", "SourceId.2"];
        let mut parameters = vec![("WorkgroupId", group.as_str())];
        for (name, source) in names.into_iter().zip(&sources) {
            parameters.push((name, source.as_str()));
        }
        assert_eq!(tenant.code(action, &parameters).await, code, "{sources:?}");
    }
    let foreign_group = [
        ("WorkgroupId", first.as_str()),
        ("SourceId.1", foreign.as_str()),
    ];
    assert_eq!(
        stranger.code(action, &foreign_group).await,
        "InvalidWorkgroupId.NotFound"
    );
    let answer = tenant
        .call("DescribeSourceServers", &[("WorkgroupId", &second)])
        .await;
    assert_eq!(answer["TotalCount"], 0, "a refused call changes nothing");

    let leave = [
        ("WorkgroupId", second.as_str()),
        ("SourceId.1", web.as_str()),
    ];
    tenant.call("DisassociateSourceServers", &leave).await;
    assert_eq!(tenant.describe(&job).await["WorkgroupId"], first.as_str());
    let leave = [
        ("WorkgroupId", first.as_str()),
        ("SourceId.1", web.as_str()),
    ];
    tenant.call("DisassociateSourceServers", &leave).await;
    assert!(tenant.describe(&job).await.get("WorkgroupId").is_none());
    associate(&tenant, &second, &[&web]).await;
    tenant
        .call("DeleteWorkgroup", &[("WorkgroupId", &second)])
        .await;
    assert!(tenant.describe(&job).await.get("WorkgroupId").is_none());
    fixture.stop().await;
}

#[tokio::test]
async fn status_and_warnings_follow_from_the_jobs_of_the_sources() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let web = fixture.source(&tenant, "web", &[GIB]).await;
    let database = fixture.source(&tenant, "database", &[GIB]).await;
    let wave = group(&tenant, "wave").await;
    associate(&tenant, &wave, &[&web, &database]).await;
    let warnings = |group: &Value| -> Vec<(String, Value)> {
        let list = group["Warnings"]["Warning"].as_array().expect("a list");
        list.iter()
            .map(|warning| {
                (
                    warning["WarningType"].as_str().expect("a type").to_owned(),
                    warning["SourceIds"]["SourceId"].clone(),
                )
            })
            .collect()
    };
    let job = tenant.job(&web).await;
    let group = shown(&tenant, &wave).await;
    assert_eq!(group["Status"], "NotStarted");
    assert_eq!(
        warnings(&group),
        [("UnRelated".to_owned(), json!([database.as_str()]))]
    );

    let other = tenant.job(&database).await;
    fixture.set_state(&job, State::InError).await;
    let silent = "update source set last_seen_at = now() - interval '1 hour' where id = $1";
    fixture.execute(silent, database.as_str()).await;
    let group = shown(&tenant, &wave).await;
    assert_eq!(group["Status"], "InProgress");
    assert_eq!(
        warnings(&group),
        [
            ("InError".to_owned(), json!([web.as_str()])),
            ("NotPassed".to_owned(), json!([database.as_str()])),
        ]
    );

    fixture.set_state(&other, State::Waiting).await;
    fixture.set_state(&job, State::Finished).await;
    assert_eq!(shown(&tenant, &wave).await["Status"], "Cutover");
    fixture.set_state(&other, State::Finished).await;
    let group = shown(&tenant, &wave).await;
    assert_eq!(
        (&group["Status"], warnings(&group)),
        (&"Completed".into(), vec![])
    );

    // A job that is being deleted does not count any more.
    fixture.set_state(&other, State::Deleting).await;
    assert_eq!(shown(&tenant, &wave).await["Status"], "InProgress");
    fixture.stop().await;
}
