//! The handshake: takes connections, asks who they are, and lets in those whose ticket fits the admission.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chunks::ChunkIndex;
use service::door::{Limits, Place};
use tokio::time::Instant;
use transport::{Accepted, Listener, RecvStream, SendStream};

use super::Shared;
use super::disks::Disks;
use super::session::Session;
use crate::cpu_pool::blocking;
use crate::protocol::{
    DecodeError, ENOUGH_PROBE_BYTES, OfferedDisk, PAGE_RANGES, PROBE_LASTS, PROBE_LASTS_AT_MOST,
    PROBE_SETTLES, ToReceiver, ToSender, VERSION, decode_control, version_of_hello,
};
use crate::{Ticket, TransferError, control};

/// Time that a sender with a proved certificate has for its first message: it may be trying the other transport
/// meanwhile.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for the last word to arrive.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// The places of a receiver, and the patience with those who have not proved that they have the run's certificate.
#[derive(Debug, Clone, Copy)]
pub struct HandshakeLimits {
    /// Connections at once. One of the known ones sends; others are on their way in or out, or become data streams of
    /// another in a moment.
    pub places: Limits,
    /// From a connection's beginning to the end of its handshake.
    pub patience: Duration,
    /// Strangers from which on a connection over QUIC must first show that its address is its own.
    pub unchecked_strangers: usize,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        Self {
            places: Limits {
                strangers: 64,
                // A sender over TCP opens all its data streams at once.
                strangers_per_address: 32,
                known: 64,
                known_per_caller: 64,
            },
            patience: Duration::from_secs(5),
            unchecked_strangers: 4,
        }
    }
}

/// Bytes of the reason for a transport that are kept.
const LONGEST_REASON: usize = 200;

/// Longest probe on the whole, and the size of one read of it.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1500);
const PROBE_BUFFER: usize = 256 << 10;

/// Takes connections until the server closes. A newer one of the same epoch replaces the older: its process was
/// restarted, or it has noticed first that the connection is dead.
pub(super) async fn accept<L: Listener>(listener: Arc<L>, shared: Arc<Shared>) {
    let limits = shared.config.handshake;
    loop {
        let incoming = tokio::select! {
            biased;
            () = shared.closing.cancelled() => return,
            incoming = listener.accept() => match incoming {
                Some(incoming) => incoming,
                None => return,
            },
        };
        let is_crowded = shared.door.strangers() >= limits.unchecked_strangers;
        let incoming = match is_crowded {
            true => L::check_address(incoming),
            false => Some(incoming),
        };
        let Some(incoming) = incoming else { continue };
        let place = shared.door.enter(L::remote_address(&incoming).ip());
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let ended = tokio::select! {
                biased;
                () = shared.closing.cancelled() => return,
                _ = place.given_up() => return,
                ended = serve::<L>(incoming, &place, &shared) => ended,
            };
            if let Err(error) = ended {
                tracing::info!(%error, "a sender's connection ended");
            }
        });
    }
}

async fn serve<L: Listener>(
    incoming: L::Incoming,
    place: &Place,
    shared: &Arc<Shared>,
) -> Result<(), TransferError> {
    let address = L::remote_address(&incoming).to_string();
    let lost = |error: &dyn std::fmt::Display| TransferError::Connection {
        address: address.clone(),
        message: error.to_string(),
    };
    let limit = shared.config.handshake.patience;
    let Some(proved) = place.in_time(limit, L::prove(incoming)).await else {
        return Ok(());
    };
    let proved = proved.map_err(|error| lost(&error))?;
    place.trust();
    let greeting = tokio::time::timeout(HELLO_TIMEOUT, L::arrive(proved))
        .await
        .map_err(|_| lost(&"it does not say what it wants"))?;
    let Some((mut connection, mut to_sender, mut from_sender)) =
        greeting.map_err(|error| lost(&error))?
    else {
        return Ok(());
    };

    let outcome = match welcome(
        shared,
        &address,
        &mut connection,
        &mut to_sender,
        &mut from_sender,
    )
    .await
    {
        // It has taken the other transport.
        Ok(None) => return Ok(()),
        Ok(Some(session)) => {
            let received = session
                .receive(shared, &mut connection, &mut to_sender, &mut from_sender)
                .await;
            shared.leave(&session);
            received.inspect_err(|error| shared.fail(error))
        }
        Err(error) => {
            // A sender that can't be let in is no failure of the job, unless nobody but an upgrade can help.
            if matches!(error, TransferError::Version { .. }) {
                shared.fail(&error);
            }
            Err(error)
        }
    };
    match &outcome {
        Ok(()) | Err(TransferError::Connection { .. }) => {}
        Err(error) => {
            let refused = ToSender::Refused(error.to_remote());
            let _gone =
                tokio::time::timeout(GOODBYE_TIMEOUT, control::write(&mut to_sender, &refused))
                    .await;
        }
    }
    // The last word must arrive before the connection goes.
    let goodbye = transport::say_goodbye(&mut to_sender, &mut from_sender);
    let _gone = tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await;
    outcome
}

/// Hello and Welcome. `None` if the sender leaves before: it tries both transports and takes one.
async fn welcome(
    shared: &Arc<Shared>,
    address: &str,
    connection: &mut impl Accepted,
    to_sender: &mut impl SendStream,
    from_sender: &mut impl RecvStream,
) -> Result<Option<Arc<Session>>, TransferError> {
    let Some(mut body) = first_message(from_sender).await? else {
        return Ok(None);
    };
    if let Ok(ToReceiver::Probe { ticket }) = decode_control(&body) {
        let disks = admitted(shared)?;
        check_ticket(&ticket, &disks)?;
        let answer = measure(connection).await;
        let answered =
            tokio::time::timeout(HELLO_TIMEOUT, control::write(to_sender, &answer)).await;
        match (answered, first_message(from_sender).await?) {
            (Ok(Ok(())), Some(next)) => body = next,
            _ => return Ok(None),
        }
    }
    match version_of_hello(&body) {
        Some(VERSION) => {}
        Some(theirs) => {
            return Err(TransferError::Version {
                ours: VERSION,
                theirs,
            });
        }
        None => {
            return Err(TransferError::Protocol(
                "the sender begins with something else than Hello".to_owned(),
            ));
        }
    }
    let hello =
        decode_control(&body).map_err(|error| TransferError::Protocol(error.to_string()))?;
    let ToReceiver::Hello {
        ticket,
        disks: offered,
        mut transport_reason,
        ..
    } = hello
    else {
        return Err(TransferError::Protocol("a Hello is no Hello".to_owned()));
    };
    let disks = admitted(shared)?;
    check_ticket(&ticket, &disks)?;
    check_offer(&offered, &disks)?;
    // It is shown to people: what is longer is no reason.
    transport_reason.truncate(transport_reason.floor_char_boundary(LONGEST_REASON));
    let transport = (connection.kind(), transport_reason);
    let (of_session, address) = (Arc::clone(shared), address.to_owned());
    let offers = offered.clone();
    let begun = blocking(move || Session::begin(&of_session, disks, address, transport, &offers));
    let session = begun.await?;
    if let Err(error) = report_present(&session, &offered, to_sender).await {
        shared.leave(&session);
        return Err(error);
    }
    Ok(Some(Arc::new(session)))
}

/// Reads a sender's first message; `None` if it leaves instead.
async fn first_message(
    from_sender: &mut impl RecvStream,
) -> Result<Option<Vec<u8>>, TransferError> {
    let body = tokio::time::timeout(HELLO_TIMEOUT, control::read_body(from_sender))
        .await
        .map_err(|_| TransferError::Protocol("no Hello came".to_owned()))?;
    match body {
        Ok(body) => Ok(Some(body)),
        Err(
            control::ReadError::Connection(_) | control::ReadError::Malformed(DecodeError::Changed),
        ) => Ok(None),
        Err(control::ReadError::Malformed(error)) => {
            Err(TransferError::Protocol(error.to_string()))
        }
    }
}

fn admitted(shared: &Shared) -> Result<Arc<Disks>, TransferError> {
    shared
        .admitted()
        .ok_or_else(|| TransferError::Ticket("nobody is admitted yet".to_owned()))
}

/// Takes the stream of a probe and counts what comes, once it has settled, for a moment.
async fn measure(connection: &mut impl Accepted) -> ToSender {
    let (mut bytes, mut counted) = (0_u64, Duration::ZERO);
    let measuring = async {
        let mut stream = connection.accept_data().await.ok()?;
        let mut buffer = vec![0; PROBE_BUFFER];
        let began = Instant::now();
        let mut since = None;
        loop {
            let read = stream.read_some(&mut buffer).await.ok()?;
            let now = Instant::now();
            match since {
                None if now - began >= PROBE_SETTLES => since = Some(now),
                None => {}
                Some(since) => {
                    bytes += read as u64;
                    counted = now - since;
                }
            }
            let is_enough = counted >= PROBE_LASTS && bytes >= ENOUGH_PROBE_BYTES;
            if read == 0 || is_enough || counted >= PROBE_LASTS_AT_MOST {
                return Some(());
            }
        }
    };
    // One that stands still is measured too: by what came until now.
    let _ended = tokio::time::timeout(PROBE_TIMEOUT, measuring).await;
    ToSender::Probed {
        bytes,
        micros: u64::try_from(counted.as_micros()).unwrap_or(u64::MAX),
    }
}

/// Reports what is durably here, disk by disk and page by page.
async fn report_present(
    session: &Session,
    offered: &[OfferedDisk],
    to_sender: &mut impl SendStream,
) -> Result<(), TransferError> {
    let welcome = ToSender::Welcome {
        version: VERSION,
        chunk_bytes: session.disks.chunk_bytes,
    };
    session.send(to_sender, &welcome).await?;
    for offer in offered {
        let mut next = Some(ChunkIndex(0));
        while let Some(first) = next {
            let (of_page, index) = (Arc::clone(&session.disks), offer.index);
            let (page, after) = blocking(move || of_page.find(index)?.page(first)).await?;
            session.send(to_sender, &ToSender::Present(page)).await?;
            next = after;
        }
        let index = offer.index;
        let unchanged: Vec<_> = session.disks.find(index)?.unchanged();
        for part in unchanged.chunks(PAGE_RANGES) {
            let chunks = part.to_vec();
            session
                .send(to_sender, &ToSender::Unchanged { index, chunks })
                .await?;
        }
    }
    session.send(to_sender, &ToSender::PresentEnd).await
}

fn check_ticket(bytes: &[u8], disks: &Disks) -> Result<(), TransferError> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let admission = &disks.admission;
    let ticket = Ticket::verify(bytes, &admission.secret, now)
        .map_err(|error| TransferError::Ticket(error.to_string()))?;
    if ticket.epoch != admission.epoch {
        return Err(TransferError::Fenced {
            epoch: ticket.epoch,
        });
    }
    if ticket.job_id != admission.job_id || ticket.run != admission.run {
        return Err(TransferError::Ticket("it names another run".to_owned()));
    }
    Ok(())
}

fn check_offer(offered: &[OfferedDisk], disks: &Disks) -> Result<(), TransferError> {
    let expected = &disks.admission.disks;
    let fits = offered.len() == expected.len()
        && expected.iter().all(|disk| {
            let same = |offer: &&OfferedDisk| {
                offer.index == disk.index && offer.size_bytes == disk.source_bytes
            };
            offered.iter().filter(same).count() == 1
        });
    if fits {
        Ok(())
    } else {
        Err(TransferError::Protocol(
            "the sender's disks are not those of the job".to_owned(),
        ))
    }
}

#[cfg(test)]
mod tests;
