//! `bureau queue`: what waits at the node for a link.

mod shape;

use std::path::Path;

use bureau_proto::admin::v1::{ListQueueRequest, QueueDepth, QueueEntry};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{
    client::Desk,
    error::CommandError,
    output::{Output, table::Table},
    wire,
};

/// Entries asked for at a time.
const PAGE_SIZE: i32 = 200;

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// List what waits, by recipient, lane and age
    #[command(after_help = "Example:\n  bureau queue list --recipient KE")]
    List(ListArgs),
    /// Show how long what waits has waited: age by recipient
    ///
    /// A column that fills from left to right is an outage; many rows in one column are a node
    /// that stood still. The node reads its whole queue through for it.
    #[command(
        verbatim_doc_comment,
        after_help = "Examples:\n  bureau queue shape\n  bureau queue shape --by lane --recipient KE"
    )]
    Shape(shape::ShapeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only what is for this bureau
    #[arg(
        long,
        env = "BUREAU_RECIPIENT",
        value_name = "CODE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) recipient: String,
    /// At most so many messages; the totals are always of the whole queue
    #[arg(long, env = "BUREAU_LIMIT", value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
}

#[derive(Serialize)]
struct View {
    depths: Vec<DepthView>,
    entries: Vec<EntryView>,
    /// Whether there are more entries than these.
    more: bool,
}

#[derive(Serialize)]
struct DepthView {
    recipient: String,
    lane: String,
    messages: u64,
    oldest_enqueue_time: Option<String>,
    next_hop: Option<String>,
}

#[derive(Serialize)]
struct EntryView {
    message_id: String,
    recipient: String,
    origin: String,
    lane: String,
    enqueue_time: Option<String>,
    expire_time: Option<String>,
    size: u64,
}

pub(crate) async fn run(
    command: QueueCommand,
    profile: Option<&Path>,
    output: &mut Output,
) -> Result<(), CommandError> {
    match command {
        QueueCommand::List(args) => list(args, profile, output).await,
        QueueCommand::Shape(args) => shape::run(args, profile, output).await,
    }
}

async fn list(
    args: ListArgs,
    profile: Option<&Path>,
    output: &mut Output,
) -> Result<(), CommandError> {
    let face = Desk::open(profile).await?.admin_face(profile).await?;
    let mut client = face.client.clone();
    let (mut entries, mut depths, mut page_token) = (Vec::new(), Vec::new(), String::new());
    let more = loop {
        let left = args.limit.saturating_sub(entries.len());
        let request = ListQueueRequest {
            recipient: args.recipient.to_ascii_uppercase(),
            page_size: i32::try_from(left).unwrap_or(PAGE_SIZE).clamp(1, PAGE_SIZE),
            page_token,
            held: false,
        };
        let page = face.call(client.list_queue(request)).await?;
        depths = if depths.is_empty() { page.depths } else { depths };
        entries.extend(page.entries);
        page_token = page.next_page_token;
        if page_token.is_empty() || entries.len() >= args.limit {
            break !page_token.is_empty() || entries.len() > args.limit;
        }
    };
    entries.truncate(args.limit);
    show(depths, entries, more, output)
}

fn show(
    depths: Vec<QueueDepth>,
    entries: Vec<QueueEntry>,
    more: bool,
    output: &mut Output,
) -> Result<(), CommandError> {
    if output.is_json() {
        let depths = depths.into_iter().map(DepthView::from).collect();
        let entries = entries.into_iter().map(EntryView::from).collect();
        return output.document(&View { depths, entries, more });
    }
    if depths.is_empty() {
        return output.line("nothing waits");
    }
    let now = wire::now();
    let mut table = Table::new(&["FOR", "LANE", "#MESSAGES", "OLDEST", "GOES OVER"]);
    for depth in &depths {
        table.row([
            &depth.recipient,
            &wire::lane(depth.lane),
            &depth.messages.to_string(),
            &wire::shown_distance(depth.oldest_enqueue_time.as_ref(), now),
            wire::or_dash(&depth.next_hop),
        ]);
    }
    output.table(table)?;
    if entries.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let heads = ["MESSAGE", "FOR", "FROM", "LANE", "WAITS SINCE", "EXPIRES", "#BYTES"];
    let mut table = Table::new(&heads);
    for entry in &entries {
        table.row([
            &wire::short_id(&entry.message_id),
            &entry.recipient,
            &entry.origin,
            &wire::lane(entry.lane),
            &wire::shown_distance(entry.enqueue_time.as_ref(), now),
            &wire::shown_distance(entry.expire_time.as_ref(), now),
            &entry.size.to_string(),
        ]);
    }
    output.table(table)?;
    if more {
        output.line("... and more: see --limit")?;
    }
    Ok(())
}

impl From<QueueDepth> for DepthView {
    fn from(depth: QueueDepth) -> Self {
        Self {
            lane: wire::lane(depth.lane),
            messages: depth.messages,
            oldest_enqueue_time: wire::time(depth.oldest_enqueue_time.as_ref()),
            next_hop: wire::filled(&depth.next_hop),
            recipient: depth.recipient,
        }
    }
}

impl From<QueueEntry> for EntryView {
    fn from(entry: QueueEntry) -> Self {
        Self {
            lane: wire::lane(entry.lane),
            enqueue_time: wire::time(entry.enqueue_time.as_ref()),
            expire_time: wire::time(entry.expire_time.as_ref()),
            size: entry.size,
            message_id: entry.message_id,
            recipient: entry.recipient,
            origin: entry.origin,
        }
    }
}

#[cfg(test)]
#[path = "queue/tests.rs"]
mod tests;
