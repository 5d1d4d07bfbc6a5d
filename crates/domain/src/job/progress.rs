//! A job's `Progress`, 0–100. It is measured and never falls within a run. Only a delivered image makes it 100. A job
//! that waits for its next run has delivered.
//!
//! A lost lease takes a job back to Preparing within the same run, so the state alone would make progress fall. Two
//! values never fall within a run: the furthest phase that the run reached and the share of durable bytes. Progress is
//! computed from these two.

use super::State;

/// Percentage at which Syncing ends and Processing begins.
const COPIED: f64 = 90.0;
/// Percentage at which Processing ends and Cleaning begins.
const BUILT: f64 = 97.0;

/// Returns the progress in percent, with two decimals. `furthest` is the furthest running state that the present run
/// reached.
pub fn progress(state: State, furthest: State, bytes_durable: u64, bytes_total: u64) -> f64 {
    if state == State::Finished {
        return 100.0;
    }
    let percent = match furthest {
        State::Syncing => COPIED * share(bytes_durable, bytes_total),
        State::Processing => COPIED,
        State::Cleaning => BUILT,
        // An image was delivered, and the next run has not begun.
        State::Waiting => 100.0,
        // The bytes of an earlier run don't count until this run has verified them.
        State::Ready
        | State::Preparing
        | State::Parked
        | State::Stopped
        | State::InError
        | State::Finished
        | State::Expired
        | State::Deleting => 0.0,
    };
    (percent * 100.0).floor() / 100.0
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a share is shown with two decimals; disks end far below 2^52 bytes"
)]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part.min(whole) as f64 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_share_of_durable_bytes_is_the_progress_of_syncing() {
        assert!((progress(State::Syncing, State::Syncing, 1, 2) - 45.0).abs() < 1e-9);
        assert!((progress(State::Stopped, State::Syncing, 1, 2) - 45.0).abs() < 1e-9);
        assert!(progress(State::Preparing, State::Preparing, 1, 2).abs() < 1e-9);
    }

    #[test]
    fn a_lost_lease_takes_nothing_back() {
        let before = progress(State::Processing, State::Processing, 10, 10);
        let after = progress(State::Preparing, State::Processing, 10, 10);
        assert!((before - after).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn it_never_falls_and_is_100_only_when_finished(
            steps in prop::collection::vec((0_u64..1000, 0_usize..4, 0_usize..4), 1..30),
        ) {
            const PHASES: [State; 4] = [State::Preparing, State::Syncing, State::Processing, State::Cleaning];
            let (mut durable, mut furthest, mut last) = (0, 0, 0.0);
            for (more, reached, state) in steps {
                durable += more;
                furthest = furthest.max(reached);
                let now = progress(PHASES[state], PHASES[furthest], durable, 5000);
                prop_assert!(now >= last && now < 100.0);
                last = now;
            }
            prop_assert!(progress(State::Finished, State::Cleaning, durable, 5000) > 99.99);
        }
    }
}
