//! A network in memory, in virtual time: latency, bandwidth, windows, and what goes wrong with networks.
//!
//! It behaves like the real carriers. Bytes of a stream come in order, and only so many may be under way. An end whose peer says nothing for 15 s
//! takes the connection for lost, by itself and in its own time. An end that goes tells the other, if that message gets through; a machine
//! that loses power tells nobody.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Random, Trace};
use crate::carrier::{self, Control, RecvStream, SendStream};

/// Where everybody is.
pub(crate) const ADDRESS: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 8700));

/// As both real carriers have it.
const LOST_AFTER: Duration = Duration::from_secs(15);
/// How far apart the two ends' clocks for that may be.
const KEEP_ALIVE: Duration = Duration::from_secs(4);

const SEGMENT: usize = 16 << 10;
const WAITING: usize = 16;

/// What a network can do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) latency: Duration,
    /// Of each connection, in each direction.
    pub(crate) bytes_per_sec: u64,
    /// Bytes of a stream that may be under way.
    pub(crate) window: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Network(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    shape: Shape,
    random: Random,
    trace: Trace,
    listener: Option<mpsc::Sender<Incoming>>,
    links: Vec<Weak<Link>>,
    next_link: u32,
    partitioned_until: Option<Instant>,
    /// After so many bytes of data streams the connection that carries them is cut.
    cut_after: Option<usize>,
    /// After so many bytes of data streams the one that carries them breaks, and the others do not.
    tear_after: Option<usize>,
    /// After so many bytes of data streams a bit is flipped.
    flip_after: Option<usize>,
    flips: u32,
    data_bytes: u64,
    /// How many connections have carried any of them.
    carriers: u64,
}

impl Network {
    pub(crate) fn new(shape: Shape, random: Random, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(State {
            shape,
            random,
            trace,
            listener: None,
            links: Vec::new(),
            next_link: 0,
            partitioned_until: None,
            cut_after: None,
            tear_after: None,
            flip_after: None,
            flips: 0,
            data_bytes: 0,
            carriers: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Takes connections from here on, in the place of whoever did.
    pub(crate) fn listen(&self) -> Listener {
        let (sender, arriving) = mpsc::channel(WAITING);
        self.state().listener = Some(sender);
        Listener {
            arriving: tokio::sync::Mutex::new(arriving),
            closed: CancellationToken::new(),
        }
    }

    /// Connects and opens the control stream. As long as nothing gets through it waits.
    pub(crate) async fn connect(&self) -> io::Result<(carrier::Client, Control)> {
        let there_and_back = 2 * self.state().shape.latency;
        sleep(there_and_back).await;
        self.reunited().await;
        let (link, listener) = {
            let mut state = self.state();
            let listener = state.listener.clone();
            let link = Arc::new(Link {
                number: state.next_link,
                network: self.clone(),
                gone: [CancellationToken::new(), CancellationToken::new()],
                busy_until: Mutex::new([Instant::now(); 2]),
                silent: Mutex::new(false),
                has_carried: AtomicBool::new(false),
            });
            state.next_link += 1;
            state.links.retain(|link| link.strong_count() > 0);
            state.links.push(Arc::downgrade(&link));
            state.trace.note(|| format!("connection {}", link.number));
            (link, listener)
        };
        let (to_receiver, at_receiver) = pipe(&link, End::Sender, false);
        let (to_sender, at_sender) = pipe(&link, End::Receiver, false);
        let (streams, arriving) = mpsc::channel(WAITING);
        let client = Client {
            link: Arc::clone(&link),
            streams,
        };
        let incoming = Incoming {
            accepted: Accepted { link, arriving },
            control: (to_sender, at_receiver),
        };
        let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
        listener
            .try_send(incoming)
            .map_err(|_| io::ErrorKind::ConnectionRefused)?;
        let control = (
            SendStream::Simulated(to_receiver),
            RecvStream::Simulated(at_sender),
        );
        Ok((carrier::Client::Simulated(client), control))
    }

    /// Waits until something gets through.
    async fn reunited(&self) {
        loop {
            let Some(until) = self.state().partition() else {
                return;
            };
            sleep_until(until).await;
        }
    }

    fn links(&self) -> Vec<Arc<Link>> {
        self.state()
            .links
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Resets every connection.
    pub(crate) fn cut(&self) {
        self.links().iter().for_each(|link| link.reset());
    }

    /// Resets a connection when so many bytes more have been sent.
    pub(crate) fn cut_after(&self, bytes: usize) {
        self.state().cut_after = Some(bytes);
    }

    /// Breaks one data stream when so many bytes more have been sent.
    pub(crate) fn tear_after(&self, bytes: usize) {
        self.state().tear_after = Some(bytes);
    }

    /// Flips a bit when so many bytes more have been sent.
    pub(crate) fn flip_after(&self, bytes: usize) {
        self.state().flip_after = Some(bytes);
    }

    /// How many bits were flipped.
    pub(crate) fn flips(&self) -> u32 {
        self.state().flips
    }

    /// Bytes that were given to data streams.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.state().data_bytes
    }

    /// How many connections have carried bytes of data streams.
    pub(crate) fn carriers(&self) -> u64 {
        self.state().carriers
    }

    /// Nothing gets through for so long.
    pub(crate) fn partition(&self, lasts: Duration) {
        let until = Instant::now() + lasts;
        {
            let mut state = self.state();
            state.partitioned_until = state.partitioned_until.max(Some(until));
        }
        for link in self.links() {
            for end in [End::Sender, End::Receiver] {
                link.notice_silence(end);
            }
        }
    }

    /// From here on, nobody hears it when an end of a connection that stands now goes: its machine has lost power.
    pub(crate) fn silence(&self) {
        for link in self.links() {
            *link.silent.lock().unwrap() = true;
        }
    }
}

impl State {
    /// Until when nothing gets through, if that is so now.
    fn partition(&self) -> Option<Instant> {
        self.partitioned_until
            .filter(|until| *until > Instant::now())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Sender,
    Receiver,
}

impl End {
    fn other(self) -> Self {
        match self {
            Self::Sender => Self::Receiver,
            Self::Receiver => Self::Sender,
        }
    }
}

/// A connection.
#[derive(Debug)]
struct Link {
    number: u32,
    network: Network,
    /// For each end: the connection is over.
    gone: [CancellationToken; 2],
    /// When what was sent from each end until now is on its way.
    busy_until: Mutex<[Instant; 2]>,
    silent: Mutex<bool>,
    has_carried: AtomicBool,
}

impl Link {
    fn gone(&self, end: End) -> &CancellationToken {
        &self.gone[end as usize]
    }

    fn lose(&self, end: End, why: &str) {
        if !self.gone(end).is_cancelled() {
            let number = self.number;
            let state = self.network.state();
            state
                .trace
                .note(|| format!("connection {number} is over for the {end:?}: {why}"));
            drop(state);
            self.gone(end).cancel();
        }
    }

    fn reset(&self) {
        self.lose(End::Sender, "reset");
        self.lose(End::Receiver, "reset");
    }

    /// An end that hears nothing takes the connection for lost after a while.
    fn notice_silence(self: &Arc<Self>, end: End) {
        let phase = self.network.state().random.up_to(KEEP_ALIVE);
        let (link, began) = (Arc::clone(self), Instant::now());
        tokio::spawn(async move {
            sleep(LOST_AFTER + phase).await;
            let peer_lives = !link.gone(end.other()).is_cancelled();
            let heard = link.network.state().partition().is_none() && peer_lives;
            if !heard {
                let silence = began.elapsed();
                link.lose(end, &format!("nothing heard for {silence:?}"));
            }
        });
    }

    /// One end goes, and the other hears of it, soon or late.
    fn leave(self: &Arc<Self>, end: End) {
        self.lose(end, "it left");
        let other = end.other();
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if self.gone(other).is_cancelled() {
            return;
        }
        let link = Arc::clone(self);
        let latency = self.network.state().shape.latency;
        runtime.spawn(async move {
            sleep(latency).await;
            let is_silent = *link.silent.lock().unwrap();
            if is_silent || link.network.state().partition().is_some() {
                link.notice_silence(other);
            } else {
                link.lose(other, "the other end left");
            }
        });
    }

    /// When bytes that are sent now arrive.
    fn arrival(&self, from: End, bytes: usize) -> Instant {
        let shape = self.network.state().shape;
        let mut busy_until = self.busy_until.lock().unwrap();
        let busy_until = &mut busy_until[from as usize];
        let takes = Duration::from_secs_f64(bytes as f64 / shape.bytes_per_sec as f64);
        *busy_until = (*busy_until).max(Instant::now()) + takes;
        *busy_until + shape.latency
    }

    /// What becomes of a piece of a data stream on its way; `None` if the stream breaks under it.
    fn carry(&self, piece: Bytes) -> Option<Bytes> {
        let mut state = self.network.state();
        state.data_bytes += piece.len() as u64;
        if !self.has_carried.swap(true, Ordering::Relaxed) {
            state.carriers += 1;
        }
        let is_reached = |after: &mut Option<usize>| match after {
            Some(left) if *left < piece.len() => after.take(),
            Some(left) => {
                *left -= piece.len();
                None
            }
            None => None,
        };
        if is_reached(&mut state.cut_after).is_some() {
            drop(state);
            self.reset();
            return None;
        }
        if is_reached(&mut state.tear_after).is_some() {
            return None;
        }
        let flip = is_reached(&mut state.flip_after);
        let Some(at) = flip else { return Some(piece) };
        let mut bytes = piece.to_vec();
        let bit = state.random.below(8);
        bytes[at] ^= 1 << bit;
        state.flips += 1;
        let number = self.number;
        state
            .trace
            .note(|| format!("a bit flips on connection {number}"));
        Some(bytes.into())
    }
}

fn lost() -> io::Error {
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

fn pipe(link: &Arc<Link>, from: End, carries_data: bool) -> (Writer, Reader) {
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
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(SEGMENT) {
            self.write(Bytes::copy_from_slice(piece)).await?;
        }
        Ok(())
    }

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
            piece
        };
        let arrival = pipe.link.arrival(pipe.from, piece.len());
        let mut flow = pipe.flow();
        flow.bytes += piece.len();
        flow.under_way.push_back((arrival, Part::Bytes(piece)));
        drop(flow);
        pipe.more.notify_one();
        Ok(())
    }

    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.0.end(Part::End);
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.end(Part::Torn);
    }
}

#[derive(Debug)]
pub(crate) struct Reader(Arc<Pipe>);

impl Reader {
    /// Fills the buffer; `false` if the stream was finished before its first byte.
    pub(crate) async fn read_exact_or_end(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
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

    /// Reads what has come; 0 at the end of the stream.
    pub(crate) async fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
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

    /// Reads until the other side has closed.
    pub(crate) async fn drain(&mut self) {
        let mut ignored = [0; 512];
        while matches!(self.read_some(&mut ignored).await, Ok(read) if read > 0) {}
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

/// The sender's end of a connection.
#[derive(Debug)]
pub(crate) struct Client {
    link: Arc<Link>,
    streams: mpsc::Sender<Reader>,
}

impl Client {
    pub(crate) fn open_data(&self) -> io::Result<Writer> {
        let (writer, reader) = pipe(&self.link, End::Sender, true);
        self.streams.try_send(reader).map_err(|_| lost())?;
        Ok(writer)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.link.leave(End::Sender);
    }
}

/// The receiver's end of a connection.
#[derive(Debug)]
pub(crate) struct Accepted {
    link: Arc<Link>,
    arriving: mpsc::Receiver<Reader>,
}

impl Accepted {
    /// The next data stream. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> io::Result<Reader> {
        let gone = self.link.gone(End::Receiver);
        tokio::select! {
            biased;
            () = gone.cancelled() => Err(lost()),
            Some(stream) = self.arriving.recv() => Ok(stream),
            // The sender's end has gone; this one has yet to hear of it.
            else => { gone.cancelled().await; Err(lost()) }
        }
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.link.leave(End::Receiver);
    }
}

/// A connection that has come and was not yet taken.
#[derive(Debug)]
pub(crate) struct Incoming {
    accepted: Accepted,
    control: (Writer, Reader),
}

impl Incoming {
    pub(crate) fn arrive(self) -> (Accepted, Writer, Reader) {
        (self.accepted, self.control.0, self.control.1)
    }
}

/// The receiver's listener.
#[derive(Debug)]
pub(crate) struct Listener {
    arriving: tokio::sync::Mutex<mpsc::Receiver<Incoming>>,
    closed: CancellationToken,
}

impl Listener {
    pub(crate) async fn accept(&self) -> Option<Incoming> {
        let mut arriving = self.arriving.lock().await;
        tokio::select! {
            biased;
            () = self.closed.cancelled() => None,
            incoming = arriving.recv() => incoming,
        }
    }

    pub(crate) fn close(&self) {
        self.closed.cancel();
    }
}
