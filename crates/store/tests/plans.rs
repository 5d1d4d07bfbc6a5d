//! No statement of a call reads a large table from end to end.
//!
//! Every statement of this crate is in `.sqlx`, so a new one is looked at here without being named. Those with filters that may be absent are
//! planned for their values, so they are called and their reads counted; all others are planned as they are.

use std::path::Path;
use std::time::Duration;

use domain::TenantId;
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, PgPool, Row as _};
use store::image::ImageFilter;
use store::job::describe::JobFilter;
use store::source::SourceFilter;
use store::{ConnectConfig, Page, SealKey, Store};

/// Sources of each tenant, and as many jobs.
const ROWS: u32 = 2_000;
const TENANTS: usize = 10;

/// Tables that grow with what tenants have.
const LARGE: [&str; 12] = [
    "source",
    "source_disk",
    "job",
    "job_disk",
    "job_event",
    "timer",
    "client_token",
    "signature_nonce",
    "image",
    "tag",
    "job_run",
    "workgroup",
];

/// Statements that may read a large table from end to end, by words of theirs, and why.
const READ_ALL: [(&str, &str); 7] = [
    ("group by state", "figures, every few seconds"),
    ("from queued", "figures, every few seconds"),
    (
        "insert into source (id, tenant",
        "fill: rows for load tests",
    ),
    ("analyze source", "fill"),
    ("delete from signature_nonce", "housekeeping, once a minute"),
    ("delete from client_token", "housekeeping, once a minute"),
    ("from source where deleting", "housekeeping, once a minute"),
];

struct World {
    pool: PgPool,
    tenant: TenantId,
    database: testkit::Database,
}

impl World {
    async fn new() -> Self {
        let database = testkit::postgres().await;
        let pool = database.pool().await;
        let store = database.store().await;
        let tenants: Vec<TenantId> = (0..TENANTS).map(|_| TenantId::generate()).collect();
        for tenant in &tenants {
            sqlx::query("insert into tenant (id, name) values ($1, $1)")
                .bind(tenant.as_str())
                .execute(&pool)
                .await
                .unwrap();
            store.fill(tenant, "local", ROWS).await.unwrap();
        }
        store.close().await;
        let mut setup = connect(&database, "setup").await;
        // What a full deployment has of the others.
        for statement in [
            "insert into timer (job_id, kind, due_at) select id, 'expire', valid_until from job",
            "insert into signature_nonce (access_key, nonce) select 'WK', id from job",
            "insert into client_token (tenant, token, operation, digest, answer) select tenant, id, 'CreateReplicationJob', '', '{}' from job",
            "insert into image (id, tenant, job_id, source_id, run, epoch, region_id, name, state, created_at)
             select 'm-' || substr(id, 3), tenant, id, source_id, 1, 1, region_id, name, 'available', created_at from job",
            "insert into tag (tenant, kind, resource_id, key, value)
             select tenant, 'job', id, key, 'x' from job, unnest(array['env', 'team']) as key",
            "insert into tag (tenant, kind, resource_id, key, value) select tenant, 'source', id, 'env', 'x' from source",
            "insert into job_run (job_id, run, kind) select id, number, 'manual' from job, generate_series(1, 3) as number",
            "insert into workgroup (id, tenant, name) select 'w-' || substr(id, 3), tenant, name from source",
            "update source set workgroup_id = 'w-' || substr(id, 3)",
            // Index-only scans need to know which pages are whole.
            "vacuum analyze",
        ] {
            sqlx::raw_sql(statement).execute(&mut setup).await.unwrap();
        }
        setup.close().await.unwrap();
        let world = Self {
            pool,
            tenant: tenants[0].clone(),
            database,
        };
        world.gone("setup").await;
        world
    }

    /// How many rows reading from end to end has given, for each large table.
    async fn read(&self) -> Vec<(String, i64)> {
        let rows = sqlx::query("select relname::text, seq_tup_read from pg_stat_user_tables where relname = any($1) order by 1")
            .bind(LARGE.map(str::to_owned).to_vec())
            .fetch_all(&self.pool)
            .await
            .unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Waits until what the closed connections have counted is there: they tell it before they are gone.
    async fn gone(&self, application: &str) {
        testkit::wait::some(Duration::from_secs(30), "the connections have ended", async || {
            let left: i64 = sqlx::query_scalar(
                "select count(*) from pg_stat_activity where application_name = $1 and datname = current_database()",
            )
            .bind(application)
            .fetch_one(&self.pool)
            .await?;
            Ok((left == 0).then_some(()))
        })
        .await
        .unwrap();
    }

    async fn store(&self, application: &str) -> Store {
        let config = ConnectConfig {
            plans_each: true,
            ..ConnectConfig::new(self.database.url(), application)
        };
        let seal = SealKey::from_hex(&SealKey::generate_hex()).unwrap();
        Store::connect(&config, seal).await.unwrap()
    }
}

async fn connect(database: &testkit::Database, application: &str) -> PgConnection {
    let options: PgConnectOptions = database.url().parse().unwrap();
    let options = options.application_name(application);
    PgConnection::connect_with(&options).await.unwrap()
}

fn statements() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.sqlx");
    let mut statements: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let parsed: Value = serde_json::from_str(&text).unwrap();
            parsed["query"].as_str().unwrap().to_owned()
        })
        .collect();
    statements.sort();
    statements
}

/// Large tables that the plan reads from end to end.
fn whole_reads(plan: &Value, found: &mut Vec<String>) {
    match plan {
        Value::Object(node) => {
            let table = node.get("Relation Name").and_then(Value::as_str);
            if node.get("Node Type").and_then(Value::as_str) == Some("Seq Scan")
                && let Some(table) = table
                && LARGE.contains(&table)
            {
                found.push(table.to_owned());
            }
            node.values().for_each(|value| whole_reads(value, found));
        }
        Value::Array(nodes) => nodes.iter().for_each(|node| whole_reads(node, found)),
        _ => {}
    }
}

#[tokio::test]
async fn no_statement_is_planned_to_read_a_large_table_from_end_to_end() {
    let world = World::new().await;
    let mut faults = Vec::new();
    let mut looked_at = 0;
    for statement in statements() {
        let text = statement.to_lowercase();
        let is_planned = ["select", "insert", "update", "delete", "with"]
            .iter()
            .any(|word| text.trim_start().starts_with(word));
        let is_excepted = READ_ALL.iter().any(|(words, _)| text.contains(words));
        if !is_planned || is_excepted || text.contains("is null or") {
            continue;
        }
        looked_at += 1;
        let explain = format!("explain (generic_plan, format json) {statement}");
        let mut connection = world.pool.acquire().await.unwrap();
        let plan = sqlx::raw_sql(sqlx::AssertSqlSafe(explain))
            .fetch_one(&mut *connection)
            .await;
        let plan: Value = match plan {
            Ok(row) => row.get(0),
            Err(error) => panic!("{statement}: {error}"),
        };
        let mut found = Vec::new();
        whole_reads(&plan, &mut found);
        if !found.is_empty() {
            faults.push(format!("{found:?} by {statement}"));
        }
    }
    assert!(looked_at > 60, "{looked_at} statements were looked at");
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[tokio::test]
async fn no_list_reads_a_large_table_from_end_to_end() {
    let world = World::new().await;
    let store = world.store("lists").await;
    let page = |number| Page { number, size: 50 };
    let (jobs, sources, images) = (
        JobFilter::default(),
        SourceFilter::default(),
        ImageFilter::default(),
    );
    let first = store.jobs(&world.tenant, &jobs, page(1)).await.unwrap();
    let job = first.rows[3].id.to_string();
    let before = world.read().await;
    for number in [1, 2, 3, 20, 40] {
        let listed = store
            .jobs(&world.tenant, &jobs, page(number))
            .await
            .unwrap();
        assert_eq!((listed.rows.len(), listed.total), (50, i64::from(ROWS)));
        let listed = store
            .sources(&world.tenant, &sources, page(number))
            .await
            .unwrap();
        assert_eq!((listed.rows.len(), listed.total), (50, i64::from(ROWS)));
        let listed = store
            .images(&world.tenant, &images, page(number))
            .await
            .unwrap();
        assert_eq!((listed.rows.len(), listed.total), (50, i64::from(ROWS)));
    }
    let some = Some(vec![job.clone()]);
    let by_id = JobFilter {
        ids: some.clone(),
        ..jobs.clone()
    };
    assert_eq!(
        store
            .jobs(&world.tenant, &by_id, page(1))
            .await
            .unwrap()
            .total,
        1
    );
    let by_name = JobFilter {
        name: Some("fill-1".to_owned()),
        ..jobs.clone()
    };
    assert_eq!(
        store
            .jobs(&world.tenant, &by_name, page(1))
            .await
            .unwrap()
            .total,
        0
    );
    let by_job = SourceFilter {
        job_id: Some(job.clone()),
        ..sources.clone()
    };
    assert_eq!(
        store
            .sources(&world.tenant, &by_job, page(1))
            .await
            .unwrap()
            .total,
        1
    );
    let by_job = ImageFilter {
        job_ids: some,
        ..images.clone()
    };
    assert_eq!(
        store
            .images(&world.tenant, &by_job, page(1))
            .await
            .unwrap()
            .total,
        1
    );
    store.close().await;
    world.gone("lists").await;
    assert_eq!(world.read().await, before);

    // The check can fail: this does read one.
    let mut reader = connect(&world.database, "reader").await;
    sqlx::query("select count(*) from source where description like '%load%'")
        .execute(&mut reader)
        .await
        .unwrap();
    reader.close().await.unwrap();
    world.gone("reader").await;
    assert_ne!(world.read().await, before);
}
