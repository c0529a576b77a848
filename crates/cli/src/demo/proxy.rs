//! A cable that can be cut: a TCP proxy on loopback. While it is cut, what was connected breaks
//! and what connects is closed at once.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Connections through one cable; the two nodes at its ends need a few.
const CONNECTIONS_MAX: usize = 32;

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
            let whole = self.whole();
            self.tasks.spawn(async move {
                // The order matters: a cut cable must not carry a first byte.
                tokio::select! {
                    biased;
                    () = whole.cancelled() => {}
                    // How a connection ended is the business of its two ends.
                    _ended = carry(near, target) => {}
                }
                drop(permit);
            });
        }
    }
}

async fn carry(mut near: TcpStream, target: SocketAddr) -> io::Result<()> {
    let mut far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
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
}
