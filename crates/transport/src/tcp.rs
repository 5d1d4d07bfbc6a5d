//! TLS over TCP: a connection for the control stream and one for each data stream, held together by a name that the
//! sender draws.
//!
//! The first bytes inside each connection say what it is: a control stream that begins a group with this name, or a
//! data stream of it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::net::sockopt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::groups::{Arriving, Groups, NAME_BYTES, Name};
use crate::identity::unusable;
use crate::{Identity, TransportError};

/// The first byte in a connection.
const CONTROL: u8 = 0;
const DATA: u8 = 1;

/// Time after which unacknowledged bytes, or a peer that does not answer, make a connection count as lost. The same as
/// for QUIC.
const LOST_AFTER: Duration = Duration::from_secs(15);
const PROBE_AFTER: Duration = Duration::from_secs(4);

/// rustls asks its socket for 4 KiB at a time; with this between the two, the kernel is asked for more at once.
type Socket = BufReader<TcpStream>;
const READ_BUFFER: usize = 64 << 10;
const CONTROL_BUFFER: usize = 16 << 10;

/// A sender's end of a group.
pub struct Client {
    connector: TlsConnector,
    receiver: SocketAddr,
    server_name: ServerName<'static>,
    name: Name,
    round_trip: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("receiver", &self.receiver)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects the control stream of a new group.
    pub(crate) async fn connect(
        receiver: SocketAddr,
        server_name: &str,
        identity: &Identity,
    ) -> Result<(Self, (Writer, Reader)), TransportError> {
        let mut name = [0; NAME_BYTES];
        SystemRandom::new()
            .fill(&mut name)
            .map_err(|_| unusable(&"the operating system gives no random bytes"))?;
        let mut client = Self {
            connector: TlsConnector::from(Arc::new(identity.client_tls()?)),
            receiver,
            server_name: ServerName::try_from(server_name.to_owned())
                .map_err(|error| unusable(&error))?,
            name,
            round_trip: Duration::ZERO,
        };
        let connected = client.open(CONTROL).await;
        let (stream, round_trip) =
            connected.map_err(|error| TransportError::unreachable(receiver, error))?;
        client.round_trip = round_trip;
        let (read, write) = tokio::io::split(stream);
        Ok((client, (Writer::new(write), Reader::new(read))))
    }

    /// Connects a data stream of the group.
    pub(crate) async fn open_data(&self) -> io::Result<Writer> {
        Ok(Writer::new(self.open(DATA).await?.0))
    }

    /// Time that the kernel took to connect: a round trip without any processing.
    pub(crate) fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// The same for bytes that nobody waits for: closing it throws away what has not been sent.
    pub(crate) async fn open_probe(&self) -> io::Result<Writer> {
        let (stream, _) = self.open(DATA).await?;
        sockopt::set_socket_linger(stream.get_ref().0.get_ref(), Some(Duration::ZERO))?;
        Ok(Writer::new(stream))
    }

    async fn open(
        &self,
        kind: u8,
    ) -> io::Result<(tokio_rustls::client::TlsStream<Socket>, Duration)> {
        let began = Instant::now();
        let stream = TcpStream::connect(self.receiver).await?;
        let round_trip = began.elapsed();
        set_up(&stream)?;
        let stream = BufReader::with_capacity(CONTROL_BUFFER, stream);
        let mut stream = self
            .connector
            .connect(self.server_name.clone(), stream)
            .await?;
        let mut hello = vec![kind];
        hello.extend(self.name);
        stream.write_all(&hello).await?;
        stream.flush().await?;
        Ok((stream, round_trip))
    }
}

/// A listener for the connections of senders.
pub(crate) struct Listener {
    listener: tokio::net::TcpListener,
    acceptor: TlsAcceptor,
    groups: Groups<Reader>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// A connection that came in and has not yet said who it is.
pub struct Incoming {
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    groups: Groups<Reader>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// A connection whose peer has proved that it has the run's certificate.
pub struct Proved {
    stream: TlsStream,
    groups: Groups<Reader>,
}

impl std::fmt::Debug for Proved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proved").finish_non_exhaustive()
    }
}

type TlsStream = tokio_rustls::server::TlsStream<Socket>;

/// The kind of a connection.
pub(crate) enum Arrived {
    /// A control stream, and where its data streams will arrive.
    Control(Arriving<Reader>, Writer, Reader),
    /// A data stream. It has gone to its group, if there is one.
    Data,
}

impl Listener {
    pub(crate) fn new(
        listener: TcpListener,
        identity: &Identity,
        sender: &str,
    ) -> Result<Self, TransportError> {
        let acceptor = TlsAcceptor::from(Arc::new(identity.server_tls(sender)?));
        let listener = listener
            .set_nonblocking(true)
            .and_then(|()| tokio::net::TcpListener::from_std(listener))
            .map_err(|error| unusable(&error))?;
        Ok(Self {
            listener,
            acceptor,
            groups: Groups::default(),
        })
    }

    pub(crate) async fn accept(&self) -> io::Result<Incoming> {
        let (stream, address) = self.listener.accept().await?;
        Ok(Incoming {
            stream,
            address,
            acceptor: self.acceptor.clone(),
            groups: self.groups.clone(),
        })
    }
}

impl Incoming {
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.address
    }

    /// The handshake. The caller bounds the time.
    pub(crate) async fn prove(self) -> io::Result<Proved> {
        set_up(&self.stream)?;
        let stream = BufReader::with_capacity(READ_BUFFER, self.stream);
        let stream = self.acceptor.accept(stream).await?;
        // rustls insists on a common protocol over QUIC, and over TCP only with those who name one.
        if stream.get_ref().1.alpn_protocol().is_none() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the sender names no protocol",
            ));
        }
        Ok(Proved {
            stream,
            groups: self.groups,
        })
    }
}

impl Proved {
    /// Reads from the connection what it is. The caller bounds the time.
    pub(crate) async fn arrive(self) -> io::Result<Arrived> {
        let mut stream = self.stream;
        let mut kind = [0];
        stream.read_exact(&mut kind).await?;
        let mut name = [0; NAME_BYTES];
        stream.read_exact(&mut name).await?;
        match kind[0] {
            CONTROL => {
                let (read, write) = tokio::io::split(stream);
                let streams = self.groups.begin(name)?;
                Ok(Arrived::Control(
                    streams,
                    Writer::new(write),
                    Reader::new(read),
                ))
            }
            DATA => {
                let group = self.groups.find(&name);
                // A full queue, or a group that has ended: the stream is dropped, and the sender sees that.
                if let Some(group) = group {
                    let _dropped = group.try_send(Reader::new(stream));
                }
                Ok(Arrived::Data)
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the connection is neither a control nor a data stream",
            )),
        }
    }
}

/// Small messages go at once; a dead path is noticed.
fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    let lost_after = u32::try_from(LOST_AFTER.as_millis()).expect("seconds fit the option's type");
    sockopt::set_tcp_user_timeout(stream, lost_after)?;
    Ok(())
}

/// The sending half of a connection.
pub struct Writer(Box<dyn AsyncWrite + Send + Unpin>);

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    fn new(stream: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(stream))
    }

    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await?;
        // TLS keeps what the socket would not take.
        self.0.flush().await
    }

    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}

/// The receiving half of a connection.
pub struct Reader(Box<dyn AsyncRead + Send + Unpin>);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Reader {
    fn new(stream: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self(Box::new(stream))
    }

    /// Fills the buffer; `false` if the connection was ended in order before its first byte. One that was cut off is an
    /// error: TLS says which it was.
    pub(crate) async fn read_exact_or_end(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read(&mut buffer[filled..]).await? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        Ok(true)
    }

    pub(crate) async fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).await
    }
}
