//! `bureau inbox`: what arrived, and taking it over.

mod save;
mod view;
mod watch;

use std::path::Path;

use bureau_core::body::is_text;
use bureau_proto::desk::v1::{
    AcknowledgeRequest, GetInboxMessageRequest, InboxEntry, InboxMessage, ListInboxRequest,
};
use clap::{Args, Subcommand};

use self::save::{ReleaseArgs, SaveArgs};
use self::view::{AcknowledgmentView, AcknowledgmentsView, EntryView, InboxView, MessageView};
pub(crate) use self::watch::WatchArgs;
use crate::{
    client::{Desk, DeskFace},
    error::CommandError,
    output::{
        Output, escape,
        table::{Table, shorten},
    },
    wire,
};

/// Entries asked for at a time.
const PAGE_SIZE: i32 = 200;
/// Messages that one request takes over.
const ACKNOWLEDGE_MAX: usize = 500;
/// Characters of a subject in a list.
const SUBJECT_CHARS: usize = 40;

#[derive(Debug, Subcommand)]
pub(crate) enum InboxCommand {
    List(ListArgs),
    Show(ShowArgs),
    Watch(WatchArgs),
    Ack(AckArgs),
    Save(SaveArgs),
    Release(ReleaseArgs),
}

/// List what arrived and is not acknowledged, by inbox number.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  bureau inbox list\n  bureau -o json inbox list --all"
)]
pub(crate) struct ListArgs {
    /// Those that were acknowledged, too
    #[arg(long, env = "BUREAU_ALL")]
    pub(crate) all: bool,
    /// At most so many
    #[arg(long, env = "BUREAU_LIMIT", value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
}

/// Show one message with its content.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  bureau inbox show 7xk2mq\n  bureau inbox show 12\n  bureau inbox show 7xk2mq --content > report.pdf"
)]
pub(crate) struct ShowArgs {
    /// The message's id, its first 6 or more characters, or its inbox number
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Only the content, byte for byte
    #[arg(long, env = "BUREAU_CONTENT")]
    pub(crate) content: bool,
}

/// Take messages over: their senders get a signed receipt.
///
/// When this returns it is on disk, and each sender is told by
/// a signed receipt. Taking a message over twice changes nothing.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  bureau inbox ack 7xk2mq\n  bureau inbox ack 12 13"
)]
pub(crate) struct AckArgs {
    /// Ids, their first 6 or more characters, or inbox numbers
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
}

pub(crate) async fn run(
    command: InboxCommand,
    profile: Option<&Path>,
    output: &mut Output,
) -> Result<(), CommandError> {
    let desk = Desk::open(profile).await?;
    match command {
        InboxCommand::List(args) => list(args, &desk.desk_face().await?, output).await,
        InboxCommand::Show(args) => show(args, &desk.desk_face().await?, output).await,
        InboxCommand::Watch(args) => watch::run(args, &desk, output).await,
        InboxCommand::Ack(args) => ack(args, &desk.desk_face().await?, output).await,
        InboxCommand::Save(args) => save::save(args, &desk, output).await,
        InboxCommand::Release(args) => save::release(args, &desk.desk_face().await?, output).await,
    }
}

async fn list(args: ListArgs, face: &DeskFace, output: &mut Output) -> Result<(), CommandError> {
    let mut client = face.client.clone();
    let (mut entries, mut page_token) = (Vec::new(), String::new());
    let more = loop {
        let left = args.limit.saturating_sub(entries.len());
        let request = ListInboxRequest {
            page_size: i32::try_from(left).unwrap_or(PAGE_SIZE).clamp(1, PAGE_SIZE),
            page_token,
            include_acknowledged: args.all,
        };
        let page = face.call(client.list_inbox(request)).await?;
        entries.extend(page.entries);
        page_token = page.next_page_token;
        if page_token.is_empty() || entries.len() >= args.limit {
            break !page_token.is_empty() || entries.len() > args.limit;
        }
    };
    entries.truncate(args.limit);
    show_list(entries, more, output)
}

fn show_list(
    entries: Vec<InboxEntry>,
    more: bool,
    output: &mut Output,
) -> Result<(), CommandError> {
    if output.is_json() {
        let entries = entries.into_iter().map(EntryView::from).collect();
        return output.document(&InboxView { entries, more });
    }
    if entries.is_empty() {
        return output.line("nothing to read");
    }
    let now = wire::now();
    let acknowledged = entries.iter().any(|entry| entry.acknowledge_time.is_some());
    let mut heads = vec!["#NO", "MESSAGE", "FROM", "LANE", "ARRIVED", "SUBJECT"];
    let attached = entries.iter().any(|entry| entry.attachment_count > 0);
    if attached {
        heads.push("#FILES");
    }
    if acknowledged {
        heads.push("TAKEN BY");
    }
    let mut table = Table::new(&heads);
    for entry in &entries {
        let mut cells = vec![
            entry.number.to_string(),
            wire::short_id(&entry.message_id),
            entry.origin.clone(),
            wire::lane(entry.lane),
            wire::shown_distance(entry.deliver_time.as_ref(), now),
            subject(entry),
        ];
        if attached {
            let count = Some(entry.attachment_count).filter(|count| *count > 0);
            cells.push(count.map_or_else(|| "-".to_owned(), |count| count.to_string()));
        }
        if acknowledged {
            cells.push(wire::or_dash(&entry.acknowledge_desk).to_owned());
        }
        table.row(cells);
    }
    output.table(table)?;
    if more {
        output.line("... and more: see --limit")?;
    }
    Ok(())
}

fn subject(entry: &InboxEntry) -> String {
    let exercise = if entry.exercise { "[EXERCISE] " } else { "" };
    format!("{exercise}{}", shorten(wire::or_dash(&entry.subject), SUBJECT_CHARS))
}

async fn show(args: ShowArgs, face: &DeskFace, output: &mut Output) -> Result<(), CommandError> {
    let mut client = face.client.clone();
    let request = GetInboxMessageRequest { message_id: message_of(&args.id) };
    let response = face.call(client.get_inbox_message(request)).await?;
    let message = response.message.ok_or(CommandError::Incomplete("the message"))?;
    if !args.content {
        return if output.is_json() {
            output.document(&MessageView::from(message))
        } else {
            show_message(&message, output)
        };
    }
    if !output.is_terminal() {
        return output.bytes(&message.content);
    }
    match text_of(&message) {
        Some(text) => output.line(&escape::text(text)),
        None => Err(CommandError::Binary { media_type: message.media_type }),
    }
}

/// A message for a person: what it is, an empty line, what it says.
fn show_message(message: &InboxMessage, output: &mut Output) -> Result<(), CommandError> {
    let entry = message.entry.clone().unwrap_or_default();
    let mut table = Table::pairs();
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            table.row([name, value]);
        }
    };
    row("message", &entry.message_id);
    row("number", &entry.number.to_string());
    let from = match message.origin_desk.as_str() {
        "" => entry.origin.clone(),
        desk => format!("{}/{desk}", entry.origin),
    };
    row("from", &from);
    row("to", &message.visible_recipients.join(", "));
    row("subject", &entry.subject);
    let exercise = if entry.exercise { " EXERCISE" } else { "" };
    let (lane, kind) = (wire::lane(entry.lane), wire::kind(entry.kind));
    row("lane", &format!("{lane} {kind}{exercise}"));
    row("handling", &wire::handling(entry.handling_code));
    if message.purpose != 0 {
        row("purpose", &wire::purpose(message.purpose));
    }
    row("case", &message.case_reference);
    row("answers", &message.in_reply_to);
    row("replaces", &message.replaces);
    row("made", &wire::shown_time(entry.create_time.as_ref()));
    let over = match entry.previous_hop.as_str() {
        "" => String::new(),
        hop => format!(" over {hop}"),
    };
    row("arrived", &format!("{}{over}", wire::shown_time(entry.deliver_time.as_ref())));
    if entry.acknowledge_time.is_some() {
        let taken = wire::shown_time(entry.acknowledge_time.as_ref());
        row("taken", &format!("{taken} by {}", entry.acknowledge_desk));
    }
    output.table(table)?;
    if !message.attachments.is_empty() {
        output.line("")?;
        output.table(attachments(message))?;
    }
    output.line("")?;
    match text_of(message) {
        Some(text) => output.line(escape::text(text).trim_end_matches('\n')),
        None => {
            let (size, media_type) = (message.content.len(), escape::line(&message.media_type));
            output.line(&format!("({size} bytes of {media_type}: see --content)"))
        }
    }
}

fn attachments(message: &InboxMessage) -> Table {
    let held_back = message.attachments.iter().any(|attachment| attachment.quarantined);
    let mut heads = vec!["#NO", "FILE", "TYPE", "#SIZE"];
    if held_back {
        heads.push("");
    }
    let mut table = Table::new(&heads);
    for (number, attachment) in (1..).zip(&message.attachments) {
        let mut cells = vec![
            format!("{number}"),
            attachment.name.clone(),
            wire::or_dash(&attachment.media_type).to_owned(),
            wire::shown_size(attachment.size),
        ];
        if held_back {
            let held = if attachment.quarantined { "held back: inbox release" } else { "" };
            cells.push(held.to_owned());
        }
        table.row(cells);
    }
    table
}

/// What is typed for a message: `12` is short for `#12`, because a shell takes `#12` for a remark.
/// An id's first characters are 6 or more, so nothing else can be meant.
fn message_of(text: &str) -> String {
    let short = (1..6).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if short { format!("#{text}") } else { text.to_owned() }
}

/// The content, where it is text.
fn text_of(message: &InboxMessage) -> Option<&str> {
    let text = std::str::from_utf8(&message.content).ok()?;
    (message.media_type.is_empty() || is_text(&message.media_type)).then_some(text)
}

async fn ack(args: AckArgs, face: &DeskFace, output: &mut Output) -> Result<(), CommandError> {
    let mut client = face.client.clone();
    let mut acknowledgments = Vec::new();
    for ids in args.ids.chunks(ACKNOWLEDGE_MAX) {
        let message_ids = ids.iter().map(|id| message_of(id)).collect();
        let request = AcknowledgeRequest { message_ids };
        let response = face.call(client.acknowledge(request)).await?;
        acknowledgments.extend(response.acknowledgments.into_iter().map(AcknowledgmentView::from));
    }
    if output.is_json() {
        return output.document(&AcknowledgmentsView { acknowledgments });
    }
    for acknowledgment in &acknowledgments {
        let id = escape::line(&acknowledgment.message_id);
        let time = acknowledgment.acknowledge_time.as_deref().unwrap_or("-");
        let desk = escape::line(&acknowledgment.acknowledge_desk);
        output.line(&format!("{id} taken by {desk} at {time}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
