//! How a bad link carries one connection: what it reads stands in line, is on its way, and comes out.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{Chance, SOCKET_BYTES, State, Way};

/// Pieces on their way in one direction: at 512 bytes and more, more than any queue here.
const PIECES_MAX: usize = 4096;
/// The smallest piece that comes out at one go: what a slow line takes for a packet.
const PACKET_BYTES_LEAST: u64 = 512;
/// And a packet of a faster one.
const PACKET_BYTES: u64 = 1400;
/// Without a rate whatever is there goes.
const READ_BYTES: usize = 16 * 1024;

/// One direction's line, which all connections share.
pub(in super::super) struct Line {
    /// When the last byte that stands in it has gone out.
    free_at: Instant,
    chance: Chance,
}

impl Line {
    pub(in super::super) fn new(chance: Chance) -> Self {
        Self { free_at: Instant::now(), chance }
    }
}

/// A piece that comes out at a time.
struct Piece {
    at: Instant,
    bytes: Vec<u8>,
}

/// Carries a connection until it ends or is cut.
pub(super) async fn connection(state: Arc<State>, mut near: TcpStream) {
    let mut cuts = state.cuts.subscribe();
    let shape = *state.shape.borrow();
    if shape.closed {
        drop(near.set_zero_linger());
        return;
    }
    let carried = tokio::select! {
        biased;
        _ = cuts.changed() => Err(io::ErrorKind::ConnectionReset.into()),
        carried = carry(&state, &mut near) => carried,
    };
    // Whoever was cut shall see it as such, and not as an end in order.
    if carried.is_err() {
        drop(near.set_zero_linger());
    }
}

async fn carry(state: &State, near: &mut TcpStream) -> io::Result<()> {
    let shape = *state.shape.borrow();
    // TCP's own greeting crosses the link, too.
    sleep(shape.latency[0] + shape.latency[1]).await;
    if shape.swallows != [false; 2] {
        // Whoever calls gets no answer, and keeps waiting.
        return std::future::pending().await;
    }
    let mut far = connect(state.target, shape.rate != [None; 2]).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let breaks_after = state.breaks_after();
    let ended = {
        let (near_in, near_out) = near.split();
        let (far_in, far_out) = far.split();
        tokio::try_join!(
            direction(state, Way::There, near_in, far_out, breaks_after),
            direction(state, Way::Back, far_in, near_out, breaks_after),
        )
    };
    if ended.is_err() {
        drop(far.set_zero_linger());
    }
    ended.map(|_| ())
}

async fn connect(target: SocketAddr, throttled: bool) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if throttled {
        socket.set_recv_buffer_size(SOCKET_BYTES)?;
    }
    socket.connect(target).await
}

async fn direction(
    state: &State,
    way: Way,
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    breaks_after: u64,
) -> io::Result<()> {
    let (pieces, arriving) = mpsc::channel(PIECES_MAX);
    tokio::try_join!(take(state, way, from, pieces), give(state, way, arriving, to, breaks_after))
        .map(|_| ())
}

/// Reads while there is room in the line, and says when what was read comes out.
async fn take(
    state: &State,
    way: Way,
    mut from: impl AsyncRead + Unpin,
    pieces: mpsc::Sender<Piece>,
) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut last = Instant::now();
    loop {
        let most = room(state, way).await;
        let count = from.read(&mut buffer[..most]).await?;
        if count == 0 {
            return Ok(());
        }
        state.entered[way as usize].fetch_add(count as u64, Ordering::Relaxed);
        last = last.max(arrival(state, way, count));
        let piece = Piece { at: last, bytes: buffer[..count].to_vec() };
        if pieces.send(piece).await.is_err() {
            return Ok(());
        }
    }
}

/// Waits for room in the line. Gives how much may be read for one piece.
async fn room(state: &State, way: Way) -> usize {
    loop {
        let shape = *state.shape.borrow();
        let Some(rate) = shape.rate[way as usize] else { return READ_BYTES };
        let packet = (rate / 8 / 20).clamp(PACKET_BYTES_LEAST, PACKET_BYTES).max(rate / 8 / 1000);
        let full = time_for(shape.queue_bytes, rate);
        let free_at = state.line(way).free_at;
        if free_at <= Instant::now() + full {
            return usize::try_from(packet).unwrap().min(READ_BYTES);
        }
        sleep_until(free_at - full).await;
    }
}

fn time_for(bytes: usize, rate: u64) -> Duration {
    Duration::from_nanos(bytes as u64 * 8 * 1_000_000_000 / rate.max(1))
}

/// When a piece that enters the line now comes out at the other end.
fn arrival(state: &State, way: Way, bytes: usize) -> Instant {
    let shape = *state.shape.borrow();
    let mut line = state.line(way);
    let takes = shape.rate[way as usize].map_or(Duration::ZERO, |rate| time_for(bytes, rate));
    line.free_at = line.free_at.max(Instant::now()) + takes;
    let jitter = u64::try_from(shape.jitter.as_micros()).unwrap();
    let jitter = Duration::from_micros(line.chance.up_to(jitter));
    line.free_at + shape.latency[way as usize] + jitter
}

/// Gives out what has arrived.
async fn give(
    state: &State,
    way: Way,
    mut arriving: mpsc::Receiver<Piece>,
    mut to: impl AsyncWrite + Unpin,
    breaks_after: u64,
) -> io::Result<()> {
    let mut shape = state.shape.subscribe();
    let (mut lost, mut given) = (false, 0);
    while let Some(Piece { at, bytes }) = arriving.recv().await {
        sleep_until(at).await;
        // The link lives as long as this does.
        drop(shape.wait_for(|shape| !shape.holds[way as usize]).await);
        // After one lost byte nothing that follows makes sense.
        lost |= shape.borrow().swallows[way as usize];
        if lost {
            continue;
        }
        given += bytes.len() as u64;
        if given > breaks_after {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        to.write_all(&bytes).await?;
        if state.carried(way, bytes.len()) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
    }
    to.shutdown().await
}
