//! Activation codes.

use crate::fixture::Fixture;

#[tokio::test]
async fn a_code_is_shown_once_and_its_life_is_listed() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let made = tenant
        .call(
            "CreateAccessToken",
            &[
                ("Name", "rack-7"),
                ("Count", "5"),
                ("TimeToLiveInDays", "2"),
            ],
        )
        .await;
    let id = made["AccessTokenId"].as_str().expect("an id");
    let (secret, fingerprint) = made["AccessTokenCode"]
        .as_str()
        .expect("a code")
        .split_once('.')
        .expect("a dot");
    assert_eq!((secret.len(), fingerprint.len()), (48, 64));
    let (hash,): (Vec<u8>,) = sqlx::query_as("select code_hash from access_token where id = $1")
        .bind(id)
        .fetch_one(&fixture.pool)
        .await
        .expect("the code");
    assert_eq!(
        hash,
        ring::digest::digest(&ring::digest::SHA256, secret.as_bytes()).as_ref(),
        "what agents are checked against"
    );

    let answer = tenant.call("ListAccessTokens", &[]).await;
    let token = &answer["AccessTokens"]["AccessToken"][0];
    assert_eq!(answer["PageSize"], 20);
    for (name, wanted) in [
        ("Name", "rack-7"),
        ("Count", "5"),
        ("RegisteredCount", "0"),
        ("TimeToLiveInDays", "2"),
        ("Status", "activated"),
    ] {
        assert_eq!(token[name], wanted, "{name}");
    }
    assert!(!answer.to_string().contains(secret));

    tenant
        .call("DisableAccessToken", &[("AccessTokenId", id)])
        .await;
    tenant
        .call("DisableAccessToken", &[("AccessTokenId", id)])
        .await;
    let answer = tenant
        .call("ListAccessTokens", &[("Status", "unactivated")])
        .await;
    assert_eq!(answer["TotalCount"], 1);
    fixture
        .execute(
            "update access_token set expires_at = now() where id = $1",
            id,
        )
        .await;
    let answer = tenant
        .call(
            "ListAccessTokens",
            &[
                ("Status", "expired"),
                ("AccessTokenId.1", id),
                ("Name", "rack-7"),
            ],
        )
        .await;
    assert_eq!(answer["TotalCount"], 1);
    tenant
        .call("DeleteAccessToken", &[("AccessTokenId", id)])
        .await;
    assert_eq!(tenant.call("ListAccessTokens", &[]).await["TotalCount"], 0);
    for action in ["DisableAccessToken", "DeleteAccessToken"] {
        assert_eq!(
            tenant.code(action, &[("AccessTokenId", id)]).await,
            "InvalidAccessTokenId.NotFound"
        );
    }
    for (parameter, code) in [
        (("Count", "0"), "InvalidCount"),
        (("Count", "1001"), "InvalidCount"),
        (("TimeToLiveInDays", "91"), "InvalidTimeToLiveInDays"),
        (("Name", "7up"), "InvalidName"),
    ] {
        assert_eq!(tenant.code("CreateAccessToken", &[parameter]).await, code);
    }
    fixture.stop().await;
}

#[tokio::test]
async fn without_any_parameter_there_are_defaults() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let made = tenant.call("CreateAccessToken", &[]).await;
    let answer = tenant.call("ListAccessTokens", &[]).await;
    let token = &answer["AccessTokens"]["AccessToken"][0];
    assert_eq!(
        token["Name"],
        format!("Token_{}", made["AccessTokenId"].as_str().expect("an id"))
    );
    assert_eq!(
        (&token["Count"], &token["TimeToLiveInDays"]),
        (&"100".into(), &"30".into())
    );
    fixture.stop().await;
}
