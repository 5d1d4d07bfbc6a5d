//! Rules that every transport must keep. Each implementation runs them in its tests, the simulated one too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{
    Accepted, Arrived, Connection, Control, Identity, Kind, Listener, RecvStream, SendStream,
    Transport,
};

/// Longest time that anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time during which nothing may happen.
const WATCH: Duration = Duration::from_millis(300);

/// Data streams of a connection, and bytes of each: more than any window holds.
const STREAMS: u8 = 4;
const BYTES: usize = 300_000;

/// A transport and a listener that it reaches.
#[derive(Debug)]
pub struct Pair<T, L: Listener> {
    transport: T,
    kind: Kind,
    receiver: SocketAddr,
    sender: Identity,
    listener: Arc<L>,
    arriving: Mutex<mpsc::Receiver<Arrived<L>>>,
    _accepting: JoinSet<()>,
}

impl<T: Transport, L: Listener> Pair<T, L> {
    /// A pair whose listener has a certificate for the name `receiver`.
    pub fn new(transport: T, kind: Kind, sender: Identity, listener: L) -> Self {
        let listener = Arc::new(listener);
        let (arrived, arriving) = mpsc::channel(16);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(Arc::clone(&listener), arrived));
        Self {
            transport,
            kind,
            receiver: listener.address().expect("it listens"),
            sender,
            listener,
            arriving: Mutex::new(arriving),
            _accepting: accepting,
        }
    }

    /// Checks every rule.
    ///
    /// # Panics
    /// The transport breaks one.
    pub async fn check(self) {
        self.control_passes_both_ways_until_it_ends().await;
        self.data_streams_arrive_whole_and_apart().await;
        self.an_end_in_the_middle_is_an_error().await;
        self.a_receiver_that_leaves_is_noticed().await;
        self.a_closed_listener_takes_nobody().await;
    }

    /// Both ends of a new connection. The sender has written a byte, since some transports show a stream by its bytes.
    async fn connected(&self) -> ((T::Connection, Control<T::Connection>), Arrived<L>) {
        let sending = async {
            let connecting =
                self.transport
                    .connect(self.kind, self.receiver, "receiver", &self.sender);
            let (connection, mut control) = connecting.await.expect("the receiver answers");
            control.0.write_all(&[1]).await.expect("it is connected");
            (connection, control)
        };
        let receiving = async {
            let mut arriving = self.arriving.lock().await;
            let (accepted, send, mut receive) = arriving.recv().await.expect("it accepts");
            let mut first = [0];
            receive.read_exact(&mut first).await.expect("a byte came");
            (accepted, send, receive)
        };
        within(async { tokio::join!(sending, receiving) }).await
    }

    async fn control_passes_both_ways_until_it_ends(&self) {
        let ((_connection, mut sender), (accepted, mut send, mut receive)) = self.connected().await;
        assert_eq!(accepted.kind(), self.kind);
        within(async {
            let (mut question, mut answer) = ([0; 8], [0; 6]);
            sender.0.write_all(b"question").await.expect("it stands");
            receive.read_exact(&mut question).await.expect("it came");
            send.write_all(b"answer").await.expect("it stands");
            sender.1.read_exact(&mut answer).await.expect("it came");
            assert_eq!((&question, &answer), (b"question", b"answer"));
            sender.0.finish().await.expect("it stands");
            let has_more = receive.read_exact_or_end(&mut question).await;
            assert!(!has_more.expect("an end in order is no error"));
        })
        .await;
    }

    async fn data_streams_arrive_whole_and_apart(&self) {
        let ((connection, _control), (mut accepted, _send, _receive)) = self.connected().await;
        let sending = async {
            let opened = connection.open_data(STREAMS.into(), 2).await;
            for (mut stream, number) in opened.expect("it stands").into_iter().zip(0..) {
                let bytes = Bytes::from(content(number));
                stream.write_chunk(bytes).await.expect("it stands");
                stream.finish().await.expect("it stands");
            }
        };
        let receiving = async {
            let mut came = Vec::new();
            for _ in 0..STREAMS {
                let mut stream = accepted.accept_data().await.expect("it stands");
                let mut bytes = vec![0; BYTES];
                stream.read_exact(&mut bytes).await.expect("all of it came");
                let mut more = [0];
                let read = stream.read_some(&mut more).await;
                assert_eq!(read.expect("an end in order is no error"), 0);
                assert_eq!(bytes, content(bytes[0]));
                came.push(bytes[0]);
            }
            came.sort_unstable();
            assert_eq!(came, Vec::from_iter(0..STREAMS));
        };
        within(async { tokio::join!(sending, receiving) }).await;
    }

    async fn an_end_in_the_middle_is_an_error(&self) {
        let ((_connection, mut sender), (_accepted, _send, mut receive)) = self.connected().await;
        within(async {
            sender.0.write_all(&[7; 3]).await.expect("it stands");
            sender.0.finish().await.expect("it stands");
            let mut four = [0; 4];
            assert!(receive.read_exact_or_end(&mut four).await.is_err());
        })
        .await;
    }

    async fn a_receiver_that_leaves_is_noticed(&self) {
        let ((_connection, mut sender), arrived) = self.connected().await;
        drop(arrived);
        within(async {
            let mut answer = [0];
            let read = sender.1.read_exact(&mut answer).await;
            assert!(read.is_err(), "nobody is there any more");
        })
        .await;
    }

    async fn a_closed_listener_takes_nobody(self) {
        self.listener.close(b"done");
        let mut arriving = self.arriving.lock().await;
        let sending = async {
            let connecting =
                self.transport
                    .connect(self.kind, self.receiver, "receiver", &self.sender);
            if let Ok((_connection, mut control)) = connecting.await {
                let mut answer = [0];
                let _asked = control.0.write_all(&[1]).await;
                let read = control.1.read_exact(&mut answer).await;
                assert!(read.is_err(), "nobody is there any more");
            }
        };
        tokio::select! {
            _over = timeout(WATCH, sending) => {}
            arrived = arriving.recv() => assert!(arrived.is_none(), "the listener is closed"),
        }
    }
}

/// Takes connections until the listener is closed.
async fn accept<L: Listener>(listener: Arc<L>, arrived: mpsc::Sender<Arrived<L>>) {
    let mut serving = JoinSet::new();
    while let Some(incoming) = listener.accept().await {
        let arrived = arrived.clone();
        serving.spawn(async move {
            let proved = L::prove(incoming).await?;
            if let Some(connection) = L::arrive(proved).await? {
                let _over = arrived.send(connection).await;
            }
            std::io::Result::Ok(())
        });
    }
}

fn content(stream: u8) -> Vec<u8> {
    let mut bytes = vec![stream];
    bytes.extend((1..BYTES).map(|at| u8::try_from(at % 251).expect("it is small")));
    bytes
}

async fn within<R>(work: impl Future<Output = R>) -> R {
    timeout(PATIENCE, work).await.expect("it ends in time")
}
