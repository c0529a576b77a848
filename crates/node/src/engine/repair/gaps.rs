//! What this bureau misses of the counts of others, and what is done about it: after a time its
//! origin is asked, after another without an answer the gap is said aloud. Pure: what is missing and
//! the time in, what to do out. Kept in memory; after a start every time begins anew.

use std::collections::BTreeMap;

use bureau_core::{Timestamp, high_water::CountOf, limits::SPANS_MAX, ranges::Ranges};

/// Gaps of one count that are told apart by their age. What is missing beyond joins the youngest.
const GAPS_OF_COUNT_MAX: usize = 16;

/// Sequences that are missing since one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// What.
    pub missing: Ranges,
    /// Since when.
    pub since: Timestamp,
    /// When its origin was asked first, and last.
    pub asked: Option<(Timestamp, Timestamp)>,
    /// Whether it was said aloud.
    pub open: bool,
    /// How many were missing when it was found.
    found: u64,
}

/// Something to do about a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask the origin for these.
    Ask(Ranges),
    /// It is not repaired in time: say it aloud.
    Open(Gap),
    /// Nothing of it is missing any more: so many came, or were voided. Whether it had been said
    /// aloud, and whether the origin had been asked.
    Close {
        /// Since when it was missing.
        since: Timestamp,
        /// How many were.
        messages: u64,
        /// Whether it was said aloud.
        open: bool,
        /// Whether the origin was asked.
        asked: bool,
    },
}

/// All gaps.
#[derive(Debug, Default)]
pub struct Gaps {
    counts: BTreeMap<CountOf, Vec<Gap>>,
}

impl Gaps {
    /// Looks at what is missing now, of every count that anything is known of.
    pub fn look(
        &mut self,
        now: Timestamp,
        repair_after_ms: i64,
        missing: &BTreeMap<CountOf, Ranges>,
    ) -> Vec<(CountOf, Step)> {
        let mut steps = Vec::new();
        let nothing = Ranges::default();
        let counts: Vec<CountOf> = self.counts.keys().chain(missing.keys()).copied().collect();
        for count in counts {
            let gaps = self.counts.entry(count).or_default();
            let missing = missing.get(&count).unwrap_or(&nothing);
            let done = update(gaps, now, missing);
            let due = act(gaps, now, repair_after_ms);
            steps.extend(done.into_iter().chain(due).map(|step| (count, step)));
        }
        self.counts.retain(|_, gaps| !gaps.is_empty());
        steps
    }

    /// What is missing, the oldest of each count first.
    pub fn all(&self) -> impl Iterator<Item = (&CountOf, &Gap)> {
        self.counts.iter().flat_map(|(count, gaps)| gaps.iter().map(move |gap| (count, gap)))
    }
}

/// Takes out what came, adds what is new.
fn update(gaps: &mut Vec<Gap>, now: Timestamp, missing: &Ranges) -> Vec<Step> {
    let mut fresh = missing.clone();
    for gap in gaps.iter_mut() {
        gap.missing = gap.missing.common(missing);
        fresh = fresh.without(&gap.missing);
    }
    let mut done = Vec::new();
    gaps.retain(|gap| {
        if gap.missing.is_empty() {
            let Gap { since, open, found: messages, .. } = *gap;
            done.push(Step::Close { since, messages, open, asked: gap.asked.is_some() });
        }
        !gap.missing.is_empty()
    });
    let found = fresh.count();
    let full = gaps.len() >= GAPS_OF_COUNT_MAX;
    match gaps.last_mut() {
        _ if fresh.is_empty() => {}
        Some(last) if full || last.since == now => {
            // As young as its youngest: better late than a false alarm.
            last.since = now;
            last.asked = None;
            last.missing.extend(&fresh);
            last.found = last.found.saturating_add(found);
        }
        _ => {
            let (missing, since) = (fresh, now);
            gaps.push(Gap { missing, since, asked: None, open: false, found });
        }
    }
    done
}

/// What is due: one request for all that is missing long enough, and what is said aloud.
fn act(gaps: &mut [Gap], now: Timestamp, repair_after_ms: i64) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut ask = Ranges::default();
    for gap in gaps {
        let since_last = gap.asked.map_or(gap.since, |(_, last)| last);
        if now.since(since_last) >= repair_after_ms {
            ask.extend(&gap.missing);
            gap.asked = Some((gap.asked.map_or(now, |(first, _)| first), now));
        }
        let overdue = gap.asked.is_some_and(|(first, _)| now.since(first) >= repair_after_ms);
        if overdue && !gap.open {
            gap.open = true;
            steps.push(Step::Open(gap.clone()));
        }
    }
    if !ask.is_empty() {
        let mut first = Ranges::default();
        ask.spans().take(SPANS_MAX).for_each(|(from, to)| first.insert_span(from, to));
        steps.push(Step::Ask(first));
    }
    steps
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use bureau_core::{Epoch, Lane};

    use super::*;

    fn count() -> CountOf {
        CountOf {
            origin: "FR".parse().unwrap(),
            recipient: "KE".parse().unwrap(),
            epoch: Epoch([1; 16]),
            lane: Lane::Routine,
        }
    }

    fn look(gaps: &mut Gaps, at: i64, missing: &[(u64, u64)]) -> Vec<Step> {
        let mut ranges = Ranges::default();
        missing.iter().for_each(|(first, last)| ranges.insert_span(*first, *last));
        let missing = BTreeMap::from([(count(), ranges)]);
        let steps = gaps.look(Timestamp::from_ms(at), 100, &missing);
        steps.into_iter().map(|(_, step)| step).collect()
    }

    #[test]
    fn what_comes_in_time_is_no_gap() {
        let mut gaps = Gaps::default();
        assert_eq!(look(&mut gaps, 0, &[(3, 5)]), []);
        assert_eq!(look(&mut gaps, 99, &[(4, 5)]), []);
        let since = Timestamp::from_ms(0);
        let close = Step::Close { since, messages: 3, open: false, asked: false };
        assert_eq!(look(&mut gaps, 100, &[]), [close]);
        assert_eq!(gaps.all().count(), 0);
    }

    #[test]
    fn what_does_not_come_is_asked_for_and_then_said() {
        let mut gaps = Gaps::default();
        look(&mut gaps, 0, &[(3, 5)]);
        assert_eq!(look(&mut gaps, 100, &[(3, 5)]), [Step::Ask(Ranges::of(3, 5))]);
        // What is missing later is asked for later.
        assert_eq!(look(&mut gaps, 150, &[(3, 5), (9, 9)]), []);
        let steps = look(&mut gaps, 200, &[(4, 5), (9, 9)]);
        assert!(matches!(&steps[0], Step::Open(gap) if gap.missing == Ranges::of(4, 5)));
        assert_eq!(steps[1..], [Step::Ask(Ranges::of(4, 5))]);
        assert_eq!(look(&mut gaps, 250, &[(4, 5), (9, 9)]), [Step::Ask(Ranges::of(9, 9))]);
        let since = Timestamp::from_ms(0);
        let close = Step::Close { since, messages: 3, open: true, asked: true };
        assert_eq!(look(&mut gaps, 260, &[(9, 9)]), [close]);
    }

    #[test]
    fn a_count_with_many_holes_stays_bounded() {
        let mut gaps = Gaps::default();
        let mut missing = Vec::new();
        for turn in 0..200 {
            missing.push((2 * turn, 2 * turn));
            look(&mut gaps, i64::try_from(turn).unwrap(), &missing);
        }
        assert!(gaps.all().count() <= GAPS_OF_COUNT_MAX);
        let held: u64 = gaps.all().map(|(_, gap)| gap.missing.count()).sum();
        assert_eq!(held, 200);
        let steps = look(&mut gaps, 10_000, &missing);
        let asked = steps.iter().find_map(|step| match step {
            Step::Ask(ranges) => Some(ranges.len()),
            _ => None,
        });
        assert_eq!(asked, Some(SPANS_MAX));
    }
}
