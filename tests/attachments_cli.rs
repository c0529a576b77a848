//! Attachments as officers send and save them: by command, through kills of the node, and beside
//! links that are slow or closed to files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod harness;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use bureau_proto::{
    desk::v1::{AttachmentToSend, DeliveryState, SubmitRequest},
    envelope::v1::Lane,
};
use bytes::Bytes;
use harness::{Network, Program, desk::message, files::noise, peer::now, until};

const MIB: usize = 1024 * 1024;

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_bureau"))
}

fn with(to: &[&str], lane: Lane, attachments: &[AttachmentToSend]) -> SubmitRequest {
    SubmitRequest {
        attachments: attachments.to_vec(),
        lane: lane.into(),
        ..message(to, "with a file")
    }
}

/// Begins a command as the desk of a bureau.
fn begin(network: &Network, bureau: &str, arguments: &[&str]) -> Child {
    let mut command = network.program.command();
    command.env("BUREAU_DESK", network.home(bureau).join("desk.toml")).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until a command has ended well, and gives what it said on stdout and on stderr.
fn ended(child: Child) -> (String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// The file in a folder whose name ends like this.
fn file_with(folder: &Path, end: &str) -> Option<u64> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let found =
        entries.map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with(end));
    found.map(|path| size(&path))
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_on_through_kills_of_both_nodes() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start_all(&["FR", "KE"]).await;
    let folder = tempfile::tempdir().unwrap();
    let film = noise(1, 64 * MIB);
    let (path, text) = (folder.path().join("film.mp4"), folder.path().join("text"));
    fs::write(&path, &film).unwrap();
    fs::write(&text, "see the film").unwrap();
    let (path, text) = (path.to_str().unwrap(), text.to_str().unwrap());

    let sending = begin(&network, "FR", &["send", "--to", "KE", "--attach", path, text]);
    until("it goes up", async || (network.coming_in("FR") > MIB as u64).then_some(())).await;
    network.kill("FR");
    assert!(network.coming_in("FR") < film.len() as u64, "killed in the middle");
    network.start("FR").await;
    let (id, notes) = ended(sending);
    let id = id.trim();
    assert!(notes.contains("; going on in "), "{notes}");
    assert!(!notes.contains("%") && !notes.contains('\r'), "no bar where nobody looks: {notes}");
    network.desk("FR").tracked(id, "KE", DeliveryState::Delivered).await;

    let into = folder.path().join("saved");
    fs::create_dir(&into).unwrap();
    let to = into.to_str().unwrap();
    let saving = begin(&network, "KE", &["inbox", "save", "1", "--into", to]);
    until("it comes", async || file_with(&into, ".part").filter(|size| *size > MIB as u64)).await;
    network.kill("KE");
    assert_eq!(file_with(&into, "film.mp4"), None, "killed in the middle");
    network.start("KE").await;
    let (said, notes) = ended(saving);
    assert!(notes.contains("; going on in "), "{notes}");
    assert_eq!(said, format!("{to}/film.mp4  64.0 MiB\n"));
    assert!(fs::read(into.join("film.mp4")).unwrap() == film);
    assert_eq!(file_with(&into, ".part"), None);
}

#[tokio::test]
async fn a_strangers_name_leads_nowhere_and_nothing_is_replaced() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start_all(&["FR", "KE"]).await;
    let fr = network.desk("FR");
    let names = [".bashrc", "a b$(x).txt", "same.txt", "SAME.txt"];
    let mut files = Vec::new();
    for (seed, name) in (20..).zip(names) {
        let file = fr.upload(&noise(seed, 100)).await;
        files.push(AttachmentToSend { name: name.to_owned(), ..file });
    }
    // A path is refused where it is sent.
    let path = AttachmentToSend { name: "../x".to_owned(), ..files[0].clone() };
    let refused = fr.submit(with(&["KE"], Lane::Routine, &[path])).await.unwrap_err();
    assert_eq!(refused.violations[0].reason, "FIELD_INVALID");
    let id = fr.submit(with(&["KE"], Lane::Routine, &files)).await.unwrap();
    fr.tracked(&id, "KE", DeliveryState::Delivered).await;

    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().to_str().unwrap();
    let saved = network.json("KE", &["inbox", "save", "1", "--into", to]);
    let saved = saved["files"].as_array().unwrap().iter();
    let saved: Vec<_> = saved.map(|file| file["path"].as_str().unwrap().to_owned()).collect();
    let expected = ["bashrc", "a b_(x).txt", "same.txt", "4-SAME.txt"];
    assert_eq!(saved, expected.map(|name| format!("{to}/{name}")));
    for (seed, path) in (20..).zip(&saved) {
        assert_eq!(Bytes::from(fs::read(path).unwrap()), noise(seed, 100));
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    fs::write(&saved[0], "mine").unwrap();
    let again = network.cli("KE", &["inbox", "save", "1", "--index", "1", "--into", to]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is there already"));
    assert_eq!(fs::read(&saved[0]).unwrap(), b"mine");
    let forced =
        network.cli("KE", &["inbox", "save", "1", "--index", "1", "--into", to, "--force"]);
    assert!(forced.status.success());
    assert_eq!(Bytes::from(fs::read(&saved[0]).unwrap()), noise(20, 100));
    let none = network.cli("KE", &["inbox", "save", "1", "--index", "5"]);
    assert_eq!(none.status.code(), Some(69));
    let shown = network.json("KE", &["inbox", "show", "1"]);
    assert_eq!(shown["attachments"][2]["name"], "same.txt");
}

#[tokio::test]
async fn on_a_slow_link_a_small_urgent_file_passes_large_ones_and_what_expires_makes_room() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    let _link = network.over("FR", "KE", |plan| plan.seed(1).rate(2_000_000)).await;
    network.start_all(&["FR", "KE"]).await;
    let (fr, ke) = (network.desk("FR"), network.desk("KE"));
    fr.linked("KE", true).await;
    // More than go at one time, and more than the link brings before they expire.
    let mut files = Vec::new();
    for seed in 0..12 {
        files.push(fr.upload(&noise(100 + seed, 2 * MIB)).await);
    }
    let expires = now().plus_ms(10_000);
    let mut large = Vec::new();
    for file in files {
        let expire_time = Some(expires.to_wire());
        let request = SubmitRequest { expire_time, ..with(&["KE"], Lane::Routine, &[file]) };
        large.push(fr.submit(request).await.unwrap());
    }
    until("they are under way", async || (network.coming_in("KE") > 0).then_some(())).await;
    let small = fr.upload(&noise(99, 1000)).await;
    let flash = fr.submit(with(&["KE"], Lane::Flash, std::slice::from_ref(&small))).await.unwrap();
    let last = fr.upload(&noise(98, 3000)).await;
    let last = fr.submit(with(&["KE"], Lane::Routine, &[last, small])).await.unwrap();
    let first = ke.watch(0).await.next().await.unwrap().entry.unwrap();
    assert!(first.message_id == flash || now() > expires, "the urgent one comes first");
    fr.tracked(&flash, "KE", DeliveryState::Delivered).await;
    fr.tracked(large.last().unwrap(), "KE", DeliveryState::Expired).await;
    fr.tracked(&last, "KE", DeliveryState::Delivered).await;
    assert_eq!(network.log("KE").matches("link_up ").count(), 1, "the link never went down");
}

#[tokio::test]
async fn files_keep_to_their_hours_and_messages_do_not() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    let hour = (now().as_ms() / 3_600_000) % 24;
    let closed = format!("{:02}:00-{:02}:00", (hour + 2) % 24, (hour + 3) % 24);
    network.configure("FR", |text| {
        let peer = "bureau = \"KE\"\n";
        text.replacen(peer, &format!("{peer}bulk_hours = \"{closed}\"\n"), 1)
    });
    network.start_all(&["FR", "KE"]).await;
    let fr = network.desk("FR");
    let file = fr.upload(&noise(3, 1000)).await;
    let waits = fr.submit(with(&["KE"], Lane::Flash, &[file])).await.unwrap();
    let text = fr.send(&["KE"], "no file").await;
    fr.tracked(&text, "KE", DeliveryState::Delivered).await;
    // Longer than a file takes that may go.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        assert_eq!(network.kept_files("KE"), []);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    network.terminate("FR").await;
    network.configure("FR", |text| text.replace(&closed, "00:00-24:00"));
    network.start("FR").await;
    network.desk("FR").tracked(&waits, "KE", DeliveryState::Delivered).await;
}
