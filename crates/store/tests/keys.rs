//! Access keys, and client tokens, against a real Postgres.

use std::time::Duration;

use domain::TenantId;
use store::key::KeyCache;

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
