//! The network between nodes: encoded frames, one way after the other, with the latency, rate and
//! faults of the moment. A stream gives its frames in order, once, or ends; a connection that is dead
//! and does not say so swallows everything.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bureau_core::{BureauCode, Reason};
use bureau_node::engine::{
    Engine,
    dialer::Connect,
    outbound::End,
    session::{OUTBOUND_FRAMES_MAX, Peer, Wire},
};
use bureau_proto::link::v1::Frame;
use bytes::Bytes;
use futures_util::StreamExt as _;
use prost::Message as _;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{book::Book, chance::Chance, plan::Way};

/// Frames on their way in one direction, beside what the connection's buffers hold.
const UNDER_WAY_MAX: usize = 64;
/// What a sender's buffer holds, as time.
const BUFFER: Duration = Duration::from_millis(50);
/// How long nothing comes back where a way is cut.
const NO_ANSWER: Duration = Duration::from_secs(10);

/// Somebody calls a node.
pub(crate) struct Call {
    pub(crate) peer: Peer,
    pub(crate) wire: Wire,
}

/// The ways between the nodes.
pub(crate) struct Net {
    pub(crate) book: Arc<Book>,
    codes: Vec<BureauCode>,
    inner: Mutex<Inner>,
    /// A way was cut or mended.
    changed: Notify,
}

struct Inner {
    chance: Chance,
    ways: BTreeMap<(usize, usize), Way>,
    cut: BTreeMap<(usize, usize), bool>,
    doors: BTreeMap<usize, mpsc::UnboundedSender<Call>>,
    connections: Vec<Connection>,
}

#[derive(Clone)]
struct Connection {
    ends: (usize, usize),
    reset: CancellationToken,
    swallows: Arc<AtomicBool>,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Net {
    pub(crate) fn new(seed: u64, book: Arc<Book>, codes: Vec<BureauCode>) -> Self {
        let inner = Inner {
            chance: Chance::new(seed, 2),
            ways: BTreeMap::new(),
            cut: BTreeMap::new(),
            doors: BTreeMap::new(),
            connections: Vec::new(),
        };
        Self { book, codes, inner: Mutex::new(inner), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a way is like from now on.
    pub(crate) fn set_way(&self, a: usize, b: usize, way: Way) {
        self.lock().ways.insert(pair(a, b), way);
    }

    /// Cuts or mends a way: what is under way waits.
    pub(crate) fn cut(&self, a: usize, b: usize, cut: bool) {
        self.lock().cut.insert(pair(a, b), cut);
        self.changed.notify_waiters();
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.lock().cut.get(&pair(a, b)).copied().unwrap_or(false)
    }

    /// Ends every connection of a way.
    pub(crate) fn reset(&self, a: usize, b: usize) {
        let mut inner = self.lock();
        inner.connections.retain(|connection| !connection.reset.is_cancelled());
        for connection in inner.connections.iter().filter(|c| c.ends == pair(a, b)) {
            connection.reset.cancel();
        }
    }

    /// Every connection of a way is dead from now on, and neither end is told.
    pub(crate) fn swallow(&self, a: usize, b: usize) {
        for connection in self.lock().connections.iter().filter(|c| c.ends == pair(a, b)) {
            connection.swallows.store(true, Ordering::Relaxed);
        }
    }

    /// A node takes calls.
    pub(crate) fn open_door(&self, node: usize) -> mpsc::UnboundedReceiver<Call> {
        let (door, calls) = mpsc::unbounded_channel();
        self.lock().doors.insert(node, door);
        calls
    }

    /// A node is gone. Its peers see that at once, or have to find it out.
    pub(crate) fn close_door(&self, node: usize, silently: bool) {
        let mut inner = self.lock();
        inner.doors.remove(&node);
        for connection in &inner.connections {
            if connection.ends.0 == node || connection.ends.1 == node {
                if silently {
                    connection.swallows.store(true, Ordering::Relaxed);
                } else {
                    connection.reset.cancel();
                }
            }
        }
        inner.connections.retain(|connection| !connection.reset.is_cancelled());
    }

    fn way(&self, a: usize, b: usize) -> Way {
        self.lock().ways.get(&pair(a, b)).copied().unwrap_or(Way::healed())
    }

    /// How long something of a size takes, and how long it is under way then.
    fn times(&self, a: usize, b: usize, bytes: usize) -> (Duration, Duration) {
        let way = self.way(a, b);
        let jitter = self.lock().chance.between(0, way.jitter_ms);
        let micros = bytes as u64 * 1_000_000 / way.bytes_per_second.max(1);
        (Duration::from_micros(micros), Duration::from_millis(way.latency_ms + jitter))
    }

    fn peer(&self, node: usize) -> Result<Peer, End> {
        let unknown = || End::new(Reason::NoRoute, "no such node");
        let bureau = *self.codes.get(node).ok_or_else(unknown)?;
        let node = "node-1".parse().map_err(|_| unknown())?;
        Ok(Peer { bureau, node })
    }
}

/// How a node calls another.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) net: Arc<Net>,
    pub(crate) from: usize,
}

impl Connect for Caller {
    async fn open(
        &self,
        _engine: &Engine,
        peer: BureauCode,
        _address: String,
    ) -> Result<(Peer, Wire), End> {
        let (net, from) = (&self.net, self.from);
        let to = net.codes.iter().position(|code| *code == peer);
        let to = to.ok_or_else(|| End::new(Reason::NoRoute, "no such node"))?;
        // A connection and a handshake: two round trips.
        let (_, latency) = net.times(from, to, 0);
        sleep(latency * 4).await;
        if net.is_cut(from, to) {
            sleep(NO_ANSWER).await;
            return Err(End::new(Reason::Stalled, "no answer in time"));
        }
        let door = net.lock().doors.get(&to).cloned();
        let door = door.ok_or_else(|| End::new(Reason::Stalled, "nobody listens"))?;
        let connection = Connection {
            ends: pair(from, to),
            reset: CancellationToken::new(),
            swallows: Arc::default(),
        };
        let (near, far) = (pipe(net, &connection, from, to), pipe(net, &connection, to, from));
        net.lock().connections.push(connection);
        let wire = Wire { inbound: near.1, outbound: far.0 };
        let call = Call { peer: net.peer(from)?, wire };
        door.send(call).map_err(|_| End::new(Reason::Stalled, "nobody listens"))?;
        Ok((net.peer(to)?, Wire { inbound: far.1, outbound: near.0 }))
    }
}

type Inbound = bureau_node::engine::session::Inbound;

/// One direction of a connection: where frames go in, and where they come out.
fn pipe(
    net: &Arc<Net>,
    connection: &Connection,
    from: usize,
    to: usize,
) -> (mpsc::Sender<Frame>, Inbound) {
    let (sender, frames) = mpsc::channel(OUTBOUND_FRAMES_MAX);
    let (out, received) = mpsc::channel(4);
    let (put, under_way) = mpsc::channel(UNDER_WAY_MAX);
    let way = Direction { net: Arc::clone(net), connection: connection.clone(), from, to };
    tokio::spawn(way.clone().send(frames, put));
    tokio::spawn(way.deliver(under_way, out));
    (sender, ReceiverStream::new(received).boxed())
}

#[derive(Clone)]
struct Direction {
    net: Arc<Net>,
    connection: Connection,
    from: usize,
    to: usize,
}

impl Direction {
    /// Puts frames on the way, as fast as it takes them.
    async fn send(self, mut frames: mpsc::Receiver<Frame>, put: mpsc::Sender<(Instant, Bytes)>) {
        let (mut free, mut last) = (Instant::now(), Instant::now());
        loop {
            let frame = tokio::select! {
                biased;
                () = self.connection.reset.cancelled() => return,
                frame = frames.recv() => frame,
            };
            let Some(frame) = frame else { return };
            let bytes = Bytes::from(frame.encode_to_vec());
            let (takes, latency) = self.net.times(self.from, self.to, bytes.len() + 40);
            free = free.max(Instant::now()) + takes;
            last = last.max(free + latency);
            if free > Instant::now() + BUFFER {
                sleep_until(free - BUFFER).await;
            }
            let sent = put.send((last, bytes));
            tokio::select! {
                biased;
                () = self.connection.reset.cancelled() => return,
                sent = sent => if sent.is_err() { return },
            }
        }
    }

    /// Gives them out when they are there.
    async fn deliver(
        self,
        mut under_way: mpsc::Receiver<(Instant, Bytes)>,
        out: mpsc::Sender<Result<Frame, Status>>,
    ) {
        loop {
            let next = tokio::select! {
                biased;
                () = self.connection.reset.cancelled() => {
                    drop(out.try_send(Err(Status::unavailable("reset"))));
                    return;
                }
                () = out.closed() => {
                    // Who listens no more ends the whole stream.
                    self.connection.reset.cancel();
                    return;
                }
                next = under_way.recv() => next,
            };
            // The other side closed its direction.
            let Some((at, bytes)) = next else { return };
            tokio::select! {
                biased;
                () = self.connection.reset.cancelled() => continue,
                () = sleep_until(at) => {}
            }
            while self.net.is_cut(self.from, self.to) {
                tokio::select! {
                    biased;
                    () = self.connection.reset.cancelled() => break,
                    () = self.net.changed.notified() => {}
                }
            }
            if self.connection.swallows.load(Ordering::Relaxed) {
                continue;
            }
            self.net.book.passes(self.from, self.to, &bytes);
            let Ok(frame) = Frame::decode(bytes) else { return };
            tokio::select! {
                biased;
                () = self.connection.reset.cancelled() => continue,
                sent = out.send(Ok(frame)) => if sent.is_err() {
                    self.connection.reset.cancel();
                    return;
                },
            }
        }
    }
}
