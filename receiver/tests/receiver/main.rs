//! A receiver as its worker and its agent see it: gRPC on one side, QUIC on the other, and an image at the end.

mod walls;

use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use domain::disk::DiskIndex;
use domain::parameters::{BadSectors, Consistency, FreeSpace};
use domain::{Epoch, ImageId, InstanceId, JobId, Run};
use hyper_util::rt::TokioIo;
use pki::Authority;
use prost::Message as _;
use proto::receiver as wire;
use proto::receiver::image_status::State;
use proto::receiver::receiver_service_client::ReceiverServiceClient;
use receiver::{Config, Error, ImageDescription};
use service::Shutdown;
use source::faulty::{Faults, FaultySources};
use source::{Files, Sources};
use testkit::cluster::disk;
use testkit::wait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use transfer::sender::{Compression, Preference, SendConfig, SendProgress, SourceDisk};
use transfer::{Ticket, TicketSecret};

const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// The source whose agent may send.
const SOURCE: &str = "s-web";

/// A run: its authority, its ticket's secret, its directories, and a disk to send.
struct Bench {
    authority: Authority,
    secret: TicketSecret,
    job_id: JobId,
    /// The image id that the worker has fixed for the run.
    image_id: ImageId,
    source_bytes: u64,
    target_bytes: u64,
    health: Option<SocketAddr>,
    /// Opens the source's disk, whose bad sectors are sent as zeros.
    sources: Arc<dyn Sources>,
    directory: tempfile::TempDir,
}

/// A running receiver.
struct Running {
    client: ReceiverServiceClient<Channel>,
    shutdown: Shutdown,
    role: JoinHandle<Result<(), Error>>,
}

impl Bench {
    fn new(source_bytes: u64) -> Self {
        let _installed_by_another_test = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        for name in ["instance", "images"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let bench = Self {
            authority: Authority::generate("run", pki::RUN_VALIDITY).unwrap(),
            secret: TicketSecret::generate(),
            job_id: JobId::generate(),
            image_id: ImageId::generate(),
            source_bytes,
            target_bytes: source_bytes.next_multiple_of(MIB) + MIB,
            health: None,
            sources: Arc::new(Files),
            directory,
        };
        disk::make(&bench.source(), source_bytes, 7).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn source(&self) -> PathBuf {
        self.path("source-0")
    }

    /// Starts a receiver over the instance's directory, as a provider does.
    fn start(&self, epoch: i64, qemu_img: &str) -> (Shutdown, JoinHandle<Result<(), Error>>) {
        let identity = self
            .authority
            .issue_server(&["receiver".to_owned()])
            .unwrap();
        let instance = wire::InstanceConfig {
            instance_id: InstanceId::generate().to_string(),
            epoch,
            authority_pem: self.authority.certificate_pem().to_owned(),
            certificate_pem: identity.certificate_pem,
            key_pem: identity.key_pem,
            listen_ip: "127.0.0.1".to_owned(),
            image_store: self.path("images").display().to_string(),
            work: Some(self.work()),
        };
        std::fs::write(self.path("instance/instance"), instance.encode_to_vec()).unwrap();
        let _none_yet = std::fs::remove_file(self.path("instance/ready"));
        let config = Config {
            reserve_mib: Some(0),
            dir: self.path("instance"),
            qemu_img: qemu_img.into(),
            health: self.health,
        };
        let shutdown = Shutdown::new();
        let role = tokio::spawn(receiver::run(config, shutdown.clone()));
        (shutdown, role)
    }

    /// Starts a receiver and waits until it reports that it is ready.
    async fn run(&self, epoch: i64, qemu_img: &str) -> Running {
        let (shutdown, role) = self.start(epoch, qemu_img);
        wait::until(PATIENCE, "the receiver is ready", async || {
            Ok(self.path("instance/ready").exists())
        })
        .await
        .unwrap();
        let worker = self.authority.issue_client(wire::CONTROL_NAME).unwrap();
        Running {
            client: ReceiverServiceClient::new(self.channel(Some(worker))),
            shutdown,
            role,
        }
    }

    /// Returns a channel to the receiver's socket, with or without a certificate.
    fn channel(&self, identity: Option<pki::Identity>) -> Channel {
        let tls = match identity {
            Some(pki::Identity {
                certificate_pem,
                key_pem,
            }) => self
                .tls()
                .identity(Identity::from_pem(certificate_pem, key_pem)),
            None => self.tls(),
        };
        let path = self.path("instance").join(wire::CONTROL_SOCKET);
        let endpoint = Endpoint::from_static("https://receiver").tls_config(tls);
        endpoint
            .unwrap()
            .connect_with_connector_lazy(tower::service_fn(move |_| {
                let path = path.clone();
                async move {
                    service::local_socket::connect(&path)
                        .await
                        .map(TokioIo::new)
                }
            }))
    }

    fn tls(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.authority.certificate_pem()))
            .domain_name("receiver")
    }

    fn work(&self) -> wire::Work {
        wire::Work {
            job_id: self.job_id.to_string(),
            run: 1,
            source_id: SOURCE.to_owned(),
            image_id: self.image_id.to_string(),
            image_name: "web".to_owned(),
            disks: vec![wire::TargetDisk {
                index: 0,
                source_size_bytes: self.source_bytes,
                target_size_bytes: self.target_bytes,
                logical_sector_bytes: Some(512),
                physical_sector_bytes: Some(4096),
                partition_table: "gpt".to_owned(),
            }],
            ticket_secret: self.secret.as_bytes().to_vec(),
            checksum: true,
        }
    }

    /// Admits the agent and sends the disk.
    async fn copy(&self, running: &mut Running, epoch: i64) -> SendProgress {
        let admitted = running
            .client
            .admit(wire::AdmitRequest { epoch })
            .await
            .unwrap();
        let port = u16::try_from(admitted.into_inner().data_port).unwrap();
        let agent = self.authority.issue_client(SOURCE).unwrap();
        let ticket = Ticket {
            job_id: self.job_id.clone(),
            run: Run(1),
            epoch: Epoch(epoch),
            expires_unix_secs: i64::MAX,
        };
        let config = SendConfig {
            receiver: ([127, 0, 0, 1], port).into(),
            server_name: "receiver".to_owned(),
            transport: Preference::Probe { failed: None },
            identity: transport::Identity {
                authority_pem: self.authority.certificate_pem().to_owned(),
                certificate_pem: agent.certificate_pem,
                key_pem: agent.key_pem,
            },
            ticket: ticket.sign(&self.secret),
            disks: vec![SourceDisk {
                index: DiskIndex(0),
                path: self.source(),
                size_bytes: self.source_bytes,
                free_space: FreeSpace::Copy,
                candidates: transfer::plan::Candidates::All,
            }],
            sources: Arc::clone(&self.sources),
            change_tracking: true,
            bad_sectors: BadSectors::Zero,
            consistency: Consistency::Crash,
            ends_at_a_write: false,
            compression: Compression::Auto,
            streams: 2,
            connections: 1,
            bandwidth_limit: watch::channel(None).1,
            shared_limit: None,
            scratch: std::env::temp_dir(),
        };
        let progress = watch::channel(SendProgress::default()).0;
        let sending = transfer::sender::send(config, CancellationToken::new(), progress);
        let report = tokio::time::timeout(PATIENCE, sending).await;
        report.expect("a few MiB are sent soon").unwrap().progress
    }

    /// Orders the image and waits until it is stored or has failed.
    async fn build(&self, running: &mut Running, epoch: i64) -> wire::StatusResponse {
        let order = wire::BuildImageRequest { epoch };
        running.client.build_image(order).await.unwrap();
        wait::some(PATIENCE, "the image is made or failed", async || {
            let status = running.status(epoch).await;
            let state = status.image.clone().unwrap_or_default().state();
            Ok(matches!(state, State::Stored | State::Failed).then_some(status))
        })
        .await
        .unwrap()
    }

    /// Checks that every file of the image holds the source's bytes, then zeros.
    fn check_image(&self, location: &Path, image: &ImageDescription) {
        let [described] = image.disks.as_slice() else {
            panic!("one disk was sent: {image:?}")
        };
        assert_eq!(described.size_bytes, self.target_bytes);
        let layout = &described.layout;
        let sectors = (layout.logical_sector_bytes, layout.physical_sector_bytes);
        assert_eq!(sectors, (Some(512), Some(4096)));
        assert_eq!(layout.partition_table.as_deref(), Some("gpt"));
        let raw = location.join(&described.raw);
        disk::check_equal(&self.source(), &raw, self.target_bytes).unwrap();
        let unpacked = self.path("unpacked");
        let qcow2 = location.join(&described.qcow2);
        let converted = Command::new("qemu-img")
            .args(["convert", "-f", "qcow2", "-O", "raw"])
            .args([&qcow2, &unpacked])
            .status()
            .unwrap();
        assert!(converted.success());
        disk::check_equal(&self.source(), &unpacked, self.target_bytes).unwrap();
        let manifest = location.join(&described.manifest);
        let head = transfer::manifest::verify(&raw, &manifest).unwrap();
        assert_eq!(head.root_hex(), described.root_hash);
    }
}

impl Running {
    async fn status(&self, epoch: i64) -> wire::StatusResponse {
        let request = wire::StatusRequest { epoch };
        self.client
            .clone()
            .status(request)
            .await
            .unwrap()
            .into_inner()
    }

    async fn stop(self) {
        self.shutdown.drain();
        let ended = tokio::time::timeout(PATIENCE, self.role).await;
        ended.expect("the receiver ends").unwrap().unwrap();
    }
}

fn described(status: &wire::StatusResponse) -> (PathBuf, ImageDescription) {
    let image = status.image.clone().unwrap();
    let description = serde_json::from_str(&image.description).unwrap();
    (image.location.into(), description)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_arrives_and_becomes_an_image_with_the_same_bytes() {
    let bench = Bench::new(9 * MIB + 512);
    let mut running = bench.run(1, "qemu-img").await;
    bench.copy(&mut running, 1).await;
    let status = running.status(1).await;
    let receipt = status.disks[0]
        .receipt
        .clone()
        .expect("a receipt for the disk");
    assert_eq!(receipt.size_bytes, bench.source_bytes);
    assert_eq!(status.disks[0].bytes_durable, bench.source_bytes);

    let status = bench.build(&mut running, 1).await;
    assert_eq!(status.failure, None);
    let (location, image) = described(&status);
    assert_eq!(location, bench.path("images").join(bench.image_id.as_str()));
    assert_eq!(
        (image.image_id.as_str(), image.name.as_str()),
        (bench.image_id.as_str(), "web")
    );
    bench.check_image(&location, &image);
    assert!(
        !bench
            .path(&format!("images/{}.partial", bench.image_id))
            .exists()
    );
    running.stop().await;
    bench.check_image(&location, &image);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_says_what_its_source_could_not_read() {
    let mut bench = Bench::new(3 * MIB);
    let content: Vec<u8> = (0..3 * MIB).map(|at| (at % 251) as u8 + 1).collect();
    std::fs::write(bench.source(), content).unwrap();
    let faults = Faults::new(512);
    faults.lose(MIB + 512..MIB + 1024);
    faults.lose(2 * MIB + 1..2 * MIB + 2);
    bench.sources = Arc::new(FaultySources(vec![faults]));
    let mut running = bench.run(1, "qemu-img").await;
    bench.copy(&mut running, 1).await;
    let status = bench.build(&mut running, 1).await;
    let disk = &status.disks[0];
    assert_eq!((disk.unreadable_ranges, disk.unreadable_bytes), (2, 1024));
    let (location, image) = described(&status);
    let disk = &image.disks[0];
    assert_eq!((disk.unreadable_ranges, disk.unreadable_bytes), (2, 1024));
    let (raw, manifest) = (location.join(&disk.raw), location.join(&disk.manifest));
    let head = transfer::manifest::verify(&raw, &manifest).unwrap();
    assert_eq!(chunks::unreadable::bytes(&head.unreadable), 1024);
    // All other bytes are the source's.
    let source = std::fs::OpenOptions::new().write(true).open(bench.source());
    let source = source.unwrap();
    for range in &head.unreadable {
        source.write_all_at(&[0; 512], range.start).unwrap();
    }
    bench.check_image(&location, &image);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_health_is_shown_for_as_long_as_it_runs() {
    let mut bench = Bench::new(MIB);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    bench.health = Some(address);
    let running = bench.run(1, "qemu-img").await;
    let ready = wait::some(PATIENCE, "the receiver takes orders", async || {
        let answer = get(address, "/readyz").await?;
        Ok(answer.starts_with("HTTP/1.0 200").then_some(answer))
    });
    ready.await.unwrap();
    let metrics = get(address, "/metrics").await.unwrap();
    assert!(metrics.starts_with("HTTP/1.0 200"), "{metrics}");
    running.stop().await;
    get(address, "/healthz").await.unwrap_err();
}

async fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_receiver_goes_on_with_what_is_there_and_finds_the_image() {
    let bench = Bench::new(8 * MIB);
    let mut first = bench.run(1, "qemu-img").await;
    bench.copy(&mut first, 1).await;
    let (_, made) = described(&bench.build(&mut first, 1).await);
    first.stop().await;

    let mut second = bench.run(2, "qemu-img").await;
    let again = bench.copy(&mut second, 2).await;
    assert_eq!(again.bytes_payload, 0, "what is there is not sent again");
    let status = bench.build(&mut second, 2).await;
    assert_eq!(
        described(&status).1,
        made,
        "the image is found, not made again"
    );
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_disks_that_have_changed_since_is_made_again() {
    use std::os::unix::fs::FileExt as _;

    let bench = Bench::new(8 * MIB);
    let mut first = bench.run(1, "qemu-img").await;
    bench.copy(&mut first, 1).await;
    let (_, made) = described(&bench.build(&mut first, 1).await);
    first.stop().await;

    // The worker died before it could report the image, and the source kept running.
    let source = std::fs::File::options()
        .write(true)
        .open(bench.source())
        .unwrap();
    source.write_all_at(b"written since", 3 * MIB).unwrap();
    let mut second = bench.run(2, "qemu-img").await;
    bench.copy(&mut second, 2).await;
    let status = bench.build(&mut second, 2).await;
    let (location, image) = described(&status);
    assert_ne!(image.disks[0].root_hash, made.disks[0].root_hash);
    bench.check_image(&location, &image);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_is_over_is_refused_by_every_call_and_can_start_nothing() {
    let bench = Bench::new(MIB);
    let mut running = bench.run(5, "qemu-img").await;
    running
        .client
        .admit(wire::AdmitRequest { epoch: 5 })
        .await
        .unwrap();
    let client = &mut running.client;
    let codes = [
        client
            .admit(wire::AdmitRequest { epoch: 4 })
            .await
            .unwrap_err()
            .code(),
        client
            .status(wire::StatusRequest { epoch: 4 })
            .await
            .unwrap_err()
            .code(),
        client
            .halt(wire::HaltRequest { epoch: 4 })
            .await
            .unwrap_err()
            .code(),
        client
            .build_image(wire::BuildImageRequest { epoch: 4 })
            .await
            .unwrap_err()
            .code(),
    ];
    assert_eq!(codes, [Code::FailedPrecondition; 4]);
    let (_, second) = bench.start(5, "qemu-img");
    let error = second.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    running.stop().await;

    let (_, stale) = bench.start(4, "qemu-img");
    let error = stale.await.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            Error::Fenced {
                epoch: Epoch(4),
                fence: Epoch(5),
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_receipt_for_every_disk_there_is_no_image() {
    let bench = Bench::new(4 * MIB);
    let mut running = bench.run(1, "qemu-img").await;
    running
        .client
        .admit(wire::AdmitRequest { epoch: 1 })
        .await
        .unwrap();
    let order = wire::BuildImageRequest { epoch: 1 };
    let refused = running.client.build_image(order).await.unwrap_err();
    assert_eq!(refused.message(), "not every disk has its receipt");
    assert_eq!(std::fs::read_dir(bench.path("images")).unwrap().count(), 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_qemu_img_the_failure_says_so_and_names_no_program_of_the_host() {
    let bench = Bench::new(MIB);
    let mut running = bench.run(1, "no-such-qemu-img").await;
    bench.copy(&mut running, 1).await;
    let status = bench.build(&mut running, 1).await;
    let failure = status.failure.unwrap();
    assert_eq!(failure.code, domain::FailureCode::ImageFailed.as_str());
    assert!(
        failure.message.contains("can't be run") && !failure.message.contains("no-such-qemu-img"),
        "{}",
        failure.message
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fills_while_the_image_is_made_is_named_and_nothing_is_left_in_it() {
    use std::os::unix::fs::PermissionsExt as _;

    let bench = Bench::new(MIB);
    let full = bench.path("qemu-img-on-a-full-disk");
    let script = "#!/bin/sh\nfor to; do :; done\nhead -c 65536 /dev/zero > \"$to\"\n\
                  echo 'qemu-img: error while writing at byte 65536: No space left on device' >&2\nexit 1\n";
    std::fs::write(&full, script).unwrap();
    std::fs::set_permissions(&full, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut running = bench.run(1, full.to_str().unwrap()).await;
    bench.copy(&mut running, 1).await;
    let status = bench.build(&mut running, 1).await;
    let failure = status.failure.unwrap();
    assert_eq!(failure.code, domain::FailureCode::TargetFull.as_str());
    assert!(
        failure.message.contains("the image store became full"),
        "{}",
        failure.message
    );
    assert_eq!(std::fs::read_dir(bench.path("images")).unwrap().count(), 0);
    running.stop().await;
}

/// A small in-memory file system over a directory; `None` for an account that may not mount.
struct SmallStore(PathBuf);

impl SmallStore {
    fn over(path: PathBuf, mebibytes: u64) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(&path)
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self(path))
    }
}

impl Drop for SmallStore {
    fn drop(&mut self) {
        let _kept_until_the_machine_restarts = Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_attempt_left_in_the_store_is_room_for_the_next_one() {
    let bench = Bench::new(4 * MIB);
    let Some(store) = SmallStore::over(bench.path("images"), 100) else {
        println!("not run: only root may mount a small file system");
        return;
    };
    let mut running = bench.run(1, "qemu-img").await;
    bench.copy(&mut running, 1).await;
    let left = store.0.join(format!("{}.partial", bench.image_id));
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("disk-0.qcow2"), vec![1; 60 << 20]).unwrap();
    let status = bench.build(&mut running, 1).await;
    assert_eq!(status.failure, None);
    let (location, image) = described(&status);
    bench.check_image(&location, &image);
    running.stop().await;
}
