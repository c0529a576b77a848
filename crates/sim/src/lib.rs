//! Whole networks in one thread, by a seed: the real engine and the real store of every node, over
//! disks that forget what was not synced and ways that do what ways do; a run is repeated by its seed.
//!
//! Our own scheduler is the runtime's: one thread, its time stands until nobody has anything to do,
//! and then jumps to whoever waits. turmoil and madsim would each put their own sockets or runtime
//! under the engine; it needs neither, because a link is two channels of frames to it. What would
//! make two runs differ is given from outside: chance and salts, the clock, long work, and the
//! store's threads.
//!
//! - `plan`: what a seed means; `chance`: its numbers;
//! - `net`: the ways; `node`: a machine and its engine; `desk`: who sends and reads;
//! - `storm`: what goes wrong; `pressure`: a link with too much to carry;
//! - `book`: what was asked, answered and seen; `check`: what must hold.
//!
//! A failure is a seed: `bureau-bench simulate --seed N --trace` tells everything of its run.
#![forbid(unsafe_code)]

mod book;
mod chance;
mod check;
mod desk;
mod net;
mod node;
mod plan;
mod pressure;
mod storm;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bureau_core::MessageId;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    book::Book,
    net::Net,
    node::Node,
    plan::{Kind, Plan},
};

/// A seed whose simulated time passes this long does not come to an end.
const RUN_MAX: Duration = Duration::from_secs(24 * 3600);

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What should not have happened: the name of the check, and what it saw. Empty: it passed.
    pub violations: Vec<String>,
    /// A hash of everything that happened, in order.
    pub hash: u64,
    /// Frames that passed.
    pub frames: u64,
    /// What the run was.
    pub summary: String,
}

/// Everything in a run.
struct World {
    plan: Arc<Plan>,
    book: Arc<Book>,
    net: Arc<Net>,
    nodes: Vec<Arc<Node>>,
    /// Messages whose senders know what became of them: they need no looking at any more.
    decided: Mutex<BTreeSet<MessageId>>,
}

impl World {
    async fn start(&self, node: &Arc<Node>) {
        if let Err(error) = node.start().await {
            self.book.violation("start", &format!("{} does not start: {error}", node.code));
        }
    }

    fn decided(&self) -> MutexGuard<'_, BTreeSet<MessageId>> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_way(&self, what: &str, low: usize, high: usize) {
        self.book.trouble(&[low, high]);
        self.book.note(&format!("the way between {low} and {high} {what}"));
    }
}

/// Runs a seed, on this thread. With `trace` everything that happens is told to the log.
#[must_use]
pub fn simulate(seed: u64, trace: bool) -> Report {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build();
        runtime.map(|runtime| runtime.block_on(run(seed, trace)))
    }));
    let failed = |what: String| Report {
        seed,
        violations: vec![what],
        hash: 0,
        frames: 0,
        summary: String::new(),
    };
    match ran {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => failed(format!("runtime: {error}")),
        Err(_) => failed("panic: the run itself panicked".to_owned()),
    }
}

async fn run(seed: u64, trace: bool) -> Report {
    let plan = Arc::new(Plan::of(seed));
    let book = Arc::new(Book::new(trace));
    let codes: Vec<_> = plan.bureaus.iter().map(|bureau| bureau.code).collect();
    let net = Arc::new(Net::new(seed, Arc::clone(&book), codes.clone()));
    for pair in &plan.pairs {
        net.set_way(pair.low, pair.high, pair.way);
    }
    let (failures, failed) = mpsc::unbounded_channel();
    let node = |(index, code)| Arc::new(Node::new(&plan, &net, failures.clone(), index, code));
    let nodes = codes.into_iter().enumerate().map(node).collect();
    let world = Arc::new(World { plan, book, net, nodes, decided: Mutex::default() });
    if timeout(RUN_MAX, Box::pin(live(&world, failed))).await.is_err() {
        world.book.violation("rest", "the run does not come to an end");
    }
    // Nodes go before their runtime does.
    for node in &world.nodes {
        node.crash(0, true);
    }
    Report {
        seed,
        violations: world.book.violations(),
        hash: world.book.hash(),
        frames: world.book.frames(),
        summary: world.book.summary(&world.plan),
    }
}

/// Starts nodes again whose store failed.
async fn restart(world: Arc<World>, mut failed: mpsc::UnboundedReceiver<usize>) {
    while let Some(index) = failed.recv().await {
        let Some(node) = world.nodes.get(index) else { continue };
        node.crash(index as u64, false);
        sleep(Duration::from_secs(2)).await;
        world.start(node).await;
    }
}

async fn live(world: &Arc<World>, failed: mpsc::UnboundedReceiver<usize>) {
    for node in &world.nodes {
        world.start(node).await;
    }
    let mut always = JoinSet::new();
    always.spawn(check::watch(Arc::clone(world)));
    always.spawn(restart(Arc::clone(world), failed));
    let mut sending = JoinSet::new();
    for node in &world.nodes {
        always.spawn(desk::read_inbox(Arc::clone(world), Arc::clone(node)));
        sending.spawn(desk::send_all(Arc::clone(world), Arc::clone(node)));
    }
    match world.plan.kind {
        Kind::Storm => storm::run(Arc::clone(world)).await,
        Kind::Calm => {}
        Kind::Pressure => {
            sleep(Duration::from_secs(5)).await;
            pressure::run(Arc::clone(world)).await;
        }
    }
    while sending.join_next().await.is_some() {}
    // By then everything that could not wait has expired.
    sleep(Duration::from_secs(150)).await;
    check::rest(world).await;
    // A desk may take something over that just arrived, and a dead link is found in this time.
    sleep(Duration::from_secs(60)).await;
    check::rest(world).await;
    check::end(world).await;
}
