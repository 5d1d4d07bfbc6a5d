//! The key of secrets at rest, against a real Postgres.

use domain::{Epoch, InstanceId, Run, TenantId};
use store::instance::{Authority, Instance};
use store::key::AccessKey;
use store::{ConnectConfig, Resealed, SealKey, Store};

/// Sealed values, column by column of the schema: `table.column`, and its values in some order that stays.
async fn sealed(pool: &sqlx::PgPool) -> Vec<(String, Vec<Vec<u8>>)> {
    let columns: Vec<(String, String)> = sqlx::query_as(
        "select table_name::text, column_name::text from information_schema.columns
         where table_schema = current_schema() and column_name like '%sealed%' order by 1, 2",
    )
    .fetch_all(pool)
    .await
    .expect("the schema");
    let mut all = Vec::new();
    for (table, column) in columns {
        let statement = format!("select {column} from {table} order by created_at");
        let values = sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
            .fetch_all(pool)
            .await
            .expect("its values");
        all.push((format!("{table}.{column}"), values));
    }
    all
}

/// Seals a secret in each column that has any, and returns the access key.
async fn seal_some(store: &Store, pool: &sqlx::PgPool) -> AccessKey {
    let tenant = TenantId::generate();
    sqlx::query("insert into tenant (id, name) values ($1, $1)")
        .bind(tenant.as_str())
        .execute(pool)
        .await
        .expect("a tenant");
    store.fill(&tenant, "local", 1).await.expect("a job");
    let (job_id, epoch): (String, i64) =
        sqlx::query_as("select id, epoch from job where tenant = $1")
            .bind(tenant.as_str())
            .fetch_one(pool)
            .await
            .expect("the job");
    let instance = Instance {
        id: InstanceId::generate(),
        tenant: tenant.clone(),
        job_id: job_id.parse().expect("an id"),
        run: Run(1),
        epoch: Epoch(epoch),
        provider: "process".to_owned(),
        host: "here".to_owned(),
        authority: Authority {
            certificate_pem: "certificate".to_owned(),
            key_pem: "key".to_owned(),
        },
    };
    let taken = store.take_instance(&instance).await.expect("the database");
    assert_eq!(taken.as_ref(), Some(&instance));
    store
        .keep_deployment_secret(tenant.as_str(), b"secret")
        .await
        .expect("kept");
    store.create_access_key(&tenant).await.expect("a key")
}

#[tokio::test]
async fn every_sealed_secret_moves_to_a_new_key_and_the_old_one_can_go() {
    let database = testkit::postgres().await;
    let pool = database.pool().await;
    let [old, new] = [SealKey::generate_hex(), SealKey::generate_hex()];
    let open_with = async |key: &str| {
        let key = SealKey::from_hex(key).expect("a key");
        let config = ConnectConfig::new(database.url(), "test");
        Store::connect(&config, key).await.expect("the database")
    };
    let before = open_with(&old).await;
    let mut keys = Vec::new();
    for _ in 0..2 {
        keys.push(seal_some(&before, &pool).await);
    }
    let as_it_was = sealed(&pool).await;
    for (column, values) in &as_it_was {
        assert_eq!(
            values.len(),
            2,
            "this test must seal two secrets in {column}"
        );
    }
    let columns = u64::try_from(as_it_was.len()).expect("few columns");

    let both = open_with(&format!("{new},{old}")).await;
    // Sealed with the new one before the rest is.
    keys.push(seal_some(&both, &pool).await);
    let done = both.reseal().await.expect("the database");
    let wanted = |anew, current, lost| Resealed {
        anew: anew * columns,
        current: current * columns,
        lost: lost * columns,
    };
    assert_eq!(done, wanted(2, 1, 0));
    for ((column, was), (_, is)) in as_it_was.iter().zip(&sealed(&pool).await) {
        assert_eq!(is.len(), 3, "{column}");
        let kept = was.iter().filter(|value| is.contains(value)).count();
        assert_eq!(kept, 0, "{column} still has what the old key has sealed");
    }
    assert_eq!(both.reseal().await.expect("again"), wanted(0, 3, 0));

    let after = open_with(&new).await;
    assert_eq!(after.reseal().await.expect("counted"), wanted(0, 3, 0));
    assert_eq!(before.reseal().await.expect("counted"), wanted(0, 0, 3));
    for key in &keys {
        let found = after.access_key(&key.id).await.expect("it opens");
        assert_eq!(found.as_ref(), Some(key));
        let secret = after.deployment_secret(key.tenant.as_str()).await;
        let secret = secret.expect("it opens");
        assert_eq!(secret.as_deref(), Some(b"secret".as_slice()));
    }
}
