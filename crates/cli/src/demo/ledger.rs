//! What the demo itself saw: what it sent, what came in where. Kept apart from the nodes, so that
//! it can be held against them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};

/// The record, shared by those who send and those who watch.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    records: Mutex<Records>,
    changed: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Records {
    /// By message id.
    pub(super) sent: BTreeMap<String, Sent>,
    /// By bureau and message id.
    pub(super) arrived: BTreeMap<(String, String), Arrived>,
}

/// A message that was accepted.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) origin: String,
    pub(super) recipients: Vec<String>,
    pub(super) subject: String,
    pub(super) content: Bytes,
    /// When it was first asked for, and when it was accepted.
    pub(super) asked: Instant,
    pub(super) accepted: Instant,
    /// Whether its times count: those of the slow line do not.
    pub(super) timed: bool,
}

/// A message that came in.
#[derive(Debug, Clone)]
pub(super) struct Arrived {
    pub(super) origin: String,
    pub(super) subject: String,
    pub(super) content: Bytes,
    pub(super) at: Instant,
    /// The peer that brought it.
    pub(super) hop: String,
    /// Its inbox numbers: more than one is a duplicate.
    pub(super) numbers: BTreeSet<u64>,
}

impl Ledger {
    pub(super) fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sent(&self, id: String, sent: Sent) {
        self.records().sent.insert(id, sent);
        self.changed.notify_waiters();
    }

    /// Enters what came in; the same message under the same number again changes nothing.
    pub(super) fn arrived(&self, bureau: &str, id: String, number: u64, arrived: Arrived) {
        let mut records = self.records();
        let entry = records.arrived.entry((bureau.to_owned(), id)).or_insert(arrived);
        entry.numbers.insert(number);
        drop(records);
        self.changed.notify_waiters();
    }

    pub(super) fn accepted(&self) -> usize {
        self.records().sent.len()
    }

    /// The last message for a bureau alone that was accepted elsewhere by a moment and has not come
    /// in.
    pub(super) fn waiting_for(&self, bureau: &str, by: Instant) -> Option<String> {
        let records = self.records();
        let waits = |(id, sent): &(&String, &Sent)| {
            sent.origin != bureau
                && sent.recipients == [bureau]
                && sent.accepted <= by
                && !records.arrived.contains_key(&(bureau.to_owned(), (*id).clone()))
        };
        let last = records.sent.iter().filter(waits).max_by_key(|(_, sent)| sent.accepted);
        last.map(|(id, _)| id.clone())
    }

    /// Waits until everything that was sent has come in.
    pub(super) async fn all_delivered(&self) {
        self.until(Records::all_delivered).await;
    }

    /// Waits until a bureau has a message.
    pub(super) async fn delivered(&self, bureau: &str, id: &str) {
        let key = (bureau.to_owned(), id.to_owned());
        self.until(|records| records.arrived.contains_key(&key)).await;
    }

    async fn until(&self, holds: impl Fn(&Records) -> bool) {
        loop {
            // Listening begins before looking, so that nothing falls between.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if holds(&self.records()) {
                return;
            }
            changed.await;
        }
    }
}

impl Records {
    fn all_delivered(&self) -> bool {
        self.sent.iter().all(|(id, sent)| self.is_delivered(id, sent))
    }

    /// Whether every recipient has it.
    pub(super) fn is_delivered(&self, id: &str, sent: &Sent) -> bool {
        let has = |bureau: &String| self.arrived.contains_key(&(bureau.clone(), id.to_owned()));
        sent.recipients.iter().all(has)
    }

    /// Whether any bureau has it under two numbers.
    pub(super) fn is_duplicated(&self, id: &str, sent: &Sent) -> bool {
        sent.recipients.iter().any(|bureau| {
            let arrived = self.arrived.get(&(bureau.clone(), id.to_owned()));
            arrived.is_some_and(|arrived| arrived.numbers.len() > 1)
        })
    }

    /// Whether what came in is what was sent, wherever it came in.
    pub(super) fn is_unchanged(&self, id: &str, sent: &Sent) -> bool {
        sent.recipients.iter().all(|bureau| {
            let arrived = self.arrived.get(&(bureau.clone(), id.to_owned()));
            arrived.is_none_or(|arrived| {
                arrived.origin == sent.origin
                    && arrived.subject == sent.subject
                    && arrived.content == sent.content
            })
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn sent(recipients: &[&str], at: Instant) -> Sent {
        Sent {
            origin: "FR".to_owned(),
            recipients: recipients.iter().map(|code| (*code).to_owned()).collect(),
            subject: "subject".to_owned(),
            content: Bytes::from_static(b"content"),
            asked: at,
            accepted: at,
            timed: true,
        }
    }

    pub(crate) fn arrived(at: Instant) -> Arrived {
        Arrived {
            origin: "FR".to_owned(),
            subject: "subject".to_owned(),
            content: Bytes::from_static(b"content"),
            at,
            hop: "IPSG".to_owned(),
            numbers: BTreeSet::new(),
        }
    }

    #[test]
    fn losses_duplicates_and_changes_are_seen() {
        let now = Instant::now();
        let ledger = Ledger::default();
        let message = sent(&["KE", "BR"], now);
        ledger.sent("id".to_owned(), message.clone());
        ledger.arrived("KE", "id".to_owned(), 1, arrived(now));
        ledger.arrived("KE", "id".to_owned(), 1, arrived(now));
        assert!(!ledger.records().is_delivered("id", &message));
        assert!(!ledger.records().is_duplicated("id", &message));
        ledger.arrived("BR", "id".to_owned(), 4, arrived(now));
        assert!(ledger.records().is_delivered("id", &message));
        assert!(ledger.records().is_unchanged("id", &message));
        ledger.arrived("BR", "id".to_owned(), 5, arrived(now));
        assert!(ledger.records().is_duplicated("id", &message));
        let other = Sent { content: Bytes::from_static(b"contenT"), ..message };
        assert!(!ledger.records().is_unchanged("id", &other));
    }

    #[test]
    fn what_waits_for_a_bureau_is_what_others_sent_to_it_alone() {
        let now = Instant::now();
        let ledger = Ledger::default();
        ledger.sent("both".to_owned(), sent(&["KE", "BR"], now));
        ledger.sent("own".to_owned(), Sent { origin: "KE".to_owned(), ..sent(&["KE"], now) });
        assert_eq!(ledger.waiting_for("KE", now), None);
        ledger.sent("first".to_owned(), sent(&["KE"], now));
        let later = now + std::time::Duration::from_millis(1);
        ledger.sent("second".to_owned(), sent(&["KE"], later));
        assert_eq!(ledger.waiting_for("KE", now).as_deref(), Some("first"));
        assert_eq!(ledger.waiting_for("KE", later).as_deref(), Some("second"));
        ledger.arrived("KE", "second".to_owned(), 1, arrived(now));
        assert_eq!(ledger.waiting_for("KE", later).as_deref(), Some("first"));
    }

    #[tokio::test]
    async fn the_last_delivery_ends_the_wait() {
        let now = Instant::now();
        let ledger = std::sync::Arc::new(Ledger::default());
        ledger.sent("id".to_owned(), sent(&["KE"], now));
        let waiting = tokio::spawn({
            let ledger = std::sync::Arc::clone(&ledger);
            async move { ledger.all_delivered().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        ledger.arrived("KE", "id".to_owned(), 1, arrived(now));
        assert!(waiting.await.is_ok());
    }
}
