//! Rules of registration: the servers that become sources, and the answers to the others.

use std::time::Duration;

use agent::Error;
use api_gateway::agents;
use proto::agent as wire;
use proto::agent::agent_service_client::AgentServiceClient;
use testkit::wait;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::deployment::{Code, Deployment, SOON};

/// Starts an agent with this code and returns the sentence that it ends with.
async fn refusal(deployment: &Deployment, code: &str) -> String {
    let disk = deployment.disk("disk", &[1; 4096]).display().to_string();
    let agent = deployment.agent(&["--activation-code", code, "--disk", &disk]);
    match agent.ended().await.unwrap_err() {
        Error::Refused { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_server_with_a_code_becomes_a_source_with_its_disks() {
    let deployment = Deployment::start().await;
    let disk = deployment.disk("disk", &[1; 8192]);
    let (agent, source) = deployment
        .registered_agent(&disk, &["--name", "web-01"])
        .await;
    let (name, tenant, architecture): (String, String, String) =
        sqlx::query_as("select name, tenant, architecture from source where id = $1")
            .bind(&source)
            .fetch_one(&deployment.pool)
            .await
            .unwrap();
    assert_eq!(
        (name.as_str(), tenant.as_str()),
        ("web-01", deployment.tenant.as_str())
    );
    assert_eq!(architecture, std::env::consts::ARCH);
    let (index, path, size): (i16, String, i64) =
        sqlx::query_as("select index, path, size_bytes from source_disk where source_id = $1")
            .bind(&source)
            .fetch_one(&deployment.pool)
            .await
            .unwrap();
    assert_eq!((index, path, size), (0, disk.display().to_string(), 8192));
    agent.stop().await;
}

#[tokio::test]
async fn one_disk_under_two_names_keeps_the_agent_from_starting() {
    let deployment = Deployment::start().await;
    let disk = deployment.disk("disk", &[1; 4096]);
    let [link, of_device] =
        ["ata-DISK_1", "ata-DISK_2"].map(|name| deployment.directory.path().join(name));
    let attached = testkit::cluster::LoopDevice::over(&disk).unwrap();
    let device = attached.path().to_owned();
    std::os::unix::fs::symlink(&disk, &link).unwrap();
    std::os::unix::fs::symlink(&device, &of_device).unwrap();
    let code = deployment.code(Code::default()).await;
    for (one, other) in [(&disk, &link), (&device, &of_device), (&disk, &device)] {
        let [one, other] = [one, other].map(|path| path.display().to_string());
        let flags = ["--activation-code", &code, "--disk", &one, "--disk", &other];
        let sentence = match deployment.agent(&flags).ended().await.unwrap_err() {
            Error::DiskRepeated { message } => message,
            error => panic!("{error}"),
        };
        assert!(
            sentence.contains(&one) && sentence.contains(&other),
            "{sentence}"
        );
    }
    assert_eq!(deployment.count("select count(*) from source").await, 0);
}

#[tokio::test]
async fn a_path_with_a_comma_is_one_disk() {
    let deployment = Deployment::start().await;
    let disk = deployment.disk("web,1.raw", &[1; 8192]);
    let (agent, _) = deployment.registered_agent(&disk, &[]).await;
    let well = "select s.id from source s join source_disk on source_id = s.id where failure_code is null and path like '%web,1.raw'";
    deployment.look("the source is well", well).await;
    agent.stop().await;
}

#[tokio::test]
async fn codes_that_do_not_count_are_refused_with_a_sentence() {
    let deployment = Deployment::start().await;
    let sentence = refusal(&deployment, &deployment.code_of("nobody")).await;
    assert!(sentence.contains("no such activation code"), "{sentence}");

    let expired = Code {
        secret: "expired",
        has_expired: true,
        ..Code::default()
    };
    let sentence = refusal(&deployment, &deployment.code(expired).await).await;
    assert!(sentence.contains("expired"), "{sentence}");

    let disabled = Code {
        secret: "disabled",
        is_disabled: true,
        ..Code::default()
    };
    let sentence = refusal(&deployment, &deployment.code(disabled).await).await;
    assert!(sentence.contains("disabled"), "{sentence}");

    let quota = "update tenant set max_sources = 0";
    sqlx::query(quota).execute(&deployment.pool).await.unwrap();
    let sentence = refusal(&deployment, &deployment.code(Code::default()).await).await;
    assert!(sentence.contains("quota"), "{sentence}");
    assert_eq!(deployment.count("select count(*) from source").await, 0);
}

#[tokio::test]
async fn a_code_for_one_server_registers_one() {
    let deployment = Deployment::start().await;
    let code = deployment
        .code(Code {
            max_count: 1,
            ..Code::default()
        })
        .await;
    let disk = deployment.disk("disk", &[1; 4096]).display().to_string();
    let first = deployment.agent(&["--activation-code", &code, "--disk", &disk]);
    deployment.the_source().await;
    first.stop().await;

    std::fs::remove_dir_all(deployment.state_dir()).unwrap();
    let sentence = refusal(&deployment, &code).await;
    assert!(sentence.contains("used up"), "{sentence}");
    assert_eq!(deployment.count("select count(*) from source").await, 1);
}

#[tokio::test]
async fn an_agent_that_lost_the_answer_registers_again_as_the_same_source() {
    let deployment = Deployment::start().await;
    let code = deployment
        .code(Code {
            max_count: 1,
            ..Code::default()
        })
        .await;
    let disk = deployment.disk("disk", &[1; 4096]).display().to_string();
    let flags = ["--activation-code", &code, "--disk", &disk];
    let first = deployment.agent(&flags);
    let source = deployment.the_source().await;
    first.stop().await;

    let kept = deployment.state_dir().join("registration.json");
    std::fs::remove_file(&kept).unwrap();
    let second = deployment.agent(&flags);
    let registered = wait::some(SOON, "it has registered again", async || {
        Ok(std::fs::read_to_string(&kept).ok())
    });
    assert!(registered.await.unwrap().contains(&source));
    second.stop().await;
    assert_eq!(deployment.count("select count(*) from source").await, 1);
    let used = deployment
        .count("select registered::bigint from access_token")
        .await;
    assert_eq!(used, 1, "registering again uses up nothing");
}

#[tokio::test]
async fn a_restarted_agent_needs_no_code_and_stays_the_same_source() {
    let deployment = Deployment::start().await;
    let disk = deployment.disk("disk", &[1; 4096]);
    let (first, source) = deployment.registered_agent(&disk, &[]).await;
    first.stop().await;
    let forget = "update source set agent_version = 'none'";
    sqlx::query(forget).execute(&deployment.pool).await.unwrap();

    let second = deployment.agent(&["--disk", &disk.display().to_string()]);
    let seen = "select id from source where agent_version <> 'none'";
    assert_eq!(
        deployment.look("the source is seen again", seen).await,
        source
    );
    second.stop().await;
}

#[tokio::test]
async fn an_agent_without_code_and_registration_says_what_it_needs() {
    let deployment = Deployment::start().await;
    let ended = deployment.agent(&[]).ended().await;
    assert!(matches!(ended, Err(Error::NotRegistered)));
}

#[tokio::test]
async fn a_gateway_of_another_deployment_gets_nothing() {
    let deployment = Deployment::start().await;
    let stranger = Deployment::start().await;
    let code = stranger.code(Code::default()).await;
    let disk = deployment.disk("disk", &[1; 4096]).display().to_string();
    let agent = deployment.agent(&["--activation-code", &code, "--disk", &disk]);
    let ended = agent.ended().await;
    assert!(
        matches!(ended, Err(Error::WrongDeployment { .. })),
        "{ended:?}"
    );
    assert_eq!(deployment.count("select count(*) from source").await, 0);
}

#[tokio::test]
async fn two_gateways_on_an_empty_database_have_one_authority() {
    let deployment = Deployment::start().await;
    let erase = "delete from deployment_secret";
    sqlx::query(erase).execute(&deployment.pool).await.unwrap();
    let gateways = (0..4).map(|_| agents::authority(&deployment.store));
    let fingerprints: std::collections::BTreeSet<String> = futures::future::join_all(gateways)
        .await
        .into_iter()
        .map(|authority| authority.unwrap().fingerprint())
        .collect();
    assert_eq!(fingerprints.len(), 1);
}

#[tokio::test]
async fn a_call_without_a_certificate_of_this_deployment_is_refused() {
    let deployment = Deployment::start().await;
    let authority = agents::authority(&deployment.store).await.unwrap();
    let endpoint = Endpoint::from_shared(format!("https://{}", deployment.address)).unwrap();
    let trust =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.certificate_pem()));

    let channel = endpoint
        .clone()
        .tls_config(trust.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let status = AgentServiceClient::new(channel)
        .heartbeat(wire::HeartbeatRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");

    // An authority with the same name and another key.
    let forger = pki::Authority::generate("Wherry deployment", pki::RUN_VALIDITY).unwrap();
    let forged = forger.issue_client("s-1").unwrap();
    let identity = Identity::from_pem(forged.certificate_pem, forged.key_pem);
    let tls = trust.identity(identity);
    let outcome = match endpoint.tls_config(tls).unwrap().connect().await {
        Ok(channel) => AgentServiceClient::new(channel)
            .heartbeat(wire::HeartbeatRequest::default())
            .await
            .map(|_| ())
            .map_err(|status| status.to_string()),
        Err(error) => Err(error.to_string()),
    };
    assert!(outcome.is_err(), "a forged certificate must not be taken");
}

#[tokio::test]
async fn a_certificate_is_renewed_at_half_of_its_life_without_a_new_registration() {
    let deployment = Deployment::start().await;
    let disk = deployment.disk("disk", &[1; 4096]);
    let (first, source) = deployment.registered_agent(&disk, &[]).await;
    first.stop().await;
    let kept = deployment.state_dir().join("registration.json");
    let read = || -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(&kept).unwrap()).unwrap()
    };
    let certificate = |registration: &serde_json::Value| {
        pki::certificate_der(registration["certificate_pem"].as_str().unwrap()).unwrap()
    };
    let registered = certificate(&read());
    let (begin, end) = pki::validity_of(&registered).unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    assert!(
        end.duration_since(begin).unwrap() < 367 * day,
        "it lives for a year"
    );

    // Certificates begin an hour before they are made: this one has half an hour left.
    let authority = agents::authority(&deployment.store).await.unwrap();
    let key = pki::public_key_der_of(&registered).unwrap();
    let mut short = read();
    short["certificate_pem"] = authority
        .issue_client_for(&source, &key, day / 48)
        .unwrap()
        .into();
    std::fs::write(&kept, short.to_string()).unwrap();

    let disk = disk.display().to_string();
    let second = deployment.agent(&["--disk", &disk]);
    let renewed = wait::some(SOON, "the certificate is another", async || {
        let now = read();
        Ok((now["certificate_pem"] != short["certificate_pem"]).then_some(now))
    });
    let renewed = certificate(&renewed.await.unwrap());
    let (_, end) = pki::validity_of(&renewed).unwrap();
    assert!(end.duration_since(std::time::SystemTime::now()).unwrap() > 300 * day);
    assert_eq!(pki::public_key_der_of(&renewed).unwrap(), key);
    assert_eq!(pki::common_name_of(&renewed).unwrap(), source);
    second.stop().await;

    // The certificate that it keeps is accepted again.
    let third = deployment.agent(&["--disk", &disk]);
    sqlx::query("update source set last_seen_at = now() - interval '1 hour'")
        .execute(&deployment.pool)
        .await
        .unwrap();
    let seen = "select id from source where last_seen_at > now() - interval '1 minute'";
    assert_eq!(deployment.look("it is heard from", seen).await, source);
    third.stop().await;
}
