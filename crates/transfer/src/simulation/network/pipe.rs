//! One direction of a stream: bytes in order, and only so many under way.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Buf as _, Bytes};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use transport::{RecvStream, SendStream};

use super::link::{End, Link};

/// Most bytes that go at once.
const SEGMENT: usize = 16 << 10;

pub(super) fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the connection is lost")
}

/// One direction of a stream.
#[derive(Debug)]
struct Pipe {
    link: Arc<Link>,
    from: End,
    carries_data: bool,
    state: Mutex<Flow>,
    /// Told when there is more to read.
    more: Notify,
    /// Told when there is room to write.
    room: Notify,
}

#[derive(Debug, Default)]
struct Flow {
    under_way: VecDeque<(Instant, Part)>,
    bytes: usize,
    reader_is_gone: bool,
    is_finished: bool,
}

#[derive(Debug)]
enum Part {
    Bytes(Bytes),
    End,
    /// The stream was dropped without an end.
    Torn,
}

pub(super) fn pipe(link: &Arc<Link>, from: End, carries_data: bool) -> (Writer, Reader) {
    let pipe = Arc::new(Pipe {
        link: Arc::clone(link),
        from,
        carries_data,
        state: Mutex::default(),
        more: Notify::new(),
        room: Notify::new(),
    });
    (Writer(Arc::clone(&pipe)), Reader(pipe))
}

impl Pipe {
    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.state.lock().unwrap()
    }

    fn end(&self, part: Part) {
        let arrival = self.link.arrival(self.from, 0);
        let mut flow = self.flow();
        if !flow.is_finished {
            flow.is_finished = true;
            flow.under_way.push_back((arrival, part));
            drop(flow);
            self.more.notify_one();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Writer(Arc<Pipe>);

impl Writer {
    async fn write(&self, piece: Bytes) -> io::Result<()> {
        let pipe = &self.0;
        let window = pipe.link.network.state().shape.window;
        let gone = pipe.link.gone(pipe.from);
        loop {
            if gone.is_cancelled() {
                return Err(lost());
            }
            {
                let flow = pipe.flow();
                if flow.reader_is_gone {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                if flow.bytes == 0 || flow.bytes + piece.len() <= window {
                    break;
                }
            }
            tokio::select! {
                biased;
                () = gone.cancelled() => return Err(lost()),
                () = pipe.room.notified() => {}
            }
        }
        let piece = if pipe.carries_data {
            let Some(piece) = pipe.link.carry(piece) else {
                pipe.end(Part::Torn);
                return Err(lost());
            };
            piece
        } else {
            pipe.link.carry_control(piece)
        };
        let arrival = pipe.link.arrival(pipe.from, piece.len());
        let mut flow = pipe.flow();
        flow.bytes += piece.len();
        flow.under_way.push_back((arrival, Part::Bytes(piece)));
        drop(flow);
        pipe.more.notify_one();
        Ok(())
    }
}

impl SendStream for Writer {
    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(SEGMENT) {
            self.write(Bytes::copy_from_slice(piece)).await?;
        }
        Ok(())
    }

    async fn write_chunk(&mut self, bytes: Bytes) -> io::Result<()> {
        self.write_all(&bytes).await
    }

    fn abandon(self) {}

    async fn finish(&mut self) -> io::Result<()> {
        self.0.end(Part::End);
        Ok(())
    }

    async fn is_delivered(&mut self) -> bool {
        false
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.end(Part::Torn);
    }
}

#[derive(Debug)]
pub(crate) struct Reader(Arc<Pipe>);

impl RecvStream for Reader {
    async fn read_exact_or_end(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_some(&mut buffer[filled..]).await? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        Ok(true)
    }

    async fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let pipe = &self.0;
        let gone = pipe.link.gone(pipe.from.other());
        loop {
            if gone.is_cancelled() {
                return Err(lost());
            }
            let partition = pipe.link.network.state().partition();
            let arrival = {
                let mut flow = pipe.flow();
                let flow = &mut *flow;
                match flow.under_way.front_mut() {
                    Some((arrival, part)) if *arrival <= Instant::now() && partition.is_none() => {
                        let bytes = match part {
                            Part::Bytes(bytes) => bytes,
                            Part::End => return Ok(0),
                            Part::Torn => return Err(io::ErrorKind::ConnectionAborted.into()),
                        };
                        let read = bytes.len().min(buffer.len());
                        bytes.copy_to_slice(&mut buffer[..read]);
                        if bytes.is_empty() {
                            flow.under_way.pop_front();
                        }
                        flow.bytes -= read;
                        pipe.room.notify_one();
                        return Ok(read);
                    }
                    Some((arrival, _)) => partition.max(Some(*arrival)),
                    None => None,
                }
            };
            tokio::select! {
                biased;
                () = gone.cancelled() => return Err(lost()),
                () = at(arrival), if arrival.is_some() => {}
                () = pipe.more.notified(), if arrival.is_none() => {}
            }
        }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.flow().reader_is_gone = true;
        self.0.room.notify_one();
    }
}
