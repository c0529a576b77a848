//! What a journal holds after a stop of any kind.
//!
//! A segment ends in zeros, or in a group that was torn when the process or the machine stopped.
//! After each stop a fresh segment begins with copies of what may not be durable, so that a
//! segment may begin with numbers that stand before it too: of equal copies the older one counts,
//! since the copying may have been cut short.

use std::path::Path;

use super::{
    group::{self, FIRST_SUM, Sum, Write},
    segments::{self, GROUPS_AT, Head},
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
    /// Where the last segment cannot be read, so that nobody knows what came after the groups.
    pub(crate) end_unknown: Option<Damage>,
}

/// A whole group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundGroup {
    pub(crate) number: u64,
    pub(crate) segment: u64,
    pub(crate) offset: usize,
    /// The chain up to it.
    pub(crate) chain: Sum,
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
    let mut reading = Reading::default();
    for segment in segments::list(disk, directory)? {
        reading.found.next_segment = segment + 1;
        let bytes = read(disk, directory, segment)?;
        reading.segment(segment, &bytes);
    }
    Ok(reading.end())
}

/// What cannot be read, until what follows shows whether something is missing.
enum Unread {
    /// A group that may have been torn: at the end of everything, nobody was told of it.
    Torn(Damage),
    /// Nobody knows what was there.
    Lost(Damage),
}

#[derive(Default)]
struct Reading {
    found: Found,
    unread: Option<Unread>,
}

impl Reading {
    fn segment(&mut self, segment: u64, bytes: &[u8]) {
        let at = |offset: usize, what| Damage { segment, offset: offset as u64, what };
        let head = Head::read(bytes);
        let Some(head) = head.filter(|head| head.segment == segment) else {
            self.unread = Some(Unread::Lost(at(0, "a segment without its head")));
            return;
        };
        let mut offset = usize::try_from(GROUPS_AT).unwrap_or(usize::MAX);
        let rest = |offset: usize| bytes.get(offset..).unwrap_or_default();
        let whole = bytes.len() as u64 == head.bytes;
        if whole && is_zero(rest(offset)) {
            self.found.unused.push(segment);
            return;
        }
        loop {
            while let Some((group, payload)) = group::decode(&head.secret, rest(offset)) {
                if group.header.segment == segment && group::decode_writes(payload).is_some() {
                    self.place(&group, segment, offset);
                } else {
                    self.unread = Some(Unread::Lost(at(offset, "a group that makes no sense")));
                }
                offset += group::HEADER_BYTES + group.payload_bytes;
            }
            if is_zero(rest(offset)) {
                break;
            }
            self.torn(at(offset, "a damaged group"));
            match group::find(&head.secret, rest(offset)) {
                Some(next) => offset += next,
                None => break,
            }
        }
        if !whole {
            self.unread = Some(Unread::Lost(at(bytes.len(), "a segment of the wrong size")));
        }
    }

    /// Nothing takes back that something was lost before.
    fn torn(&mut self, damage: Damage) {
        if self.unread.is_none() {
            self.unread = Some(Unread::Torn(damage));
        }
    }

    /// Puts a group where it belongs. What was not read before it does not matter if nothing is
    /// missing before this group.
    fn place(&mut self, group: &group::Group, segment: u64, offset: usize) {
        let (number, previous) = (group.header.number, group.header.previous);
        let here = FoundGroup { number, segment, offset, chain: group.chain };
        let groups = &mut self.found.groups;
        let first = groups.first().map_or(number, |first| first.number);
        let index = number.checked_sub(first).and_then(|index| usize::try_from(index).ok());
        let known = index.and_then(|index| groups.get(index));
        if known.is_some_and(|known| known.chain == group.chain) {
            self.unread = None;
            return;
        }
        // What was written after a stop stands for what the stop left behind.
        groups.truncate(index.unwrap_or(0));
        let last = groups.last().map(|last| (last.number + 1, last.chain));
        let unread = self.unread.take();
        match last {
            Some(before) if before == (number, previous) => {}
            None if unread.is_none() => {}
            _ => {
                let hole = |what| Damage { segment, offset: offset as u64, what };
                let damage = match unread {
                    Some(Unread::Torn(damage) | Unread::Lost(damage)) => damage,
                    None if previous == FIRST_SUM => hole("a journal that began anew"),
                    None => hole("a hole before this group"),
                };
                groups.clear();
                self.found.damage = Some(damage);
            }
        }
        self.found.groups.push(here);
    }

    fn end(mut self) -> Found {
        if let Some(Unread::Lost(damage)) = self.unread {
            self.found.end_unknown = Some(damage);
        }
        self.found
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
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
        let secret = Head::read(&bytes).map(|head| head.secret).unwrap_or_default();
        while let Some(wanted) = groups.next_if(|group| group.segment == segment) {
            let rest = bytes.get(wanted.offset..).unwrap_or_default();
            let group = group::decode(&secret, rest);
            let writes = group
                .filter(|(group, _)| group.chain == wanted.chain)
                .and_then(|(_, payload)| group::decode_writes(payload));
            let path = || segments::path(directory, segment);
            let what = "a group that was whole a moment ago";
            let offset = wanted.offset as u64;
            let corrupt = || StoreError::Corrupt { path: path(), offset, what };
            apply(wanted.number, writes.ok_or_else(corrupt)?)?;
        }
    }
    Ok(())
}

fn read<D: Disk>(disk: &D, directory: &Path, segment: u64) -> Result<Vec<u8>, StoreError> {
    let path = segments::path(directory, segment);
    disk.read(&path).map_err(StoreError::io("read", &path))
}
