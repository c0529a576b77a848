//! Links that are slow, break and go silent: what is urgent goes first, what is large goes on from
//! where it was, and nothing is lost; and the bad link of the harness itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod harness;

use std::time::{Duration, Instant};

use bureau_proto::{
    desk::v1::{DeliveryState, SubmitRequest},
    envelope::v1::Lane,
};
use harness::{
    Chance, Network, Program,
    desk::message,
    files::noise,
    proxy::{Link, Plan, Way},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

const SILENT: Duration = Duration::from_millis(300);

/// A link to a server that sends everything back.
async fn to_an_echo(plan: impl FnOnce(Plan) -> Plan) -> Link {
    let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = far.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = far.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                drop(tokio::io::copy(&mut reader, &mut writer).await);
            });
        }
    });
    plan(Link::to(address)).open().await
}

/// Sends bytes and gets them back. How long that took; `None`: the connection is broken.
async fn echo(stream: &mut TcpStream, bytes: usize) -> Option<Duration> {
    let begun = Instant::now();
    let (mut reader, mut writer) = stream.split();
    let mut back = vec![0; bytes];
    let sent = vec![7; bytes];
    tokio::try_join!(writer.write_all(&sent), reader.read_exact(&mut back)).ok()?;
    assert_eq!(back, sent);
    Some(begun.elapsed())
}

#[tokio::test]
async fn a_link_takes_its_time() {
    let link = to_an_echo(|plan| plan.rate(80_000).latency_ms(50).jitter_ms(5)).await;
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    assert!(echo(&mut stream, 1).await.unwrap() >= Duration::from_millis(100), "two ways of 50 ms");
    // 10,000 bytes a second, each way by itself: the way back goes on while the way there does.
    let took = echo(&mut stream, 10_000).await.unwrap();
    assert!(took >= Duration::from_millis(1100), "{took:?}");
    assert_eq!((link.carried(Way::There), link.carried(Way::Back)), (10_001, 10_001));
    // What is there stands in line behind a queue that is bounded.
    let full = to_an_echo(|plan| plan.rate(80_000).queue_bytes(4_000)).await;
    let mut stream = TcpStream::connect(full.address()).await.unwrap();
    let flooded = timeout(SILENT, stream.write_all(&vec![7; 20_000_000])).await;
    assert!(flooded.is_err(), "the line took 20 MB at one go");
    assert!(full.carried(Way::There) < 10_000);
}

#[tokio::test]
async fn a_link_breaks_where_it_was_told_to() {
    let link = to_an_echo(|plan| plan).await;
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    link.cut_after(150_000);
    assert_eq!(echo(&mut stream, 500_000).await, None);
    let carried = link.carried_both();
    assert!((150_000..150_000 + 16 * 1024).contains(&carried), "{carried}");
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    assert!(echo(&mut stream, 500_000).await.is_some(), "it breaks once");
    link.sever();
    assert_eq!(echo(&mut stream, 1).await, None);
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    assert_eq!(echo(&mut stream, 1).await, None);
    link.mend();
    let mut stream = TcpStream::connect(link.address()).await.unwrap();
    assert!(echo(&mut stream, 1).await.is_some());
    assert_eq!(link.connections(), 4);

    // By chance, and the same chance for the same seed.
    let mut broke = Vec::new();
    for seed in [5, 5, 6] {
        let link = to_an_echo(|plan| plan.seed(seed).resets_every(1_000_000)).await;
        let mut stream = TcpStream::connect(link.address()).await.unwrap();
        let mut rounds = 0;
        while echo(&mut stream, 1000).await.is_some() {
            rounds += 1;
        }
        broke.push(rounds);
    }
    assert_eq!(broke[0], broke[1]);
    assert_ne!(broke[0], broke[2]);
}

#[tokio::test]
async fn a_link_goes_silent_and_comes_back() {
    let link = to_an_echo(|plan| plan).await;
    let mut held = TcpStream::connect(link.address()).await.unwrap();
    echo(&mut held, 1).await.unwrap();
    link.hold(Way::Back);
    held.write_all(&[7; 100]).await.unwrap();
    let mut back = [0; 100];
    assert!(timeout(SILENT, held.read_exact(&mut back)).await.is_err());
    link.mend();
    held.read_exact(&mut back).await.unwrap();

    link.swallow(Way::Back);
    held.write_all(&[7; 100]).await.unwrap();
    assert!(timeout(SILENT, held.read(&mut back)).await.is_err());
    assert_eq!(link.carried(Way::There), 201, "the other direction is whole");
    link.partition();
    let mut unheard = TcpStream::connect(link.address()).await.unwrap();
    assert!(timeout(SILENT, echo(&mut unheard, 1)).await.is_err());
    link.mend();
    held.write_all(&[7; 100]).await.unwrap();
    assert!(timeout(SILENT, held.read(&mut back)).await.is_err(), "what was lost stays lost");
    let mut fresh = TcpStream::connect(link.address()).await.unwrap();
    assert!(echo(&mut fresh, 1).await.is_some());
    link.cut();
    assert!(timeout(SILENT, held.read(&mut back)).await.unwrap().is_err(), "a reset");
}

/// FR and KE with a link between them that is as the test says.
async fn network(plan: impl FnOnce(Plan) -> Plan) -> (Network, Link) {
    let program = Program::at(env!("CARGO_BIN_EXE_bureau"));
    let mut network = Network::mesh(program, &["FR", "KE"], "IPSG");
    let link = network.over("FR", "KE", plan).await;
    network.start_all(&["FR", "KE"]).await;
    network.desk("FR").linked("KE", true).await;
    (network, link)
}

#[tokio::test]
async fn what_is_urgent_passes_a_file_on_a_slow_link() {
    let (network, link) = network(|plan| plan.rate(64_000).latency_ms(300)).await;
    let (fr, ke) = (network.desk("FR"), network.desk("KE"));
    // More than the link carries while the test lasts.
    let file = fr.upload(&noise(1, 2_000_000)).await;
    let digest = file.digest.clone();
    let with_file = SubmitRequest { attachments: vec![file], ..message(&["KE"], "a file") };
    let with_file = fr.submit(with_file).await.unwrap();
    harness::until("the file is under way", async || {
        (network.received("KE", &digest) > 0).then_some(())
    })
    .await;
    let (mut watch, mut took) = (ke.watch(0).await, Vec::new());
    let lanes = [Lane::Routine, Lane::Flash, Lane::Flash, Lane::Priority, Lane::Flash, Lane::Flash];
    for (number, lane) in lanes.into_iter().cycle().take(18).enumerate() {
        let begun = Instant::now();
        let sent = SubmitRequest {
            lane: lane.into(),
            media_type: "application/octet-stream".to_owned(),
            content: noise(number as u64, 1024),
            ..message(&["KE"], "")
        };
        let id = fr.submit(sent).await.unwrap();
        assert_eq!(watch.next().await.unwrap().entry.unwrap().message_id, id);
        if lane == Lane::Flash {
            took.push(begun.elapsed());
        }
    }
    took.sort_unstable();
    // On an idle machine the longest takes a second. What the queue of the modem holds would take
    // eight, the file four minutes.
    assert!(took[took.len() / 2] < Duration::from_secs(3), "{took:?}");
    assert!(took[took.len() - 1] < Duration::from_secs(8), "{took:?}");
    let received = network.received("KE", &digest);
    assert!(received > 4096, "the file starves: {received}");
    let state = fr.track(&with_file).await.recipients[0].state();
    assert_eq!(state, DeliveryState::Queued, "all that while the file was under way");
    assert_eq!(network.log("FR").matches("link_up ").count(), 1);
    assert_eq!(link.connections(), 1);
}

#[tokio::test]
async fn a_file_that_is_cut_goes_on_from_where_it_was() {
    const SIZE: u64 = 4_000_000;
    const CUTS: u64 = 5;
    let (network, link) = network(|plan| plan.rate(16_000_000).latency_ms(10)).await;
    let fr = network.desk("FR");
    let file = fr.upload(&noise(2, usize::try_from(SIZE).unwrap())).await;
    let digest = file.digest.clone();
    let (before, mut chance) = (link.carried(Way::There), Chance::of(3));
    link.cut_after(chance.between(100_000, SIZE / CUTS));
    let with_file = SubmitRequest { attachments: vec![file], ..message(&["KE"], "a file") };
    let id = fr.submit(with_file).await.unwrap();
    for cut in 1..=CUTS {
        harness::until(&format!("cut {cut}"), async || (link.cuts() == cut).then_some(())).await;
        if cut < CUTS {
            link.cut_after(chance.between(100_000, SIZE / CUTS));
        }
    }
    assert!(network.received("KE", &digest) < SIZE);
    fr.tracked(&id, "KE", DeliveryState::Delivered).await;
    let carried = link.carried(Way::There) - before;
    // One percent for frames; and of each cut the piece that it went through, of 64 KiB at most,
    // one that waited for the disk, and the greeting of the next link.
    let most = SIZE + SIZE / 100 + CUTS * (2 * 64 * 1024 + 6_000);
    assert!((SIZE..most).contains(&carried), "{carried} bytes for {SIZE}");
    assert_eq!(link.connections(), CUTS + 1);
}
