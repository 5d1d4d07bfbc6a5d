//! Providers create and destroy instances.

mod cgroup;
#[cfg(test)]
mod conformance;
mod process;

use std::net::SocketAddr;
use std::path::PathBuf;

use domain::{Epoch, InstanceId};
use proto::receiver::Work;

pub(crate) use cgroup::Cgroups;
pub(crate) use process::{Limits, ProcessProvider};

/// The properties of an instance to create.
#[derive(Debug, Clone)]
pub(crate) struct InstanceSpec {
    pub(crate) id: InstanceId,
    pub(crate) epoch: Epoch,
    /// Certificate of the run's authority, and the receiver's own certificate and key, as PEM.
    pub(crate) authority_pem: String,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
    /// The disks that its receiver receives, and the image that it makes.
    pub(crate) work: Work,
}

impl InstanceSpec {
    /// Returns the bytes of the largest disk: no file of the instance may grow beyond it.
    pub(crate) fn largest_disk_bytes(&self) -> u64 {
        let disks = self.work.disks.iter();
        disks.map(|disk| disk.target_size_bytes).max().unwrap_or(0)
    }
}

/// Address at which a worker calls its receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ControlAddress {
    /// A Unix socket of this machine.
    Socket(PathBuf),
    /// An address that agents must not reach.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for instances that are machines of their own")
    )]
    Tcp(SocketAddr),
}

/// An instance could not be created, parked or destroyed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderError {
    #[error("can't {doing} {path}: {source}")]
    File {
        doing: &'static str,
        path: String,
        source: std::io::Error,
    },
    #[error("can't start the receiver {program}: {source}")]
    Start {
        program: String,
        source: std::io::Error,
    },
    #[error("the receiver ended before it was ready: {log}")]
    Ended { log: String },
    #[error("the receiver was not ready in time: {log}")]
    NotReady { log: String },
    #[error("epoch {epoch} is over: the instance belongs to epoch {owner}")]
    Fenced { epoch: Epoch, owner: Epoch },
    #[error("an older receiver of this instance can't be ended (process {pid})")]
    Stuck { pid: i32 },
}

/// State of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstanceState {
    /// It does not exist.
    Absent,
    /// Its data exists, and no process runs in it.
    Parked,
    /// Its receiver runs.
    Running,
}

/// Few verbs, each safe to repeat, each refused to an epoch below that of the last [`Provider::create`]. An instance's
/// data survives [`Provider::park`] and a new [`Provider::create`]; only [`Provider::destroy`] removes it.
#[tonic::async_trait]
pub(crate) trait Provider: std::fmt::Debug + Send + Sync {
    /// Returns the provider's name, as rows have it.
    fn name(&self) -> &'static str;

    /// Returns the host of its instances, as rows have it.
    fn host(&self) -> String;

    /// Creates the instance, or takes it over: first, the processes of an earlier epoch are ended. Returns the address
    /// at which the worker calls its receiver.
    async fn create(&self, spec: &InstanceSpec) -> Result<ControlAddress, ProviderError>;

    /// Returns the state of the instance.
    async fn describe(&self, id: &InstanceId) -> InstanceState;

    /// Ends the instance's processes and keeps its data.
    async fn park(&self, id: &InstanceId, epoch: Epoch) -> Result<(), ProviderError>;

    /// Ends and removes the instance.
    async fn destroy(&self, id: &InstanceId, epoch: Epoch) -> Result<(), ProviderError>;

    /// Returns every instance that exists at [`Provider::host`], which is their owner: all workers with that host find
    /// the same instances.
    async fn list(&self) -> Result<Vec<InstanceId>, ProviderError>;
}
