//! `bureau demo`: a network tried on this machine. Three bureaus and a hub as four processes. First
//! a film creeps over a slow line, is overtaken, and goes over the hub when the line is cut; then
//! traffic flows, one bureau is cut off and its node killed, and it must all come right.

mod corpus;
mod detour;
mod inboxes;
mod ledger;
mod network;
mod proxy;
mod story;
mod tally;
mod traffic;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use bureau_core::{BureauCode, roster::RosterError};
use clap::Args;
use serde::Serialize;
use tokio::time::{Instant, sleep_until, timeout_at};

pub(crate) use self::corpus::CorpusError;
use self::{
    inboxes::Inboxes,
    ledger::Ledger,
    network::{BUREAUS, HUB, NEIGHBOR, Network, VICTIM},
    story::Story,
    tally::Tally,
    traffic::Traffic,
};
use crate::{error::CommandError, output::Output};

/// How long messages are sent, whatever their number.
const TRAFFIC: Duration = Duration::from_secs(12);
/// When, after the first message, the victim's last cable is cut;
const CUT: Duration = Duration::from_secs(3);
/// when the victim is killed;
const KILL: Duration = Duration::from_secs(5);
/// when the cables are mended;
const MEND: Duration = Duration::from_secs(8);
/// and when the victim is started again.
const RESTART: Duration = Duration::from_secs(9);
/// What was accepted so long ago is at the hub.
const AT_HUB: Duration = Duration::from_millis(1_500);
/// When the demo ends with what has arrived by then.
const GIVE_UP: Duration = Duration::from_secs(45);
/// More than this cannot be sent in that time by every machine.
const MESSAGES_MAX: u64 = 5_000;

/// Try a whole network on this machine: four nodes, a cut cable, a killed node.
///
/// Three bureaus and a hub run as four processes. A film creeps from FR to KE over a line of
/// 64 kbit/s, and a FLASH overtakes it; that line is cut, and the film goes over the hub. Then
/// messages flow; KE's last cable is cut and its node killed with -9, while messages keep being
/// accepted; then all come back. Ends with 0 only if everything was as it is told, and every
/// message arrived once, unchanged, with verified receipts.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  bureau demo\n  bureau demo --messages 2000 --keep demo-files\n  bureau -o json demo"
)]
pub(crate) struct DemoArgs {
    /// How many messages are sent
    #[arg(
        long, env = "BUREAU_MESSAGES", value_name = "N", default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(1..=MESSAGES_MAX)
    )]
    messages: u64,
    /// Keep the network's files and logs here; must be empty or not exist
    #[arg(long, env = "BUREAU_KEEP", value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Why the demo could not be played to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error("no directory for the demo: {0}")]
    Directory(io::Error),
    #[error("no free ports on 127.0.0.1: {0}")]
    Ports(io::Error),
    #[error("there is no node {0}")]
    NoNode(String),
    #[error("the roster just made does not hold: {0}")]
    Roster(RosterError),
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    #[error("cannot start the node of {bureau}: {source}")]
    Start { bureau: BureauCode, source: io::Error },
    #[error("cannot stop the node of {bureau}: {source}")]
    Stop { bureau: BureauCode, source: io::Error },
    #[error("the node of {bureau} ended ({status}); its log is {}", log.display())]
    Died { bureau: BureauCode, status: ExitStatus, log: PathBuf },
    #[error("the node of {bureau} does not answer; its log is {}: {error}", log.display())]
    NotReady { bureau: BureauCode, log: PathBuf, error: Box<CommandError> },
    #[error("the links of {node} did not come up in time; up are: {}", up.join(", "))]
    NotLinked { node: String, up: Vec<String> },
    #[error("no film could be made: {0}")]
    Film(String),
    #[error("it is not as it should be: {0}")]
    NotSo(&'static str),
    #[error("the desk of {bureau}: {error}")]
    Desk { bureau: String, error: Box<CommandError> },
    #[error("a node failed: {0}")]
    Node(Box<CommandError>),
    #[error("interrupted")]
    Interrupted,
}

/// The summary for programs.
#[derive(Debug, Serialize)]
struct Summary {
    submitted: usize,
    delivered: usize,
    acknowledged: usize,
    lost: usize,
    duplicated: usize,
    outage_seconds: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// From the cut until the link is up again.
#[derive(Debug, Clone, Copy)]
struct Outage {
    begin: Instant,
    end: Instant,
}

pub(crate) async fn run(args: DemoArgs, output: &mut Output) -> Result<u8, CommandError> {
    let begin = Instant::now();
    let (temporary, directory) = match args.keep {
        Some(directory) => (None, directory),
        None => {
            let temporary = tempfile::Builder::new().prefix("bureau-demo-").tempdir();
            let temporary = temporary.map_err(DemoError::Directory)?;
            let directory = temporary.path().join("network");
            (Some(temporary), directory)
        }
    };
    let mut story = Story::new(output, begin);
    let count = usize::try_from(args.messages).unwrap_or(usize::MAX);
    let played = tokio::select! {
        played = play(&directory, count, begin, &mut story) => played,
        _signal = tokio::signal::ctrl_c() => Err(DemoError::Interrupted.into()),
    };
    let good = matches!(&played, Ok(tally) if tally.is_good());
    let interrupted = matches!(&played, Err(CommandError::Demo(error)) if matches!(**error, DemoError::Interrupted));
    match temporary {
        // What went wrong can be looked into.
        Some(temporary) if !good && !interrupted => drop(temporary.keep()),
        _ => {}
    }
    if !good && !interrupted {
        story.remark(&format!("the nodes' files and logs are in {}", directory.display()));
    }
    let tally = played.map_err(DemoError::of_network)?;
    Ok(u8::from(!tally.is_good()))
}

/// The whole of it: make, start, disturb, mend, wait, count.
async fn play(
    directory: &Path,
    count: usize,
    begin: Instant,
    story: &mut Story<'_>,
) -> Result<Tally, CommandError> {
    let deadline = begin + GIVE_UP;
    let templates = corpus::templates().map_err(DemoError::from)?;
    let mut network = Network::make(directory).await?;
    story.tell(&format!("a network was made in {}", network.directory().display()))?;
    network.start().await?;
    network.linked(HUB, &BUREAUS, deadline).await?;
    network.linked(NEIGHBOR, &[VICTIM], deadline).await?;
    story.tell("FR, KE, BR and the hub IPSG run as four processes; every link is up")?;

    let ledger = Arc::new(Ledger::default());
    let mut desks = Vec::new();
    for bureau in BUREAUS {
        desks.push((bureau, network.node(bureau)?.desk_face().await?));
    }
    let inboxes = Inboxes::watch(&desks, &ledger);
    detour::play(&mut network, &desks, &ledger, story).await?;
    let start = Instant::now();
    let traffic = Traffic { templates, count, start, length: TRAFFIC, deadline };
    let sending = traffic.send(&desks, &ledger);
    let disturbing = disturb(&mut network, &ledger, start, deadline, story);
    let (sent, outage) = tokio::join!(sending, disturbing);
    let outage = outage?;
    sent?;
    story.tell(&format!("the last of {} messages is accepted", ledger.accepted()))?;

    // Running out of time is no failure of the demo: what is missing then is counted as lost.
    if timeout_at(deadline, ledger.all_delivered()).await.is_ok() {
        story.tell("every message is delivered")?;
    }
    let tally = tally::take(&desks, &ledger, network.verifier(), outage, deadline).await?;
    inboxes.stop().await?;
    story.tell("every receipt is checked against the roster")?;
    network.stop().await?;
    story.end(&tally, outage)?;
    Ok(tally)
}

/// What happens to the victim while messages flow.
async fn disturb(
    network: &mut Network,
    ledger: &Ledger,
    start: Instant,
    deadline: Instant,
    story: &mut Story<'_>,
) -> Result<Outage, CommandError> {
    story.tell("messages begin to flow, between all of them")?;
    sleep_until(start + CUT).await;
    let begin = Instant::now();
    network.cut_victim_off();
    let before = ledger.accepted();
    story.tell(&format!("the line from {HUB} to {VICTIM} is CUT, too, after {before} messages"))?;

    sleep_until(start + KILL).await;
    network.node(VICTIM)?.kill().await?;
    story.tell(&format!("the node of {VICTIM} is KILLED (-9)"))?;

    sleep_until(start + MEND).await;
    let waiting = network.waiting().await?;
    let during = ledger.accepted() - before;
    story.tell(&format!(
        "meanwhile {during} messages were accepted, of which {waiting} wait at {HUB} for {VICTIM}"
    ))?;
    // What was accepted a moment ago may not have come to the hub yet.
    let by = Instant::now().checked_sub(AT_HUB).unwrap_or(begin);
    if let Some(id) = ledger.waiting_for(VICTIM, by) {
        let explanation = network.why(HUB, &id).await?;
        story.why(HUB, &id, &explanation)?;
    }
    network.mend();
    story.tell("both lines are mended, the straight one at its full rate")?;

    sleep_until(start + RESTART).await;
    network.node(VICTIM)?.start()?;
    network.node(VICTIM)?.ready().await?;
    story.tell(&format!("the node of {VICTIM} is started again, on the same disk"))?;
    network.linked(HUB, &[VICTIM], deadline).await?;
    let end = Instant::now();
    let outage = Outage { begin, end };
    story.tell(&format!("{VICTIM} is linked again, after {:.1} s", outage.seconds()))?;
    Ok(outage)
}

impl DemoError {
    /// What a node refuses here is no refusal of what was typed: the demo failed.
    fn of_network(error: CommandError) -> CommandError {
        match error {
            error @ (CommandError::Refused(_) | CommandError::Dial { .. }) => {
                Self::Node(Box::new(error)).into()
            }
            error => error,
        }
    }
}

impl Outage {
    fn seconds(self) -> f64 {
        self.end.duration_since(self.begin).as_secs_f64()
    }
}

impl Summary {
    fn new(tally: &Tally, outage: Outage) -> Self {
        let rounded = |value: f64, places: f64| (value * places).round() / places;
        Self {
            submitted: tally.submitted,
            delivered: tally.delivered,
            acknowledged: tally.acknowledged,
            lost: tally.lost(),
            duplicated: tally.duplicated,
            outage_seconds: rounded(outage.seconds(), 10.0),
            p50_ms: rounded(tally.delivery_ms.quantile(0.50), 100.0),
            p99_ms: rounded(tally.delivery_ms.quantile(0.99), 100.0),
        }
    }
}
