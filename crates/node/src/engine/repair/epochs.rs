//! What a greeting tells of the memory of both sides: a peer in another epoch than before was wiped
//! or restored; and a peer that knows more of this bureau's own counts than this store does shows
//! that this one went back to a copy.

use bureau_core::{BureauCode, Epoch, Reason, high_water::HighWater};
use bureau_proto::link::v1::Hello;
use bureau_store::contract::{Head, Operation, Outcome};
use bytes::Bytes;

use super::intake::STATEMENTS_PER_FRAME_MAX;
use crate::engine::{Engine, outbound::End};

/// The peer's own statements that are kept here: what it once knew.
///
/// # Errors
/// Why no session begins: the store cannot be read.
pub async fn statements_of(engine: &Engine, peer: BureauCode) -> Result<Vec<Bytes>, End> {
    let counted = engine.store.counted().await.map_err(|error| End::of_store(&error))?;
    let own = counted.into_iter().filter(|counted| counted.origin == peer);
    Ok(own.map(|counted| counted.statement).take(STATEMENTS_PER_FRAME_MAX).collect())
}

/// Takes note of a peer's greeting.
///
/// # Errors
/// Why no session begins: the store failed.
pub async fn greeted(engine: &Engine, peer: BureauCode, hello: &Hello) -> Result<(), End> {
    let of_store = |error| End::of_store(&error);
    if let Ok(epoch) = Epoch::from_bytes(&hello.epoch) {
        let noted = vec![Operation::PeerEpoch { peer, epoch }];
        let outcomes = engine.store.commit(noted).await.map_err(of_store)?;
        if let Some(Outcome::PeerEpoch(Some(before))) = outcomes.first() {
            tracing::warn!(event = "peer_epoch_changed", peer = %peer, before = %before, epoch = %epoch);
        }
    }
    if hello.high_waters.is_empty() {
        return Ok(());
    }
    let (verifier, now) = (engine.trust.verifier(), engine.clock.now());
    let statements = hello.high_waters.clone();
    let verified = engine.machine.offload(move || {
        let statements = statements.into_iter().take(STATEMENTS_PER_FRAME_MAX);
        statements.filter_map(|bytes| verifier.high_water(bytes, now).ok()).collect::<Vec<_>>()
    });
    let verified = verified.await.map_err(|error| {
        tracing::error!(event = "task_failed", task = "repair", error = %error);
        End::new(Reason::Internal, "a task failed")
    })?;
    let heads = engine.store.heads().await.map_err(of_store)?;
    let (bureau, epoch) = (engine.bureau(), engine.store.epoch());
    let forgotten = verified.iter().find(|statement| {
        let count = statement.mark().count;
        count.origin == bureau && count.epoch == epoch && is_forgotten(statement, &heads)
    });
    match forgotten {
        Some(statement) => begin_epoch(engine, peer, statement).await,
        None => Ok(()),
    }
}

/// Whether this bureau signed what its store does not know.
fn is_forgotten(statement: &HighWater, heads: &[Head]) -> bool {
    let mark = statement.mark();
    let of = |head: &&Head| head.recipient == mark.count.recipient && head.lane == mark.count.lane;
    match heads.iter().find(of) {
        None => true,
        Some(head) if head.sequence == mark.last => mark.slip.is_some_and(|slip| slip != head.slip),
        Some(head) => head.sequence < mark.last,
    }
}

async fn begin_epoch(engine: &Engine, peer: BureauCode, proof: &HighWater) -> Result<(), End> {
    let mut epoch = [0; 16];
    engine.machine.fill(&mut epoch).map_err(|error| {
        tracing::error!(event = "sign_failed", error = %error);
        End::new(Reason::Internal, "no random bytes")
    })?;
    let (epoch, mark) = (Epoch(epoch), proof.mark());
    let begun = engine.store.commit(vec![Operation::BeginEpoch(epoch)]).await;
    begun.map_err(|error| End::of_store(&error))?;
    engine.metrics.went_back();
    tracing::error!(
        event = "store_went_back",
        peer = %peer, lane = %mark.count.lane, signed = mark.last,
        before = %mark.count.epoch, epoch = %epoch
    );
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use bureau_core::{
        Lane, Timestamp,
        high_water::{CountOf, Mark},
        ranges::Ranges,
    };

    use super::*;

    #[test]
    fn only_what_was_signed_and_is_unknown_is_forgotten() {
        let recipient: BureauCode = "KE".parse().unwrap();
        let (lane, slip) = (Lane::Flash, [4; 32]);
        let statement = |last, slip| {
            let count =
                CountOf { origin: "FR".parse().unwrap(), recipient, epoch: Epoch([1; 16]), lane };
            let (voided, pending) = (Ranges::default(), Ranges::default());
            let time = Timestamp::from_ms(1);
            HighWater::new(Mark { count, first: 1, last, slip, voided, pending, time })
        };
        let heads = [Head { recipient, lane, sequence: 7, slip }];
        assert!(!is_forgotten(&statement(6, Some([9; 32])), &heads));
        assert!(!is_forgotten(&statement(7, Some(slip)), &heads));
        assert!(!is_forgotten(&statement(7, None), &heads));
        assert!(is_forgotten(&statement(7, Some([9; 32])), &heads));
        assert!(is_forgotten(&statement(8, None), &heads));
        assert!(is_forgotten(&statement(1, None), &[]));
    }
}
