//! Who is not let in, and that the node's log says why, by name.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod harness;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bureau_net::{Connections, DialLimits, Dialer, Target, TlsFiles, TlsStore, connections};
use harness::{Desk, Network, Program, peer::Actor};

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_bureau"))
}

fn files(home: &Path, role: &str) -> TlsFiles {
    let tls = home.join("tls");
    TlsFiles {
        certificates: tls.join(format!("{role}.pem")),
        key: tls.join(format!("{role}.key")),
        authorities: tls.join("ca.pem"),
        revocations: Vec::new(),
    }
}

/// Dials a face with some certificate; gives why it failed.
async fn refused(files: TlsFiles, address: &str, network_name: &str) -> String {
    let tls = Arc::new(TlsStore::open(files).unwrap());
    let connections = Connections::start(Arc::clone(&tls), connections::PATROL_INTERVAL);
    let dialer = Dialer::new(tls, connections, DialLimits::default());
    let target = Target {
        address: address.to_owned(),
        network: network_name.parse().unwrap(),
        bureau: "FR".parse().unwrap(),
    };
    match dialer.connect(&target).await {
        Ok(_) => "CONNECTED".to_owned(),
        Err(error) => error.as_str().to_owned(),
    }
}

fn address(network: &Network, face: &str) -> String {
    let text = std::fs::read_to_string(network.config("FR")).unwrap();
    let config: toml::Table = text.parse().unwrap();
    config[face]["listen"].as_str().unwrap().to_owned()
}

/// A certificate for an identity, signed by the network's own authority, in a folder.
fn issue(network: &Network, folder: &Path, uri: &str, expired: bool) -> TlsFiles {
    let root = network.dir.path().join("net/root");
    let ca_key = std::fs::read_to_string(root.join("ca.key")).unwrap();
    let ca_pem = std::fs::read_to_string(root.join("ca.pem")).unwrap();
    let ca_key = rcgen::KeyPair::from_pem(&ca_key).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&ca_pem, ca_key).unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    let uri = rcgen::SanType::URI(uri.try_into().unwrap());
    parameters.subject_alt_names = vec![uri];
    parameters.extended_key_usages = vec![
        rcgen::ExtendedKeyUsagePurpose::ClientAuth,
        rcgen::ExtendedKeyUsagePurpose::ServerAuth,
    ];
    if expired {
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2021, 1, 1);
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    std::fs::create_dir_all(folder.join("tls")).unwrap();
    let files = files(folder, "made");
    std::fs::write(&files.certificates, certificate.pem()).unwrap();
    write_secret(&files.key, &key.serialize_pem());
    std::fs::write(&files.authorities, ca_pem).unwrap();
    files
}

fn write_secret(path: &PathBuf, text: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[tokio::test]
async fn strangers_and_the_wrong_role_are_refused_and_logged() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    let other = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    let (desk, link) = (address(&network, "desk"), address(&network, "link"));
    let folder = tempfile::tempdir().unwrap();
    let made =
        |name: &str, uri: &str, expired| issue(&network, &folder.path().join(name), uri, expired);
    let ke = network.home("KE");
    // Its own authority for the client's certificate, the network's to believe the node.
    let foreign = TlsFiles {
        authorities: network.home("FR").join("tls/ca.pem"),
        ..files(&other.home("KE"), "node")
    };
    let cases = [
        ("link", &link, foreign, "UNKNOWN_CA"),
        ("link", &link, files(&network.home("FR"), "desk-desk"), "WRONG_ROLE"),
        ("desk", &desk, files(&ke, "node"), "WRONG_ROLE"),
        ("desk", &desk, files(&ke, "desk-desk"), "WRONG_BUREAU"),
        (
            "link",
            &link,
            made("expired", "spiffe://example/bureau/KE/node/ke-1", true),
            "CERTIFICATE_EXPIRED",
        ),
        ("link", &link, made("net", "spiffe://other/bureau/KE/node/ke-1", false), "WRONG_NETWORK"),
        ("link", &link, made("odd", "https://example/KE", false), "UNKNOWN_IDENTITY"),
    ];
    for (face, address, files, reason) in cases {
        assert_ne!(refused_or_broken(files, address).await, "CONNECTED", "{reason}");
        network.logged("FR", &["handshake_refused", &format!("face={face}"), reason]).await;
    }
    // A good one still gets in.
    assert!(network.desk("FR").is_serving().await);
    let actor = Actor::of(&ke);
    let _link = actor.link(&network.home("FR"), "FR").await;
    // A node that the roster does not list: TLS takes it, the face does not.
    let unlisted = made("unlisted", "spiffe://example/bureau/KE/node/ke-9", false);
    assert_eq!(refused(unlisted, &link, "example").await, "CONNECTED");
}

/// A store of certificates may refuse by itself what this test wants to show to the node; then it is
/// shown by hand.
async fn refused_or_broken(files: TlsFiles, address: &str) -> String {
    if TlsStore::open(files.clone()).is_ok() {
        return refused(files, address, "example").await;
    }
    by_hand(&files, address)
}

/// A TLS 1.3 client that shows whatever it has and believes whoever answers.
fn by_hand(files: &TlsFiles, address: &str) -> String {
    let output = std::process::Command::new("openssl")
        .args(["s_client", "-connect", address, "-tls1_3", "-alpn", "h2", "-cert"])
        .arg(&files.certificates)
        .arg("-key")
        .arg(&files.key)
        .stdin(std::process::Stdio::null())
        .output();
    match output {
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn no_certificate_old_tls_and_no_tls_are_refused_and_logged() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    let desk = address(&network, "desk");
    for (arguments, reason) in [(["-tls1_3"], "NO_CERTIFICATE"), (["-tls1_2"], "TLS_VERSION")] {
        let output = std::process::Command::new("openssl")
            .args(["s_client", "-connect", &desk, "-alpn", "h2"])
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        // What the client sees is its own affair in TLS 1.3; the node's log has the truth.
        drop(output);
        network.logged("FR", &["handshake_refused", "face=desk", reason]).await;
    }
    let mut plain = TcpStream::connect(&desk).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    drop(plain.read_to_end(&mut answer));
    assert!(!answer.starts_with(b"HTTP"));
    network.logged("FR", &["handshake_refused", "NOT_TLS"]).await;
}

#[tokio::test]
async fn silent_sockets_delay_nobody() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    let desk: Desk = network.desk("FR");
    let address = address(&network, "desk");
    let silent: Vec<_> = (0..24).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let begun = Instant::now();
    assert!(desk.is_serving().await);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    network.logged("FR", &["handshake_refused", "TIMEOUT"]).await;
    drop(silent);
}
