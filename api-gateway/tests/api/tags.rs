//! TagResources, UntagResources, ListTagResources, and lists filtered by tags.

use serde_json::{Value, json};

use crate::fixture::{Fixture, GIB, Tenant};

/// Returns `(ResourceId, TagKey, TagValue)` of an answer.
fn rows(answer: &Value) -> Vec<(String, String, String)> {
    let text = |row: &Value, field: &str| row[field].as_str().expect("a text").to_owned();
    answer["TagResources"]["TagResource"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| {
            (
                text(row, "ResourceId"),
                text(row, "TagKey"),
                text(row, "TagValue"),
            )
        })
        .collect()
}

async fn found(tenant: &Tenant, action: &str, filters: &[(&str, &str)]) -> Vec<String> {
    let answer = tenant.call(action, filters).await;
    let (outer, inner, id) = match action {
        "DescribeSourceServers" => ("SourceServers", "SourceServer", "SourceId"),
        _ => ("ReplicationJobs", "ReplicationJob", "JobId"),
    };
    let list = answer[outer][inner].as_array().expect("a list");
    assert_eq!(answer["TotalCount"], list.len());
    list.iter()
        .map(|row| row[id].as_str().expect("an id").to_owned())
        .collect()
}

#[tokio::test]
async fn sources_and_jobs_are_tagged_found_by_tags_and_untagged() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let web = fixture.source(&tenant, "web", &[GIB]).await;
    let database = fixture.source(&tenant, "database", &[GIB]).await;
    let both = [
        ("ResourceType", "sourceserver"),
        ("ResourceId.1", web.as_str()),
        ("ResourceId.2", database.as_str()),
    ];
    let tags = [
        ("Tag.1.Key", "env"),
        ("Tag.1.Value", "test"),
        ("Tag.2.Key", "team"),
    ];
    tenant
        .call("TagResources", &[&both[..], &tags[..]].concat())
        .await;
    // The same key again has a new value; the type is accepted in any case.
    let again = [
        ("ResourceType", "SourceServer"),
        ("ResourceId.1", web.as_str()),
        ("Tag.1.Key", "env"),
        ("Tag.1.Value", "live"),
    ];
    tenant.call("TagResources", &again).await;

    let shown = tenant
        .call("DescribeSourceServers", &[("SourceId.1", web.as_str())])
        .await;
    assert_eq!(
        shown["SourceServers"]["SourceServer"][0]["Tags"],
        json!({ "Tag": [{ "Key": "env", "Value": "live" }, { "Key": "team", "Value": "" }] })
    );
    let newest_first = vec![database.to_string(), web.to_string()];
    for (filters, wanted) in [
        (&[("Tag.1.Key", "env")][..], newest_first.clone()),
        (
            &[("Tag.1.Key", "env"), ("Tag.1.Value", "live")],
            vec![web.to_string()],
        ),
        (
            &[
                ("Tag.1.Key", "env"),
                ("Tag.1.Value", "test"),
                ("Tag.3.Key", "team"),
            ],
            vec![database.to_string()],
        ),
        (
            &[("Tag.1.Key", "env"), ("SourceId.1", web.as_str())],
            vec![web.to_string()],
        ),
        (&[("Tag.1.Key", "other")], vec![]),
        (&[("Tag.1.Key", "env"), ("Tag.2.Key", "other")], vec![]),
    ] {
        let found = found(&tenant, "DescribeSourceServers", filters).await;
        assert_eq!(found, wanted, "{filters:?}");
    }

    let create = [
        ("SourceId", web.as_str()),
        ("SystemDiskSize", "20"),
        ("Tag.1.Key", "wave"),
        ("Tag.1.Value", "1"),
    ];
    let answer = tenant.call("CreateReplicationJob", &create).await;
    let job = answer["JobId"].as_str().expect("an id").to_owned();
    let by_wave = [("Tag.1.Key", "wave"), ("Tag.1.Value", "1")];
    assert_eq!(
        found(&tenant, "DescribeReplicationJobs", &by_wave).await,
        [job.as_str()]
    );
    let shown = tenant.call("DescribeReplicationJobs", &by_wave).await;
    assert_eq!(
        shown["ReplicationJobs"]["ReplicationJob"][0]["Tags"],
        json!({ "Tag": [{ "Key": "wave", "Value": "1" }] })
    );
    let listed = tenant
        .call("ListTagResources", &[("ResourceType", "replicationjob")])
        .await;
    assert_eq!(
        rows(&listed),
        [(job.clone(), "wave".to_owned(), "1".to_owned())]
    );
    assert_eq!(
        listed["TagResources"]["TagResource"][0]["ResourceType"],
        "ALIYUN::SMC::REPLICATIONJOB"
    );

    let one_key = [&both[..], &[("TagKey.1", "team"), ("TagKey.2", "none")]].concat();
    tenant.call("UntagResources", &one_key).await;
    // All has no effect when keys are given.
    let with_keys = [&both[..], &[("TagKey.1", "none"), ("All", "true")]].concat();
    tenant.call("UntagResources", &with_keys).await;
    let listed = tenant
        .call("ListTagResources", &[("ResourceType", "sourceserver")])
        .await;
    let keys: Vec<String> = rows(&listed).into_iter().map(|row| row.1).collect();
    assert_eq!(keys, ["env", "env"]);
    tenant
        .call("UntagResources", &[&both[..], &[("All", "True")]].concat())
        .await;
    let listed = tenant
        .call("ListTagResources", &[("ResourceType", "sourceserver")])
        .await;
    assert_eq!(rows(&listed), []);
    fixture.stop().await;
}

#[tokio::test]
async fn what_breaks_a_rule_has_its_own_code_and_changes_nothing() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let stranger = fixture.tenant("two").await;
    let web = fixture.source(&tenant, "web", &[GIB]).await;
    let foreign = fixture.source(&stranger, "web", &[GIB]).await;
    let job = tenant.job(&web).await;
    let (kind, id, tag) = (
        ("ResourceType", "sourceserver"),
        ("ResourceId.1", web.as_str()),
        ("Tag.1.Key", "env"),
    );
    let long = "k".repeat(129);
    let names: Vec<String> = (1..=51).map(|n| format!("ResourceId.{n}")).collect();
    let many_ids: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "s-1")).collect();
    let names: Vec<String> = (1..=21).map(|n| format!("Tag.{n}.Key")).collect();
    let many_tags: Vec<(&str, &str)> = names
        .iter()
        .map(|name| (name.as_str(), name.as_str()))
        .collect();
    let cases: Vec<(Vec<(&str, &str)>, &str)> = vec![
        (vec![id, tag], "MissingParameter.ResourceType"),
        (
            vec![("ResourceType", "server"), id, tag],
            "InvalidResourceType.NotFound",
        ),
        (vec![kind, tag], "MissingResourceId"),
        (vec![kind, id], "MissingTag.Key"),
        (
            vec![kind, id, ("Tag.1.Value", "x"), ("Tag.2.Key", "a")],
            "MissingTag.Key",
        ),
        (
            [&[kind, tag][..], &many_ids].concat(),
            "NumberExceed.ResourceIds",
        ),
        ([&[kind, id][..], &many_tags].concat(), "NumberExceed.Tags"),
        (
            vec![kind, id, ("ResourceId.2", web.as_str()), tag],
            "Duplicate.ResourceId",
        ),
        (
            vec![kind, id, ("ResourceId.2", foreign.as_str()), tag],
            "InvalidResourceId.NotFound",
        ),
        (
            vec![kind, ("ResourceId.1", job.as_str()), tag],
            "InvalidResourceId.NotFound",
        ),
        (
            vec![kind, id, ("Tag.1.Key", "acs:x")],
            "InvalidParameter.TagKey",
        ),
        (
            vec![kind, id, ("Tag.1.Key", &long)],
            "InvalidParameter.TagKey",
        ),
        (
            vec![kind, id, tag, ("Tag.2.Key", "env")],
            "InvalidParameter.TagKey",
        ),
        (
            vec![kind, id, tag, ("Tag.1.Value", &long)],
            "InvalidParameter.TagValue",
        ),
    ];
    for (parameters, code) in &cases {
        let refusal = tenant.refusal("TagResources", parameters).await;
        assert_eq!(
            (refusal.code.as_str(), refusal.http_status),
            (*code, 400),
            "{parameters:?}"
        );
    }
    for (parameters, code) in [
        (vec![kind, id], "MissingTagKey"),
        (vec![kind, id, ("All", "false")], "MissingTagKey"),
        (vec![kind, ("All", "true")], "MissingResourceId"),
    ] {
        assert_eq!(tenant.code("UntagResources", &parameters).await, code);
    }
    let listed = tenant.call("ListTagResources", &[kind]).await;
    assert_eq!(rows(&listed), []);
    assert_eq!(
        tenant
            .code("ListTagResources", &[kind, ("NextToken", "x!")])
            .await,
        "InvalidNextToken"
    );

    // Twenty tags are allowed, in any number of calls; one more is not.
    tenant
        .call("TagResources", &[&[kind, id][..], &many_tags[1..]].concat())
        .await;
    let one_more = [kind, id, many_tags[0]];
    assert_eq!(
        tenant.code("TagResources", &one_more).await,
        "NumberExceed.Tags"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn tags_are_listed_page_by_page_and_go_with_their_resource() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let stranger = fixture.tenant("two").await;
    let kind = ("ResourceType", "sourceserver");
    let names: Vec<String> = (1..=20).map(|n| format!("Tag.{n}.Key")).collect();
    let tags: Vec<(&str, &str)> = names
        .iter()
        .map(|name| (name.as_str(), name.as_str()))
        .collect();
    let mut sources = Vec::new();
    for number in 0..6 {
        let source = fixture
            .source(&tenant, &format!("web-{number}"), &[GIB])
            .await;
        let one = [kind, ("ResourceId.1", source.as_str())];
        tenant
            .call("TagResources", &[&one[..], &tags].concat())
            .await;
        sources.push(source);
    }
    let first = tenant.call("ListTagResources", &[kind]).await;
    assert_eq!(rows(&first).len(), 100);
    let token = first["NextToken"].as_str().expect("there is more");
    let second = tenant
        .call("ListTagResources", &[kind, ("NextToken", token)])
        .await;
    assert!(second.get("NextToken").is_none(), "{second}");
    let mut seen = rows(&first);
    seen.extend(rows(&second));
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!((seen.len(), sorted.len()), (120, 120));

    let narrowed = [
        kind,
        ("ResourceId.1", sources[0].as_str()),
        ("Tag.1.Key", "Tag.1.Key"),
    ];
    let listed = tenant.call("ListTagResources", &narrowed).await;
    assert_eq!(rows(&listed).len(), 20);
    let foreign = stranger
        .call("ListTagResources", &[kind, ("NextToken", token)])
        .await;
    assert_eq!(rows(&foreign), []);

    tenant
        .call("DeleteSourceServer", &[("SourceId", sources[0].as_str())])
        .await;
    let left: i64 = sqlx::query_scalar("select count(*) from tag")
        .fetch_one(&fixture.pool)
        .await
        .expect("a count");
    assert_eq!(left, 100);
    fixture.stop().await;
}
