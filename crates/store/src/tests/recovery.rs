//! What a stop or damage leaves in files, and what opening makes of it: served whole, or refused by
//! name.

use std::path::Path;

use bureau_core::{Lane, MessageId};

use super::fixture::{Engine, Sent, Sim, accept, code, send, send_as};
use crate::{
    StoreError,
    contract::{QueuePosition, Store},
    disk::{Disk as _, Unsynced},
    index::{Index as _, MemoryHome},
    journal::{
        Write,
        group::{self, FIRST_SUM, HEADER_BYTES, Header, Secret},
        segments::{GROUPS_AT, Head},
    },
    keys,
    open::IndexHome as _,
};

const FIRST_SEGMENT: &str = "/store/journal/0000000000000000.journal";

async fn queue(store: &dyn Store) -> Vec<MessageId> {
    let queued = store.queued(code("KE"), Lane::Routine, 0, usize::MAX, usize::MAX).await.unwrap();
    queued.iter().map(|queued| queued.entry.message).collect()
}

fn ids(sent: &[Sent]) -> Vec<MessageId> {
    sent.iter().map(Sent::id).collect()
}

/// What a stranger has instead of a segment's secret.
const GUESSED: Secret = [0; 32];

/// A store that took messages, one group each.
async fn taken(sent: &[Sent]) -> Sim {
    let sim = Sim::default();
    let store = sim.open().await;
    for sent in sent {
        store.commit(vec![accept(sent, None)]).await.unwrap();
    }
    cut(&sim)
}

/// The power goes: what was not synced is lost.
fn cut(sim: &Sim) -> Sim {
    Sim { disk: sim.disk.crash(Unsynced::Lost), home: sim.home.crash() }
}

/// Where each group of a segment begins, and where the last one ends.
fn bounds(sim: &Sim, segment: impl AsRef<Path>) -> Vec<usize> {
    let bytes = sim.disk.read(segment.as_ref()).unwrap();
    let secret = Head::read(&bytes).unwrap().secret;
    let mut at = usize::try_from(GROUPS_AT).unwrap();
    let mut bounds = vec![at];
    while let Some((group, _)) = group::decode(&secret, &bytes[at..]) {
        at += HEADER_BYTES + group.payload_bytes;
        bounds.push(at);
    }
    bounds
}

#[tokio::test]
async fn what_a_body_says_is_no_group() {
    let forged: Vec<u8> = (1..9_u64)
        .flat_map(|number| {
            let header = Header { segment: 0, number, previous: FIRST_SUM };
            group::encode(&GUESSED, &header, &[]).0
        })
        .collect();
    let mut sent: Vec<_> = (1..=5).map(|number| send(&["KE"], number)).collect();
    sent.push(send_as("FR", &["KE"], Lane::Routine, 6, &forged));
    let sim = taken(&sent).await;
    let bounds = bounds(&sim, FIRST_SEGMENT);
    let last = bounds[bounds.len() - 2];
    // The page with its header was lost, those with the body were kept.
    sim.disk.damage(Path::new(FIRST_SEGMENT), |bytes| bytes[last..last + HEADER_BYTES].fill(0));
    assert_eq!(queue(&*sim.open().await).await, ids(&sent[..5]));
}

#[tokio::test]
async fn what_a_body_says_is_never_applied() {
    let first = send(&["KE"], 1);
    let sim = taken(std::slice::from_ref(&first)).await;
    // Opening makes the index durable, so that the forged group would be the next one.
    let store = sim.open().await;
    let position = QueuePosition { destination: code("KE"), lane: Lane::Routine, number: 1 };
    let steal = Write { key: keys::queue(&position), value: None };
    let number = sim.home.open().unwrap().position() + 1;
    let forged: Vec<u8> = (0..4)
        .flat_map(|segment| {
            let header = Header { segment, number, previous: FIRST_SUM };
            group::encode(&GUESSED, &header, &group::encode_writes(std::slice::from_ref(&steal))).0
        })
        .collect();
    let last = send_as("FR", &["KE"], Lane::Routine, 2, &forged);
    store.commit(vec![accept(&last, None)]).await.unwrap();
    let torn = cut(&sim);
    for name in torn.disk.list(Path::new("/store/journal")).unwrap().into_iter().skip(1) {
        let segment = Path::new("/store/journal").join(name);
        if let [.., last, _end] = bounds(&torn, &segment)[..] {
            torn.disk.damage(&segment, |bytes| bytes[last..last + HEADER_BYTES].fill(0));
        }
    }
    assert_eq!(queue(&*torn.open().await).await, [first.id()]);
}

#[tokio::test]
async fn a_segment_cut_short_is_not_a_tear() {
    let sent: Vec<_> = (1..=8).map(|number| send(&["KE"], number)).collect();
    let sim = taken(&sent).await;
    let bounds = bounds(&sim, FIRST_SEGMENT);
    // At the end of a group, within one, and within the zeros.
    for length in [bounds[4], bounds[4] + 70, bounds[1] - 1, bounds[bounds.len() - 1] + 9] {
        let short = cut(&sim);
        short.disk.damage(Path::new(FIRST_SEGMENT), |bytes| bytes.truncate(length));
        match short.try_open() {
            Ok(store) => assert!(queue(&*store).await == ids(&sent), "cut at {length}"),
            Err(StoreError::Corrupt { path, .. }) => assert_eq!(path, Path::new(FIRST_SEGMENT)),
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn stopped_while_copying_the_older_copy_counts() {
    let sent: Vec<_> = (1..=12).map(|number| send(&["KE"], number)).collect();
    let opened = taken(&sent).await;
    drop(opened.open().await);
    // The first is 0; what was made ahead and never used went.
    let copies = opened.disk.list(Path::new("/store/journal")).unwrap().swap_remove(1);
    let copies = Path::new("/store/journal").join(copies);
    let bounds = bounds(&opened, &copies);
    assert!(bounds.len() > 12, "all were copied");
    for lost_from in [0, 5] {
        for kept_to in lost_from + 1..bounds.len() {
            let stopped = cut(&opened);
            stopped.disk.damage(&copies, |bytes| {
                bytes[bounds[lost_from]..bounds[kept_to]].fill(0);
            });
            // The index is gone as well: only the journal has it.
            let stopped = Sim { home: MemoryHome::default(), ..stopped };
            let store = stopped.try_open().unwrap_or_else(|error| {
                panic!("lost copies {lost_from} to {kept_to}: {error}");
            });
            assert!(queue(&*store).await == ids(&sent), "lost copies {lost_from} to {kept_to}");
        }
    }
}

#[tokio::test]
async fn a_damaged_checkpoint_keeps_nobody_out() {
    let sent: Vec<_> = (1..=12).map(|number| send(&["KE"], number)).collect();
    let opened = taken(&sent).await;
    drop(opened.open().await);
    let checkpoint = Path::new("/store/checkpoint");
    let bits = 8 * opened.disk.read(checkpoint).unwrap().len();
    for bit in 0..bits {
        let damaged = Sim { home: MemoryHome::default(), ..cut(&opened) };
        damaged.disk.damage(checkpoint, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let store = damaged.try_open().unwrap_or_else(|error| panic!("bit {bit}: {error}"));
        assert!(queue(&*store).await == ids(&sent), "bit {bit}");
    }
}
