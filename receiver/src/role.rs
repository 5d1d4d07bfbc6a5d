//! The receiver's process.

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use domain::Epoch;
use prost::Message as _;
use proto::receiver::receiver_service_server::ReceiverServiceServer;
use proto::receiver::{InstanceConfig, InstanceReady};
use rustix::fs::{FlockOperation, flock};
use service::health::Condition;
use service::{Readiness, Shutdown, TaskGroup, health};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use transfer::receiver::{Server, ServerConfig};

use crate::control::Control;
use crate::image::Builder;
use crate::{Config, Error};

/// Time that calls under way have to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the receiver of a directory until it is told to end; then it flushes.
///
/// # Errors
/// The directory is no instance's, is locked, or its fence stands higher; a listener can't be opened.
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
    // Held until the process ends, whatever ends it.
    let _lock = lock(&config.dir)?;
    let instance = read_instance(&config.dir)?;
    let malformed = |what: String| Error::Malformed {
        path: config.dir.clone(),
        what,
    };
    let ip: IpAddr = instance
        .listen_ip
        .parse()
        .map_err(|_| malformed(format!("{:?} is no address", instance.listen_ip)))?;
    let identity = transfer::Identity {
        authority_pem: instance.authority_pem.clone(),
        certificate_pem: instance.certificate_pem.clone(),
        key_pem: instance.key_pem.clone(),
    };
    let server = Server::bind(ServerConfig::new(
        SocketAddr::new(ip, 0),
        identity,
        config.dir.clone(),
    ))?;
    let (epoch, fence) = (Epoch(instance.epoch), server.epoch());
    if epoch < fence {
        return Err(Error::Fenced {
            path: config.dir.clone(),
            epoch,
            fence,
        });
    }
    let builder = Builder::new(instance.image_store.clone().into(), config.qemu_img.clone());
    let control = Control::new(server, builder);

    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(
            &instance.certificate_pem,
            &instance.key_pem,
        ))
        .client_ca_root(Certificate::from_pem(&instance.authority_pem));
    let listener = tokio::net::TcpListener::bind(SocketAddr::new(ip, 0))
        .await
        .map_err(|source| Error::Io {
            doing: "listen for the worker",
            source,
        })?;
    let port = listener
        .local_addr()
        .map_err(|source| Error::Io {
            doing: "listen for the worker",
            source,
        })?
        .port();
    let service = ReceiverServiceServer::new(control.clone());
    let router = tonic::transport::Server::builder()
        .tls_config(tls)
        .map_err(Error::Control)?
        .add_service(service);

    let tasks = TaskGroup::new(shutdown.clone());
    let ending = shutdown.clone();
    tasks.start_once("control", async move {
        let incoming = TcpListenerStream::new(listener);
        router
            .serve_with_incoming_shutdown(incoming, async move { ending.draining().await })
            .await
    });
    write_ready(&config.dir, epoch, port)?;
    ready.set(true);
    tracing::info!(instance_id = instance.instance_id, %epoch, "the receiver is ready");
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
        .open(directory.join("lock"))
        .map_err(no_instance)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| Error::Locked {
        path: directory.to_owned(),
    })?;
    // Whoever has to end this process finds it by its lock.
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(|source| Error::Io {
            doing: "write down who holds the lock of the instance",
            source,
        })?;
    Ok(file)
}

fn read_instance(directory: &Path) -> Result<InstanceConfig, Error> {
    let bytes = std::fs::read(directory.join("instance")).map_err(|source| Error::NoInstance {
        path: directory.to_owned(),
        source,
    })?;
    InstanceConfig::decode(bytes.as_slice()).map_err(|error| Error::Malformed {
        path: directory.to_owned(),
        what: error.to_string(),
    })
}

/// Written under another name first: whoever sees the file sees all of it.
fn write_ready(directory: &Path, epoch: Epoch, port: u16) -> Result<(), Error> {
    let ready = InstanceReady {
        epoch: epoch.0,
        pid: std::process::id(),
        control_port: port.into(),
    };
    let new = directory.join("ready.new");
    std::fs::write(&new, ready.encode_to_vec())
        .and_then(|()| std::fs::rename(&new, directory.join("ready")))
        .map_err(|source| Error::Io {
            doing: "say that the receiver is ready",
            source,
        })
}
