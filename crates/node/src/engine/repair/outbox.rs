//! Statements on their way: what origins say they sent, what recipients say they miss. Of each count
//! the newest is kept, in memory: who made it says it again.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bureau_core::{BureauCode, Timestamp, high_water::CountOf};
use bytes::Bytes;

/// Statements that are kept, each under 6 KiB and mostly under 1: 200 bureaus in four lanes leave
/// room for as many again.
const STATEMENTS_MAX: usize = 4096;
/// Statements of one speaker, so that none takes the room of all.
const STATEMENTS_OF_SPEAKER_MAX: usize = 1024;

/// What a statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Statement {
    /// What an origin sent, for its recipient.
    Sent(CountOf),
    /// What a recipient misses, for its origin.
    Missing(CountOf),
}

impl Statement {
    /// Who says it.
    #[must_use]
    pub const fn speaker(&self) -> BureauCode {
        match self {
            Self::Sent(count) => count.origin,
            Self::Missing(count) => count.recipient,
        }
    }

    /// Who must hear it.
    #[must_use]
    pub const fn destination(&self) -> BureauCode {
        match self {
            Self::Sent(count) => count.recipient,
            Self::Missing(count) => count.origin,
        }
    }
}

/// A statement that waits for a link.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// What.
    pub statement: Statement,
    /// Counts up with each that is put in.
    pub version: u64,
    /// Signed, encoded.
    pub signed: Bytes,
    /// When it came here.
    pub came: Timestamp,
}

#[derive(Debug)]
struct Entry {
    version: u64,
    time: Timestamp,
    came: Timestamp,
    signed: Bytes,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Outbox {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    version: u64,
    entries: BTreeMap<Statement, Entry>,
}

impl Outbox {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a statement in, made at a time. `false`: a newer one is there, or too many are.
    pub fn put(
        &self,
        statement: Statement,
        time: Timestamp,
        signed: Bytes,
        now: Timestamp,
    ) -> bool {
        let mut inner = self.inner();
        match inner.entries.get(&statement) {
            Some(entry) if entry.time >= time => return false,
            Some(_) => {}
            None => {
                let speaker = statement.speaker();
                let said = inner.entries.keys().filter(|other| other.speaker() == speaker);
                let crowded = said.count() >= STATEMENTS_OF_SPEAKER_MAX;
                if crowded || inner.entries.len() >= STATEMENTS_MAX {
                    return false;
                }
            }
        }
        inner.version += 1;
        let entry = Entry { version: inner.version, time, came: now, signed };
        inner.entries.insert(statement, entry);
        true
    }

    /// The version of the last one.
    pub fn version(&self) -> u64 {
        self.inner().version
    }

    /// What is newer than what was told.
    pub fn newer(&self, told: &BTreeMap<Statement, u64>) -> Vec<Waiting> {
        let inner = self.inner();
        let newer = inner.entries.iter().filter(|(statement, entry)| {
            told.get(statement).is_none_or(|version| *version < entry.version)
        });
        let waiting = newer.map(|(statement, entry)| Waiting {
            statement: *statement,
            version: entry.version,
            signed: entry.signed.clone(),
            came: entry.came,
        });
        waiting.collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use bureau_core::{Epoch, Lane};

    use super::*;

    fn count(origin: &str, epoch: u64) -> CountOf {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&epoch.to_be_bytes());
        CountOf {
            origin: origin.parse().unwrap(),
            recipient: "KE".parse().unwrap(),
            epoch: Epoch(bytes),
            lane: Lane::Routine,
        }
    }

    #[test]
    fn the_newest_of_each_is_kept_and_told_once() {
        let outbox = Outbox::default();
        let at = Timestamp::from_ms;
        let sent = Statement::Sent(count("FR", 1));
        assert!(outbox.put(sent, at(5), Bytes::from_static(b"5"), at(9)));
        assert!(!outbox.put(sent, at(5), Bytes::from_static(b"again"), at(9)));
        assert!(!outbox.put(sent, at(4), Bytes::from_static(b"older"), at(9)));
        let mut told = BTreeMap::new();
        let newer = outbox.newer(&told);
        assert_eq!((newer.len(), newer[0].signed.as_ref()), (1, b"5".as_slice()));
        told.insert(sent, newer[0].version);
        assert!(outbox.newer(&told).is_empty());
        assert!(outbox.put(sent, at(6), Bytes::from_static(b"6"), at(9)));
        assert_eq!(outbox.newer(&told).len(), 1);
        assert_eq!(outbox.version(), 2);
        assert_eq!(Statement::Missing(count("FR", 1)).destination(), "FR".parse().unwrap());
    }

    #[test]
    fn one_that_says_too_much_takes_no_room_from_others() {
        let outbox = Outbox::default();
        let at = Timestamp::from_ms;
        let put = |origin, epoch| {
            outbox.put(Statement::Sent(count(origin, epoch)), at(1), Bytes::new(), at(1))
        };
        let taken = (0..5000).filter(|epoch| put("FR", *epoch)).count();
        assert_eq!(taken, STATEMENTS_OF_SPEAKER_MAX);
        assert!(put("BR", 1));
    }
}
