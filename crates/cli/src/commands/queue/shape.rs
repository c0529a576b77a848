//! `bureau queue shape`: how long what waits has waited, age by destination.

use std::{collections::BTreeMap, path::Path};

use bureau_proto::admin::v1::{GetQueueShapeRequest, GetQueueShapeResponse};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::{
    client::Desk,
    error::CommandError,
    output::{Output, table::Table},
    wire,
};

#[derive(Debug, Args)]
pub(crate) struct ShapeArgs {
    /// Only what is for this bureau
    #[arg(
        long,
        env = "BUREAU_RECIPIENT",
        value_name = "CODE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) recipient: String,
    /// A row for each recipient, or for each recipient and lane
    #[arg(long, env = "BUREAU_BY", value_enum, default_value_t)]
    pub(crate) by: By,
}

/// What has a row of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum By {
    /// Each recipient.
    #[default]
    Recipient,
    /// Each recipient and lane.
    Lane,
}

#[derive(Debug, Serialize)]
struct View {
    /// Upper bound of each column in minutes; the last column has none.
    bounds_minutes: Vec<Option<u32>>,
    rows: Vec<RowView>,
    total: u64,
    /// Whether all that waits was read.
    complete: bool,
}

#[derive(Debug, Default, Serialize)]
struct RowView {
    recipient: String,
    /// `null` where a row stands for all lanes.
    lane: Option<String>,
    messages: Vec<u64>,
    total: u64,
    bytes: u64,
}

pub(super) async fn run(
    args: ShapeArgs,
    profile: Option<&Path>,
    output: &mut Output,
) -> Result<(), CommandError> {
    let face = Desk::open(profile).await?.admin_face(profile).await?;
    let mut client = face.client.clone();
    let request = GetQueueShapeRequest { recipient: args.recipient.to_ascii_uppercase() };
    let shape = face.call(client.get_queue_shape(request)).await?;
    show(&view(shape, args.by), output)
}

/// Rows of the same recipient, or recipient and lane, together; the most first.
fn view(shape: GetQueueShapeResponse, by: By) -> View {
    let mut rows: BTreeMap<(String, i32), RowView> = BTreeMap::new();
    for row in shape.rows {
        let lane = if by == By::Lane { row.lane } else { 0 };
        let summed = rows.entry((row.recipient.clone(), lane)).or_insert_with(|| RowView {
            recipient: row.recipient,
            lane: (lane != 0).then(|| wire::lane(lane)),
            messages: vec![0; shape.bounds_minutes.len() + 1],
            ..RowView::default()
        });
        for (sum, messages) in summed.messages.iter_mut().zip(&row.messages) {
            *sum += messages;
        }
        summed.total += row.messages.iter().sum::<u64>();
        summed.bytes += row.bytes;
    }
    let mut rows: Vec<_> = rows.into_values().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.total));
    View {
        bounds_minutes: shape.bounds_minutes.into_iter().map(Some).chain([None]).collect(),
        total: rows.iter().map(|row| row.total).sum(),
        rows,
        complete: shape.complete,
    }
}

fn show(view: &View, output: &mut Output) -> Result<(), CommandError> {
    if output.is_json() {
        return output.document(view);
    }
    if view.rows.is_empty() {
        return output.line("nothing waits");
    }
    let by_lane = view.rows.iter().any(|row| row.lane.is_some());
    let bounds = view.bounds_minutes.iter().map(|bound| match bound {
        Some(minutes) => format!("#<{}", crate::duration::show(u64::from(*minutes) * 60)),
        None => "#OLDER".to_owned(),
    });
    let mut heads = vec!["FOR".to_owned()];
    heads.extend(by_lane.then(|| "LANE".to_owned()));
    heads.extend(["#TOTAL".to_owned()]);
    heads.extend(bounds);
    heads.push("#SIZE".to_owned());
    let mut table = Table::new(&heads.iter().map(String::as_str).collect::<Vec<_>>());
    let line = |name: &str, row: &RowView| {
        let mut cells = vec![name.to_owned()];
        cells.extend(by_lane.then(|| row.lane.clone().unwrap_or_default()));
        cells.push(row.total.to_string());
        cells.extend(row.messages.iter().map(|messages| match messages {
            0 => "-".to_owned(),
            messages => messages.to_string(),
        }));
        cells.push(wire::shown_bytes(row.bytes));
        cells
    };
    for row in &view.rows {
        table.row(line(&row.recipient, row));
    }
    if view.rows.len() > 1 {
        table.row(line("all", &sum(view)));
    }
    output.table(table)?;
    if !view.complete {
        output.line("... and more, which was not read: ask with --recipient")?;
    }
    Ok(())
}

fn sum(view: &View) -> RowView {
    let mut all = RowView { messages: vec![0; view.bounds_minutes.len()], ..RowView::default() };
    for row in &view.rows {
        for (sum, messages) in all.messages.iter_mut().zip(&row.messages) {
            *sum += messages;
        }
        all.total += row.total;
        all.bytes += row.bytes;
    }
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use bureau_proto::{admin::v1::QueueShapeRow, envelope::v1::Lane};

    use super::*;
    use crate::output::{Format, capture};

    fn shape() -> GetQueueShapeResponse {
        let row = |recipient: &str, lane: Lane, messages: [u64; 8]| QueueShapeRow {
            recipient: recipient.to_owned(),
            lane: lane.into(),
            messages: messages.to_vec(),
            bytes: 1_536,
        };
        GetQueueShapeResponse {
            bounds_minutes: vec![1, 5, 15, 60, 360, 1440, 10_080],
            rows: vec![
                row("BR", Lane::Flash, [1, 0, 0, 0, 0, 0, 0, 0]),
                row("KE", Lane::Flash, [0, 2, 0, 0, 0, 0, 0, 0]),
                row("KE", Lane::Routine, [0, 1, 30, 0, 0, 0, 0, 400]),
            ],
            complete: true,
        }
    }

    fn shown(by: By) -> String {
        let (mut output, answers, _) = capture::output(Format::Table);
        show(&view(shape(), by), &mut output).unwrap();
        answers.text()
    }

    #[test]
    fn the_longest_line_comes_first_and_columns_align() {
        let expected = "\
FOR  TOTAL  <1m  <5m  <15m  <1h  <6h  <1d  <7d  OLDER     SIZE
KE     433    -    3    30    -    -    -    -    400  3.0 KiB
BR       1    1    -     -    -    -    -    -      -  1.5 KiB
all    434    1    3    30    -    -    -    -    400  4.5 KiB
";
        assert_eq!(shown(By::Recipient), expected);
        let expected = "\
FOR  LANE     TOTAL  <1m  <5m  <15m  <1h  <6h  <1d  <7d  OLDER     SIZE
KE   ROUTINE    431    -    1    30    -    -    -    -    400  1.5 KiB
KE   FLASH        2    -    2     -    -    -    -    -      -  1.5 KiB
BR   FLASH        1    1    -     -    -    -    -    -      -  1.5 KiB
all             434    1    3    30    -    -    -    -    400  4.5 KiB
";
        assert_eq!(shown(By::Lane), expected);
    }

    #[test]
    fn programs_get_bounds_and_rows() {
        let read = serde_json::to_value(view(shape(), By::Recipient)).unwrap();
        assert_eq!(
            read["bounds_minutes"],
            serde_json::json!([1, 5, 15, 60, 360, 1440, 10080, null])
        );
        assert_eq!(read["rows"][0]["recipient"], "KE");
        assert_eq!(read["rows"][0]["messages"], serde_json::json!([0, 3, 30, 0, 0, 0, 0, 400]));
        assert_eq!(
            (&read["rows"][0]["lane"], &read["total"]),
            (&serde_json::Value::Null, &434.into())
        );
    }

    #[test]
    fn what_was_not_read_is_said() {
        let (mut output, answers, _) = capture::output(Format::Table);
        let partly = GetQueueShapeResponse { complete: false, ..shape() };
        show(&view(partly, By::Recipient), &mut output).unwrap();
        assert!(
            answers.text().ends_with("... and more, which was not read: ask with --recipient\n")
        );
        let (mut output, answers, _) = capture::output(Format::Table);
        show(&view(GetQueueShapeResponse::default(), By::Lane), &mut output).unwrap();
        assert_eq!(answers.text(), "nothing waits\n");
    }
}
