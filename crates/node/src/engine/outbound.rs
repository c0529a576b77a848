//! The way out of a session, and why one ends: what every part of a session uses and none owns.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bureau_core::Reason;
use bureau_proto::link::v1::{Frame, frame::Kind};
use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::squeeze;

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// A stable reason.
    pub reason: String,
    /// More for the operator.
    pub detail: String,
    /// Whether the link was up before.
    pub was_up: bool,
}

impl End {
    /// The end of a session that did not come up.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason: reason.to_string(), detail: detail.into(), was_up: false }
    }

    /// The end of a session that was up.
    pub fn of_link(reason: Reason, detail: impl Into<String>) -> Self {
        Self { was_up: true, ..Self::new(reason, detail) }
    }

    /// Where a part of a session ended that others rely on.
    #[must_use]
    pub fn part_ended() -> Self {
        Self::of_link(Reason::Internal, "a part of the session ended")
    }

    /// Where the store does not do what the session needs.
    #[must_use]
    pub fn of_store(error: &bureau_store::StoreError) -> Self {
        let refusal = super::store_refusal(error);
        Self::of_link(refusal.reason, refusal.message)
    }
}

/// A frame of a kind.
#[must_use]
pub const fn frame(kind: Kind) -> Frame {
    Frame { kind: Some(kind) }
}

/// The way out of a session, with the time a frame may take.
#[derive(Debug, Clone)]
pub struct Outbound {
    frames: mpsc::Sender<Frame>,
    stall: Duration,
    /// Whether the peer takes compressed frames.
    squeezes: bool,
    /// Bytes of frames that were handed over, pings and their answers apart.
    sent: Arc<AtomicU64>,
    begun: Instant,
    /// When the peer was last heard, in ms since the session began.
    heard_ms: Arc<AtomicU64>,
}

impl Outbound {
    /// The way out over a connection that must take a frame in a time.
    #[must_use]
    pub fn new(frames: mpsc::Sender<Frame>, stall: Duration, squeezes: bool) -> Self {
        let (sent, begun, heard_ms) = (Arc::default(), Instant::now(), Arc::default());
        Self { frames, stall, squeezes, sent, begun, heard_ms }
    }

    /// Sends a frame; waits while the connection takes none. Gives its size in bytes.
    ///
    /// # Errors
    /// Why the session ends: STALLED where the connection takes nothing for too long.
    pub async fn send(&self, kind: Kind) -> Result<usize, End> {
        // Pings mark what was sent: did they count, each would call for another one.
        let counts = !matches!(kind, Kind::Ping(_) | Kind::Pong(_));
        let mut frame = frame(kind);
        if self.squeezes {
            frame = squeeze::squeeze(frame);
        }
        let bytes = frame.encoded_len();
        match timeout(self.stall, self.frames.send(frame)).await {
            Ok(Ok(())) => {
                if counts {
                    self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
                }
                Ok(bytes)
            }
            Ok(Err(_)) => Err(End::new(Reason::Stalled, "the connection is closed")),
            Err(_) => Err(End::new(Reason::Stalled, "the connection takes no more frames")),
        }
    }

    /// Notes that the peer was heard.
    pub fn note_heard(&self) {
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(ms, Ordering::Relaxed);
    }

    /// When the peer was last heard; when the session began, if never.
    #[must_use]
    pub fn heard(&self) -> Instant {
        self.begun + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed))
    }

    /// Bytes of all frames so far but pings and their answers.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// How long a frame may take.
    #[must_use]
    pub const fn stall(&self) -> Duration {
        self.stall
    }

    /// The connection, for a last word that must not wait as long.
    #[must_use]
    pub const fn frames(&self) -> &mpsc::Sender<Frame> {
        &self.frames
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use bureau_proto::link::v1::{Ping, Pong, ReceiptBatchTaken};

    use super::*;

    #[tokio::test]
    async fn pings_call_for_no_pings() {
        let (frames, _taken) = mpsc::channel(8);
        let outbound = Outbound::new(frames, Duration::from_secs(1), false);
        outbound.send(Kind::Ping(Ping { number: 1 })).await.unwrap();
        outbound.send(Kind::Pong(Pong { number: 1 })).await.unwrap();
        assert_eq!(outbound.sent_bytes(), 0);
        let taken = Kind::ReceiptsTaken(ReceiptBatchTaken { number: 1 });
        let bytes = outbound.send(taken).await.unwrap();
        assert_eq!(outbound.sent_bytes(), bytes as u64);
    }
}
