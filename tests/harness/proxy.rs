//! A bad link: a TCP proxy on loopback between two nodes that delays, throttles, loses, goes silent
//! and breaks, by a seed and by what the test asks for. Bytes of TCP's payload are what it counts
//! and meters; the heads of TCP and IP are not there.
//!
//! `Link::to(address).rate(64_000).latency_ms(300).open().await` is one; `Network::over` lets a node
//! reach a peer through it. A line that is throttled holds a queue as a modem does: whoever sends
//! more than it takes fills the queue and waits behind himself.

mod carry;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpSocket,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use self::carry::Line;

/// What a modem holds: about a second at 512 kbit/s, eight at 64 kbit/s.
const QUEUE_BYTES: usize = 64 * 1024;
/// Socket buffers of a throttled link: what the kernel holds is no part of the modem's queue.
const SOCKET_BYTES: u32 = 8 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 64;
/// Never cut by a count of bytes.
const NEVER: i64 = i64::MAX;

/// A direction: `There` is from who dials to who is dialed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    There,
    Back,
}

impl Way {
    pub const BOTH: [Self; 2] = [Self::There, Self::Back];
}

/// How a link is at a time, in each direction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Bits in a second; `None`: as fast as it goes.
    rate: [Option<u64>; 2],
    latency: [Duration; 2],
    jitter: Duration,
    queue_bytes: usize,
    /// Takes bytes and lets none out, for ever: the other end is gone and nobody says so.
    swallows: [bool; 2],
    /// Takes bytes and keeps them until it is mended: a shadow that passes.
    holds: [bool; 2],
    /// What connects is closed at once.
    closed: bool,
    /// Connections break after so many bytes in the mean.
    reset_bytes: Option<u64>,
}

/// What a link will be.
pub struct Plan {
    target: SocketAddr,
    shape: Shape,
    seed: u64,
}

/// A link that is there until it is dropped.
pub struct Link {
    address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

pub(super) struct State {
    target: SocketAddr,
    shape: watch::Sender<Shape>,
    /// How often everything was cut.
    cuts: watch::Sender<u64>,
    lines: [Mutex<Line>; 2],
    chance: Mutex<Chance>,
    entered: [AtomicU64; 2],
    carried: [AtomicU64; 2],
    connections: AtomicU64,
    /// Bytes until the next cut.
    left: AtomicI64,
}

impl Link {
    /// A link to an address, perfect until said otherwise.
    pub fn to(target: SocketAddr) -> Plan {
        let shape = Shape {
            rate: [None; 2],
            latency: [Duration::ZERO; 2],
            jitter: Duration::ZERO,
            queue_bytes: QUEUE_BYTES,
            swallows: [false; 2],
            holds: [false; 2],
            closed: false,
            reset_bytes: None,
        };
        Plan { target, shape, seed: 1 }
    }
}

impl Plan {
    /// The same chances again for the same seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// So many bits a second, each way.
    pub fn rate(mut self, bits: u64) -> Self {
        self.shape.rate = [Some(bits); 2];
        self
    }

    /// So long each way: a round trip takes twice that.
    pub fn latency_ms(mut self, ms: u64) -> Self {
        self.shape.latency = [Duration::from_millis(ms); 2];
        self
    }

    /// Up to so much more, at random; nothing overtakes.
    pub fn jitter_ms(mut self, ms: u64) -> Self {
        self.shape.jitter = Duration::from_millis(ms);
        self
    }

    /// What may wait where it is throttled.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.shape.queue_bytes = bytes;
        self
    }

    /// Each connection breaks after so many bytes in the mean.
    pub fn resets_every(mut self, bytes: u64) -> Self {
        self.shape.reset_bytes = Some(bytes);
        self
    }

    /// Lays it.
    pub async fn open(self) -> Link {
        let socket = TcpSocket::new_v4().unwrap();
        if self.shape.rate != [None; 2] {
            // What is accepted inherits it.
            socket.set_recv_buffer_size(SOCKET_BYTES).unwrap();
        }
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(BACKLOG).unwrap();
        let address = listener.local_addr().unwrap();
        let mut chance = Chance::of(self.seed);
        let lines = [(); 2].map(|()| Mutex::new(Line::new(chance.split())));
        let state = Arc::new(State {
            target: self.target,
            shape: watch::Sender::new(self.shape),
            cuts: watch::Sender::new(0),
            lines,
            chance: Mutex::new(chance),
            entered: Default::default(),
            carried: Default::default(),
            connections: AtomicU64::new(0),
            left: AtomicI64::new(NEVER),
        });
        let of_link = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            // The connections end with this task, and it with the link.
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((near, _)) = accepted else { continue };
                        of_link.connections.fetch_add(1, Ordering::Relaxed);
                        connections.spawn(carry::connection(Arc::clone(&of_link), near));
                    }
                    Some(_ended) = connections.join_next() => {}
                }
            }
        });
        Link { address, state, accepting }
    }
}

impl Link {
    /// Where it begins.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that were put in at the beginning of a direction; those lost at a cut among them.
    pub fn entered(&self, way: Way) -> u64 {
        self.state.entered[way as usize].load(Ordering::Relaxed)
    }

    /// Bytes that came out at the end of a direction.
    pub fn carried(&self, way: Way) -> u64 {
        self.state.carried[way as usize].load(Ordering::Relaxed)
    }

    /// Bytes that came out, both ways.
    pub fn carried_both(&self) -> u64 {
        Way::BOTH.into_iter().map(|way| self.carried(way)).sum()
    }

    /// How often somebody connected.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// How often everything was cut.
    pub fn cuts(&self) -> u64 {
        *self.state.cuts.borrow()
    }

    /// Breaks what is connected, by resets. What connects afterwards gets through.
    pub fn cut(&self) {
        self.state.cut();
    }

    /// Breaks everything once so many more bytes came out, both ways together.
    pub fn cut_after(&self, bytes: u64) {
        self.state.left.store(i64::try_from(bytes).unwrap(), Ordering::Relaxed);
    }

    /// Breaks what is connected and closes what connects, until it is mended.
    pub fn sever(&self) {
        self.change(|shape| shape.closed = true);
        self.cut();
    }

    /// Loses every byte of a direction from now on and says nothing. What is connected now stays so
    /// until its ends give it up; what connects after mending gets through.
    pub fn swallow(&self, way: Way) {
        self.change(|shape| shape.swallows[way as usize] = true);
    }

    /// Loses every byte, both ways: nobody is there, and nobody says so.
    pub fn partition(&self) {
        self.change(|shape| shape.swallows = [true; 2]);
    }

    /// Keeps the bytes of a direction until it is mended: then all of them come out.
    pub fn hold(&self, way: Way) {
        self.change(|shape| shape.holds[way as usize] = true);
    }

    /// Undoes all that was done to it but its rate and its latency.
    pub fn mend(&self) {
        self.change(|shape| {
            (shape.swallows, shape.holds, shape.closed) = ([false; 2], [false; 2], false);
        });
    }

    /// Another latency from now on.
    pub fn latency_ms(&self, ms: u64) {
        self.change(|shape| shape.latency = [Duration::from_millis(ms); 2]);
    }

    /// Another rate from now on.
    pub fn rate(&self, bits: u64) {
        self.change(|shape| shape.rate = [Some(bits); 2]);
    }

    fn change(&self, change: impl FnOnce(&mut Shape)) {
        self.state.shape.send_modify(change);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    fn line(&self, way: Way) -> MutexGuard<'_, Line> {
        self.lines[way as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what came out at the end of a direction. Whether that was the last for now.
    fn carried(&self, way: Way, bytes: usize) -> bool {
        self.carried[way as usize].fetch_add(bytes as u64, Ordering::Relaxed);
        let bytes = i64::try_from(bytes).unwrap();
        let last = self.left.load(Ordering::Relaxed) != NEVER
            && self.left.fetch_sub(bytes, Ordering::Relaxed) <= bytes;
        if last {
            self.left.store(NEVER, Ordering::Relaxed);
            self.cut();
        }
        last
    }

    /// After how many bytes a new connection breaks.
    fn breaks_after(&self) -> u64 {
        let mean = self.shape.borrow().reset_bytes;
        let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        mean.map_or(u64::MAX, |mean| chance.up_to(2 * mean))
    }
}

/// Chance that comes again: splitmix64.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    pub const fn of(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to a number, that one included.
    pub const fn up_to(&mut self, most: u64) -> u64 {
        match most.checked_add(1) {
            Some(count) => self.next() % count,
            None => self.next(),
        }
    }

    /// From one number to another.
    pub const fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.up_to(most - least)
    }

    /// Chance of its own, which comes again with this one.
    pub const fn split(&mut self) -> Self {
        Self(self.next())
    }
}
