//! Registration, heartbeats and reports of agents, against a real Postgres.

use std::collections::BTreeSet;

use domain::disk::{DiskIdentity, DiskIndex, DiskLayout, Fact, SourceDisk};
use domain::name::Name;
use domain::status_info::CopiedFreeSpace;
use domain::{Epoch, Failure, FailureCode, JobId, Run, SourceId, TenantId};
use sqlx::PgPool;
use store::Store;
use store::agent::{
    Heartbeat, Heartbeated, Inventory, Owner, Refusal, Registered, Registration, Report,
    ReportedState,
};
use store::audit::AuditFilter;
use store::run::Observation;

struct Account {
    store: Store,
    pool: PgPool,
    tenant: TenantId,
    database: testkit::Database,
}

impl Account {
    /// A tenant with a code `code` for `max_count` servers.
    async fn new(max_count: i32) -> Self {
        let database = testkit::postgres().await;
        let account = Self {
            store: database.store().await,
            pool: database.pool().await,
            tenant: TenantId::generate(),
            database,
        };
        account.add_tenant(&account.tenant, "code", max_count).await;
        account
    }

    async fn add_tenant(&self, tenant: &TenantId, code: &str, max_count: i32) {
        sqlx::query("insert into tenant (id, name) values ($1, $1)")
            .bind(tenant.as_str())
            .execute(&self.pool)
            .await
            .unwrap();
        sqlx::query(
            "insert into access_token (id, tenant, name, code_hash, max_count, valid_days, expires_at)
             values ($1, $2, 'code', $3, $4, 1, now() + interval '1 day')",
        )
        .bind(format!("at-{code}"))
        .bind(tenant.as_str())
        .bind(code.as_bytes())
        .bind(max_count)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    async fn register(&self, code: &str, key: &str, name: &str) -> Registered {
        self.store
            .register_agent(Registration {
                code_hash: code.as_bytes(),
                public_key: key.as_bytes(),
                name: &Name::parse(name).unwrap(),
                inventory: &inventory(1),
                origin: "203.0.113.7",
                request_id: "R-1",
            })
            .await
            .unwrap()
    }

    async fn source(&self) -> SourceId {
        match self.register("code", "key", "web").await {
            Registered::New(owner) => owner.source_id,
            other => panic!("{other:?}"),
        }
    }

    async fn beat(
        &self,
        source: &SourceId,
        disks: usize,
        failure: Option<&Failure>,
        reports: &[Report],
    ) -> Heartbeated {
        self.store
            .agent_heartbeat(
                source,
                Heartbeat {
                    inventory: &inventory(disks),
                    failure,
                    interval_secs: 30,
                    reports,
                    caller: None,
                    clock_ahead_ms: None,
                },
            )
            .await
            .unwrap()
    }

    async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// A syncing job with an assignment of this epoch.
    async fn assign(&self, source: &SourceId, job: &JobId, epoch: i64) {
        sqlx::query(
            "insert into job (id, tenant, source_id, region_id, name, image_name, valid_until, state, run, epoch)
             values ($1, $2, $3, 'r', 'job', 'image', now() + interval '1 day', 'syncing', 1, $4)",
        )
        .bind(job.as_str())
        .bind(self.tenant.as_str())
        .bind(source.as_str())
        .bind(epoch)
        .execute(&self.pool)
        .await
        .unwrap();
        sqlx::query(
            "insert into assignment (job_id, tenant, source_id, run, epoch, message) values ($1, $2, $3, 1, $4, 'what')",
        )
        .bind(job.as_str())
        .bind(self.tenant.as_str())
        .bind(source.as_str())
        .bind(epoch)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    async fn agent_state(&self) -> String {
        sqlx::query_scalar("select agent_state from assignment")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

fn inventory(disks: usize) -> Inventory {
    Inventory {
        agent_version: "0.1.0".to_owned(),
        architecture: "x86_64".to_owned(),
        platform: "Ubuntu".to_owned(),
        kernel_level: 1,
        system_info: serde_json::json!({"hostname": "web"}),
        disks: (0..disks)
            .map(|index| SourceDisk {
                index: DiskIndex(u16::try_from(index).unwrap()),
                path: format!("/dev/vd{index}"),
                size_bytes: 1 << 30,
                used_bytes: None,
                partitions: Vec::new(),
                layout: DiskLayout {
                    logical_sector_bytes: Some(512),
                    ..DiskLayout::default()
                },
                identity: Some(
                    DiskIdentity::default().with(Fact::Serial, Some(format!("S{index}"))),
                ),
                in_use: String::new(),
            })
            .collect(),
    }
}

fn report(job: &JobId, epoch: i64, state: ReportedState) -> Report {
    Report {
        job_id: job.clone(),
        run: Run(1),
        epoch: Epoch(epoch),
        state,
        failure: None,
        copied_free_space: Vec::new(),
    }
}

#[tokio::test]
async fn servers_that_register_at_once_never_exceed_their_code() {
    let account = Account::new(3).await;
    let keys: Vec<String> = (0..8).map(|number| format!("key-{number}")).collect();
    let registered = futures::future::join_all(
        keys.iter()
            .map(|key| account.register("code", key, "localhost")),
    )
    .await;
    let new = registered
        .iter()
        .filter(|registered| matches!(registered, Registered::New(_)))
        .count();
    assert_eq!(new, 3, "{registered:?}");
    let used_up = Registered::Refused(Refusal::UsedUp { max_count: 3 });
    assert_eq!(
        registered.iter().filter(|other| **other == used_up).count(),
        5
    );
    assert_eq!(
        account
            .count("select registered::bigint from access_token")
            .await,
        3
    );

    let names: Vec<String> = sqlx::query_scalar("select name from source")
        .fetch_all(&account.pool)
        .await
        .unwrap();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 3, "{names:?}");
    assert!(
        names
            .iter()
            .all(|name| name.starts_with("localhost") && Name::parse(name).is_ok()),
        "{names:?}"
    );
}

#[tokio::test]
async fn servers_that_register_at_once_never_exceed_the_quota() {
    let account = Account::new(100).await;
    let quota = "update tenant set max_sources = 2";
    sqlx::query(quota).execute(&account.pool).await.unwrap();
    let keys: Vec<String> = (0..6).map(|number| format!("key-{number}")).collect();
    futures::future::join_all(keys.iter().map(|key| account.register("code", key, "web"))).await;
    assert_eq!(account.count("select count(*) from source").await, 2);
    assert_eq!(
        account.register("code", "one-more", "web").await,
        Registered::Refused(Refusal::QuotaReached { max_sources: 2 })
    );
}

#[tokio::test]
async fn one_key_is_one_source_however_often_it_registers() {
    let account = Account::new(1).await;
    let registered =
        futures::future::join_all((0..4).map(|_| account.register("code", "key", "web"))).await;
    let sources: BTreeSet<SourceId> = registered
        .into_iter()
        .map(|registered| match registered {
            Registered::New(Owner { source_id, .. })
            | Registered::Known(Owner { source_id, .. }) => source_id,
            Registered::Refused(refusal) => panic!("{refusal:?}"),
        })
        .collect();
    assert_eq!(sources.len(), 1);
    assert_eq!(
        account
            .count("select registered::bigint from access_token")
            .await,
        1
    );
}

#[tokio::test]
async fn a_key_of_one_tenant_does_not_become_another_s() {
    let account = Account::new(1).await;
    account.source().await;
    account.add_tenant(&TenantId::generate(), "theirs", 1).await;
    assert_eq!(
        account.register("theirs", "key", "web").await,
        Registered::Refused(Refusal::OtherTenant)
    );
    assert_eq!(
        account.register("nobody's", "key", "web").await,
        Registered::Refused(Refusal::UnknownCode)
    );
}

#[tokio::test]
async fn a_heartbeat_replaces_disks_unless_the_agent_complains() {
    let account = Account::new(1).await;
    let source = account.source().await;
    account.beat(&source, 3, None, &[]).await;
    assert_eq!(account.count("select count(*) from source_disk").await, 3);

    let failure = Failure::new(FailureCode::SourceDiskUnreadable, "gone");
    account.beat(&source, 1, Some(&failure), &[]).await;
    assert_eq!(account.count("select count(*) from source_disk").await, 3);
    assert_eq!(
        account
            .count("select count(*) from source where failure_code is not null")
            .await,
        1
    );

    account.beat(&source, 1, None, &[]).await;
    assert_eq!(account.count("select count(*) from source_disk").await, 1);
    assert_eq!(
        account
            .count("select count(*) from source where failure_code is not null")
            .await,
        0
    );
}

#[tokio::test]
async fn the_agent_of_a_source_that_is_gone_or_going_is_told_so() {
    let account = Account::new(1).await;
    let source = account.source().await;
    assert!(
        account
            .store
            .agent_assignments_version(&source)
            .await
            .unwrap()
            .is_some()
    );
    let going = "update source set deleting = true";
    sqlx::query(going).execute(&account.pool).await.unwrap();
    assert_eq!(account.beat(&source, 1, None, &[]).await, Heartbeated::Gone);
    assert_eq!(
        account
            .store
            .agent_assignments_version(&source)
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        account.register("code", "key", "web").await,
        Registered::Refused(Refusal::Deleting)
    );
    let unknown = SourceId::generate();
    assert_eq!(
        account.beat(&unknown, 1, None, &[]).await,
        Heartbeated::Gone
    );
}

#[tokio::test]
async fn a_report_of_another_epoch_or_source_changes_nothing() {
    let account = Account::new(2).await;
    let source = account.source().await;
    let other = match account.register("code", "other", "other").await {
        Registered::New(owner) => owner.source_id,
        other => panic!("{other:?}"),
    };
    let job = JobId::generate();
    let before = account
        .store
        .agent_assignments_version(&source)
        .await
        .unwrap();
    account.assign(&source, &job, 2).await;
    let after = account
        .store
        .agent_assignments_version(&source)
        .await
        .unwrap();
    assert_ne!(before, after, "a new assignment is a change");

    account
        .beat(&source, 1, None, &[report(&job, 1, ReportedState::Sent)])
        .await;
    account
        .beat(&other, 1, None, &[report(&job, 2, ReportedState::Sent)])
        .await;
    assert_eq!(account.agent_state().await, "assigned");

    let heartbeated = account
        .beat(&source, 1, None, &[report(&job, 2, ReportedState::Sending)])
        .await;
    assert_eq!(account.agent_state().await, ReportedState::Sending.as_str());
    assert_eq!(
        heartbeated,
        Heartbeated::Recorded {
            assignments: vec![b"what".to_vec()]
        }
    );
    let reported = account
        .store
        .agent_assignments_version(&source)
        .await
        .unwrap();
    assert_eq!(reported, after, "a report is no change of the assignment");
}

#[test]
fn reported_states_read_back() {
    for state in [
        ReportedState::Assigned,
        ReportedState::Connecting,
        ReportedState::Sending,
        ReportedState::Sent,
        ReportedState::Retrying,
        ReportedState::Failed,
    ] {
        assert_eq!(state.as_str().parse(), Ok(state));
    }
}

#[tokio::test]
async fn a_secret_of_the_deployment_is_made_once_and_sealed() {
    let account = Account::new(1).await;
    assert_eq!(account.store.deployment_secret("a").await.unwrap(), None);
    let candidates: Vec<Vec<u8>> = (0..8_u8).map(|number| vec![number; 4]).collect();
    let kept = futures::future::join_all(
        candidates
            .iter()
            .map(|candidate| account.store.keep_deployment_secret("a", candidate)),
    )
    .await;
    let kept: BTreeSet<Vec<u8>> = kept.into_iter().map(Result::unwrap).collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(
        account.store.deployment_secret("a").await.unwrap(),
        kept.first().cloned()
    );

    let stranger = Store::connect(
        &store::ConnectConfig::new(account.database.url(), "stranger"),
        store::SealKey::from_hex(&store::SealKey::generate_hex()).unwrap(),
    )
    .await
    .unwrap();
    assert!(stranger.deployment_secret("a").await.is_err());
}

#[tokio::test]
async fn what_registers_is_audited_and_strangers_leave_nothing() {
    let account = Account::new(1).await;
    let source = account.source().await;
    // The same agent again changes nothing. Another finds the code used up. An unknown agent has no code.
    account.register("code", "key", "web").await;
    account.register("code", "another key", "db").await;
    account.register("no code", "a third key", "db").await;
    let rows = account.store.audit(&AuditFilter::default(), 0, 10).await;
    let rows = rows.unwrap();
    let seen: Vec<(&str, &[String])> = rows
        .iter()
        .map(|row| (row.outcome.as_str(), row.resources.as_slice()))
        .collect();
    assert_eq!(
        seen,
        [("OK", &[source.to_string()][..]), ("UsedUp", &[][..])]
    );
    for row in &rows {
        assert_eq!(
            (
                row.actor.as_str(),
                row.tenant.as_str(),
                row.access_key.as_str(),
                row.origin.as_str(),
                row.operation.as_str(),
            ),
            (
                "agent",
                account.tenant.as_str(),
                "at-code",
                "203.0.113.7",
                "RegisterAgent",
            )
        );
    }
}

#[tokio::test]
async fn the_holder_of_the_lease_hears_where_free_space_is_copied_and_so_does_the_next() {
    let account = Account::new(2).await;
    let source = account.source().await;
    let job = JobId::generate();
    account.assign(&source, &job, 2).await;
    sqlx::query("insert into job_lease values ($1, 1, 2, 'w', now() + interval '1 hour')")
        .bind(job.as_str())
        .execute(&account.pool)
        .await
        .unwrap();
    let observe = async |observation: &Observation| {
        let observed = account.store.observe(&job, Epoch(2), observation).await;
        observed
            .unwrap()
            .expect("the lease is live")
            .copied_free_space
    };
    let mut observation = Observation::default();
    observation.info.run = Some(1);
    assert_eq!(observe(&observation).await, Some(Vec::new()));

    let copied = vec![CopiedFreeSpace {
        disk: DiskIndex(1),
        reason: "it is in use".to_owned(),
    }];
    let mut sending = report(&job, 2, ReportedState::Sending);
    sending.copied_free_space = copied.clone();
    account.beat(&source, 1, None, &[sending]).await;
    assert_eq!(observe(&observation).await.as_ref(), Some(&copied));

    // Without the assignment no agent repeats the report, so the observation must hold it.
    observation.info.copied_free_space = copied.clone();
    account
        .store
        .remove_assignment(&job, Epoch(2))
        .await
        .unwrap();
    assert_eq!(observe(&observation).await, None);
    let facts = account.store.run_facts(&job).await.unwrap().unwrap();
    assert_eq!(facts.copied_free_space, copied);
    let explained = account
        .store
        .job_facts(&account.tenant, &job)
        .await
        .unwrap();
    assert_eq!(explained.unwrap().copied_free_space, copied);
}
