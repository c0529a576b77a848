//! What an operator reads when somebody was refused or cut.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use bureau_net::{CutCause, HandshakeRefusal};
use tokio::net::TcpStream;

use crate::{
    harness::{Authority, Face, Party, desk, node, until, watch},
    raw,
};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn of(&self, event: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let named = format!("event=\"{event}\"");
        text.lines().filter(|line| line.contains(&named)).map(str::to_owned).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Everything runs on the test's own thread, and so does its subscriber.
fn capture() -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

#[tokio::test]
async fn a_refusal_is_one_line_with_the_truth() {
    let (lines, _guard) = capture();
    let authority = Authority::new("bureau ca");
    let face = Face::link(&authority).await;
    raw::alert(Some(&authority.issue(&desk("FR"))), face.address).await;
    raw::alert(None, face.address).await;
    until(
        || face.counters.refused(HandshakeRefusal::NoCertificate) == 1,
        || face.counters.to_string(),
    )
    .await;
    let told = lines.of("handshake_refused");
    assert_eq!(told.len(), 2, "{told:?}");
    for part in [
        "face=\"link\"",
        "peer_address=127.0.0.1:",
        "reason=\"WRONG_ROLE\"",
        "peer=spiffe://demo.example/bureau/FR/desk/trafficking",
    ] {
        assert!(told[0].contains(part), "{part} in {}", told[0]);
    }
    assert!(told[1].contains("reason=\"NO_CERTIFICATE\""), "{}", told[1]);
    face.end().await;
}

#[tokio::test]
async fn a_flood_of_refusals_does_not_fill_the_disk() {
    let (lines, _guard) = capture();
    let face = Face::link(&Authority::new("bureau ca")).await;
    for count in 1..=200 {
        drop(TcpStream::connect(face.address).await.unwrap());
        face.refused(HandshakeRefusal::ClosedEarly, count).await;
    }
    face.end().await;
    let told = lines.of("handshake_refused").len();
    // 20 at once and 20 a second; the whole takes a second or so.
    assert!((20..200).contains(&told), "{told}");
    let untold: usize = lines
        .of("handshakes_refused_untold")
        .iter()
        .map(|line| line.rsplit_once("count=").unwrap().1.parse::<usize>().unwrap())
        .sum();
    assert_eq!(told + untold, 200);
}

#[tokio::test]
async fn a_cut_says_who_and_why() {
    let (lines, _guard) = capture();
    let authority = Authority::new("bureau ca");
    let face = Face::link(&authority).await;
    let caller = Party::new(&authority, &node("KE"));
    let channel = caller.call(&face, "FR").await.unwrap();
    let mut stream = watch(&channel).await;
    face.party.connections.cut(CutCause::NotPermitted, |_| true);
    stream.message().await.unwrap_err();
    let told = lines.of("connection_cut");
    assert_eq!(told.len(), 1, "{told:?}");
    for part in ["face=\"link\"", "peer=KE/node/n1", "reason=\"NOT_PERMITTED\""] {
        assert!(told[0].contains(part), "{part} in {}", told[0]);
    }
    face.end().await;
}
