//! The recipe of `certs-example/` is run as written, and what it makes is used: nodes link, a desk
//! sends, a message arrives signed with a key that openssl made.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod harness;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, SystemTime},
};

use bureau_core::{NetworkName, SealingKey, SigningKey, Timestamp, roster};
use bureau_net::{SpiffeId, TlsError, TlsFiles, TlsStore};
use bureau_proto::envelope::v1 as wire;
use harness::{Network, Program, until};

const BUREAUS: [(&str, &str); 3] = [("FR", "fr-1"), ("KE", "ke-1"), ("IPSG", "ipsg-1")];

fn make_certs(arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs-example/make-certs.sh");
    Command::new(script).args(arguments).output().unwrap()
}

fn made(arguments: &[&str]) -> String {
    let output = make_certs(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn tls(home: &Path, name: &str) -> Result<TlsStore, TlsError> {
    let file = |ending: &str| home.join("tls").join(format!("{name}.{ending}"));
    TlsStore::open(TlsFiles {
        certificates: file("pem"),
        key: file("key"),
        authorities: home.join("tls/ca.pem"),
        revocations: Vec::new(),
    })
}

/// An authority and one bureau below `directory`.
fn recipe(directory: &Path) -> PathBuf {
    let (authority, home) = (directory.join("authority"), directory.join("FR"));
    made(&["authority", text(&authority), "example"]);
    let said = made(&["bureau", text(&authority), text(&home), "example", "FR", "fr-1", "desk"]);
    assert!(said.starts_with("FR signing key: ") && said.trim_end().len() == 16 + 44, "{said}");
    home
}

#[test]
fn the_certificates_are_what_the_program_wants() {
    let directory = tempfile::tempdir().unwrap();
    let home = recipe(directory.path());
    for (name, id) in [
        ("node", "spiffe://example/bureau/FR/node/fr-1"),
        ("desk-desk", "spiffe://example/bureau/FR/desk/desk"),
    ] {
        let summary = tls(&home, name).unwrap().summary();
        assert_eq!(summary.id, id.parse::<SpiffeId>().unwrap());
        let days = |days: u64| SystemTime::now() + Duration::from_secs(days * 86_400);
        assert!(summary.validity.contains(SystemTime::now()));
        assert!(summary.validity.contains(days(364)) && !summary.validity.contains(days(366)));
    }
    let pem = fs::read_to_string(home.join("keys/signing.pem")).unwrap();
    assert!(SigningKey::from_pkcs8_pem(&pem).is_ok());
    let authority = directory.path().join("authority/ca.key");
    let secrets = ["tls/node.key", "tls/desk-desk.key", "keys/signing.pem", "keys/sealing.key"];
    for secret in secrets.iter().map(|file| home.join(file)).chain([authority]) {
        let mode = secret.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", secret.display());
    }
}

#[test]
fn nothing_is_overwritten_and_no_strange_name_gets_in() {
    let directory = tempfile::tempdir().unwrap();
    recipe(directory.path());
    let (authority, home) = (directory.path().join("authority"), directory.path().join("KE"));
    let (authority, home) = (text(&authority), text(&home));
    for arguments in [
        &["authority", authority, "example"][..],
        &["authority", home, "Example"],
        &["authority", home],
        &["bureau", home, home, "example", "KE", "ke-1", "desk"],
        &["bureau", authority, home, "example", "ke", "ke-1", "desk"],
        &["bureau", authority, home, "example", "KE", "ke-1, URI:spiffe://x", "desk"],
        &["bureau", authority, home, "example", "KE", "ke-1", "de\nsk"],
        &["sign"],
        &[],
    ] {
        let output = make_certs(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!Path::new(home).exists(), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_desks_talk_with_what_was_made() {
    let program = Program::at(env!("CARGO_BIN_EXE_bureau"));
    let mut network = Network::mesh(program, &["FR", "KE"], "IPSG");
    let own = tempfile::tempdir().unwrap();
    let authority = own.path().join("authority");
    made(&["authority", text(&authority), "example"]);
    for (code, node) in BUREAUS {
        let (home, new) = (network.home(code), own.path().join(code));
        made(&["bureau", text(&authority), text(&new), "example", code, node, "desk"]);
        for folder in ["tls", "keys"] {
            fs::remove_dir_all(home.join(folder)).unwrap();
            fs::rename(new.join(folder), home.join(folder)).unwrap();
        }
    }
    // Until a roster lists the new signing keys, a node does not start with them.
    let check = |network: &Network| {
        let config = network.config("FR");
        network.program.command().args(["check", "--config", text(&config)]).output().unwrap()
    };
    assert_eq!(check(&network).status.code(), Some(78));
    list_signing_keys(&network);
    let checked = check(&network);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    network.start_all(&["FR", "KE", "IPSG"]).await;
    let message = network.home("FR").join("message.txt");
    fs::write(&message, "signed with a key that openssl made").unwrap();
    let sent = network.json("FR", &["send", "--to", "KE", text(&message)]);
    let id = sent["message_id"].as_str().unwrap();
    let shown = until("the message arrives", async || {
        let output = network.cli("KE", &["inbox", "show", id, "--content"]);
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    })
    .await;
    assert_eq!(shown, "signed with a key that openssl made");
}

/// Puts the signing keys that are now in the folders into a new roster, signed by the root key
/// that `net init` made.
fn list_signing_keys(network: &Network) {
    let root = network.home("root").join("roster-root.pem");
    let root = SigningKey::from_pkcs8_pem(&fs::read_to_string(root).unwrap()).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = Timestamp::from_ms(i64::try_from(now.as_millis()).unwrap());
    let (begin, end) = (now.plus_ms(-60_000).to_wire(), now.plus_ms(86_400_000).to_wire());
    let member = |(code, node): &(&str, &str)| {
        let pem = fs::read_to_string(network.home(code).join("keys/signing.pem")).unwrap();
        let public = SigningKey::from_pkcs8_pem(&pem).unwrap().public();
        let pem = fs::read_to_string(network.home(code).join("keys/sealing.key")).unwrap();
        let sealing = SealingKey::from_pkcs8_pem(&pem).unwrap().public();
        let unused = wire::MemberKey {
            valid_from_time: Some(begin),
            valid_until_time: Some(end),
            ..wire::MemberKey::default()
        };
        wire::Member {
            code: (*code).to_owned(),
            keys: vec![
                wire::MemberKey {
                    public_key: public.as_bytes().to_vec().into(),
                    suite: wire::SignatureSuite::Ed25519.into(),
                    r#use: wire::KeyUse::Sign.into(),
                    ..unused.clone()
                },
                wire::MemberKey {
                    public_key: sealing.to_vec().into(),
                    kem_suite: wire::KemSuite::X25519HkdfSha256.into(),
                    r#use: wire::KeyUse::Seal.into(),
                    ..unused
                },
            ],
            nodes: vec![wire::MemberNode { name: (*node).to_owned(), addresses: Vec::new() }],
            relay: *code == "IPSG",
            ..wire::Member::default()
        }
    };
    let roster = wire::Roster {
        format: 1,
        network: "example".to_owned(),
        serial: 2,
        issue_time: Some(begin),
        expire_time: Some(end),
        members: BUREAUS.iter().map(member).collect(),
        ..wire::Roster::default()
    };
    let name: NetworkName = "example".parse().unwrap();
    let signed = roster::sign(&roster, &name, vec![root]).unwrap();
    for (code, _) in BUREAUS {
        fs::write(network.home(code).join("roster.bin"), &signed).unwrap();
    }
}
