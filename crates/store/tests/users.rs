//! Users, policies and their keys, against a real Postgres.

use std::time::Duration;

use domain::TenantId;
use store::Store;
use store::key::{CreateTemporaryKey, CreateUserKey, is_security_token};
use store::policy::{CreatePolicy, DeletePolicy, UpdatePolicy};
use store::tenant::{CreateTenant, Quotas};
use store::user::{AttachPolicy, CreateUser, DeleteUser, MOST_POLICIES, RenameUser};

const ALLOW: &str =
    r#"{"Version":"1","Statement":[{"Effect":"Allow","Action":"smc:*","Resource":"*"}]}"#;
const DENY: &str =
    r#"{"Version":"1","Statement":[{"Effect":"Deny","Action":"smc:*","Resource":"*"}]}"#;

async fn tenant(store: &Store, name: &str) -> TenantId {
    match store.create_tenant(name, &Quotas::default()).await {
        Ok(CreateTenant::Created(tenant)) => tenant.id,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn users_have_policies_and_keys_of_their_own_tenant_only() {
    let database = testkit::postgres().await;
    let store = database.store().await;
    let alice = tenant(&store, "alice").await;
    let bob = tenant(&store, "bob").await;
    let made = store.create_user(&alice, "build.bot").await.expect("made");
    let CreateUser::Created(user) = made else {
        panic!("{made:?}")
    };
    let again = store.create_user(&alice, "build.bot").await.expect("said");
    assert_eq!(again, CreateUser::NameTaken);
    let wrong = store.create_user(&alice, "a b").await.expect("said");
    assert_eq!(wrong, CreateUser::InvalidName);
    assert_eq!(store.user(&bob, "build.bot").await.expect("read"), None);
    assert_eq!(
        store.users(&alice).await.expect("read"),
        std::slice::from_ref(&user)
    );

    let made = store.create_policy(&alice, "all", ALLOW).await;
    assert_eq!(made.expect("said"), CreatePolicy::Created);
    let made = store.create_policy(&alice, "all", ALLOW).await;
    assert_eq!(made.expect("said"), CreatePolicy::NameTaken);
    let made = store.create_policy(&alice, "all/2", ALLOW).await;
    assert_eq!(made.expect("said"), CreatePolicy::InvalidName);
    let made = store.create_policy(&alice, "none", "{}").await;
    assert!(matches!(made, Ok(CreatePolicy::InvalidDocument(_))));

    let attach = async |tenant: &TenantId, user: &str, policy: &str| {
        let attached = store.attach_policy(tenant, user, policy).await;
        attached.expect("said")
    };
    assert_eq!(
        attach(&alice, "build.bot", "all").await,
        AttachPolicy::Attached
    );
    assert_eq!(
        attach(&alice, "build.bot", "all").await,
        AttachPolicy::Attached
    );
    assert_eq!(attach(&bob, "build.bot", "all").await, AttachPolicy::NoUser);
    assert_eq!(
        attach(&alice, "build.bot", "some").await,
        AttachPolicy::NoPolicy
    );

    let stranger = store.create_user_key(&bob, "build.bot").await;
    assert_eq!(stranger.expect("said"), CreateUserKey::NoUser);
    let made = store.create_user_key(&alice, "build.bot").await;
    let CreateUserKey::Created(key) = made.expect("said") else {
        panic!("alice has the user")
    };
    let holder = key.user.as_ref().expect("a user's key");
    assert_eq!((&holder.id, holder.name.as_str()), (&user.id, "build.bot"));
    assert_eq!(holder.policies.len(), 1);

    let updated = store.update_policy(&alice, "all", DENY).await;
    assert_eq!(updated.expect("said"), UpdatePolicy::Updated);
    let updated = store.update_policy(&bob, "all", DENY).await;
    assert_eq!(updated.expect("said"), UpdatePolicy::NotFound);
    let found = store.access_key(&key.id).await.expect("read");
    let policies = found.and_then(|key| key.user).expect("a user").policies;
    assert_eq!(policies[0], DENY.parse().expect("a policy"));

    assert_eq!(
        store.rename_user(&alice, "build.bot", "bot").await.ok(),
        Some(RenameUser::Renamed)
    );
    let policy = store.policy(&alice, "all").await.expect("read");
    assert_eq!(policy.expect("the policy").users, ["bot"]);
    assert_eq!(
        store.delete_policy(&alice, "all").await.ok(),
        Some(DeletePolicy::Attached(vec!["bot".to_owned()]))
    );
    assert_eq!(
        store.delete_user(&alice, "bot").await.ok(),
        Some(DeleteUser::HasKeys(vec![key.id.clone()]))
    );
    assert!(!store.delete_access_key(&bob, &key.id).await.expect("said"));
    assert!(
        store
            .delete_access_key(&alice, &key.id)
            .await
            .expect("said")
    );
    assert_eq!(
        store.delete_user(&alice, "bot").await.ok(),
        Some(DeleteUser::Deleted)
    );
    assert_eq!(
        store.delete_policy(&alice, "all").await.ok(),
        Some(DeletePolicy::Deleted)
    );
}

#[tokio::test]
async fn a_user_has_so_many_policies_at_most() {
    let database = testkit::postgres().await;
    let store = database.store().await;
    let alice = tenant(&store, "alice").await;
    store.create_user(&alice, "bot").await.expect("made");
    for number in 0..=MOST_POLICIES {
        let name = format!("p{number}");
        store
            .create_policy(&alice, &name, ALLOW)
            .await
            .expect("made");
        let attached = store
            .attach_policy(&alice, "bot", &name)
            .await
            .expect("said");
        let wanted = if number < MOST_POLICIES {
            AttachPolicy::Attached
        } else {
            AttachPolicy::TooMany
        };
        assert_eq!(attached, wanted, "{number}");
    }
    assert!(
        store
            .detach_policy(&alice, "bot", "p0")
            .await
            .expect("said")
    );
    assert!(
        !store
            .detach_policy(&alice, "bot", "p0")
            .await
            .expect("said")
    );
    let bot = store.user(&alice, "bot").await.expect("read");
    assert_eq!(bot.expect("the user").policies.len(), MOST_POLICIES - 1);
}

#[tokio::test]
async fn a_temporary_key_has_a_token_and_an_end() {
    let database = testkit::postgres().await;
    let store = database.store().await;
    let alice = tenant(&store, "alice").await;
    store.create_user(&alice, "bot").await.expect("made");
    let hour = Duration::from_secs(3600);
    for (user, lifetime, policy, wanted) in [
        (Some("nobody"), hour, None, Some(CreateTemporaryKey::NoUser)),
        (
            Some("bot"),
            Duration::from_secs(899),
            None,
            Some(CreateTemporaryKey::InvalidLifetime),
        ),
        (
            Some("bot"),
            Duration::from_secs(43_201),
            None,
            Some(CreateTemporaryKey::InvalidLifetime),
        ),
        (Some("bot"), hour, Some("[]"), None),
    ] {
        let made = store
            .create_temporary_key(&alice, user, lifetime, policy)
            .await
            .expect("said");
        match wanted {
            Some(wanted) => assert_eq!(made, wanted),
            None => assert!(matches!(made, CreateTemporaryKey::InvalidPolicy(_))),
        }
    }
    for user in [Some("bot"), None] {
        let made = store
            .create_temporary_key(&alice, user, hour, Some(DENY))
            .await;
        let CreateTemporaryKey::Created(made) = made.expect("said") else {
            panic!("all is right")
        };
        assert!(made.id.starts_with("STS.") && is_security_token(&made.security_token));
        let shown = format!("{made:?}");
        assert!(!shown.contains(&made.security_token) && !shown.contains(&made.secret));
        let key = store.access_key(&made.id).await.expect("read");
        let key = key.expect("the key");
        assert_eq!(key.secret, made.secret);
        assert_eq!(key.user.as_ref().map(|user| user.name.as_str()), user);
        assert!(key.has_security_token(&made.security_token));
        assert!(!key.has_security_token(&made.security_token[1..]));
        let temporary = key.temporary.expect("it is temporary");
        assert_eq!(temporary.expires_at, made.expires_at);
        assert!(temporary.session_policy.is_some());
    }
    let lasting = store.create_access_key(&alice).await.expect("made");
    assert!(!lasting.has_security_token(""));
    let listed = store.access_keys(&alice).await.expect("read");
    assert_eq!(listed.len(), 3);

    // A user is removed with its temporary keys; expired keys are removed after a while.
    assert_eq!(
        store.delete_user(&alice, "bot").await.ok(),
        Some(DeleteUser::Deleted)
    );
    assert_eq!(store.access_keys(&alice).await.expect("read").len(), 2);
    let forget = async || store.forget_temporary_keys(hour).await.expect("done");
    assert_eq!(forget().await, 0);
    sqlx::query(
        "update access_key set expires_at = now() - interval '2 hours' where id like 'STS.%'",
    )
    .execute(&database.pool().await)
    .await
    .expect("hours pass");
    assert_eq!(forget().await, 1);
    assert_eq!(store.access_keys(&alice).await.expect("read").len(), 1);
}
