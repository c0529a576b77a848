//! What is made holds together.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::os::unix::fs::PermissionsExt as _;

use bureau_core::{KeyId, Roster, roster::Anchor};
use bureau_net::{Role, TlsFiles, TlsStore, secret::read_secret};

use super::*;
use crate::{profile::Profile, wire};

fn plan() -> Plan {
    let bureaus = ["FR", "KE"].map(|code| code.parse().unwrap());
    let (network, desk) = ("test.example".parse().unwrap(), "trafficking".parse().unwrap());
    let ports = Plan::ports_from(7100, 3).unwrap();
    Plan::new(network, &bureaus, &["IPSG".parse().unwrap()], Links::Hub, desk, ports).unwrap()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.push(path);
    }
    found
}

fn tls(home: &Path, name: &str) -> TlsStore {
    let file = |ending: &str| home.join(format!("tls/{name}.{ending}"));
    TlsStore::open(TlsFiles {
        certificates: file("pem"),
        key: file("key"),
        authorities: home.join("tls/ca.pem"),
        revocations: Vec::new(),
    })
    .unwrap()
}

#[test]
fn secrets_are_for_their_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("deep/net");
    init(&home, &plan(), wire::now()).unwrap();
    let mut secrets = 0;
    for path in files(&home) {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        let text = std::fs::read(&path).unwrap_or_default();
        let holds_key = String::from_utf8_lossy(&text).contains("PRIVATE KEY");
        match path.is_dir() {
            true => assert_eq!(mode, 0o700, "{}", path.display()),
            false if holds_key => assert_eq!(mode, 0o600, "{}", path.display()),
            false => assert_eq!(mode & 0o022, 0, "{}", path.display()),
        }
        secrets += usize::from(holds_key);
    }
    // Of each bureau the keys to sign and to open, the node's and the desk's; the authority's and
    // the root's.
    assert_eq!(secrets, 3 * 4 + 2);
}

#[test]
fn the_roster_verifies_and_lists_every_key() {
    let directory = tempfile::tempdir().unwrap();
    let now = wire::now();
    let made = init(directory.path(), &plan(), now).unwrap();
    let anchor = Anchor { keys: vec![made.root_key], threshold: 1 };
    for home in ["FR", "KE", "IPSG", "root"] {
        let bytes = std::fs::read(directory.path().join(home).join("roster.bin")).unwrap();
        let roster = Roster::verify(bytes.into(), &made.network, &anchor).unwrap();
        assert_eq!((roster.serial(), roster.members().count()), (1, 3));
        for (code, member) in roster.members() {
            let path = directory.path().join(code.as_str()).join("keys/signing.pem");
            let pem = String::from_utf8(read_secret(&path).unwrap().to_vec()).unwrap();
            let key: KeyId = SigningKey::from_pkcs8_pem(&pem).unwrap().public().id();
            assert_eq!(roster.may_sign(code, key, now), Ok(()));
            assert_eq!(member.relay, code.as_str() == "IPSG");
            let via: &[&str] = if member.relay { &[] } else { &["IPSG"] };
            assert_eq!(member.via.iter().map(BureauCode::as_str).collect::<Vec<_>>(), via);
        }
    }
}

#[test]
fn certificates_name_their_holders() {
    let directory = tempfile::tempdir().unwrap();
    init(directory.path(), &plan(), wire::now()).unwrap();
    let home = directory.path().join("KE");
    let node = tls(&home, "node").summary();
    assert_eq!(node.id.role, Role::Node("ke-1".parse().unwrap()));
    assert_eq!(node.id.bureau.as_str(), "KE");
    assert!(node.validity.contains(std::time::SystemTime::now()));
    let profile = Profile::load(&home.join("desk.toml")).unwrap();
    let desk = TlsStore::open(profile.tls.clone()).unwrap();
    assert!(profile.check_certificate(&desk.summary().id).is_ok());
    assert!(profile.check_certificate(&node.id).is_err());
    assert_eq!(profile.address, "127.0.0.1:7111");
}

#[test]
fn the_configurations_pass_the_nodes_own_check() {
    let directory = tempfile::tempdir().unwrap();
    let made = init(directory.path(), &plan(), wire::now()).unwrap();
    for bureau in made.bureaus {
        let report = bureau_node::check(&bureau.node_config).unwrap();
        assert_eq!((report.bureau, report.members), (bureau.code, 3));
        assert_eq!(report.peers, if bureau.code.as_str() == "IPSG" { 2 } else { 1 });
        assert_eq!(report.warnings, [""; 0]);
    }
}

#[test]
fn nothing_is_written_over() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("mine"), "mine").unwrap();
    let refused = init(directory.path(), &plan(), wire::now());
    assert!(matches!(refused, Err(InitError::NotEmpty(_))));
    assert_eq!(files(directory.path()).len(), 1);
}
