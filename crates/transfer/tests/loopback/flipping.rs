//! A path that flips one bit: TCP and UDP between sender and receiver, on one port.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket, tcp};
use tokio::task::JoinSet;

/// The direction of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToReceiver,
    ToSender,
}

/// Flips a bit once, when so many bytes have gone that way, whatever they belong to.
#[derive(Debug)]
pub(crate) struct Flip {
    way: Way,
    left: Mutex<Option<usize>>,
}

impl Flip {
    fn pass(&self, way: Way, bytes: &mut [u8]) {
        if way != self.way {
            return;
        }
        let mut left = self.left.lock().expect("no holder of this lock can panic");
        match &mut *left {
            Some(after) if *after < bytes.len() => {
                bytes[*after] ^= 0x20;
                *left = None;
            }
            Some(after) => *after -= bytes.len(),
            None => {}
        }
    }

    /// True if it has happened.
    pub(crate) fn is_done(&self) -> bool {
        let left = self.left.lock().expect("no holder of this lock can panic");
        left.is_none()
    }
}

/// The path, for as long as it is held.
pub(crate) struct Path {
    pub(crate) address: SocketAddr,
    pub(crate) flip: Arc<Flip>,
    _tasks: JoinSet<()>,
}

impl Path {
    pub(crate) async fn to(receiver: SocketAddr, way: Way, after: usize) -> anyhow::Result<Self> {
        let (tcp, udp) = one_port().await?;
        let flip = Arc::new(Flip {
            way,
            left: Mutex::new(Some(after)),
        });
        let address = tcp.local_addr()?;
        let mut tasks = JoinSet::new();
        let over_tcp = Arc::clone(&flip);
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((from, _)) = tcp.accept().await {
                streams.spawn(stream(from, receiver, Arc::clone(&over_tcp)));
            }
        });
        tasks.spawn(datagrams(udp, receiver, Arc::clone(&flip)));
        Ok(Self {
            address,
            flip,
            _tasks: tasks,
        })
    }
}

/// A port that both have free.
async fn one_port() -> std::io::Result<(TcpListener, UdpSocket)> {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await?;
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr()?).await {
            return Ok((tcp, udp));
        }
    }
}

async fn stream(from: TcpStream, receiver: SocketAddr, flip: Arc<Flip>) {
    let Ok(to) = TcpStream::connect(receiver).await else {
        return;
    };
    let (from_sender, to_sender) = from.into_split();
    let (from_receiver, to_receiver) = to.into_split();
    tokio::join!(
        copy(from_sender, to_receiver, &flip, Way::ToReceiver),
        copy(from_receiver, to_sender, &flip, Way::ToSender),
    );
}

async fn copy(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, flip: &Flip, way: Way) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        flip.pass(way, &mut buffer[..read]);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    let _closed_by_the_other = to.shutdown().await;
}

/// Each sender has a socket of its own towards the receiver.
async fn datagrams(socket: UdpSocket, receiver: SocketAddr, flip: Arc<Flip>) {
    let socket = Arc::new(socket);
    let mut sockets: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; 64 << 10];
    while let Ok((length, sender)) = socket.recv_from(&mut buffer).await {
        let known = sockets.get(&sender).cloned();
        let onward = match known {
            Some(onward) => onward,
            None => {
                let Ok(onward) = UdpSocket::bind("127.0.0.1:0").await else {
                    return;
                };
                let onward = Arc::new(onward);
                sockets.insert(sender, Arc::clone(&onward));
                let (back, answering) = (Arc::clone(&socket), Arc::clone(&onward));
                let flip = Arc::clone(&flip);
                answers.spawn(async move {
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok((length, _)) = answering.recv_from(&mut buffer).await {
                        flip.pass(Way::ToSender, &mut buffer[..length]);
                        // A datagram that can't be sent is lost, as datagrams are.
                        let _lost = back.send_to(&buffer[..length], sender).await;
                    }
                });
                onward
            }
        };
        flip.pass(Way::ToReceiver, &mut buffer[..length]);
        let _lost = onward.send_to(&buffer[..length], receiver).await;
    }
}
