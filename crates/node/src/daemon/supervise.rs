//! A node while it serves: its tasks, the signals it answers, the service manager it talks to, and
//! the way it ends.

use std::{io, sync::Arc, time::Duration};

use bureau_net::{Connections, Dialer, TlsStore};
use bureau_store::Progress;
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Engine, ServeError, faces::Faces};
use crate::{engine::links::LinkState, telemetry::metrics::Gauges};

/// Of the time that ending may take, so much of ten parts is for links, faces, scribe and store,
/// one after the other; the rest is for what cannot be bounded.
const LINKS_TENTHS: u32 = 2;
const FACES_TENTHS: u32 = 1;
const SCRIBE_TENTHS: u32 = 2;
const STORE_TENTHS: u32 = 3;

/// The signals a node answers.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the wish that the node ends.
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A node while it serves.
pub(super) struct Serving {
    pub(super) engine: Arc<Engine>,
    pub(super) tls: Arc<TlsStore>,
    pub(super) connections: Arc<Connections>,
    pub(super) faces: Faces,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Serving {
    /// Starts what runs beside the faces.
    pub(super) fn spawn(&self, dialer: Dialer) {
        for task in self.engine.tasks(&dialer, &self.stop) {
            self.tasks.spawn(task);
        }
        // Weak: the engine holds the metrics.
        let (watched, tls) = (Arc::downgrade(&self.engine), Arc::clone(&self.tls));
        self.engine.metrics.on_scrape(move |gauges| {
            if let Some(engine) = watched.upgrade() {
                refresh(gauges, &engine, &tls);
            }
        });
    }

    /// Answers signals until the node is to end.
    pub(super) async fn watch(&self, signals: &mut Signals) -> Result<(), ServeError> {
        let mut watchdog = watchdog();
        loop {
            tokio::select! {
                biased;
                () = self.engine.store.failed() => return Err(ServeError::StoreFailed),
                _ = signals.terminate.recv() => return Ok(()),
                _ = signals.interrupt.recv() => return Ok(()),
                _ = signals.hangup.recv() => {
                    notify(&[NotifyState::Status("reloading")]);
                    self.reload().await;
                    notify(&[NotifyState::Status("serving")]);
                }
                _ = watchdog.tick() => notify(&[NotifyState::Watchdog]),
            }
        }
    }

    /// Ends: first no more is taken, then what is under way is finished, then the store is closed.
    pub(super) async fn drain(self, mut scribe: JoinHandle<()>) {
        let tenth = Duration::from_secs(self.engine.config.drain_seconds) / 10;
        tracing::info!(event = "draining");
        notify(&[NotifyState::Stopping]);
        self.faces.closing().await;
        self.stop.cancel();
        self.engine.links.cancel_all();
        self.tasks.close();
        if timeout(tenth * LINKS_TENTHS, self.tasks.wait()).await.is_err() {
            tracing::warn!(event = "drain_overrun", what = "links");
        }
        // The servers end first, so that what was said last reaches the peers before the cut.
        self.faces.stop(tenth * FACES_TENTHS).await;
        self.connections.shutdown().await;
        if timeout(tenth * SCRIBE_TENTHS, &mut scribe).await.is_err() {
            tracing::warn!(event = "drain_overrun", what = "scribe");
            scribe.abort();
        }
        match timeout(tenth * STORE_TENTHS, self.engine.store.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(event = "store_close_failed", error = %error),
            // Nothing is lost: the journal has it; the next start replays.
            Err(_elapsed) => tracing::warn!(event = "drain_overrun", what = "store"),
        }
    }
}

/// What is measured when somebody asks.
fn refresh(gauges: &Gauges<'_>, engine: &Engine, tls: &TlsStore) {
    let now = engine.clock.now();
    for depth in engine.store.depths() {
        let age_ms = u64::try_from(now.since(depth.oldest)).unwrap_or(0);
        let age = Duration::from_millis(age_ms);
        gauges.queue(depth.destination, depth.lane, depth.messages, age);
    }
    for depth in engine.store.held_depths() {
        gauges.held(depth.destination, depth.reason.as_str(), depth.messages);
    }
    for (peer, _, status) in engine.links.statuses() {
        let up = status.state == LinkState::Up;
        gauges.link(peer, up, status.in_flight, status.round_trip);
    }
    gauges.certificate_expiry(super::timestamp(tls.summary().validity.not_after));
    gauges.roster_expiry(engine.trust.roster().expires());
    gauges.disk_free(engine.store.room().free_bytes);
}

/// Half the service manager's watchdog time; an hour where it has none.
fn watchdog() -> tokio::time::Interval {
    let period = sd_notify::watchdog_enabled().map_or(Duration::from_secs(3600), |time| time / 2);
    tokio::time::interval(period.max(Duration::from_millis(100)))
}

/// Says, every two seconds, what the opening of the store is at; and that the node lives. Never
/// returns.
pub(super) async fn tell_progress(observed: watch::Receiver<Progress>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(2));
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let progress = *observed.borrow();
        tracing::info!(event = "store_opening", progress = ?progress);
        notify(&[NotifyState::Status(&format!("opening the store: {progress:?}"))]);
        notify(&[NotifyState::Watchdog]);
    }
}

/// Tells the service manager that the node serves.
pub(super) fn notify_ready() {
    notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// Tells the service manager what the node is at.
pub(super) fn notify_status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

fn notify(states: &[NotifyState<'_>]) {
    // Without a service manager there is nobody to tell, and that is no error.
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(event = "notify_failed", error = %error);
    }
}
