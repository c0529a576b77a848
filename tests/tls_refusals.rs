//! Who may not even connect, tried on every face of a real node: each is refused, and the log says
//! why by name.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod harness;

use harness::{
    Network, Program,
    tls::{self, Authority, Certificate},
};

async fn network() -> Network {
    let program = Program::at(env!("CARGO_BIN_EXE_bureau"));
    let mut network = Network::mesh(program, &["FR", "KE"], "IPSG");
    network.start("FR").await;
    network
}

const FACES: [&str; 3] = ["desk", "link", "admin"];

/// Expects a line of a refusal on a face that was not there before.
async fn refused(network: &Network, face: &str, reason: &str, certificate: Option<&Certificate>) {
    let lines = || {
        let words = ["handshake_refused", &format!("face={face} "), &format!("reason={reason}")];
        let log = network.log("FR");
        log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    };
    let before = lines();
    let address = tls::face(network, "FR", face);
    let stream = tls::connect(network, &address, certificate).await;
    assert!(stream.is_none(), "{reason}: admitted at the {face} face");
    let what = format!("FR logs {reason} at its {face} face:\n{}", network.log("FR"));
    harness::until(&what, async || (lines() > before).then_some(())).await;
}

async fn admitted(network: &Network, face: &str, certificate: &Certificate) {
    let address = tls::face(network, "FR", face);
    let stream = tls::connect(network, &address, Some(certificate)).await;
    assert!(stream.is_some(), "not admitted at the {face} face");
}

#[tokio::test]
async fn only_the_right_certificate_enters_a_face_and_the_log_says_why() {
    let network = network().await;
    let desk = Certificate::of(&network, "FR", "desk-desk");
    let node = Certificate::of(&network, "KE", "node");
    let ke_desk = Certificate::of(&network, "KE", "desk-desk");
    // The same means admit who may enter: what follows is refused for its own fault.
    admitted(&network, "desk", &desk).await;
    admitted(&network, "admin", &desk).await;
    admitted(&network, "link", &node).await;

    refused(&network, "link", "WRONG_ROLE", Some(&desk)).await;
    for face in ["desk", "admin"] {
        refused(&network, face, "WRONG_ROLE", Some(&node)).await;
        refused(&network, face, "WRONG_BUREAU", Some(&ke_desk)).await;
    }
    let (own, foreign) = (Authority::of(&network), Authority::foreign(&network));
    for (face, name) in [
        ("desk", "spiffe://example/bureau/FR/desk/desk"),
        ("link", "spiffe://example/bureau/KE/node/ke-1"),
        ("admin", "spiffe://example/bureau/FR/desk/desk"),
    ] {
        admitted(&network, face, &own.issue(&[name], 2020..2090)).await;
        let other_network = name.replace("example", "elsewhere");
        let cases = [
            ("UNKNOWN_CA", foreign.issue(&[name], 2020..2090)),
            ("CERTIFICATE_EXPIRED", own.issue(&[name], 2020..2021)),
            ("NOT_YET_VALID", own.issue(&[name], 2089..2090)),
            ("UNKNOWN_IDENTITY", own.issue(&[], 2020..2090)),
            ("UNKNOWN_IDENTITY", own.issue(&[name, &other_network], 2020..2090)),
            ("UNKNOWN_IDENTITY", own.issue(&["spiffe://example/bureau/FR"], 2020..2090)),
            ("WRONG_NETWORK", own.issue(&[&other_network], 2020..2090)),
        ];
        refused(&network, face, "NO_CERTIFICATE", None).await;
        for (reason, certificate) in &cases {
            refused(&network, face, reason, Some(certificate)).await;
        }
    }
    // Whoever was refused disturbed nobody.
    network.desk("FR").send(&["KE"], "after all that").await;
}

#[tokio::test]
async fn an_older_tls_and_what_is_no_tls_are_refused() {
    let network = network().await;
    let http = b"GET /metrics HTTP/1.1\r\nHost: fr\r\n\r\n";
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for face in FACES {
        let address = tls::face(&network, "FR", face);
        let face = format!("face={face}");
        let alert = tls::plain(&address, &tls::client_hello_1_2()).await;
        // A fatal alert, protocol_version: the client can tell its people.
        assert_eq!((alert.first(), alert.last()), (Some(&21), Some(&70)), "{alert:?}");
        network.logged("FR", &["handshake_refused", &face, "reason=TLS_VERSION"]).await;
        for bytes in [&http[..], http2] {
            let answer = tls::plain(&address, bytes).await;
            assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
        }
        network.logged("FR", &["handshake_refused", &face, "reason=NOT_TLS"]).await;
    }
    network.desk("FR").send(&["KE"], "after all that").await;
}

/// A stranger may have a good certificate all the same: the roster decides.
#[tokio::test]
async fn a_node_that_the_roster_does_not_list_gets_no_link() {
    let network = network().await;
    let own = Authority::of(&network);
    let address = tls::face(&network, "FR", "link");
    for (node, reason) in [("ZZ/node/zz-1", "UNKNOWN_BUREAU"), ("KE/node/ke-9", "NOT_PERMITTED")] {
        let name = format!("spiffe://example/bureau/{node}");
        let certificate = own.issue(&[&name], 2020..2090);
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let files = bureau_net::TlsFiles {
            certificates: file("node.pem", &certificate.chain),
            key: tls::secret(&dir.path().join("node.key"), &certificate.key),
            authorities: network.home("FR").join("tls/ca.pem"),
            revocations: Vec::new(),
        };
        let stranger = harness::Desk::with("example", "FR", &address, &address, files);
        let channel = stranger.channel().await.unwrap().channel();
        assert_eq!(tls::open_link(channel).await, reason, "{name}");
        network.logged("FR", &["link_refused", reason]).await;
    }
}
