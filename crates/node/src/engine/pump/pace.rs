//! How much may be on its way at one time, so that a slow link holds no long line of what is less
//! urgent: what was handed to the connection cannot be overtaken any more.
//!
//! As BBR does it (Cardwell and others, 2016), in small: pings go out between the bytes as marks,
//! and their answers say how fast bytes arrive and how long a round trip takes when nothing waits.
//! The product of both, and a little more to keep the link busy, is the window. On a long way the
//! window is not sent at one go either: after a pause all of it would stand in line.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// The window before anything is known: about one second of the slowest link.
const START_BYTES: u64 = 4 * 1024;
/// Never less than this: one piece on its way, and one behind it.
const LEAST_BYTES: u64 = 3 * 1024;
/// Never more than this.
const MOST_BYTES: u64 = 16 * 1024 * 1024;
/// What may wait in line at the slowest place, so that the link is never idle.
const LINE: Duration = Duration::from_millis(200);
/// A round trip above this makes the way a long one.
const LONG: Duration = Duration::from_millis(50);
/// Measurements that the highest counts of.
const SAMPLES: usize = 10;
/// How often the line is let run empty to measure the round trip anew, and how long that may take.
const QUIET_EVERY: Duration = Duration::from_secs(30);
const QUIET_AT_MOST: Duration = Duration::from_secs(3);

/// What is measured on one link in one direction.
#[derive(Debug)]
pub(super) struct Pace {
    /// Pings that are not answered.
    marks: VecDeque<Mark>,
    /// Bytes that had been sent at the last mark.
    marked: u64,
    acked: u64,
    acked_at: Instant,
    /// Whether sending waited for room since the last mark.
    limited: bool,
    /// The last measurements, in bytes a second.
    rates: VecDeque<u64>,
    /// The shortest round trip since the line was last empty.
    round_trip: Option<Duration>,
    quiet_at: Instant,
    last_number: u64,
    allowance: Allowance,
}

/// What may go now on a long way: it grows with time at a little more than the link's rate.
#[derive(Debug)]
struct Allowance {
    /// Below 0 where the last piece was larger than what was left.
    bytes: i64,
    at: Instant,
    /// Bytes that had been sent then.
    sent: u64,
}

#[derive(Debug)]
struct Mark {
    number: u64,
    /// Bytes sent before it.
    sent: u64,
    at: Instant,
    /// Bytes that were known to have arrived then, and since when.
    acked: u64,
    acked_at: Instant,
    limited: bool,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            marks: VecDeque::new(),
            marked: 0,
            acked: 0,
            acked_at: now,
            limited: false,
            rates: VecDeque::new(),
            round_trip: None,
            quiet_at: now + QUIET_EVERY,
            last_number: 0,
            allowance: Allowance { bytes: 0, at: now, sent: 0 },
        }
    }

    /// Whether no mark was ever set.
    pub(super) const fn is_fresh(&self) -> bool {
        self.last_number == 0
    }

    /// Bytes that arrive in a second; `None` before the first measurement.
    pub(super) fn rate(&self) -> Option<u64> {
        self.rates.iter().copied().max()
    }

    fn window(&self) -> u64 {
        let (Some(rate), Some(round_trip)) = (self.rate(), self.round_trip) else {
            return START_BYTES;
        };
        let time = round_trip + LINE;
        let bytes = u128::from(rate) * time.as_millis() / 1000;
        u64::try_from(bytes).unwrap_or(MOST_BYTES).clamp(LEAST_BYTES, MOST_BYTES)
    }

    /// Whether more may be sent now that must not wait, of what so much was sent in all.
    pub(super) fn has_urgent_room(&self, sent: u64) -> bool {
        sent.saturating_sub(self.acked) < 2 * self.window()
    }

    /// Whether more may be sent now, of what so much was sent in all.
    pub(super) fn has_room(&mut self, sent: u64, now: Instant) -> bool {
        let under_way = sent.saturating_sub(self.acked);
        if now >= self.quiet_at + QUIET_AT_MOST {
            // What must not wait never stops.
            self.quiet_at = now + QUIET_EVERY;
        }
        if now >= self.quiet_at {
            if !self.marks.is_empty() || sent > self.marked {
                return false;
            }
            // The line is empty: the next answer shows the link as it is.
            self.round_trip = None;
            self.quiet_at = now + QUIET_EVERY;
        }
        let room = under_way < self.window();
        self.limited |= !room;
        // Asked for in any case: it also notes the time, and with it when there is more room.
        let may_go = self.may_go(sent, now);
        room && may_go
    }

    /// The rate at which a long way is filled; `None` for a short one, where a window is soon gone.
    fn fill_rate(&self) -> Option<u64> {
        let long = self.round_trip.is_some_and(|round_trip| round_trip > LONG);
        self.rate().filter(|_| long).map(|rate| rate.saturating_add(rate / 4).max(1))
    }

    fn may_go(&mut self, sent: u64, now: Instant) -> bool {
        let Some(rate) = self.fill_rate() else { return true };
        let Allowance { bytes, at, sent: before } = self.allowance;
        let passed = now.saturating_duration_since(at).as_micros();
        let grown = i64::try_from(u128::from(rate) * passed / 1_000_000).unwrap_or(i64::MAX);
        if grown == 0 && sent == before {
            return bytes > 0;
        }
        let most = i64::try_from(u128::from(rate) * LINE.as_millis() / 1000).unwrap_or(i64::MAX);
        let spent = i64::try_from(sent.saturating_sub(before)).unwrap_or(i64::MAX);
        let bytes = bytes.saturating_add(grown).min(most).saturating_sub(spent);
        self.allowance = Allowance { bytes, at: now, sent };
        bytes > 0
    }

    /// When there is more room at the earliest, where that is a matter of time alone.
    pub(super) fn room_at(&self) -> Option<Instant> {
        let rate = self.fill_rate().filter(|_| self.allowance.bytes <= 0)?;
        let missing = self.allowance.bytes.unsigned_abs().saturating_add(1);
        let wait = missing.saturating_mul(1_000_000) / rate;
        Some(self.allowance.at + Duration::from_micros(wait.clamp(1000, 1_000_000)))
    }

    /// A piece of so many bytes keeps the link busy for about an eighth of a second.
    pub(super) fn piece_bytes(&self) -> usize {
        let bytes = self.rate().map_or(2048, |rate| rate / 8);
        usize::try_from(bytes).unwrap_or(usize::MAX).clamp(1024, 64 * 1024)
    }

    /// Whether a mark should be set now.
    pub(super) fn wants_mark(&self, sent: u64, now: Instant) -> bool {
        let unmarked = sent.saturating_sub(self.marked);
        // Where sending must wait, the mark stands at the end of what was sent: were some bytes
        // behind it, the next measurement would count them twice.
        let waits = self.limited && unmarked >= 256 || now >= self.quiet_at;
        unmarked >= (self.window() / 4).max(1024) || waits && unmarked > 0
    }

    /// When the ping was sent that waits longest for its answer.
    pub(super) fn oldest_mark(&self) -> Option<Instant> {
        self.marks.front().map(|mark| mark.at)
    }

    /// Sets a mark after so many bytes: the number for the ping.
    pub(super) fn mark(&mut self, sent: u64, now: Instant) -> u64 {
        self.last_number += 1;
        if self.marks.is_empty() && sent == self.acked {
            // Nothing was on its way: the time before this says nothing of the link.
            self.acked_at = now;
        }
        self.marks.push_back(Mark {
            number: self.last_number,
            sent,
            at: now,
            acked: self.acked,
            acked_at: self.acked_at,
            limited: std::mem::take(&mut self.limited),
        });
        self.marked = sent;
        self.last_number
    }

    /// A ping was answered: the round trip it took. `None`: no such ping is open.
    pub(super) fn answered(&mut self, number: u64, now: Instant) -> Option<Duration> {
        let position = self.marks.iter().position(|mark| mark.number == number)?;
        let mark = self.marks.drain(..=position).next_back()?;
        let round_trip = now.saturating_duration_since(mark.at);
        self.acked = self.acked.max(mark.sent);
        self.acked_at = now;
        self.round_trip = Some(self.round_trip.map_or(round_trip, |least| least.min(round_trip)));
        let (bytes, time) = (mark.sent - mark.acked.min(mark.sent), now - mark.acked_at);
        if bytes > 0 && !time.is_zero() {
            let rate = u128::from(bytes) * 1_000_000 / time.as_micros().max(1);
            self.measured(u64::try_from(rate).unwrap_or(u64::MAX), mark.limited);
        }
        Some(round_trip)
    }

    /// A link that was not kept busy was not measured; only that it can do so much is known.
    fn measured(&mut self, rate: u64, limited: bool) {
        if limited || self.rate().is_none_or(|known| rate > known) {
            self.rates.push_back(rate);
            if self.rates.len() > SAMPLES {
                self.rates.pop_front();
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    /// A link of a rate and a delay, tried with as much as the pace lets go. Gives the longest line
    /// in bytes after a first while, and the bytes that arrived in a minute.
    fn try_link(bytes_per_second: u64, round_trip: Duration) -> (u64, u64, Pace) {
        let begin = Instant::now();
        let mut now = begin;
        let mut pace = Pace::new(now);
        let (mut sent, mut line, mut longest, mut arrived) = (0_u64, VecDeque::new(), 0, 0);
        let mut pongs: VecDeque<(Instant, u64)> = VecDeque::new();
        let (mut waiting, mut credit) = (0_u64, 0_u64);
        while now < begin + Duration::from_secs(90) {
            while pace.has_room(sent, now) {
                let bytes = pace.piece_bytes() as u64;
                sent += bytes;
                waiting += bytes;
                line.push_back((bytes, None));
                if pace.wants_mark(sent, now) {
                    line.push_back((0, Some(pace.mark(sent, now))));
                }
            }
            if pace.wants_mark(sent, now) {
                line.push_back((0, Some(pace.mark(sent, now))));
            }
            credit += bytes_per_second / 1000;
            while let Some((bytes, mark)) = line.front().copied() {
                if bytes > credit {
                    break;
                }
                credit -= bytes;
                waiting -= bytes;
                if now > begin + Duration::from_secs(30) {
                    arrived += bytes;
                }
                if let Some(mark) = mark {
                    pongs.push_back((now + round_trip, mark));
                }
                line.pop_front();
            }
            if line.is_empty() {
                credit = 0;
            }
            if now > begin + Duration::from_secs(30) {
                longest = longest.max(waiting);
            }
            while pongs.front().is_some_and(|(at, _)| *at <= now) {
                let (_, number) = pongs.pop_front().unwrap();
                pace.answered(number, now);
            }
            now += Duration::from_millis(1);
        }
        (longest, arrived, pace)
    }

    #[test]
    fn the_line_stays_short_and_the_link_busy() {
        for (kbit, round_trip) in [(64, 600), (512, 600), (64, 50), (4_000, 100), (100_000, 5)] {
            let rate = kbit * 1000 / 8;
            let (longest, arrived, pace) = try_link(rate, Duration::from_millis(round_trip));
            let line_ms = longest * 1000 / rate;
            assert!(line_ms < 900, "{kbit} kbit/s, {round_trip} ms: a line of {line_ms} ms");
            let used = arrived * 100 / (rate * 60);
            assert!(used > 75, "{kbit} kbit/s, {round_trip} ms: {used} % used");
            let known = pace.rate().unwrap() * 100 / rate;
            assert!((60..150).contains(&known), "{kbit} kbit/s: measured {known} %");
        }
    }

    #[test]
    fn the_slowest_link_holds_a_piece_or_three() {
        let (longest, _, pace) = try_link(1200, Duration::from_millis(300));
        assert!(longest <= 4096, "{longest}");
        assert_eq!(pace.piece_bytes(), 1024, "{:?}", pace.rate());
    }

    #[test]
    fn an_answer_counts_once_and_an_unknown_one_not_at_all() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let number = pace.mark(1000, now);
        assert_eq!(pace.answered(number + 1, now), None);
        let later = now + Duration::from_millis(80);
        assert_eq!(pace.answered(number, later), Some(Duration::from_millis(80)));
        assert_eq!(pace.answered(number, later), None);
    }
}
