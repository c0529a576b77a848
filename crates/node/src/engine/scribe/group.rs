//! One group of the scribe: jobs in, signed operations out, and the way back for the answers.

use bureau_core::Reason;
use bureau_core::{
    BureauCode, DeskName, Epoch, Manifest, MessageId, Receipt, Signer, Slip, Timestamp,
    limits::NONCE_BYTES,
    receipt::{ReceiptKind, Statement},
    signing::{Group, SignError, SignedGroup, Ticket},
    slip::{Count, Label},
};
use bureau_net::Refusal;
use bureau_store::{
    StoreError,
    contract::{
        Accept, Acknowledge, GiveUp, Operation, Outcome, Receive, ReceiveAction, ReceiveSlip,
        Received, RequestKey,
    },
};
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::super::machine::Machine;
use super::{
    Accepted, Draft, Farewell, Heads, Inbound, Job, ParcelAnswer, Reply, SlipAnswer, Takeover,
    repeated, reused, store_refusal, unexpected,
};

/// Bodies above this are written to files before their group enters the store.
const LARGE_BODY_BYTES: usize = bureau_store::INLINE_BODY_BYTES_MAX;

/// A signed group.
pub(super) struct Prepared {
    pub(super) operations: Vec<Operation>,
    pub(super) answers: Answers,
    pub(super) requests: Vec<RequestKey>,
    pub(super) large: bool,
}

/// Who waits for which outcome.
#[derive(Default)]
pub(super) struct Answers {
    waiting: Vec<Waiting>,
}

enum Waiting {
    Submit {
        accepted: Accepted,
        reply: Reply<Accepted>,
        /// Held until the message is written.
        _memory: OwnedSemaphorePermit,
    },
    Receive {
        receipts: Vec<Vec<Answer>>,
        reply: Reply<Vec<ParcelAnswer>>,
    },
    GiveUp(Reply<bool>),
    Acknowledge(Reply<Option<(Timestamp, DeskName, bool)>>),
}

/// The receipt for a slip if it is new, and what a PASSED_ON receipt would say.
struct Answer {
    fresh: Bytes,
    passed_on: Statement,
}

/// A job whose parts are in the group, unsigned.
enum Open {
    Submit {
        draft: Box<Draft>,
        envelope: Ticket<bureau_core::Envelope>,
        slips: Vec<(Ticket<Slip>, u64)>,
        reply: Reply<Accepted>,
        memory: OwnedSemaphorePermit,
    },
    Receive {
        inbound: Vec<(Inbound, Vec<Ticket<Receipt>>)>,
        reply: Reply<Vec<ParcelAnswer>>,
    },
    GiveUp {
        receipt: Ticket<Receipt>,
        reply: Reply<bool>,
    },
    Acknowledge {
        takeover: Box<Takeover>,
        receipt: Ticket<Receipt>,
        reply: Reply<Option<(Timestamp, DeskName, bool)>>,
    },
}

/// Who signs, where and when.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) signer: &'a Signer,
    pub(super) bureau: BureauCode,
    pub(super) epoch: Epoch,
    pub(super) now: Timestamp,
    pub(super) machine: &'a Machine,
}

/// Signs a group. `None` where it could not be signed; the callers were told.
pub(super) fn prepare(jobs: Vec<Job>, scene: Scene<'_>, heads: &mut Heads) -> Option<Prepared> {
    let mut group = scene.signer.group();
    let mut open = Vec::with_capacity(jobs.len());
    for job in jobs {
        open.extend(scene.open(job, &mut group, heads));
    }
    let mut signed = match group.sign() {
        Ok(signed) => signed,
        Err(error) => {
            let refusal = sign_refusal(error);
            open.into_iter().for_each(|job| job.fail(&refusal));
            return None;
        }
    };
    let mut prepared = Prepared {
        operations: Vec::with_capacity(open.len()),
        answers: Answers::default(),
        requests: Vec::new(),
        large: false,
    };
    for job in open {
        // Only a ticket of another group fails here, and every ticket is of this one.
        if let Err(error) = scene.close(job, &mut signed, &mut prepared) {
            tracing::error!(event = "internal_fault", error = %error);
        }
    }
    Some(prepared)
}

impl Scene<'_> {
    fn open(self, job: Job, group: &mut Group<'_>, heads: &mut Heads) -> Option<Open> {
        match job {
            Job::Submit { draft, reply, memory } => {
                self.open_submit(draft, reply, memory, group, heads)
            }
            Job::Receive { inbound, reply } => {
                let open = |inbound: Inbound| {
                    let receipts = self.receipts(&inbound).into_iter();
                    let receipts = receipts.map(|statement| group.add(Receipt::new(statement)));
                    (inbound, receipts.collect())
                };
                Some(Open::Receive { inbound: inbound.into_iter().map(open).collect(), reply })
            }
            Job::GiveUp { farewell, reply } => {
                let receipt = group.add(Receipt::new(self.farewell(&farewell)));
                Some(Open::GiveUp { receipt, reply })
            }
            Job::Acknowledge { takeover, reply } => {
                let statement = Statement {
                    desk: Some(takeover.desk.clone()),
                    ..self.statement(
                        ReceiptKind::Acknowledged,
                        takeover.message,
                        self.bureau,
                        takeover.slip,
                    )
                };
                let receipt = group.add(Receipt::new(statement));
                Some(Open::Acknowledge { takeover, receipt, reply })
            }
        }
    }

    fn open_submit(
        self,
        draft: Box<Draft>,
        reply: Reply<Accepted>,
        memory: OwnedSemaphorePermit,
        group: &mut Group<'_>,
        heads: &mut Heads,
    ) -> Option<Open> {
        let mut nonce = [0; NONCE_BYTES];
        if self.machine.fill(&mut nonce).is_err() {
            drop(reply.send(Err(sign_refusal(SignError::NoRandom))));
            return None;
        }
        let manifest = Manifest {
            origin: self.bureau,
            key_id: self.signer.public().id(),
            kind: draft.kind,
            lane: draft.lane,
            created: self.now,
            expires: draft.expires,
            nonce,
            suite: draft.suite,
            exercise: draft.exercise,
            handling: draft.handling,
            body: draft.content,
            attachments: draft.attachments.clone(),
            key_commitment: Bytes::new(),
        };
        let network = self.signer.network();
        let envelope = group.add(bureau_core::Envelope::new(network, manifest, draft.body.clone()));
        let message = envelope.item().id();
        let mut slips = Vec::with_capacity(draft.recipients.len());
        for recipient in &draft.recipients {
            let head = heads.entry((*recipient, draft.lane)).or_insert((0, [0; 32]));
            let previous = (head.0 > 0).then_some(head.1);
            let count = Count { sequence: head.0 + 1, previous };
            let label = Label {
                message,
                recipient: *recipient,
                lane: draft.lane,
                origin_epoch: self.epoch,
                suite: draft.suite,
                private: count.encode(),
                encapsulation: Bytes::new(),
            };
            let slip = Slip::new(network, label);
            *head = (count.sequence, slip.digest());
            slips.push((group.add(slip), count.sequence));
        }
        Some(Open::Submit { draft, envelope, slips, reply, memory })
    }

    /// A receipt for each slip of a message that a link brought.
    fn receipts(self, inbound: &Inbound) -> Vec<Statement> {
        let one = |slip: &super::InboundSlip| {
            let kind = match slip.action {
                ReceiveAction::Deliver => ReceiptKind::Delivered,
                ReceiveAction::Relay => ReceiptKind::Custody,
                ReceiveAction::Refuse => ReceiptKind::Refused,
            };
            let label = slip.slip.label();
            let statement =
                self.statement(kind, label.message, label.recipient, slip.slip.digest());
            Statement {
                reason: slip.reason.map(|reason| reason.to_string()).unwrap_or_default(),
                advice: match slip.action {
                    ReceiveAction::Refuse => "correct the message and send it anew".to_owned(),
                    _ => String::new(),
                },
                previous_hop: (slip.action == ReceiveAction::Relay).then_some(inbound.hop),
                ..statement
            }
        };
        inbound.slips.iter().map(one).collect()
    }

    fn farewell(self, farewell: &Farewell) -> Statement {
        let Farewell { message, recipient, slip, kind, .. } = *farewell;
        Statement {
            reason: farewell.reason.clone(),
            advice: farewell.advice.clone(),
            ..self.statement(kind, message, recipient, slip)
        }
    }

    fn statement(
        self,
        kind: ReceiptKind,
        message: MessageId,
        recipient: BureauCode,
        slip: [u8; 32],
    ) -> Statement {
        Statement {
            kind,
            message,
            recipient,
            slip,
            signer: self.bureau,
            signer_epoch: self.epoch,
            time: self.now,
            reason: String::new(),
            advice: String::new(),
            previous_hop: None,
            next_hop: None,
            desk: None,
        }
    }

    fn close(
        self,
        job: Open,
        signed: &mut SignedGroup,
        prepared: &mut Prepared,
    ) -> Result<(), SignError> {
        let now = self.now;
        match job {
            Open::Submit { draft, envelope, slips, reply, memory } => {
                let envelope = signed.take(envelope)?;
                let mut labels = Vec::with_capacity(slips.len());
                for (slip, sequence) in slips {
                    labels.push((signed.take(slip)?, sequence));
                }
                let (message, expires) = (envelope.id(), draft.expires);
                let send_at = draft.send_at;
                let accepted =
                    Accepted { message, accepted: now, expires, send_at, repeated: false };
                prepared.large |= draft.body.len() > LARGE_BODY_BYTES;
                prepared.requests.extend(draft.request.iter().map(|(key, _)| key.clone()));
                let Draft { desk, request, send_at, requeue_of, .. } = *draft;
                let accept =
                    Accept { envelope, slips: labels, desk, request, send_at, requeue_of, now };
                prepared.operations.push(Operation::Accept(Box::new(accept)));
                prepared.answers.waiting.push(Waiting::Submit { accepted, reply, _memory: memory });
            }
            Open::Receive { inbound, reply } => {
                let mut receipts = Vec::with_capacity(inbound.len());
                for (inbound, tickets) in inbound {
                    prepared.large |= inbound.envelope.body().len() > LARGE_BODY_BYTES;
                    let (operation, answers) = self.close_receive(inbound, tickets, signed)?;
                    prepared.operations.push(operation);
                    receipts.push(answers);
                }
                prepared.answers.waiting.push(Waiting::Receive { receipts, reply });
            }
            Open::GiveUp { receipt, reply } => {
                let receipt = signed.take(receipt)?;
                prepared.operations.push(Operation::GiveUp(Box::new(GiveUp { receipt, now })));
                prepared.answers.waiting.push(Waiting::GiveUp(reply));
            }
            Open::Acknowledge { takeover, receipt, reply } => {
                let receipt = signed.take(receipt)?;
                let acknowledge = Acknowledge { receipt, desk: takeover.desk, now };
                prepared.operations.push(Operation::Acknowledge(Box::new(acknowledge)));
                prepared.answers.waiting.push(Waiting::Acknowledge(reply));
            }
        }
        Ok(())
    }

    fn close_receive(
        self,
        inbound: Inbound,
        tickets: Vec<Ticket<Receipt>>,
        signed: &mut SignedGroup,
    ) -> Result<(Operation, Vec<Answer>), SignError> {
        let mut slips = Vec::with_capacity(tickets.len());
        let mut answers = Vec::with_capacity(tickets.len());
        for (slip, ticket) in inbound.slips.into_iter().zip(tickets) {
            let receipt = signed.take(ticket)?;
            let passed_on = Statement {
                kind: ReceiptKind::PassedOn,
                reason: String::new(),
                advice: String::new(),
                previous_hop: Some(inbound.hop),
                ..receipt.statement().clone()
            };
            answers.push(Answer { fresh: receipt.encode(), passed_on });
            slips.push(ReceiveSlip { slip: slip.slip, action: slip.action, receipt });
        }
        let Inbound { envelope, hop, hops, refills, bundle, .. } = inbound;
        let now = self.now;
        let receive = Receive { envelope, slips, hop, hops, refills, bundle, now };
        Ok((Operation::Receive(Box::new(receive)), answers))
    }
}

impl Open {
    fn fail(self, refusal: &Refusal) {
        match self {
            Self::Submit { reply, .. } => drop(reply.send(Err(refusal.clone()))),
            Self::Receive { reply, .. } => drop(reply.send(Err(refusal.clone()))),
            Self::GiveUp { reply, .. } => drop(reply.send(Err(refusal.clone()))),
            Self::Acknowledge { reply, .. } => drop(reply.send(Err(refusal.clone()))),
        }
    }
}

impl Answers {
    /// Gives everybody who waits an answer. One who went away needs none.
    pub(super) fn give(self, outcome: Result<Vec<Outcome>, StoreError>, signer: &Signer) {
        let mut outcomes = match outcome {
            Ok(outcomes) => outcomes.into_iter(),
            Err(error) => {
                let refusal = store_refusal(&error);
                self.waiting.into_iter().for_each(|waiting| waiting.fail(&refusal));
                return;
            }
        };
        for waiting in self.waiting {
            waiting.give(&mut outcomes, signer);
        }
    }
}

impl Waiting {
    fn fail(self, refusal: &Refusal) {
        match self {
            Self::Submit { reply, .. } => drop(reply.send(Err(refusal.clone()))),
            Self::Receive { reply, .. } => drop(reply.send(Err(refusal.clone()))),
            Self::GiveUp(reply) => drop(reply.send(Err(refusal.clone()))),
            Self::Acknowledge(reply) => drop(reply.send(Err(refusal.clone()))),
        }
    }

    fn give(self, outcomes: &mut impl Iterator<Item = Outcome>, signer: &Signer) {
        let mut next = || outcomes.next().unwrap_or(Outcome::Done);
        match self {
            Self::Submit { accepted, reply, .. } => drop(reply.send(match next() {
                Outcome::Accepted => Ok(accepted),
                Outcome::RequestRepeated(made) => Ok(repeated(&made, accepted.send_at)),
                Outcome::RequestReused => Err(reused()),
                Outcome::AttachmentMissing => Err(missing()),
                Outcome::NotRequeued(_) => Err(not_requeued()),
                other => Err(unexpected(&other)),
            })),
            Self::GiveUp(reply) => drop(reply.send(match next() {
                Outcome::GivenUp(given_up) => Ok(given_up),
                other => Err(unexpected(&other)),
            })),
            Self::Acknowledge(reply) => drop(reply.send(match next() {
                Outcome::Acknowledged { time, desk, fresh } => Ok(Some((time, desk, fresh))),
                Outcome::NotFound => Ok(None),
                other => Err(unexpected(&other)),
            })),
            Self::Receive { receipts, reply } => {
                let answers: Result<Vec<_>, Refusal> = receipts
                    .into_iter()
                    .map(|answers| match next() {
                        Outcome::Received(received) => answer(answers, received, signer).map(Ok),
                        Outcome::AttachmentMissing => Ok(Err(Reason::AttachmentMissing)),
                        other => Err(unexpected(&other)),
                    })
                    .collect();
                drop(reply.send(answers));
            }
        }
    }
}

fn answer(
    answers: Vec<Answer>,
    received: Vec<Received>,
    signer: &Signer,
) -> Result<Vec<SlipAnswer>, Refusal> {
    let sign = |statement| {
        let mut group = signer.group();
        let ticket = group.add(Receipt::new(statement));
        let receipt = group.sign().and_then(|mut signed| signed.take(ticket));
        receipt.map(|receipt| receipt.encode()).map_err(sign_refusal)
    };
    let one = |(answer, received): (Answer, Received)| match received {
        Received::Fresh => Ok(SlipAnswer { receipt: answer.fresh, fresh: true, fork: None }),
        Received::Repeat(receipt) => Ok(SlipAnswer { receipt, fresh: false, fork: None }),
        Received::PassedOn(holder) => {
            let statement = Statement { next_hop: Some(holder), ..answer.passed_on };
            Ok(SlipAnswer { receipt: sign(statement)?, fresh: false, fork: None })
        }
        Received::Forked(first) => {
            let statement = Statement {
                kind: ReceiptKind::Refused,
                reason: Reason::Fork.to_string(),
                advice: "another message has its place in the count; send it anew".to_owned(),
                previous_hop: None,
                ..answer.passed_on
            };
            Ok(SlipAnswer { receipt: sign(statement)?, fresh: false, fork: Some(first) })
        }
    };
    answers.into_iter().zip(received).map(one).collect()
}

fn not_requeued() -> Refusal {
    Refusal::new(Reason::Busy, "it arrived, or was sent anew, this moment; look at it again")
}

fn missing() -> Refusal {
    Refusal::new(Reason::AttachmentMissing, "an attachment is not here any more; upload it again")
}

fn sign_refusal(error: SignError) -> Refusal {
    tracing::error!(event = "sign_failed", error = %error);
    Refusal::new(Reason::Internal, "nothing can be signed now; nothing was accepted")
}
