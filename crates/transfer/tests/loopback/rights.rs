//! The right to write, and refusals.

use domain::disk::DiskIndex;
use domain::{Epoch, FailureCode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transfer::TransferError;
use transfer::sender::{SendConfig, SendProgress, send};
use transport::Kind;

use crate::bench::{Bench, MIB, PATIENCE, durable, noise, wait_for};

over_both_transports!(
    no_byte_below_the_fence_lands,
    the_newest_connection_of_an_epoch_takes_over,
    only_the_source_gets_through_though_the_runs_authority_signs_for_others,
    strangers_and_wrong_disks_are_refused,
);

async fn no_byte_below_the_fence_lands(transport: Kind) -> anyhow::Result<()> {
    let bench = Bench::new(transport, &[&noise(16 * MIB, 4)])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let slow = bench.config(address, 1, Some(4 * MIB));
    let old = tokio::spawn(send(
        slow,
        CancellationToken::new(),
        watch::channel(SendProgress::default()).0,
    ));
    wait_for(&mut server.status(), |status| durable(status) >= MIB).await?;
    server.admit(bench.admission(2)).await?;
    let before = std::fs::read(server.disk_path(DiskIndex(0)))?;
    let ended = tokio::time::timeout(PATIENCE, old)
        .await??
        .expect_err("the old epoch is over");
    assert!(ended.is_retryable(), "{ended}");
    assert_eq!(
        std::fs::read(server.disk_path(DiskIndex(0)))?,
        before,
        "nothing landed after the fence was raised"
    );
    assert!(
        bench.send(address, 1).await.is_err(),
        "a ticket of the old epoch is refused"
    );
    assert!(
        server.admit(bench.admission(1)).await.is_err(),
        "an old owner can't come back"
    );
    bench.send(address, 2).await?;
    bench.check_targets()?;

    // The fence survives the process.
    server.shutdown().await?;
    let (server, _) = bench.server()?;
    assert_eq!(server.epoch(), Epoch(2));
    assert!(matches!(
        server.admit(bench.admission(1)).await,
        Err(TransferError::Fenced { .. })
    ));
    Ok(())
}

async fn the_newest_connection_of_an_epoch_takes_over(transport: Kind) -> anyhow::Result<()> {
    let bench = Bench::new(transport, &[&noise(16 * MIB, 10)])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let progress = || watch::channel(SendProgress::default()).0;
    let slow = bench.config(address, 1, Some(4 * MIB));
    let old = tokio::spawn(send(slow, CancellationToken::new(), progress()));
    wait_for(&mut server.status(), |status| durable(status) >= MIB).await?;

    // A stranger changes nothing for the one inside.
    let stranger = SendConfig {
        ticket: vec![0; 60],
        ..bench.config(address, 1, None)
    };
    let refused = send(stranger, CancellationToken::new(), progress()).await;
    assert!(refused.is_err());
    assert!(server.status().borrow().connected);
    assert_eq!(server.status().borrow().failure, None);

    let new = bench.send(address, 1).await?;
    let ended = tokio::time::timeout(PATIENCE, old).await??;
    let ended = ended.expect_err("another connection has the right to write now");
    assert!(ended.is_retryable(), "{ended}");
    assert!(
        new.progress.bytes_equal >= MIB,
        "it goes on where the other was"
    );
    assert!(server.status().borrow().is_complete());
    bench.check_targets()?;
    Ok(())
}

async fn only_the_source_gets_through_though_the_runs_authority_signs_for_others(
    transport: Kind,
) -> anyhow::Result<()> {
    let bench = Bench::new(transport, &[&noise(MIB, 9)])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    for identity in [&bench.worker_identity, &bench.server_identity] {
        // Its ticket is a good one.
        let other = SendConfig {
            identity: identity.clone(),
            ..bench.config(address, 1, None)
        };
        let progress = watch::channel(SendProgress::default()).0;
        let refused = send(other, CancellationToken::new(), progress).await;
        assert!(refused.is_err(), "it is not the source");
        assert_eq!(durable(&server.status().borrow()), 0);
    }
    bench.send(address, 1).await?;
    Ok(())
}

/// Over QUIC, TLS itself insists on it.
#[tokio::test]
async fn a_sender_that_names_no_protocol_is_not_heard_over_tcp() -> anyhow::Result<()> {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let bench = Bench::new(Kind::Tcp, &[&noise(MIB, 9)])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;
    let agent = &bench.agent_identity;
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(&agent.authority_pem)?)?;
    let mut tls = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![certificate(&agent.certificate_pem)?],
            PrivateKeyDer::from_pem_slice(agent.key_pem.as_bytes())?,
        )?;
    for (alpn, is_heard) in [(vec![], false), (vec![transport::ALPN.to_vec()], true)] {
        tls.alpn_protocols = alpn;
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls.clone()));
        let stream = tokio::net::TcpStream::connect(address).await?;
        let name = ServerName::try_from("receiver")?;
        let mut stream = connector.connect(name, stream).await?;
        // A control stream that begins with another message than Hello: whoever is heard is told so.
        let sent = transfer::protocol::encode_control(&transfer::protocol::ToReceiver::Sent {
            streams: 0,
            disks: Vec::new(),
        });
        let header = transfer::protocol::control_header(&sent);
        let message = [&[0; 1 + 16], header.as_slice(), &sent].concat();
        stream.write_all(&message).await?;
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await?;
        assert_eq!(read.is_ok_and(|read| read > 0), is_heard);
    }
    Ok(())
}

async fn strangers_and_wrong_disks_are_refused(transport: Kind) -> anyhow::Result<()> {
    let bench = Bench::new(transport, &[&noise(MIB, 8)])?;
    let (server, address) = bench.server()?;
    server.admit(bench.admission(1)).await?;

    let other = Bench::new(transport, &[&noise(MIB, 8)])?;
    let stranger = SendConfig {
        identity: other.agent_identity.clone(),
        ..bench.config(address, 1, None)
    };
    let refused = send(
        stranger,
        CancellationToken::new(),
        watch::channel(SendProgress::default()).0,
    )
    .await;
    assert!(refused.is_err(), "another run's certificate");

    let forged = SendConfig {
        ticket: other.config(address, 1, None).ticket,
        ..bench.config(address, 1, None)
    };
    let refused = send(
        forged,
        CancellationToken::new(),
        watch::channel(SendProgress::default()).0,
    )
    .await;
    assert_eq!(
        refused.expect_err("another run's ticket").code(),
        FailureCode::ReceiverUnreachable
    );

    std::fs::File::options()
        .write(true)
        .open(&bench.disks[0].0)?
        .set_len(2 * MIB)?;
    let grown = bench
        .send(address, 1)
        .await
        .expect_err("the disk has grown");
    assert_eq!(grown.code(), FailureCode::SourceDiskChanged);
    assert!(
        grown.to_string().contains(&(2 * MIB).to_string()),
        "{grown}"
    );

    std::fs::remove_file(&bench.disks[0].0)?;
    let gone = bench.send(address, 1).await.expect_err("the disk is gone");
    assert_eq!(gone.code(), FailureCode::SourceDiskUnreadable);
    Ok(())
}
