//! Measured side by side in one run, on this machine, with real parts: the disk, the store, whole
//! nodes over mutual TLS; and soak runs that look for what is lost or comes twice.
//!
//! - `store`: appends with one sync, alone and in groups, beside the store's committer;
//! - `accept`: the same, and whole nodes: durable submissions a second, and the way to the next node;
//! - `slow-link`: a file on slow links and what is urgent beside it; `wire`: bytes of everything;
//! - `peers`: a node whose peers are away for the most part;
//! - `soak kill`: nodes killed at random under load; `soak flap`: links that come and go for a day;
//!   `soak outage`: a link that is down for long; `backlog`: a peer that was away.
//! - `simulate`: whole networks in one thread, by seeds;
//!
//! Nodes are started by running this very program again as `bureau`.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench prints, and ends where it cannot go on"
)]

#[path = "../../../tests/harness/mod.rs"]
mod harness;

mod accept;
mod backlog;
mod desks;
mod disk;
mod peers;
mod report;
mod simulate;
mod slow;
mod soak;
mod store;
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// Measures this project on this machine.
#[derive(Debug, Parser)]
#[command(name = "bureau-bench", version)]
struct Arguments {
    /// How to print.
    #[arg(short, long, global = true, default_value = "table")]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs: one document.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The disk alone, and the store's committer over it.
    Store(Load),
    /// The disk, the store, and a whole node, in one run.
    Accept(Load),
    /// Runs that look for faults.
    #[command(subcommand)]
    Soak(Soak),
    /// Messages accepted while a peer is down; a node killed; all must arrive once.
    Backlog {
        /// How many.
        #[arg(long, default_value_t = 10_000)]
        queued: usize,
    },
    /// A file on slow links, and how long urgent messages take beside it.
    SlowLink(slow::Slow),
    /// A node with many peers of which most are away: what it costs, and whether it slows the others.
    Peers(peers::Peers),
    /// What crosses a link, in bytes: messages, receipts, an idle hour.
    Wire {
        /// How long an idle link is measured.
        #[arg(long, default_value_t = 120)]
        idle_seconds: u64,
    },
    /// Whole networks in one thread: crashes, cuts, wrong clocks, full disks, by seeds.
    Simulate(simulate::Seeds),
    /// The program itself.
    #[command(hide = true)]
    Bureau {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// How much is asked for.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Load {
    /// Callers at one time.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Bytes of each message.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// How long each part is measured.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

#[derive(Debug, Subcommand)]
enum Soak {
    /// Kills a random one of three nodes, again and again, while messages flow.
    Kill {
        /// How often.
        #[arg(long, default_value_t = 20)]
        cycles: u64,
        /// Messages a second, about.
        #[arg(long, default_value_t = 200)]
        rate: u64,
        /// Which node, and when.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Lets both links of a hub come and go for a day, in scaled time, while messages flow.
    Flap(soak::Flap),
    /// Queues messages while a link is down, and lets it come back.
    Outage(soak::Outage),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Command::Bureau { arguments } = arguments.command {
        let program = std::iter::once("bureau".to_owned()).chain(arguments);
        return ExitCode::from(bureau_cli::main(program.map(Into::into)));
    }
    if let Command::Simulate(seeds) = arguments.command {
        return if simulate::run(&seeds) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let good = runtime.block_on(run(arguments.command, arguments.output));
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(command: Command, output: Format) -> bool {
    match command {
        Command::Store(load) => {
            let mut report = report::Report::default();
            disk::measure(load, &mut report);
            store::measure(load, &mut report).await;
            report.print(output);
            true
        }
        Command::Accept(load) => {
            let mut report = report::Report::default();
            disk::measure(load, &mut report);
            store::measure(load, &mut report).await;
            accept::measure(load, &mut report).await;
            report.print(output);
            true
        }
        Command::Soak(Soak::Kill { cycles, rate, seed }) => {
            soak::kill(cycles, rate, seed, output).await
        }
        Command::Soak(Soak::Flap(flap)) => soak::flap(flap, output).await,
        Command::Soak(Soak::Outage(outage)) => soak::outage(outage, output).await,
        Command::Backlog { queued } => backlog::run(queued, output).await,
        Command::SlowLink(slow) => slow::run(slow, output).await,
        Command::Wire { idle_seconds } => wire::run(idle_seconds, output).await,
        Command::Peers(asked) => peers::run(asked, output).await,
        Command::Bureau { .. } | Command::Simulate(_) => true,
    }
}

/// This program, as `bureau`.
fn program() -> harness::Program {
    let path = std::env::current_exe().unwrap();
    harness::Program { path, prefix: vec!["bureau".to_owned()] }
}
