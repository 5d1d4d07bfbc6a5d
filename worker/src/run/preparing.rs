//! Preparing: an instance whose receiver admits this run's agent, and an assignment that directs the agent to the
//! receiver.

use std::collections::BTreeMap;

use domain::job::Event;
use domain::parameters::{BadSectors, Consistency, FreeSpace};
use domain::{Failure, FailureCode, ImageId, InstanceId};
use prost::Message as _;
use proto::{agent, receiver};
use store::image_build::BegunImage;
use store::instance::{Authority, Instance};
use store::run::RunDisk;
use transfer::{Ticket, TicketSecret};

use super::{Ended, Run, disks, internal, lost_or_ended, persist, whole};
use crate::provider::{InstanceSpec, ProviderError};
use crate::receiver_client::{RECEIVER_NAME, ReceiverClient};

/// Validity of a ticket: longer than a job may live, so that differences between clocks matter little. The epoch ends
/// it earlier.
const TICKET_SECS: i64 = 120 * 24 * 3600;

/// The places of a run: its instance, the receiver in it, and the image that it will make.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) instance: Instance,
    pub(super) image: BegunImage,
    pub(super) client: ReceiverClient,
    /// The assignment that the agent has received.
    assignment: agent::Assignment,
}

impl Run {
    pub(super) async fn prepare(&mut self) -> Result<Site, Ended> {
        disks::are_unchanged(&self.facts.disks)?;
        self.observe("making the intermediate instance").await?;
        self.fits_quota().await?;
        let instance = self.take_instance().await?;
        self.stores_have_room(&instance).await?;
        self.progress.instance_id = Some(instance.id.clone());
        let image = self.begin_image().await?;
        let site = self.open_site(instance, image).await?;
        self.event(Event::Prepared, None).await?;
        Ok(site)
    }

    /// Ends a run that would store more than its tenant may: a start by a call was refused, but a timer asks nobody,
    /// and others may have stored something since.
    async fn fits_quota(&mut self) -> Result<(), Ended> {
        let over = persist(|| self.context.store.over_quota(&self.lease.job_id)).await;
        self.over_quota = over.map_err(|error| internal(&error))?;
        self.stays_within_quota()
    }

    /// Ends the run where the image could not be stored in the end: that is better known now than after hours of
    /// copying.
    async fn stores_have_room(&self, instance: &Instance) -> Result<(), Ended> {
        let used = |disk: &RunDisk| disk.found.as_ref().and_then(|found| found.used_bytes);
        let needed = self.facts.disks.iter().filter_map(used).sum();
        let stores = &self.context.stores;
        Ok(stores.are_ready_for(&instance.id, needed).await?)
    }

    /// Takes the run's instance. Its row is written first: if any process dies afterwards, the instance is known.
    async fn take_instance(&self) -> Result<Instance, Ended> {
        let authority = pki::Authority::generate(
            &format!("wherry run of {}", self.lease.job_id),
            pki::RUN_VALIDITY,
        )
        .map_err(|error| pki_failed(&error))?;
        let candidate = Instance {
            id: InstanceId::generate(),
            tenant: self.facts.tenant.clone(),
            job_id: self.lease.job_id.clone(),
            run: self.lease.run,
            epoch: self.lease.epoch,
            provider: self.context.provider.name().to_owned(),
            host: self.context.provider.host(),
            authority: Authority {
                certificate_pem: authority.certificate_pem().to_owned(),
                key_pem: authority.key_pem(),
            },
        };
        let taken = persist(|| self.context.store.take_instance(&candidate)).await;
        taken
            .map_err(|error| internal(&error))?
            .ok_or(Ended::Fenced)
    }

    /// Takes the image's id, before there is a receiver: the instance names the image, and no call can.
    async fn begin_image(&self) -> Result<BegunImage, Ended> {
        let (job_id, epoch) = (&self.lease.job_id, self.lease.epoch);
        let candidate = ImageId::generate();
        let begun = persist(|| self.context.store.begin_image(job_id, epoch, &candidate)).await;
        begun
            .map_err(|error| internal(&error))?
            .ok_or(Ended::Fenced)
    }

    /// Starts the receiver, admits the agent and writes its assignment. Also used after a receiver was lost.
    pub(super) async fn open_site(
        &mut self,
        instance: Instance,
        image: BegunImage,
    ) -> Result<Site, Ended> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_to_open(&instance, &image).await {
                Ok((client, assignment)) => {
                    return Ok(Site {
                        instance,
                        image,
                        client,
                        assignment,
                    });
                }
                Err(Opening::Ended(ended)) => return Err(ended),
                Err(Opening::Lost(message)) if tries <= self.context.config.receiver_losses => {
                    tracing::warn!(job_id = %self.lease.job_id, instance_id = %instance.id, message, "a receiver is started again");
                }
                Err(Opening::Lost(message)) => {
                    let instance_id = &instance.id;
                    tracing::error!(job_id = %self.lease.job_id, %instance_id, message, "a receiver does not come up");
                    let sentence = format!(
                        "The receiver of instance {instance_id} does not come up. Tell the operator, whose history has the cause, then start the \
                         job again."
                    );
                    let failure = Failure::new(FailureCode::ReceiverLost, sentence);
                    return Err(failure.with_cause(message).into());
                }
            }
        }
    }

    async fn try_to_open(
        &mut self,
        instance: &Instance,
        image: &BegunImage,
    ) -> Result<(ReceiverClient, agent::Assignment), Opening> {
        let authority = pki::Authority::from_pem(
            &instance.authority.certificate_pem,
            &instance.authority.key_pem,
        )
        .map_err(|error| pki_failed(&error))?;
        let server = authority
            .issue_server(&[RECEIVER_NAME.to_owned()])
            .map_err(|error| pki_failed(&error))?;
        let worker = authority
            .issue_client(receiver::CONTROL_NAME)
            .map_err(|error| pki_failed(&error))?;
        let secret = TicketSecret::generate();
        let spec = InstanceSpec {
            id: instance.id.clone(),
            epoch: self.lease.epoch,
            authority_pem: authority.certificate_pem().to_owned(),
            certificate_pem: server.certificate_pem,
            key_pem: server.key_pem,
            work: self.work(image, &secret),
        };
        let address = self.context.provider.create(&spec).await;
        let address = address.map_err(|error| match error {
            ProviderError::Ended { .. } | ProviderError::NotReady { .. } => {
                Opening::Lost(error.to_string())
            }
            _ => Opening::Ended(Ended::by_provider("made", &error, &instance.id)),
        })?;
        let timeout = self.context.config.receiver_timeout();
        let client = ReceiverClient::new(&address, authority.certificate_pem(), &worker, timeout)
            .map_err(|error| Opening::Lost(error.to_string()))?;
        self.progress.new_receiver();
        self.progress.client = Some(client.clone());
        let admitted = match client.admit(self.lease.epoch.0).await {
            Ok(admitted) => admitted,
            Err(error) => return Err(Opening::Lost(lost_or_ended(error)?)),
        };
        let job_id = &self.lease.job_id;
        let host = persist(|| self.context.store.receiver_host_of(job_id)).await;
        let host = host.map_err(|error| internal(&error))?;
        let host = host.unwrap_or_else(|| self.context.config.receiver_host());
        let receiver_address = host_and_port(&host, admitted.data_port);
        let assignment = self.assignment(&authority, &secret, receiver_address)?;
        self.assign(&assignment).await?;
        Ok((client, assignment))
    }

    /// Returns everything that the receiver may do for this run.
    fn work(&self, image: &BegunImage, secret: &TicketSecret) -> receiver::Work {
        receiver::Work {
            job_id: self.lease.job_id.to_string(),
            run: self.lease.run.0,
            source_id: self.facts.source_id.to_string(),
            image_id: image.id.to_string(),
            image_name: image.name.clone(),
            disks: self.facts.disks.iter().map(target_disk).collect(),
            ticket_secret: secret.as_bytes().to_vec(),
            checksum: self.facts.parameters.checksum,
        }
    }

    fn assignment(
        &mut self,
        authority: &pki::Authority,
        secret: &TicketSecret,
        receiver_address: String,
    ) -> Result<agent::Assignment, Ended> {
        use domain::Clock as _;

        let limit = self.limit();
        let parameters = &self.facts.parameters;
        let certificate = authority
            .issue_client_over_public_key(self.facts.source_id.as_str(), &self.facts.public_key)
            .map_err(|error| pki_failed(&error))?;
        let ticket = Ticket {
            job_id: self.lease.job_id.clone(),
            run: self.lease.run,
            epoch: self.lease.epoch,
            expires_unix_secs: domain::clock::SystemClock.now().unix_seconds() + TICKET_SECS,
        };
        Ok(agent::Assignment {
            job_id: self.lease.job_id.to_string(),
            run: self.lease.run.0,
            epoch: self.lease.epoch.0,
            receiver_address,
            receiver_name: RECEIVER_NAME.to_owned(),
            authority_pem: authority.certificate_pem().to_owned(),
            certificate_pem: certificate,
            ticket: ticket.sign(secret),
            disks: self.facts.disks.iter().map(assigned_disk).collect(),
            bandwidth_limit_bytes_per_sec: limit.unwrap_or(0),
            compress_level: parameters.compress_level,
            zero_bad_sectors: parameters.bad_sectors == BadSectors::Zero,
            streams: parameters.efficiency_level.streams(),
            tcp_only: parameters.tunnel,
            copy_free_space: parameters.free_space == FreeSpace::Copy,
            fuzzy: parameters.consistency == Consistency::Fuzzy,
        })
    }

    async fn assign(&self, assignment: &agent::Assignment) -> Result<(), Ended> {
        let message = assignment.encode_to_vec();
        let (job_id, epoch) = (&self.lease.job_id, self.lease.epoch);
        let put = persist(|| self.context.store.put_assignment(job_id, epoch, &message)).await;
        if !put.map_err(|error| internal(&error))? {
            return Err(Ended::Fenced);
        }
        self.nudge_agent().await;
        Ok(())
    }

    /// Returns the most bytes a second of this run at present: its job's limit, or less if runs share the host's.
    pub(super) fn limit(&mut self) -> Option<u64> {
        let (shares, job_id) = (&self.context.shares, &self.lease.job_id);
        let share = self.share.get_or_insert_with(|| shares.join(job_id));
        share.limit(self.facts.parameters.bandwidth_limit_bytes_per_sec)
    }

    /// Writes the agent's new limit, if it has changed. The assignment stays the same, so the agent continues its work.
    pub(super) async fn keep_to_the_limit(&mut self, site: &mut Site) -> Result<(), Ended> {
        let limit = self.limit().unwrap_or(0);
        let assignment = &mut site.assignment;
        if assignment.bandwidth_limit_bytes_per_sec == limit {
            return Ok(());
        }
        assignment.bandwidth_limit_bytes_per_sec = limit;
        let message = assignment.encode_to_vec();
        let (job_id, epoch) = (&self.lease.job_id, self.lease.epoch);
        tracing::debug!(%job_id, %epoch, bytes_per_sec = limit, "the limit of a run has changed");
        let revised = persist(|| {
            self.context
                .store
                .revise_assignment(job_id, epoch, &message)
        })
        .await;
        if !revised.map_err(|error| internal(&error))? {
            return Err(Ended::Fenced);
        }
        self.nudge_agent().await;
        Ok(())
    }

    /// Sends a nudge. A lost one costs one heartbeat of the agent.
    async fn nudge_agent(&self) {
        let _heard = self.context.bus.nudge(&self.facts.source_id).await;
    }
}

/// Returns a disk of the run for the receiver, with its present partition layout.
fn target_disk(disk: &RunDisk) -> receiver::TargetDisk {
    let layout = disk.found.as_ref().map(|found| found.layout.clone());
    let layout = layout.unwrap_or_default();
    receiver::TargetDisk {
        index: disk.target.index.0.into(),
        source_size_bytes: disk.source_bytes,
        target_size_bytes: disk.target.size_bytes(),
        logical_sector_bytes: layout.logical_sector_bytes,
        physical_sector_bytes: layout.physical_sector_bytes,
        partition_table: layout.partition_table.unwrap_or_default(),
    }
}

/// Returns a disk of the run for the agent, with its present path and its identity.
fn assigned_disk(disk: &RunDisk) -> agent::AssignedDisk {
    let found = disk.found.as_ref();
    agent::AssignedDisk {
        index: disk.target.index.0.into(),
        path: found.map_or(&disk.path, |found| &found.path).clone(),
        size_bytes: disk.source_bytes,
        identity: disk.identity.clone().map(|identity| {
            let facts: BTreeMap<String, String> = identity.into();
            agent::DiskIdentity {
                facts: facts.into_iter().collect(),
            }
        }),
    }
}

enum Opening {
    Ended(Ended),
    Lost(String),
}

impl From<Ended> for Opening {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

fn host_and_port(host: &str, port: u32) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn pki_failed(error: &pki::Error) -> Ended {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "a certificate of a run can't be made"
    );
    let failure = Failure::new(
        FailureCode::Internal,
        "The run's certificates can't be made. Start the job again.",
    );
    Ended::Failed(failure.with_cause(whole(error)))
}
