//! What arrived, as shown.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use bureau_core::Timestamp;

use super::*;
use crate::output::{Format, capture};

fn message(media_type: &str, content: &[u8]) -> InboxMessage {
    let time = Some(Timestamp::from_ms(1_795_513_545_678).to_wire());
    InboxMessage {
        entry: Some(InboxEntry {
            number: 12,
            message_id: "7xk2mqp3aaaa7xk2mqp3".to_owned(),
            origin: "FR".to_owned(),
            lane: 1,
            kind: 1,
            handling_code: 2,
            subject: "Stolen \u{202e}passports".to_owned(),
            create_time: time,
            deliver_time: time,
            exercise: true,
            ..InboxEntry::default()
        }),
        content: content.to_vec().into(),
        media_type: media_type.to_owned(),
        origin_desk: "trafficking".to_owned(),
        visible_recipients: vec!["KE".to_owned(), "BR".to_owned()],
        ..InboxMessage::default()
    }
}

#[test]
fn people_see_head_and_text_and_nothing_that_steers() {
    let (mut output, answers, _) = capture::output(Format::Table);
    let content = "one\r\n\ttwo \u{1b}]0;title\u{7}\n".as_bytes();
    show_message(&message("text/plain", content), &mut output).unwrap();
    let text = answers.text();
    assert!(text.contains("from      FR/trafficking\n"), "{text}");
    assert!(text.contains("to        KE, BR\n"), "{text}");
    assert!(text.contains("subject   Stolen \\u{202e}passports\n"), "{text}");
    assert!(text.contains("lane      FLASH MESSAGE EXERCISE\n"), "{text}");
    assert!(text.ends_with("\n\none\n\ttwo \\u{1b}]0;title\\u{7}\n"), "{text}");
}

#[test]
fn what_is_not_text_is_not_shown_as_text() {
    let (mut output, answers, _) = capture::output(Format::Table);
    show_message(&message("application/pdf", b"%PDF"), &mut output).unwrap();
    assert!(answers.text().ends_with("(4 bytes of application/pdf: see --content)\n"));
}

#[test]
fn programs_see_content_as_it_is() {
    let view = |message| serde_json::to_value(MessageView::from(message)).unwrap();
    let text = view(message("text/plain", "été\n".as_bytes()));
    assert_eq!((&text["content_encoding"], &text["content"]), (&"utf-8".into(), &"été\n".into()));
    assert_eq!((&text["number"], &text["lane"]), (&12.into(), &"FLASH".into()));
    let bytes = view(message("application/pdf", b"%PDF"));
    assert_eq!(bytes["content_encoding"], "base64");
    assert_eq!(bytes["content"], "JVBERg==");
}

#[test]
fn a_list_shows_ids_that_can_be_typed() {
    let (mut output, answers, _) = capture::output(Format::Table);
    let entry = message("text/plain", b"").entry.unwrap();
    show_list(vec![entry], true, &mut output).unwrap();
    let text = answers.text();
    assert!(text.contains("12  7xk2mqp3aaaa  FR    FLASH"), "{text}");
    assert!(text.contains("[EXERCISE] Stolen \\u{202e}passports"), "{text}");
    assert!(!text.contains("TAKEN BY"), "{text}");
    assert!(text.ends_with("... and more: see --limit\n"));
}
