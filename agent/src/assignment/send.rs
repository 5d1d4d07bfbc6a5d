//! Working at one assignment until all disks are sent, or nothing more can be done.

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

/// Trouble that is over sooner is nobody's business: networks hiccup, and a receiver needs a moment to come back.
const TELL_AFTER: Duration = Duration::from_secs(5);

/// A receiver as an assignment names it. One that is replaced has another ticket.
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

/// What every send needs.
#[derive(Debug, Clone)]
pub(crate) struct Sending {
    /// The agent's private key, PEM: the run's certificate is over it.
    pub key_pem: Arc<str>,
    pub board: Board,
    /// The disks of this source. No others are read, whatever an assignment says.
    pub snapshots: watch::Receiver<Snapshot>,
    /// Longest pause between two attempts.
    pub reconnect_most: Duration,
    /// What all sends of this agent share.
    pub shared_limit: Option<SharedLimit>,
    /// Where what is known of large disks lies while they are sent.
    pub scratch: PathBuf,
    /// Whether what was read once is left alone while nothing is written.
    pub change_tracking: bool,
}

impl Sending {
    /// Sends the disks until it is cancelled: a receiver that is lost takes its receipts with it, and the one in its place is sent what it lacks,
    /// at once, whatever is being waited for of the first.
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

    /// Sends to the receiver that is assigned now; tries again for as long as trying again can help. Then it stays until it is cancelled, also when
    /// the receiver refused for good: the worker may put another in its place, which has forgotten what did not arrive whole.
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
                // What was written during one pass may have been the last of it. What is written during the next as well goes on.
                Err(broken)
                    if broken.is_retryable && !(before.was_written && broken.was_written) =>
                {
                    before.broken_carrier = broken.broken_carrier;
                    before.was_written |= broken.was_written;
                    if broken.has_sent {
                        trouble = None;
                        pauses.reset();
                    }
                    self.complain(key, &broken.failure, &mut trouble);
                }
                Err(broken) => {
                    self.fail(key, &broken.failure);
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
