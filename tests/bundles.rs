//! Bundles between real nodes: everything that a link does, carried by hand between bureaus that
//! share none.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod harness;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use bureau_proto::{
    desk::v1::{DeliveryState, SubmitRequest},
    envelope::v1::Lane,
};
use harness::{Network, Program, desk::message};
use serde_json::Value;

/// Messages each way.
const MESSAGES: usize = 50;
/// How much is sent with a file.
const FILE_BYTES: usize = 300_000;

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_bureau"))
}

/// Lets a bureau dial nobody.
fn without_dialing(network: &Network, bureau: &str) {
    network.configure(bureau, |text| text.replace("dial = true", "dial = false"));
}

/// Two bureaus and a hub that share no link at all.
async fn apart(hub: bool) -> Network {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    for bureau in ["FR", "KE", "IPSG"] {
        without_dialing(&network, bureau);
    }
    network.start_all(if hub { &["FR", "KE", "IPSG"] } else { &["FR", "KE"] }).await;
    network
}

fn stick(network: &Network, name: &str) -> PathBuf {
    network.dir.path().join(name)
}

fn export(network: &Network, from: &str, to: &str, file: &Path, more: &[&str]) -> Value {
    let file = file.to_str().unwrap();
    network.json(from, &[&["bundle", "export", "--to", to, "-o", file], more].concat())
}

fn import(network: &Network, at: &str, file: &Path) -> Value {
    network.json(at, &["bundle", "import", file.to_str().unwrap()])
}

/// Imports what must be refused; gives the reason.
fn refused(network: &Network, at: &str, file: &Path) -> String {
    let output = network.cli(at, &["bundle", "import", file.to_str().unwrap()]);
    assert!(!output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let reason = text.lines().next().unwrap().rsplit_once('(').unwrap().1;
    reason.trim_end_matches(')').to_owned()
}

/// Sends in all lanes, every tenth with a file; gives the ids.
async fn send_all(network: &Network, from: &str, to: &str) -> Vec<String> {
    let desk = network.desk(from);
    let lanes = [Lane::Flash, Lane::Immediate, Lane::Priority, Lane::Routine];
    let mut ids = Vec::new();
    for turn in 0..MESSAGES {
        if turn % 10 == 0 {
            let path = stick(network, &format!("{from}-{turn}.bin"));
            let bytes: Vec<u8> = (0..FILE_BYTES).map(|at| (at * (turn + 7) % 251) as u8).collect();
            fs::write(&path, bytes).unwrap();
            let text = stick(network, "text.txt");
            fs::write(&text, format!("number {turn} of {from}")).unwrap();
            let (text, path) = (text.to_str().unwrap(), path.to_str().unwrap());
            let sent = network.json(from, &["send", "--to", to, "--attach", path, text]);
            ids.push(sent["message_id"].as_str().unwrap().to_owned());
            continue;
        }
        let text = format!("number {turn} of {from}");
        let lane = lanes[turn % 4].into();
        let request = SubmitRequest { lane, ..message(&[to], &text) };
        ids.push(desk.submit(request).await.unwrap());
    }
    ids
}

async fn inbox(network: &Network, bureau: &str) -> BTreeSet<String> {
    let inbox = network.desk(bureau).inbox().await;
    let ids: BTreeSet<_> = inbox.iter().map(|(_, id)| id.clone()).collect();
    assert_eq!(ids.len(), inbox.len(), "something came twice");
    ids
}

#[tokio::test]
async fn all_is_delivered_and_receipted_without_any_link() {
    let network = apart(false).await;
    let of_fr = send_all(&network, "FR", "KE").await;
    let of_ke = send_all(&network, "KE", "FR").await;
    let [first, second, third] = ["1", "2", "3"].map(|name| stick(&network, name));

    let made = export(&network, "FR", "KE", &first, &[]);
    assert_eq!((&made["messages"], &made["attachments"]), (&50.into(), &5.into()));
    assert_eq!(made["bytes"].as_u64().unwrap(), fs::metadata(&first).unwrap().len());
    let seen = network.json("KE", &["bundle", "inspect", first.to_str().unwrap()]);
    assert_eq!(seen["opened"]["messages"], 50);
    let taken = import(&network, "KE", &first);
    assert_eq!((&taken["delivered"], &taken["refused"]), (&50.into(), &0.into()), "{taken}");
    assert_eq!(inbox(&network, "KE").await, of_fr.iter().cloned().collect());
    // Custody is not given away by carrying: FR keeps all until the receipts are back.
    assert_eq!(network.desk("FR").status().await.queued, 50);
    let ids: Vec<&str> = of_fr.iter().take(20).map(String::as_str).collect();
    network.desk("KE").acknowledge(&ids).await.unwrap();

    let made = export(&network, "KE", "FR", &second, &[]);
    assert_eq!((&made["messages"], &made["receipts"]), (&50.into(), &70.into()));
    let taken = import(&network, "FR", &second);
    assert_eq!(taken["delivered"], 50, "{taken}");
    assert_eq!((&taken["receipts_taken"], &taken["bundles_confirmed"]), (&70.into(), &1.into()));
    for (place, id) in of_fr.iter().enumerate() {
        let acknowledged = place < 20;
        let state =
            if acknowledged { DeliveryState::Acknowledged } else { DeliveryState::Delivered };
        network.desk("FR").tracked(id, "KE", state).await;
    }
    assert_eq!(network.desk("FR").status().await.queued, 0);

    export(&network, "FR", "KE", &third, &[]);
    let taken = import(&network, "KE", &third);
    assert_eq!((&taken["receipts_taken"], &taken["bundles_confirmed"]), (&50.into(), &1.into()));
    for id in &of_ke {
        network.desk("KE").tracked(id, "FR", DeliveryState::Delivered).await;
    }
    // Confirmed receipts do not go again; nothing is left to carry.
    let made = export(&network, "KE", "FR", &stick(&network, "4"), &[]);
    assert_eq!((&made["messages"], &made["receipts"]), (&0.into(), &0.into()));
}

#[tokio::test]
async fn a_bundle_again_changes_nothing_and_a_lost_one_is_made_again() {
    let mut network = apart(false).await;
    let id = network.desk("FR").send(&["KE"], "once").await;
    let [first, second, again] = ["1", "2", "again"].map(|name| stick(&network, name));
    export(&network, "FR", "KE", &first, &[]);
    // What is on a stick does not go on the next, unless that one is lost.
    assert_eq!(export(&network, "FR", "KE", &second, &[])["messages"], 0);
    assert_eq!(export(&network, "FR", "KE", &again, &["--again"])["messages"], 1);
    let track = network.desk("FR").track(&id).await;
    assert_eq!(track.recipients[0].state(), DeliveryState::Queued);

    assert_eq!(import(&network, "KE", &first)["delivered"], 1);
    network.kill("KE");
    network.start("KE").await;
    let repeated = import(&network, "KE", &first);
    assert!(repeated["imported_before_time"].is_string(), "{repeated}");
    let repeated = import(&network, "KE", &again);
    assert_eq!((&repeated["delivered"], &repeated["duplicates"]), (&0.into(), &1.into()));
    assert_eq!(inbox(&network, "KE").await.len(), 1);
    // A file is never overwritten.
    let output =
        network.cli("FR", &["bundle", "export", "--to", "KE", "-o", first.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn what_is_not_whole_or_not_for_here_is_refused() {
    let network = apart(true).await;
    let ids = send_all(&network, "FR", "KE").await;
    let file = stick(&network, "good");
    export(&network, "FR", "KE", &file, &[]);
    let good = fs::read(&file).unwrap();
    let bad = stick(&network, "bad");
    assert_eq!(refused(&network, "IPSG", &file), "WRONG_RECIPIENT");
    assert_eq!(refused(&network, "FR", &file), "WRONG_RECIPIENT");
    let known = [
        "NOT_A_BUNDLE",
        "VERSION_UNSUPPORTED",
        "TOO_LARGE",
        "MALFORMED",
        "FIELD_MISSING",
        "UNKNOWN_FORMAT",
        "UNKNOWN_SUITE",
        "UNKNOWN_BUREAU",
        "UNKNOWN_KEY",
        "WRONG_NETWORK",
        "BAD_SIGNATURE",
        "BUNDLE_DAMAGED",
        "BUNDLE_TRUNCATED",
    ];
    // Every byte of the header's beginning, then by a stride that no chunk has.
    let places = (0..40).chain((40..good.len()).step_by(good.len() / 60 + 7));
    for place in places {
        let mut changed = good.clone();
        changed[place] ^= 0x21;
        fs::write(&bad, &changed).unwrap();
        let reason = refused(&network, "KE", &bad);
        assert!(known.contains(&reason.as_str()), "byte {place}: {reason}");
    }
    for length in [0, 10, 20, 200, good.len() / 2, good.len() - 1] {
        fs::write(&bad, &good[..length]).unwrap();
        let reason = refused(&network, "KE", &bad);
        assert!(
            ["BUNDLE_TRUNCATED", "NOT_A_BUNDLE"].contains(&reason.as_str()),
            "{length}: {reason}"
        );
    }
    fs::write(&bad, [good.as_slice(), b"x"].concat()).unwrap();
    assert_eq!(refused(&network, "KE", &bad), "BUNDLE_DAMAGED");
    // What stood before the damage was taken; the good copy brings the rest, each once.
    import(&network, "KE", &file);
    assert_eq!(inbox(&network, "KE").await, ids.iter().cloned().collect());
}

#[tokio::test]
async fn an_import_that_is_killed_is_begun_again() {
    let mut network = apart(false).await;
    let ids = send_all(&network, "FR", "KE").await;
    let file = stick(&network, "1");
    export(&network, "FR", "KE", &file, &[]);
    for _ in 0..3 {
        let mut command = network.program.command();
        command.env("BUREAU_DESK", network.home("KE").join("desk.toml"));
        command.args(["bundle", "import"]).arg(&file);
        let mut importing = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        network.logged("KE", &["message_delivered"]).await;
        network.kill("KE");
        importing.wait().unwrap();
        network.start("KE").await;
    }
    import(&network, "KE", &file);
    assert_eq!(inbox(&network, "KE").await, ids.iter().cloned().collect());
    let back = stick(&network, "2");
    export(&network, "KE", "FR", &back, &[]);
    import(&network, "FR", &back);
    for id in &ids {
        network.desk("FR").tracked(id, "KE", DeliveryState::Delivered).await;
    }
}

#[tokio::test]
async fn a_hub_passes_on_what_came_on_a_stick() {
    let mut network = Network::star(program(), &["FR", "KE"], "IPSG");
    for bureau in ["FR", "IPSG"] {
        without_dialing(&network, bureau);
    }
    network.start_all(&["FR", "KE", "IPSG"]).await;
    let id = network.desk("FR").send(&["KE"], "by hand, then by wire").await;
    let [there, back] = ["1", "2"].map(|name| stick(&network, name));
    assert_eq!(export(&network, "FR", "IPSG", &there, &[])["messages"], 1);
    assert_eq!(import(&network, "IPSG", &there)["relayed"], 1);
    network.logged("KE", &["message_delivered"]).await;
    network.desk("KE").acknowledge(&[&id]).await.unwrap();
    network.logged("IPSG", &["receipt_taken", "ACKNOWLEDGED"]).await;
    export(&network, "IPSG", "FR", &back, &[]);
    import(&network, "FR", &back);
    network.desk("FR").tracked(&id, "KE", DeliveryState::Acknowledged).await;
}
