//! Starting, reloading and ending a node, as its operator sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod harness;

use std::time::Duration;

use harness::{Network, Program};
use rustix::process::Signal;

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_bureau"))
}

#[tokio::test]
async fn a_node_drains_within_ten_seconds_and_says_so() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start_all(&["FR", "KE"]).await;
    let (fr, ke) = (network.desk("FR"), network.desk("KE"));
    fr.linked("KE", true).await;
    // An open stream must not keep it.
    let mut watch = ke.watch(0).await;
    let (code, took) = network.terminate("KE").await;
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(tokio::time::timeout(Duration::from_secs(5), watch.next()).await.is_ok());
    network.logged("KE", &["stopped"]).await;
    network.logged("FR", &["link_down", "peer=KE"]).await;
    fr.linked("KE", false).await;
    // Accepted all the same.
    fr.send(&["KE"], "later").await;
}

#[tokio::test]
async fn a_bad_configuration_ends_with_78_and_names_every_fault() {
    let network = Network::mesh(program(), &["FR"], "IPSG");
    network.configure("FR", |text| {
        text.replace("bureau = \"FR\"", "bureau = \"fr\"").replace("threshold = 1", "threshold = 9")
    });
    let mut command = network.program.command();
    let output = command.arg("serve").arg("--config").arg(network.config("FR")).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("bureau") && text.contains("threshold"), "{text}");
}

#[tokio::test]
async fn a_key_others_can_read_is_refused_with_its_cure() {
    use std::os::unix::fs::PermissionsExt as _;
    let network = Network::mesh(program(), &["FR"], "IPSG");
    let key = network.home("FR").join("keys/signing.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut command = network.program.command();
    let output = command.arg("check").arg("--config").arg(network.config("FR")).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("chmod 600"), "{text}");
}

#[tokio::test]
async fn a_hangup_reloads_what_desks_may_do_and_keeps_links() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start_all(&["FR", "KE"]).await;
    let fr = network.desk("FR");
    fr.linked("KE", true).await;
    fr.send(&["KE"], "allowed").await;
    let links_down = |network: &Network| network.log("FR").matches("link_down").count();
    let before = links_down(&network);
    network.configure("FR", |text| text.replace("\"submit\", ", ""));
    network.signal("FR", Signal::HUP);
    network.logged("FR", &["reloaded"]).await;
    let refusal = fr.submit(harness::desk::message(&["KE"], "no more")).await.unwrap_err();
    assert_eq!(refusal.reason.as_deref(), Some("NOT_PERMITTED"));
    // A broken file changes nothing, and is told.
    network.configure("FR", |text| text.replace("[keys]", "[keys"));
    network.signal("FR", Signal::HUP);
    network.logged("FR", &["reload_failed"]).await;
    fr.linked("KE", true).await;
    assert_eq!(links_down(&network), before);
}

#[tokio::test]
async fn a_second_process_does_not_open_the_store() {
    let mut network = Network::mesh(program(), &["FR"], "IPSG");
    network.start("FR").await;
    let second = network.config("FR").with_file_name("second.toml");
    let text = std::fs::read_to_string(network.config("FR")).unwrap();
    // The same folder, other ports.
    let text = text.replace("127.0.0.1:1", "127.0.0.2:1").replace("127.0.0.1:2", "127.0.0.2:2");
    let text = text.replace("127.0.0.1:3", "127.0.0.2:3").replace("127.0.0.1:4", "127.0.0.2:4");
    let text = text.replace("127.0.0.1:5", "127.0.0.2:5");
    std::fs::write(&second, text).unwrap();
    let mut command = network.program.command();
    let output = command.arg("serve").arg("--config").arg(second).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("another process"), "{text}");
}
