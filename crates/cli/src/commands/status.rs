//! `bureau status`: what the node is and how it is.

use std::path::Path;

use bureau_proto::admin::v1::{GetStatusRequest, GetStatusResponse};
use serde::Serialize;

use crate::{
    client::Desk,
    error::CommandError,
    output::{Output, table::Table},
    wire,
};

#[derive(Serialize)]
struct View {
    bureau: String,
    node: String,
    network: String,
    version: String,
    epoch: String,
    roster_serial: u64,
    roster_expire_time: Option<String>,
    certificate_expire_time: Option<String>,
    start_time: Option<String>,
    queued: u64,
    disk_free_bytes: u64,
    disk_low: bool,
}

pub(crate) async fn run(profile: Option<&Path>, output: &mut Output) -> Result<(), CommandError> {
    let face = Desk::open(profile).await?.admin_face(profile).await?;
    let mut client = face.client.clone();
    let status = face.call(client.get_status(GetStatusRequest {})).await?;
    show(status, output)
}

fn show(status: GetStatusResponse, output: &mut Output) -> Result<(), CommandError> {
    if output.is_json() {
        return output.document(&View::from(status));
    }
    let now = wire::now();
    let ends = |time| format!("{} ({})", wire::shown_time(time), wire::shown_distance(time, now));
    let mut table = Table::pairs();
    let node = format!("{} of {} in {}", status.node, status.bureau, status.network);
    table.row(["node", &node]);
    table.row(["version", &status.version]);
    table.row(["started", &ends(status.start_time.as_ref())]);
    table.row(["queued", &format!("{} messages", status.queued)]);
    let low = if status.disk_low { ", LOW: new messages are refused" } else { "" };
    let free = status.disk_free_bytes / (1024 * 1024);
    table.row(["disk", &format!("{free} MiB free{low}")]);
    table.row(["certificate", &format!("ends {}", ends(status.certificate_expire_time.as_ref()))]);
    let roster = ends(status.roster_expire_time.as_ref());
    table.row(["roster", &format!("serial {}, ends {roster}", status.roster_serial)]);
    table.row(["epoch", &status.epoch]);
    output.table(table)
}

impl From<GetStatusResponse> for View {
    fn from(status: GetStatusResponse) -> Self {
        Self {
            roster_serial: status.roster_serial,
            roster_expire_time: wire::time(status.roster_expire_time.as_ref()),
            certificate_expire_time: wire::time(status.certificate_expire_time.as_ref()),
            start_time: wire::time(status.start_time.as_ref()),
            queued: status.queued,
            disk_free_bytes: status.disk_free_bytes,
            disk_low: status.disk_low,
            bureau: status.bureau,
            node: status.node,
            network: status.network,
            version: status.version,
            epoch: status.epoch,
        }
    }
}
