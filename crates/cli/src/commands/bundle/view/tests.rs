#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use bureau_proto::admin::v1::ImportRefusal;

use super::*;
use crate::output::{Format, capture};

fn report() -> BundleReport {
    BundleReport {
        bundle_id: "0123456789abcdef0123456789abcdef".to_owned(),
        from_bureau: "FR".to_owned(),
        to_bureau: "KE".to_owned(),
        messages: 1,
        attachments: 2,
        attachment_bytes: 300,
        receipts: 4,
        bytes: 5000,
        left_out: 3,
        ..BundleReport::default()
    }
}

#[test]
fn an_export_says_what_it_holds_and_what_it_left_out() {
    let (mut output, answers, _) = capture::output(Format::Table);
    exported(&report(), Path::new("to-ke.bundle"), &mut output).unwrap();
    let text = answers.text();
    assert!(text.contains("1 message, 2 attachments of 300 bytes, 4 receipts"), "{text}");
    assert!(text.contains("3 messages: no room"), "{text}");
}

#[test]
fn an_import_names_what_it_did_not_take() {
    let refusal =
        ImportRefusal { number: 7, recipient: String::new(), reason: "BAD_SIGNATURE".to_owned() };
    let response = ImportBundleResponse {
        bundle: Some(report()),
        refused: 1,
        refusals: vec![refusal],
        ..ImportBundleResponse::default()
    };
    let (mut output, answers, _) = capture::output(Format::Table);
    imported(&response, &mut output).unwrap();
    let text = answers.text();
    assert!(text.contains("BAD_SIGNATURE") && text.contains("all"), "{text}");
    let (mut output, answers, _) = capture::output(Format::Json);
    imported(&response, &mut output).unwrap();
    let json: serde_json::Value = serde_json::from_str(&answers.text()).unwrap();
    assert_eq!(json["refusals"][0]["number"], 7);
    assert_eq!(json["refusals"][0]["recipient"], serde_json::Value::Null);
    assert_eq!(json["bundle"]["receipts"], 4);
}

#[test]
fn a_list_tells_confirmed_from_open() {
    let one = |imported, confirm_time| BundleRecord {
        bundle_id: report().bundle_id,
        bureau: "KE".to_owned(),
        imported,
        confirm_time,
        ..BundleRecord::default()
    };
    let now = wire::now().plus_ms(-120_000).to_wire();
    let (mut output, answers, _) = capture::output(Format::Table);
    list(vec![one(false, None), one(false, Some(now)), one(true, None)], &mut output).unwrap();
    let text = answers.text();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[1].contains("for KE") && lines[1].contains("not yet"), "{text}");
    assert!(lines[2].contains("2m ago"), "{text}");
    assert!(lines[3].contains("from KE"), "{text}");
}
