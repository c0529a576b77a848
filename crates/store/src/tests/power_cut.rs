//! The power goes at any moment: whatever was answered is there, once, in order.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use bureau_core::{Lane, MessageId};

use super::fixture::{Engine, Sent, Sim, accept, code, send};
use crate::{
    StoreError,
    contract::{Outcome, Store},
    disk::{Disk as _, Event, Unsynced},
};

/// Messages signed once and used by every seed: signing is not what is tried here.
fn messages(count: u64) -> Vec<Sent> {
    (1..=count).map(|number| send(&["KE"], number)).collect()
}

async fn queue(store: &dyn Store) -> Vec<MessageId> {
    let queued = store.queued(code("KE"), Lane::Routine, 0, usize::MAX, usize::MAX).await.unwrap();
    let numbers: Vec<_> = queued.iter().map(|queued| queued.entry.position.number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "a number twice");
    queued.iter().map(|queued| queued.entry.message).collect()
}

/// Everything answered is there; nothing is there that was not asked for; the order is kept.
fn check(found: &[MessageId], answered: &[MessageId], asked: &[MessageId]) {
    let mut order = asked.iter();
    for id in found {
        assert!(order.any(|asked| asked == id), "a phantom, twice, or out of order");
    }
    // Three answers at a time come in any order.
    let lost = answered.iter().filter(|id| !found.contains(id)).count();
    assert_eq!(lost, 0, "of {} answered", answered.len());
}

/// Commits one after the other, three at a time under way, and cuts the power after some answers.
async fn cut(
    sim: &Sim,
    sent: &[Sent],
    answers: usize,
    unsynced: Unsynced,
) -> (Sim, Vec<MessageId>) {
    let store = sim.open().await;
    let answered = Arc::new(Mutex::new(Vec::new()));
    let lock = || answered.lock().unwrap_or_else(PoisonError::into_inner);
    for three in sent.chunks(3) {
        let commits = three.iter().map(|sent| async {
            let outcome = store.commit(vec![accept(sent, None)]).await.unwrap();
            assert_eq!(outcome, [Outcome::Accepted]);
            lock().push(sent.id());
        });
        futures_util::future::join_all(commits).await;
        if lock().len() >= answers {
            break;
        }
    }
    let answered = lock().clone();
    let after = Sim { disk: sim.disk.crash(unsynced), home: sim.home.crash() };
    (after, answered)
}

async fn cut_twice(sent: &[Sent], seed: u64, unsynced: impl Fn(u64) -> Unsynced) {
    let asked: Vec<_> = sent.iter().map(Sent::id).collect();
    let answers = usize::try_from(seed % 23).unwrap() + 1;
    let (after, mut answered) = cut(&Sim::default(), sent, answers, unsynced(seed)).await;
    // Looked at in a copy: two stores on one disk are not what is tried.
    let copy = Sim { disk: after.disk.crash(Unsynced::Lost), home: after.home.crash() };
    check(&queue(&*copy.open().await).await, &answered, &asked);
    // Again, right after the replay of what only the journal has.
    let rest: Vec<_> = sent.iter().filter(|s| !answered.contains(&s.id())).cloned().collect();
    let (last, more) = cut(&after, &rest, answers, unsynced(seed ^ 0xffff)).await;
    answered.extend(more);
    let store = last.open().await;
    let found = queue(&*store).await;
    assert_eq!(found.len(), answered.len(), "seed {seed}");
    assert!(answered.iter().all(|id| found.contains(id)));
}

#[tokio::test]
async fn nothing_answered_is_lost_when_all_unsynced_is() {
    let sent = messages(60);
    for seed in 0..300 {
        cut_twice(&sent, seed, |_| Unsynced::Lost).await;
    }
}

#[tokio::test]
async fn nothing_answered_is_lost_when_any_pages_are_kept() {
    let sent = messages(60);
    for seed in 0..300 {
        cut_twice(&sent, seed, Unsynced::ByChance).await;
    }
}

#[tokio::test]
async fn a_group_torn_at_any_byte_is_there_whole_or_not_at_all() {
    let sent = messages(6);
    let sim = Sim::default();
    let store = sim.open().await;
    for sent in &sent[..5] {
        store.commit(vec![accept(sent, None)]).await.unwrap();
    }
    let segment = Path::new("/store/journal/0000000000000000.journal");
    let before = sim.disk.read(segment).unwrap();
    let (disk, home) = (sim.disk.crash(Unsynced::Lost), sim.home.crash());
    store.commit(vec![accept(&sent[5], None)]).await.unwrap();
    let after = sim.disk.read(segment).unwrap();
    let changed = |(at, byte): (usize, &u8)| (before[at] != *byte).then_some(at);
    let first = after.iter().enumerate().find_map(changed).unwrap();
    let last = after.iter().enumerate().rev().find_map(changed).unwrap();
    for end in first..=last + 1 {
        let torn = Sim { disk: disk.crash(Unsynced::Lost), home: home.crash() };
        torn.disk.damage(segment, |bytes| bytes[first..end].copy_from_slice(&after[first..end]));
        let found = queue(&*torn.open().await).await;
        let whole = end > last;
        assert_eq!(found.len(), if whole { 6 } else { 5 }, "torn at {end}");
    }
}

#[tokio::test]
async fn every_answer_comes_after_the_sync_that_covers_it() {
    let sim = Sim::default();
    let store = sim.open().await;
    for sent in &messages(50) {
        store.commit(vec![accept(sent, None)]).await.unwrap();
        let events = sim.disk.events();
        let of_journal = |event: &&Event| {
            let (Event::Write(path) | Event::Sync(path)) = event;
            path.starts_with("/store/journal")
        };
        // The segment made ahead is written beside, and has another name until it is whole.
        let last = events.iter().filter(of_journal).rev().find(|event| {
            let (Event::Write(path) | Event::Sync(path)) = event;
            path.extension().is_some_and(|extension| extension == "journal")
        });
        assert!(matches!(last, Some(Event::Sync(_))), "answered before its sync");
    }
}

#[tokio::test]
async fn a_stop_at_any_moment_of_opening_changes_nothing() {
    let sent = messages(40);
    let ids: Vec<_> = sent.iter().map(Sent::id).collect();
    let sim = Sim::default();
    let store = sim.open().await;
    for sent in &sent {
        store.commit(vec![accept(sent, None)]).await.unwrap();
    }
    let (disk, home) = (sim.disk.crash(Unsynced::Lost), sim.home.crash());
    // Opening replays, copies, and syncs: it is stopped after each sync there is, and what that
    // leaves is opened, with what was not synced lost or kept by chance.
    let mut stops = 0;
    for syncs in 0.. {
        let stopped = Sim { disk: disk.crash(Unsynced::Lost), home: home.crash() };
        stopped.disk.fail_syncs_after(syncs);
        let opened = stopped.try_open();
        for unsynced in [Unsynced::Lost, Unsynced::ByChance(syncs)] {
            let after = Sim { disk: stopped.disk.crash(unsynced), home: stopped.home.crash() };
            assert!(queue(&*after.open().await).await == ids, "stopped after {syncs} syncs");
        }
        if opened.is_ok() {
            break;
        }
        stops += 1;
    }
    assert!(stops > 2, "{stops}");
}

#[tokio::test]
async fn a_failed_sync_ends_the_store_and_promises_nothing() {
    let sent = messages(3);
    let sim = Sim::default();
    let store = sim.open().await;
    store.commit(vec![accept(&sent[0], None)]).await.unwrap();
    sim.disk.fail_syncs_after(0);
    let refused = store.commit(vec![accept(&sent[1], None)]).await.unwrap_err();
    assert!(matches!(refused, StoreError::OutcomeUnknown), "{refused:?}");
    tokio::time::timeout(std::time::Duration::from_secs(5), store.failed()).await.unwrap();
    let later = store.commit(vec![accept(&sent[2], None)]).await.unwrap_err();
    assert!(matches!(later, StoreError::Failed), "{later:?}");
    assert!(store.close().await.is_err());
    let after = Sim { disk: sim.disk.crash(Unsynced::Lost), home: sim.home.crash() };
    assert_eq!(queue(&*after.open().await).await, [sent[0].id()]);
}

#[tokio::test]
async fn a_full_disk_refuses_new_work_and_keeps_what_it_has() {
    let sent = messages(2);
    let sim = Sim::default();
    let store = sim.open().await;
    store.commit(vec![accept(&sent[0], None)]).await.unwrap();
    sim.disk.fill(true);
    // The room is looked at twice a second.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while !store.room().low {
        assert!(std::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let refused = store.commit(vec![accept(&sent[1], None)]).await.unwrap_err();
    assert!(matches!(refused, StoreError::DiskLow), "{refused:?}");
    assert_eq!(queue(&*store).await, [sent[0].id()]);
}

#[tokio::test]
async fn an_index_that_lost_a_record_in_silence_is_rebuilt() {
    let sent = messages(40);
    let sim = Sim::default();
    let store = sim.open().await;
    for sent in &sent {
        store.commit(vec![accept(sent, None)]).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    // The mark of a clean stop would spare the look; a crash leaves none.
    let after = Sim { disk: sim.disk.crash(Unsynced::Lost), home: sim.home.crash() };
    after.disk.remove(Path::new("/store/clean")).unwrap();
    after.home.lose_one();
    let found = queue(&*after.open().await).await;
    assert_eq!(found, sent.iter().map(Sent::id).collect::<Vec<_>>());
}
