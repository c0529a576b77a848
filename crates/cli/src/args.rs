//! What may be typed. Every flag has an environment variable, so that a service or a container
//! needs no command line; a test holds that.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum as _};

use crate::{
    commands::{bundle, check, inbox, peers, queue, send, serve, track, why},
    demo,
    net::command as net,
    output::Format,
};

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "bureau",
    version,
    about = "The messaging backbone for police bureaus: signed, durable, working on bad links",
    after_help = AFTER_HELP,
)]
pub struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    /// How answers are to be written.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.global.output
    }
}

/// `bundle export -o FILE` is what people type, and everywhere else `-o` says how answers are written.
/// So what cannot be meant as a format goes to `--file`, for this one command.
pub(crate) fn with_bundle_file(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    let exports = words.windows(2).any(|pair| pair[0] == "bundle" && pair[1] == "export");
    if !exports {
        return words;
    }
    for place in 0..words.len().saturating_sub(1) {
        let is_format = |word: &OsString| {
            Format::value_variants().iter().any(|format| {
                format.to_possible_value().is_some_and(|value| word == value.get_name())
            })
        };
        if words[place] == "-o" && !is_format(&words[place + 1]) {
            words[place] = "--file".into();
        }
    }
    words
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The desk profile: which desk this is, and where its node answers
    #[arg(long, global = true, env = "BUREAU_DESK", value_name = "FILE")]
    pub(crate) desk: Option<PathBuf>,
    /// How answers are written
    #[arg(short, long, global = true, env = "BUREAU_OUTPUT", value_enum, default_value_t)]
    pub(crate) output: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::DemoArgs),
    /// Make a network
    #[command(subcommand)]
    Net(net::NetCommand),
    Serve(serve::ServeArgs),
    Check(check::CheckArgs),
    Send(Box<send::SendArgs>),
    /// Read what arrived
    #[command(subcommand)]
    Inbox(inbox::InboxCommand),
    Track(track::TrackArgs),
    Why(why::WhyArgs),
    /// See what waits at the node for a link
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    Peers(peers::PeersArgs),
    /// See what is missing of what other bureaus sent
    Gaps,
    /// See what the node is and how it is
    Status,
}

const AFTER_HELP: &str = "\
Examples:
  bureau demo
  bureau net init example --bureau FR --bureau KE
  bureau serve --config example/FR/bureau.toml
  export BUREAU_DESK=example/FR/desk.toml
  bureau send --to KE --subject 'Stolen passports' report.txt

Exit codes:
  0   done
  1   failed
  2   wrong usage, or a desk profile that cannot be used
  64+ the node refused, or was not reached: 64 plus the gRPC code
      (67 invalid argument, 69 not found, 71 not permitted, 72 limit reached, 78 not available)
  78  serve, check: the configuration, or a file it names, is at fault";

#[cfg(test)]
#[path = "args/tests.rs"]
mod tests;
