//! What the pump of a link is doing, for those who ask: told by the pump, read by `explain`. Nothing
//! is decided by it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bureau_core::{BureauCode, MessageId};
use tokio::time::Instant;

/// Messages of one lane whose attachments are on their way at one time, so that what is urgent
/// always finds a place. What comes later waits in the store.
pub(super) const OPEN_MAX: usize = 8;
/// Refusals that are remembered on one link. A peer that refuses more than this has one fault, not
/// many: the last ones tell it.
const KEPT_MAX: usize = 256;

/// What is on its way over one link while it is up. As large as the link's window, eight offers of
/// each lane and 256 refusals.
#[derive(Debug, Default)]
pub struct Doing {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    in_flight: HashMap<(MessageId, BureauCode), Instant>,
    /// In the order in which they go: lane, then number.
    transfers: BTreeMap<(usize, u64), Transfer>,
    kept: BTreeMap<(MessageId, BureauCode), Kept>,
    refusals: u64,
    all: Option<Pause>,
    attachments: Option<Pause>,
}

#[derive(Debug)]
struct Transfer {
    message: MessageId,
    total: u64,
    /// What was sent of each attachment.
    sent: BTreeMap<[u8; 32], u64>,
    begun: Instant,
}

#[derive(Debug)]
struct Kept {
    number: u64,
    reason: String,
    at: Instant,
}

/// The peer asked for patience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Until when this side waits.
    pub until: Instant,
    /// Why, as the peer says.
    pub reason: String,
}

/// What one link is doing with one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Since when it, or its last piece, is sent and not answered.
    pub sent: Option<Instant>,
    /// Its attachments are on their way.
    pub attachments: Option<Going>,
    /// Attachments of so many other messages are on their way, and there is no place for more.
    pub transfers_full: Option<usize>,
    /// The peer did not take it on this link: why, and when. It is offered again on the next one.
    pub kept: Option<(String, Instant)>,
    /// The peer asked for patience with everything.
    pub pause: Option<Pause>,
    /// The peer asked for patience with attachments.
    pub attachments_pause: Option<Pause>,
}

/// Attachments on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Going {
    /// Since when.
    pub begun: Instant,
    /// Their bytes.
    pub total: u64,
    /// How many of these are sent, or were there before.
    pub sent: u64,
    /// What other attachments still take that go before them.
    pub before: u64,
}

impl Doing {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A parcel is sent, for these recipients.
    pub(super) fn sent(&self, message: MessageId, recipients: impl Iterator<Item = BureauCode>) {
        let now = Instant::now();
        let mut inner = self.lock();
        for recipient in recipients {
            inner.kept.remove(&(message, recipient));
            inner.in_flight.insert((message, recipient), now);
        }
    }

    /// It is on its way no more.
    pub(super) fn answered(&self, message: MessageId, recipient: BureauCode) {
        self.lock().in_flight.remove(&(message, recipient));
    }

    /// The peer does not take it now, and time or an operator must mend that.
    pub(super) fn kept(&self, message: MessageId, recipient: BureauCode, reason: &str) {
        let mut inner = self.lock();
        inner.refusals += 1;
        let kept = Kept { number: inner.refusals, reason: reason.to_owned(), at: Instant::now() };
        inner.kept.insert((message, recipient), kept);
        if inner.kept.len() > KEPT_MAX {
            let oldest = inner.kept.iter().min_by_key(|(_, kept)| kept.number);
            if let Some(oldest) = oldest.map(|(slip, _)| *slip) {
                inner.kept.remove(&oldest);
            }
        }
    }

    /// The peer asks for patience, with everything or with attachments alone.
    pub(super) fn paused(&self, until: Instant, reason: &str, attachments_alone: bool) {
        let pause = Some(Pause { until, reason: reason.to_owned() });
        let mut inner = self.lock();
        if attachments_alone {
            inner.attachments = pause;
        } else {
            inner.all = pause;
        }
    }

    /// Attachments of so many bytes are offered.
    pub(super) fn offered(&self, key: (usize, u64), message: MessageId, total: u64) {
        let transfer = Transfer { message, total, sent: BTreeMap::new(), begun: Instant::now() };
        self.lock().transfers.insert(key, transfer);
    }

    /// So much of an attachment is sent, or was there before.
    pub(super) fn progressed(&self, key: (usize, u64), digest: [u8; 32], sent: u64) {
        if let Some(transfer) = self.lock().transfers.get_mut(&key) {
            transfer.sent.insert(digest, sent);
        }
    }

    /// These attachments are on their way no more.
    pub(super) fn transferred(&self, key: (usize, u64)) {
        self.lock().transfers.remove(&key);
    }

    /// What happens with a message for a recipient, that waits in a lane (0: the most urgent).
    #[must_use]
    pub fn view(
        &self,
        message: MessageId,
        recipient: BureauCode,
        lane: usize,
        now: Instant,
    ) -> View {
        let inner = self.lock();
        let slip = (message, recipient);
        let left = |transfer: &Transfer| transfer.total.saturating_sub(transfer.all_sent());
        let own = inner.transfers.iter().find(|(_, transfer)| transfer.message == message);
        let going = own.map(|(key, transfer)| Going {
            begun: transfer.begun,
            total: transfer.total,
            sent: transfer.all_sent(),
            before: inner.transfers.range(..*key).map(|(_, transfer)| left(transfer)).sum(),
        });
        let of_lane = inner.transfers.range((lane, 0)..(lane + 1, 0)).count();
        let pause = |pause: &Option<Pause>| pause.clone().filter(|pause| pause.until > now);
        View {
            sent: inner.in_flight.get(&slip).copied(),
            attachments: going,
            transfers_full: (of_lane >= OPEN_MAX && going.is_none()).then_some(of_lane),
            kept: inner.kept.get(&slip).map(|kept| (kept.reason.clone(), kept.at)),
            pause: pause(&inner.all),
            attachments_pause: pause(&inner.attachments),
        }
    }
}

impl Transfer {
    fn all_sent(&self) -> u64 {
        self.sent.values().sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::time::Duration;

    use super::*;

    fn message(number: u8) -> MessageId {
        MessageId([number; 32])
    }

    #[test]
    fn each_message_is_seen_as_it_goes() {
        let (doing, ke) = (Doing::default(), "KE".parse().unwrap());
        let now = Instant::now();
        doing.sent(message(1), [ke].into_iter());
        assert!(doing.view(message(1), ke, 3, now).sent.is_some());
        doing.answered(message(1), ke);
        assert_eq!(doing.view(message(1), ke, 3, now), View::default());

        doing.offered((3, 1), message(2), 300);
        doing.offered((3, 2), message(3), 50);
        doing.progressed((3, 1), [1; 32], 60);
        doing.progressed((3, 1), [2; 32], 40);
        doing.progressed((3, 1), [2; 32], 50);
        let second = doing.view(message(3), ke, 3, now);
        let going = second.attachments.unwrap();
        assert_eq!((going.total, going.sent, going.before), (50, 0, 190));
        assert_eq!(doing.view(message(9), ke, 3, now).transfers_full, None);
        (3..=8).for_each(|number| doing.offered((3, number), message(100), 1));
        assert_eq!(doing.view(message(9), ke, 3, now).transfers_full, Some(OPEN_MAX));
        assert_eq!(
            doing.view(message(9), ke, 0, now).transfers_full,
            None,
            "urgent ones find room"
        );
        doing.transferred((3, 1));
        assert_eq!(doing.view(message(3), ke, 3, now).attachments.unwrap().before, 0);
        assert_eq!(doing.view(message(2), ke, 3, now).attachments, None);
    }

    #[test]
    fn a_pause_ends_and_refusals_are_bounded() {
        let (doing, ke) = (Doing::default(), "KE".parse().unwrap());
        let now = Instant::now();
        let until = now + Duration::from_secs(2);
        doing.paused(until, "BUSY", false);
        assert_eq!(doing.view(message(1), ke, 3, now).pause.unwrap().reason, "BUSY");
        assert_eq!(doing.view(message(1), ke, 3, until).pause, None);
        assert_eq!(doing.view(message(1), ke, 3, now).attachments_pause, None);
        for number in 0..=u8::MAX {
            doing.kept(message(number), ke, "NO_ROUTE");
        }
        assert!(doing.view(message(0), ke, 3, now).kept.is_some());
        doing.kept(message(0), "FR".parse().unwrap(), "NO_ROUTE");
        assert!(doing.view(message(0), ke, 3, now).kept.is_none());
        assert!(doing.view(message(1), ke, 3, now).kept.is_some());
        // What is sent again is not kept back any more.
        doing.sent(message(1), [ke].into_iter());
        assert!(doing.view(message(1), ke, 3, now).kept.is_none());
    }
}
