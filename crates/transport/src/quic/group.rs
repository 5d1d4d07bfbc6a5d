//! A sender's connections: one with the control stream, and others that carry data streams only. A connection keeps no
//! more than one processor busy on either side, so a fast path between large machines takes several.
//!
//! One of the others says so in its handshake, by the protocol that it asks for. Its first stream says the name of its
//! group: keying material of the first connection (RFC 8446, section 7.5).

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use futures::future::try_join_all;
use quinn::crypto::rustls::HandshakeData;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, VarInt};
use tokio::sync::mpsc;

use crate::groups::{Arriving, Groups, NAME_BYTES, Name};
use crate::{Identity, TransportError};

/// The label with which names of groups are derived.
const LABEL: &[u8] = b"EXPORTER-wherry-group";

/// A sender's end of a group.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    receiver: SocketAddr,
    server_name: String,
    /// Settings with which the others connect.
    joining: ClientConfig,
    first: Connection,
    others: Mutex<Vec<Connection>>,
}

impl Client {
    /// Connects, and opens the control stream.
    pub(crate) async fn connect(
        receiver: SocketAddr,
        server_name: &str,
        identity: &Identity,
    ) -> Result<(Self, (SendStream, RecvStream)), TransportError> {
        let (endpoint, joining) = super::client(receiver, identity)?;
        let connecting = async {
            let connecting = endpoint.connect(receiver, server_name);
            let first = connecting.map_err(io::Error::other)?.await?;
            first.set_send_window(super::send_window(first.rtt()));
            let control = first.open_bi().await?;
            Ok((first, control))
        };
        let connected: io::Result<_> = connecting.await;
        let (first, control) =
            connected.map_err(|error| TransportError::unreachable(receiver, error))?;
        let client = Self {
            endpoint,
            receiver,
            server_name: server_name.to_owned(),
            joining,
            first,
            others: Mutex::default(),
        };
        Ok((client, control))
    }

    /// Opens data streams, over up to so many connections.
    pub(crate) async fn open_data(
        &self,
        streams: usize,
        connections: usize,
    ) -> io::Result<Vec<SendStream>> {
        let others = connections.min(streams).saturating_sub(1);
        let others = try_join_all((0..others).map(|_| self.join())).await?;
        let connections = [std::slice::from_ref(&self.first), &others].concat();
        // What a path holds is for all of them together.
        let window = super::send_window(self.first.rtt()) / connections.len() as u64;
        for connection in &connections {
            connection.set_send_window(window);
        }
        self.lock_others().extend(others);
        let opening = connections.iter().cycle().take(streams);
        Ok(try_join_all(opening.map(Connection::open_uni)).await?)
    }

    /// Opens the stream of a probe.
    pub(crate) async fn open_probe(&self) -> io::Result<SendStream> {
        Ok(self.first.open_uni().await?)
    }

    pub(crate) fn round_trip(&self) -> Duration {
        self.first.rtt()
    }

    /// Datagrams that came from the receiver.
    pub(crate) fn packets_received(&self) -> u64 {
        let heard = |connection: &Connection| connection.stats().udp_rx.datagrams;
        heard(&self.first) + self.lock_others().iter().map(heard).sum::<u64>()
    }

    /// Says goodbye over all connections, and waits for the answers.
    pub(crate) async fn close(self) {
        self.endpoint.close(VarInt::from_u32(0), b"done");
        self.endpoint.wait_idle().await;
    }

    /// Another connection of the group.
    async fn join(&self) -> io::Result<Connection> {
        let connection = self.connect_another().await?;
        let mut hello = connection.open_uni().await?;
        hello.write_all(&name_of(&self.first)?).await?;
        hello.finish()?;
        Ok(connection)
    }

    async fn connect_another(&self) -> io::Result<Connection> {
        let joining = self.joining.clone();
        let connecting = self
            .endpoint
            .connect_with(joining, self.receiver, &self.server_name);
        Ok(connecting.map_err(io::Error::other)?.await?)
    }

    fn lock_others(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.others
            .lock()
            .expect("no holder of this lock can panic")
    }
}

fn name_of(first: &Connection) -> io::Result<Name> {
    let mut name = [0; NAME_BYTES];
    let exported = first.export_keying_material(&mut name, LABEL, b"");
    exported.map_err(|_| io::Error::other("TLS gives no keying material"))?;
    Ok(name)
}

/// The kind of a connection.
pub(crate) enum Arrived {
    /// The first of a group, with its control stream.
    Control(DataStreams, SendStream, RecvStream),
    /// One of the others. Its streams go to its group, if there is one.
    Data,
}

/// Reads from a connection, after its handshake, what it is. The caller bounds the time.
pub(crate) async fn arrive(
    connection: Connection,
    groups: &Groups<RecvStream>,
) -> io::Result<Arrived> {
    if !is_joining(&connection) {
        let (send, receive) = connection.accept_bi().await?;
        connection.set_receive_window(VarInt::from_u32(super::CONNECTION_WINDOW));
        let others = groups.begin(name_of(&connection)?)?;
        let streams = DataStreams {
            first: connection,
            others,
        };
        return Ok(Arrived::Control(streams, send, receive));
    }
    let mut name = [0; NAME_BYTES];
    let mut hello = connection.accept_uni().await?;
    hello
        .read_exact(&mut name)
        .await
        .map_err(io::Error::other)?;
    if let Some(group) = groups.join(&name) {
        tokio::spawn(forward(connection, group));
    }
    Ok(Arrived::Data)
}

fn is_joining(connection: &Connection) -> bool {
    let handshake = connection.handshake_data();
    let protocol = handshake
        .and_then(|data| data.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol);
    protocol.is_some_and(|protocol| protocol == super::JOINING_ALPN)
}

/// Gives the data streams of a connection to its group until one of the two ends.
async fn forward(connection: Connection, group: mpsc::Sender<RecvStream>) {
    loop {
        let stream = tokio::select! {
            biased;
            () = group.closed() => return,
            stream = connection.accept_uni() => stream,
        };
        // A connection that breaks also breaks the streams that it has brought, and whoever reads those says so.
        let Ok(stream) = stream else { return };
        if group.send(stream).await.is_err() {
            return;
        }
    }
}

/// The data streams of a group, as they arrive over any of its connections.
#[derive(Debug)]
pub struct DataStreams {
    first: Connection,
    others: Arriving<RecvStream>,
}

impl DataStreams {
    /// May be dropped and called again.
    pub(crate) async fn next(&mut self) -> io::Result<RecvStream> {
        tokio::select! {
            stream = self.first.accept_uni() => Ok(stream?),
            stream = self.others.next() => stream,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identities() -> (Identity, Identity) {
        let authority = pki::Authority::generate("run", pki::RUN_VALIDITY).unwrap();
        let identity = |issued: pki::Identity| Identity {
            authority_pem: authority.certificate_pem().to_owned(),
            certificate_pem: issued.certificate_pem,
            key_pem: issued.key_pem,
        };
        let receiver = authority.issue_server(&["receiver".to_owned()]).unwrap();
        let sender = authority.issue_client("s-agent").unwrap();
        (identity(receiver), identity(sender))
    }

    /// Takes connections until one has a control stream.
    async fn next_control(server: &Endpoint, groups: &Groups<RecvStream>) -> DataStreams {
        loop {
            let connection = server.accept().await.unwrap().await.unwrap();
            if let Arrived::Control(streams, _, _) = arrive(connection, groups).await.unwrap() {
                return streams;
            }
        }
    }

    /// A server, and a client whose first connection it has taken.
    async fn connected() -> (Endpoint, Groups<RecvStream>, Client, DataStreams) {
        let (receiver, sender) = identities();
        let server =
            super::super::server("127.0.0.1:0".parse().unwrap(), &receiver, "s-agent").unwrap();
        let groups = Groups::default();
        let address = server.local_addr().unwrap();
        let connecting = async {
            let (client, (mut control, _)) =
                Client::connect(address, "receiver", &sender).await.unwrap();
            // The other side hears of a stream by what comes over it.
            control.write_all(b"hello").await.unwrap();
            client
        };
        let (client, streams) = tokio::join!(connecting, next_control(&server, &groups));
        (server, groups, client, streams)
    }

    #[tokio::test]
    async fn data_streams_are_spread_over_connections_and_all_arrive_at_the_first() {
        let (server, groups, client, mut streams) = connected().await;
        let sending = async {
            let mut opened = client.open_data(5, 3).await.unwrap();
            for (number, stream) in (0..).zip(&mut opened) {
                stream.write_all(&[number; 100]).await.unwrap();
                stream.finish().unwrap();
            }
        };
        let taking = async {
            let mut came = Vec::new();
            while came.len() < 5 {
                let mut stream = streams.next().await.unwrap();
                came.push(stream.read_to_end(1000).await.unwrap());
            }
            came.sort();
            came
        };
        let came = tokio::select! {
            (came, ()) = async { tokio::join!(taking, sending) } => came,
            _ = next_control(&server, &groups) => panic!("there is one control stream"),
        };
        assert_eq!(
            came,
            (0..5).map(|number| vec![number; 100]).collect::<Vec<_>>()
        );
        assert_eq!(server.open_connections(), 3);
        assert_eq!(client.lock_others().len(), 2);
        client.close().await;
        server.wait_idle().await;
        assert_eq!(server.open_connections(), 0, "all of them are closed");
    }

    #[tokio::test]
    async fn who_does_not_know_the_name_adds_nothing_and_others_end_with_their_group() {
        let (server, groups, client, mut streams) = connected().await;
        let stranger = async {
            let connection = client.connect_another().await.unwrap();
            for content in [[7; NAME_BYTES], [9; NAME_BYTES]] {
                let mut stream = connection.open_uni().await.unwrap();
                stream.write_all(&content).await.unwrap();
            }
            connection.closed().await;
        };
        let taking = async {
            let connection = server.accept().await.unwrap().await.unwrap();
            let arrived = arrive(connection, &groups).await;
            assert!(matches!(arrived, Ok(Arrived::Data)));
        };
        tokio::select! {
            _ = async { tokio::join!(stranger, taking) } => {}
            _ = streams.next() => panic!("a stream of a stranger arrived"),
        }
        let joining = async {
            client.open_data(2, 2).await.unwrap();
            let other = client.lock_others()[0].clone();
            let end = other.closed();
            tokio::pin!(end);
            // It stands as long as its group.
            let early = tokio::time::timeout(Duration::from_millis(100), &mut end).await;
            assert!(early.is_err());
            drop(streams);
            end.await;
        };
        let taking = async {
            let connection = server.accept().await.unwrap().await.unwrap();
            let arrived = arrive(connection, &groups).await;
            assert!(matches!(arrived, Ok(Arrived::Data)));
        };
        tokio::join!(joining, taking);
    }

    #[tokio::test]
    async fn a_data_stream_may_overtake_the_control_stream() {
        let (receiver, sender) = identities();
        let server =
            super::super::server("127.0.0.1:0".parse().unwrap(), &receiver, "s-agent").unwrap();
        let address = server.local_addr().unwrap();
        let connecting = async {
            // Dropping the other half would tell of the stream as well.
            let (client, (mut control, _from_receiver)) =
                Client::connect(address, "receiver", &sender).await.unwrap();
            let mut probe = client.open_probe().await.unwrap();
            probe.write_all(&[5; NAME_BYTES]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            control.write_all(b"hello").await.unwrap();
            client
        };
        let groups = Groups::default();
        let (_client, mut streams) = tokio::join!(connecting, next_control(&server, &groups));
        let mut came = [0; NAME_BYTES];
        let mut probe = streams.next().await.unwrap();
        probe.read_exact(&mut came).await.unwrap();
        assert_eq!(came, [5; NAME_BYTES]);
    }
}
