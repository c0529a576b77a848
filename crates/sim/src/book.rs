//! What is known from outside: what was asked for, what was answered, what was seen; and what of it
//! should not be. It also keeps a hash of everything that happened, in order, so that two runs of
//! one seed can be compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bureau_core::{BureauCode, Lane, MessageId, slip::Count};
use bureau_proto::{
    envelope::v1 as envelope,
    link::v1::{Frame, Parcel, frame::Kind},
};
use bytes::Bytes;
use prost::Message as _;
use tokio::time::{Duration, Instant};

use crate::plan::Plan;

/// What a desk asked for.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) origin: usize,
    pub(crate) recipients: Vec<BureauCode>,
    pub(crate) lane: Lane,
    pub(crate) content: Bytes,
    pub(crate) attachment: Option<Bytes>,
    /// Whether it may expire in the run.
    pub(crate) short: bool,
    pub(crate) accepted: Option<MessageId>,
    pub(crate) accepted_at: Option<Instant>,
}

/// What one number of one count was used for: origin, epoch, recipient, lane, number.
type Place = (BureauCode, Bytes, String, i32, u64);

#[derive(Debug)]
struct Inner {
    attempts: Vec<Attempt>,
    violations: BTreeSet<String>,
    /// What stood under each number of each inbox.
    numbers: BTreeMap<(usize, u64), MessageId>,
    /// When each message was first seen in an inbox.
    seen: BTreeMap<(usize, MessageId), Instant>,
    sequences: BTreeMap<Place, Bytes>,
    /// When a node or its links last suffered something.
    troubled: BTreeMap<usize, Instant>,
    hash: u64,
    frames: u64,
}

/// The book of a run.
#[derive(Debug)]
pub(crate) struct Book {
    inner: Mutex<Inner>,
    began: Instant,
    trace: bool,
}

/// How long after trouble a link may still end for it.
const TROUBLE: Duration = Duration::from_secs(240);

impl Book {
    pub(crate) fn new(trace: bool) -> Self {
        let inner = Inner {
            attempts: Vec::new(),
            violations: BTreeSet::new(),
            numbers: BTreeMap::new(),
            seen: BTreeMap::new(),
            sequences: BTreeMap::new(),
            troubled: BTreeMap::new(),
            hash: 0xcbf2_9ce4_8422_2325,
            frames: 0,
        };
        Self { inner: Mutex::new(inner), began: Instant::now(), trace }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened.
    pub(crate) fn note(&self, text: &str) {
        let at = self.began.elapsed().as_millis();
        if self.trace {
            tracing::info!(simulated = text, at_ms = at);
        }
        let mut inner = self.lock();
        inner.mix(&at.to_le_bytes());
        inner.mix(text.as_bytes());
    }

    /// Something happened that must not.
    pub(crate) fn violation(&self, check: &str, text: &str) {
        self.note(&format!("VIOLATION {check}: {text}"));
        self.lock().violations.insert(format!("{check}: {text}"));
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.lock().violations.iter().cloned().collect()
    }

    pub(crate) fn hash(&self) -> u64 {
        self.lock().hash
    }

    pub(crate) fn frames(&self) -> u64 {
        self.lock().frames
    }

    pub(crate) fn attempt(&self, attempt: Attempt) -> usize {
        let mut inner = self.lock();
        inner.attempts.push(attempt);
        inner.attempts.len() - 1
    }

    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.lock().attempts.clone()
    }

    /// A desk was told that its message is accepted.
    pub(crate) fn accepted(&self, number: usize, id: MessageId) {
        self.note(&format!("accepted {number} {id}"));
        let before = {
            let mut inner = self.lock();
            let Some(attempt) = inner.attempts.get_mut(number) else { return };
            attempt.accepted_at.get_or_insert_with(Instant::now);
            attempt.accepted.replace(id)
        };
        if before.is_some_and(|before| before != id) {
            self.violation("accepted-once", &format!("request {number} became two messages"));
        }
    }

    /// A desk saw a message in an inbox.
    pub(crate) fn arrived(&self, node: usize, number: u64, id: MessageId) {
        let before = {
            let mut inner = self.lock();
            inner.seen.entry((node, id)).or_insert_with(Instant::now);
            inner.numbers.insert((node, number), id)
        };
        match before {
            None => self.note(&format!("inbox of {node}: {number} is {id}")),
            Some(before) if before != id => {
                self.violation(
                    "inbox-number",
                    &format!("number {number} of {node} was used twice"),
                );
            }
            Some(_) => {}
        }
    }

    /// When a message was first seen in an inbox.
    pub(crate) fn seen_at(&self, node: usize, id: MessageId) -> Option<Instant> {
        self.lock().seen.get(&(node, id)).copied()
    }

    /// What desks saw under each number.
    pub(crate) fn numbers(&self, node: usize) -> Vec<(u64, MessageId)> {
        let inner = self.lock();
        let of_node = inner.numbers.range((node, 0)..=(node, u64::MAX));
        of_node.map(|((_, number), id)| (*number, *id)).collect()
    }

    /// A node, or a link of it, suffers something.
    pub(crate) fn trouble(&self, nodes: &[usize]) {
        let mut inner = self.lock();
        for node in nodes {
            inner.troubled.insert(*node, Instant::now());
        }
    }

    /// A frame passes from one node to another.
    pub(crate) fn passes(&self, from: usize, to: usize, bytes: &[u8]) {
        {
            let mut inner = self.lock();
            inner.frames += 1;
            inner.mix(&[u8::try_from(from).unwrap_or(0), u8::try_from(to).unwrap_or(0)]);
            inner.mix(bytes);
        }
        let Ok(frame) = Frame::decode(bytes) else { return };
        let kind = match frame.kind {
            Some(Kind::Zstd(squeezed)) => {
                let whole = zstd::bulk::decompress(&squeezed, 4 * 1024 * 1024).unwrap_or_default();
                Frame::decode(Bytes::from(whole)).unwrap_or_default().kind
            }
            kind => kind,
        };
        if self.trace {
            let at = self.began.elapsed().as_millis();
            let text = format!("{kind:?}");
            let text: String = text.chars().take(120).collect();
            tracing::debug!(frame = text, at_ms = at, from, to);
        }
        match kind {
            Some(Kind::Parcel(parcel)) => self.parcel(&parcel),
            Some(Kind::Bye(bye)) if bye.detail == "the peer does not answer a parcel" => {
                let calm = {
                    let inner = self.lock();
                    [from, to].iter().all(|node| {
                        inner.troubled.get(node).is_none_or(|at| at.elapsed() > TROUBLE)
                    })
                };
                if calm {
                    let text = format!("{from} waits for an answer of {to} that was given");
                    self.violation("window", &text);
                }
            }
            _ => {}
        }
    }

    /// No place in a count is given to two messages.
    fn parcel(&self, parcel: &Parcel) {
        for slip in &parcel.slips {
            let Ok(signed) = envelope::Signed::decode(slip.clone()) else { continue };
            let root =
                signed.attestation.as_ref().and_then(|attestation| attestation.root.as_ref());
            let origin = root.and_then(|root| root.bureau.parse().ok());
            let Ok(slip) = envelope::Slip::decode(signed.payload) else { continue };
            let (Some(origin), Ok(count)) = (origin, Count::decode(slip.private_part.clone()))
            else {
                continue;
            };
            let sequence = count.sequence;
            let place = (origin, slip.origin_epoch, slip.recipient.clone(), slip.lane, sequence);
            let before = self.lock().sequences.insert(place, slip.message_id.clone());
            if before.is_some_and(|before| before != slip.message_id) {
                let text = format!("{origin} gave {sequence} for {} twice", slip.recipient);
                self.violation("sequence", &text);
            }
        }
    }

    /// What the run was, for the report.
    pub(crate) fn summary(&self, plan: &Plan) -> String {
        let inner = self.lock();
        let accepted = inner.attempts.iter().filter(|attempt| attempt.accepted.is_some()).count();
        format!(
            "{:?}, {} bureaus, {} links, {accepted} of {} accepted, {} frames",
            plan.kind,
            plan.bureaus.len(),
            plan.pairs.len(),
            inner.attempts.len(),
            inner.frames
        )
    }
}

impl Inner {
    /// FNV-1a.
    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
