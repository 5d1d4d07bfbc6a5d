//! Rights of users and temporary keys, by signed calls over real HTTP.

use std::time::Duration;

use smc::{Client, Credentials, Refusal, SignatureVersion};
use store::key::{CreateTemporaryKey, CreateUserKey, TemporaryKey};
use store::policy::CreatePolicy;
use store::user::{AttachPolicy, CreateUser};

use crate::fixture::{Fixture, PATIENCE, REGION, Tenant, form};

const LIST: &str = "DescribeSourceServers";
const HOUR: Duration = Duration::from_secs(3600);

fn statement(effect: &str, action: &str, resource: &str) -> String {
    format!(r#"{{"Effect":"{effect}","Action":"{action}","Resource":"{resource}"}}"#)
}

fn policy(statements: &[String]) -> String {
    format!(
        r#"{{"Version":"1","Statement":[{}]}}"#,
        statements.join(",")
    )
}

impl Fixture {
    /// Returns a client of a new user with these policies.
    async fn user(&self, tenant: &Tenant, name: &str, policies: &[String]) -> Client {
        let made = self.store.create_user(&tenant.id, name).await;
        assert!(matches!(made, Ok(CreateUser::Created(_))), "{made:?}");
        for (number, document) in policies.iter().enumerate() {
            let policy = format!("{name}-{number}");
            let made = self
                .store
                .create_policy(&tenant.id, &policy, document)
                .await
                .expect("the database");
            assert_eq!(made, CreatePolicy::Created);
            let attached = self.store.attach_policy(&tenant.id, name, &policy).await;
            assert_eq!(attached.ok(), Some(AttachPolicy::Attached));
        }
        match self.store.create_user_key(&tenant.id, name).await {
            Ok(CreateUserKey::Created(key)) => self.client(&key.id, &key.secret),
            other => panic!("{other:?}"),
        }
    }

    async fn temporary(
        &self,
        tenant: &Tenant,
        user: Option<&str>,
        policy: Option<&str>,
    ) -> TemporaryKey {
        let made = self
            .store
            .create_temporary_key(&tenant.id, user, HOUR, policy)
            .await;
        match made {
            Ok(CreateTemporaryKey::Created(key)) => key,
            other => panic!("{other:?}"),
        }
    }

    fn temporary_client(&self, key: &TemporaryKey, token: Option<&str>) -> Client {
        let credentials = Credentials {
            security_token: token.map(str::to_owned),
            ..Credentials::new(key.id.as_str(), key.secret.as_str())
        };
        Client::new(&self.address.to_string(), credentials, REGION).expect("an endpoint")
    }
}

/// Returns `None` if the call was done, else its code.
async fn outcome(client: &Client, action: &str, parameters: &[(&str, &str)]) -> Option<String> {
    refused(client, action, parameters)
        .await
        .map(|refusal| refusal.code)
}

async fn refused(client: &Client, action: &str, parameters: &[(&str, &str)]) -> Option<Refusal> {
    match client.call_by_name(action, parameters).await {
        Ok(_) => None,
        Err(error) => Some(error.refusal().expect("an answer").clone()),
    }
}

fn no_permission() -> Option<String> {
    Some("NoPermission".to_owned())
}

#[tokio::test]
async fn a_user_may_do_what_its_policies_allow_and_none_denies() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let nobody = fixture.user(&tenant, "nobody", &[]).await;
    assert_eq!(outcome(&nobody, LIST, &[]).await, no_permission());
    // A caller without the right learns nothing about parameters.
    assert_eq!(
        outcome(&nobody, LIST, &[("PageSize", "wrong")]).await,
        no_permission()
    );
    assert_eq!(
        outcome(&tenant.client, LIST, &[]).await,
        None,
        "the account"
    );

    let reader = [policy(&[statement("Allow", "smc:Describe*", "*")])];
    let reader = fixture.user(&tenant, "reader", &reader).await;
    for version in [SignatureVersion::V1, SignatureVersion::V3] {
        assert_eq!(
            outcome(&reader.clone().signing(version), LIST, &[]).await,
            None
        );
    }
    assert_eq!(
        outcome(&reader, "DeleteSourceServer", &[("SourceId", "s-1")]).await,
        no_permission()
    );

    // In two policies, the Deny last.
    let careful = [
        policy(&[statement("Allow", "*", "*")]),
        policy(&[statement("Deny", "smc:Delete*", "*")]),
    ];
    let careful = fixture.user(&tenant, "careful", &careful).await;
    assert_eq!(outcome(&careful, LIST, &[]).await, None);
    let refusal = refused(&careful, "DeleteSourceServer", &[("SourceId", "s-1")])
        .await
        .expect("it is denied");
    assert_eq!(
        (refusal.code.as_str(), refusal.http_status),
        ("NoPermission", 403)
    );
    assert_eq!(
        refusal.message,
        format!(
            "You are not authorized to do this action. You should be authorized by RAM. Resource: acs:smc:{REGION}:{}:sourceServer/s-1 Action: smc:DeleteSourceServer",
            tenant.id
        )
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_denial_says_how_in_json_and_xml() {
    let fixture = Fixture::start().await;
    let mut tenant = fixture.tenant("one").await;
    let deny = [policy(&[statement("Deny", "smc:Describe*", "*")])];
    let _client = fixture.user(&tenant, "bot", &deny).await;
    let user = fixture.store.user(&tenant.id, "bot").await.expect("read");
    let user = user.expect("the user");
    let Ok(CreateUserKey::Created(key)) = fixture.store.create_user_key(&tenant.id, "bot").await
    else {
        panic!("the user is there")
    };
    tenant.key = key;
    let answer = fixture
        .raw("GET", &form(&tenant.signed("GET", LIST, &[])), &[], "")
        .await;
    assert_eq!(answer.status, 403);
    assert_eq!(
        answer.json()["AccessDeniedDetail"],
        serde_json::json!({
            "AuthAction": "smc:DescribeSourceServers",
            "AuthPrincipalDisplayName": user.id.as_str(),
            "AuthPrincipalOwnerId": tenant.id.as_str(),
            "AuthPrincipalType": "SubUser",
            "NoPermissionType": "ExplicitDeny",
            "PolicyType": "AccountLevelIdentityBasedPolicy",
        })
    );
    let pairs = tenant.signed("GET", "DescribeImages", &[("Format", "XML")]);
    let answer = fixture.raw("GET", &form(&pairs), &[], "").await;
    assert!(
        answer
            .text
            .contains("<NoPermissionType>ExplicitDeny</NoPermissionType>")
            && answer.text.contains("<Code>NoPermission</Code>"),
        "{answer:?}"
    );
    let pairs = tenant.signed("GET", "DeleteImage", &[("ImageId", "m-1")]);
    let answer = fixture.raw("GET", &form(&pairs), &[], "").await;
    assert_eq!(
        answer.json()["AccessDeniedDetail"]["NoPermissionType"],
        "ImplicitDeny"
    );
    fixture.stop().await;
}

#[tokio::test]
async fn rights_can_be_for_one_source_only() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let mine = fixture.source(&tenant, "mine", &[1 << 30]).await;
    let other = fixture.source(&tenant, "other", &[1 << 30]).await;
    // The kind in any case, as the two generations of documents write it.
    let arn = format!("acs:smc:*:{}:sourceserver/{mine}", tenant.id);
    let jobs = "acs:smc:*:*:replicationJob/*";
    let policies = [policy(&[
        statement("Allow", "smc:*", &arn),
        statement("Allow", "smc:CreateReplicationJob", jobs),
    ])];
    let client = fixture.user(&tenant, "bot", &policies).await;
    let modify = async |source: &str| {
        let parameters = [("SourceId", source), ("Name", "renamed")];
        outcome(&client, "ModifySourceServerAttribute", &parameters).await
    };
    assert_eq!(modify(mine.as_str()).await, None);
    assert_eq!(modify(other.as_str()).await, no_permission());
    assert_eq!(modify("*").await, no_permission());
    assert_eq!(modify("").await, no_permission());
    assert_eq!(outcome(&client, LIST, &[]).await, no_permission());
    // Both the source and the jobs are decided.
    let create = async |source: &str| {
        let parameters = [("SourceId", source), ("SystemDiskSize", "20")];
        outcome(&client, "CreateReplicationJob", &parameters).await
    };
    assert_eq!(create(other.as_str()).await, no_permission());
    assert_eq!(create(mine.as_str()).await, None);
    // Each resource of a list is decided.
    let tag = async |ids: [&str; 2]| {
        let parameters = [
            ("ResourceType", "SourceServer"),
            ("ResourceId.1", ids[0]),
            ("ResourceId.2", ids[1]),
            ("Tag.1.Key", "k"),
        ];
        outcome(&client, "TagResources", &parameters).await
    };
    assert_eq!(tag([mine.as_str(), other.as_str()]).await, no_permission());
    fixture.stop().await;
}

#[tokio::test]
async fn conditions_look_at_address_time_and_transport() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    for (number, (condition, is_allowed)) in [
        (r#"{"IpAddress":{"acs:SourceIp":"127.0.0.0/8"}}"#, true),
        (
            r#"{"IpAddress":{"acs:SourceIp":["203.0.113.7","10.0.0.0/8"]}}"#,
            false,
        ),
        (r#"{"NotIpAddress":{"acs:SourceIp":"127.0.0.1"}}"#, false),
        (
            r#"{"DateLessThan":{"acs:CurrentTime":"2099-01-01T00:00:00Z"}}"#,
            true,
        ),
        (
            r#"{"DateGreaterThan":{"acs:CurrentTime":"2099-01-01T00:00:00Z"}}"#,
            false,
        ),
        (r#"{"Bool":{"acs:SecureTransport":"true"}}"#, false),
        (r#"{"Bool":{"acs:SecureTransport":"false"}}"#, true),
        (r#"{"Bool":{"acs:MFAPresent":"true"}}"#, false),
        (r#"{"StringEquals":{"acs:SourceVpc":"vpc-1"}}"#, false),
        (r#"{"StringNotEquals":{"acs:SourceVpc":"vpc-1"}}"#, true),
    ]
    .into_iter()
    .enumerate()
    {
        let text = format!(
            r#"{{"Version":"1","Statement":[{{"Effect":"Allow","Action":"*","Resource":"*","Condition":{condition}}}]}}"#
        );
        let client = fixture.user(&tenant, &format!("u{number}"), &[text]).await;
        let wanted = if is_allowed { None } else { no_permission() };
        assert_eq!(outcome(&client, LIST, &[]).await, wanted, "{condition}");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_temporary_key_signs_with_its_token_until_it_expires() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let key = fixture.temporary(&tenant, None, None).await;
    let other = fixture.temporary(&tenant, None, None).await;
    let token = key.security_token.as_str();
    for version in [SignatureVersion::V1, SignatureVersion::V3] {
        for (token, wanted) in [
            (Some(token), None),
            (None, Some("MissingSecurityToken")),
            (Some("x"), Some("InvalidSecurityToken.Malformed")),
            (
                Some(other.security_token.as_str()),
                Some("InvalidSecurityToken.MismatchWithAccessKey"),
            ),
        ] {
            let client = fixture.temporary_client(&key, token).signing(version);
            let outcome = outcome(&client, LIST, &[]).await;
            assert_eq!(outcome.as_deref(), wanted, "{version:?} {token:?}");
        }
    }
    // A key that this gateway has not seen yet, so that no older entry of the cache is used.
    fixture
        .execute(
            "update access_key set expires_at = now() - interval '1 second' where id = $1",
            &other.id,
        )
        .await;
    let late = fixture.temporary_client(&other, Some(&other.security_token));
    let gone = async || outcome(&late, LIST, &[]).await;
    let bound = tokio::time::Instant::now() + PATIENCE;
    loop {
        let code = gone().await;
        if code.as_deref() == Some("InvalidSecurityToken.Expired") {
            break;
        }
        assert!(tokio::time::Instant::now() < bound, "still {code:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_session_policy_narrows_and_never_widens() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let reading = policy(&[statement("Allow", "smc:Describe*", "*")]);
    let everything = policy(&[statement("Allow", "*", "*")]);
    let _client = fixture
        .user(&tenant, "reader", std::slice::from_ref(&reading))
        .await;
    let delete = [("SourceId", "s-1")];
    for (user, session, lists, deletes) in [
        (None, Some(&reading), true, false),
        (Some("reader"), None, true, false),
        (Some("reader"), Some(&everything), true, false),
        (
            Some("reader"),
            Some(&policy(&[statement("Allow", "smc:Delete*", "*")])),
            false,
            false,
        ),
        (None, None, true, true),
    ] {
        let key = fixture
            .temporary(&tenant, user, session.map(String::as_str))
            .await;
        let client = fixture.temporary_client(&key, Some(&key.security_token));
        let may = async |action, parameters: &[(&str, &str)]| {
            outcome(&client, action, parameters).await != no_permission()
        };
        assert_eq!(may(LIST, &[]).await, lists, "{user:?} {session:?}");
        assert_eq!(
            may("DeleteSourceServer", &delete).await,
            deletes,
            "{user:?} {session:?}"
        );
    }
    fixture.stop().await;
}

#[tokio::test]
async fn what_a_user_may_do_depends_on_the_region_of_what_it_touches() {
    let fixture = Fixture::start().await;
    let tenant = fixture.tenant("one").await;
    let north = store::network::Network::Region {
        id: "north".to_owned(),
    };
    fixture
        .store
        .create_network(&tenant.id, &north)
        .await
        .unwrap();
    let mut jobs = Vec::new();
    for region in [REGION, "north"] {
        let source = fixture.source(&tenant, region, &[1]).await;
        let parameters = [
            ("SourceId", source.as_str()),
            ("SystemDiskSize", "20"),
            ("RegionId", region),
        ];
        let made = tenant.call("CreateReplicationJob", &parameters).await;
        jobs.push(made["JobId"].as_str().expect("an id").to_owned());
    }
    let free = fixture.source(&tenant, "free", &[1]).await;
    let here = format!("acs:smc:{REGION}:*:*");
    let only_here = [policy(&[statement("Allow", "smc:*", &here)])];
    let not_north = [policy(&[
        statement("Allow", "smc:*", "*"),
        statement("Deny", "smc:*", "acs:smc:north:*:*"),
    ])];
    for (name, policies) in [("here", only_here), ("everywhere-else", not_north)] {
        let user = fixture.user(&tenant, name, &policies).await;
        for (region, job) in [REGION, "north"].into_iter().zip(&jobs) {
            let wanted = if region == REGION {
                None
            } else {
                no_permission()
            };
            let create = [
                ("SourceId", "s-none"),
                ("SystemDiskSize", "20"),
                ("RegionId", region),
            ];
            let created = outcome(&user, "CreateReplicationJob", &create).await;
            let not_found = Some("InvalidSourceId.NotFound".to_owned());
            assert_eq!(created, wanted.clone().or(not_found), "{name} {region}");
            for (action, parameters) in [
                ("DescribeReplicationJobs", vec![("RegionId", region)]),
                ("ExplainReplicationJob", vec![("JobId", job.as_str())]),
                (
                    "ModifyReplicationJobAttribute",
                    vec![("JobId", job.as_str()), ("Description", name)],
                ),
                (
                    "ListTagResources",
                    vec![
                        ("ResourceType", "replicationjob"),
                        ("ResourceId.1", job.as_str()),
                    ],
                ),
                // The caller's region does not count for a stored resource.
                (
                    "ExplainReplicationJob",
                    vec![("JobId", job.as_str()), ("RegionId", REGION)],
                ),
            ] {
                let outcome = outcome(&user, action, &parameters).await;
                assert_eq!(outcome, wanted, "{name} {action} {parameters:?}");
            }
        }
        let here = [
            ("SourceId", "s-none"),
            ("SystemDiskSize", "20"),
            ("RegionId", ""),
        ];
        let created = outcome(&user, "CreateReplicationJob", &here).await;
        assert_eq!(
            created,
            Some("InvalidSourceId.NotFound".to_owned()),
            "{name}: without a region a job is made where the gateway is"
        );
        // A list of all regions includes north. Clients of SDKs send their own region; this one is made to send none.
        let all = outcome(&user, "DescribeReplicationJobs", &[("RegionId", "")]).await;
        assert_eq!(all, no_permission(), "{name}");
        let sources = outcome(&user, LIST, &[("SourceId.1", free.as_str())]).await;
        assert_eq!(sources, None, "{name}: sources are where the gateway is");
    }
    fixture.stop().await;
}
