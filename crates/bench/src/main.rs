//! Measured side by side: the disk, the store, the node; and soak runs that try the promises with
//! real processes. Nothing that is shipped depends on it.
//!
//! The rooms:
//! - `cluster`, `desk`: nodes as processes of their own, and calls to them as a desk;
//! - `traffic`, `ledger`: messages sent and taken, and the book that finds what is lost or doubled;
//! - `raw`, `store`, `accept`: figures; `soak`, `backlog`: promises;
//! - `figures`, `report`: numbers, and how they are shown.
#![forbid(unsafe_code)]

mod accept;
mod backlog;
mod cluster;
mod desk;
mod fault;
mod figures;
mod ledger;
mod raw;
mod report;
mod soak;
mod store;
mod traffic;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{fault::BenchError, report::Format};

/// Measures a node and its parts, and tries the promises with real processes.
#[derive(Debug, Parser)]
#[command(name = "bureau-bench")]
struct Arguments {
    /// How the figures are shown
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Format,
    /// Where the files are made; the disk that is measured. The system's temporary directory
    /// where none is named
    #[arg(long, global = true)]
    directory: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The bare disk, and the store on it
    Store(store::Options),
    /// The bare disk, the store, and a whole node spoken to over mutual TLS
    Accept(accept::Options),
    /// Promises tried for a long time
    #[command(subcommand)]
    Soak(SoakCommand),
    /// Many messages accepted while the peer is down and the node is killed
    Backlog(backlog::Options),
    /// The program itself: nodes are started by this
    #[command(hide = true, disable_help_flag = true)]
    Bureau {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}

#[derive(Debug, Subcommand)]
enum SoakCommand {
    /// Kills nodes at random while messages flow: nothing accepted is lost, nothing comes twice
    Kill(soak::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Command::Bureau { words } = arguments.command {
        let name = OsString::from("bureau");
        return ExitCode::from(bureau_cli::main(std::iter::once(name).chain(words)));
    }
    match measure(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // Where nobody reads there is nobody to be told.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(1)
        }
    }
}

/// Whether what was promised held.
fn measure(arguments: Arguments) -> Result<bool, BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let format = arguments.output;
    let directory = arguments.directory.unwrap_or_else(std::env::temp_dir);
    runtime.block_on(async {
        match arguments.command {
            Command::Store(options) => report::show(&store::run(&options, &directory).await?, format),
            Command::Accept(options) => {
                report::show(&Box::pin(accept::run(&options, &directory)).await?, format)
            }
            Command::Soak(SoakCommand::Kill(options)) => {
                report::show(&Box::pin(soak::run(&options, &directory)).await?, format)
            }
            Command::Backlog(options) => {
                report::show(&Box::pin(backlog::run(&options, &directory)).await?, format)
            }
            // Handled before there was a runtime: it has its own.
            Command::Bureau { .. } => Ok(true),
        }
    })
}
