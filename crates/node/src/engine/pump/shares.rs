//! Who goes next: strictly the more urgent, but for a share that nobody below can be denied.

/// Four lanes, the most urgent first, and attachments below them.
pub(super) const CLASSES: usize = 5;
/// Attachments.
pub(super) const ATTACHMENTS: usize = 4;
/// Of so many bytes that pass, one is owed to each class below that waits.
const SHARE: u64 = 16;
/// What is owed does not grow for ever: a class that waited long must not take the link for long.
const OWED_MAX: u64 = 256 * 1024;

/// What there is room for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// For what may wait.
    pub(super) ordinary: bool,
    /// For FLASH, and for what is owed.
    pub(super) urgent: bool,
}

/// What the classes are owed.
#[derive(Debug, Default)]
pub(super) struct Shares {
    owed: [u64; CLASSES],
}

impl Shares {
    /// The class that goes next among those with work.
    pub(super) fn next(
        &self,
        work: [bool; CLASSES],
        room: Room,
        piece_bytes: usize,
    ) -> Option<usize> {
        let due = |class: &usize| {
            room.urgent
                && work.get(*class) == Some(&true)
                && self.owed.get(*class).is_some_and(|owed| *owed >= piece_bytes as u64)
        };
        let owed = |class: &usize| self.owed.get(*class).copied();
        let most_owed = (1..CLASSES).filter(due).max_by_key(owed);
        let has_room = |class: usize| if class == 0 { room.urgent } else { room.ordinary };
        most_owed.or_else(|| (0..CLASSES).find(|class| work[*class] && has_room(*class)))
    }

    /// Notes what was sent of a class while these had work.
    pub(super) fn sent(&mut self, class: usize, bytes: usize, work: [bool; CLASSES]) {
        let bytes = bytes as u64;
        for (other, (owed, work)) in self.owed.iter_mut().zip(work).enumerate() {
            if other == class {
                *owed = owed.saturating_sub(bytes);
            } else if other > class {
                // Who has nothing to send is owed nothing.
                *owed = if work { (*owed + bytes / SHARE).min(OWED_MAX) } else { 0 };
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    const PLENTY: Room = Room { ordinary: true, urgent: true };

    #[test]
    fn a_full_link_takes_flash_and_what_is_owed() {
        let (mut shares, work) = (Shares::default(), [true; CLASSES]);
        let full = Room { ordinary: false, urgent: true };
        let mut sent = [0_usize; CLASSES];
        for _ in 0..1000 {
            let class = shares.next(work, full, 1024).unwrap();
            shares.sent(class, 1024, work);
            sent[class] += 1;
        }
        assert!(sent[0] > 700 && sent[1..].iter().all(|sent| *sent > 30), "{sent:?}");
        let nothing = Room { ordinary: false, urgent: false };
        assert_eq!(shares.next(work, nothing, 1024), None);
        let not_urgent = [false, true, true, true, true];
        assert_eq!(Shares::default().next(not_urgent, full, 1024), None);
    }

    #[test]
    fn the_urgent_go_first_and_nobody_starves() {
        let (mut shares, work) = (Shares::default(), [true; CLASSES]);
        let mut sent = [0_usize; CLASSES];
        for _ in 0..10_000 {
            let class = shares.next(work, PLENTY, 1024).unwrap();
            shares.sent(class, 1024, work);
            sent[class] += 1;
        }
        assert!(sent[0] > 6_500, "{sent:?}");
        assert!(sent[1..].iter().all(|sent| *sent > 400), "{sent:?}");
        assert!(sent.windows(2).all(|pair| pair[0] + 20 >= pair[1] || pair[0] > 400), "{sent:?}");
    }

    #[test]
    fn who_has_no_work_is_owed_nothing_later() {
        let mut shares = Shares::default();
        let only_flash = [true, false, false, false, false];
        for _ in 0..10_000 {
            shares.sent(0, 1024, only_flash);
        }
        assert_eq!(shares.next([true; CLASSES], PLENTY, 1024), Some(0));
        assert_eq!(shares.next([false; CLASSES], PLENTY, 1024), None);
    }
}
