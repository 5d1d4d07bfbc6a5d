//! The table of a job's life: the effect of each event in each state.
//!
//! [`next`] is the only place that decides. Every pair of state and event is listed, so the compiler asks for a
//! decision when either list grows. The store turns the rows of one event into one guarded `UPDATE`; nothing else
//! writes a state.
//!
//! The guard of that `UPDATE` decides who may send an event, not this table. Events of a lease holder carry its epoch,
//! and [`Event::Expire`] requires that no lease is live.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::state::{State, UnknownState};

/// An event in the life of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The tenant or the schedule starts the job.
    Start,
    /// The lease holder's instance is up and its disks are open.
    Prepared,
    /// The receiver's receipts cover every disk.
    Synced,
    /// The image is in the store.
    Processed,
    /// The instance is gone and the job delivers once.
    Finish,
    /// The instance is gone and the job delivers again later.
    Rest,
    /// The tenant ends a job that would deliver again. With one more run, the event is [`Event::Start`].
    CutOver,
    /// The tenant asks to stop. A running job stops when its lease holder reports [`Event::Halted`].
    Stop,
    /// The run has stopped. The lease holder reports it, or the sweeper if the lease was lost while the job was to
    /// stop.
    Halted,
    /// The run failed.
    Fail,
    /// The lease ran out. The run goes back to the queue and keeps its number.
    LeaseLost,
    /// The lease holder releases its place in the middle of the copy, because the agent is silent. The run keeps its
    /// number and its copy.
    Parked,
    /// A parked run goes back to the queue, because its agent has reported again or the next check for it is due.
    Resumed,
    /// The job's validity is over.
    Expire,
    /// The tenant deletes the job, or its time after expiry is over.
    Delete,
    /// All resources of the job are gone.
    Removed,
}

/// The effect of an event in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The job moves.
    To(State),
    /// The request is recorded as intent; the state stays until the lease holder acts.
    Recorded,
    /// The row is deleted.
    Gone,
    /// The event came late or twice; it is counted and has no other effect.
    Ignored(Reason),
    /// The tenant may not ask for this now.
    Refused,
}

/// Reason why an event changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The event has happened already.
    Repeated,
    /// The job has moved on since the event was sent.
    Late,
    /// A correct sender never sends the event in this state.
    Impossible,
}

impl Reason {
    /// Returns the label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Repeated => "repeated",
            Self::Late => "late",
            Self::Impossible => "impossible",
        }
    }
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 16] = [
        Self::Start,
        Self::Prepared,
        Self::Synced,
        Self::Processed,
        Self::Finish,
        Self::Rest,
        Self::CutOver,
        Self::Stop,
        Self::Halted,
        Self::Fail,
        Self::LeaseLost,
        Self::Parked,
        Self::Resumed,
        Self::Expire,
        Self::Delete,
        Self::Removed,
    ];

    /// Returns the name in the job's history.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Prepared => "prepared",
            Self::Synced => "synced",
            Self::Processed => "processed",
            Self::Finish => "finish",
            Self::Rest => "rest",
            Self::CutOver => "cut_over",
            Self::Stop => "stop",
            Self::Halted => "halted",
            Self::Fail => "fail",
            Self::LeaseLost => "lease_lost",
            Self::Parked => "parked",
            Self::Resumed => "resumed",
            Self::Expire => "expire",
            Self::Delete => "delete",
            Self::Removed => "removed",
        }
    }

    /// Returns the states that this event moves, each with its next state: the rows of the event's guarded `UPDATE`.
    pub fn moves(self) -> impl Iterator<Item = (State, State)> {
        State::ALL
            .into_iter()
            .filter_map(move |from| match next(from, self) {
                Outcome::To(to) => Some((from, to)),
                Outcome::Recorded | Outcome::Gone | Outcome::Ignored(_) | Outcome::Refused => None,
            })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Event {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|event| event.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// Returns the effect of `event` on a job in `state`.
pub fn next(state: State, event: Event) -> Outcome {
    use Outcome::{Gone, Ignored, Recorded, Refused, To};
    use Reason::{Impossible, Late, Repeated};
    use State as S;

    match event {
        Event::Start => match state {
            S::Ready | S::Stopped | S::InError | S::Waiting => To(S::Preparing),
            S::Preparing
            | S::Syncing
            | S::Parked
            | S::Processing
            | S::Cleaning
            | S::Finished
            | S::Expired
            | S::Deleting => Refused,
        },
        Event::Prepared => match state {
            S::Preparing => To(S::Syncing),
            S::Syncing => Ignored(Repeated),
            S::Parked
            | S::Processing
            | S::Cleaning
            | S::Stopped
            | S::InError
            | S::Waiting
            | S::Finished
            | S::Deleting => Ignored(Late),
            S::Ready | S::Expired => Ignored(Impossible),
        },
        Event::Synced => match state {
            S::Syncing => To(S::Processing),
            S::Processing => Ignored(Repeated),
            S::Preparing
            | S::Parked
            | S::Cleaning
            | S::Stopped
            | S::InError
            | S::Waiting
            | S::Finished
            | S::Deleting => Ignored(Late),
            S::Ready | S::Expired => Ignored(Impossible),
        },
        Event::Processed => match state {
            S::Processing => To(S::Cleaning),
            S::Cleaning => Ignored(Repeated),
            S::Preparing
            | S::Syncing
            | S::Parked
            | S::Stopped
            | S::InError
            | S::Waiting
            | S::Finished
            | S::Deleting => Ignored(Late),
            S::Ready | S::Expired => Ignored(Impossible),
        },
        Event::Finish => match state {
            S::Cleaning => To(S::Finished),
            S::Finished => Ignored(Repeated),
            S::Preparing
            | S::Syncing
            | S::Parked
            | S::Processing
            | S::Stopped
            | S::InError
            | S::Deleting => Ignored(Late),
            S::Ready | S::Waiting | S::Expired => Ignored(Impossible),
        },
        Event::Rest => match state {
            S::Cleaning => To(S::Waiting),
            S::Waiting => Ignored(Repeated),
            S::Preparing
            | S::Syncing
            | S::Parked
            | S::Processing
            | S::Stopped
            | S::InError
            | S::Deleting => Ignored(Late),
            S::Ready | S::Finished | S::Expired => Ignored(Impossible),
        },
        Event::CutOver => match state {
            S::Waiting => To(S::Finished),
            S::Ready
            | S::Preparing
            | S::Syncing
            | S::Parked
            | S::Processing
            | S::Cleaning
            | S::Stopped
            | S::InError
            | S::Finished
            | S::Expired
            | S::Deleting => Refused,
        },
        Event::Stop => match state {
            S::Syncing => Recorded,
            // No worker holds the job, so none has to be notified.
            S::Parked | S::Waiting => To(S::Stopped),
            S::Ready
            | S::Preparing
            | S::Processing
            | S::Cleaning
            | S::Stopped
            | S::InError
            | S::Finished
            | S::Expired
            | S::Deleting => Refused,
        },
        Event::Halted => match state {
            S::Preparing | S::Syncing | S::Parked | S::Processing | S::Cleaning => To(S::Stopped),
            S::Stopped => Ignored(Repeated),
            S::InError | S::Waiting | S::Finished | S::Expired | S::Deleting => Ignored(Late),
            S::Ready => Ignored(Impossible),
        },
        Event::Fail => match state {
            S::Preparing | S::Syncing | S::Parked | S::Processing | S::Cleaning => To(S::InError),
            S::InError => Ignored(Repeated),
            S::Stopped | S::Waiting | S::Finished | S::Expired | S::Deleting => Ignored(Late),
            S::Ready => Ignored(Impossible),
        },
        Event::LeaseLost => match state {
            S::Syncing | S::Processing | S::Cleaning => To(S::Preparing),
            S::Preparing => Ignored(Repeated),
            S::Parked
            | S::Stopped
            | S::InError
            | S::Waiting
            | S::Finished
            | S::Expired
            | S::Deleting => Ignored(Late),
            S::Ready => Ignored(Impossible),
        },
        Event::Parked => match state {
            S::Syncing => To(S::Parked),
            S::Parked => Ignored(Repeated),
            S::Preparing
            | S::Processing
            | S::Cleaning
            | S::Stopped
            | S::InError
            | S::Waiting
            | S::Finished
            | S::Expired
            | S::Deleting => Ignored(Late),
            S::Ready => Ignored(Impossible),
        },
        Event::Resumed => match state {
            S::Parked => To(S::Preparing),
            S::Preparing => Ignored(Repeated),
            S::Syncing
            | S::Processing
            | S::Cleaning
            | S::Stopped
            | S::InError
            | S::Waiting
            | S::Finished
            | S::Expired
            | S::Deleting => Ignored(Late),
            S::Ready => Ignored(Impossible),
        },
        Event::Expire => match state {
            S::Ready | S::Stopped | S::InError | S::Waiting => To(S::Expired),
            S::Expired => Ignored(Repeated),
            S::Preparing
            | S::Syncing
            | S::Parked
            | S::Processing
            | S::Cleaning
            | S::Finished
            | S::Deleting => Ignored(Late),
        },
        Event::Delete => match state {
            S::Ready | S::Stopped | S::InError | S::Waiting | S::Finished | S::Expired => {
                To(S::Deleting)
            }
            S::Preparing | S::Syncing | S::Parked | S::Processing | S::Cleaning | S::Deleting => {
                Refused
            }
        },
        Event::Removed => match state {
            S::Deleting => Gone,
            S::Ready
            | S::Preparing
            | S::Syncing
            | S::Parked
            | S::Processing
            | S::Cleaning
            | S::Stopped
            | S::InError
            | S::Waiting
            | S::Finished
            | S::Expired => Ignored(Impossible),
        },
    }
}

/// Returns the table as Markdown, for `ARCHITECTURE.md`: a row for each state, a column for each event that moves a
/// job.
pub fn table_as_markdown() -> String {
    let mut table = String::from("| state |");
    for event in Event::ALL {
        table.push_str(&format!(" {event} |"));
    }
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(Event::ALL.len()));
    table.push('\n');
    for state in State::ALL {
        table.push_str(&format!("| **{state}** |"));
        for event in Event::ALL {
            let cell = match next(state, event) {
                Outcome::To(to) => to.to_string(),
                Outcome::Recorded => "(intent)".to_owned(),
                Outcome::Gone => "(gone)".to_owned(),
                Outcome::Ignored(reason) => format!("· {}", reason.as_str()),
                Outcome::Refused => "refused".to_owned(),
            };
            table.push_str(&format!(" {cell} |"));
        }
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn sources_of(event: Event) -> BTreeSet<State> {
        event.moves().map(|(from, _)| from).collect()
    }

    #[test]
    fn the_api_operations_are_allowed_where_the_contract_says() {
        assert_eq!(
            sources_of(Event::Start),
            [State::Ready, State::Stopped, State::InError, State::Waiting].into()
        );
        assert_eq!(
            sources_of(Event::Delete),
            [
                State::Ready,
                State::Stopped,
                State::InError,
                State::Waiting,
                State::Finished,
                State::Expired
            ]
            .into()
        );
        assert_eq!(
            sources_of(Event::Expire),
            [State::Ready, State::Stopped, State::InError, State::Waiting].into()
        );
        assert_eq!(sources_of(Event::CutOver), [State::Waiting].into());
        let stoppable: BTreeSet<State> = State::ALL
            .into_iter()
            .filter(|&state| next(state, Event::Stop) != Outcome::Refused)
            .collect();
        assert_eq!(
            stoppable,
            [State::Syncing, State::Parked, State::Waiting].into()
        );
    }

    #[test]
    fn every_event_of_a_lease_holder_is_harmless_outside_a_run() {
        let of_a_holder = [
            Event::Prepared,
            Event::Synced,
            Event::Processed,
            Event::Finish,
            Event::Rest,
            Event::Halted,
            Event::Fail,
            Event::Parked,
        ];
        for event in of_a_holder {
            for state in State::ALL.into_iter().filter(|state| !state.is_running()) {
                assert!(
                    matches!(next(state, event), Outcome::Ignored(_)),
                    "{event} in {state}"
                );
            }
        }
    }

    #[test]
    fn sending_an_event_twice_changes_nothing_the_second_time() {
        for event in Event::ALL {
            for (_, to) in event.moves() {
                assert!(
                    !matches!(next(to, event), Outcome::To(_)),
                    "{event} moves a job out of {to}, the state it has just brought it to"
                );
            }
        }
    }

    #[test]
    fn a_finished_job_only_ever_leaves_by_delete() {
        for event in Event::ALL {
            let moves = matches!(next(State::Finished, event), Outcome::To(_) | Outcome::Gone);
            assert_eq!(moves, event == Event::Delete, "{event}");
        }
    }

    #[test]
    fn every_state_but_ready_is_reached_and_every_state_leads_to_the_end() {
        let reached: BTreeSet<State> = Event::ALL
            .into_iter()
            .flat_map(Event::moves)
            .map(|(_, to)| to)
            .collect();
        for state in State::ALL {
            assert_eq!(reached.contains(&state), state != State::Ready, "{state}");
        }
        for start in State::ALL {
            let mut seen = BTreeSet::from([start]);
            let mut frontier = vec![start];
            while let Some(state) = frontier.pop() {
                for event in Event::ALL {
                    if let Outcome::To(to) = next(state, event)
                        && seen.insert(to)
                    {
                        frontier.push(to);
                    }
                }
            }
            assert!(seen.contains(&State::Deleting), "{start} never ends");
        }
    }

    #[test]
    fn a_slot_is_only_left_by_the_events_that_end_a_run() {
        let ends_a_run = [
            Event::Finish,
            Event::Rest,
            Event::Halted,
            Event::Fail,
            Event::Stop,
        ];
        for event in Event::ALL {
            for (from, to) in event.moves() {
                if from.is_running() && !to.is_running() {
                    assert!(ends_a_run.contains(&event), "{event} takes {from} to {to}");
                }
            }
        }
    }

    #[test]
    fn names_read_back() {
        for state in State::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        for event in Event::ALL {
            assert_eq!(event.as_str().parse(), Ok(event));
        }
    }

    /// Checks the table that `ARCHITECTURE.md` holds between two markers. `UPDATE=1` writes it.
    #[test]
    fn the_table_in_the_architecture_page_is_this_one() {
        const BEGIN: &str = "<!-- state table: begin -->\n";
        const END: &str = "<!-- state table: end -->";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ARCHITECTURE.md");
        let page =
            std::fs::read_to_string(path).expect("ARCHITECTURE.md is at the root of the project");
        let begin = page
            .find(BEGIN)
            .expect("the page has the marker at which the table begins")
            + BEGIN.len();
        let end = page
            .find(END)
            .expect("the page has the marker at which the table ends");
        let table = table_as_markdown();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, format!("{}{table}{}", &page[..begin], &page[end..]))
                .expect("the page can be written");
        } else {
            assert_eq!(
                &page[begin..end],
                table,
                "run the tests of `domain` once with UPDATE=1"
            );
        }
    }
}
