//! ClientToken: a call that was done once is answered again and not done again (SMC API §5.7).

use std::collections::BTreeSet;

use crate::create_job::create;
use crate::fixture::{Fixture, GIB};

#[tokio::test]
async fn a_client_token_makes_one_job_however_often_it_is_sent() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let token = [("ClientToken", "once")];
    let calls = (0..8).map(|_| create(&tenant, source.as_str(), &token));
    let answers: BTreeSet<_> = futures::future::join_all(calls).await.into_iter().collect();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let job = answers.into_iter().next().expect("one").expect("a job");

    // The answer takes precedence over the state of the source, which is InUse by this job.
    assert_eq!(
        create(&tenant, source.as_str(), &token).await,
        Ok(job.clone())
    );
    let other = create(
        &tenant,
        source.as_str(),
        &[("ClientToken", "once"), ("Name", "other")],
    )
    .await;
    assert_eq!(other, Err("IdempotentParameterMismatch".to_owned()));
    // Tokens are case-sensitive, and each account has its own.
    assert_eq!(
        create(&tenant, source.as_str(), &[("ClientToken", "ONCE")]).await,
        Err("SourceServerState.Invalid".to_owned())
    );
    let neighbour = fixture.tenant("two").await;
    let their_source = fixture.source(&neighbour, "web", &[GIB]).await;
    assert!(
        create(&neighbour, their_source.as_str(), &token)
            .await
            .is_ok_and(|theirs| theirs != job)
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_refused_create_does_not_bind_its_token() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    fixture
        .execute(
            "update source set last_seen_at = now() - interval '2 minutes' where id = $1",
            source.as_str(),
        )
        .await;
    let token = [("ClientToken", "again")];
    assert!(create(&tenant, source.as_str(), &token).await.is_err());
    fixture
        .execute(
            "update source set last_seen_at = now() where id = $1",
            source.as_str(),
        )
        .await;
    assert!(create(&tenant, source.as_str(), &token).await.is_ok());
    fixture.stop().await;
}

#[tokio::test]
async fn a_client_token_is_one_for_the_account_and_its_answer_wins_over_everything() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let north = store::network::Network::Region {
        id: "north".to_owned(),
    };
    let made = fixture.store.create_network(&tenant.id, &north).await;
    made.expect("a region");
    let source = fixture.source(&tenant, "web", &[GIB]).await;
    let token = ("ClientToken", " with spaces, 64 at most ~");
    let more = [token, ("RegionId", "north")];
    let job = create(&tenant, source.as_str(), &more)
        .await
        .expect("a job");
    // The account no longer has the region, nor the source: it had both when the call was done.
    fixture
        .execute("delete from region where tenant = $1", tenant.id.as_str())
        .await;
    fixture
        .execute(
            "update source set deleting = true where id = $1",
            source.as_str(),
        )
        .await;
    assert_eq!(create(&tenant, source.as_str(), &more).await, Ok(job));

    // Another operation can't use the token.
    let group = [token, ("Name", "hall")];
    let code = tenant.code("CreateWorkgroup", &group).await;
    assert_eq!(code, "IdempotentParameterMismatch");
    let group = [("ClientToken", "hall"), ("Name", "hall")];
    tenant.call("CreateWorkgroup", &group).await;
    let other = create(&tenant, source.as_str(), &group).await;
    assert_eq!(other, Err("IdempotentParameterMismatch".to_owned()));
    fixture.stop().await;
}
