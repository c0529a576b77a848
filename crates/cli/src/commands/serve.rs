//! `bureau serve`: the daemon.

use std::path::PathBuf;

use bureau_node::{Config, ServeError};
use clap::Args;
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::task::spawn_blocking;

use crate::error::CommandError;

/// Run a node.
///
/// Ends at SIGTERM and SIGINT; SIGHUP reloads certificates, roster and desks. The log goes to
/// stdout. Exits with 78 where the configuration, a key, a certificate or the roster is at fault,
/// and with 1 where the node failed.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Example:\n  bureau serve --config example/FR/bureau.toml"
)]
pub(crate) struct ServeArgs {
    /// The node's configuration
    #[arg(long, env = "BUREAU_CONFIG", value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// End at once when the process that started this one is gone
    #[arg(long, env = "BUREAU_WITH_PARENT", hide = true)]
    pub(crate) with_parent: bool,
}

pub(crate) async fn run(args: ServeArgs) -> Result<(), CommandError> {
    if args.with_parent {
        // What tries a network must not leave its nodes behind when it is killed.
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(std::io::Error::from)?;
    }
    let path = args.config;
    let config = spawn_blocking(move || Config::load(&path))
        .await
        .map_err(|source| CommandError::Task { task: "loading the configuration", source })?
        .map_err(ServeError::from)?;
    bureau_node::serve(config).await?;
    Ok(())
}
