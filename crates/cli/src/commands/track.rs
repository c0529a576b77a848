//! `bureau track`: what became of a message.

use std::path::Path;

use bureau_proto::desk::v1::{ReceiptEntry, RecipientStatus, TrackRequest, TrackResponse};
use clap::Args;
use serde::Serialize;

use crate::{
    client::Desk,
    error::CommandError,
    output::{Output, escape, table::Table},
    wire,
};

/// See what became of a message: for each recipient every signed receipt.
///
/// The message must be one that this bureau sent.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  bureau track 7xk2mq\n  bureau -o json track 7xk2mq | jq '.recipients[].state'"
)]
pub(crate) struct TrackArgs {
    /// The message's id, or its first 6 or more characters
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

#[derive(Serialize)]
struct View {
    message_id: String,
    subject: String,
    lane: String,
    kind: String,
    create_time: Option<String>,
    expire_time: Option<String>,
    recipients: Vec<RecipientView>,
}

#[derive(Serialize)]
struct RecipientView {
    recipient: String,
    state: String,
    holder: String,
    reroutes: u32,
    overdue_holder: Option<String>,
    receipts: Vec<ReceiptView>,
}

#[derive(Serialize)]
struct ReceiptView {
    kind: String,
    signer: String,
    time: Option<String>,
    receive_time: Option<String>,
    reason: Option<String>,
    advice: Option<String>,
    desk: Option<String>,
    previous_hop: Option<String>,
    next_hop: Option<String>,
    /// The receipt as it was signed, for a third party: an encoded `bureau.envelope.v1.Signed`.
    signed_receipt_base64: String,
}

pub(crate) async fn run(
    args: TrackArgs,
    profile: Option<&Path>,
    output: &mut Output,
) -> Result<(), CommandError> {
    let face = Desk::open(profile).await?.desk_face().await?;
    let mut client = face.client.clone();
    let tracked = face.call(client.track(TrackRequest { message_id: args.id })).await?;
    show(tracked, output)
}

fn show(tracked: TrackResponse, output: &mut Output) -> Result<(), CommandError> {
    if output.is_json() {
        return output.document(&View::from(tracked));
    }
    let mut head = Table::pairs();
    head.row(["message", &tracked.message_id]);
    head.row(["subject", wire::or_dash(&tracked.subject)]);
    head.row(["lane", &format!("{} {}", wire::lane(tracked.lane), wire::kind(tracked.kind))]);
    head.row(["accepted", &wire::shown_time(tracked.create_time.as_ref())]);
    head.row(["expires", &wire::shown_time(tracked.expire_time.as_ref())]);
    output.table(head)?;
    for recipient in &tracked.recipients {
        output.line("")?;
        let state = wire::delivery_state(recipient.state);
        let at = match recipient.holder.as_str() {
            "" => String::new(),
            holder => format!(", held by {}", escape::line(holder)),
        };
        let again = match (recipient.reroutes, recipient.overdue_holder.as_str()) {
            (0, _) => String::new(),
            (times, "") => format!(", sent again ({times})"),
            (times, by) => format!(", sent again ({times}): overdue at {}", escape::line(by)),
        };
        output.line(&format!("{}: {state}{at}{again}", escape::line(&recipient.recipient)))?;
        let mut table = Table::new(&["  RECEIPT", "SIGNED BY", "TIME", "REMARK"]);
        for receipt in &recipient.receipts {
            table.row([
                &format!("  {}", wire::receipt_kind(receipt.kind)),
                &receipt.signer,
                &wire::shown_time(receipt.time.as_ref()),
                &remark(receipt),
            ]);
        }
        output.table(table)?;
    }
    Ok(())
}

fn remark(receipt: &ReceiptEntry) -> String {
    let mut remarks = Vec::new();
    if !receipt.desk.is_empty() {
        remarks.push(format!("desk {}", receipt.desk));
    }
    if !receipt.previous_hop.is_empty() {
        remarks.push(format!("from {}", receipt.previous_hop));
    }
    if !receipt.next_hop.is_empty() {
        remarks.push(format!("on to {}", receipt.next_hop));
    }
    if !receipt.reason.is_empty() {
        remarks.push(receipt.reason.clone());
    }
    if !receipt.advice.is_empty() {
        remarks.push(receipt.advice.clone());
    }
    remarks.join(", ")
}

impl From<TrackResponse> for View {
    fn from(tracked: TrackResponse) -> Self {
        Self {
            lane: wire::lane(tracked.lane),
            kind: wire::kind(tracked.kind),
            create_time: wire::time(tracked.create_time.as_ref()),
            expire_time: wire::time(tracked.expire_time.as_ref()),
            recipients: tracked.recipients.into_iter().map(RecipientView::from).collect(),
            message_id: tracked.message_id,
            subject: tracked.subject,
        }
    }
}

impl From<RecipientStatus> for RecipientView {
    fn from(status: RecipientStatus) -> Self {
        Self {
            state: wire::delivery_state(status.state),
            recipient: status.recipient,
            holder: status.holder,
            reroutes: status.reroutes,
            overdue_holder: Some(status.overdue_holder).filter(|holder| !holder.is_empty()),
            receipts: status.receipts.into_iter().map(ReceiptView::from).collect(),
        }
    }
}

impl From<ReceiptEntry> for ReceiptView {
    fn from(receipt: ReceiptEntry) -> Self {
        Self {
            kind: wire::receipt_kind(receipt.kind),
            time: wire::time(receipt.time.as_ref()),
            receive_time: wire::time(receipt.receive_time.as_ref()),
            reason: wire::filled(&receipt.reason),
            advice: wire::filled(&receipt.advice),
            desk: wire::filled(&receipt.desk),
            previous_hop: wire::filled(&receipt.previous_hop),
            next_hop: wire::filled(&receipt.next_hop),
            signed_receipt_base64: data_encoding::BASE64.encode(&receipt.signed_receipt),
            signer: receipt.signer,
        }
    }
}

#[cfg(test)]
#[path = "track/tests.rs"]
mod tests;
