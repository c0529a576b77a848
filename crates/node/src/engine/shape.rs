//! How long what waits here has waited: age by destination and lane, as Postfix's qshape shows it.
//!
//! Counted by reading the queue through, page by page, away from the reactor and beside the
//! committer: ages move by themselves, so that no counter could be kept. A page is all the memory
//! it takes, and one asks at a time.

use std::collections::BTreeMap;

use bureau_core::{BureauCode, Lane, Timestamp};
use bureau_store::{StoreError, contract::QueuePosition};

use super::Engine;

/// Upper bounds of the columns in minutes: under a minute, 5, 15, an hour, 6 hours, a day, a week;
/// what is older stands in one more.
pub const BOUNDS_MINUTES: [i64; 7] = [1, 5, 15, 60, 360, 1440, 10_080];
/// Columns, the last one without a bound.
pub const COLUMNS: usize = BOUNDS_MINUTES.len() + 1;
/// Messages that are read at most: twice the queue of one destination.
pub const READ_MAX: u64 = 2_000_000;
/// Messages in one page.
const PAGE: usize = 1_000;
const MINUTE_MS: i64 = 60_000;

/// What waits, by age.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// By destination and lane.
    pub rows: BTreeMap<(BureauCode, Lane), Row>,
    /// Everything was read.
    pub complete: bool,
}

/// One queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    /// Messages of each age.
    pub messages: [u64; COLUMNS],
    /// Bytes of their envelopes.
    pub bytes: u64,
}

/// Reads the queue of a destination, or all, through.
///
/// # Errors
/// Where the store cannot be read.
pub async fn shape(engine: &Engine, destination: Option<BureauCode>) -> Result<Shape, StoreError> {
    let now = engine.clock.now();
    let (mut shape, mut after, mut read) = (Shape::default(), None::<QueuePosition>, 0);
    while read < READ_MAX {
        let page = engine.store.queue_page(destination, after, PAGE).await?;
        for entry in &page {
            let queue = (entry.position.destination, entry.position.lane);
            let row = shape.rows.entry(queue).or_default();
            if let Some(messages) = row.messages.get_mut(column(entry.enqueued, now)) {
                *messages += 1;
            }
            row.bytes = row.bytes.saturating_add(entry.size);
        }
        read += page.len() as u64;
        after = page.last().map(|entry| entry.position);
        if page.len() < PAGE {
            shape.complete = true;
            break;
        }
    }
    Ok(shape)
}

/// The column of what waits since a time.
fn column(since: Timestamp, now: Timestamp) -> usize {
    let minutes = now.since(since).max(0) / MINUTE_MS;
    BOUNDS_MINUTES.iter().position(|bound| minutes < *bound).unwrap_or(BOUNDS_MINUTES.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_age_has_its_column() {
        let now = Timestamp::from_ms(1_800_000_000_000);
        let of =
            |minutes: i64, more_ms: i64| column(now.plus_ms(-minutes * MINUTE_MS - more_ms), now);
        assert_eq!((of(0, 0), of(0, 59_999), of(1, 0), of(4, 0)), (0, 0, 1, 1));
        assert_eq!((of(5, 0), of(15, 0), of(60, 0), of(360, 0)), (2, 3, 4, 5));
        assert_eq!((of(1440, 0), of(10_079, 0), of(10_080, 0)), (6, 6, 7));
        // A clock that was set back makes nothing old.
        assert_eq!(of(-5, 0), 0);
    }
}
