//! Lists over many rows, against a real Postgres: pages are complete and in order.

use std::collections::BTreeSet;

use domain::TenantId;
use domain::source::SourceState;
use sqlx::PgPool;
use store::job::describe::JobFilter;
use store::source::SourceFilter;
use store::{ConnectConfig, Page, SealKey, Store};

/// Rows of the neighbouring tenant.
const ROWS: u32 = 2_000;
const REGION: &str = "local";

struct World {
    store: Store,
    tenant: TenantId,
    _database: testkit::Database,
}

impl World {
    /// A tenant with `rows` sources and jobs, beside another with many.
    async fn new(rows: u32) -> Self {
        let database = testkit::postgres().await;
        let pool: PgPool = database.pool().await;
        let config = ConnectConfig::new(database.url(), "test");
        let seal = SealKey::from_hex(&SealKey::generate_hex()).unwrap();
        let store = Store::connect(&config, seal).await.unwrap();
        let mut tenants = Vec::new();
        for count in [rows, ROWS] {
            let tenant = TenantId::generate();
            sqlx::query("insert into tenant (id, name) values ($1, $1)")
                .bind(tenant.as_str())
                .execute(&pool)
                .await
                .unwrap();
            store.fill(&tenant, REGION, count).await.unwrap();
            tenants.push(tenant);
        }
        Self {
            store,
            tenant: tenants.remove(0),
            _database: database,
        }
    }

    async fn ids(&self, number: u32) -> Vec<String> {
        let page = Page { number, size: 50 };
        let all = JobFilter::default();
        let listed = self.store.jobs(&self.tenant, &all, page).await.unwrap();
        listed.rows.iter().map(|job| job.id.to_string()).collect()
    }
}

#[tokio::test]
async fn pages_hold_every_row_once_also_while_rows_come() {
    let world = World::new(500).await;
    let mut seen = BTreeSet::new();
    let mut times = Vec::new();
    for number in 1..=11 {
        let page = Page { number, size: 50 };
        let listed = world
            .store
            .jobs(&world.tenant, &JobFilter::default(), page)
            .await
            .unwrap();
        if number == 2 {
            // Newer rows do not move rows that are still to be read.
            world.store.fill(&world.tenant, REGION, 3).await.unwrap();
        }
        for job in &listed.rows {
            assert!(seen.insert(job.id.clone()), "{} is there twice", job.id);
            times.push(job.created_at);
        }
        let wanted = if number > 2 { 503 } else { 500 };
        assert_eq!(listed.total, wanted, "page {number}");
    }
    assert_eq!(seen.len(), 500, "and the page beyond the end is empty");
    assert!(times.is_sorted_by(|newer, older| newer >= older));
}

#[tokio::test]
async fn a_page_asked_for_out_of_turn_is_the_one_that_walking_finds() {
    let world = World::new(500).await;
    let jumped = world.ids(7).await;
    for number in 1..7 {
        world.ids(number).await;
    }
    assert_eq!(jumped, world.ids(7).await);
    assert_eq!(jumped.len(), 50);
    assert!(world.ids(11).await.is_empty());
}

#[tokio::test]
async fn sources_are_found_by_every_filter() {
    let world = World::new(200).await;
    let page = Page {
        number: 1,
        size: 50,
    };
    let find = async |filter: SourceFilter| {
        let listed = world.store.sources(&world.tenant, &filter, page).await;
        let listed = listed.unwrap();
        (listed.rows, listed.total)
    };
    let (all, total) = find(SourceFilter::default()).await;
    assert_eq!((all.len(), total), (50, 200));
    let one = &all[7];
    for filter in [
        SourceFilter {
            ids: Some(vec![one.id.to_string()]),
            ..SourceFilter::default()
        },
        SourceFilter {
            name: Some(one.name.clone()),
            ..SourceFilter::default()
        },
        SourceFilter {
            job_id: one.job_id.as_ref().map(ToString::to_string),
            ..SourceFilter::default()
        },
    ] {
        let (found, total) = find(filter.clone()).await;
        assert_eq!(
            (found.as_slice(), total),
            (&[one.clone()][..], 1),
            "{filter:?}"
        );
    }
    for (state, wanted) in [
        (SourceState::Unavailable, 0),
        (SourceState::Available, 140),
        (SourceState::InUse, 60),
    ] {
        let filter = SourceFilter {
            state: Some(state),
            ..SourceFilter::default()
        };
        assert_eq!(find(filter).await.1, wanted, "{state:?}");
    }
}
