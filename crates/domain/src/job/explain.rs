//! Explanations of a job's state and of its next step, in sentences.

use crate::disk::{DiskInUse, Moment};
use crate::status_info::CopiedFreeSpace;
use crate::{ImageId, Run, Timestamp};

use super::{Intent, State};

/// The facts from which a job is explained.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The job's state.
    pub state: State,
    /// Last request of the API.
    pub intent: Intent,
    /// The job's run.
    pub run: Run,
    /// Code and sentence of the last failure.
    pub failure: Option<(String, String)>,
    /// The job's source.
    pub source: SourceFacts,
    /// The job's place in the queue, while the job waits for a slot.
    pub queue: Option<QueueFacts>,
    /// Holder of the job's lease.
    pub worker: Option<WorkerFacts>,
    /// Activity that the worker last reported.
    pub doing: Option<String>,
    /// Bytes that are durable on the target.
    pub bytes_durable: u64,
    /// Bytes of all disks; 0 while unknown.
    pub bytes_total: u64,
    /// Unreadable ranges of the job's disks that were copied as zeros: their number and their bytes.
    pub unreadable: Option<(u64, u64)>,
    /// Disks whose free space is copied although the job would skip it.
    pub copied_free_space: Vec<CopiedFreeSpace>,
    /// Consistency of the copy, once everything is copied: true to one moment, or not.
    pub consistency: Option<Moment>,
    /// Disks that their source uses for writing, if a run would fail when they are written.
    pub in_use: Vec<DiskInUse>,
    /// Leases lost since durable progress was last made.
    pub leases_lost: i32,
    /// Time of the scheduled start.
    pub scheduled_start: Option<Timestamp>,
    /// Latest time at which the parked run checks for its agent again.
    pub resumes: Option<Timestamp>,
    /// Time of the next scheduled run.
    pub next_run: Option<Timestamp>,
    /// Time of the job's expiry.
    pub valid_until: Timestamp,
    /// Time of the job's removal after its expiry.
    pub purge_at: Option<Timestamp>,
    /// The image that the job delivered.
    pub image_id: Option<ImageId>,
}

/// The facts about the job's source.
#[derive(Debug, Clone)]
pub struct SourceFacts {
    /// True if the agent reported lately.
    pub online: bool,
    /// Time of the agent's last report.
    pub last_seen: Timestamp,
    /// Failure that the agent reports.
    pub failure: Option<String>,
    /// Warning for the owner of a source that works.
    pub warning: Option<String>,
}

/// A job's place in its tenant's queue.
#[derive(Debug, Clone, Copy)]
pub struct QueueFacts {
    /// Position in the queue, from 1.
    pub position: i64,
    /// Jobs of the tenant that hold a slot.
    pub running: i64,
    /// Number of jobs that may hold a slot.
    pub limit: i64,
}

/// The holder of a job's lease.
#[derive(Debug, Clone)]
pub struct WorkerFacts {
    /// The worker's id.
    pub name: String,
    /// True if the lease is still valid.
    pub is_live: bool,
}

/// An explanation of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Activity of the job, or what it waits for.
    pub now: String,
    /// The next step, and who takes it.
    pub next: String,
    /// Circumstances that bear on the job.
    pub reasons: Vec<String>,
}

/// Explains a job.
pub fn explain(facts: &Facts) -> Explanation {
    Explanation {
        now: now(facts),
        next: next(facts),
        reasons: reasons(facts),
    }
}

fn now(facts: &Facts) -> String {
    match facts.state {
        State::Ready => match facts.scheduled_start {
            Some(at) => format!("The job has not started; it is scheduled for {at}."),
            None => "The job has not started.".to_owned(),
        },
        State::Preparing => preparing(facts),
        State::Syncing => doing(facts, "The disks are being copied"),
        State::Parked => doing(
            facts,
            "The copy waits without a worker, and what was copied is kept",
        ),
        State::Processing => doing(facts, "The disks are copied; the image is being made"),
        State::Cleaning => doing(
            facts,
            "The image is delivered; the intermediate instance is being released",
        ),
        State::Stopped => "The job was stopped; what was copied is kept.".to_owned(),
        State::InError => match &facts.failure {
            Some((code, message)) => format!("The run failed with {code}: {message}"),
            None => "The run failed.".to_owned(),
        },
        State::Waiting => match &facts.image_id {
            Some(image) => format!("The job delivered image {image} and waits for its next run."),
            None => "The job waits for its next run.".to_owned(),
        },
        State::Finished => match &facts.image_id {
            Some(image) => format!("The job delivered image {image}."),
            None => "The job is finished.".to_owned(),
        },
        State::Expired => format!("The job's validity ended at {}.", facts.valid_until),
        State::Deleting => "The job is being deleted: its resources are being released.".to_owned(),
    }
}

fn preparing(facts: &Facts) -> String {
    match (&facts.queue, &facts.worker) {
        (Some(queue), _) if queue.running < queue.limit => format!(
            "The job is started and waits for a free place of a worker: it is number {} in the queue of this account.",
            queue.position
        ),
        (Some(queue), _) => format!(
            "The job is started and waits for a slot: it is number {} in the queue, and {} of {} slots are taken.",
            queue.position, queue.running, queue.limit
        ),
        (None, Some(worker)) if worker.is_live => {
            doing(facts, "The intermediate instance is being made")
        }
        (None, _) => "The job has a slot and waits for a worker to take it.".to_owned(),
    }
}

fn doing(facts: &Facts, phase: &str) -> String {
    match &facts.doing {
        Some(doing) => format!("{phase}: {}.", doing.trim_end_matches('.')),
        None => format!("{phase}."),
    }
}

fn next(facts: &Facts) -> String {
    let expiry = format!("it expires at {}", facts.valid_until);
    match facts.state {
        State::Ready => match facts.scheduled_start {
            Some(at) => format!("It starts by itself at {at}; StartReplicationJob starts it sooner."),
            None => format!("StartReplicationJob starts it; {expiry}."),
        },
        State::Preparing | State::Syncing if facts.intent == Intent::Stop => {
            "A stop was asked for: its worker stops the copy at its next renewal, within seconds.".to_owned()
        }
        State::Preparing if facts.queue.is_some_and(|queue| queue.running < queue.limit) => {
            "It is given the next place of a worker that becomes free, unless an account with fewer runs waits too. If this lasts, check that \
             workers run."
                .to_owned()
        }
        State::Preparing if facts.queue.is_some() => {
            "It is given a slot when another job of this account ends its run.".to_owned()
        }
        State::Preparing if facts.worker.is_none() => {
            "A worker with a free place takes it, makes an intermediate instance and starts the copy. If this lasts, check that workers run.".to_owned()
        }
        State::Preparing => "The agent is told where to send, and the copy starts.".to_owned(),
        State::Syncing => "When every disk is copied and proven, the image is made.".to_owned(),
        State::Parked => match facts.resumes {
            Some(at) => format!(
                "It goes on when its agent comes back, and looks for it at {at}; StopReplicationJob ends it sooner."
            ),
            None => "It goes back to the queue now.".to_owned(),
        },
        State::Processing => "The image goes to the image store, and the intermediate instance is released.".to_owned(),
        State::Cleaning => "The job is finished when the intermediate instance is gone.".to_owned(),
        State::Stopped => format!("StartReplicationJob goes on from what was copied; {expiry}."),
        State::InError => format!(
            "Put the cause right, then StartReplicationJob goes on from what was copied; {expiry}."
        ),
        State::Waiting => match facts.next_run {
            Some(at) if at < facts.valid_until => format!(
                "Its next run starts by itself at {at}, or sooner by StartReplicationJob; CutOverReplicationJob finishes it; {expiry}."
            ),
            _ => format!("StartReplicationJob starts another run; CutOverReplicationJob finishes it; {expiry}."),
        },
        State::Finished => "Nothing: the image stays when the job is deleted.".to_owned(),
        State::Expired => match facts.purge_at {
            Some(at) => format!("It is deleted at {at}, or sooner by DeleteReplicationJob."),
            None => "It is deleted soon.".to_owned(),
        },
        State::Deleting => "A worker releases the intermediate instance and removes the job.".to_owned(),
    }
}

fn reasons(facts: &Facts) -> Vec<String> {
    let mut reasons = Vec::new();
    let agent_matters = !matches!(
        facts.state,
        State::Processing | State::Cleaning | State::Finished | State::Expired | State::Deleting
    );
    if agent_matters && !facts.source.online {
        reasons.push(format!(
            "The agent of the source is silent since {}: start it, or check that it reaches the gateway.",
            facts.source.last_seen
        ));
    }
    if agent_matters && let Some(failure) = &facts.source.failure {
        reasons.push(format!("The agent of the source reports: {failure}"));
    }
    if agent_matters && let Some(warning) = &facts.source.warning {
        reasons.push(warning.clone());
    }
    if let Some(worker) = &facts.worker
        && facts.state.is_running()
    {
        reasons.push(if worker.is_live {
            format!("Worker {} drives run {}.", worker.name, facts.run)
        } else {
            format!(
                "Worker {} has not renewed its lease: the job goes back to the queue, and the next worker goes on from what was copied.",
                worker.name
            )
        });
    }
    if facts.leases_lost > 0 && facts.state.is_running() {
        reasons.push(format!(
            "{} workers were lost since the copy last moved; after three the job is InError.",
            facts.leases_lost
        ));
    }
    if let Some((ranges, bytes)) = facts.unreadable {
        reasons.push(format!(
            "{bytes} bytes of the source's disks can't be read, in {ranges} ranges: the copy has zeros there, and the image's manifests list them."
        ));
    }
    for CopiedFreeSpace { disk, reason } in &facts.copied_free_space {
        reasons.push(format!(
            "Free space of disk {disk} is copied as well, since it is not certain what is free: {reason}."
        ));
    }
    match facts.consistency {
        Some(Moment::Several) => reasons.push(
            "What was copied is not one moment in time: the disks were written meanwhile. A database in it may not start.".to_owned(),
        ),
        Some(Moment::Unknown) => reasons.push(
            "It is not known whether what was copied is one moment in time: the source does not count what is written to its disks.".to_owned(),
        ),
        Some(Moment::One) | None => {}
    }
    if facts.state.may_copy() {
        reasons.extend(facts.in_use.iter().map(DiskInUse::warning));
    }
    if facts.bytes_total > 0 && facts.state != State::Finished {
        reasons.push(format!(
            "{} of {} bytes are durable on the target.",
            facts.bytes_durable, facts.bytes_total
        ));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DiskIndex;

    fn facts(state: State) -> Facts {
        let moment = Timestamp::from_unix_seconds(1_800_000_000).unwrap();
        Facts {
            state,
            intent: Intent::Run,
            run: Run(1),
            failure: None,
            source: SourceFacts {
                online: true,
                last_seen: moment,
                failure: None,
                warning: None,
            },
            queue: None,
            worker: None,
            doing: None,
            bytes_durable: 0,
            bytes_total: 0,
            unreadable: None,
            copied_free_space: Vec::new(),
            consistency: None,
            in_use: Vec::new(),
            leases_lost: 0,
            scheduled_start: None,
            resumes: None,
            next_run: None,
            valid_until: moment,
            purge_at: None,
            image_id: None,
        }
    }

    #[test]
    fn every_state_has_whole_sentences() {
        for state in State::ALL {
            let explanation = explain(&facts(state));
            for sentence in [explanation.now, explanation.next] {
                assert!(
                    sentence.ends_with('.') && sentence.len() > 10,
                    "{state}: {sentence:?}"
                );
            }
        }
    }

    #[test]
    fn a_queued_job_says_its_place_and_who_holds_the_slots() {
        let mut queued = facts(State::Preparing);
        queued.queue = Some(QueueFacts {
            position: 2,
            running: 5,
            limit: 5,
        });
        let explanation = explain(&queued);
        assert_eq!(
            explanation.now,
            "The job is started and waits for a slot: it is number 2 in the queue, and 5 of 5 slots are taken."
        );
        assert_eq!(
            explanation.next,
            "It is given a slot when another job of this account ends its run."
        );
    }

    #[test]
    fn a_job_that_waits_for_a_worker_and_a_parked_one_say_what_they_wait_for() {
        let mut queued = facts(State::Preparing);
        queued.queue = Some(QueueFacts {
            position: 1,
            running: 0,
            limit: 5,
        });
        assert_eq!(
            explain(&queued).now,
            "The job is started and waits for a free place of a worker: it is number 1 in the queue of this account."
        );
        let mut parked = facts(State::Parked);
        parked.doing = Some("waiting for the agent of s-1, which is offline".to_owned());
        parked.resumes = Some(parked.valid_until);
        let explanation = explain(&parked);
        assert_eq!(
            explanation.now,
            "The copy waits without a worker, and what was copied is kept: waiting for the agent of s-1, which is offline."
        );
        assert!(
            explanation.next.contains("2027-01-15T08:00:00Z"),
            "{}",
            explanation.next
        );
    }

    #[test]
    fn what_was_copied_as_zeros_is_said_also_of_a_finished_job() {
        let mut finished = facts(State::Finished);
        finished.unreadable = Some((2, 1536));
        let reasons = explain(&finished).reasons.join(" ");
        assert!(
            reasons.contains("1536 bytes of the source's disks can't be read, in 2 ranges"),
            "{reasons}"
        );
    }

    #[test]
    fn free_space_that_is_copied_is_said_with_its_reason() {
        let mut syncing = facts(State::Syncing);
        syncing.copied_free_space = vec![CopiedFreeSpace {
            disk: DiskIndex(1),
            reason: "it is in use".to_owned(),
        }];
        assert_eq!(
            explain(&syncing).reasons,
            [
                "Free space of disk 1 is copied as well, since it is not certain what is free: it is in use."
            ]
        );
    }

    #[test]
    fn a_copy_that_is_not_or_may_not_be_one_moment_says_so() {
        let mut finished = facts(State::Finished);
        let reasons = |facts: &Facts| explain(facts).reasons.join(" ");
        for (moment, said) in [
            (Moment::Several, "not one moment in time"),
            (Moment::Unknown, "It is not known whether"),
        ] {
            finished.consistency = Some(moment);
            assert!(reasons(&finished).contains(said), "{moment:?}");
        }
        finished.consistency = Some(Moment::One);
        assert_eq!(reasons(&finished), "");
    }

    #[test]
    fn a_disk_in_use_is_named_until_it_is_copied() {
        for state in State::ALL {
            let mut facts = facts(state);
            facts.in_use = vec![DiskInUse {
                path: "/dev/vda".to_owned(),
                by: "mounted at /".to_owned(),
            }];
            let reasons = explain(&facts).reasons.join(" ");
            let is_named = reasons.contains("/dev/vda is used for writing (mounted at /)");
            assert_eq!(is_named, state.may_copy(), "{state}: {reasons}");
        }
    }

    #[test]
    fn a_silent_agent_and_a_dead_worker_are_named() {
        let mut stuck = facts(State::Syncing);
        stuck.source.online = false;
        stuck.worker = Some(WorkerFacts {
            name: "w-1".to_owned(),
            is_live: false,
        });
        let reasons = explain(&stuck).reasons.join(" ");
        assert!(
            reasons.contains("silent since 2027-01-15T08:00:00Z"),
            "{reasons}"
        );
        assert!(
            reasons.contains("Worker w-1 has not renewed its lease"),
            "{reasons}"
        );
    }

    #[test]
    fn a_waiting_job_says_when_its_next_run_is() {
        let mut waiting = facts(State::Waiting);
        waiting.next_run = Some(waiting.valid_until + std::time::Duration::from_secs(1));
        assert!(
            explain(&waiting)
                .next
                .starts_with("StartReplicationJob starts another run"),
            "a run behind the validity never starts"
        );
        waiting.valid_until = waiting.valid_until + std::time::Duration::from_secs(86_400);
        assert_eq!(
            explain(&waiting).next,
            "Its next run starts by itself at 2027-01-15T08:00:01Z, or sooner by StartReplicationJob; CutOverReplicationJob finishes it; \
             it expires at 2027-01-16T08:00:00Z."
        );
    }

    #[test]
    fn a_failed_job_says_why_and_what_to_do() {
        let mut failed = facts(State::InError);
        failed.failure = Some((
            "ReplicationJob.TargetFull".to_owned(),
            "The disk is full.".to_owned(),
        ));
        let explanation = explain(&failed);
        assert_eq!(
            explanation.now,
            "The run failed with ReplicationJob.TargetFull: The disk is full."
        );
        assert!(
            explanation
                .next
                .starts_with("Put the cause right, then StartReplicationJob")
        );
    }
}
