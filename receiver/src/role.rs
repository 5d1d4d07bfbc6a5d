//! The receiver's process.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use domain::Epoch;
use prost::Message as _;
use proto::receiver::receiver_service_server::ReceiverServiceServer;
use proto::receiver::{CONTROL_SOCKET, InstanceReady};
use rustix::fs::{FlockOperation, flock};
use service::health::Condition;
use service::{Readiness, Shutdown, TaskGroup, health, local_socket};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use transfer::disk::Reserve;
use transfer::receiver::{Server, ServerConfig};

use crate::control::{Control, only_the_worker};
use crate::image::Builder;
use crate::instance::Instance;
use crate::{Config, Error};

/// Time that calls in progress have to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the receiver of a directory until it is asked to end; then it flushes.
///
/// # Errors
/// The directory is no instance's, is locked, or its fence is higher; a listener can't be opened.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), Error> {
    let readiness = Readiness::new();
    let ready = readiness.condition("receiver");
    health::shown(
        config.health,
        readiness,
        &shutdown,
        Box::pin(receive(&config, &shutdown, ready)),
    )
    .await
}

async fn receive(config: &Config, shutdown: &Shutdown, ready: Condition) -> Result<(), Error> {
    // Held until the process ends, however it ends.
    let _lock = lock(&config.dir)?;
    let instance = Instance::read(&config.dir)?;
    let reserve = Reserve::of_mib(config.reserve_mib);
    let server = Server::bind(ServerConfig {
        reserve,
        ..ServerConfig::new(
            SocketAddr::new(instance.listen, 0),
            instance.identity.clone(),
            instance.work.source_id.as_str(),
            config.dir.clone(),
        )
    })?;
    let (epoch, fence) = (instance.work.admission.epoch, server.epoch());
    if epoch < fence {
        return Err(Error::Fenced {
            path: config.dir.clone(),
            epoch,
            fence,
        });
    }
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(
            &instance.identity.certificate_pem,
            &instance.identity.key_pem,
        ))
        .client_ca_root(Certificate::from_pem(&instance.identity.authority_pem));
    let builder = Builder::new(instance.image_store, config.qemu_img.clone(), reserve);
    let control = Control::new(server, builder, instance.work);
    let listener = local_socket::bind(&config.dir, CONTROL_SOCKET).map_err(|source| Error::Io {
        doing: "listen for the worker",
        source,
    })?;
    let service = ReceiverServiceServer::with_interceptor(control.clone(), only_the_worker);
    let router = tonic::transport::Server::builder()
        .tls_config(tls)
        .map_err(Error::Control)?
        .add_service(service);

    let tasks = TaskGroup::new(shutdown.clone());
    let ending = shutdown.clone();
    tasks.start_once("control", async move {
        let incoming = UnixListenerStream::new(listener);
        router
            .serve_with_incoming_shutdown(incoming, async move { ending.draining().await })
            .await
    });
    write_ready(&config.dir, epoch)?;
    ready.set(true);
    tracing::info!(instance_id = instance.id, %epoch, "the receiver is ready");
    let ended = tasks.join(DRAIN_TIMEOUT).await;
    control.halt_for_good().await;
    Ok(ended?)
}

fn lock(directory: &Path) -> Result<File, Error> {
    let no_instance = |source| Error::NoInstance {
        path: directory.to_owned(),
        source,
    };
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(directory.join("lock"))
        .map_err(no_instance)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| Error::Locked {
        path: directory.to_owned(),
    })?;
    // A process that must end this one finds it by its lock.
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(|source| Error::Io {
            doing: "write down who holds the lock of the instance",
            source,
        })?;
    Ok(file)
}

/// Writes `ready` under another name and renames it, so that a reader always finds it complete.
fn write_ready(directory: &Path, epoch: Epoch) -> Result<(), Error> {
    let ready = InstanceReady {
        epoch: epoch.0,
        pid: std::process::id(),
    };
    let new = directory.join("ready.new");
    std::fs::write(&new, ready.encode_to_vec())
        .and_then(|()| std::fs::rename(&new, directory.join("ready")))
        .map_err(|source| Error::Io {
            doing: "say that the receiver is ready",
            source,
        })
}
