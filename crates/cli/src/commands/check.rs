//! `bureau check`: a configuration looked at before it is used.

use std::path::PathBuf;

use bureau_node::CheckReport;
use clap::Args;
use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::{
    error::CommandError,
    output::{Output, escape, table::Table},
};

/// Check a node's configuration and every file it names.
///
/// The store and the ports are left alone, so the node may be running. Every fault is told at
/// once; exits with 78 where there is one.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Example:\n  bureau check --config example/FR/bureau.toml"
)]
pub(crate) struct CheckArgs {
    /// The node's configuration
    #[arg(long, env = "BUREAU_CONFIG", value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Serialize)]
struct View<'a> {
    network: &'a str,
    bureau: &'a str,
    node: &'a str,
    certificate_expire_time: String,
    roster_serial: u64,
    roster_expire_time: String,
    members: usize,
    peers: usize,
    desks: usize,
    warnings: &'a [String],
}

pub(crate) async fn run(args: CheckArgs, output: &mut Output) -> Result<(), CommandError> {
    let path = args.config;
    let report = spawn_blocking(move || bureau_node::check(&path))
        .await
        .map_err(|source| CommandError::Task { task: "the check", source })??;
    show(&report, output)
}

fn show(report: &CheckReport, output: &mut Output) -> Result<(), CommandError> {
    let view = View {
        network: &report.network,
        bureau: report.bureau.as_str(),
        node: report.node.as_str(),
        certificate_expire_time: report.certificate_expires.to_string(),
        roster_serial: report.roster_serial,
        roster_expire_time: report.roster_expires.to_string(),
        members: report.members,
        peers: report.peers,
        desks: report.desks,
        warnings: &report.warnings,
    };
    if output.is_json() {
        return output.document(&view);
    }
    let mut table = Table::pairs();
    table.row(["node", &format!("{} of {} in {}", view.node, view.bureau, view.network)]);
    table.row(["certificate", &format!("until {}", view.certificate_expire_time)]);
    let roster = format!(
        "serial {}, {} members, until {}",
        view.roster_serial, view.members, view.roster_expire_time
    );
    table.row(["roster", &roster]);
    table.row(["configured", &format!("{} peers, {} desks", view.peers, view.desks)]);
    output.table(table)?;
    for warning in view.warnings {
        output.line(&format!("warning: {}", escape::line(warning)))?;
    }
    output.line("good")
}
