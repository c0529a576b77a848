//! Real files damaged: served right, rebuilt, or refused by name; never silently wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bureau_core::{Lane, MessageId};
use tokio::sync::watch;

use super::fixture::{Real, Sent, accept, code, options, send};
use crate::{OpenOptions, Progress, StoreError, contract::Store, open_local};

/// A folder with a store of so many messages, as a kill leaves it.
pub(super) async fn killed(count: u64) -> (tempfile::TempDir, Vec<MessageId>) {
    let engine = Real::new();
    let store = engine.try_open().await.unwrap();
    let messages: Vec<_> = (1..=count).map(|number| send(&["KE"], number)).collect();
    for some in messages.chunks(10) {
        store.commit(some.iter().map(|sent| accept(sent, None)).collect()).await.unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    copy_folder(engine.directory.path(), copy.path());
    (copy, messages.iter().map(Sent::id).collect())
}

pub(super) fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            // The store lives while it is copied: a temporary file may have got its name meanwhile.
            match fs::copy(entry.path(), target) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

pub(super) async fn open(directory: &Path) -> Result<Arc<dyn Store>, StoreError> {
    let (progress, _) = watch::channel(Progress::Reading);
    open_local(options(directory), progress).await
}

async fn holds(directory: &Path, expected: &[MessageId]) {
    let store = open(directory).await.unwrap();
    assert_eq!(queue(&*store).await, expected);
}

pub(super) async fn queue(store: &dyn Store) -> Vec<MessageId> {
    let queued = store.queued(code("KE"), Lane::Routine, 0, usize::MAX, usize::MAX).await.unwrap();
    queued.iter().map(|queued| queued.entry.message).collect()
}

pub(super) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Where the data of a segment ends: the rest is zeros.
pub(super) fn data_end(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[tokio::test]
async fn a_killed_store_opens_with_everything_again_and_again() {
    let (folder, ids) = killed(120).await;
    for _ in 0..3 {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        holds(copy.path(), &ids).await;
        // What a kill leaves while, or right after, it was replayed.
        let again = tempfile::tempdir().unwrap();
        copy_folder(copy.path(), again.path());
        holds(again.path(), &ids).await;
    }
}

#[tokio::test]
async fn an_index_that_is_gone_or_damaged_is_rebuilt() {
    let (folder, ids) = killed(120).await;
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 6] = [
        ("removed", |index| fs::remove_dir_all(index).unwrap()),
        ("without conf", |index| fs::remove_file(index.join("conf")).unwrap()),
        ("db of zero bytes", |index| fs::write(index.join("db"), b"").unwrap()),
        ("half a db", |index| {
            let file = fs::File::options().write(true).open(index.join("db")).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("a conf of noise", |index| fs::write(index.join("conf"), [0xa5; 64]).unwrap()),
        ("a snapshot that was being made", |index| {
            fs::write(index.join("snap.00000000000000FF.generating"), b"x").unwrap();
        }),
    ];
    for (name, damage) in damages {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        damage(&copy.path().join("index"));
        let store = open(copy.path()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(queue(&*store).await, ids, "{name}");
    }
}

#[tokio::test]
async fn what_was_set_aside_is_kept_a_week() {
    let (folder, ids) = killed(10).await;
    fs::write(folder.path().join("index/conf"), [0xa5; 64]).unwrap();
    let (old, recent) = (folder.path().join("index.aside-1"), folder.path().join("index.other"));
    fs::create_dir(&old).unwrap();
    fs::create_dir(&recent).unwrap();
    holds(folder.path(), &ids).await;
    let names = files(folder.path());
    let aside = |path: &&PathBuf| path.to_string_lossy().contains("index.aside-");
    assert_eq!(names.iter().filter(aside).count(), 1, "{names:?}");
    assert!(!old.exists() && recent.exists());
}

#[tokio::test]
async fn flipped_bits_in_the_index_are_never_believed() {
    let (folder, ids) = killed(60).await;
    let db = fs::read(folder.path().join("index/db")).unwrap();
    for turn in 0..40 {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        let mut damaged = db.clone();
        let at = db.len() * turn / 40 + turn;
        damaged[at] ^= 1 << (turn % 8);
        fs::write(copy.path().join("index/db"), damaged).unwrap();
        holds(copy.path(), &ids).await;
    }
}

#[tokio::test]
async fn damage_in_the_journal_is_made_up_for_or_refused_by_name() {
    let (folder, ids) = killed(240).await;
    let journal = folder.path().join("journal");
    let segments: Vec<_> = files(&journal)
        .into_iter()
        .filter(|path| data_end(&fs::read(path).unwrap()) > 8192)
        .collect();
    // Not in the last segment: damage to the very last group looks like a tear, a stated limit.
    let segments = &segments[..segments.len() - 1];
    assert!(segments.len() > 2);
    let (mut served, mut refused) = (0, 0);
    for (turn, segment) in segments.iter().cycle().take(24).enumerate() {
        let mut bytes = fs::read(segment).unwrap();
        let end = data_end(&bytes);
        bytes[(end * turn / 24 + turn) % end] ^= 0x10;
        for without_index in [false, true] {
            let copy = tempfile::tempdir().unwrap();
            copy_folder(folder.path(), copy.path());
            let target = copy.path().join("journal").join(segment.file_name().unwrap());
            fs::write(target, &bytes).unwrap();
            if without_index {
                fs::remove_dir_all(copy.path().join("index")).unwrap();
            }
            match open(copy.path()).await {
                Ok(store) => {
                    assert!(queue(&*store).await == ids);
                    served += 1;
                }
                Err(StoreError::Corrupt { path, .. }) => {
                    assert!(path.starts_with(copy.path()));
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(served > 0 && refused > 0, "{served} served, {refused} refused");
}

#[tokio::test]
async fn snapshots_let_segments_go_and_rebuild_the_index() {
    let engine = Real::new();
    let options = OpenOptions { snapshot_bytes: 128 * 1024, ..options(engine.directory.path()) };
    let (progress, _) = watch::channel(Progress::Reading);
    let store = open_local(options, progress).await.unwrap();
    let snapshots = engine.directory.path().join("snapshots");
    let journal = engine.directory.path().join("journal");
    let first = journal.join("0000000000000000.journal");
    let mut ids = Vec::new();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while first.exists() {
        assert!(std::time::Instant::now() < deadline, "{:?}", files(&snapshots));
        let messages: Vec<_> =
            (0..10_u64).map(|more| send(&["KE"], ids.len() as u64 + more + 1)).collect();
        store.commit(messages.iter().map(|sent| accept(sent, None)).collect()).await.unwrap();
        ids.extend(messages.iter().map(Sent::id));
        // Maintenance looks twice a second.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(files(&snapshots).len(), 2);
    let copy = tempfile::tempdir().unwrap();
    copy_folder(engine.directory.path(), copy.path());
    fs::remove_dir_all(copy.path().join("index")).unwrap();
    holds(copy.path(), &ids).await;
    // The newest snapshot damaged too: the one before it serves.
    let copy = tempfile::tempdir().unwrap();
    copy_folder(engine.directory.path(), copy.path());
    fs::remove_dir_all(copy.path().join("index")).unwrap();
    let newest = files(&copy.path().join("snapshots")).pop().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).unwrap();
    holds(copy.path(), &ids).await;
    // Neither: refused by name.
    let copy = tempfile::tempdir().unwrap();
    copy_folder(engine.directory.path(), copy.path());
    fs::remove_dir_all(copy.path().join("index")).unwrap();
    fs::remove_dir_all(copy.path().join("snapshots")).unwrap();
    assert!(matches!(open(copy.path()).await.err(), Some(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn one_process_at_a_time_and_no_newer_layout() {
    let engine = Real::new();
    let store = engine.try_open().await.unwrap();
    let second = engine.try_open().await.err();
    assert!(matches!(second, Some(StoreError::Locked { .. })), "{second:?}");
    drop(store);
    let (folder, _) = killed(1).await;
    let journal = folder.path().join("journal");
    // A record of a newer layout: its version byte stands before the checksum.
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    let newer = crate::record::encode(
        crate::keys::SCHEMA,
        &crate::record::MetaRecord { value: 9_u32.to_be_bytes().to_vec().into() },
    );
    let write = crate::journal::Write { key: crate::keys::SCHEMA.to_vec(), value: Some(newer) };
    let disk = crate::disk::RealDisk;
    let found = crate::journal::recover(&disk, &journal).unwrap();
    let last = found.groups.last().unwrap();
    let mut open_journal = crate::journal::Journal::begin(
        &disk,
        &journal,
        64 * 1024,
        found.next_segment,
        last.number,
        last.chain,
        &crate::hands::Hands::Threads,
    )
    .unwrap();
    open_journal.append(&[write]).unwrap();
    drop(open_journal);
    let newer = open(folder.path()).await.err();
    assert!(matches!(newer, Some(StoreError::NewerSchema { found: 9, .. })), "{newer:?}");
}
