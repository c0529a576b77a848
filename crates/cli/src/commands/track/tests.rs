//! What became of a message, as shown.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use bureau_core::Timestamp;
use bureau_proto::{desk::v1::DeliveryState, envelope::v1::ReceiptKind};

use super::*;
use crate::output::{Format, capture};

fn tracked() -> TrackResponse {
    let time = Some(Timestamp::from_ms(1_795_513_545_678).to_wire());
    let receipt = |kind: ReceiptKind, signer: &str| ReceiptEntry {
        kind: kind.into(),
        signer: signer.to_owned(),
        time,
        ..ReceiptEntry::default()
    };
    let custody =
        ReceiptEntry { previous_hop: "FR".into(), ..receipt(ReceiptKind::Custody, "IPSG") };
    let taken =
        ReceiptEntry { desk: "trafficking".into(), ..receipt(ReceiptKind::Acknowledged, "KE") };
    let refused = ReceiptEntry {
        reason: "NOT_UTF8".into(),
        advice: "send it again as UTF-8".into(),
        ..receipt(ReceiptKind::Refused, "BR")
    };
    let status = |recipient: &str, state: DeliveryState, receipts| RecipientStatus {
        recipient: recipient.to_owned(),
        state: state.into(),
        holder: recipient.to_owned(),
        receipts,
        ..RecipientStatus::default()
    };
    TrackResponse {
        message_id: "7xk2mq".repeat(8),
        lane: 1,
        kind: 1,
        create_time: time,
        recipients: vec![
            status("BR", DeliveryState::Refused, vec![refused]),
            status("KE", DeliveryState::Acknowledged, vec![custody, taken]),
        ],
        ..TrackResponse::default()
    }
}

#[test]
fn people_see_every_receipt_with_its_signer() {
    let (mut output, answers, _) = capture::output(Format::Table);
    show(tracked(), &mut output).unwrap();
    let text = answers.text();
    for line in [
        "lane      FLASH MESSAGE",
        "BR: REFUSED, held by BR",
        "  REFUSED  BR         2026-11-24 09:45:45Z  NOT_UTF8, send it again as UTF-8",
        "KE: ACKNOWLEDGED, held by KE",
        "  CUSTODY       IPSG       2026-11-24 09:45:45Z  from FR",
        "  ACKNOWLEDGED  KE         2026-11-24 09:45:45Z  desk trafficking",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\nis not in\n{text}");
    }
}

#[test]
fn programs_see_stable_names() {
    let (mut output, answers, _) = capture::output(Format::Json);
    show(tracked(), &mut output).unwrap();
    let read: serde_json::Value = serde_json::from_str(&answers.text()).unwrap();
    assert_eq!(read["lane"], "FLASH");
    assert_eq!(read["create_time"], "2026-11-24T09:45:45.678Z");
    assert_eq!(read["expire_time"], serde_json::Value::Null);
    let receipt = &read["recipients"][1]["receipts"][0];
    assert_eq!((&receipt["kind"], &receipt["previous_hop"]), (&"CUSTODY".into(), &"FR".into()));
    assert_eq!(receipt["signed_receipt_base64"], "");
}
