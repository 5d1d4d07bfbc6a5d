//! Calls that change something leave a row, whatever their result; others leave none.

use store::audit::{AuditFilter, Entry};

use crate::fixture::{Fixture, GIB, form};

async fn rows(fixture: &Fixture) -> Vec<Entry> {
    let all = fixture.store.audit(&AuditFilter::default(), 0, 1000).await;
    all.expect("the audit")
}

#[tokio::test]
async fn a_change_is_audited_with_who_where_what_and_outcome() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let job = tenant.job(&source).await;
    let rows = rows(&fixture).await;
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!((row.actor.as_str(), row.tenant.as_str()), ("tenant", "one"));
    assert_eq!(row.access_key, tenant.key.id);
    assert_eq!(row.origin, "127.0.0.1");
    assert_eq!(row.operation, "CreateReplicationJob");
    assert_eq!(row.resources, [source.as_str(), job.as_str()]);
    assert_eq!(row.outcome, "OK");
    assert!(!row.request_id.is_empty());
    fixture.stop().await;
}

#[tokio::test]
async fn refused_changes_are_audited_and_reads_and_strangers_are_not() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    tenant.call("DescribeSourceServers", &[]).await;
    // Refused by the operation, by its parameters' rules, and before the caller was known.
    let code = tenant
        .code("DeleteReplicationJob", &[("JobId", "j-none")])
        .await;
    tenant.code("DeleteReplicationJob", &[]).await;
    let mut forged = tenant.signed("GET", "DeleteReplicationJob", &[("JobId", "j-none")]);
    forged.retain(|(name, _)| name != "Signature");
    forged.push(("Signature".to_owned(), "forged".to_owned()));
    let answer = fixture.raw("GET", &form(&forged), &[], "").await;
    assert_eq!(answer.code(), "SignatureDoesNotMatch");
    let rows = rows(&fixture).await;
    let seen: Vec<(&str, &[String])> = rows
        .iter()
        .map(|row| (row.outcome.as_str(), row.resources.as_slice()))
        .collect();
    assert_eq!(
        seen,
        [
            (code.as_str(), &["j-none".to_owned()][..]),
            ("MissingJobId", &[][..])
        ]
    );
    fixture.stop().await;
}

#[tokio::test]
async fn no_secret_gets_into_the_audit() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let token = tenant.call("CreateAccessToken", &[]).await;
    let code = token["AccessTokenCode"].as_str().expect("a code");
    let secret = code.split('.').next().expect("a secret");
    let (text,): (String,) = sqlx::query_as("select string_agg(audit::text, ' ') from audit")
        .fetch_one(&fixture.pool)
        .await
        .expect("the audit");
    assert!(text.contains(token["AccessTokenId"].as_str().expect("an id")));
    assert!(!text.contains(secret) && !text.contains(&tenant.key.secret));
    fixture.stop().await;
}

#[tokio::test]
async fn without_its_row_a_change_is_not_made_or_not_answered_as_done() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let tokens = async || tenant.call("ListAccessTokens", &[]).await["TotalCount"].clone();
    // The row can't be begun: the call is not carried out.
    sqlx::raw_sql(
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no' using errcode = '53100'; end $$;
         create trigger refuse before insert on audit for each statement execute function refuse()",
    )
    .execute(&fixture.pool)
    .await
    .expect("a trigger");
    let refusal = tenant.refusal("CreateAccessToken", &[]).await;
    assert_eq!(
        (refusal.code.as_str(), refusal.http_status),
        ("ServiceUnavailable", 503)
    );
    assert_eq!(tokens().await, 0);
    // The row can't be completed: the call was carried out, and is not answered as done.
    sqlx::raw_sql(
        "drop trigger refuse on audit;
         create trigger refuse before update on audit for each statement execute function refuse()",
    )
    .execute(&fixture.pool)
    .await
    .expect("a trigger");
    let refusal = tenant.refusal("CreateAccessToken", &[]).await;
    assert_eq!(refusal.http_status, 503);
    assert_eq!(tokens().await, 1);
    let rows = rows(&fixture).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].outcome, "Unknown");
    fixture.stop().await;
}
