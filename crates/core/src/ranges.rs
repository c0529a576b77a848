//! Sets of sequences, kept as spans: what arrived, what was handed on, what is missing.

use std::collections::BTreeMap;

use bureau_proto::envelope::v1::SequenceSpan;

/// A set of numbers as spans that do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    /// The last of each span by its first.
    spans: BTreeMap<u64, u64>,
}

impl Ranges {
    /// All numbers from one to another, both included.
    #[must_use]
    pub fn of(first: u64, last: u64) -> Self {
        let mut ranges = Self::default();
        ranges.insert_span(first, last);
        ranges
    }

    /// Whether a number is in.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.spans.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// Puts a number in.
    pub fn insert(&mut self, number: u64) {
        self.insert_span(number, number);
    }

    /// Puts all numbers from one to another in; nothing where the first is the higher.
    pub fn insert_span(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let (mut first, mut last) = (first, last);
        if let Some((before, end)) = self.spans.range(..=first).next_back()
            && end.saturating_add(1) >= first
        {
            first = *before;
            last = last.max(*end);
        }
        while let Some((next, end)) = self.spans.range(first..=last.saturating_add(1)).next() {
            let (next, end) = (*next, *end);
            self.spans.remove(&next);
            last = last.max(end);
        }
        self.spans.insert(first, last);
    }

    /// Takes a number out.
    pub fn remove(&mut self, number: u64) {
        let found = self.spans.range(..=number).next_back().map(|(first, last)| (*first, *last));
        let Some((first, last)) = found.filter(|(_, last)| *last >= number) else { return };
        self.spans.remove(&first);
        if let Some(before) = number.checked_sub(1) {
            self.insert_span(first, before);
        }
        if let Some(next) = number.checked_add(1) {
            self.insert_span(next, last);
        }
    }

    /// Puts all of another set in.
    pub fn extend(&mut self, other: &Self) {
        for (first, last) in other.spans() {
            self.insert_span(first, last);
        }
    }

    /// The numbers from one to another that are not in.
    #[must_use]
    pub fn missing(&self, first: u64, last: u64) -> Self {
        let mut missing = Self::default();
        let mut next = first;
        for (from, to) in self.spans() {
            if to < next {
                continue;
            }
            if from > last {
                break;
            }
            if from > next {
                missing.insert_span(next, from - 1);
            }
            match to.checked_add(1) {
                Some(after) => next = after,
                None => return missing,
            }
        }
        missing.insert_span(next, last);
        missing
    }

    /// What is in both.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        let mut common = Self::default();
        for (first, last) in self.spans() {
            for (from, to) in other.missing(first, last).missing(first, last).spans() {
                common.insert_span(from, to);
            }
        }
        common
    }

    /// What is in this and not in another.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        for (first, last) in self.spans() {
            rest.extend(&other.missing(first, last));
        }
        rest
    }

    /// Closes the lowest holes until there are at most so many spans: what was missing there is
    /// given up.
    pub fn bound(&mut self, spans: usize) {
        while self.spans.len() > spans.max(1) {
            let mut lowest = self.spans.iter();
            let (Some((first, _)), Some((second, last))) = (lowest.next(), lowest.next()) else {
                return;
            };
            let (first, second, last) = (*first, *second, *last);
            self.spans.remove(&second);
            self.spans.insert(first, last);
        }
    }

    /// The spans, lowest first.
    pub fn spans(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.spans.iter().map(|(first, last)| (*first, *last))
    }

    /// Every number, lowest first.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.spans().flat_map(|(first, last)| first..=last)
    }

    /// How many spans there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// How many numbers are in.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.spans()
            .fold(0, |sum: u64, (first, last)| sum.saturating_add((last - first).saturating_add(1)))
    }

    /// Whether nothing is in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The lowest number.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.spans.first_key_value().map(|(first, _)| *first)
    }

    /// The highest number.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.spans.last_key_value().map(|(_, last)| *last)
    }

    /// As it stands on the wire.
    #[must_use]
    pub fn to_wire(&self) -> Vec<SequenceSpan> {
        self.spans().map(|(first, last)| SequenceSpan { first, last }).collect()
    }

    /// From the wire; spans that are none are left out.
    #[must_use]
    pub fn from_wire(spans: &[SequenceSpan]) -> Self {
        let mut ranges = Self::default();
        for span in spans {
            ranges.insert_span(span.first, span.last);
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &Ranges) -> BTreeSet<u64> {
        ranges.numbers().collect()
    }

    proptest! {
        #[test]
        fn a_set_of_numbers_is_a_set(
            steps in proptest::collection::vec((0_u64..40, 0_u64..6, any::<bool>()), 0..40),
            others in proptest::collection::vec(0_u64..40, 0..20),
        ) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (first, length, inserted) in steps {
                if inserted {
                    ranges.insert_span(first, first + length);
                    model.extend(first..=first + length);
                } else {
                    ranges.remove(first);
                    model.remove(&first);
                }
                prop_assert_eq!(set(&ranges), model.clone());
                let spans: Vec<_> = ranges.spans().collect();
                prop_assert!(spans.windows(2).all(|two| two[0].1 + 1 < two[1].0), "{:?}", spans);
            }
            let (mut other, mut other_model) = (Ranges::default(), BTreeSet::new());
            for number in others {
                other.insert(number);
                other_model.insert(number);
            }
            prop_assert_eq!(set(&ranges.common(&other)), &model & &other_model);
            prop_assert_eq!(set(&ranges.without(&other)), &model - &other_model);
            let missing: BTreeSet<u64> = (5..=30).filter(|n| !model.contains(n)).collect();
            prop_assert_eq!(set(&ranges.missing(5, 30)), missing);
            prop_assert_eq!(Ranges::from_wire(&ranges.to_wire()), ranges.clone());
            prop_assert_eq!(ranges.count(), model.len() as u64);
            let mut bound = ranges.clone();
            bound.bound(2);
            prop_assert!(bound.len() <= 2);
            prop_assert!(model.iter().all(|number| bound.contains(*number)));
        }
    }

    #[test]
    fn the_ends_of_all_numbers_do_no_harm() {
        let mut ranges = Ranges::of(0, u64::MAX);
        ranges.remove(0);
        ranges.remove(u64::MAX);
        assert_eq!(ranges.spans().collect::<Vec<_>>(), [(1, u64::MAX - 1)]);
        assert_eq!(ranges.missing(0, u64::MAX).count(), 2);
        assert_eq!(Ranges::of(5, 4), Ranges::default());
    }
}
