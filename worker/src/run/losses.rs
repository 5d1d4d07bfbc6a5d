//! Receivers that are lost one after the other.

/// Counts the receivers that were lost since the last durable progress. Without this, a receiver that crashes on its
/// input would be replaced for ever under one lease.
#[derive(Debug, Default)]
pub(super) struct Losses {
    without_progress: u32,
    most_durable: u64,
}

impl Losses {
    /// Records one more lost receiver, with so many bytes durable. Returns the number of losses without progress.
    pub(super) fn another(&mut self, bytes_durable: u64) -> u32 {
        if bytes_durable > self.most_durable {
            self.most_durable = bytes_durable;
            self.without_progress = 0;
        }
        self.without_progress += 1;
        self.without_progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_durable_bytes_forgive_a_lost_receiver() {
        let mut losses = Losses::default();
        assert_eq!(losses.another(0), 1);
        assert_eq!(losses.another(0), 2);
        assert_eq!(losses.another(100), 1);
        assert_eq!(losses.another(100), 2);
        assert_eq!(
            losses.another(50),
            3,
            "what was flushed again is no progress"
        );
        assert_eq!(losses.another(101), 1);
    }
}
