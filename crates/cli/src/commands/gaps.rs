//! `bureau gaps`: what is missing of what others sent.

use std::path::Path;

use bureau_proto::admin::v1::{Gap, ListGapsRequest};
use serde::Serialize;

use crate::{
    client::Desk,
    error::CommandError,
    output::{Output, table::Table},
    wire,
};

#[derive(Serialize)]
struct View {
    gaps: Vec<GapView>,
}

#[derive(Serialize)]
struct GapView {
    origin: String,
    epoch: String,
    lane: String,
    first: u64,
    last: u64,
    messages: u64,
    since_time: Option<String>,
    ask_time: Option<String>,
    open: bool,
}

pub(crate) async fn run(profile: Option<&Path>, output: &mut Output) -> Result<(), CommandError> {
    let face = Desk::open(profile).await?.admin_face(profile).await?;
    let mut client = face.client.clone();
    let listed = face.call(client.list_gaps(ListGapsRequest {})).await?;
    show(listed.gaps, output)
}

fn show(gaps: Vec<Gap>, output: &mut Output) -> Result<(), CommandError> {
    if output.is_json() {
        return output.document(&View { gaps: gaps.into_iter().map(GapView::from).collect() });
    }
    if gaps.is_empty() {
        return output.line("nothing is missing");
    }
    let now = wire::now();
    let heads = ["ORIGIN", "LANE", "#FIRST", "#LAST", "#MISSING", "SINCE", "ASKED", "REMARK"];
    let mut table = Table::new(&heads);
    for gap in &gaps {
        let remark = if gap.open { "open: asking did not help" } else { "may only be slow" };
        let remark = remark.to_owned();
        let asked = match gap.ask_time.as_ref() {
            Some(_) => wire::shown_distance(gap.ask_time.as_ref(), now),
            None => "-".to_owned(),
        };
        table.row([
            &gap.origin,
            &wire::lane(gap.lane),
            &gap.first.to_string(),
            &gap.last.to_string(),
            &gap.messages.to_string(),
            &wire::shown_distance(gap.since_time.as_ref(), now),
            &asked,
            &remark,
        ]);
    }
    output.table(table)
}

impl From<Gap> for GapView {
    fn from(gap: Gap) -> Self {
        Self {
            lane: wire::lane(gap.lane),
            first: gap.first,
            last: gap.last,
            messages: gap.messages,
            since_time: wire::time(gap.since_time.as_ref()),
            ask_time: wire::time(gap.ask_time.as_ref()),
            open: gap.open,
            origin: gap.origin,
            epoch: gap.epoch,
        }
    }
}
