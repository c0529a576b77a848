//! What was sent on this link and is not answered.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bureau_core::{BureauCode, Lane, MessageId};
use bureau_store::contract::QueuePosition;
use tokio::time::Instant;

use crate::engine::{links::Links, transit::Departure};

/// Parcels in flight.
#[derive(Debug)]
pub(super) struct Flight {
    /// Told of everything, so that what is taken back elsewhere is known to be on its way.
    links: Arc<Links>,
    parcels: BTreeMap<u64, InFlight>,
    /// The same by slip: which parcel carries it.
    slips: HashMap<(MessageId, BureauCode), u64>,
    bytes: usize,
    /// Parcels by lane.
    lanes: [usize; 4],
}

#[derive(Debug)]
struct InFlight {
    lane: Option<usize>,
    message: MessageId,
    slips: BTreeMap<BureauCode, Carried>,
    bytes: usize,
    /// When it, or its last piece so far, was sent.
    sent: Instant,
}

/// A slip on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Carried {
    /// Where it stands in the queue.
    pub(super) position: QueuePosition,
    /// Its digest, where that is at hand.
    pub(super) slip_digest: Option<[u8; 32]>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.links.transit().cut(self.slips.keys().copied());
    }
}

impl Flight {
    /// Nothing is on its way.
    pub(super) fn new(links: Arc<Links>) -> Self {
        let (parcels, slips) = (BTreeMap::new(), HashMap::new());
        Self { links, parcels, slips, bytes: 0, lanes: [0; 4] }
    }

    pub(super) fn parcels(&self) -> usize {
        self.parcels.len()
    }

    /// Parcels by lane, the most urgent first.
    pub(super) const fn lanes(&self) -> [usize; 4] {
        self.lanes
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a slip is on its way.
    pub(super) fn carries(&self, message: MessageId, recipient: BureauCode) -> bool {
        self.slips.contains_key(&(message, recipient))
    }

    /// Since when the parcel waits that waits longest for an answer.
    pub(super) fn oldest_sent(&self) -> Option<Instant> {
        self.parcels.values().map(|parcel| parcel.sent).min()
    }

    /// Notes a parcel that is about to be sent, of what was read as of a turn; or says why it must
    /// not be.
    pub(super) fn begin(
        &mut self,
        number: u64,
        message: MessageId,
        slips: BTreeMap<BureauCode, Carried>,
        (bytes, as_of): (usize, u64),
    ) -> Departure {
        let departure = self.links.transit().depart(message, slips.keys(), as_of);
        if departure != Departure::Go {
            return departure;
        }
        for recipient in slips.keys() {
            self.slips.insert((message, *recipient), number);
        }
        self.bytes += bytes;
        let lane = slips
            .values()
            .next()
            .and_then(|carried| Lane::ALL.iter().position(|lane| *lane == carried.position.lane));
        if let Some(count) = lane.and_then(|lane| self.lanes.get_mut(lane)) {
            *count += 1;
        }
        let parcel = InFlight { lane, message, slips, bytes, sent: Instant::now() };
        self.parcels.insert(number, parcel);
        departure
    }

    /// Notes that more of a parcel was sent.
    pub(super) fn sent_now(&mut self, number: u64) {
        if let Some(parcel) = self.parcels.get_mut(&number) {
            parcel.sent = Instant::now();
        }
    }

    /// The message of a parcel, and for whom it is still on its way.
    pub(super) fn parcel(&self, number: u64) -> Option<(MessageId, Vec<BureauCode>)> {
        let parcel = self.parcels.get(&number)?;
        Some((parcel.message, parcel.slips.keys().copied().collect()))
    }

    /// Takes a slip out; with its last slip the parcel goes.
    pub(super) fn release(&mut self, slip: (MessageId, BureauCode)) -> Option<Carried> {
        let number = self.slips.remove(&slip)?;
        self.links.transit().answered(slip);
        let parcel = self.parcels.get_mut(&number)?;
        let carried = parcel.slips.remove(&slip.1);
        if parcel.slips.is_empty() {
            self.bytes = self.bytes.saturating_sub(parcel.bytes);
            if let Some(count) = parcel.lane.and_then(|lane| self.lanes.get_mut(lane)) {
                *count = count.saturating_sub(1);
            }
            self.parcels.remove(&number);
        }
        carried
    }
}
