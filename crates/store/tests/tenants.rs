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
    max_access_tokens: 6,
    max_access_token_uses: 7,
    max_access_token_days: 8,
    max_bytes: Some(9),
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

/// Checks the rights of calls, which are granted table by table. A forgotten table is closed, and an open table without
/// a policy fails here.
#[tokio::test]
async fn calls_see_their_tenants_rows_only_whatever_a_statement_asks_for() {
    let database = testkit::postgres().await;
    let (store, pool) = (database.store().await, database.pool().await);
    let mut tenants = Vec::new();
    for name in ["alice", "bob"] {
        let made = store.create_tenant(name, &QUOTAS).await.expect("made");
        let CreateTenant::Created(tenant) = made else {
            panic!("the name is free")
        };
        store.fill(&tenant.id, "local", 20).await.expect("rows");
        for statement in [
            "insert into image (id, tenant, job_id, source_id, run, epoch, region_id, name)
             select 'm' || substr(id, 2), tenant, id, source_id, run, 1, region_id, name from job where tenant = $1",
            "insert into timer (job_id, kind, due_at) select id, 'expire', now() from job where tenant = $1",
            "insert into job_run (job_id, run, kind) select id, 1, 'manual' from job where tenant = $1",
            "insert into job_lease (job_id, run, epoch, worker, expires_at) select id, 1, 1, 'w', now() from job where tenant = $1",
            "insert into tag (tenant, kind, resource_id, key, created_at) select tenant, 'job', id, 'a', created_at from job where tenant = $1",
            "insert into workgroup (id, tenant, name) values ('wg-' || $1, $1, 'group')",
            "insert into region (tenant, id) values ($1, 'elsewhere')",
            "insert into vpc (id, tenant, region_id) values ('vpc-' || $1, $1, 'elsewhere')",
            "insert into vswitch (id, tenant, vpc) values ('vsw-' || $1, $1, 'vpc-' || $1)",
            "insert into client_token (tenant, token, operation, digest, answer) values ($1, 'token', 'Create', '', '{}')",
            "insert into access_token (id, tenant, name, code_hash, max_count, valid_days, expires_at)
             values ('at-' || $1, $1, 'code', $1::bytea, 1, 1, now())",
        ] {
            sqlx::query(statement)
                .bind(tenant.id.as_str())
                .execute(&pool)
                .await
                .expect("rows of the tenant");
        }
        tenants.push(tenant.id);
    }
    let tables: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace
           and relname <> '_sqlx_migrations' order by 1",
    )
    .fetch_all(&pool)
    .await
    .expect("the schema");
    assert!(tables.len() > 20, "{tables:?}");

    let mut connection = pool.acquire().await.expect("a connection");
    let mut run = async |statement: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .fetch_all(&mut *connection)
            .await
    };
    run("set role wherry_tenant".to_owned())
        .await
        .expect("the role");
    run("select * from job".to_owned())
        .await
        .expect_err("a call of no tenant sees nothing, not even that there is nothing");
    run(format!("set wherry.tenant = '{}'", tenants[0]))
        .await
        .expect("a setting");
    let mut open = Vec::new();
    for table in &tables {
        let Ok(rows) = run(format!("select row_to_json(t)::text from {table} as t")).await else {
            continue;
        };
        open.push(table.as_str());
        assert!(
            !rows.is_empty(),
            "{table} has no row to be seen: the test must make one"
        );
        for row in rows {
            let text: String = sqlx::Row::get(&row, 0);
            assert!(!text.contains("bob"), "{table}: {text}");
            assert!(!text.contains(tenants[1].as_str()), "{table}: {text}");
        }
        let seen = run(format!("select count(*) from {table}"))
            .await
            .expect("a count");
        let seen: i64 = sqlx::Row::get(&seen[0], 0);
        let all: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {table}")))
                .fetch_one(&pool)
                .await
                .expect("the owner's count");
        assert_eq!(
            seen * 2,
            all,
            "{table}: half of the rows are the neighbour's"
        );
    }
    assert!(
        open.contains(&"job") && open.contains(&"source_disk"),
        "{open:?}"
    );
    for closed in [
        "access_key",
        "deployment_secret",
        "outbox",
        "signature_nonce",
    ] {
        assert!(!open.contains(&closed), "{closed} is open to calls");
    }
    // Nor do writes reach the neighbour.
    let bob = tenants[1].as_str();
    for statement in [
        format!("update job set name = 'taken' where tenant = '{bob}' returning id"),
        format!("delete from image where tenant = '{bob}' returning id"),
        format!("select id from tenant where id = '{bob}' for no key update"),
    ] {
        assert!(
            run(statement.clone()).await.expect("no error").is_empty(),
            "{statement}"
        );
    }
    run(format!(
        "insert into workgroup (id, tenant, name) values ('wg-x', '{bob}', 'x')"
    ))
    .await
    .expect_err("a row for the neighbour");
}
