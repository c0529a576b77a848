//! `bureau why`: where a message is and why it is not further, as an operator asks the node.

use std::path::Path;

use bureau_core::Timestamp;
use bureau_proto::{
    admin::v1::{
        ExplainMessageRequest, ExplainMessageResponse, Explanation, ExplanationCause, LinkState,
        NodeRole, QueueAhead,
    },
    desk::v1::DeliveryState,
};
use clap::Args;
use serde::Serialize;

use crate::{
    client::Desk,
    error::CommandError,
    output::{Output, escape, table::Table},
    wire,
};

/// Ask where a message is, and why it is not further
///
/// Any message this node knows of can be asked for: one that its bureau sent, that it passes on,
/// or that is for it. The answer is what the node knows and what it measured; what cannot be
/// known is said to be unknown. Asked at a hub, it tells what the hub is doing with it.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  bureau why 7xk2mq\n  bureau why 7xk2mq --to KE\n  bureau -o json why 7xk2mq | jq -r '.explanations[].cause'"
)]
pub(crate) struct WhyArgs {
    /// The message's id, or its first 6 or more characters
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Only for this recipient
    #[arg(
        long,
        env = "BUREAU_TO",
        value_name = "CODE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) to: String,
}

#[derive(Serialize)]
struct View {
    message_id: String,
    origin: String,
    lane: Option<String>,
    create_time: Option<String>,
    expire_time: Option<String>,
    explanations: Vec<ExplanationView>,
}

#[derive(Serialize)]
struct ExplanationView {
    recipient: String,
    role: String,
    state: String,
    holder: Option<String>,
    cause: String,
    sentence: String,
    since_time: Option<String>,
    enqueue_time: Option<String>,
    next_hop: Option<String>,
    route: Option<String>,
    link_state: Option<String>,
    link_since_time: Option<String>,
    failed_attempts: u32,
    last_reason: Option<String>,
    next_attempt_time: Option<String>,
    ahead: Option<AheadView>,
    /// `null`: not measured.
    rate_bytes_per_second: Option<u64>,
    /// `null`: it cannot be known; the basis says why.
    estimate_time: Option<String>,
    estimate_basis: Option<String>,
    attachment_bytes: u64,
    attachment_sent_bytes: u64,
    inbox_number: Option<u64>,
    advice: Option<String>,
}

#[derive(Serialize)]
struct AheadView {
    messages: u64,
    bytes: u64,
    /// Whether there are more than were counted.
    more: bool,
    lanes: Vec<AheadLaneView>,
}

#[derive(Serialize)]
struct AheadLaneView {
    lane: String,
    messages: u64,
}

pub(crate) async fn run(
    args: WhyArgs,
    profile: Option<&Path>,
    output: &mut Output,
) -> Result<(), CommandError> {
    let face = Desk::open(profile).await?.admin_face(profile).await?;
    let mut client = face.client.clone();
    let recipient = args.to.to_ascii_uppercase();
    let request = ExplainMessageRequest { message_id: args.id, recipient };
    let explained = face.call(client.explain_message(request)).await?;
    if output.is_json() {
        return output.document(&View::from(explained));
    }
    for line in lines(&explained, wire::now(), output.width()) {
        output.line(&line)?;
    }
    Ok(())
}

/// The answer for people, for a terminal of so many columns.
fn lines(explained: &ExplainMessageResponse, now: Timestamp, width: Option<u16>) -> Vec<String> {
    let mut head = Table::pairs();
    let lane = match explained.lane {
        0 => String::new(),
        lane => format!("{}, ", wire::lane(lane)),
    };
    head.row(["message", &explained.message_id]);
    let made = match explained.create_time.as_ref() {
        Some(time) => format!(", made {}", clock(Some(time), now)),
        None => String::new(),
    };
    head.row(["what", &format!("{lane}from {}{made}", explained.origin)]);
    let expires = explained.expire_time.as_ref();
    let distance = wire::shown_distance(expires, now);
    let word = if distance.ends_with("ago") { "expired" } else { "expires" };
    head.row([word, &format!("{} ({distance})", wire::shown_time(expires))]);
    let mut lines = head.render(width);
    for explanation in &explained.explanations {
        lines.push(String::new());
        lines.extend(told(explanation, now, width));
    }
    lines
}

/// What is told of one recipient.
pub(crate) fn told(explanation: &Explanation, now: Timestamp, width: Option<u16>) -> Vec<String> {
    let mut lines = vec![headline(explanation, now)];
    lines.extend(details(explanation, now).render(width));
    lines
}

/// Where it is and why; since when a link is down.
fn headline(explanation: &Explanation, now: Timestamp) -> String {
    let at_home = explanation.role() == NodeRole::Recipient;
    let place = match explanation.state() {
        DeliveryState::Queued => "waits here".to_owned(),
        DeliveryState::Relayed => format!("is at {}", wire::or_dash(&explanation.holder)),
        DeliveryState::Delivered | DeliveryState::Acknowledged if at_home => "is here".to_owned(),
        DeliveryState::Delivered => "has arrived".to_owned(),
        DeliveryState::Acknowledged => "is done".to_owned(),
        DeliveryState::Refused => "is refused".to_owned(),
        DeliveryState::Expired => "has expired".to_owned(),
        DeliveryState::Held => "is held here".to_owned(),
        DeliveryState::Recalled => "is recalled".to_owned(),
        DeliveryState::Unspecified => wire::delivery_state(explanation.state),
    };
    let outage = match explanation.cause() {
        ExplanationCause::LinkDown => {
            let since = clock(explanation.since_time.as_ref(), now);
            format!(" since {since}{}", tries(explanation))
        }
        _ => String::new(),
    };
    let Explanation { recipient, sentence, .. } = explanation;
    escape::line(&format!("{recipient}  {place}: {sentence}{outage}")).into_owned()
}

fn tries(explanation: &Explanation) -> String {
    let failed = match explanation.failed_attempts {
        0 => String::new(),
        1 => "1 attempt".to_owned(),
        attempts => format!("{attempts} attempts"),
    };
    let parts = [explanation.last_reason.as_str(), failed.as_str()];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

fn details(explanation: &Explanation, now: Timestamp) -> Table {
    let mut rows: Vec<(&str, String)> = Vec::new();
    let since = explanation.since_time.as_ref().filter(|_| {
        let down = explanation.cause() == ExplanationCause::LinkDown;
        let shown = |time: Option<&prost_types::Timestamp>| clock(time, now);
        let waits = explanation.enqueue_time.as_ref();
        !down && shown(explanation.since_time.as_ref()) != shown(waits)
    });
    if since.is_some() {
        let ago = wire::shown_distance(since, now);
        rows.push(("since", format!("{} ({ago})", clock(since, now))));
    }
    if let Some(time) = explanation.enqueue_time.as_ref() {
        let ago = wire::shown_distance(Some(time), now);
        rows.push(("waits", format!("since {} ({ago})", clock(Some(time), now))));
    }
    if explanation.next_attempt_time.is_some() {
        let next = wire::shown_distance(explanation.next_attempt_time.as_ref(), now);
        let next = if next.ends_with("ago") { "now".to_owned() } else { next };
        rows.push(("next try", next));
    }
    if !explanation.next_hop.is_empty() {
        let hop = format!("{}: {}", explanation.next_hop, explanation.route);
        rows.push(("goes over", hop));
    }
    if let Some(ahead) = &explanation.ahead {
        rows.push(("ahead", shown_ahead(ahead)));
    }
    if explanation.state() == DeliveryState::Queued {
        let basis = &explanation.estimate_basis;
        let estimate = match explanation.estimate_time.as_ref() {
            Some(time) => {
                let (hop, distance) =
                    (&explanation.next_hop, wire::shown_distance(Some(time), now));
                let distance = if distance.ends_with("ago") { "now" } else { &distance };
                format!("at {hop} {distance}: {basis}")
            }
            None => basis.clone(),
        };
        rows.push(("estimate", estimate));
    }
    if !explanation.advice.is_empty() {
        rows.push(("you can", explanation.advice.clone()));
    }
    let indent = " ".repeat(explanation.recipient.chars().count() + 2);
    let mut table = Table::pairs();
    for (name, value) in rows {
        table.row([format!("{indent}{name}"), value]);
    }
    table
}

fn shown_ahead(ahead: &QueueAhead) -> String {
    if ahead.messages == 0 && !ahead.more {
        return "nothing".to_owned();
    }
    let more = if ahead.more { "more than " } else { "" };
    let messages = if ahead.messages == 1 { "message" } else { "messages" };
    let lane = |lane: &bureau_proto::admin::v1::QueueAheadLane| {
        format!("{} {}", lane.messages, wire::lane(lane.lane))
    };
    let lanes = ahead.lanes.iter().map(lane).collect::<Vec<_>>().join(", ");
    let bytes = wire::shown_bytes(ahead.bytes);
    format!("{more}{} {messages}, {bytes} ({lanes})", ahead.messages)
}

/// A time of today without its date.
fn clock(time: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    let (shown, today) = (wire::shown_time(time), wire::shown_time(Some(&now.to_wire())));
    match (shown.split_once(' '), today.split_once(' ')) {
        (Some((date, clock)), Some((today, _))) if date == today => clock.to_owned(),
        _ => shown,
    }
}

impl From<ExplainMessageResponse> for View {
    fn from(explained: ExplainMessageResponse) -> Self {
        Self {
            lane: (explained.lane != 0).then(|| wire::lane(explained.lane)),
            create_time: wire::time(explained.create_time.as_ref()),
            expire_time: wire::time(explained.expire_time.as_ref()),
            explanations: explained.explanations.into_iter().map(ExplanationView::from).collect(),
            message_id: explained.message_id,
            origin: explained.origin,
        }
    }
}

impl From<Explanation> for ExplanationView {
    fn from(explanation: Explanation) -> Self {
        let linked = explanation.link_state() != LinkState::Unspecified;
        let ahead = explanation.ahead.as_ref().map(|ahead| AheadView {
            messages: ahead.messages,
            bytes: ahead.bytes,
            more: ahead.more,
            lanes: ahead
                .lanes
                .iter()
                .map(|lane| AheadLaneView { lane: wire::lane(lane.lane), messages: lane.messages })
                .collect(),
        });
        let some = |number: u64| (number > 0).then_some(number);
        Self {
            role: wire::node_role(explanation.role),
            state: wire::delivery_state(explanation.state),
            holder: wire::filled(&explanation.holder),
            cause: wire::cause(explanation.cause),
            since_time: wire::time(explanation.since_time.as_ref()),
            enqueue_time: wire::time(explanation.enqueue_time.as_ref()),
            next_hop: wire::filled(&explanation.next_hop),
            route: wire::filled(&explanation.route),
            link_state: linked.then(|| wire::link_state(explanation.link_state)),
            link_since_time: wire::time(explanation.link_since_time.as_ref()),
            failed_attempts: explanation.failed_attempts,
            last_reason: wire::filled(&explanation.last_reason),
            next_attempt_time: wire::time(explanation.next_attempt_time.as_ref()),
            ahead,
            rate_bytes_per_second: some(explanation.rate_bytes_per_second),
            estimate_time: wire::time(explanation.estimate_time.as_ref()),
            estimate_basis: wire::filled(&explanation.estimate_basis),
            attachment_bytes: explanation.attachment_bytes,
            attachment_sent_bytes: explanation.attachment_sent_bytes,
            inbox_number: some(explanation.inbox_number),
            advice: wire::filled(&explanation.advice),
            recipient: explanation.recipient,
            sentence: explanation.sentence,
        }
    }
}

#[cfg(test)]
#[path = "why/tests.rs"]
mod tests;
