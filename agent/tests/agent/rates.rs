//! Agents that call too often for the gateway, and call again at the requested time.

use std::time::Instant;

use proto::agent::RenewRequest;
use proto::agent::agent_service_client::AgentServiceClient;
use testkit::wait;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::deployment::{Deployment, SOON};

/// Registrations that the gateway of these tests accepts at once; from then on it accepts one a second.
const BURST: usize = 10;

/// Returns the number of calls that the gateway has put off so far.
fn deferred(call: &str) -> u64 {
    let series = format!("wherry_agent_calls_deferred_total{{call=\"{call}\"}} ");
    let shown = telemetry::render();
    let count = shown.lines().find_map(|line| line.strip_prefix(&series));
    count.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn servers_that_register_at_once_wait_as_they_are_told_and_all_get_their_answer() {
    let deployment = Deployment::start_with(&["--agents-registrations-per-sec", "1"]).await;
    let disk = deployment.disk("disk", &[1; 4096]).display().to_string();
    let code = deployment.directory.path().join("code");
    std::fs::write(&code, deployment.code_of("nobody")).unwrap();
    let code = code.display().to_string();
    let began = Instant::now();
    let more = 3;
    let agents: Vec<_> = (0..BURST + more)
        .map(|number| {
            let state = deployment.directory.path().join(format!("state-{number}"));
            let state = state.display().to_string();
            let flags = ["--disk", &disk, "--state-dir", &state];
            deployment.agent(&[&flags[..], &["--activation-code-file", &code]].concat())
        })
        .collect();
    for agent in agents {
        let refused = agent.ended().await.unwrap_err().to_string();
        assert!(refused.contains("no such activation code"), "{refused}");
    }
    let (deferred, seconds) = (deferred("register"), began.elapsed().as_secs());
    assert!(deferred > 0, "the rate was never reached");
    // Each was asked to wait a second, and did.
    let most = more as u64 * (seconds + 1);
    assert!(deferred <= most, "{deferred} calls in {seconds} s");
}

#[tokio::test]
async fn an_agent_whose_heartbeats_are_put_off_waits_and_keeps_its_connection() {
    let deployment = Deployment::start().await;
    let disk = deployment.disk("disk", &[1; 4096]);
    let (agent, _) = deployment.registered_agent(&disk, &[]).await;
    let seen = "select id from source where agent_instance is not null";
    deployment.look("the agent is heard", seen).await;

    // The source's calls are used up by another program with its key.
    let mut other = AgentServiceClient::new(deployment.channel_of_the_agent().await);
    let began = Instant::now();
    let is_deferred = wait::until(SOON, "heartbeats are put off", async || {
        let _refused = other.renew(RenewRequest {}).await;
        Ok(deferred("heartbeat") >= 2)
    });
    is_deferred.await.unwrap();
    let (heartbeats, seconds) = (deferred("heartbeat"), began.elapsed().as_secs());
    assert!(heartbeats <= seconds + 1, "{heartbeats} in {seconds} s");

    let forget = "update source set last_seen_at = now() - interval '1 hour'";
    sqlx::query(forget).execute(&deployment.pool).await.unwrap();
    let seen = "select id from source where last_seen_at > now() - interval '1 minute'";
    deployment.look("the agent goes on", seen).await;
    // A new connection would have begun with a watch, and that would have been put off too.
    assert_eq!(deferred("watch"), 0);
    agent.stop().await;
}

impl Deployment {
    /// Opens a connection with the agent's key and certificate.
    async fn channel_of_the_agent(&self) -> Channel {
        let read = |name| std::fs::read_to_string(self.state_dir().join(name)).unwrap();
        let registration: serde_json::Value =
            serde_json::from_str(&read("registration.json")).unwrap();
        let pem = |name: &str| registration[name].as_str().unwrap().to_owned();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(pem("authority_pem")))
            .identity(Identity::from_pem(pem("certificate_pem"), read("key.pem")));
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap();
        let connecting = wait::some(SOON, "the gateway takes another connection", async || {
            Ok(endpoint
                .clone()
                .tls_config(tls.clone())?
                .connect()
                .await
                .ok())
        });
        connecting.await.unwrap()
    }
}
