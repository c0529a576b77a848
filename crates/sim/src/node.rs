//! A node: its machine, the engine while it runs, and what can be done to both.

use std::{
    collections::VecDeque,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bureau_core::{BureauCode, Signer, Timestamp, Verifier};
use bureau_node::{
    clock::Clock,
    engine::{Engine, Parts, machine::Machine, session},
    telemetry::metrics::Metrics,
    trust::Trust,
};
use bureau_store::sim::SimHome;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    book::Book,
    net::{Call, Caller, Net},
    plan::{BEGIN_MS, Plan},
};

/// A node.
pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) code: BureauCode,
    net: Arc<Net>,
    book: Arc<Book>,
    plan: Arc<Plan>,
    failures: mpsc::UnboundedSender<usize>,
    began: Instant,
    gate: Arc<Gate>,
    state: Mutex<State>,
}

struct State {
    home: SimHome,
    running: Option<Running>,
    starts: u64,
    skew_ms: i64,
}

struct Running {
    engine: Arc<Engine>,
    /// Dropped: all of them end.
    _tasks: JoinSet<()>,
    died: CancellationToken,
}

impl Node {
    /// A node that does not run yet, and tells where its store failed.
    pub(crate) fn new(
        plan: &Arc<Plan>,
        net: &Arc<Net>,
        failures: mpsc::UnboundedSender<usize>,
        index: usize,
        code: BureauCode,
    ) -> Self {
        let seed = plan.seed.wrapping_mul(1000).wrapping_add(index as u64);
        let state = State { home: SimHome::new(seed), running: None, starts: 0, skew_ms: 0 };
        Self {
            index,
            code,
            net: Arc::clone(net),
            book: Arc::clone(&net.book),
            plan: Arc::clone(plan),
            failures,
            began: Instant::now(),
            gate: Arc::default(),
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine, while it runs, and what says that it died.
    pub(crate) fn engine(&self) -> Option<(Arc<Engine>, CancellationToken)> {
        let state = self.lock();
        let running = state.running.as_ref()?;
        Some((Arc::clone(&running.engine), running.died.clone()))
    }

    /// What time it is where clocks are right.
    pub(crate) fn true_time(&self) -> Timestamp {
        let passed = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_ms(BEGIN_MS).plus_ms(passed)
    }

    /// Starts it, from what its machine holds.
    pub(crate) async fn start(self: &Arc<Self>) -> Result<(), String> {
        let (store, seed, skew_ms) = {
            let mut state = self.lock();
            if state.running.is_some() {
                return Ok(());
            }
            state.starts += 1;
            let opened = state.home.open().or_else(|error| {
                // A disk that broke while it opened: the process ended, and is started again.
                self.book.note(&format!("{} does not open: {error}", self.code));
                let luck = state.starts;
                state.home.crash(luck);
                state.home.open()
            });
            let store = opened.map_err(|error| format!("open: {error}"))?;
            let seed = self.plan.seed ^ ((self.index as u64 + 1) << 32) ^ (state.starts << 40);
            (store, seed, state.skew_ms)
        };
        let machine = Arc::new(Machine::simulated(seed));
        let salts = Arc::clone(&machine);
        let signer = Signer::new(Plan::network()?, self.code, Plan::key(self.index))
            .with_chance(move |bytes| salts.fill(bytes).is_ok());
        let verifier = Verifier::new(self.plan.roster()?, Plan::limits());
        let clock = Clock::simulated(store.latest_time(), self.true_time());
        clock.set_skew_ms(skew_ms);
        let parts = Parts {
            config: Arc::new(self.plan.config(self.index)?),
            clock,
            trust: Arc::new(Trust::new(signer, verifier)),
            store,
            metrics: Metrics::new(),
            machine,
        };
        let (engine, worker) = parts.assemble().await.map_err(|error| format!("start: {error}"))?;
        let (stop, died) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let caller = Caller { net: Arc::clone(&self.net), from: self.index };
        tasks.spawn(self.guarded("scribe", worker.run(stop.clone())));
        for task in engine.tasks(&caller, &stop) {
            tasks.spawn(self.guarded("engine", task));
        }
        let calls = self.net.open_door(self.index);
        tasks.spawn(self.guarded("sessions", answer(Arc::clone(&engine), calls)));
        self.book.note(&format!("{} starts", self.code));
        let failed = watch(Arc::clone(&engine), died.clone(), self.failures.clone(), self.index);
        self.lock().running = Some(Running { engine, _tasks: tasks, died });
        tokio::spawn(failed);
        Ok(())
    }

    /// A task of the node: it rests while the node is paused, and a panic of it is told.
    fn guarded<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: &'static str,
        task: F,
    ) -> impl Future<Output = ()> + Send + use<F> {
        let (book, code) = (Arc::clone(&self.book), self.code);
        let caught = AssertUnwindSafe(task).catch_unwind().map(move |ended| {
            if ended.is_err() {
                book.violation("panic", &format!("a task of {code} panicked: {name}"));
            }
        });
        let gated = Gated { gate: Arc::clone(&self.gate), task: Box::pin(caught) };
        gated.instrument(tracing::info_span!("node", code = %self.code))
    }

    /// The power goes.
    pub(crate) fn crash(&self, luck: u64, silently: bool) {
        self.book.trouble(&[self.index]);
        let mut state = self.lock();
        let Some(running) = state.running.take() else { return };
        running.died.cancel();
        self.net.close_door(self.index, silently);
        state.home.crash(luck);
        drop(running);
        self.book.note(&format!("{} is gone", self.code));
    }

    /// Whether it does nothing from now on.
    pub(crate) fn pause(&self, paused: bool) {
        self.book.trouble(&[self.index]);
        self.book.note(&format!("{} pauses: {paused}", self.code));
        self.gate.set(paused);
    }

    /// How far its clock is off from now on.
    pub(crate) fn skew(&self, by_ms: i64) {
        self.book.trouble(&[self.index]);
        self.book.note(&format!("{} is off by {by_ms} ms", self.code));
        let mut state = self.lock();
        state.skew_ms = by_ms;
        if let Some(running) = &state.running {
            running.engine.clock.set_skew_ms(by_ms);
        }
    }

    /// What its disk is like from now on.
    pub(crate) fn with_disk(&self, what: &str, change: impl FnOnce(&SimHome)) {
        self.book.trouble(&[self.index]);
        self.book.note(&format!("the disk of {}: {what}", self.code));
        change(&self.lock().home);
    }
}

/// Runs the sessions that others began.
async fn answer(engine: Arc<Engine>, mut calls: mpsc::UnboundedReceiver<Call>) {
    let mut sessions = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            call = calls.recv() => {
                let Some(Call { peer, wire }) = call else { return };
                let engine = Arc::clone(&engine);
                sessions.push(Box::pin(async move {
                    let bureau = peer.bureau;
                    session::run(&engine, peer, bureau, wire).await
                }));
            }
            Some(_) = sessions.next() => {}
        }
    }
}

/// Tells of a store that failed: the process must end.
async fn watch(
    engine: Arc<Engine>,
    died: CancellationToken,
    failures: mpsc::UnboundedSender<usize>,
    index: usize,
) {
    tokio::select! {
        biased;
        () = died.cancelled() => {}
        () = engine.store.failed() => drop(failures.send(index)),
    }
}

/// What holds the tasks of a node while it is paused.
#[derive(Debug, Default)]
struct Gate {
    closed: AtomicBool,
    waiting: Mutex<VecDeque<Waker>>,
}

impl Gate {
    fn set(&self, closed: bool) {
        self.closed.store(closed, Ordering::Relaxed);
        let waiting = std::mem::take(&mut *self.waiting());
        waiting.into_iter().for_each(Waker::wake);
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Gated<F> {
    gate: Arc<Gate>,
    task: Pin<Box<F>>,
}

impl<F: Future<Output = ()>> Future for Gated<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.gate.closed.load(Ordering::Relaxed) {
            self.gate.waiting().push_back(context.waker().clone());
            return Poll::Pending;
        }
        self.task.as_mut().poll(context)
    }
}
