//! What `net init` says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use clap::Parser as _;

use super::*;
use crate::{
    Arguments,
    output::{Format, capture},
};

async fn said(format: Format, words: &str) -> (u8, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("my net");
    let words =
        words.split(' ').map(|word| if word == "DIR" { path.to_str().unwrap() } else { word });
    let arguments = Arguments::try_parse_from(words).unwrap();
    let (mut output, answers, errors) = capture::output(format);
    let code = crate::run(arguments, &mut output).await;
    let shown = |text: String| text.replace(path.to_str().unwrap(), "/my net");
    (code, shown(answers.text()), shown(errors.text()))
}

#[tokio::test]
async fn people_see_what_to_type_next() {
    let (code, text, _) =
        said(Format::Table, "bureau net init DIR --bureau FR --bureau KE --hub IPSG").await;
    assert_eq!(code, 0);
    for line in [
        "FR          fr-1    127.0.0.1:7101  127.0.0.1:7102  127.0.0.1:7103  127.0.0.1:7104",
        "IPSG (hub)  ipsg-1  127.0.0.1:7121  127.0.0.1:7122  127.0.0.1:7123  127.0.0.1:7124",
        "  bureau serve --config '/my net/KE/bureau.toml'",
        "  bureau --desk '/my net/KE/desk.toml' inbox watch --ack --count 1",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\nis not in\n{text}");
    }
}

#[tokio::test]
async fn programs_see_files_and_addresses() {
    let words = "bureau net init DIR --bureau FR,KE --port-base 9000 --desk-name fugitives";
    let (_, text, _) = said(Format::Json, words).await;
    let read: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["network"], "example");
    assert_eq!(read["bureaus"][1]["node_config"], "/my net/KE/bureau.toml");
    assert_eq!(read["bureaus"][1]["link_address"], "127.0.0.1:9012");
    assert_eq!(read["bureaus"][1]["desk"], "fugitives");
}

#[tokio::test]
async fn a_plan_that_cannot_be_is_wrong_usage() {
    for (words, said_why) in [
        ("bureau net init DIR --bureau FR", "two bureaus or more"),
        ("bureau net init DIR --bureau FR,FR", "FR stands twice"),
        ("bureau net init DIR --bureau FR,KE --links hub", "need a hub"),
        ("bureau net init DIR --bureau FR,KE --port-base 65530", "beyond 65535"),
    ] {
        let (code, _, errors) = said(Format::Table, words).await;
        assert_eq!(code, 2, "{words}");
        assert!(errors.contains(said_why), "{errors}");
    }
}

#[test]
fn paths_are_quoted_for_a_shell() {
    assert_eq!(quoted("net/FR/desk.toml"), "net/FR/desk.toml");
    assert_eq!(quoted("my net"), "'my net'");
    assert_eq!(quoted("it's"), "'it'\\''s'");
}
