//! The count at the end: what the demo saw is held against what the nodes say, and what the nodes
//! say against their signatures.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bureau_core::{BureauCode, MessageId, Verifier, receipt::ReceiptKind};
use bureau_proto::desk::v1::{
    DeliveryState, ListInboxRequest, ReceiptEntry, RecipientStatus, TrackRequest, TrackResponse,
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    DemoError, Outage,
    ledger::{Ledger, Records, Sent},
};
use crate::{client::DeskFace, error::CommandError, wire};

/// Entries of an inbox asked for at a time.
const PAGE_SIZE: i32 = 500;
/// Messages tracked at one time.
const TRACKED_MAX: usize = 32;
/// Between two looks at what is not settled yet.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What came of it all. Messages are counted once, however many recipients they have.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) submitted: usize,
    /// All recipients have it.
    pub(super) delivered: usize,
    /// All recipients' desks took it, by receipt.
    pub(super) acknowledged: usize,
    /// A recipient has it under two numbers.
    pub(super) duplicated: usize,
    /// It came changed, or a receipt is missing or does not hold.
    pub(super) unverified: usize,
    /// From asking until it came in, of those that did not meet the outage.
    pub(super) delivery_ms: Latencies,
    /// From asking until it was durable, likewise.
    pub(super) submit_ms: Latencies,
    /// A message that met the outage, and its way.
    pub(super) example: Option<(Sent, TrackResponse)>,
}

/// Durations in milliseconds, sorted.
#[derive(Debug)]
pub(super) struct Latencies(Vec<f64>);

type Desks = [(&'static str, DeskFace)];

/// Waits until all is settled, or for the deadline, and counts.
pub(super) async fn take(
    desks: &Desks,
    ledger: &Ledger,
    verifier: &Verifier,
    outage: Outage,
    deadline: Instant,
) -> Result<Tally, CommandError> {
    let tracked = settle(desks, ledger, deadline).await?;
    for (bureau, face) in desks {
        enter_inbox(bureau, face, ledger).await?;
    }
    Ok(count(&ledger.records(), &tracked, verifier, outage))
}

/// Tracks every message until a desk of each recipient has taken it.
async fn settle(
    desks: &Desks,
    ledger: &Ledger,
    deadline: Instant,
) -> Result<BTreeMap<String, TrackResponse>, CommandError> {
    let mut tracked = BTreeMap::new();
    loop {
        let origin = |(id, sent): (&String, &Sent)| (id.clone(), sent.origin.clone());
        let all: Vec<_> = ledger.records().sent.iter().map(origin).collect();
        let open = all.into_iter().filter(|(id, _)| !tracked.get(id).is_some_and(is_settled));
        let open: Vec<_> = open.collect();
        if open.is_empty() {
            return Ok(tracked);
        }
        tracked.extend(track(desks, open).await?);
        let settled = tracked.values().all(is_settled);
        if settled || Instant::now() >= deadline {
            return Ok(tracked);
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn is_settled(tracked: &TrackResponse) -> bool {
    let taken = |status: &RecipientStatus| status.state() == DeliveryState::Acknowledged;
    tracked.recipients.iter().all(taken)
}

async fn track(
    desks: &Desks,
    messages: Vec<(String, String)>,
) -> Result<Vec<(String, TrackResponse)>, CommandError> {
    let permits = Arc::new(Semaphore::new(TRACKED_MAX));
    let mut asking = JoinSet::new();
    for (id, origin) in messages {
        let desk = desks.iter().find(|(bureau, _)| *bureau == origin);
        let face = desk.map(|(_, face)| face.clone()).ok_or(DemoError::NoNode(origin))?;
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { break };
        asking.spawn(async move {
            let mut client = face.client.clone();
            let request = TrackRequest { message_id: id.clone() };
            let answer = face.call(client.track(request)).await;
            drop(permit);
            answer.map(|tracked| (id, tracked))
        });
    }
    let mut tracked = Vec::new();
    while let Some(answer) = asking.join_next().await {
        tracked.push(answer.map_err(|source| CommandError::Task { task: "tracking", source })??);
    }
    Ok(tracked)
}

/// Enters the numbers of everything a bureau's inbox holds, taken over or not: what the watching
/// desk may not have been shown.
async fn enter_inbox(bureau: &str, face: &DeskFace, ledger: &Ledger) -> Result<(), CommandError> {
    let mut page_token = String::new();
    loop {
        let request =
            ListInboxRequest { page_size: PAGE_SIZE, page_token, include_acknowledged: true };
        let mut client = face.client.clone();
        let page = face.call(client.list_inbox(request)).await?;
        let mut records = ledger.records();
        for entry in page.entries {
            let key = (bureau.to_owned(), entry.message_id);
            if let Some(arrived) = records.arrived.get_mut(&key) {
                arrived.numbers.insert(entry.number);
            }
        }
        drop(records);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(());
        }
    }
}

fn count(
    records: &Records,
    tracked: &BTreeMap<String, TrackResponse>,
    verifier: &Verifier,
    outage: Outage,
) -> Tally {
    let mut tally = Tally {
        submitted: records.sent.len(),
        delivered: 0,
        acknowledged: 0,
        duplicated: 0,
        unverified: 0,
        delivery_ms: Latencies::of(delivery_latencies(records, outage)),
        submit_ms: Latencies::of(submit_latencies(records, outage)),
        example: None,
    };
    for (id, sent) in &records.sent {
        let way = tracked.get(id);
        let acknowledged = way.is_some_and(is_settled);
        let proven = way.is_some_and(|way| is_proven(id, sent, way, verifier));
        tally.delivered += usize::from(records.is_delivered(id, sent));
        tally.acknowledged += usize::from(acknowledged);
        tally.duplicated += usize::from(records.is_duplicated(id, sent));
        tally.unverified += usize::from(!proven || !records.is_unchanged(id, sent));
    }
    let met_outage = |sent: &Sent| {
        sent.origin != super::VICTIM
            && sent.recipients.iter().any(|recipient| recipient == super::VICTIM)
            && sent.asked > outage.begin
            && sent.accepted < outage.end
    };
    let example = records.sent.iter().find(|(_, sent)| met_outage(sent));
    tally.example = example.and_then(|(id, sent)| Some((sent.clone(), tracked.get(id)?.clone())));
    tally
}

/// Whether for each recipient there are a DELIVERED and an ACKNOWLEDGED receipt that it signed.
fn is_proven(id: &str, sent: &Sent, way: &TrackResponse, verifier: &Verifier) -> bool {
    sent.recipients.iter().all(|recipient| {
        let status = way.recipients.iter().find(|status| status.recipient == *recipient);
        let proves = |kind: ReceiptKind| {
            let receipts = status.map(|status| status.receipts.as_slice()).unwrap_or_default();
            receipts.iter().any(|entry| proves(entry, kind, id, recipient, verifier))
        };
        proves(ReceiptKind::Delivered) && proves(ReceiptKind::Acknowledged)
    })
}

/// Whether the signed bytes say so; what the node says beside them counts for nothing.
fn proves(
    entry: &ReceiptEntry,
    kind: ReceiptKind,
    id: &str,
    recipient: &str,
    verifier: &Verifier,
) -> bool {
    let (Ok(message), Ok(recipient)) = (id.parse::<MessageId>(), recipient.parse::<BureauCode>())
    else {
        return false;
    };
    let Ok(receipt) = verifier.receipt(entry.signed_receipt.clone(), wire::now()) else {
        return false;
    };
    let statement = receipt.statement();
    statement.kind == kind
        && statement.message == message
        && statement.recipient == recipient
        && statement.signer == recipient
}

/// Of each message to each recipient that was wholly before or wholly after the outage.
fn delivery_latencies(records: &Records, outage: Outage) -> Vec<f64> {
    let mut latencies = Vec::new();
    for ((_, id), arrived) in &records.arrived {
        let Some(sent) = records.sent.get(id) else { continue };
        if sent.timed && outage.is_clear_of(sent.asked, arrived.at) {
            latencies.push(milliseconds(sent.asked, arrived.at));
        }
    }
    latencies
}

fn submit_latencies(records: &Records, outage: Outage) -> Vec<f64> {
    let clear = |sent: &&Sent| sent.timed && outage.is_clear_of(sent.asked, sent.accepted);
    let sent = records.sent.values().filter(clear);
    sent.map(|sent| milliseconds(sent.asked, sent.accepted)).collect()
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}

impl Outage {
    fn is_clear_of(self, from: Instant, to: Instant) -> bool {
        to < self.begin || from > self.end
    }
}

impl Tally {
    pub(super) const fn lost(&self) -> usize {
        self.submitted - self.delivered
    }

    /// Whether nothing was lost, nothing came twice, and everything is proven.
    pub(super) const fn is_good(&self) -> bool {
        self.submitted > 0
            && self.lost() == 0
            && self.acknowledged == self.submitted
            && self.duplicated == 0
            && self.unverified == 0
    }
}

impl Latencies {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest value that this share of all does not exceed; 0 where there is none.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
#[path = "tally/tests.rs"]
mod tests;
