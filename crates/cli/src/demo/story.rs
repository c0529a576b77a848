//! Telling what happens: a line for each event with its offset, and at the end the count, the way
//! of one message, and a verdict. Programs get the summary instead, and the story on stderr.

use bureau_core::Timestamp;
use bureau_proto::{admin::v1::Explanation, desk::v1::TrackResponse};
use tokio::time::Instant;

use super::{Outage, Summary, ledger::Sent, tally::Tally};
use crate::{
    commands::why,
    error::CommandError,
    output::{
        Output, escape,
        table::{Table, shorten},
    },
    wire,
};

/// Characters of a subject in the story.
const SUBJECT_CHARS: usize = 60;
/// Columns before what stands within the story.
const INDENT: u16 = 9;

/// Where the story goes.
pub(super) struct Story<'a> {
    output: &'a mut Output,
    begin: Instant,
}

impl<'a> Story<'a> {
    pub(super) const fn new(output: &'a mut Output, begin: Instant) -> Self {
        Self { output, begin }
    }

    /// One event, now.
    pub(super) fn tell(&mut self, event: &str) -> Result<(), CommandError> {
        let line = format!("{:5.1} s  {}", self.begin.elapsed().as_secs_f64(), escape::line(event));
        self.line(&line)
    }

    /// What `bureau why` answers at a node now.
    pub(super) fn why(
        &mut self,
        node: &str,
        id: &str,
        explanation: &Explanation,
    ) -> Result<(), CommandError> {
        self.tell(&format!("`bureau why {}` at {node}:", wire::short_id(id)))?;
        let width = self.output.width().map(|width| width.saturating_sub(INDENT));
        self.line("")?;
        for line in why::told(explanation, wire::now(), width) {
            self.line(&format!("{:indent$}{line}", "", indent = usize::from(INDENT)))?;
        }
        self.line("")
    }

    /// Something beside the story.
    pub(super) fn remark(&mut self, remark: &str) {
        self.output.note(&escape::line(remark));
    }

    fn line(&mut self, line: &str) -> Result<(), CommandError> {
        if self.output.is_json() {
            self.output.note(line);
            return Ok(());
        }
        self.output.line(line)
    }

    /// The count and the verdict.
    pub(super) fn end(&mut self, tally: &Tally, outage: Outage) -> Result<(), CommandError> {
        if self.output.is_json() {
            self.output.document(&Summary::new(tally, outage))?;
        } else {
            self.show_example(tally)?;
            self.show_count(tally, outage)?;
        }
        let verdict = match tally {
            tally if tally.is_good() => {
                "verdict: good. Nothing was lost, nothing came twice, every receipt holds."
            }
            _ => "verdict: BAD.",
        };
        self.line(verdict)
    }

    fn show_count(&mut self, tally: &Tally, outage: Outage) -> Result<(), CommandError> {
        let (delivery, submit) = (&tally.delivery_ms, &tally.submit_ms);
        let milliseconds = |value: f64| format!("{value:.1} ms");
        let mut table = Table::new(&["", "#MESSAGES", "", "#P50", "#P99"]);
        let rows: [[String; 5]; 7] = [
            [
                "submitted".into(),
                tally.submitted.to_string(),
                "submit, until durable".into(),
                milliseconds(submit.quantile(0.5)),
                milliseconds(submit.quantile(0.99)),
            ],
            [
                "delivered".into(),
                tally.delivered.to_string(),
                "submit, until delivered".into(),
                milliseconds(delivery.quantile(0.5)),
                milliseconds(delivery.quantile(0.99)),
            ],
            [
                "acknowledged".into(),
                tally.acknowledged.to_string(),
                format!("({} outside the outage)", delivery.len()),
                String::new(),
                String::new(),
            ],
            row("lost", tally.lost()),
            row("duplicated", tally.duplicated),
            row("unverified", tally.unverified),
            [
                "outage".into(),
                format!("{:.1} s", outage.seconds()),
                String::new(),
                String::new(),
                String::new(),
            ],
        ];
        for row in rows {
            table.row(row);
        }
        self.output.table(table)?;
        self.output.line("")
    }

    /// The way of one message that met the outage, by its receipts.
    fn show_example(&mut self, tally: &Tally) -> Result<(), CommandError> {
        let Some((sent, way)) = &tally.example else { return self.output.line("") };
        let subject = shorten(&sent.subject, SUBJECT_CHARS);
        self.output.line("")?;
        self.output.line(&format!("The way of one of them: {}", escape::line(&subject)))?;
        self.output.line("")?;
        // The nodes' clocks are this machine's, so their times fit into the story.
        let begin = wire::now().plus_ms(-millis(self.begin.elapsed()));
        for (offset_ms, event) in events(sent, way, begin) {
            let line = format!("{:5.1} s  {event}", offset_ms as f64 / 1000.0);
            self.output.line(&escape::line(&line))?;
        }
        self.output.line("")
    }
}

fn row(name: &str, count: usize) -> [String; 5] {
    [name.into(), count.to_string(), String::new(), String::new(), String::new()]
}

/// What the receipts say, in the order of time.
fn events(sent: &Sent, way: &TrackResponse, begin: Timestamp) -> Vec<(i64, String)> {
    let offset = |time| Timestamp::from_wire(time).map(|time: Timestamp| time.since(begin));
    let accepted = format!("accepted by {}, for {}", sent.origin, sent.recipients.join(" and "));
    let mut events: Vec<(i64, String)> =
        offset(way.create_time.as_ref()).map(|at| (at, accepted)).into_iter().collect();
    for status in &way.recipients {
        for receipt in &status.receipts {
            let kind = wire::receipt_kind(receipt.kind);
            let event =
                format!("{kind:<12}  for {}, signed by {}", status.recipient, receipt.signer);
            events.extend(offset(receipt.time.as_ref()).map(|at| (at, event)));
        }
    }
    // Stable: what has one time stays in the order of the receipts.
    events.sort_by_key(|(at, _)| *at);
    events
}

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
