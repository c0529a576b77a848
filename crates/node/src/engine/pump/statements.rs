//! Statements of what was sent and of what is missing, on their way over this link.

use std::{collections::BTreeMap, time::Duration};

use bureau_core::{BureauCode, Lane, Timestamp};
use bureau_proto::link::v1::{HighWaterBatch, ShortfallBatch, frame::Kind};
use bytes::Bytes;
use tokio::time::Instant;

use super::Pump;
use crate::engine::{
    outbound::End,
    repair::{
        intake::STATEMENTS_PER_FRAME_MAX,
        outbox::{Statement, Waiting},
    },
};

/// How often it is looked whether what was held back may go, and whether routes changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was told on this link.
#[derive(Debug, Default)]
pub(super) struct Told {
    versions: BTreeMap<Statement, u64>,
    /// The outbox's version when last looked at, and when to look again all the same.
    seen: u64,
    next_look: Option<Instant>,
}

impl Pump<'_> {
    /// Sends what is new and leads over this peer. Whether anything was sent.
    pub(super) async fn send_statements(&mut self) -> Result<bool, End> {
        let outbox = &self.engine.repair.outbox;
        let (version, now) = (outbox.version(), Instant::now());
        let due = self.told.next_look.is_none_or(|next| next <= now);
        if version == self.told.seen && !due {
            return Ok(false);
        }
        self.told.seen = version;
        self.told.next_look = Some(now + LOOK_EVERY);
        let roster = self.engine.trust.roster();
        let (mut sent, mut missing) = (Vec::new(), Vec::new());
        for waiting in outbox.newer(&self.told.versions) {
            let destination = waiting.statement.destination();
            let leads = self.engine.links.next_hop(destination, &roster) == Some(self.slot.peer);
            if !leads || self.is_overtaking(&waiting) {
                continue;
            }
            self.told.versions.insert(waiting.statement, waiting.version);
            match waiting.statement {
                Statement::Sent(_) => sent.push(waiting.signed),
                Statement::Missing(_) => missing.push(waiting.signed),
            }
        }
        let any = !sent.is_empty() || !missing.is_empty();
        let frames = |statements: Vec<Bytes>| -> Vec<Vec<Bytes>> {
            statements.chunks(STATEMENTS_PER_FRAME_MAX).map(<[Bytes]>::to_vec).collect()
        };
        for high_waters in frames(sent) {
            self.outbound.send(Kind::HighWaters(HighWaterBatch { high_waters })).await?;
        }
        for shortfalls in frames(missing) {
            self.outbound.send(Kind::Shortfalls(ShortfallBatch { shortfalls })).await?;
        }
        Ok(any)
    }

    /// What an origin says it handed on goes behind it: a relay that still has some of it would have
    /// the recipient miss what is only slow.
    fn is_overtaking(&self, waiting: &Waiting) -> bool {
        let Statement::Sent(count) = waiting.statement else { return false };
        if count.origin == self.engine.bureau() {
            return false;
        }
        let depths = self.engine.store.depths();
        let before = |recipient: BureauCode, lane: Lane, oldest: Timestamp| {
            recipient == count.recipient && lane == count.lane && oldest <= waiting.came
        };
        depths.iter().any(|depth| before(depth.destination, depth.lane, depth.oldest))
    }
}
