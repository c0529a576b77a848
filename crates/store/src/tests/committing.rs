//! The committer alone, with rules made for the test: who is refused, who is told, and who is told
//! that the store has failed.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    StoreError,
    committer::{Committer, Health, Observer, Resolver, Transaction},
    disk::SimDisk,
    hands::Hands,
    index::{Index as _, MemoryHome, VALUE_BYTES_MAX},
    journal::{Journal, group::FIRST_SUM},
    open::IndexHome as _,
};

/// What the rules are told to do.
enum Order {
    /// Puts bytes under a key, and says what was there.
    Put(&'static str, Vec<u8>),
    Panic,
}

struct Rules;

impl Resolver for Rules {
    type Operation = Order;
    type Outcome = Option<Vec<u8>>;

    fn resolve(
        &mut self,
        order: Order,
        tx: &mut Transaction<'_>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match order {
            Order::Put(key, value) => {
                let before = tx.get(key.as_bytes())?;
                tx.put(key.as_bytes().to_vec(), value);
                Ok(before)
            }
            Order::Panic => panic!("as sled may"),
        }
    }
}

/// Keeps what it is told.
#[derive(Default, Clone)]
struct Told(Arc<Mutex<Vec<Option<Vec<u8>>>>>);

impl Observer<Option<Vec<u8>>> for Told {
    fn visible(&mut self, outcomes: &[Option<Vec<u8>>]) {
        assert!(outcomes.iter().flatten().all(|value| value != b"panic"), "as sled may");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(outcomes);
    }
}

fn committer() -> (Committer<Rules>, Arc<<MemoryHome as crate::open::IndexHome>::Index>, Told) {
    let journal = Journal::begin(
        &SimDisk::default(),
        Path::new("/journal"),
        64 * 1024,
        0,
        0,
        FIRST_SUM,
        &Hands::Threads,
    );
    let index = Arc::new(MemoryHome::default().open().unwrap());
    let told = Told::default();
    let committer = Committer::start(
        journal.unwrap(),
        Arc::clone(&index),
        Rules,
        told.clone(),
        &Hands::Threads,
    )
    .unwrap();
    (committer, index, told)
}

async fn fails(committer: &Committer<Rules>) {
    let mut health = committer.health();
    let failed = health.wait_for(|health| *health == Health::Failed);
    let failed = tokio::time::timeout(Duration::from_secs(5), failed).await;
    assert!(failed.is_ok_and(|told| told.is_ok()), "nobody was told");
}

fn put(key: &'static str, bytes: usize) -> Order {
    Order::Put(key, vec![1; bytes])
}

#[tokio::test]
async fn what_is_too_large_is_refused_alone() {
    let (committer, index, told) = committer();
    let limit = VALUE_BYTES_MAX;
    let refused = committer.commit(vec![put("a", 1), put("b", limit + 1)]).await.unwrap_err();
    assert!(matches!(refused, StoreError::ValueTooLarge { bytes, .. } if bytes == limit + 1));
    let before = committer.commit(vec![put("a", 2), put("b", limit)]).await.unwrap();
    assert_eq!(before, [None, None], "the refused call left something");
    assert_eq!(index.get(b"b").unwrap().map(|value| value.len()), Some(limit));
    assert_eq!(told.0.lock().unwrap().len(), 2);
    assert_eq!(*committer.health().borrow(), Health::Good);
    committer.close();
}

#[tokio::test]
async fn a_panic_while_deciding_ends_the_store() {
    let (committer, _, _) = committer();
    let outcome = committer.commit(vec![put("a", 1), Order::Panic]).await.unwrap_err();
    assert!(matches!(outcome, StoreError::OutcomeUnknown), "{outcome:?}");
    fails(&committer).await;
    let later = committer.commit(vec![put("a", 1)]).await.unwrap_err();
    assert!(matches!(later, StoreError::Failed), "{later:?}");
}

#[tokio::test]
async fn a_panic_while_telling_ends_the_store() {
    let (committer, _, _) = committer();
    committer.commit(vec![Order::Put("a", b"panic".to_vec())]).await.unwrap();
    let outcome = committer.commit(vec![put("a", 1)]).await.unwrap_err();
    assert!(matches!(outcome, StoreError::OutcomeUnknown), "{outcome:?}");
    fails(&committer).await;
}
