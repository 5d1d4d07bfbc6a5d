//! A source, a network, a receiver, and somebody who starts both again: what runs under a plan.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::disk::DiskIndex;
use domain::parameters::{BadSectors, Consistency, FreeSpace};
use domain::{Epoch, JobId, Run};
use source::faulty::{Faults, FaultySources};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use transport::{Identity, Kind};

use super::Media;
use super::network::{ADDRESS, Listener, Network};
use super::plan::{CHUNK, Fault, Plan};
use super::{Random, Trace};
use crate::disk::volatile_storage::{Medium, Sync};
use crate::limits::SharedLimit;
use crate::plan::Candidates;
use crate::receiver::{Admission, Server, ServerConfig, TargetDisk};
use crate::sender::{
    Compression, FailedAttempt, Preference, SendConfig, SendProgress, SendReport, SourceDisk,
    send_over,
};
use crate::{Ticket, TicketSecret, TransferError};

/// Zeros behind the source's bytes on the target.
pub(super) const BEHIND: usize = 5000;

/// Bytes of a sector of the source's disks.
pub(super) const SECTOR: u64 = 512;

/// The content of a tracked source until it changes.
const FIRST_CONTENT: u8 = 1;

/// Pauses between attempts of the sender.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Time after which the operator begins again after a failure of the job.
const OPERATOR: Duration = Duration::from_secs(1);

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) trace: Trace,
    pub(super) network: Network,
    pub(super) media: Media,
    pub(super) limit: watch::Sender<Option<u64>>,
    /// Of the source's disks.
    pub(super) faults: Vec<Faults>,
    /// Of the first of them.
    content: u8,
    random: Random,
    agent: Agent,
    server: Option<Server<Listener>>,
    sending: Option<JoinHandle<SendReport>>,
    directory: tempfile::TempDir,
    /// Bytes that the receiver had promised when it last died, by disk.
    promised: Vec<u64>,
}

/// The settings of the sender's process.
#[derive(Clone)]
struct Agent {
    network: Network,
    trace: Trace,
    random: Arc<Mutex<Random>>,
    disks: Vec<SourceDisk>,
    sources: FaultySources,
    bad_sectors: BadSectors,
    consistency: Consistency,
    streams: usize,
    packs: bool,
    limit: watch::Receiver<Option<u64>>,
    shared_limit: Option<SharedLimit>,
    identity: RunIdentity,
    /// The epoch of the assignment, and how many assignments there were.
    epoch: Arc<AtomicI64>,
    assignment: Arc<AtomicI64>,
    /// The failure that ended the job under it, for good.
    failure: Arc<Mutex<Option<String>>>,
}

#[derive(Clone)]
struct RunIdentity {
    job_id: JobId,
    secret: TicketSecret,
}

impl World {
    /// A world at rest: the receiver is admitted, nobody sends.
    pub(super) async fn new(plan: Plan) -> Self {
        let mut random = Random::new(!plan.seed);
        let trace = Trace::new();
        let network = Network::new(plan.shape, random.split(), trace.clone());
        let directory = tempfile::tempdir().unwrap();
        let (limit, limited) = watch::channel(plan.limit);
        let disks = (0_u16..).zip(&plan.disks).map(|(index, content)| {
            let path = directory.path().join(format!("source-{index}"));
            write_sparse(&path, content);
            SourceDisk {
                index: DiskIndex(index),
                path,
                size_bytes: content.len() as u64,
                candidates: Candidates::All,
                free_space: FreeSpace::Copy,
            }
        });
        let faults = plan.unreadable.iter().map(|unreadable| {
            let faults = Faults::new(SECTOR as usize);
            for range in unreadable {
                faults.lose(range.clone());
            }
            if plan.is_tracked {
                faults.has_content(FIRST_CONTENT);
            }
            faults
        });
        let faults: Vec<Faults> = faults.collect();
        let agent = Agent {
            network: network.clone(),
            trace: trace.clone(),
            random: Arc::new(Mutex::new(random.split())),
            disks: disks.collect(),
            sources: FaultySources(faults.clone()),
            bad_sectors: plan.bad_sectors,
            consistency: plan.consistency,
            streams: plan.streams,
            packs: plan.packs,
            limit: limited,
            shared_limit: None,
            identity: RunIdentity {
                job_id: JobId::generate(),
                secret: TicketSecret::generate(),
            },
            epoch: Arc::new(AtomicI64::new(1)),
            assignment: Arc::default(),
            failure: Arc::default(),
        };
        let media = plan
            .disks
            .iter()
            .map(|_| (Medium::default(), Medium::default()));
        let mut world = Self {
            promised: vec![0; plan.disks.len()],
            media: Media(media.collect()),
            plan,
            trace,
            network,
            limit,
            faults,
            content: FIRST_CONTENT,
            random,
            agent,
            server: None,
            sending: None,
            directory,
        };
        world.start_receiver().await.unwrap();
        world
    }

    /// Its sender is one of those who share a limit.
    pub(super) fn share(&mut self, limit: &SharedLimit) {
        self.agent.shared_limit = Some(limit.clone());
    }

    pub(super) fn server(&self) -> &Server<Listener> {
        self.server.as_ref().unwrap()
    }

    /// Starts sending, beside whoever does already.
    pub(super) fn start_sender(&mut self) {
        let agent = self.agent.clone();
        self.sending = Some(tokio::spawn(agent.send_all()));
    }

    /// Changes the first disk of the source, which says so if it can.
    pub(super) fn change_source(&mut self, change: impl FnOnce(&mut [u8])) {
        self.change_source_in_silence(change);
        self.content += 1;
        if self.plan.is_tracked {
            self.faults[0].has_content(self.content);
        }
    }

    /// The same, and the source does not say so.
    pub(super) fn change_source_in_silence(&mut self, change: impl FnOnce(&mut [u8])) {
        change(&mut self.plan.disks[0]);
        write_sparse(&self.agent.disks[0].path, &self.plan.disks[0]);
    }

    pub(super) fn is_sent(&self) -> bool {
        self.sending.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Waits for the receipt, and begins again where the job has failed, for so long.
    pub(super) async fn end(&mut self, patience: Duration) -> Result<SendReport, String> {
        let deadline = Instant::now() + patience;
        while !self.is_sent() {
            if Instant::now() >= deadline {
                return Err(format!("there is no receipt after {patience:?}"));
            }
            self.rest(OPERATOR).await?;
        }
        let sending = self.sending.take().ok_or("nobody sends")?;
        sending.await.map_err(|died| died.to_string())
    }

    /// Lets time pass. Begins again where the job has failed.
    pub(super) async fn rest(&mut self, lasts: Duration) -> Result<(), String> {
        let until = Instant::now() + lasts;
        loop {
            let left = until - Instant::now();
            sleep(left.min(OPERATOR)).await;
            let failure = self
                .server
                .as_ref()
                .and_then(|server| server.status().borrow().failure.clone());
            let of_agent = self.agent.failure.lock().unwrap().take();
            let failure = of_agent.or(failure.map(|failure| failure.message));
            if let Some(failure) = failure {
                if !self.has_failures() {
                    return Err(format!("the job failed for no reason: {failure}"));
                }
                self.begin_epoch().await?;
            }
            if Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// Returns true if the plan has faults that a job may fail of.
    fn has_failures(&self) -> bool {
        let mut faults = self.plan.faults.iter().map(|(_, fault)| fault);
        faults.any(|fault| {
            matches!(
                fault,
                Fault::Flip(_) | Fault::SyncFails { .. } | Fault::WriteFails { .. }
            )
        })
    }

    pub(super) async fn inject(&mut self, fault: &Fault) -> Result<(), String> {
        self.trace.note(|| format!("{fault:?}"));
        match fault {
            Fault::Cut => self.network.cut(),
            Fault::CutAfter(bytes) => self.network.cut_after(*bytes),
            Fault::TearStream(bytes) => self.network.tear_after(*bytes),
            Fault::Partition(lasts) => self.network.partition(*lasts),
            Fault::ReceiverDies {
                silently,
                power_fails,
                back_after,
                is_new_epoch,
            } => {
                if *silently {
                    self.network.silence();
                }
                self.kill_receiver(*power_fails);
                self.rest(*back_after).await?;
                if *is_new_epoch {
                    self.agent.epoch.fetch_add(1, Ordering::Relaxed);
                }
                self.start_receiver().await?;
            }
            Fault::SenderDies {
                silently,
                back_after,
            } => {
                if *silently {
                    self.network.silence();
                }
                if let Some(sending) = self.sending.take() {
                    sending.abort();
                }
                self.rest(*back_after).await?;
                self.start_sender();
            }
            Fault::SecondSender { first_goes_after } => {
                let first = self.sending.take();
                self.start_sender();
                self.rest(*first_goes_after).await?;
                if let Some(first) = first {
                    first.abort();
                }
            }
            Fault::NewEpoch => self.begin_epoch().await?,
            Fault::Limit(limit) => {
                self.limit.send_replace(*limit);
            }
            Fault::Flip(after) => self.network.flip_after(*after),
            Fault::FlipControl(after) => self.network.flip_control_after(*after),
            Fault::SyncFails { disk, in_map } => {
                let (disk, map) = &self.media.0[*disk];
                let medium = if *in_map { map } else { disk };
                medium.next_sync(Sync::Failing);
            }
            Fault::WriteFails { disk, in_map, how } => {
                let (disk, map) = &self.media.0[*disk];
                let medium = if *in_map { map } else { disk };
                medium.next_write(*how);
            }
            Fault::ReadsFail { disk, count } => self.faults[*disk].fail_reads(*count),
            Fault::ShortReads { disk, most_bytes } => self.faults[*disk].read_short(*most_bytes),
        }
        Ok(())
    }

    /// The receiver's process dies, or its machine with it.
    pub(super) fn kill_receiver(&mut self, power_fails: bool) {
        if let Some(server) = self.server.take() {
            let status = server.status().borrow().clone();
            self.promised = status.disks.iter().map(|disk| disk.bytes_durable).collect();
        }
        for medium in self.media.0.iter().flat_map(|(disk, map)| [disk, map]) {
            if power_fails {
                medium.crash(&self.random.fates());
            } else {
                medium.release();
            }
        }
    }

    /// Forgets what the receiver had promised: it was never kept, and may be gone.
    pub(super) fn forget_promises(&mut self) {
        self.promised.fill(0);
    }

    pub(super) async fn start_receiver(&mut self) -> Result<(), String> {
        let identity = nobody();
        let mut config = ServerConfig::new(
            ADDRESS,
            identity,
            "s-simulated",
            self.directory.path().to_owned(),
        );
        config.flush_bytes = self.plan.flush_bytes;
        config.chunk_bytes = CHUNK;
        let media = Box::new(self.media.clone());
        let server = Server::start(config, self.network.listen(), media)
            .map_err(|error| error.to_string())?;
        self.server = Some(server);
        self.admit().await?;
        let status = self.server().status().borrow().clone();
        for (disk, promised) in status.disks.iter().zip(&self.promised) {
            if disk.bytes_durable < *promised {
                return Err(format!(
                    "{promised} bytes of disk {} were promised, {} are left",
                    disk.index, disk.bytes_durable
                ));
            }
        }
        let durable: Vec<u64> = status.disks.iter().map(|disk| disk.bytes_durable).collect();
        self.trace.note(|| format!("the receiver has {durable:?}"));
        Ok(())
    }

    async fn begin_epoch(&mut self) -> Result<(), String> {
        self.agent.epoch.fetch_add(1, Ordering::Relaxed);
        self.admit().await
    }

    /// Admits the agent and tells it; one that has its receipt from an earlier receiver or epoch sends again.
    async fn admit(&mut self) -> Result<(), String> {
        let disks = self.agent.disks.iter().map(|disk| TargetDisk {
            index: disk.index,
            source_bytes: disk.size_bytes,
            target_bytes: disk.size_bytes + BEHIND as u64,
        });
        let identity = self.agent.identity.clone();
        let admission = Admission {
            epoch: Epoch(self.agent.epoch.load(Ordering::Relaxed)),
            job_id: identity.job_id,
            run: Run(1),
            secret: identity.secret,
            disks: disks.collect(),
            checksum: self.plan.checksum,
        };
        // One may meet the sync that fails.
        let mut tries = 0;
        loop {
            let admitted = self.server().admit(admission.clone()).await;
            match admitted {
                Ok(()) => break,
                Err(_) if tries < 2 && self.has_failures() => tries += 1,
                Err(error) => return Err(error.to_string()),
            }
            sleep(OPERATOR).await;
        }
        self.agent.assignment.fetch_add(1, Ordering::Relaxed);
        if self.is_sent() {
            self.start_sender();
        }
        Ok(())
    }
}

impl Agent {
    /// Tries until there is a receipt from the receiver of the present assignment.
    async fn send_all(self) -> SendReport {
        let mut pause = FIRST_PAUSE;
        let mut was_written = false;
        loop {
            let epoch = self.epoch.load(Ordering::Relaxed);
            let assignment = self.assignment.load(Ordering::Relaxed);
            let progress = watch::channel(SendProgress::default()).0;
            let outcome = self.attempt(epoch, was_written, &progress).await;
            match outcome {
                Ok(report) => {
                    let last = report.progress.clone();
                    self.trace.note(|| format!("sent: {last:?}"));
                    // A receiver that is replaced takes its receipts with it.
                    if self.assignment.load(Ordering::Relaxed) == assignment {
                        return report;
                    }
                }
                Err(error) => {
                    self.trace.note(|| format!("an attempt ended: {error}"));
                    let failed = FailedAttempt::new(&error, &progress.borrow());
                    if !failed.is_retryable {
                        *self.failure.lock().unwrap() = Some(error.to_string());
                    }
                    was_written |= failed.was_written;
                    if failed.has_sent {
                        pause = FIRST_PAUSE;
                    }
                }
            }
            let jitter = self.random.lock().unwrap().up_to(pause);
            sleep(pause + jitter).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(
        &self,
        epoch: i64,
        ends_at_a_write: bool,
        progress: &watch::Sender<SendProgress>,
    ) -> Result<SendReport, TransferError> {
        let ticket = Ticket {
            job_id: self.identity.job_id.clone(),
            run: Run(1),
            epoch: Epoch(epoch),
            expires_unix_secs: i64::MAX,
        };
        let config = SendConfig {
            receiver: ADDRESS,
            transport: Preference::Pinned(Kind::Tcp),
            server_name: String::new(),
            identity: nobody(),
            ticket: ticket.sign(&self.identity.secret),
            disks: self.disks.clone(),
            sources: Arc::new(self.sources.clone()),
            change_tracking: true,
            bad_sectors: self.bad_sectors,
            consistency: self.consistency,
            ends_at_a_write,
            compression: if self.packs {
                Compression::Level(1)
            } else {
                Compression::Off
            },
            streams: self.streams,
            connections: 1,
            bandwidth_limit: self.limit.clone(),
            shared_limit: self.shared_limit.clone(),
            scratch: std::env::temp_dir(),
        };
        send_over(
            &self.network,
            config,
            CancellationToken::new(),
            progress.clone(),
        )
        .await
    }
}

/// There are no certificates in a simulation.
pub(super) fn nobody() -> Identity {
    Identity {
        authority_pem: String::new(),
        certificate_pem: String::new(),
        key_pem: String::new(),
    }
}

/// Writes a file with holes where chunks are zeros.
fn write_sparse(path: &Path, content: &[u8]) {
    use std::os::unix::fs::FileExt as _;

    let file = std::fs::File::create(path).unwrap();
    file.set_len(content.len() as u64).unwrap();
    for (number, chunk) in (0_u64..).zip(content.chunks(CHUNK as usize)) {
        if !chunks::hashes::is_zero(chunk) {
            file.write_all_at(chunk, number * u64::from(CHUNK)).unwrap();
        }
    }
}
