//! `bureau bundle`: what waits for a bureau, carried by hand.
//!
//! - `export`: the node makes the file, this writes it; `import`: the other way;
//! - `view`: what people and programs read of bundles.

mod export;
mod import;
mod view;

use std::path::{Path, PathBuf};

use bureau_core::BureauCode;
use bureau_proto::admin::v1::ListBundlesRequest;
use clap::{Args, Subcommand};

use crate::{client::Desk, error::CommandError, output::Output};

/// Carry by hand what no link takes.
///
/// A bundle is a file with what waits for one bureau, sealed so that only that bureau can open it.
/// Nothing leaves the queue until its receipt is back: on the next stick, or over a link.
#[derive(Debug, Subcommand)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub(crate) enum BundleCommand {
    Export(ExportArgs),
    Import(ImportArgs),
    Inspect(InspectArgs),
    List(ListArgs),
}

const EXAMPLES: &str = "\
There and back:
  FR: bureau bundle export --to KE -o to-ke.bundle
  KE: bureau bundle import to-ke.bundle
  KE: bureau bundle export --to FR -o to-fr.bundle
  FR: bureau bundle import to-fr.bundle";

/// Make a bundle of what waits for a bureau.
///
/// Messages, attachments and receipts, the most urgent first; for a hub also what it is the way to.
/// What is in an earlier bundle that was not confirmed yet is left out. In the clear stand only:
/// from whom, for whom, when; and the size can be seen.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Example:\n  bureau bundle export --to KE -o to-ke.bundle --max-bytes 4000000000"
)]
pub(crate) struct ExportArgs {
    /// Code of the bureau it is for
    #[arg(long, env = "BUREAU_TO", value_name = "CODE")]
    pub(crate) to: BureauCode,
    /// Where the bundle goes; must not exist. -o FILE means this here, too
    #[arg(long, env = "BUREAU_BUNDLE_FILE", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Also what is in an earlier bundle: that one was lost
    #[arg(long, env = "BUREAU_AGAIN")]
    pub(crate) again: bool,
    /// Room on the stick: the least urgent is left out [default: no limit]
    #[arg(long, env = "BUREAU_MAX_BYTES", value_name = "N", value_parser = clap::value_parser!(u64).range(4096..))]
    pub(crate) max_bytes: Option<u64>,
}

/// Take a bundle in.
///
/// Everything in it is checked as if it came over a link. Taken in again it changes nothing; where
/// it broke off, import it again.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Example:\n  bureau bundle import /media/stick/to-ke.bundle"
)]
pub(crate) struct ImportArgs {
    /// The bundle
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// See what a bundle is, and take nothing in.
///
/// The header can be read by anybody. The node of the bureau it is for also opens it, checks all of
/// it, and says what is in it.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Example:\n  bureau bundle inspect /media/stick/to-ke.bundle"
)]
pub(crate) struct InspectArgs {
    /// The bundle
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// See which bundles were made and taken in here, and which were confirmed.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = "Example:\n  bureau bundle list --bureau KE")]
pub(crate) struct ListArgs {
    /// Only those from or for this bureau
    #[arg(long, env = "BUREAU_OF", value_name = "CODE")]
    pub(crate) bureau: Option<BureauCode>,
}

pub(crate) async fn run(
    command: BundleCommand,
    profile: Option<&Path>,
    output: &mut Output,
) -> Result<(), CommandError> {
    match command {
        BundleCommand::Export(args) => export::run(args, profile, output).await,
        BundleCommand::Import(args) => import::run(args, profile, output).await,
        BundleCommand::Inspect(args) => import::inspect(args, profile, output).await,
        BundleCommand::List(args) => list(args, profile, output).await,
    }
}

async fn list(
    args: ListArgs,
    profile: Option<&Path>,
    output: &mut Output,
) -> Result<(), CommandError> {
    let face = Desk::open(profile).await?.admin_face(profile).await?;
    let mut client = face.client.clone();
    let bureau = args.bureau.map(|code| code.to_string()).unwrap_or_default();
    let listed = face.call(client.list_bundles(ListBundlesRequest { bureau })).await?;
    view::list(listed.bundles, output)
}

/// Says how far it is, every so many bytes.
struct Progress {
    done: u64,
    told: u64,
}

impl Progress {
    /// Bytes between two words.
    const STEP: u64 = 64 * 1024 * 1024;

    const fn new() -> Self {
        Self { done: 0, told: 0 }
    }

    fn add(&mut self, bytes: usize, output: &mut Output) {
        self.done += bytes as u64;
        if self.done - self.told >= Self::STEP {
            self.told = self.done;
            output.note(&format!("{} MiB", self.done / (1024 * 1024)));
        }
    }
}
