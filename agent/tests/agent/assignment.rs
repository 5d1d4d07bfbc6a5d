//! Behaviour of an agent with assignments.

use std::path::Path;
use std::time::{Duration, Instant};

use domain::disk::DiskIndex;
use domain::{Epoch, JobId, Run, SourceId, TenantId};
use pki::{Authority, RUN_VALIDITY};
use prost::Message as _;
use proto::agent as wire;
use testkit::wait;
use transfer::receiver::{Admission, Server, ServerConfig, TargetDisk};
use transfer::{Ticket, TicketSecret};
use transport::Identity;

use crate::deployment::{Deployment, SOON};

/// Name in the certificate that the agent presents to the receiver.
const SOURCE: &str = "s-agent";

/// Writes a job and its assignment, as a worker does.
async fn assign(deployment: &Deployment, source: &str, assignment: &wire::Assignment) {
    let tenant: &TenantId = &deployment.tenant;
    sqlx::query(
        "insert into job (id, tenant, source_id, region_id, name, image_name, valid_until, state, run, epoch)
         values ($1, $2, $3, 'r', 'job', 'image', now() + interval '1 day', 'syncing', $4, $5) on conflict do nothing",
    )
    .bind(&assignment.job_id)
    .bind(tenant.as_str())
    .bind(source)
    .bind(assignment.run)
    .bind(assignment.epoch)
    .execute(&deployment.pool)
    .await
    .unwrap();
    sqlx::query(
        "insert into assignment (job_id, tenant, source_id, run, epoch, message) values ($1, $2, $3, $4, $5, $6)
         on conflict (job_id) do update set
            epoch = excluded.epoch, message = excluded.message, agent_state = 'assigned', failure_code = null",
    )
    .bind(&assignment.job_id)
    .bind(tenant.as_str())
    .bind(source)
    .bind(assignment.run)
    .bind(assignment.epoch)
    .bind(assignment.encode_to_vec())
    .execute(&deployment.pool)
    .await
    .unwrap();
}

fn assignment(disk: &Path, size_bytes: u64) -> wire::Assignment {
    wire::Assignment {
        job_id: JobId::generate().into(),
        run: 1,
        epoch: 1,
        disks: vec![wire::AssignedDisk {
            index: 0,
            path: disk.display().to_string(),
            size_bytes,
            identity: None,
        }],
        ..wire::Assignment::default()
    }
}

#[tokio::test]
async fn a_watching_agent_takes_an_assignment_long_before_its_next_heartbeat() {
    let deployment = Deployment::start().await;
    let disk = deployment.disk("disk", &[1; 4096]);
    let (agent, source) = deployment
        .registered_agent(&disk, &["--heartbeat-secs", "3600"])
        .await;
    let connected = "select id from source where heartbeat_secs = 3600";
    deployment.look("the agent is connected", connected).await;

    assign(&deployment, &source, &assignment(&disk, 4097)).await;
    let failed = "select failure_code || ' ' || failure_message from assignment where agent_state = 'failed'";
    let failure = deployment.look("the agent has answered", failed).await;
    assert!(failure.starts_with("SourceServer.DiskChanged"), "{failure}");
    assert!(
        failure.contains("4096") && failure.contains("4097"),
        "{failure}"
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_nudge_reaches_an_agent_at_once() {
    let deployment = Deployment::start_with(&["--agents-poll-secs", "30"]).await;
    let nats = testkit::nats().await;
    let bus_config = bus::BusConfig::new(nats.url(), "test");
    let bus = bus::Bus::connect(&bus_config).await.unwrap();
    let hearing = tokio::spawn(deployment.doorbell().hear(bus_config));
    let disk = deployment.disk("disk", &[1; 4096]);
    let (agent, source) = deployment
        .registered_agent(&disk, &["--heartbeat-secs", "3600"])
        .await;
    let connected = "select id from source where heartbeat_secs = 3600";
    deployment.look("the agent is connected", connected).await;

    assign(&deployment, &source, &assignment(&disk, 4097)).await;
    let source: SourceId = source.parse().unwrap();
    // Repeated, because nothing reports when the gateway has begun to listen.
    let answered = wait::until(SOON, "the agent has answered", async || {
        bus.nudge(&source).await?;
        let failed = "select count(*) from assignment where agent_state = 'failed'";
        Ok(deployment.count(failed).await == 1)
    });
    answered.await.unwrap();
    hearing.abort();
    agent.stop().await;
}

/// A run as a worker prepares it: its authority, a receiver, and the ticket.
struct Prepared {
    authority: Authority,
    secret: TicketSecret,
    receiver: Server,
    _directory: tempfile::TempDir,
    job_id: JobId,
    epoch: Epoch,
}

impl Prepared {
    async fn new(source_bytes: u64, epoch: i64) -> Self {
        Self::of(JobId::generate(), source_bytes, epoch).await
    }

    async fn of(job_id: JobId, source_bytes: u64, epoch: i64) -> Self {
        let authority = Authority::generate("run", RUN_VALIDITY).unwrap();
        let identity = authority.issue_server(&["receiver".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let config = ServerConfig::new(
            ([127, 0, 0, 1], 0).into(),
            Identity {
                authority_pem: authority.certificate_pem().to_owned(),
                certificate_pem: identity.certificate_pem,
                key_pem: identity.key_pem,
            },
            SOURCE,
            directory.path().to_owned(),
        );
        let receiver = Server::bind(config).unwrap();
        let prepared = Self {
            authority,
            secret: TicketSecret::generate(),
            receiver,
            _directory: directory,
            job_id,
            epoch: Epoch(epoch),
        };
        let admission = Admission {
            epoch: prepared.epoch,
            job_id: prepared.job_id.clone(),
            run: Run(1),
            secret: prepared.secret.clone(),
            disks: vec![TargetDisk {
                index: DiskIndex(0),
                source_bytes,
                target_bytes: source_bytes,
            }],
            checksum: true,
        };
        prepared.receiver.admit(admission).await.unwrap();
        prepared
    }

    /// Waits until some of the disk is durable, but not all.
    async fn has_bytes(&self) {
        let mut status = self.receiver.status();
        let some = status.wait_for(|status| status.disks.iter().any(|disk| disk.bytes_durable > 0));
        tokio::time::timeout(SOON, some)
            .await
            .expect("some bytes are durable")
            .unwrap();
    }

    /// Waits until every disk has its receipt.
    async fn is_complete(&self) {
        let mut status = self.receiver.status();
        let complete = status.wait_for(|status| status.is_complete());
        tokio::time::timeout(SOON, complete)
            .await
            .expect("every disk has its receipt")
            .unwrap();
    }

    /// Returns the assignment, with a certificate over the key that the source has registered.
    async fn assignment(&self, deployment: &Deployment, disk: &Path) -> wire::Assignment {
        let public_key: Vec<u8> = sqlx::query_scalar("select public_key from source")
            .fetch_one(&deployment.pool)
            .await
            .unwrap();
        let ticket = Ticket {
            job_id: self.job_id.clone(),
            run: Run(1),
            epoch: self.epoch,
            expires_unix_secs: i64::MAX,
        };
        wire::Assignment {
            job_id: self.job_id.to_string(),
            epoch: self.epoch.0,
            receiver_address: self.receiver.address().unwrap().to_string(),
            receiver_name: "receiver".to_owned(),
            authority_pem: self.authority.certificate_pem().to_owned(),
            certificate_pem: self
                .authority
                .issue_client_over_public_key(SOURCE, &public_key)
                .unwrap(),
            ticket: ticket.sign(&self.secret),
            ..assignment(disk, disk.metadata().unwrap().len())
        }
    }
}

/// Returns bytes that do not repeat, with a hole of zeros in the middle.
fn contents() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..5_000_000_u32)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(9_000_001)
        .collect();
    bytes[3_000_000..6_000_000].fill(0);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sends_its_disk_and_reports_it_as_sent() {
    let deployment = Deployment::start().await;
    let bytes = contents();
    let disk = deployment.disk("disk", &bytes);
    let (agent, source) = deployment.registered_agent(&disk, &[]).await;
    let prepared = Prepared::new(bytes.len() as u64, 1).await;
    let assigned = prepared.assignment(&deployment, &disk).await;
    assign(&deployment, &source, &assigned).await;

    prepared.is_complete().await;
    let sent = "select agent_state from assignment where agent_state = 'sent'";
    deployment
        .look("the agent says that it has sent all", sent)
        .await;
    agent.stop().await;

    let copy = prepared.receiver.disk_path(DiskIndex(0));
    prepared.receiver.shutdown().await.unwrap();
    assert!(std::fs::read(copy).unwrap() == bytes, "the copy differs");
}

/// The receiver may die before its receipts were recorded. Its replacement has the same run and epoch.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_in_the_place_of_one_that_had_everything_is_sent_to_again() {
    let deployment = Deployment::start().await;
    let bytes = contents();
    let disk = deployment.disk("disk", &bytes);
    let (agent, source) = deployment.registered_agent(&disk, &[]).await;
    let lost = Prepared::new(bytes.len() as u64, 1).await;
    let assigned = lost.assignment(&deployment, &disk).await;
    assign(&deployment, &source, &assigned).await;
    lost.is_complete().await;
    let sent = "select agent_state from assignment where agent_state = 'sent'";
    deployment.look("the agent has sent all", sent).await;

    let next = Prepared::of(lost.job_id.clone(), bytes.len() as u64, 1).await;
    drop(lost);
    let assigned = next.assignment(&deployment, &disk).await;
    assign(&deployment, &source, &assigned).await;
    next.is_complete().await;
    deployment.look("the agent has sent all again", sent).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_in_the_place_of_one_that_is_silent_is_sent_to_at_once() {
    let deployment = Deployment::start().await;
    let bytes = contents();
    let disk = deployment.disk("disk", &bytes);
    let (agent, source) = deployment.registered_agent(&disk, &[]).await;
    let prepared = Prepared::new(bytes.len() as u64, 1).await;
    let living = prepared.assignment(&deployment, &disk).await;

    // Both transports reach the address, and nothing answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    let _datagrams = std::net::UdpSocket::bind(silent).unwrap();
    let lost = wire::Assignment {
        receiver_address: silent.to_string(),
        ..living.clone()
    };
    assign(&deployment, &source, &lost).await;
    let _accepted = listener.accept().await.unwrap();

    let replaced_at = Instant::now();
    assign(&deployment, &source, &living).await;
    let sent = "select agent_state from assignment where agent_state = 'sent'";
    deployment.look("the agent has sent all", sent).await;
    let took = replaced_at.elapsed();
    assert!(
        took < Duration::from_secs(9),
        "it waited {took:?}: as long as for an answer of the first"
    );
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_assignment_takes_the_place_of_one_that_gets_nowhere() {
    let deployment = Deployment::start().await;
    let bytes = contents();
    let disk = deployment.disk("disk", &bytes);
    let (agent, source) = deployment.registered_agent(&disk, &[]).await;
    let prepared = Prepared::new(bytes.len() as u64, 2).await;
    let newer = prepared.assignment(&deployment, &disk).await;

    // Nothing listens there: the port was free a moment ago and is closed again.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let away = socket.local_addr().unwrap();
    drop(socket);
    let older = wire::Assignment {
        receiver_address: away.to_string(),
        epoch: 1,
        ..newer.clone()
    };
    assign(&deployment, &source, &older).await;
    let taken = "select agent_state from assignment where agent_state = 'connecting'";
    deployment
        .look("the agent looks for the receiver", taken)
        .await;

    assign(&deployment, &source, &newer).await;
    let sent = "select agent_state from assignment where agent_state = 'sent' and epoch = 2";
    deployment.look("the agent has sent all", sent).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_lifted_while_disks_are_sent_is_lifted_at_once() {
    let deployment = Deployment::start().await;
    let bytes = contents();
    let disk = deployment.disk("disk", &bytes);
    let (agent, source) = deployment.registered_agent(&disk, &[]).await;
    let prepared = Prepared::new(bytes.len() as u64, 1).await;
    let unlimited = prepared.assignment(&deployment, &disk).await;
    assign(&deployment, &source, &limited(&unlimited)).await;
    prepared.has_bytes().await;

    assign(&deployment, &source, &unlimited).await;
    let sent = "select agent_state from assignment where agent_state = 'sent'";
    // Under the limit it would take half a minute.
    deployment.look("the agent has sent all", sent).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_ends_in_the_middle_goes_on_after_its_restart() {
    let deployment = Deployment::start().await;
    let bytes = contents();
    let disk = deployment.disk("disk", &bytes);
    let (first, source) = deployment.registered_agent(&disk, &[]).await;
    let prepared = Prepared::new(bytes.len() as u64, 1).await;
    let unlimited = prepared.assignment(&deployment, &disk).await;
    assign(&deployment, &source, &limited(&unlimited)).await;
    prepared.has_bytes().await;
    first.stop().await;
    assert!(!prepared.receiver.status().borrow().is_complete());

    assign(&deployment, &source, &unlimited).await;
    let second = deployment.agent(&["--disk", &disk.display().to_string()]);
    prepared.is_complete().await;
    second.stop().await;
}

/// Returns the same assignment with a limit under which the contents take half a minute.
fn limited(assignment: &wire::Assignment) -> wire::Assignment {
    wire::Assignment {
        bandwidth_limit_bytes_per_sec: 200_000,
        compress_level: Some(0),
        ..assignment.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_that_is_gone_ends_the_transfer() {
    let deployment = Deployment::start().await;
    let bytes = contents();
    let disk = deployment.disk("disk", &bytes);
    let (agent, source) = deployment.registered_agent(&disk, &[]).await;
    let prepared = Prepared::new(bytes.len() as u64, 1).await;
    let slow = wire::Assignment {
        bandwidth_limit_bytes_per_sec: 10_000,
        ..prepared.assignment(&deployment, &disk).await
    };
    assign(&deployment, &source, &slow).await;
    let mut status = prepared.receiver.status();
    let connected = status.wait_for(|status| status.connected);
    tokio::time::timeout(SOON, connected)
        .await
        .expect("the agent connects")
        .unwrap();

    let end = "delete from assignment";
    sqlx::query(end).execute(&deployment.pool).await.unwrap();
    let gone = status.wait_for(|status| !status.connected);
    tokio::time::timeout(SOON, gone)
        .await
        .expect("the agent hangs up")
        .unwrap();
    assert!(!prepared.receiver.status().borrow().is_complete());
    agent.stop().await;
}
