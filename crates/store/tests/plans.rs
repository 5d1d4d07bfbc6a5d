//! Checks that no statement of a call reads a large table from end to end.
//!
//! Every statement of this crate is in `.sqlx`, so a new one is planned here without being named. Lists are assembled
//! from the filters that are present, so they are called instead. Each list is called with every filter, often enough
//! for plans to be kept, and its reads are counted.

use std::path::Path;
use std::time::Duration;

use domain::job::{BusinessStatus, Status};
use domain::source::SourceState;
use domain::tag::TagFilter;
use domain::{JobId, TenantId};
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, PgPool, Row as _};
use store::access_token::AccessTokenFilter;
use store::image::ImageFilter;
use store::job::describe::JobFilter;
use store::source::SourceFilter;
use store::tag::{TagList, TaggedKind};
use store::workgroup::WorkgroupFilter;
use store::{ConnectConfig, Page, SealKey, Store};

/// Number of sources, and of jobs, of each tenant.
const ROWS: u32 = 2_000;
const TENANTS: usize = 10;

/// Number of calls. After five plans for its values, Postgres may keep a generic plan for a statement, which counts
/// too.
const OFTEN: usize = 8;

/// Tables that grow with the data of tenants. Nonces are not among them: no statement reads them; they are inserted,
/// and dropped by the hour.
const LARGE: [&str; 17] = [
    "access_key",
    "access_token",
    "assignment",
    "audit",
    "client_token",
    "image",
    "instance",
    "job",
    "job_disk",
    "job_event",
    "job_lease",
    "job_run",
    "source",
    "source_disk",
    "tag",
    "timer",
    "workgroup",
];

/// Statements that may read a large table from end to end, by some of their words, and the reason.
const READ_ALL: [(&str, &str); 8] = [
    ("group by state", "figures, every few seconds"),
    ("from queued", "figures, every few seconds"),
    ("delete from client_token", "housekeeping, once a minute"),
    ("from source where deleting", "housekeeping, once a minute"),
    (
        "delete from access_key where id in",
        "housekeeping, 10,000 at once",
    ),
    ("delete from audit", "housekeeping, 10,000 at once"),
    (
        "delete from instance where host",
        "at the start of a worker; a row a run",
    ),
    (
        "where job_lease.expires_at <=",
        "the sweep; a narrow row a run, without an index on purpose",
    ),
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
        // Rows of a full deployment in the other tables.
        for statement in [
            "insert into timer (job_id, kind, due_at) select id, 'expire', valid_until from job",
            "insert into signature_nonce (access_key, nonce) select 'WK', id from job",
            "insert into client_token (tenant, token, operation, digest, answer) select tenant, id, 'CreateReplicationJob', '', '{}' from job",
            "insert into image (id, tenant, job_id, source_id, run, epoch, region_id, name, state, created_at)
             select 'm-' || substr(id, 3), tenant, id, source_id, 1, 1, region_id, name, 'available', created_at from job",
            "insert into tag (tenant, kind, resource_id, key, value, created_at)
             select tenant, 'job', id, key, 'x', created_at from job, unnest(array['env', 'team']) as key",
            "insert into tag (tenant, kind, resource_id, key, value, created_at) select tenant, 'source', id, 'env', 'x', created_at from source",
            "insert into job_run (job_id, run, kind) select id, number, 'manual' from job, generate_series(1, 3) as number",
            "insert into access_token (id, tenant, name, code_hash, max_count, valid_days, expires_at)
             select 'at-' || substr(id, 3), tenant, name, public_key, 1, 1, now() + interval '1 day' from source",
            "insert into access_key (id, tenant, secret_sealed) select 'WK' || id, tenant, '' from source",
            "insert into audit (actor, tenant, access_key, origin, request_id, operation, outcome)
             select 'tenant', tenant, 'WK' || id, '127.0.0.1', id, 'StartReplicationJob', 'OK' from job",
            "insert into instance (id, tenant, job_id, run, epoch, provider, host, authority_sealed)
             select 'i-' || substr(id, 3), tenant, id, 1, 1, 'process', 'host', '' from job",
            "insert into assignment (job_id, tenant, source_id, run, epoch, message) select id, tenant, source_id, 1, 1, '' from job",
            "insert into job_lease (job_id, run, epoch, worker, expires_at) select id, 1, 1, 'worker', now() + interval '1 hour' from job",
            "insert into workgroup (id, tenant, name) select 'w-' || substr(id, 3), tenant, name from source",
            "update source set workgroup_id = 'w-' || substr(id, 3)",
            // Index-only scans need to know which pages are all-visible.
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

    /// Returns the number of rows that reads from end to end have given, for each large table.
    async fn read(&self) -> Vec<(String, i64)> {
        let rows = sqlx::query("select relname::text, seq_tup_read from pg_stat_user_tables where relname = any($1) order by 1")
            .bind(LARGE.map(str::to_owned).to_vec())
            .fetch_all(&self.pool)
            .await
            .unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Waits until the counts of the closed connections are visible: connections report them before they end.
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
        // One connection for all calls: plans are kept by connection.
        let config = ConnectConfig {
            tenant_connections: 1,
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
    let mut connection = world.pool.acquire().await.unwrap();
    let mut unused = READ_ALL.map(|(words, _)| words).to_vec();
    let (mut faults, mut looked_at) = (Vec::new(), 0);
    for statement in statements() {
        let text = statement.to_lowercase();
        let is_planned = ["select", "insert", "update", "delete", "with"]
            .iter()
            .any(|word| text.trim_start().starts_with(word));
        if !is_planned {
            continue;
        }
        looked_at += 1;
        let explain = format!("explain (generic_plan, format json) {statement}");
        let plan: Value = match sqlx::raw_sql(sqlx::AssertSqlSafe(explain))
            .fetch_one(&mut *connection)
            .await
        {
            Ok(row) => row.get(0),
            Err(error) => panic!("{statement}: {error}"),
        };
        let mut found = Vec::new();
        whole_reads(&plan, &mut found);
        if found.is_empty() {
            continue;
        }
        match READ_ALL.iter().find(|(words, _)| text.contains(words)) {
            Some((words, _)) => unused.retain(|exception| exception != words),
            None => faults.push(format!("{found:?} by {statement}")),
        }
    }
    assert!(looked_at > 100, "{looked_at} statements were looked at");
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    assert_eq!(unused, [""; 0], "exceptions that nothing needs");
}

#[tokio::test]
async fn no_list_reads_a_large_table_from_end_to_end() {
    let world = World::new().await;
    let store = world.store("lists").await;
    let first = Page {
        number: 1,
        size: 50,
    };
    let all = JobFilter::default();
    let jobs = store.jobs(&world.tenant, &all, first).await.unwrap();
    let job = jobs.rows[3].id.clone();
    let before = world.read().await;
    for _ in 0..OFTEN {
        pages(&store, &world.tenant).await;
        every_filter(&store, &world.tenant, &job).await;
    }
    store.close().await;
    world.gone("lists").await;
    assert_eq!(world.read().await, before);

    // The check can fail: this statement reads a large table.
    let mut reader = connect(&world.database, "reader").await;
    sqlx::query("select count(*) from source where description like '%load%'")
        .execute(&mut reader)
        .await
        .unwrap();
    reader.close().await.unwrap();
    world.gone("reader").await;
    assert_ne!(world.read().await, before);
}

/// Pages of the lists without a filter.
async fn pages(store: &Store, tenant: &TenantId) {
    let (jobs, sources, images, groups) = Default::default();
    for number in [1, 2, 3, 20, 40] {
        let page = Page { number, size: 50 };
        let whole = (50, i64::from(ROWS));
        let listed = store.jobs(tenant, &jobs, page).await.unwrap();
        assert_eq!((listed.rows.len(), listed.total), whole);
        let listed = store.sources(tenant, &sources, page).await.unwrap();
        assert_eq!((listed.rows.len(), listed.total), whole);
        let listed = store.images(tenant, &images, page).await.unwrap();
        assert_eq!((listed.rows.len(), listed.total), whole);
        let listed = store.workgroups(tenant, &groups, page).await.unwrap();
        assert_eq!((listed.rows.len(), listed.total), whole);
    }
}

fn tagged(key: &str, value: Option<&str>) -> Vec<TagFilter> {
    vec![TagFilter {
        key: key.to_owned(),
        value: value.map(str::to_owned),
    }]
}

/// Reads the lists with each of their filters, and checks the results.
async fn every_filter(store: &Store, tenant: &TenantId, job: &JobId) {
    let all = i64::from(ROWS);
    let (job, own) = (Some(job.to_string()), &job.as_str()[2..]);
    let page = Page { number: 2, size: 1 };
    let text = |prefix: &str| Some(format!("{prefix}{own}"));
    let ids = |prefix: &str| text(prefix).map(|id| vec![id]);

    let none = JobFilter::default;
    let filters = [
        (
            1,
            JobFilter {
                ids: ids("j-"),
                ..none()
            },
        ),
        (
            1,
            JobFilter {
                source_ids: ids("s-"),
                ..none()
            },
        ),
        (
            1,
            JobFilter {
                name: text("fill-"),
                ..none()
            },
        ),
        (
            all,
            JobFilter {
                region_id: Some("local".to_owned()),
                ..none()
            },
        ),
        (
            0,
            JobFilter {
                region_id: Some("elsewhere".to_owned()),
                ..none()
            },
        ),
        (
            all / 10,
            JobFilter {
                status: Some(Status::Ready),
                ..none()
            },
        ),
        (
            0,
            JobFilter {
                status: Some(Status::Running),
                ..none()
            },
        ),
        (
            0,
            JobFilter {
                business_status: Some(BusinessStatus::Syncing),
                ..none()
            },
        ),
        (
            1,
            JobFilter {
                workgroup_id: text("w-"),
                ..none()
            },
        ),
        (
            all,
            JobFilter {
                tags: tagged("env", Some("x")),
                ..none()
            },
        ),
        (
            0,
            JobFilter {
                tags: tagged("nothing", None),
                ..none()
            },
        ),
    ];
    for (total, filter) in filters {
        let listed = store.jobs(tenant, &filter, page).await.unwrap();
        assert_eq!(listed.total, total, "{filter:?}");
    }

    let none = SourceFilter::default;
    let filters = [
        (
            1,
            SourceFilter {
                ids: ids("s-"),
                ..none()
            },
        ),
        (
            1,
            SourceFilter {
                job_id: job.clone(),
                ..none()
            },
        ),
        (
            1,
            SourceFilter {
                name: text("fill-"),
                ..none()
            },
        ),
        (
            all / 10 * 7,
            SourceFilter {
                state: Some(SourceState::Available),
                ..none()
            },
        ),
        (
            0,
            SourceFilter {
                state: Some(SourceState::Unavailable),
                ..none()
            },
        ),
        (
            1,
            SourceFilter {
                workgroup_id: text("w-"),
                ..none()
            },
        ),
        (
            all,
            SourceFilter {
                has_job: Some(true),
                ..none()
            },
        ),
        (
            0,
            SourceFilter {
                has_job: Some(false),
                ..none()
            },
        ),
        (
            all,
            SourceFilter {
                tags: tagged("env", None),
                ..none()
            },
        ),
    ];
    for (total, filter) in filters {
        let listed = store.sources(tenant, &filter, page).await.unwrap();
        assert_eq!(listed.total, total, "{filter:?}");
    }

    let none = ImageFilter::default;
    let filters = [
        ImageFilter {
            ids: ids("m-"),
            ..none()
        },
        ImageFilter {
            job_ids: job.map(|job| vec![job]),
            ..none()
        },
        ImageFilter {
            name: text("fill-"),
            ..none()
        },
    ];
    for filter in filters {
        let listed = store.images(tenant, &filter, page).await.unwrap();
        assert_eq!(listed.total, 1, "{filter:?}");
    }

    let none = WorkgroupFilter::default;
    let filters = [
        WorkgroupFilter {
            ids: ids("w-"),
            ..none()
        },
        WorkgroupFilter {
            name: text("fill-"),
            ..none()
        },
    ];
    for filter in filters {
        let first = Page {
            number: 1,
            size: 10,
        };
        let listed = store.workgroups(tenant, &filter, first).await.unwrap();
        assert_eq!(listed.total, 1, "{filter:?}");
        assert_eq!(listed.rows[0].members.len(), 1);
    }
    let untagged = WorkgroupFilter {
        tags: tagged("env", None),
        ..none()
    };
    let listed = store.workgroups(tenant, &untagged, page).await.unwrap();
    assert_eq!((listed.rows.len(), listed.total), (0, 0));

    let limit = 100;
    let filters = [
        (
            100,
            TagList {
                limit,
                ..TagList::default()
            },
        ),
        (
            2,
            TagList {
                ids: ids("j-"),
                limit,
                ..TagList::default()
            },
        ),
        (
            100,
            TagList {
                with: tagged("env", Some("x")),
                limit,
                ..TagList::default()
            },
        ),
        (
            0,
            TagList {
                with: tagged("env", Some("y")),
                limit,
                ..TagList::default()
            },
        ),
        (
            100,
            TagList {
                after: Some(("j-5", "env")),
                limit,
                ..TagList::default()
            },
        ),
    ];
    for (count, filter) in filters {
        let listed = store.tags(tenant, TaggedKind::Job, &filter).await.unwrap();
        assert_eq!(listed.len(), count, "{filter:?}");
    }

    let none = AccessTokenFilter::default;
    let filters = [
        AccessTokenFilter {
            ids: ids("at-"),
            ..none()
        },
        AccessTokenFilter {
            name: text("fill-"),
            ..none()
        },
    ];
    let page = Page { number: 1, size: 1 };
    for filter in filters {
        let listed = store.access_tokens(tenant, &filter, page).await.unwrap();
        assert_eq!(listed.total, 1, "{filter:?}");
    }
}
