//! Forms of calls and of answers: query and form, JSON and XML, limits.

use futures::stream;

use crate::fixture::{Fixture, form};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

#[tokio::test]
async fn parameters_arrive_in_query_form_or_both_and_in_chunks() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let action = "DescribeSourceServers";
    let extra = [
        ("Name", "naïve 名字 a+b&c=d*e~f!g(h)'i\"/%25"),
        ("SignatureType", ""),
        ("OwnerId", "7"),
    ];

    let all_in_form = form(&tenant.signed("POST", action, &extra));
    let answer = fixture.raw("POST", "", &[FORM], all_in_form).await;
    assert_eq!(answer.status, 200, "{answer:?}");

    let with_plus = form(&tenant.signed("GET", action, &extra))
        .replace("%20", "+")
        .replace("%2A", "*");
    assert_eq!(fixture.raw("GET", &with_plus, &[], "").await.status, 200);

    let pairs = tenant.signed("POST", action, &extra);
    let (query, body): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(name, _)| name != "Name");
    let answer = fixture
        .raw("POST", &form(&query), &[FORM], form(&body))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");

    let body = form(&tenant.signed("POST", action, &extra));
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = body
        .as_bytes()
        .chunks(7)
        .map(|piece| Ok(piece.to_vec()))
        .collect();
    let chunked = reqwest::Body::wrap_stream(stream::iter(pieces));
    assert_eq!(fixture.raw("POST", "", &[FORM], chunked).await.status, 200);
    fixture.stop().await;
}

/// The query has the parts of a call that a V1 signature needs; the signature is over the parameters in their flat
/// form.
#[tokio::test]
async fn each_operation_has_a_path_and_takes_its_request_as_json() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let action = "DescribeSourceServers";
    let path = "/DescribeSourceServers";
    let json = ("content-type", "application/json; charset=utf-8");
    let flat = [
        ("Name", "web"),
        ("PageSize", "5"),
        ("SourceId.1", "s-1"),
        ("SourceId.2", "s-2"),
        ("Tag.1.Key", "a"),
    ];
    let body =
        r#"{"Name":"web","State":null,"PageSize":5,"SourceId":["s-1","s-2"],"Tag":[{"Key":"a"}]}"#;
    let signed = || {
        let mut pairs = tenant.signed("POST", action, &flat);
        pairs.retain(|(name, _)| !flat.iter().any(|(in_body, _)| in_body == name));
        form(&pairs)
    };
    for path in ["/", path] {
        let answer = fixture.raw_at(path, "POST", &signed(), &[json], body).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(answer.json()["PageSize"], 5, "{path}");
    }
    let changed = body.replace("s-2", "s-3");
    let answer = fixture
        .raw_at(path, "POST", &signed(), &[json], changed)
        .await;
    assert_eq!(answer.code(), "SignatureDoesNotMatch");
    let answer = fixture
        .raw_at(path, "POST", &signed(), &[json], "[1]")
        .await;
    assert_eq!(answer.code(), "InvalidParameter", "{answer:?}");
    let answer = fixture
        .raw_at("/DescribeImages", "POST", &signed(), &[json], body)
        .await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (404, "InvalidAction.NotFound")
    );
    let query = form(&tenant.signed("GET", action, &[]));
    let answer = fixture.raw_at(path, "GET", &query, &[], "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    fixture.stop().await;
}

#[tokio::test]
async fn answers_name_their_request_in_body_and_header() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let query = form(&tenant.signed("GET", "DescribeSourceServers", &[]));
    let answer = fixture.raw("GET", &query, &[], "").await;
    assert_eq!(answer.content_type, "application/json;charset=utf-8");
    assert_eq!(answer.json()["RequestId"], answer.request_id.as_str());
    assert_eq!(answer.request_id.len(), 36);
    assert!(
        answer.json().get("Code").is_none(),
        "some clients take any Code for an error"
    );

    let answer = fixture.raw("GET", "Action=x", &[], "").await;
    let body = answer.json();
    for name in ["RequestId", "HostId", "Code", "Message", "Recommend"] {
        assert!(body[name].is_string(), "{name} in {body}");
    }
    assert_eq!(body["HostId"], fixture.address.to_string().as_str());
    fixture.stop().await;
}

#[tokio::test]
async fn xml_is_the_same_tree() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let empty = form(&tenant.signed("GET", "DescribeSourceServers", &[("Format", "xml")]));
    let answer = fixture.raw("GET", &empty, &[], "").await;
    assert_eq!(answer.content_type, "text/xml;charset=utf-8");
    assert_eq!(
        answer.text,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><DescribeSourceServersResponse><PageNumber>1</PageNumber><PageSize>10</PageSize>\
             <RequestId>{}</RequestId><SourceServers></SourceServers><TotalCount>0</TotalCount></DescribeSourceServersResponse>",
            answer.request_id
        )
    );
    fixture.source(&tenant, "web", &[1, 2, 3]).await;
    let full = form(&tenant.signed("GET", "DescribeSourceServers", &[("Format", "XML")]));
    let text = fixture.raw("GET", &full, &[], "").await.text;
    assert!(text.contains("<DataDisk><Index>1</Index><Path>/dev/vd1</Path><Size>1</Size></DataDisk><DataDisk><Index>2</Index>"), "{text}");
    let wrong = form(&tenant.signed("GET", "StopReplicationJob", &[("Format", "XML")]));
    let answer = fixture.raw("GET", &wrong, &[], "").await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.text.contains("<Error><Code>MissingJobId</Code>"),
        "{}",
        answer.text
    );
    fixture.stop().await;
}

#[tokio::test]
async fn large_requests_and_other_paths_are_refused() {
    let fixture = Fixture::start().await;
    let answer = fixture
        .raw("POST", "", &[FORM], "a=".to_owned() + &"x".repeat(70_000))
        .await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "RequestTooLarge")
    );
    let answer = fixture.raw("POST", "", &[FORM], "a=1&".repeat(501)).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "RequestTooLarge")
    );
    let answer = fixture.raw("POST", "", &[FORM], "Action=%ff").await;
    assert_eq!(answer.code(), "InvalidParameter");
    let response = reqwest::get(format!("http://{}/elsewhere", fixture.address))
        .await
        .expect("an answer");
    assert_eq!(response.status(), 404);
    fixture.stop().await;
}

/// A refusal has the requested format, even for a call that could not be read to its end.
#[tokio::test]
async fn whatever_is_wrong_is_said_in_the_form_that_was_asked_for() {
    let fixture = Fixture::start().await;
    let xml = ("accept", "application/xml");
    let large = "a=".to_owned() + &"x".repeat(70_000);
    let many = "Format=XML&".to_owned() + &"a=1&".repeat(501);
    for (method, query, headers, body) in [
        ("PUT", "Format=XML", &[][..], ""),
        ("GET", "Format=xml&Action=%ff", &[], ""),
        ("POST", "Format=XML", &[FORM], &large),
        ("POST", "", &[FORM], &many),
        ("POST", "", &[FORM, xml], "Action=%ff"),
        ("POST", "", &[FORM], "Action=%ff&Format=XML"),
        ("GET", "Action=%00&Format=XML", &[], ""),
        // Of several formats, the last counts.
        ("GET", "Format=JSON&Format=XML", &[], ""),
    ] {
        let answer = fixture.raw(method, query, headers, body.to_owned()).await;
        assert_eq!(
            answer.content_type, "text/xml;charset=utf-8",
            "{method} {query}: {answer:?}"
        );
        assert!(answer.text.contains("<Error><Code>"), "{answer:?}");
    }
    fixture.stop().await;
}

/// Every field in these answers is in the reference. Debug builds check every error code of all tests against the
/// tables from which the reference is made (`error_codes`).
#[tokio::test]
async fn answers_hold_what_the_reference_says() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[1, 1]).await;
    let job = tenant.job(&source).await;
    tenant
        .call("StartReplicationJob", &[("JobId", job.as_str())])
        .await;
    tenant.call("CreateAccessToken", &[]).await;
    let reference = api_gateway::reference::markdown();
    for (action, parameters) in [
        ("DescribeSourceServers", &[][..]),
        ("DescribeReplicationJobs", &[]),
        ("ExplainReplicationJob", &[("JobId", job.as_str())]),
        ("ListAccessTokens", &[]),
        ("DescribeImages", &[]),
    ] {
        let answer = tenant.call(action, parameters).await;
        let section = reference
            .split(&format!("\n## {action}\n"))
            .nth(1)
            .expect("a section");
        let section = section.split("\n## ").next().expect("its text");
        let mut paths = Vec::new();
        collect_paths(&answer, String::new(), &mut paths);
        for path in paths.iter().filter(|path| *path != "RequestId") {
            assert!(
                section.contains(&format!("| {path} |")),
                "{action} answers {path}, which docs/api.md does not name"
            );
        }
    }
    fixture.stop().await;
}

fn collect_paths(value: &serde_json::Value, path: String, paths: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                collect_paths(value, format!("{path}{dot}{name}"), paths);
            }
        }
        serde_json::Value::Array(items) => {
            for item in items {
                collect_paths(item, format!("{path}[]"), paths);
            }
        }
        _ => paths.push(path),
    }
}
