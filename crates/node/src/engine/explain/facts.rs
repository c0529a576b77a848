//! The one place that gathers what an explanation needs: from the store, the links and what they
//! are doing. Nothing is changed by asking.

use std::collections::BTreeMap;

use bureau_core::{BureauCode, Lane, Manifest, MessageId, Roster, Timestamp, receipt};
use bureau_store::{
    StoreError,
    contract::{Depth, Held, QueuePosition, QueuedEntry, Role, Tracked, TrackedRecipient},
};
use tokio::time::Instant;

use super::{Ahead, Doing, Explanation, Facts, Hop, InInbox, Said, Straight, Waiting, explain};
use crate::{
    config::{Hours, Peer},
    engine::{
        Engine,
        doing::View,
        links::{LinkState, LinkStatus},
    },
};

/// Messages ahead that are looked at one by one for one recipient: past that it is said that there
/// are more. Some milliseconds of reading.
const COUNTED_MAX: usize = 2_000;
/// The same for all recipients of one message.
const COUNTED_IN_ALL_MAX: usize = 20_000;
/// Entries read at one time.
const PAGE: usize = 500;
const DAY_MINUTES: i64 = 24 * 60;
const MINUTE_MS: i64 = 60_000;

/// A message, explained.
#[derive(Debug, Clone)]
pub struct Explained {
    /// Its id.
    pub message: MessageId,
    /// Its origin.
    pub origin: BureauCode,
    /// What everyone may see; `None` where only the memory of the id is left.
    pub manifest: Option<Manifest>,
    /// When it expires.
    pub expires: Timestamp,
    /// For each recipient that was asked for, by code.
    pub explanations: Vec<Explanation>,
}

/// Gathers the facts of a message, for one recipient or for all, and explains them. `None`: nothing
/// is known of it here.
///
/// # Errors
/// Where the store cannot be read.
pub async fn gather(
    engine: &Engine,
    message: MessageId,
    recipient: Option<BureauCode>,
) -> Result<Option<Explained>, StoreError> {
    let Some(tracked) = engine.store.track(message).await? else { return Ok(None) };
    let held = engine.store.held_peers().await?;
    let mut gathering = Gathering::new(engine, held);
    let mut explanations = Vec::new();
    for track in &tracked.recipients {
        if recipient.is_none_or(|recipient| recipient == track.recipient) {
            let facts = gathering.facts(&tracked, track).await?;
            explanations.push(explain(&facts));
        }
    }
    let Tracked { origin, manifest, expires, .. } = tracked;
    Ok(Some(Explained { message, origin, manifest, expires, explanations }))
}

struct Gathering<'a> {
    engine: &'a Engine,
    roster: std::sync::Arc<Roster>,
    now: Timestamp,
    instant: Instant,
    peers: BTreeMap<BureauCode, (Option<Peer>, LinkStatus)>,
    depths: Vec<Depth>,
    held: BTreeMap<BureauCode, Held>,
    /// Messages that may still be looked at.
    budget: usize,
}

impl<'a> Gathering<'a> {
    fn new(engine: &'a Engine, held: Vec<(BureauCode, Held)>) -> Self {
        let peers = engine.links.statuses().into_iter();
        Self {
            engine,
            roster: engine.trust.roster(),
            now: engine.clock.now(),
            instant: Instant::now(),
            peers: peers.map(|(code, configured, status)| (code, (configured, status))).collect(),
            depths: engine.store.depths(),
            held: held.into_iter().collect(),
            budget: COUNTED_IN_ALL_MAX,
        }
    }

    async fn facts(
        &mut self,
        tracked: &Tracked,
        track: &TrackedRecipient,
    ) -> Result<Facts, StoreError> {
        let manifest = tracked.manifest.as_ref();
        let waiting = match track.position {
            Some(position) => self.waiting(tracked.message, position, manifest).await?,
            None => None,
        };
        let said = track.receipts.iter().filter_map(|kept| {
            let statement = receipt::stored_statement(kept.receipt.clone()).ok()?;
            let desk = statement.desk.map(|desk| desk.to_string()).unwrap_or_default();
            Some(Said {
                kind: statement.kind,
                signer: statement.signer,
                time: statement.time,
                reason: statement.reason,
                advice: statement.advice,
                desk,
            })
        });
        Ok(Facts {
            now: self.now,
            recipient: track.recipient,
            role: track.role,
            state: track.state,
            expires: tracked.expires,
            holder: track.holder,
            said: said.collect(),
            inbox: self.inbox(tracked.message, track).await?,
            held: track.held.clone(),
            recalled: track.recalled.clone(),
            waiting,
        })
    }

    async fn inbox(
        &self,
        message: MessageId,
        track: &TrackedRecipient,
    ) -> Result<Option<InInbox>, StoreError> {
        if track.role != Role::Recipient {
            return Ok(None);
        }
        let arrived = self.engine.store.inbox_message(message).await?;
        Ok(arrived.map(|arrived| InInbox {
            number: arrived.number,
            delivered: arrived.delivered,
            quarantined: !arrived.manifest.attachments.is_empty()
                && self.engine.is_quarantined(&arrived),
            acknowledged: arrived.acknowledged,
        }))
    }

    async fn waiting(
        &mut self,
        message: MessageId,
        position: QueuePosition,
        manifest: Option<&Manifest>,
    ) -> Result<Option<Waiting>, StoreError> {
        let Some(entry) = self.entry(position).await? else { return Ok(None) };
        let destination = position.destination;
        let links = &self.engine.links;
        // Where only the way back is left, that is told.
        let hop = links
            .next_hop_avoiding(destination, &entry.avoid, &self.roster)
            .or_else(|| links.next_hop(destination, &self.roster));
        let attachments = manifest.map(|manifest| manifest.attachments.as_slice());
        let bytes = attachments.unwrap_or_default().iter().map(|content| content.size).sum();
        let straight = self.peers.get(&destination).map(|(configured, status)| Straight {
            up: status.state == LinkState::Up,
            metered: configured.as_ref().is_some_and(|peer| peer.metered),
        });
        let ahead = match hop {
            Some(hop) => self.ahead(hop, position).await?,
            None => Ahead::default(),
        };
        Ok(Some(Waiting {
            since: entry.enqueued,
            size: entry.size,
            attachments: (entry.attachments, bytes),
            previous_hop: entry.previous_hop,
            hop: hop.and_then(|hop| self.hop(hop, message, position)),
            others: self.others(destination),
            straight,
            ahead,
            messages_per_second: self.engine.config.links.messages_per_second,
        }))
    }

    async fn entry(&self, position: QueuePosition) -> Result<Option<QueuedEntry>, StoreError> {
        let before = QueuePosition { number: position.number.saturating_sub(1), ..position };
        let page = self.engine.store.queue_page(Some(position.destination), Some(before), 1);
        Ok(page.await?.into_iter().find(|entry| entry.position == position))
    }

    /// Peers that lead to a destination beside itself.
    fn others(&self, destination: BureauCode) -> Vec<BureauCode> {
        let via = self.roster.member(&destination).map(|member| member.via.clone());
        let leads = |hub: &BureauCode| {
            self.peers.contains_key(hub) && self.roster.member(hub).is_ok_and(|member| member.relay)
        };
        via.unwrap_or_default().into_iter().filter(leads).collect()
    }

    fn hop(&self, peer: BureauCode, message: MessageId, position: QueuePosition) -> Option<Hop> {
        let (configured, status) = self.peers.get(&peer)?;
        let lane = Lane::ALL.iter().position(|lane| *lane == position.lane).unwrap_or_default();
        let doing = self.engine.links.doing(peer);
        let view = doing.view(message, position.destination, lane, self.instant);
        let hours = configured.as_ref().and_then(|peer| peer.bulk_hours);
        Some(Hop {
            peer,
            dials: configured.as_ref().is_some_and(|peer| peer.dial),
            state: status.state,
            since: status.since,
            next_attempt: status.next_attempt.filter(|_| status.state == LinkState::Down),
            failed_attempts: status.failed_attempts,
            last_reason: status.last_reason.clone(),
            rate: status.rate_bytes_per_second,
            round_trip: status.round_trip,
            held: self.held.get(&peer).cloned(),
            bulk_from: hours.and_then(|hours| opens(hours, self.now)),
            doing: self.doing(view),
        })
    }

    fn doing(&self, view: View) -> Doing {
        let past = |instant: Instant| {
            let ago = self.instant.saturating_duration_since(instant).as_millis();
            self.now.plus_ms(-i64::try_from(ago).unwrap_or(i64::MAX))
        };
        let ahead = |instant: Instant| {
            let left = instant.saturating_duration_since(self.instant).as_millis();
            self.now.plus_ms(i64::try_from(left).unwrap_or(i64::MAX))
        };
        let going = view.attachments;
        Doing {
            sent: view.sent.map(past),
            going: going.map(|going| (past(going.begun), going.total, going.sent, going.before)),
            transfers_full: view.transfers_full,
            kept: view.kept.map(|(reason, at)| (reason, past(at))),
            pause: view.pause.map(|pause| (ahead(pause.until), pause.reason)),
            attachments_pause: view
                .attachments_pause
                .map(|pause| (ahead(pause.until), pause.reason)),
        }
    }

    /// What goes before a message over the same hop: higher lanes whole, its own as far as it is
    /// older.
    async fn ahead(
        &mut self,
        hop: BureauCode,
        position: QueuePosition,
    ) -> Result<Ahead, StoreError> {
        let leads = |depth: &&Depth| {
            depth.lane <= position.lane
                && self.engine.links.next_hop(depth.destination, &self.roster) == Some(hop)
        };
        let mut queues: Vec<_> = self.depths.iter().filter(leads).copied().collect();
        queues.sort_by_key(|depth| (depth.lane, depth.destination));
        let mut lanes: BTreeMap<Lane, u64> = BTreeMap::new();
        let (mut bytes, mut more) = (0u64, false);
        let mut budget = COUNTED_MAX.min(self.budget);
        for queue in queues {
            let below = if queue.lane == position.lane { position.number } else { u64::MAX };
            let counted = self.counted(queue, below, &mut budget).await?;
            bytes = bytes.saturating_add(counted.bytes);
            more |= counted.more;
            // Of a higher lane all count, looked at or not.
            let whole = queue.lane < position.lane;
            let messages = if whole { queue.messages } else { counted.messages };
            if messages > 0 {
                *lanes.entry(queue.lane).or_default() += messages;
            }
        }
        Ok(Ahead { lanes: lanes.into_iter().collect(), bytes, more })
    }

    async fn counted(
        &mut self,
        queue: Depth,
        below: u64,
        budget: &mut usize,
    ) -> Result<Counted, StoreError> {
        let (destination, lane) = (queue.destination, queue.lane);
        let mut after = QueuePosition { destination, lane, number: 0 };
        let mut counted = Counted::default();
        loop {
            if *budget == 0 {
                counted.more = true;
                return Ok(counted);
            }
            let limit = PAGE.min(*budget);
            let page = self.engine.store.queue_page(Some(destination), Some(after), limit).await?;
            let read = page.len();
            for entry in page {
                if entry.position.lane != lane || entry.position.number >= below {
                    return Ok(counted);
                }
                counted.messages += 1;
                counted.bytes = counted.bytes.saturating_add(entry.size);
                after = entry.position;
            }
            *budget -= read;
            self.budget = self.budget.saturating_sub(read);
            if read < limit {
                return Ok(counted);
            }
        }
    }
}

#[derive(Default)]
struct Counted {
    messages: u64,
    bytes: u64,
    more: bool,
}

/// When daily hours begin next; `None`: they have.
fn opens(hours: Hours, now: Timestamp) -> Option<Timestamp> {
    if hours.contains(now) {
        return None;
    }
    let minute = now.as_ms().div_euclid(MINUTE_MS);
    let wait = (i64::from(hours.from_minute) - minute).rem_euclid(DAY_MINUTES);
    Some(Timestamp::from_ms((minute + wait) * MINUTE_MS))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn hours_begin_at_their_next_minute() {
        // Midnight of some day, by UTC.
        let midnight = Timestamp::from_ms(1_799_971_200_000);
        let at = |hour: i64, minute: i64| midnight.plus_ms((hour * 60 + minute) * MINUTE_MS);
        let hours = Hours::parse("22:00-06:00").unwrap();
        assert_eq!(opens(hours, at(21, 30).plus_ms(10_500)), Some(at(22, 0)));
        assert_eq!(opens(hours, at(6, 0).plus_ms(30_000)), Some(at(22, 0)));
        assert_eq!(opens(hours, at(23, 30)), None);
        let hours = Hours::parse("01:00-02:00").unwrap();
        assert_eq!(opens(hours, at(21, 30)), Some(at(25, 0)));
    }
}
