//! Rules that every provider must follow, checked with a real receiver in each instance.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::{Epoch, ImageId, InstanceId, JobId, SourceId};
use pki::Authority;
use proto::receiver as wire;
use transfer::TicketSecret;

use super::{
    ControlAddress, InstanceSpec, InstanceState, Limits, ProcessProvider, Provider, ProviderError,
};
use crate::receiver_client::{CallError, RECEIVER_NAME, ReceiverClient};

const PATIENCE: Duration = Duration::from_secs(60);
const DISK_BYTES: u64 = 4 << 20;
const LIMITS: Limits = Limits {
    memory_bytes: None,
    open_files: 512,
    core_bytes: 0,
};

/// A provider, and one run that uses it.
struct Bench {
    provider: Arc<dyn Provider>,
    authority: Authority,
    id: InstanceId,
    /// Directory of the instances, for inspection only.
    root: PathBuf,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn process() -> Self {
        let _installed_by_another_test = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("instances");
        let image_store = directory.path().join("images");
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(&image_store).unwrap();
        Self {
            provider: Arc::new(ProcessProvider {
                root: root.clone(),
                program: receiver_program(),
                image_store,
                listen: [127, 0, 0, 1].into(),
                start_timeout: PATIENCE,
                park_timeout: PATIENCE,
                limits: LIMITS,
                cgroups: None,
                reserve_mib: Some(0),
            }),
            authority: Authority::generate("run", pki::RUN_VALIDITY).unwrap(),
            id: InstanceId::generate(),
            root,
            _directory: directory,
        }
    }

    fn spec(&self, epoch: i64) -> InstanceSpec {
        let server = self
            .authority
            .issue_server(&[RECEIVER_NAME.to_owned()])
            .unwrap();
        InstanceSpec {
            id: self.id.clone(),
            epoch: Epoch(epoch),
            authority_pem: self.authority.certificate_pem().to_owned(),
            certificate_pem: server.certificate_pem,
            key_pem: server.key_pem,
            work: wire::Work {
                job_id: JobId::generate().to_string(),
                run: 1,
                source_id: SourceId::generate().to_string(),
                image_id: ImageId::generate().to_string(),
                image_name: "web".to_owned(),
                disks: vec![wire::TargetDisk {
                    index: 0,
                    source_size_bytes: DISK_BYTES,
                    target_size_bytes: DISK_BYTES,
                    ..wire::TargetDisk::default()
                }],
                ticket_secret: TicketSecret::generate().as_bytes().to_vec(),
                checksum: false,
            },
        }
    }

    /// Returns the process of the instance's receiver.
    fn receiver_pid(&self) -> String {
        let lock = self.root.join(self.id.as_str()).join("lock");
        std::fs::read_to_string(lock).unwrap().trim().to_owned()
    }

    async fn create(&self, epoch: i64) -> Result<ReceiverClient, ProviderError> {
        let address = self.provider.create(&self.spec(epoch)).await?;
        let worker = self.authority.issue_client(wire::CONTROL_NAME).unwrap();
        let authority = self.authority.certificate_pem();
        Ok(ReceiverClient::new(&address, authority, &worker, PATIENCE).unwrap())
    }

    async fn admit(&self, client: &ReceiverClient, epoch: i64) -> Result<(), CallError> {
        client.admit(epoch).await.map(|_| ())
    }

    async fn is_running(&self) -> bool {
        self.provider.describe(&self.id).await == InstanceState::Running
    }

    async fn destroy(&self, epoch: i64) -> Result<(), ProviderError> {
        self.provider.destroy(&self.id, Epoch(epoch)).await
    }
}

/// Returns the path of the example `receiver` of this crate, which is built with its tests.
fn receiver_program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let profile = tests.parent().and_then(Path::parent).unwrap();
    let program = profile.join("examples/receiver");
    assert!(
        program.exists(),
        "{} is missing: build it with `cargo build -p worker --examples`",
        program.display()
    );
    program
}

#[tokio::test]
async fn a_made_instance_answers_its_worker_and_is_gone_once_it_is_destroyed() {
    let bench = Bench::process();
    let client = bench.create(1).await.unwrap();
    bench.admit(&client, 1).await.unwrap();
    let status = client.status(1).await.unwrap();
    assert_eq!(status.disks.len(), 1);
    assert_eq!(
        bench.provider.list().await.unwrap(),
        std::slice::from_ref(&bench.id)
    );
    assert!(bench.is_running().await);

    bench.destroy(1).await.unwrap();
    assert_eq!(
        bench.provider.describe(&bench.id).await,
        InstanceState::Absent
    );
    assert!(bench.provider.list().await.unwrap().is_empty());
    assert!(matches!(client.status(1).await, Err(CallError::Lost(_))));
    bench
        .destroy(1)
        .await
        .expect("destroying twice is destroying once");
}

#[tokio::test]
async fn a_receiver_is_called_at_a_socket_of_its_owner_and_at_no_port() {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

    let bench = Bench::process();
    let address = bench.provider.create(&bench.spec(1)).await.unwrap();
    let instance = bench.root.join(bench.id.as_str());
    assert_eq!(
        address,
        ControlAddress::Socket(instance.join(wire::CONTROL_SOCKET))
    );
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&instance), 0o700);
    let socket = instance.join(wire::CONTROL_SOCKET);
    assert_eq!(mode(&socket), 0o600);
    assert!(socket.metadata().unwrap().file_type().is_socket());
    // The data port and the receiver's own health port.
    assert_eq!(listening_ports(&bench.receiver_pid()), 2);
    bench.destroy(1).await.unwrap();
}

/// Returns the number of TCP ports that a process listens on.
fn listening_ports(pid: &str) -> usize {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let sockets: Vec<String> = links
        .filter_map(|link| {
            let target = std::fs::read_link(link.ok()?.path()).ok()?;
            let inode = target
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let tables =
        ["tcp", "tcp6"].map(|name| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")));
    let lines = tables.iter().flatten().flat_map(|table| table.lines());
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(3) == Some(&"0A"))
        .filter(|fields| {
            fields
                .get(9)
                .is_some_and(|&inode| sockets.iter().any(|of| of == inode))
        })
        .count()
}

#[tokio::test]
async fn what_an_instance_holds_survives_parking_and_another_owner() {
    let bench = Bench::process();
    let client = bench.create(1).await.unwrap();
    bench.admit(&client, 1).await.unwrap();
    let kept = bench.root.join(bench.id.as_str()).join("kept");
    std::fs::write(&kept, b"what was copied").unwrap();

    bench.provider.park(&bench.id, Epoch(1)).await.unwrap();
    assert_eq!(
        bench.provider.describe(&bench.id).await,
        InstanceState::Parked
    );
    let client = bench.create(2).await.unwrap();
    bench.admit(&client, 2).await.unwrap();
    assert_eq!(std::fs::read(&kept).unwrap(), b"what was copied");
    bench.destroy(2).await.unwrap();
}

#[tokio::test]
async fn making_it_again_ends_the_receiver_of_the_earlier_owner() {
    let bench = Bench::process();
    let first = bench.create(1).await.unwrap();
    bench.admit(&first, 1).await.unwrap();
    let second = bench.create(2).await.unwrap();
    bench.admit(&second, 2).await.unwrap();
    // Its own receiver is gone; if the next one is called at the same address, that one answers.
    assert!(matches!(
        first.status(1).await,
        Err(CallError::Lost(_) | CallError::Fenced)
    ));
    assert!(matches!(second.status(1).await, Err(CallError::Fenced)));
    second.status(2).await.expect("the owner is answered");
    // It is no error if the same owner asks twice.
    let third = bench.create(2).await.unwrap();
    bench.admit(&third, 2).await.unwrap();
    bench.destroy(2).await.unwrap();
}

#[tokio::test]
async fn a_stale_owner_can_neither_make_nor_park_nor_destroy() {
    let bench = Bench::process();
    let owner = bench.create(5).await.unwrap();
    bench.admit(&owner, 5).await.unwrap();

    let fenced = |result: Result<(), ProviderError>| {
        matches!(
            result,
            Err(ProviderError::Fenced {
                epoch: Epoch(4),
                owner: Epoch(5)
            })
        )
    };
    assert!(fenced(bench.create(4).await.map(|_| ())));
    assert!(fenced(bench.provider.park(&bench.id, Epoch(4)).await));
    assert!(fenced(bench.destroy(4).await));
    owner
        .status(5)
        .await
        .expect("the owner's receiver never noticed");
    bench.destroy(6).await.unwrap();
}

#[tokio::test]
async fn a_receiver_that_dies_is_noticed_and_replaced_at_the_same_epoch() {
    let bench = Bench::process();
    let client = bench.create(3).await.unwrap();
    bench.admit(&client, 3).await.unwrap();
    let pid = rustix::process::Pid::from_raw(bench.receiver_pid().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    testkit::wait::until(PATIENCE, "the receiver is known to be gone", async || {
        Ok(!bench.is_running().await)
    })
    .await
    .unwrap();
    let client = bench.create(3).await.unwrap();
    bench.admit(&client, 3).await.unwrap();
    bench.destroy(3).await.unwrap();
}

#[tokio::test]
async fn a_program_that_is_no_receiver_is_named_with_what_it_printed() {
    let mut bench = Bench::process();
    let directory = tempfile::tempdir().unwrap();
    bench.provider = Arc::new(ProcessProvider {
        root: directory.path().to_owned(),
        program: "/bin/false".into(),
        image_store: directory.path().to_owned(),
        listen: [127, 0, 0, 1].into(),
        start_timeout: PATIENCE,
        park_timeout: PATIENCE,
        limits: LIMITS,
        cgroups: None,
        reserve_mib: Some(0),
    });
    let error = bench.create(1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the receiver ended before it was ready: it printed nothing"
    );
}

#[tokio::test]
async fn a_receiver_has_its_limits_and_none_of_the_workers_secrets() {
    let bench = Bench::process();
    let client = bench.create(1).await.unwrap();
    bench.admit(&client, 1).await.unwrap();
    let proc = PathBuf::from("/proc").join(bench.receiver_pid());
    let environment = std::fs::read(proc.join("environ")).unwrap();
    let names: Vec<&[u8]> = environment
        .split(|&byte| byte == 0)
        .filter_map(|entry| entry.split(|&byte| byte == b'=').next())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(names.contains(&b"PATH".as_slice()));
    // The environment of the test represents a worker's: cargo has added many variables to it.
    assert!(std::env::vars().any(|(name, _)| name.starts_with("CARGO_")));
    for name in names {
        let name = String::from_utf8_lossy(name);
        assert!(
            super::process::ENVIRONMENT.contains(&name.as_ref()),
            "{name} is none of a receiver's business"
        );
    }
    let limits = std::fs::read_to_string(proc.join("limits")).unwrap();
    for (resource, value) in [
        (
            "Max data size",
            super::process::memory_for(&bench.spec(1).work.disks),
        ),
        ("Max open files", LIMITS.open_files),
        ("Max core file size", LIMITS.core_bytes),
    ] {
        let line = limits.lines().find(|line| line.starts_with(resource));
        let value = value.to_string();
        assert!(
            line.is_some_and(|line| line
                .split_whitespace()
                .filter(|&word| word == value)
                .count()
                == 2),
            "{line:?}"
        );
    }
    bench.destroy(1).await.unwrap();
}
