//! The links, as shown.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use super::*;
use crate::output::{Format, capture};

fn peers() -> Vec<Peer> {
    let since = Some(wire::now().plus_ms(-3_700_000).to_wire());
    let up = Peer {
        bureau: "IPSG".to_owned(),
        state: LinkState::Up.into(),
        state_since_time: since,
        round_trip_micros: 1_250,
        rate_bytes_per_second: 8_000,
        relay: true,
        metered: true,
        bulk_hours: "22:00-06:00".to_owned(),
        last_reason: "STALLED".to_owned(),
        ..Peer::default()
    };
    let down = Peer {
        bureau: "KE".to_owned(),
        state: LinkState::Down.into(),
        state_since_time: since,
        failed_attempts: 9,
        last_reason: "UNREACHABLE".to_owned(),
        queued: 17,
        next_attempt_time: Some(wire::now().plus_ms(8_900).to_wire()),
        ..Peer::default()
    };
    vec![up, down]
}

#[test]
fn people_see_why_a_link_is_down() {
    let (mut output, answers, _) = capture::output(Format::Table);
    show(peers(), &mut output).unwrap();
    let text = answers.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[1].starts_with("IPSG  UP    1h 1m ago")
            && lines[1].ends_with("1.2 ms  64 kbit/s  relay, metered, attachments 22:00-06:00 UTC"),
        "{text}"
    );
    assert!(
        lines[2].contains(" 17 ") && lines[2].ends_with("UNREACHABLE, 9 tries failed, next in 8s"),
        "{text}"
    );
}

#[test]
fn programs_see_nothing_as_null() {
    let (mut output, answers, _) = capture::output(Format::Json);
    show(peers(), &mut output).unwrap();
    let read: serde_json::Value = serde_json::from_str(&answers.text()).unwrap();
    assert_eq!(read["peers"][0]["state"], "UP");
    assert_eq!(read["peers"][0]["next_attempt_time"], serde_json::Value::Null);
    assert_eq!(read["peers"][0]["rate_bytes_per_second"], 8_000);
    assert_eq!(read["peers"][1]["failed_attempts"], 9);
    assert_eq!(read["peers"][1]["rate_bytes_per_second"], serde_json::Value::Null);
}

#[test]
fn rates_are_written_as_links_are_sold() {
    let rates = [0, 100, 1_200, 64_000, 1_249_999, 12_500_000].map(rate);
    let texts = ["-", "0 kbit/s", "9 kbit/s", "512 kbit/s", "9999 kbit/s", "100 Mbit/s"];
    assert_eq!(rates, texts);
}
