//! Who may send what of an attachment, and when a message is whole.

use bureau_core::Timestamp;
use bureau_store::contract::QueuedEntry;

use super::*;

const MIB: u64 = 1024 * 1024;

fn content(seed: u8, size: u64) -> Content {
    Content { digest: [seed; 32], size }
}

fn queued(number: u64) -> Queued {
    let position =
        QueuePosition { destination: "KE".parse().unwrap(), lane: Lane::Routine, number };
    let entry = QueuedEntry {
        position,
        message: MessageId([u8::try_from(number).unwrap(); 32]),
        slip_digest: [0; 32],
        origin: "FR".parse().unwrap(),
        enqueued: Timestamp::from_ms(0),
        expires: Timestamp::from_ms(1),
        size: 1,
        hops: 1,
        fan_out: 1,
        previous_hop: None,
        avoid: Vec::new(),
        attachments: 1,
        refills: 0,
        bundle: None,
    };
    let (signed_manifest, body, slip) = (Bytes::new(), Bytes::new(), Bytes::new());
    Queued { entry, signed_manifest, body, slip, unreadable: false }
}

impl Transfers {
    fn offered(&mut self, number: u64, contents: &[Content], now: Instant) {
        let going = |content: &Content| Going { content: *content, offset: None, arrived: false };
        let contents = contents.iter().map(going).collect();
        self.open.insert((3, number), Transfer { queued: queued(number), contents, moved: now });
    }

    fn offsets(&self) -> Vec<Option<u64>> {
        let contents = self.open.values().flat_map(|transfer| &transfer.contents);
        contents.map(|going| going.offset).collect()
    }
}

#[test]
fn a_message_is_whole_when_the_peer_says_so_of_each_attachment() {
    let (mut transfers, now) = (Transfers::default(), Instant::now());
    let (one, other) = (content(1, 100), content(2, 50));
    transfers.offered(1, &[one, other], now);
    assert!(!transfers.has_work(), "the peer has not said from where");
    assert_eq!(transfers.taken(one.digest, 40, now), []);
    assert!(transfers.has_work());
    transfers.sent(one.digest, 100, now);
    assert!(!transfers.has_work());
    // All was sent; that is not all that must be.
    assert_eq!(transfers.taken(other.digest, 50, now), []);
    assert_eq!(transfers.taken(one.digest, 100, now), [(3, 1)]);
    assert_eq!(transfers.taken([9; 32], 100, now), []);
}

#[test]
fn what_two_messages_share_is_sent_once() {
    let (mut transfers, now) = (Transfers::default(), Instant::now());
    let (shared, own) = (content(1, MIB), content(2, 5));
    transfers.offered(1, &[shared], now);
    transfers.taken(shared.digest, 0, now);
    transfers.sent(shared.digest, 600, now);
    transfers.offered(2, &[shared, own], now);
    transfers.sent(shared.digest, 700, now);
    // What the peer had when it took the offer is less than what is on its way by now.
    transfers.taken(shared.digest, 300, now);
    assert_eq!(transfers.offsets(), [Some(700), Some(700), None]);
    transfers.sent(shared.digest, 800, now);
    assert_eq!(transfers.offsets(), [Some(800), Some(800), None]);
    // Something was lost on the way: both go back.
    transfers.taken(shared.digest, 750, now);
    assert_eq!(transfers.offsets(), [Some(750), Some(750), None]);
    // The last part is on its way when a third comes: it waits with the others.
    transfers.sent(shared.digest, MIB, now);
    transfers.offered(3, &[shared], now);
    assert_eq!(transfers.taken(shared.digest, 900, now), []);
    assert!(!transfers.has_work());
    assert_eq!(transfers.taken(shared.digest, MIB, now), [(3, 1), (3, 3)]);
    transfers.open.remove(&(3, 1));
    assert_eq!(transfers.taken(own.digest, 5, now), [(3, 2)]);
    // Wrong bytes: it begins anew, for everybody.
    let (mut transfers, now) = (Transfers::default(), Instant::now());
    transfers.offered(1, &[shared], now);
    transfers.offered(2, &[shared], now);
    // Offered at one time, they are answered one by one.
    transfers.taken(shared.digest, 0, now);
    transfers.sent(shared.digest, 500, now);
    transfers.taken(shared.digest, 100, now);
    assert_eq!(transfers.offsets(), [Some(500), Some(500)]);
    transfers.sent(shared.digest, MIB, now);
    transfers.taken(shared.digest, 0, now);
    assert_eq!(transfers.offsets(), [Some(0), Some(0)]);
}

#[test]
fn what_only_the_peer_can_move_on_is_known() {
    let (mut transfers, now) = (Transfers::default(), Instant::now());
    assert_eq!(transfers.oldest_unanswered(), None);
    transfers.offered(1, &[content(1, 10)], now);
    assert_eq!(transfers.oldest_unanswered(), Some(now));
    let later = now + Duration::from_secs(9);
    transfers.taken([1; 32], 0, later);
    // It is this side's turn, however long that takes on a slow link.
    assert_eq!(transfers.oldest_unanswered(), None);
    transfers.sent([1; 32], 10, later);
    assert_eq!(transfers.oldest_unanswered(), Some(later));
}

#[test]
fn patience_grows_and_has_an_end() {
    let (mut transfers, begin) = (Transfers::default(), Instant::now());
    let mut pauses = Vec::new();
    for _ in 0..40 {
        transfers.pause(begin);
        pauses.push(transfers.paused_until.unwrap() - begin);
    }
    assert_eq!(pauses[..3], [2, 4, 8].map(Duration::from_secs));
    assert_eq!(pauses[39], LATER_MAX);
}

#[test]
fn what_was_put_off_is_read_again_from_its_first() {
    let mut transfers = Transfers::default();
    let position = |lane, number| QueuePosition { lane, number, ..queued(1).entry.position };
    for (lane, number) in [(Lane::Routine, 5), (Lane::Routine, 3), (Lane::Flash, 9)] {
        transfers.put_off(position(lane, number));
    }
    assert_eq!(transfers.take_put_off(Some(3)), [position(Lane::Routine, 3)]);
    assert_eq!(transfers.take_put_off(None), [position(Lane::Flash, 9)]);
    assert_eq!(transfers.take_put_off(None), []);
}
