//! A cable that can be cut and slowed down: a TCP proxy on loopback. While it is cut, what was
//! connected breaks and what connects is closed at once.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Connections through one cable; the two nodes at its ends need a few.
const CONNECTIONS_MAX: usize = 32;
/// Bytes carried at one time where the cable is whole, and where it is slow: a slow one must not
/// swallow more than it lets out in a moment.
const CHUNK: usize = 16 * 1024;
const SLOW_CHUNK: usize = 512;

/// A cable to one address.
#[derive(Debug)]
pub(super) struct Cable {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// Cancelled: cut. Mending puts a fresh one here.
    whole: Mutex<CancellationToken>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Bytes a second in each direction; 0: as many as there are.
    rate: AtomicU64,
    /// From where the cable begins to its other end, and back.
    ways: [Way; 2],
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    /// When the last byte of what was taken so far has gone.
    free: Mutex<Option<Instant>>,
}

impl Cable {
    /// A whole cable from a free port to `target`, which need not be there yet.
    pub(super) async fn to(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            whole: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            rate: AtomicU64::new(0),
            ways: Default::default(),
        });
        state.tasks.spawn(Arc::clone(&state).accept(listener, target));
        Ok(Self { address, state })
    }

    /// Where it begins.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts it: both ends see their connections break.
    pub(super) fn cut(&self) {
        self.state.whole().cancel();
    }

    /// Mends it: what connects from now on gets through.
    pub(super) fn mend(&self) {
        *self.state.whole.lock().unwrap_or_else(PoisonError::into_inner) = CancellationToken::new();
    }

    /// Lets so many bytes a second through in each direction; 0: as many as there are.
    pub(super) fn slow_down(&self, bytes_per_second: u64) {
        self.state.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Ends it and waits for all it runs.
    pub(super) async fn remove(self) {
        self.state.stop.cancel();
        self.cut();
        self.state.tasks.close();
        self.state.tasks.wait().await;
    }
}

impl State {
    fn whole(&self) -> CancellationToken {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, target: SocketAddr) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            // What cannot be accepted, or is one too many, is closed: its peer tries again.
            let (Ok((near, _)), Ok(permit)) = (accepted, Arc::clone(&permits).try_acquire_owned())
            else {
                continue;
            };
            let (whole, state) = (self.whole(), Arc::clone(&self));
            self.tasks.spawn(async move {
                // The order matters: a cut cable must not carry a first byte.
                tokio::select! {
                    biased;
                    () = whole.cancelled() => {}
                    // How a connection ended is the business of its two ends.
                    _ended = state.carry(near, target) => {}
                }
                drop(permit);
            });
        }
    }

    async fn carry(&self, mut near: TcpStream, target: SocketAddr) -> io::Result<()> {
        let mut far = TcpStream::connect(target).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let ((near_reads, near_writes), (far_reads, far_writes)) = (near.split(), far.split());
        tokio::try_join!(
            self.carry_one_way(near_reads, far_writes, &self.ways[0]),
            self.carry_one_way(far_reads, near_writes, &self.ways[1]),
        )?;
        Ok(())
    }

    async fn carry_one_way(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        way: &Way,
    ) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let rate = self.rate.load(Ordering::Relaxed);
            let chunk = if rate > 0 { SLOW_CHUNK } else { CHUNK };
            let length = from.read(&mut buffer[..chunk]).await?;
            if length == 0 {
                return to.shutdown().await;
            }
            if rate > 0 {
                sleep_until(way.gone(length, rate)).await;
            }
            to.write_all(&buffer[..length]).await?;
        }
    }
}

impl Way {
    /// When so many bytes more have gone at a rate. All connections of the cable share it.
    fn gone(&self, bytes: usize, rate: u64) -> Instant {
        let took = Duration::from_micros(bytes as u64 * 1_000_000 / rate);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let gone = free.map_or(now, |free| free.max(now)) + took;
        *free = Some(gone);
        gone
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Sends a byte through the cable and gets it back; `None` where the connection is closed.
    async fn echo(stream: &mut TcpStream) -> Option<u8> {
        stream.write_all(&[7]).await.ok()?;
        stream.read_u8().await.ok()
    }

    #[tokio::test]
    async fn is_cut_and_mended() {
        let far = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let cable = Cable::to(far.local_addr().unwrap()).await.unwrap();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = far.accept().await {
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                });
            }
        });
        let mut before = TcpStream::connect(cable.address()).await.unwrap();
        assert_eq!(echo(&mut before).await, Some(7));
        cable.cut();
        assert_eq!(before.read(&mut [0]).await.unwrap_or(0), 0);
        let mut during = TcpStream::connect(cable.address()).await.unwrap();
        assert_eq!(echo(&mut during).await, None);
        cable.mend();
        let mut after = TcpStream::connect(cable.address()).await.unwrap();
        assert_eq!(echo(&mut after).await, Some(7));
        cable.remove().await;
        server.abort();
    }

    #[test]
    fn a_slow_one_is_shared_by_all_that_goes_through() {
        let way = Way::default();
        let first = way.gone(4_000, 8_000);
        assert_eq!(way.gone(8_000, 8_000) - first, Duration::from_secs(1));
        assert_eq!(way.gone(80, 8_000) - first, Duration::from_millis(1_010));
    }

    #[tokio::test]
    async fn a_slow_one_takes_its_time() {
        let far = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let cable = Cable::to(far.local_addr().unwrap()).await.unwrap();
        cable.slow_down(20_000);
        let mut near = TcpStream::connect(cable.address()).await.unwrap();
        let (mut end, _) = far.accept().await.unwrap();
        let begin = Instant::now();
        near.write_all(&[7; 5_000]).await.unwrap();
        end.read_exact(&mut [0; 5_000]).await.unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(240), "{:?}", begin.elapsed());
        cable.remove().await;
    }
}
