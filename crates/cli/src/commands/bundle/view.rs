//! What people and programs read of bundles.

use std::path::Path;

use bureau_core::bundle::Label;
use bureau_proto::admin::v1::{BundleRecord, BundleReport, ImportBundleResponse};
use serde::Serialize;

use crate::{
    error::CommandError,
    output::{Output, table::Table},
    wire,
};

#[derive(Serialize)]
struct ReportView {
    bundle_id: String,
    from_bureau: String,
    to_bureau: String,
    create_time: Option<String>,
    messages: u64,
    attachments: u64,
    attachment_bytes: u64,
    receipts: u64,
    bytes: u64,
    left_out: u64,
}

impl From<&BundleReport> for ReportView {
    fn from(report: &BundleReport) -> Self {
        Self {
            bundle_id: report.bundle_id.clone(),
            from_bureau: report.from_bureau.clone(),
            to_bureau: report.to_bureau.clone(),
            create_time: wire::time(report.create_time.as_ref()),
            messages: report.messages,
            attachments: report.attachments,
            attachment_bytes: report.attachment_bytes,
            receipts: report.receipts,
            bytes: report.bytes,
            left_out: report.left_out,
        }
    }
}

#[derive(Serialize)]
struct ImportView {
    bundle: Option<ReportView>,
    imported_before_time: Option<String>,
    delivered: u64,
    relayed: u64,
    duplicates: u64,
    refused: u64,
    refusals: Vec<RefusalView>,
    receipts_taken: u64,
    bundles_confirmed: u64,
}

#[derive(Serialize)]
struct RefusalView {
    number: u64,
    recipient: Option<String>,
    reason: String,
}

#[derive(Serialize)]
struct InspectView {
    bundle_id: String,
    from_bureau: String,
    to_bureau: String,
    create_time: String,
    recipient_key: String,
    bytes: u64,
    opened: Option<ReportView>,
    not_opened: Option<String>,
}

#[derive(Serialize)]
struct ListView {
    bundles: Vec<RecordView>,
}

#[derive(Serialize)]
struct RecordView {
    bundle_id: String,
    bureau: String,
    imported: bool,
    time: Option<String>,
    messages: u64,
    attachments: u64,
    receipts: u64,
    bytes: u64,
    left_out: u64,
    confirm_time: Option<String>,
}

/// `2 messages`, `1 message`.
fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

fn content(report: &BundleReport) -> String {
    format!(
        "{}, {} of {} bytes, {}",
        count(report.messages, "message"),
        count(report.attachments, "attachment"),
        report.attachment_bytes,
        count(report.receipts, "receipt")
    )
}

pub(super) fn exported(
    report: &BundleReport,
    file: &Path,
    output: &mut Output,
) -> Result<(), CommandError> {
    if output.is_json() {
        return output.document(&ReportView::from(report));
    }
    let mut table = Table::pairs();
    table.row(["bundle", &report.bundle_id]);
    table.row(["for", &report.to_bureau]);
    table.row(["file", &format!("{} ({} bytes)", file.display(), report.bytes)]);
    table.row(["holds", &content(report)]);
    if report.left_out > 0 {
        let text = format!("{}: no room", count(report.left_out, "message"));
        table.row(["left out", &text]);
    }
    output.table(table)
}

pub(super) fn imported(
    imported: &ImportBundleResponse,
    output: &mut Output,
) -> Result<(), CommandError> {
    let refusals = imported.refusals.iter().map(|refusal| RefusalView {
        number: refusal.number,
        recipient: wire::filled(&refusal.recipient),
        reason: refusal.reason.clone(),
    });
    let view = ImportView {
        bundle: imported.bundle.as_ref().map(ReportView::from),
        imported_before_time: wire::time(imported.imported_before_time.as_ref()),
        delivered: imported.delivered,
        relayed: imported.relayed,
        duplicates: imported.duplicates,
        refused: imported.refused,
        refusals: refusals.collect(),
        receipts_taken: imported.receipts_taken,
        bundles_confirmed: imported.bundles_confirmed,
    };
    if output.is_json() {
        return output.document(&view);
    }
    let bundle = view.bundle.as_ref().ok_or(CommandError::Incomplete("the bundle"))?;
    let mut table = Table::pairs();
    table.row(["bundle", &bundle.bundle_id]);
    table.row(["from", &bundle.from_bureau]);
    if imported.imported_before_time.is_some() {
        let time = wire::shown_time(imported.imported_before_time.as_ref());
        table.row(["imported", &format!("before, on {time}: nothing changed")]);
        return output.table(table);
    }
    table.row(["delivered", &count(view.delivered, "message")]);
    table.row(["to pass on", &count(view.relayed, "message")]);
    table.row(["here before", &count(view.duplicates, "message")]);
    table.row(["not taken", &count(view.refused, "message")]);
    table.row(["receipts", &format!("{} of {} counted", view.receipts_taken, bundle.receipts)]);
    table.row(["confirms", &count(view.bundles_confirmed, "bundle")]);
    output.table(table)?;
    if view.refusals.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let mut table = Table::new(&["#NUMBER", "FOR", "REASON"]);
    for refusal in &view.refusals {
        let number = refusal.number.to_string();
        table.row([
            number.as_str(),
            refusal.recipient.as_deref().unwrap_or("all"),
            &refusal.reason,
        ]);
    }
    output.table(table)
}

pub(super) fn inspected(
    label: &Label,
    bytes: u64,
    opened: Result<ImportBundleResponse, String>,
    output: &mut Output,
) -> Result<(), CommandError> {
    let (opened, reason) = match opened {
        Ok(opened) => (opened.bundle, None),
        Err(reason) => (None, Some(reason)),
    };
    if output.is_json() {
        return output.document(&InspectView {
            bundle_id: label.id.to_string(),
            from_bureau: label.from.to_string(),
            to_bureau: label.to.to_string(),
            create_time: label.created.to_string(),
            recipient_key: label.recipient_key.to_string(),
            bytes,
            opened: opened.as_ref().map(ReportView::from),
            not_opened: reason,
        });
    }
    let mut table = Table::pairs();
    table.row(["bundle", &label.id.to_string()]);
    table.row(["from", label.from.as_str()]);
    table.row(["for", label.to.as_str()]);
    table.row(["made", &wire::shown_time(Some(&label.created.to_wire()))]);
    table.row(["sealed for", &format!("the key {}", label.recipient_key)]);
    table.row(["size", &format!("{bytes} bytes")]);
    match (&opened, reason) {
        (Some(report), _) => {
            table.row(["signature", "good"]);
            table.row(["whole", "yes: all of it opens"]);
            table.row(["holds", &content(report)]);
        }
        (None, reason) => {
            let reason = reason.unwrap_or_default();
            table.row(["signature", "not checked"]);
            table.row(["whole", &format!("not known: {reason}")]);
        }
    }
    output.table(table)
}

pub(super) fn list(bundles: Vec<BundleRecord>, output: &mut Output) -> Result<(), CommandError> {
    if output.is_json() {
        let record = |bundle: BundleRecord| RecordView {
            time: wire::time(bundle.time.as_ref()),
            confirm_time: wire::time(bundle.confirm_time.as_ref()),
            bundle_id: bundle.bundle_id,
            bureau: bundle.bureau,
            imported: bundle.imported,
            messages: bundle.messages,
            attachments: bundle.attachments,
            receipts: bundle.receipts,
            bytes: bundle.bytes,
            left_out: bundle.left_out,
        };
        return output.document(&ListView { bundles: bundles.into_iter().map(record).collect() });
    }
    if bundles.is_empty() {
        return output.line("no bundle is remembered");
    }
    let now = wire::now();
    let heads =
        ["BUNDLE", "WAY", "WHEN", "#MESSAGES", "#ATTACHMENTS", "#RECEIPTS", "#BYTES", "CONFIRMED"];
    let mut table = Table::new(&heads);
    for bundle in &bundles {
        let way = if bundle.imported { "from" } else { "for" };
        let confirmed = match (bundle.imported, &bundle.confirm_time) {
            (true, _) => "-".to_owned(),
            (false, None) => "not yet".to_owned(),
            (false, time) => wire::shown_distance(time.as_ref(), now),
        };
        table.row([
            &wire::short_id(&bundle.bundle_id),
            &format!("{way} {}", bundle.bureau),
            &wire::shown_distance(bundle.time.as_ref(), now),
            &bundle.messages.to_string(),
            &bundle.attachments.to_string(),
            &bundle.receipts.to_string(),
            &bundle.bytes.to_string(),
            &confirmed,
        ]);
    }
    output.table(table)
}

#[cfg(test)]
#[path = "view/tests.rs"]
mod tests;
