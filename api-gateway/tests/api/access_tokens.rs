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

#[tokio::test]
async fn a_page_behind_the_last_one_still_says_how_many_there_are() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    for _ in 0..3 {
        tenant.call("CreateAccessToken", &[]).await;
    }
    for (page, rows) in [("1", 2), ("2", 1), ("3", 0), ("4294967295", 0)] {
        let asked = [("PageNumber", page), ("PageSize", "2")];
        let answer = tenant.call("ListAccessTokens", &asked).await;
        let shown = answer["AccessTokens"]["AccessToken"].as_array();
        assert_eq!(shown.map(Vec::len), Some(rows), "page {page}");
        assert_eq!(answer["TotalCount"], 3, "page {page}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn codes_are_bounded_by_what_the_operator_has_set() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let quota = "update tenant set max_access_tokens = 2, max_access_token_uses = 2000, max_access_token_days = 7 where id = $1";
    fixture.execute(quota, tenant.id.as_str()).await;
    for (parameters, wanted) in [
        (&[("TimeToLiveInDays", "7"), ("Count", "2000")][..], None),
        (
            &[("TimeToLiveInDays", "7"), ("Count", "2001")],
            Some("InvalidCount"),
        ),
        (
            &[("TimeToLiveInDays", "8")],
            Some("InvalidTimeToLiveInDays"),
        ),
        // Without parameters a code stays within the quotas, even if the defaults do not.
        (&[], None),
        (&[], Some("QuotaExceeded.AccessToken")),
    ] {
        match wanted {
            None => {
                tenant.call("CreateAccessToken", parameters).await;
            }
            Some(code) => {
                let refusal = tenant.code("CreateAccessToken", parameters).await;
                assert_eq!(refusal, code, "{parameters:?}");
            }
        }
    }
    let listed = tenant.call("ListAccessTokens", &[]).await;
    assert_eq!(listed["TotalCount"], 2);
    assert_eq!(
        listed["AccessTokens"]["AccessToken"][0]["TimeToLiveInDays"],
        "7"
    );
    fixture.stop().await;
}
