//! Tenants, their quotas, and the history of their jobs, against a real Postgres.

use domain::TenantId;
use domain::job::{Event, State};
use store::tenant::{CreateTenant, Quotas};

const QUOTAS: Quotas = Quotas {
    max_sources: 3,
    max_jobs: 2,
    max_running: 1,
    max_workgroups: 4,
    max_workgroup_sources: 5,
};

#[tokio::test]
async fn a_tenant_is_made_once_and_its_quotas_change() {
    let database = testkit::postgres().await;
    let store = database.store().await;
    let made = store.create_tenant("alice", &QUOTAS).await.expect("made");
    let CreateTenant::Created(alice) = made else {
        panic!("the name is free")
    };
    let again = store
        .create_tenant("alice", &Quotas::default())
        .await
        .expect("answered");
    assert_eq!(again, CreateTenant::NameTaken);
    let found = store.tenant_named("alice").await.expect("read");
    assert_eq!(found.as_ref(), Some(&alice));
    assert_eq!(store.tenant_named("bob").await.expect("read"), None);

    let more = Quotas {
        max_running: 9,
        ..QUOTAS
    };
    assert!(store.set_quotas(&alice.id, &more).await.expect("set"));
    let stranger = TenantId::generate();
    assert!(!store.set_quotas(&stranger, &more).await.expect("answered"));
    let all = store.tenants().await.expect("listed");
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].quotas, more);
}

#[tokio::test]
async fn the_history_is_read_in_order_page_by_page_and_by_tenant() {
    let database = testkit::postgres().await;
    let (store, pool) = (database.store().await, database.pool().await);
    for name in ["alice", "bob"] {
        let made = store.create_tenant(name, &QUOTAS).await.expect("made");
        let CreateTenant::Created(tenant) = made else {
            panic!("the name is free")
        };
        for (event, from, to) in [
            ("start", "ready", "preparing"),
            ("start", "preparing", "preparing"),
            ("prepared", "preparing", "syncing"),
        ] {
            sqlx::query(
                "insert into job_event (job_id, tenant, event, from_state, to_state, run, epoch, actor)
                 values ($1, $2, $3, $4, $5, 1, 1, 'test')",
            )
            .bind(format!("j-{name}"))
            .bind(tenant.id.as_str())
            .bind(event)
            .bind(from)
            .bind(to)
            .execute(&pool)
            .await
            .expect("a row");
        }
    }
    let first = store.history(0, 4, None).await.expect("read");
    let rest = store.history(first[3].seq, 4, None).await.expect("read");
    assert_eq!((first.len(), rest.len()), (4, 2));
    assert!(first.iter().chain(&rest).is_sorted_by_key(|row| row.seq));

    let of_bob = store.history(0, 100, Some("bob")).await.expect("read");
    assert!(
        of_bob
            .iter()
            .all(|row| row.tenant == "bob" && row.job_id == "j-bob")
    );
    let steps: Vec<(Event, State)> = of_bob.iter().map(|row| (row.event, row.to)).collect();
    let expected = [
        (Event::Start, State::Preparing),
        (Event::Start, State::Preparing),
        (Event::Prepared, State::Syncing),
    ];
    assert_eq!(steps, expected);
    assert!(
        store
            .history(0, 100, Some("carol"))
            .await
            .expect("read")
            .is_empty()
    );
}
