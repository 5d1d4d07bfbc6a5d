//! The right of an agent to send to one run: job, run, epoch and expiry under a keyed BLAKE3 code that only worker and
//! receiver can make.

use domain::{Epoch, JobId, Run};

/// The secret of one epoch's tickets, 32 bytes. Does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketSecret([u8; 32]);

impl std::fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketSecret(…)")
    }
}

impl TicketSecret {
    /// A new secret.
    pub fn generate() -> Self {
        use ring::rand::SecureRandom as _;
        let mut bytes = [0; 32];
        ring::rand::SystemRandom::new()
            .fill(&mut bytes)
            .expect("the operating system gives randomness");
        Self(bytes)
    }

    /// A secret that came over the wire; `None` if it does not have 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes, for the wire.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The content of a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The job.
    pub job_id: JobId,
    /// The run.
    pub run: Run,
    /// The epoch under which it was made.
    pub epoch: Epoch,
    /// Its end, in seconds since 1970.
    pub expires_unix_secs: i64,
}

/// The reason why a ticket is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketRefused {
    /// It was not made with this secret, or was changed.
    #[error("the ticket was not made for this run")]
    Forged,
    /// Its time is over.
    #[error("the ticket has expired")]
    Expired,
}

const CODE: usize = 32;
const FIXED: usize = 4 + 8 + 8;

impl Ticket {
    /// The ticket as bytes, with its code.
    pub fn sign(&self, secret: &TicketSecret) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + 32 + CODE);
        bytes.extend(self.run.0.to_le_bytes());
        bytes.extend(self.epoch.0.to_le_bytes());
        bytes.extend(self.expires_unix_secs.to_le_bytes());
        bytes.extend(self.job_id.as_str().as_bytes());
        let code = blake3::keyed_hash(&secret.0, &bytes);
        bytes.extend(code.as_bytes());
        bytes
    }

    /// Reads a ticket.
    ///
    /// # Errors
    /// [`TicketRefused`].
    pub fn verify(
        bytes: &[u8],
        secret: &TicketSecret,
        now_unix_secs: i64,
    ) -> Result<Self, TicketRefused> {
        let split = bytes
            .len()
            .checked_sub(CODE)
            .filter(|&split| split > FIXED)
            .ok_or(TicketRefused::Forged)?;
        let (body, code) = bytes.split_at(split);
        let code: [u8; CODE] = code.try_into().map_err(|_| TicketRefused::Forged)?;
        // blake3::Hash compares in constant time.
        if blake3::keyed_hash(&secret.0, body) != blake3::Hash::from(code) {
            return Err(TicketRefused::Forged);
        }
        let (run, rest) = body.split_first_chunk::<4>().ok_or(TicketRefused::Forged)?;
        let (epoch, rest) = rest.split_first_chunk::<8>().ok_or(TicketRefused::Forged)?;
        let (expires, job_id) = rest.split_first_chunk::<8>().ok_or(TicketRefused::Forged)?;
        let ticket = Self {
            job_id: std::str::from_utf8(job_id)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or(TicketRefused::Forged)?,
            run: Run(i32::from_le_bytes(*run)),
            epoch: Epoch(i64::from_le_bytes(*epoch)),
            expires_unix_secs: i64::from_le_bytes(*expires),
        };
        if ticket.expires_unix_secs < now_unix_secs {
            Err(TicketRefused::Expired)
        } else {
            Ok(ticket)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_its_secret_its_words_and_its_time() {
        let secret = TicketSecret::generate();
        let ticket = Ticket {
            job_id: JobId::generate(),
            run: Run(2),
            epoch: Epoch(7),
            expires_unix_secs: 1000,
        };
        let bytes = ticket.sign(&secret);
        assert_eq!(Ticket::verify(&bytes, &secret, 1000), Ok(ticket));
        assert_eq!(
            Ticket::verify(&bytes, &secret, 1001),
            Err(TicketRefused::Expired)
        );
        let other = TicketSecret::generate();
        let forged = Err(TicketRefused::Forged);
        assert_eq!(Ticket::verify(&bytes, &other, 1000), forged);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(Ticket::verify(&changed, &secret, 1000), forged, "byte {at}");
            assert_eq!(Ticket::verify(&bytes[..at], &secret, 1000), forged);
        }
    }
}
