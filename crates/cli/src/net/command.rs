//! `bureau net init`: a network to try, and what to type next.

use std::path::PathBuf;

use bureau_core::{BureauCode, DeskName, NetworkName};
use clap::{Args, Subcommand};
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::{Links, Made, Plan, Ports};
use crate::{
    error::CommandError,
    output::{Output, escape, table::Table},
    wire,
};

#[derive(Debug, Subcommand)]
pub(crate) enum NetCommand {
    Init(InitArgs),
}

/// Make a network that runs on this machine.
///
/// That is: an authority and certificates, signing keys, a signed roster, and for each bureau a
/// configuration of its node and of its desk.
///
/// In a real network each bureau makes its own keys and certificates: see certs-example/.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub(crate) struct InitArgs {
    /// Where; must be empty or not exist
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// A bureau's code: 2 to 12 of A-Z and 0-9; give it once for each bureau
    #[arg(
        long = "bureau",
        env = "BUREAU_BUREAUS",
        value_name = "CODE",
        value_delimiter = ',',
        required = true
    )]
    pub(crate) bureaus: Vec<BureauCode>,
    /// Code of a hub, which stores and forwards for the others; may be given several times
    #[arg(long = "hub", env = "BUREAU_HUB", value_name = "CODE", value_delimiter = ',')]
    pub(crate) hubs: Vec<BureauCode>,
    /// First port: each bureau has ten, in the order given, the hubs last
    #[arg(long, env = "BUREAU_PORT_BASE", value_name = "N", default_value_t = 7100)]
    pub(crate) port_base: u16,
    /// Who is linked with whom
    #[arg(long, env = "BUREAU_LINKS", value_enum, default_value_t)]
    pub(crate) links: Links,
    /// The network's name, which stands under every signature
    #[arg(long, env = "BUREAU_NETWORK", value_name = "NAME", default_value = "example")]
    pub(crate) network: NetworkName,
    /// The name of each bureau's one desk
    #[arg(long, env = "BUREAU_DESK_NAME", value_name = "NAME", default_value = "desk")]
    pub(crate) desk_name: DeskName,
}

const EXAMPLES: &str = "\
Examples:
  bureau net init example --bureau FR --bureau KE
  bureau net init example --bureau FR --bureau KE --bureau BR --hub IPSG --links hub
  bureau net init example --bureau FR --bureau KE --hub EUR --hub AFR --links region";

#[derive(Serialize)]
struct View {
    directory: PathBuf,
    network: String,
    bureaus: Vec<BureauView>,
}

#[derive(Serialize)]
struct BureauView {
    bureau: String,
    hub: bool,
    node: String,
    desk: String,
    node_config: PathBuf,
    desk_profile: PathBuf,
    desk_address: String,
    link_address: String,
    admin_address: String,
    metrics_address: Option<String>,
}

pub(crate) async fn run(command: NetCommand, output: &mut Output) -> Result<(), CommandError> {
    let NetCommand::Init(args) = command;
    let count = args.bureaus.len() + args.hubs.len();
    let ports = Plan::ports_from(args.port_base, count).map_err(super::InitError::from)?;
    let plan =
        Plan::new(args.network, &args.bureaus, &args.hubs, args.links, args.desk_name, ports)
            .map_err(super::InitError::from)?;
    let directory = args.directory;
    let making = spawn_blocking(move || {
        let made = super::init(&directory, &plan, wire::now());
        made.map(|made| (made, plan))
    });
    let (made, plan) =
        making.await.map_err(|source| CommandError::Task { task: "net init", source })??;
    show(&made, &plan, output)
}

fn show(made: &Made, plan: &Plan, output: &mut Output) -> Result<(), CommandError> {
    let address = |port: u16| format!("127.0.0.1:{port}");
    let bureaus = plan.members().iter().zip(&made.bureaus).map(|(member, files)| {
        let Ports { desk, link, admin, metrics } = member.ports;
        BureauView {
            bureau: member.code.to_string(),
            hub: member.hub,
            node: plan.node(member),
            desk: plan.desk().to_string(),
            node_config: files.node_config.clone(),
            desk_profile: files.desk_profile.clone(),
            desk_address: address(desk),
            link_address: address(link),
            admin_address: address(admin),
            metrics_address: metrics.map(address),
        }
    });
    let network = plan.network().to_string();
    let view = View { directory: made.directory.clone(), network, bureaus: bureaus.collect() };
    if output.is_json() { output.document(&view) } else { show_table(&view, output) }
}

fn show_table(view: &View, output: &mut Output) -> Result<(), CommandError> {
    let directory = view.directory.display().to_string();
    let directory = escape::line(&directory);
    output.line(&format!("network {} in {directory}", view.network))?;
    output.line("")?;
    let mut table =
        Table::new(&["BUREAU", "NODE", "DESK FACE", "LINK FACE", "ADMIN FACE", "METRICS"]);
    for bureau in &view.bureaus {
        let hub = if bureau.hub { " (hub)" } else { "" };
        table.row([
            &format!("{}{hub}", bureau.bureau),
            &bureau.node,
            &bureau.desk_address,
            &bureau.link_address,
            &bureau.admin_address,
            bureau.metrics_address.as_deref().unwrap_or("-"),
        ]);
    }
    output.table(table)?;
    output.line("")?;
    output.line("Run each node in a terminal of its own:")?;
    for bureau in &view.bureaus {
        let config = bureau.node_config.display().to_string();
        output.line(&format!("  bureau serve --config {}", quoted(&config)))?;
    }
    let [first, second, ..] = view.bureaus.as_slice() else { return Ok(()) };
    let profile = |bureau: &BureauView| quoted(&bureau.desk_profile.display().to_string());
    output.line("")?;
    output.line("Then send, and read what arrives:")?;
    output.line(&format!(
        "  echo 'Good morning.' | bureau --desk {} send --to {} --subject Greetings -",
        profile(first),
        second.bureau
    ))?;
    output.line(&format!("  bureau --desk {} inbox watch --ack --count 1", profile(second)))?;
    output.line("")?;
    output.line(&format!(
        "{} holds the keys of the authority and of the roster:",
        quoted(&format!("{}/root", view.directory.display()))
    ))?;
    output.line("no node needs it; keep it offline.")
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-".contains(character);
    if path.chars().all(plain) {
        return path.to_owned();
    }
    format!("'{}'", escape::line(path).replace('\'', "'\\''"))
}

#[cfg(test)]
#[path = "command/tests.rs"]
mod tests;
