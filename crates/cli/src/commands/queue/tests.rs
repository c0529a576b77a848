//! What waits, as shown.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use super::*;
use crate::output::{Format, capture};

fn shown(format: Format, more: bool) -> String {
    let now = wire::now();
    let depth = QueueDepth {
        recipient: "KE".to_owned(),
        lane: 1,
        messages: 12,
        oldest_enqueue_time: Some(now.plus_ms(-7_230_000).to_wire()),
        next_hop: "IPSG".to_owned(),
    };
    let entry = QueueEntry {
        message_id: "7xk2mqp3aaaa7xk2mqp3aaaa".to_owned(),
        recipient: "KE".to_owned(),
        origin: "FR".to_owned(),
        lane: 1,
        enqueue_time: Some(now.plus_ms(-7_230_000).to_wire()),
        expire_time: Some(now.plus_ms(7_230_000).to_wire()),
        size: 1234,
        hold: None,
    };
    let (mut output, answers, _) = capture::output(format);
    show(vec![depth], vec![entry], more, &mut output).unwrap();
    answers.text()
}

#[test]
fn people_see_what_waits_and_since_when() {
    let text = shown(Format::Table, true);
    assert!(text.contains("KE   FLASH        12  2h ago  IPSG"), "{text}");
    assert!(text.contains("7xk2mqp3aaaa  KE   FR    FLASH  2h ago       in 2h     1234"), "{text}");
    assert!(text.ends_with("... and more: see --limit\n"), "{text}");
}

#[test]
fn programs_see_whole_ids() {
    let read: serde_json::Value = serde_json::from_str(&shown(Format::Json, false)).unwrap();
    assert_eq!(read["entries"][0]["message_id"], "7xk2mqp3aaaa7xk2mqp3aaaa");
    assert_eq!(read["depths"][0]["messages"], 12);
    assert_eq!(read["more"], false);
}

#[test]
fn nothing_is_said_in_words() {
    let (mut output, answers, _) = capture::output(Format::Table);
    show(Vec::new(), Vec::new(), false, &mut output).unwrap();
    assert_eq!(answers.text(), "nothing waits\n");
}
