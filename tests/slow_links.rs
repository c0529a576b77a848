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

use harness::proxy::{Link, Plan, Way};
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
