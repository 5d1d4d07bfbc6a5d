//! Access keys, and client tokens, against a real Postgres.

use std::time::Duration;

use domain::TenantId;
use store::key::KeyCache;
use store::{ConnectConfig, Resealed, SealKey, Store};

async fn tenant(database: &testkit::Database) -> TenantId {
    let id = TenantId::generate();
    sqlx::query("insert into tenant (id, name) values ($1, $1)")
        .bind(id.as_str())
        .execute(&database.pool().await)
        .await
        .expect("a tenant");
    id
}

#[tokio::test]
async fn a_secret_is_kept_sealed_and_opens_for_its_own_key_only() {
    let database = testkit::postgres().await;
    let store = database.store().await;
    let pool = database.pool().await;
    let tenant = tenant(&database).await;
    let key = store.create_access_key(&tenant).await.expect("a key");
    let found = store.access_key(&key.id).await.expect("the database");
    assert_eq!(found.as_ref(), Some(&key));
    assert!(!format!("{key:?}").contains(&key.secret));

    let (sealed,): (Vec<u8>,) = sqlx::query_as("select secret_sealed from access_key")
        .fetch_one(&pool)
        .await
        .expect("the row");
    assert!(
        !sealed
            .windows(8)
            .any(|part| key.secret.as_bytes().starts_with(part))
    );
    let other = store.create_access_key(&tenant).await.expect("a key");
    sqlx::query("update access_key set secret_sealed = $1 where id = $2")
        .bind(&sealed)
        .bind(&other.id)
        .execute(&pool)
        .await
        .expect("a moved secret");
    assert!(
        store.access_key(&other.id).await.is_err(),
        "a secret can't be moved to another key"
    );
    assert_eq!(
        store
            .access_keys(&tenant)
            .await
            .expect("the database")
            .len(),
        2
    );
}

#[tokio::test]
async fn a_cached_key_lives_shortly_and_the_cache_stays_small() {
    let database = testkit::postgres().await;
    let store = database.store().await;
    let tenant = tenant(&database).await;
    let key = store.create_access_key(&tenant).await.expect("a key");
    let other = store.create_access_key(&tenant).await.expect("a key");
    let lasting = KeyCache::new(store.clone(), 1, Duration::from_secs(600));
    let fleeting = KeyCache::new(store.clone(), 1, Duration::ZERO);
    let is_active = async |cache: &KeyCache, id: &str| {
        let found = cache.access_key(id).await.expect("the database");
        found.expect("the key").active
    };
    for cache in [&lasting, &fleeting] {
        assert!(is_active(cache, &key.id).await && is_active(cache, &other.id).await);
    }
    for id in [&key.id, &other.id] {
        let switched = store.set_access_key_active(&tenant, id, false).await;
        assert!(switched.expect("the database"));
    }
    assert!(is_active(&lasting, &key.id).await, "it is still cached");
    assert!(
        !is_active(&lasting, &other.id).await,
        "there was no room for it"
    );
    assert!(!is_active(&fleeting, &key.id).await, "its time was over");
    let unknown = lasting.access_key("nobody").await.expect("the database");
    assert_eq!(unknown, None);
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
    let tenant = tenant(&database).await;
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.push(before.create_access_key(&tenant).await.expect("a key"));
    }
    let kept = before.keep_deployment_secret("authority", b"secret").await;
    assert_eq!(kept.expect("kept"), b"secret");

    let both = open_with(&format!("{new},{old}")).await;
    // Sealed with the new key before the rest is.
    keys.push(both.create_access_key(&tenant).await.expect("a key"));
    let done = both.reseal().await.expect("the database");
    let wanted = |anew, current, lost| Resealed {
        anew,
        current,
        lost,
    };
    assert_eq!(done, wanted(4, 1, 0));
    assert_eq!(both.reseal().await.expect("again"), wanted(0, 5, 0));
    let after = open_with(&new).await;
    for key in &keys {
        let found = after.access_key(&key.id).await.expect("it opens");
        assert_eq!(found.as_ref(), Some(key));
    }
    let secret = after
        .deployment_secret("authority")
        .await
        .expect("it opens");
    assert_eq!(secret.as_deref(), Some(b"secret".as_slice()));
    assert_eq!(before.reseal().await.expect("counted"), wanted(0, 0, 5));

    // The rotation would miss a table with another sealed column.
    let columns: Vec<String> = sqlx::query_scalar(
        "select table_name || '.' || column_name from information_schema.columns
         where table_schema = current_schema() and column_name like '%sealed%' order by 1",
    )
    .fetch_all(&pool)
    .await
    .expect("the schema");
    let resealed = [
        "access_key.secret_sealed",
        "deployment_secret.sealed",
        "instance.authority_sealed",
    ];
    assert_eq!(columns, resealed);
}
