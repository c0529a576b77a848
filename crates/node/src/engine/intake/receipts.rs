//! Receipts that come in, over whichever way: verified in bulk away from the reactor, made durable,
//! logged.

use std::sync::Arc;

use bureau_core::{
    BureauCode, MessageId, Reason, Receipt, Timestamp, Verified, Verifier,
    receipt::{ReceiptKind, stored_statement},
};
use bureau_proto::link::v1 as wire;
use bureau_store::contract::{Operation, Outcome, TakeReceipt};

use super::task_failed;
use crate::engine::{Engine, outbound::End};

/// Receipts in one frame.
pub const RECEIPTS_PER_BATCH_MAX: usize = 1024;

/// What became of some receipts.
#[derive(Default)]
pub(in crate::engine) struct ReceiptsTaken {
    /// What the good ones are about.
    pub(in crate::engine) answered: Vec<(MessageId, BureauCode)>,
    /// What the hop itself had passed on before.
    pub(in crate::engine) passed_on: Vec<(MessageId, BureauCode)>,
    /// How many counted.
    pub(in crate::engine) counted: u64,
}

/// Verifies receipts that a hop brought and makes those durable that count.
///
/// # Errors
/// Why the store took none: then they are brought again.
pub(in crate::engine) async fn take_receipts(
    engine: &Arc<Engine>,
    hop: BureauCode,
    batches: Vec<wire::ReceiptBatch>,
    way: &'static str,
) -> Result<ReceiptsTaken, End> {
    let (verifier, now) = (engine.trust.verifier(), engine.clock.now());
    let verified = engine.machine.offload(move || verify_receipts(&verifier, batches, now));
    let (receipts, homes, refused) = verified.await.map_err(|error| task_failed(&error))?;
    if refused.iter().any(|(reason, signer)| is_ahead(*reason, *signer, hop)) {
        // Not confirmed, so they come again; refused for good they would never reach home.
        return Err(End::of_link(Reason::ClockSkew, "the peer's clock went ahead"));
    }
    for (reason, _) in &refused {
        engine.metrics.refused(way, reason.as_str());
        tracing::warn!(event = "receipt_rejected", peer = %hop, reason = %reason);
    }
    let operation = |(receipt, home): (&Verified<Receipt>, Option<BureauCode>)| {
        let home = home.filter(|home| passes_on_to(engine, hop, *home));
        let take = TakeReceipt { receipt: receipt.clone(), home, hop, now };
        Operation::TakeReceipt(Box::new(take))
    };
    let operations: Vec<_> = receipts.iter().zip(homes).map(operation).collect();
    let mut taken = ReceiptsTaken::default();
    if operations.is_empty() {
        return Ok(taken);
    }
    let outcomes = engine.store.commit(operations).await;
    let outcomes = outcomes.map_err(|error| End::of_store(&error))?;
    for (receipt, outcome) in receipts.iter().zip(&outcomes) {
        let statement = receipt.statement();
        let slip = (statement.message, statement.recipient);
        // Once only: a hop that says so again and again must not have it sent again each time.
        let passes_on = statement.kind == ReceiptKind::PassedOn
            && statement.signer == hop
            && *outcome == Outcome::ReceiptTaken;
        if passes_on {
            taken.passed_on.push(slip);
        } else {
            taken.answered.push(slip);
        }
        if *outcome == Outcome::ReceiptTaken {
            taken.counted += 1;
            engine.metrics.receipt(statement.kind);
            tracing::info!(
                event = "receipt_taken",
                message = %statement.message,
                recipient = %statement.recipient,
                kind = kind_name(statement.kind),
                signer = %statement.signer,
                reason = (!statement.reason.is_empty()).then_some(&*statement.reason),
                peer = %hop
            );
        } else {
            tracing::debug!(
                event = "receipt_ignored",
                message = %statement.message,
                kind = kind_name(statement.kind),
                signer = %statement.signer,
                outcome = ?outcome
            );
        }
    }
    Ok(taken)
}

/// Whether receipts for a bureau are passed on here whose messages took another way.
fn passes_on_to(engine: &Engine, hop: BureauCode, home: BureauCode) -> bool {
    let roster = engine.trust.roster();
    let relays = roster.member(&engine.bureau()).is_ok_and(|member| member.relay);
    let onward = engine.links.next_hop(home, &roster);
    relays && home != engine.bureau() && onward.is_some_and(|onward| onward != hop)
}

/// Why a receipt is refused, and who signed it by its own word.
type RefusedReceipt = (Reason, Option<BureauCode>);

fn verify_receipts(
    verifier: &Verifier,
    batches: Vec<wire::ReceiptBatch>,
    now: Timestamp,
) -> (Vec<Verified<Receipt>>, Vec<Option<BureauCode>>, Vec<RefusedReceipt>) {
    let (mut good, mut homes, mut bad) = (Vec::new(), Vec::new(), Vec::new());
    for batch in batches {
        let home = batch.home.parse().ok();
        if batch.receipts.len() > RECEIPTS_PER_BATCH_MAX {
            bad.push((Reason::TooLarge, None));
            continue;
        }
        for receipt in batch.receipts {
            let verified = verifier.receipt(receipt.clone(), now);
            match verified.and_then(|receipt| may_give(receipt, verifier)) {
                Ok(receipt) => {
                    good.push(receipt);
                    homes.push(home);
                }
                Err(reason) => {
                    let said = stored_statement(receipt);
                    bad.push((reason, said.ok().map(|statement| statement.signer)));
                }
            }
        }
    }
    (good, homes, bad)
}

/// Whether a receipt is refused because its signer, the hop itself, has a clock that went ahead since
/// it greeted.
fn is_ahead(reason: Reason, signer: Option<BureauCode>, hop: BureauCode) -> bool {
    reason == Reason::CreatedInFuture && signer == Some(hop)
}

/// What is for another only a relay takes over, passes on or gives up. Otherwise a recipient could
/// talk a message for somebody else out of its sender's queue.
fn may_give(receipt: Verified<Receipt>, verifier: &Verifier) -> Result<Verified<Receipt>, Reason> {
    let statement = receipt.statement();
    let is_relay = verifier.roster().member(&statement.signer).is_ok_and(|member| member.relay);
    if statement.signer == statement.recipient || is_relay {
        Ok(receipt)
    } else {
        Err(Reason::NotPermitted)
    }
}

/// A receipt's kind, as logs and people write it.
#[must_use]
pub fn kind_name(kind: bureau_core::receipt::ReceiptKind) -> &'static str {
    kind.as_str_name().trim_start_matches("RECEIPT_KIND_")
}
