//! The audit and the operations of operators, against a real Postgres.

use domain::{TenantId, Timestamp};
use store::Store;
use store::audit::{Actor, AuditFilter, NewEntry};
use store::operator::{RemoveTenant, RenameTenant};
use store::tenant::{CreateTenant, Quotas};

const ENTRY: NewEntry<'static> = NewEntry {
    actor: Actor::Tenant,
    tenant: None,
    access_key: "WK1",
    user_name: "",
    origin: "127.0.0.1",
    request_id: "r-1",
    operation: "DeleteImage",
    resources: &[],
    outcome: None,
};

async fn tenant(store: &Store, name: &str) -> TenantId {
    match store.create_tenant(name, &Quotas::default()).await {
        Ok(CreateTenant::Created(tenant)) => tenant.id,
        other => panic!("{other:?}"),
    }
}

async fn outcomes(store: &Store, filter: AuditFilter) -> Vec<String> {
    let rows = store.audit(&filter, 0, 100).await.expect("read");
    rows.into_iter().map(|row| row.outcome).collect()
}

#[tokio::test]
async fn a_row_is_completed_once_and_says_unknown_before() {
    let database = testkit::postgres().await;
    let store = database.store().await;
    let alice = tenant(&store, "alice").await;
    let named = ["m-1".to_owned()];
    let entry = NewEntry {
        resources: &named,
        ..ENTRY
    };
    let id = store.begin_audit(&entry).await.expect("begun");
    assert_eq!(outcomes(&store, AuditFilter::default()).await, ["Unknown"]);
    let made = ["m-2".to_owned()];
    store
        .end_audit(id, "OK", Some(&alice), &made)
        .await
        .expect("ended");
    store
        .end_audit(id, "InternalError", None, &made)
        .await
        .expect("answered");
    let rows = store.audit(&AuditFilter::default(), 0, 10).await;
    let rows = rows.expect("read");
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].outcome.as_str(), rows[0].tenant.as_str()),
        ("OK", "alice")
    );
    assert_eq!(rows[0].resources, ["m-1", "m-2"]);
}

#[tokio::test]
async fn each_filter_finds_its_rows_and_pages_follow_each_other() {
    let database = testkit::postgres().await;
    let store = database.store().await;
    let alice = tenant(&store, "alice").await;
    let write = async |entry: NewEntry<'_>| {
        store.begin_audit(&entry).await.expect("written");
    };
    write(NewEntry {
        tenant: Some(&alice),
        outcome: Some("A"),
        ..ENTRY
    })
    .await;
    write(NewEntry {
        operation: "DeleteKey",
        outcome: Some("B"),
        ..ENTRY
    })
    .await;
    write(NewEntry {
        user_name: "bob",
        outcome: Some("C"),
        ..ENTRY
    })
    .await;
    write(NewEntry {
        actor: Actor::Operator,
        access_key: "",
        outcome: Some("D"),
        ..ENTRY
    })
    .await;
    let text = |text: &str| Some(text.to_owned());
    let past: Timestamp = "2020-01-01T00:00:00Z".parse().expect("a time");
    let any = AuditFilter::default();
    for (filter, wanted) in [
        (any.clone(), &["A", "B", "C", "D"][..]),
        (
            AuditFilter {
                tenant: text("alice"),
                ..any.clone()
            },
            &["A"],
        ),
        (
            AuditFilter {
                tenant: text(alice.as_str()),
                ..any.clone()
            },
            &["A"],
        ),
        (
            AuditFilter {
                tenant: text("nobody"),
                ..any.clone()
            },
            &[],
        ),
        (
            AuditFilter {
                operation: text("DeleteKey"),
                ..any.clone()
            },
            &["B"],
        ),
        (
            AuditFilter {
                principal: text("bob"),
                ..any.clone()
            },
            &["C"],
        ),
        (
            AuditFilter {
                principal: text("WK1"),
                ..any.clone()
            },
            &["A", "B", "C"],
        ),
        (
            AuditFilter {
                principal: text("operator"),
                ..any.clone()
            },
            &["D"],
        ),
        (
            AuditFilter {
                outcome: text("C"),
                ..any.clone()
            },
            &["C"],
        ),
        (
            AuditFilter {
                since: Some(past),
                ..any.clone()
            },
            &["A", "B", "C", "D"],
        ),
        (
            AuditFilter {
                until: Some(past),
                ..any.clone()
            },
            &[],
        ),
    ] {
        assert_eq!(outcomes(&store, filter.clone()).await, wanted, "{filter:?}");
    }
    let first = store.audit(&any, 0, 3).await.expect("read");
    let rest = store.audit(&any, first[2].seq, 3).await.expect("read");
    assert_eq!(
        (first.len(), rest.len(), rest[0].outcome.as_str()),
        (3, 1, "D")
    );
}

#[tokio::test]
async fn old_rows_are_forgotten_and_those_of_a_tenant_that_is_gone_stay() {
    let database = testkit::postgres().await;
    let (store, pool) = (database.store().await, database.pool().await);
    let alice = tenant(&store, "alice").await;
    let entry = NewEntry {
        tenant: Some(&alice),
        outcome: Some("OK"),
        ..ENTRY
    };
    store.begin_audit(&entry).await.expect("written");
    sqlx::query("update audit set at = now() - interval '10 days'")
        .execute(&pool)
        .await
        .expect("older");
    store.begin_audit(&entry).await.expect("written");
    assert_eq!(store.forget_audit(11).await.expect("forgotten"), 0);
    assert_eq!(store.forget_audit(9).await.expect("forgotten"), 1);

    assert_eq!(
        store.remove_tenant(&alice).await.expect("removed"),
        RemoveTenant::Removed
    );
    let left = store
        .audit(&AuditFilter::default(), 0, 10)
        .await
        .expect("read");
    assert_eq!(left.len(), 1);
    assert_eq!(
        left[0].tenant,
        alice.as_str(),
        "its name is gone, its id is not"
    );
}

#[tokio::test]
async fn a_tenant_is_renamed_and_removed_only_when_it_is_empty() {
    let database = testkit::postgres().await;
    let (store, pool) = (database.store().await, database.pool().await);
    let (alice, bob) = (tenant(&store, "alice").await, tenant(&store, "bob").await);
    let name = |text: &str| domain::name::Name::parse(text).expect("a name");
    assert_eq!(
        store
            .rename_tenant(&alice, &name("bob"))
            .await
            .expect("answered"),
        RenameTenant::NameTaken
    );
    assert_eq!(
        store
            .rename_tenant(&alice, &name("carol"))
            .await
            .expect("answered"),
        RenameTenant::Renamed
    );
    assert_eq!(
        store
            .rename_tenant(&TenantId::generate(), &name("dave"))
            .await
            .expect("answered"),
        RenameTenant::NotFound
    );
    assert_eq!(
        store
            .tenant_named("carol")
            .await
            .expect("read")
            .map(|tenant| tenant.id),
        Some(alice.clone())
    );

    let key = store.create_access_key(&alice).await.expect("a key");
    assert!(
        !store
            .delete_access_key(&bob, &key.id)
            .await
            .expect("answered"),
        "not bob's"
    );
    assert!(
        store
            .delete_access_key(&alice, &key.id)
            .await
            .expect("removed")
    );
    assert_eq!(store.access_key(&key.id).await.expect("read"), None);

    sqlx::query(
        "insert into source (id, tenant, name, description, public_key, agent_version, architecture, platform)
         values ('s-1', $1, 'web', '', '', '1', 'x86_64', 'Debian')",
    )
    .bind(alice.as_str())
    .execute(&pool)
    .await
    .expect("a source");
    let in_use = RemoveTenant::InUse {
        sources: 1,
        jobs: 0,
        images: 0,
    };
    assert_eq!(store.remove_tenant(&alice).await.expect("answered"), in_use);
    sqlx::query("delete from source")
        .execute(&pool)
        .await
        .expect("gone");
    assert_eq!(
        store.remove_tenant(&alice).await.expect("removed"),
        RemoveTenant::Removed
    );
    assert_eq!(
        store.remove_tenant(&alice).await.expect("answered"),
        RemoveTenant::NotFound
    );
}
