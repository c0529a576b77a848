//! The relay itself: what it is given, and the two real nodes it stands between. What it does with
//! that is each test's own mischief.

use std::collections::{BTreeMap, BTreeSet};

use bureau_core::{
    Context, Epoch, MessageId, Receipt,
    receipt::{ReceiptKind, Statement},
    signing,
};
use bureau_proto::{
    desk::v1::GetInboxMessageRequest,
    envelope::v1 as envelope,
    link::v1::{self as wire, frame::Kind},
};
use bytes::Bytes;
use prost::Message as _;
use tokio::sync::oneshot;

use crate::harness::{
    self, Network, Program,
    peer::{Actor, Link, now},
};

/// The two ends of the relay: FR sends, the others receive.
pub(crate) const ENDS: [&str; 3] = ["FR", "KE", "BR"];

/// What the relay does with what comes through it.
pub(crate) trait Mischief: Send + 'static {
    /// A parcel of FR's, on its way to its recipients.
    fn parcel(&mut self, relay: &mut Relay, parcel: wire::Parcel);
    /// A receipt of a recipient, on its way to FR.
    fn receipt(&mut self, relay: &mut Relay, receipt: Bytes) {
        relay.tell_origin(receipt);
    }
    /// Nothing came for a while.
    fn idle(&mut self, _relay: &mut Relay) {}
}

/// Frames that are to be sent, and what it takes to make them.
pub(crate) struct Relay {
    pub(crate) actor: Actor,
    pub(crate) out: Vec<(String, Kind)>,
    pub(crate) parcels: u64,
    batches: u64,
}

impl Relay {
    /// Hands a parcel on, each slip to the bureau that it is for.
    pub(crate) fn pass_on(&mut self, parcel: &wire::Parcel) {
        for slip in &parcel.slips {
            let recipient = slip_of(slip).recipient;
            self.parcels += 1;
            let parcel = wire::Parcel {
                number: self.parcels,
                slips: vec![slip.clone()],
                hops: parcel.hops + 1,
                ..parcel.clone()
            };
            self.out.push((recipient, Kind::Parcel(parcel)));
        }
    }

    /// Signs that it has taken custody of every slip of a parcel.
    pub(crate) fn take_custody(&mut self, parcel: &wire::Parcel) {
        for slip in &parcel.slips {
            let receipt = self.sign(statement(&self.actor, ReceiptKind::Custody, slip));
            self.tell_origin(receipt);
        }
    }

    pub(crate) fn tell_origin(&mut self, receipt: Bytes) {
        self.batches += 1;
        let (number, receipts, home) = (self.batches, vec![receipt], String::new());
        let batch = wire::ReceiptBatch { number, receipts, home };
        self.out.push(("FR".to_owned(), Kind::Receipts(batch)));
    }

    pub(crate) fn sign(&self, statement: Statement) -> Bytes {
        let mut group = self.actor.signer.group();
        let ticket = group.add(Receipt::new(statement));
        group.sign().unwrap().take(ticket).unwrap().encode()
    }
}

pub(crate) fn slip_of(slip: &Bytes) -> envelope::Slip {
    let signed = envelope::Signed::decode(slip.clone()).unwrap();
    envelope::Slip::decode(signed.payload).unwrap()
}

/// A statement of the relay about a slip.
pub(crate) fn statement(actor: &Actor, kind: ReceiptKind, slip: &Bytes) -> Statement {
    let signed = envelope::Signed::decode(slip.clone()).unwrap();
    let label = slip_of(slip);
    let passed = kind == ReceiptKind::Custody;
    Statement {
        kind,
        message: MessageId::from_bytes(&label.message_id).unwrap(),
        recipient: label.recipient.parse().unwrap(),
        slip: signing::digest(&actor.network, Context::Slip, &signed.payload),
        signer: actor.bureau,
        signer_epoch: Epoch([7; 16]),
        time: now(),
        reason: String::new(),
        advice: String::new(),
        previous_hop: passed.then(|| "FR".parse().unwrap()),
        next_hop: None,
        desk: None,
    }
}

/// A star of FR, KE and BR whose hub is hostile.
pub(crate) struct Scene {
    pub(crate) network: Network,
    relay: Option<(oneshot::Sender<()>, tokio::task::JoinHandle<()>)>,
}

impl Scene {
    pub(crate) async fn begin(change: impl Fn(String) -> String) -> Self {
        let program = Program::at(env!("CARGO_BIN_EXE_bureau"));
        let mut network = Network::star(program, &ENDS, "IPSG");
        for end in ENDS {
            network.configure(end, &change);
        }
        network.start_all(&ENDS).await;
        Self { network, relay: None }
    }

    /// Puts the relay between the nodes.
    pub(crate) async fn with(&mut self, mischief: impl Mischief) {
        self.without().await;
        let actor = Actor::of(&self.network.home("IPSG"));
        let mut links = BTreeMap::new();
        for end in ENDS {
            links.insert(end.to_owned(), actor.link(&self.network.home(end), end).await);
        }
        let (stop, stopped) = oneshot::channel();
        let relay = Relay { actor, out: Vec::new(), parcels: 0, batches: 0 };
        self.relay = Some((stop, tokio::spawn(run(relay, links, mischief, stopped))));
    }

    pub(crate) async fn without(&mut self) {
        if let Some((stop, relay)) = self.relay.take() {
            // One that has ended by itself needs no telling.
            stop.send(()).ok();
            relay.await.unwrap();
        }
    }

    /// Sends numbered texts and gives them by id.
    pub(crate) async fn send(&self, count: usize, to: &[&str]) -> BTreeMap<String, String> {
        let desk = self.network.desk("FR");
        let mut sent = BTreeMap::new();
        for number in 0..count {
            let text = format!("number {number}");
            sent.insert(desk.send(to, &text).await, text);
        }
        sent
    }

    /// Waits until exactly these lie in a bureau's inbox, each once and unchanged.
    pub(crate) async fn arrived(&self, bureau: &str, sent: &BTreeMap<String, String>) {
        let desk = self.network.desk(bureau);
        harness::until(&format!("all have arrived at {bureau}"), async || {
            (desk.inbox().await.len() >= sent.len()).then_some(())
        })
        .await;
        self.only(bureau, sent).await;
    }

    /// In a bureau's inbox lies nothing but these, each once and unchanged.
    pub(crate) async fn only(&self, bureau: &str, sent: &BTreeMap<String, String>) {
        let desk = self.network.desk(bureau);
        let inbox = desk.inbox().await;
        let ids: BTreeSet<_> = inbox.iter().map(|(_, id)| id.clone()).collect();
        assert_eq!(ids.len(), inbox.len(), "one arrived twice");
        let mut client = desk.client().await;
        for id in ids {
            let request = GetInboxMessageRequest { message_id: id.clone() };
            let message = client.get_inbox_message(request).await.unwrap().into_inner();
            let content = message.message.unwrap().content;
            assert_eq!(content.as_ref(), sent[&id].as_bytes(), "{id} was altered");
        }
    }
}

pub(crate) async fn run(
    mut relay: Relay,
    mut links: BTreeMap<String, Link>,
    mut mischief: impl Mischief,
    mut stop: oneshot::Receiver<()>,
) {
    let mut idle = tokio::time::interval(std::time::Duration::from_millis(50));
    loop {
        for (end, kind) in std::mem::take(&mut relay.out) {
            if let Some(link) = links.get(&end) {
                link.send(kind).await;
            }
        }
        let next = links
            .iter_mut()
            .map(|(end, link)| Box::pin(async move { (end.clone(), link.next().await) }));
        let next = futures_util::future::select_all(next);
        let (end, frame) = tokio::select! {
            biased;
            _ = &mut stop => return,
            ((end, frame), ..) = next => (end, frame),
            _ = idle.tick() => {
                mischief.idle(&mut relay);
                continue;
            }
        };
        match frame {
            Some(Kind::Parcel(parcel)) if end == "FR" => mischief.parcel(&mut relay, parcel),
            Some(Kind::Receipts(batch)) if end != "FR" => {
                if batch.number > 0 {
                    let taken = wire::ReceiptBatchTaken { number: batch.number };
                    relay.out.push((end, Kind::ReceiptsTaken(taken)));
                }
                for receipt in batch.receipts {
                    mischief.receipt(&mut relay, receipt);
                }
            }
            Some(Kind::Bye(_)) | None => {
                links.remove(&end);
                if links.is_empty() {
                    return;
                }
            }
            Some(_) => {}
        }
    }
}
