//! Works on one assignment until all disks are sent, or until no further attempt can help.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::Failure;
use proto::agent as wire;
use proto::agent::assignment_report::State;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use transfer::limits::SharedLimit;

use super::{Board, Key, attempt};
use crate::config::Pauses;
use crate::inventory::Snapshot;

/// Time before trouble is reported. Shorter trouble is normal: networks have brief failures, and a receiver needs a
/// moment to restart.
const TELL_AFTER: Duration = Duration::from_secs(5);

/// A receiver as an assignment names it. Its replacement has another ticket.
#[derive(Debug, PartialEq, Eq)]
struct Receiver {
    address: String,
    ticket: Vec<u8>,
}

impl Receiver {
    fn of(assignment: &wire::Assignment) -> Self {
        Self {
            address: assignment.receiver_address.clone(),
            ticket: assignment.ticket.clone(),
        }
    }
}

/// Values that every send needs.
#[derive(Debug, Clone)]
pub(crate) struct Sending {
    /// The agent's private key, PEM: the run's certificate is over it.
    pub key_pem: Arc<str>,
    pub board: Board,
    /// The disks of this source. No others are read, whatever an assignment names.
    pub snapshots: watch::Receiver<Snapshot>,
    /// Longest pause between two attempts.
    pub reconnect_most: Duration,
    /// The bandwidth limit that all sends of this agent share.
    pub shared_limit: Option<SharedLimit>,
    /// Directory for the state of large disks while they are sent.
    pub scratch: PathBuf,
    /// True if data that was read once is not read again while the disk is not written.
    pub change_tracking: bool,
}

impl Sending {
    /// Sends the disks until it is cancelled. A lost receiver loses its receipts. Its replacement is sent the missing
    /// data at once, even if this source still waits for the first one.
    pub async fn to_the_end(
        &self,
        key: &Key,
        assignment: watch::Receiver<wire::Assignment>,
        cancel: CancellationToken,
    ) {
        tracing::info!(job_id = %key.job_id, run = %key.run, epoch = %key.epoch, "sending begins");
        loop {
            let receiver = Receiver::of(&assignment.borrow());
            let mut revised = assignment.clone();
            let replaced = revised.wait_for(|now| Receiver::of(now) != receiver);
            let this_one = cancel.child_token();
            let sending = self.to_one_receiver(key, assignment.clone(), this_one.clone());
            tokio::pin!(sending);
            tokio::select! {
                () = &mut sending => return,
                Ok(_) = replaced => {}
            }
            this_one.cancel();
            sending.await;
            if cancel.is_cancelled() {
                return;
            }
            tracing::info!(job_id = %key.job_id, run = %key.run, epoch = %key.epoch, "the receiver was replaced: sending again");
        }
    }

    /// Sends to the receiver that is assigned now, and tries again for as long as that can help. Then it waits until it
    /// is cancelled, even after a permanent refusal. The worker may replace the receiver, and the replacement lacks
    /// whatever did not arrive completely.
    async fn to_one_receiver(
        &self,
        key: &Key,
        assignment: watch::Receiver<wire::Assignment>,
        cancel: CancellationToken,
    ) {
        let mut pauses = Pauses::new(self.reconnect_most);
        let mut trouble: Option<Instant> = None;
        let mut before = attempt::Before::default();
        self.board.say(key, State::Connecting, None);
        loop {
            let sent = attempt::send(self, key, assignment.clone(), before, cancel.clone()).await;
            match sent {
                _ if cancel.is_cancelled() => return,
                Ok(()) => {
                    tracing::info!(job_id = %key.job_id, run = %key.run, epoch = %key.epoch, "all disks are sent");
                    self.board.say(key, State::Sent, None);
                    return cancel.cancelled().await;
                }
                // A write during one pass may have been the last. A write during the next pass as well suggests that
                // writing continues.
                Err(failed)
                    if failed.is_retryable && !(before.was_written && failed.was_written) =>
                {
                    before.failed_transport = failed.failed_transport;
                    before.was_written |= failed.was_written;
                    if failed.has_sent {
                        trouble = None;
                        pauses.reset();
                    }
                    self.complain(key, &failed.failure, &mut trouble);
                }
                Err(failed) => {
                    self.fail(key, &failed.failure);
                    return cancel.cancelled().await;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pauses.next()) => (),
                () = cancel.cancelled() => return,
            }
        }
    }

    fn fail(&self, key: &Key, failure: &Failure) {
        tracing::warn!(job_id = %key.job_id, run = %key.run, epoch = %key.epoch, %failure, "the disks can't be sent");
        self.board.say(key, State::Failed, Some(failure));
    }

    fn complain(&self, key: &Key, failure: &Failure, trouble: &mut Option<Instant>) {
        match trouble {
            None => {
                tracing::warn!(job_id = %key.job_id, run = %key.run, epoch = %key.epoch, %failure, "sending broke off: trying again");
                *trouble = Some(Instant::now());
            }
            Some(since) if since.elapsed() >= TELL_AFTER => {
                self.board.say(key, State::Retrying, Some(failure));
            }
            Some(_) => tracing::debug!(job_id = %key.job_id, %failure, "sending broke off again"),
        }
    }
}
