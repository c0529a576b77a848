//! The store's committer: signed messages accepted through the contract, without network.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bureau_core::{
    Envelope, Epoch, Lane, Manifest, Signer, SigningKey, Slip, Timestamp,
    envelope::{Content, HandlingCode, Kind, SealingSuite},
    slip::{Count, Label},
};
use bureau_store::{
    OpenOptions, Progress,
    contract::{Accept, Operation, RequestKey},
    open_local,
};
use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    Load,
    report::{Latencies, Report},
};

pub(crate) async fn measure(load: Load, report: &mut Report) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let (progress, _) = watch::channel(Progress::Reading);
    let store = open_local(OpenOptions::new(folder.path()), progress).await.unwrap();
    // Signed before: what is measured is what the store does.
    let groups = u64::max(1, 25_000 * load.seconds / load.clients.max(1) as u64);
    let signed = Arc::new(sign(load, groups));
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let end = started + Duration::from_secs(load.seconds);
    // Four callers with a group each under way, as a node's scribe has them.
    let callers = (0..4).map(|_| {
        let (store, signed, next) = (Arc::clone(&store), Arc::clone(&signed), Arc::clone(&next));
        tokio::spawn(async move {
            let mut latencies = Latencies::default();
            while Instant::now() < end {
                let turn = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
                let Some(group) = signed.get(turn) else { break };
                let begun = Instant::now();
                store.commit(group.clone()).await.unwrap();
                for _ in group {
                    latencies.note(begun.elapsed());
                }
            }
            latencies
        })
    });
    let mut latencies = Latencies::default();
    for caller in callers.collect::<Vec<_>>() {
        latencies.add(&caller.await.unwrap());
    }
    let what = format!("store: committer, groups of {}", load.clients);
    report.add(&what, started.elapsed(), &latencies);
    store.close().await.unwrap();
}

fn sign(load: Load, groups: u64) -> Vec<Vec<Operation>> {
    let network: bureau_core::NetworkName = "bench".parse().unwrap();
    let bureau = "FR".parse().unwrap();
    let signer = Signer::new(network.clone(), bureau, SigningKey::generate().unwrap());
    let body = Bytes::from(vec![b'x'; load.size]);
    let content = Content::of(&body);
    let now = Timestamp::from_ms(1_800_000_000_000);
    let mut sequence = 0;
    let mut one_group = |_| {
        let mut group = signer.group();
        let tickets: Vec<_> = (0..load.clients)
            .map(|_| {
                sequence += 1;
                let manifest = Manifest {
                    origin: bureau,
                    key_id: signer.public().id(),
                    kind: Kind::Message,
                    lane: Lane::Routine,
                    created: now,
                    expires: now.plus_ms(3_600_000),
                    nonce: u128::from(sequence).to_be_bytes(),
                    suite: SealingSuite::Open,
                    exercise: false,
                    handling: HandlingCode::H1,
                    body: content,
                    attachments: Vec::new(),
                    key_commitment: Bytes::new(),
                };
                let envelope = group.add(Envelope::new(&network, manifest, body.clone()));
                let label = Label {
                    message: envelope.item().id(),
                    recipient: "KE".parse().unwrap(),
                    lane: Lane::Routine,
                    origin_epoch: Epoch([1; 16]),
                    suite: SealingSuite::Open,
                    private: Count { sequence, previous: (sequence > 1).then_some([1; 32]) }
                        .encode(),
                    encapsulation: Bytes::new(),
                };
                let slip = group.add(Slip::new(&network, label));
                (envelope, slip, sequence)
            })
            .collect();
        let mut signed = group.sign().unwrap();
        let operation = |(envelope, slip, sequence)| {
            let envelope = signed.take(envelope).unwrap();
            let id = u128::from(sequence).to_be_bytes();
            let key = RequestKey { desk: "bench".parse().unwrap(), id };
            Operation::Accept(Box::new(Accept {
                envelope,
                slips: vec![(signed.take(slip).unwrap(), sequence)],
                desk: "bench".parse().unwrap(),
                request: Some((key, content.digest)),
                send_at: None,
                requeue_of: None,
                now,
            }))
        };
        tickets.into_iter().map(operation).collect()
    };
    (0..groups).map(&mut one_group).collect()
}
