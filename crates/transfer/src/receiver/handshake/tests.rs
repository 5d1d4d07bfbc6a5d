//! Strangers before a receiver, and senders that ask for too much, over real sockets.

use std::net::{Ipv4Addr, SocketAddr};

use domain::disk::DiskIndex;
use domain::{Epoch, JobId, Run};
use service::door::Reason;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use transport::net::{Connection, Net};
use transport::{Connection as _, Control, Identity, Kind, MOST_STREAMS, Transport as _};

use super::*;
use crate::TicketSecret;
use crate::receiver::{Admission, Server, ServerConfig, TargetDisk};

const PATIENCE: Duration = Duration::from_secs(30);
const DISK_BYTES: u64 = 4 << 20;

struct Bench {
    server: Server,
    address: SocketAddr,
    sender: Identity,
    secret: TicketSecret,
    job_id: JobId,
    _directory: tempfile::TempDir,
}

impl Bench {
    /// A receiver with a sender admitted.
    async fn start(handshake: HandshakeLimits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = pki::Authority::generate("run", pki::RUN_VALIDITY).unwrap();
        let identity = |issued: pki::Identity| Identity {
            authority_pem: authority.certificate_pem().to_owned(),
            certificate_pem: issued.certificate_pem,
            key_pem: issued.key_pem,
        };
        let receiver = identity(authority.issue_server(&["receiver".to_owned()]).unwrap());
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = ServerConfig::new(listen, receiver, "s-agent", directory.path().to_owned());
        let server = Server::bind(ServerConfig {
            handshake,
            ..config
        })
        .unwrap();
        let bench = Self {
            address: server.address().unwrap(),
            server,
            sender: identity(authority.issue_client("s-agent").unwrap()),
            secret: TicketSecret::generate(),
            job_id: JobId::generate(),
            _directory: directory,
        };
        let disk = TargetDisk {
            index: DiskIndex(0),
            source_bytes: DISK_BYTES,
            target_bytes: DISK_BYTES,
        };
        let admission = Admission {
            epoch: Epoch(1),
            job_id: bench.job_id.clone(),
            run: Run(1),
            secret: bench.secret.clone(),
            disks: vec![disk],
            checksum: true,
        };
        bench.server.admit(admission).await.unwrap();
        bench
    }

    /// A sender that has been let in.
    async fn welcomed(&self, transport: Kind) -> (Connection, Control<Connection>) {
        let connecting = Net.connect(transport, self.address, "receiver", &self.sender);
        let (client, mut control) = connecting.await.unwrap();
        let ticket = Ticket {
            job_id: self.job_id.clone(),
            run: Run(1),
            epoch: Epoch(1),
            expires_unix_secs: i64::MAX,
        };
        let hello = ToReceiver::Hello {
            version: VERSION,
            ticket: ticket.sign(&self.secret),
            disks: vec![OfferedDisk {
                index: DiskIndex(0),
                size_bytes: DISK_BYTES,
                fingerprint: None,
            }],
            transport_reason: String::new(),
        };
        control::write(&mut control.0, &hello).await.unwrap();
        while control::read::<ToSender>(&mut control.1).await.unwrap() != ToSender::PresentEnd {}
        (client, control)
    }

    /// Both transports let a right sender in.
    async fn check_that_senders_get_in(&self) {
        for transport in [Kind::Tcp, Kind::Quic] {
            let welcomed = tokio::time::timeout(PATIENCE, self.welcomed(transport)).await;
            assert!(
                welcomed.is_ok(),
                "{transport} is shut: {:?}",
                self.server.ended()
            );
        }
    }

    fn ended_for(&self, reason: Reason) -> u64 {
        let ended = self.server.ended().into_iter();
        ended
            .filter(|(of, _)| *of == reason)
            .map(|(_, count)| count)
            .sum()
    }
}

/// Few places, and so much patience that no time limit helps.
fn few_places() -> HandshakeLimits {
    let mut limits = HandshakeLimits::default();
    limits.places.strangers = 8;
    limits.places.strangers_per_address = 8;
    limits.patience = PATIENCE * 2;
    limits
}

#[tokio::test]
async fn silent_connections_keep_no_sender_out() {
    let bench = Bench::start(few_places()).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(bench.address).await.unwrap());
    }
    bench.check_that_senders_get_in().await;
    assert!(
        bench.ended_for(Reason::Address) >= 92,
        "{:?}",
        bench.server.ended()
    );
    // The first of them made room.
    let mut nothing = [0];
    let closed = tokio::time::timeout(PATIENCE, silent[0].read(&mut nothing)).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
}

#[tokio::test]
async fn first_datagrams_that_are_never_answered_keep_no_sender_out() {
    let bench = Bench::start(few_places()).await;
    // They are written for another address, whose owner passes them on.
    let between = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut connecting = JoinSet::new();
    for _ in 0..40 {
        let (to, sender) = (between.local_addr().unwrap(), bench.sender.clone());
        connecting.spawn(async move { Net.connect(Kind::Quic, to, "receiver", &sender).await });
        let mut datagram = [0; 2000];
        let (bytes, _) = between.recv_from(&mut datagram).await.unwrap();
        let forger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        forger
            .send_to(&datagram[..bytes], bench.address)
            .await
            .unwrap();
    }
    bench.check_that_senders_get_in().await;
    // Most were asked whether their addresses are theirs, and took no place.
    let limits = few_places();
    assert!(bench.server.shared.door.strangers() <= limits.unchecked_strangers + 1);
    assert_eq!(bench.ended_for(Reason::Address), 0);
}

#[tokio::test]
async fn who_proves_nothing_in_time_is_put_out() {
    let bench = Bench::start(HandshakeLimits {
        patience: Duration::from_millis(200),
        ..HandshakeLimits::default()
    })
    .await;
    let mut silent = TcpStream::connect(bench.address).await.unwrap();
    let mut nothing = [0];
    let closed = tokio::time::timeout(PATIENCE, silent.read(&mut nothing)).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    assert_eq!(bench.ended_for(Reason::Silent), 1);
}

#[tokio::test]
async fn a_session_has_sixteen_streams_and_is_refused_with_the_seventeenth() {
    for transport in [Kind::Quic, Kind::Tcp] {
        let bench = Bench::start(HandshakeLimits::default()).await;
        let (client, mut control) = bench.welcomed(transport).await;
        let mut streams = client.open_data(MOST_STREAMS, 2).await.unwrap();
        for stream in &mut streams {
            stream.write_all(&[1]).await.unwrap();
        }
        let allowed = tokio::time::timeout(PATIENCE, async {
            let disks = bench.server.shared.admitted().unwrap();
            while (disks.streams() as usize) < MOST_STREAMS {
                tokio::task::yield_now().await;
            }
        });
        allowed.await.expect("sixteen are allowed");
        assert_eq!(bench.server.status().borrow().failure, None, "{transport}");
        // Over QUIC it comes over a connection of its own, which the transport does not limit.
        let mut another = client.open_data(2, 2).await.unwrap();
        for stream in &mut another {
            let _refused = stream.write_all(&[1]).await;
        }
        let refused = tokio::time::timeout(PATIENCE, async {
            loop {
                match control::read(&mut control.1).await.expect("a last word") {
                    ToSender::Refused(failure) => break failure.message,
                    _ => continue,
                }
            }
        });
        let message = refused.await.expect("the session ends");
        assert!(
            message.contains("16 data streams"),
            "{transport}: {message}"
        );
        let failure = bench.server.status().borrow().failure.clone();
        assert!(failure.is_some(), "{transport}: the run ends");
    }
}
