//! What a journal holds after a stop of any kind.
//!
//! A segment ends in zeros, or in a group that was torn when the process or the machine stopped.
//! After each stop a fresh segment begins with copies of what may not be durable, so that a
//! segment may begin with numbers that stand before it too: the later copy counts.

use std::path::Path;

use super::{
    group::{self, Sum, Write},
    segments,
};
use crate::{StoreError, disk::Disk};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Groups in order, without gaps.
    pub(crate) groups: Vec<FoundGroup>,
    /// Segments that hold nothing.
    pub(crate) unused: Vec<u64>,
    /// The number for the next segment.
    pub(crate) next_segment: u64,
    /// Where damage was found that is not a torn end, below the first group that is whole.
    pub(crate) damage: Option<Damage>,
}

/// A whole group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundGroup {
    pub(crate) number: u64,
    pub(crate) segment: u64,
    pub(crate) sum: Sum,
}

/// Damage that a tear does not explain.
#[derive(Debug, Clone)]
pub(crate) struct Damage {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) what: &'static str,
}

impl Damage {
    pub(crate) fn error(&self, directory: &Path) -> StoreError {
        let path = segments::path(directory, self.segment);
        StoreError::Corrupt { path, offset: self.offset, what: self.what }
    }
}

impl Found {
    pub(crate) fn last(&self) -> u64 {
        self.groups.last().map_or(0, |group| group.number)
    }

    pub(crate) fn first(&self) -> Option<u64> {
        self.groups.first().map(|group| group.number)
    }
}

/// Reads every segment, and remembers of each group what it needs.
pub(crate) fn recover<D: Disk>(disk: &D, directory: &Path) -> Result<Found, StoreError> {
    let mut found = Found::default();
    // A torn end is an end only if the next segment goes on right there.
    let mut torn: Option<Damage> = None;
    for segment in segments::list(disk, directory)? {
        found.next_segment = segment + 1;
        let bytes = read(disk, directory, segment)?;
        if bytes.iter().all(|byte| *byte == 0) {
            found.unused.push(segment);
            continue;
        }
        let mut offset = 0;
        loop {
            while let Some((group, payload)) = group::decode(&bytes[offset..]) {
                let at = |what| Damage { segment, offset: offset as u64, what };
                if group.header.segment != segment || group::decode_writes(payload).is_none() {
                    found.note(at("a group of another segment, or one that cannot be read"));
                } else {
                    if let Some(torn) = torn.take()
                        && group.header.number > found.last() + 1
                    {
                        found.note(torn);
                    }
                    found.place(&group, at("a hole before this group"));
                }
                offset += group::HEADER_BYTES + group.payload_bytes;
            }
            let rest = &bytes[offset..];
            if rest.iter().all(|byte| *byte == 0) {
                break;
            }
            let damage = Damage { segment, offset: offset as u64, what: "a damaged group" };
            match group::find(rest) {
                // Whole groups after it: no tear does that.
                Some(next) => {
                    found.note(damage);
                    offset += next;
                }
                None => {
                    torn = Some(damage);
                    break;
                }
            }
        }
    }
    Ok(found)
}

/// Gives the writes of every group after a number, in order.
pub(crate) fn replay<D: Disk>(
    disk: &D,
    directory: &Path,
    found: &Found,
    after: u64,
    mut apply: impl FnMut(u64, Vec<Write>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut groups = found.groups.iter().filter(|group| group.number > after).peekable();
    while let Some(segment) = groups.peek().map(|group| group.segment) {
        let bytes = read(disk, directory, segment)?;
        let mut offset = 0;
        while let Some(wanted) = groups.peek().filter(|group| group.segment == segment) {
            let next = group::decode(&bytes[offset..]);
            let Some((group, payload)) = next else {
                // Damage before a wanted group was there at the first reading too.
                let skip = bytes.get(offset + 1..).and_then(group::find);
                let path = segments::path(directory, segment);
                let what = "a group that was whole a moment ago";
                let corrupt = StoreError::Corrupt { path, offset: offset as u64, what };
                offset += 1 + skip.ok_or(corrupt)?;
                continue;
            };
            offset += group::HEADER_BYTES + group.payload_bytes;
            if group.sum == wanted.sum {
                apply(wanted.number, group::decode_writes(payload).unwrap_or_default())?;
                groups.next();
            }
        }
    }
    Ok(())
}

fn read<D: Disk>(disk: &D, directory: &Path, segment: u64) -> Result<Vec<u8>, StoreError> {
    let path = segments::path(directory, segment);
    disk.read(&path).map_err(StoreError::io("read", &path))
}

impl Found {
    /// What was found before does not lead on to what comes after: that is good only on top of an
    /// index or a snapshot.
    fn note(&mut self, damage: Damage) {
        self.groups.clear();
        self.damage = Some(damage);
    }

    fn place(&mut self, group: &group::Group, hole: Damage) {
        let number = group.header.number;
        while self.groups.last().is_some_and(|last| last.number >= number) {
            self.groups.pop();
        }
        let follows = self
            .groups
            .last()
            .is_none_or(|last| last.number + 1 == number && last.sum == group.header.previous);
        if !follows {
            self.note(hole);
        }
        let segment = group.header.segment;
        self.groups.push(FoundGroup { number, segment, sum: group.sum });
    }
}
