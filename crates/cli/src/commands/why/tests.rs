//! An explanation, as shown.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use bureau_proto::{admin::v1::QueueAheadLane, envelope::v1::Lane};

use super::*;

fn now() -> Timestamp {
    Timestamp::from_ms(1_795_513_545_678)
}

fn ago(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(now().plus_ms(-seconds * 1000).to_wire())
}

fn explained(explanations: Vec<Explanation>) -> ExplainMessageResponse {
    ExplainMessageResponse {
        message_id: "7xk2mqp3".repeat(6),
        origin: "FR".to_owned(),
        lane: Lane::Flash.into(),
        create_time: ago(100),
        expire_time: ago(-7_230),
        explanations,
    }
}

fn down() -> Explanation {
    Explanation {
        recipient: "KE".to_owned(),
        role: NodeRole::Origin.into(),
        state: DeliveryState::Queued.into(),
        holder: "FR".to_owned(),
        cause: ExplanationCause::LinkDown.into(),
        sentence: "the link to KE is down".to_owned(),
        since_time: ago(218),
        enqueue_time: ago(100),
        next_hop: "KE".to_owned(),
        route: "straight, or over IPSG as soon as that link is up".to_owned(),
        link_state: LinkState::Down.into(),
        failed_attempts: 14,
        last_reason: "UNREACHABLE".to_owned(),
        next_attempt_time: ago(-21),
        ahead: Some(QueueAhead {
            messages: 3,
            bytes: 4_198,
            more: false,
            lanes: vec![
                QueueAheadLane { lane: Lane::Flash.into(), messages: 2 },
                QueueAheadLane { lane: Lane::Routine.into(), messages: 1 },
            ],
        }),
        estimate_basis: "unknown while the link is down".to_owned(),
        advice: "see that KE can be reached".to_owned(),
        ..Explanation::default()
    }
}

fn shown(explained: &ExplainMessageResponse) -> String {
    lines(explained, now(), None).join("\n") + "\n"
}

#[test]
fn an_outage_reads_as_one_would_tell_it() {
    let text = shown(&explained(vec![down()]));
    let expected = "\
message  7xk2mqp37xk2mqp37xk2mqp37xk2mqp37xk2mqp37xk2mqp3
what     FLASH, from FR, made 09:44:05Z
expires  2026-11-24 11:46:15Z (in 2h)

KE  waits here: the link to KE is down since 09:42:07Z (UNREACHABLE, 14 attempts)
    waits      since 09:44:05Z (1m 40s ago)
    next try   in 21s
    goes over  KE: straight, or over IPSG as soon as that link is up
    ahead      3 messages, 4.1 KiB (2 FLASH, 1 ROUTINE)
    estimate   unknown while the link is down
    you can    see that KE can be reached
";
    assert_eq!(text, expected);
}

#[test]
fn a_known_time_has_its_basis_and_counts_say_where_they_end() {
    let explanation = Explanation {
        cause: ExplanationCause::AheadInQueue.into(),
        sentence: "others go to KE before it".to_owned(),
        since_time: ago(100),
        next_attempt_time: None,
        estimate_time: ago(-11),
        estimate_basis: "78.1 KiB at the measured 7.8 KiB/s".to_owned(),
        ahead: Some(QueueAhead { messages: 2_000, more: true, ..QueueAhead::default() }),
        ..down()
    };
    let text = shown(&explained(vec![explanation]));
    assert!(text.contains("KE  waits here: others go to KE before it\n"), "{text}");
    assert!(text.contains("ahead      more than 2000 messages, 0 B"), "{text}");
    let line = "estimate   at KE in 11s: 78.1 KiB at the measured 7.8 KiB/s\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn what_is_elsewhere_or_over_is_said_in_a_line() {
    let with = |state: DeliveryState, role: NodeRole, sentence: &str| Explanation {
        recipient: "KE".to_owned(),
        role: role.into(),
        state: state.into(),
        holder: "IPSG".to_owned(),
        sentence: sentence.to_owned(),
        since_time: ago(100_000),
        ..Explanation::default()
    };
    let text = shown(&explained(vec![
        with(DeliveryState::Relayed, NodeRole::Origin, "IPSG has custody of it"),
        with(DeliveryState::Delivered, NodeRole::Recipient, "it is in this inbox as number 12"),
        with(DeliveryState::Expired, NodeRole::Origin, "it was not delivered in time"),
    ]));
    for line in [
        "KE  is at IPSG: IPSG has custody of it\n    since  2026-11-23 05:59:05Z (1d 3h ago)\n",
        "KE  is here: it is in this inbox as number 12\n    since  2026-11-23 05:59:05Z (1d 3h ago)\n",
        "KE  has expired: it was not delivered in time\n    since  2026-11-23 05:59:05Z (1d 3h ago)\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn programs_get_every_field_by_a_stable_name() {
    let view = serde_json::to_value(View::from(explained(vec![down()]))).unwrap();
    assert_eq!(view["lane"], "FLASH");
    let explanation = &view["explanations"][0];
    let expected = serde_json::json!({
        "recipient": "KE", "role": "ORIGIN", "state": "QUEUED", "holder": "FR",
        "cause": "LINK_DOWN", "sentence": "the link to KE is down",
        "since_time": "2026-11-24T09:42:07.678Z", "enqueue_time": "2026-11-24T09:44:05.678Z",
        "next_hop": "KE", "route": "straight, or over IPSG as soon as that link is up",
        "link_state": "DOWN", "link_since_time": null, "failed_attempts": 14,
        "last_reason": "UNREACHABLE", "next_attempt_time": "2026-11-24T09:46:06.678Z",
        "ahead": {
            "messages": 3, "bytes": 4198, "more": false,
            "lanes": [{"lane": "FLASH", "messages": 2}, {"lane": "ROUTINE", "messages": 1}]
        },
        "rate_bytes_per_second": null, "estimate_time": null,
        "estimate_basis": "unknown while the link is down",
        "attachment_bytes": 0, "attachment_sent_bytes": 0, "inbox_number": null,
        "advice": "see that KE can be reached"
    });
    assert_eq!(*explanation, expected);
}
