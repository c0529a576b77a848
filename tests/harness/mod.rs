//! A network of real processes on this machine: made with `bureau net init`, each bureau a
//! `bureau serve` of its own, spoken to over mutual TLS. Reads like prose in the tests; the bench
//! uses it too.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, and not every test uses every part"
)]

pub mod desk;
pub mod files;
pub mod peer;
pub mod proxy;
// For attacks only; the bench has no use for them.
#[cfg(test)]
pub mod raw;
#[cfg(test)]
pub mod tls;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

pub use desk::Desk;
pub use proxy::Chance;
use proxy::{Link, Plan};

/// How the program is run: its path, and what stands before its own arguments.
#[derive(Debug, Clone)]
pub struct Program {
    pub path: PathBuf,
    pub prefix: Vec<String>,
}

impl Program {
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), prefix: Vec::new() }
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.prefix).stdin(Stdio::null()).env_remove("BUREAU_DESK");
        command
    }
}

/// A network in a folder of its own, gone with its value.
pub struct Network {
    pub program: Program,
    pub dir: tempfile::TempDir,
    nodes: BTreeMap<String, Child>,
    starts: u32,
}

/// Everything waits for a condition, at most so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

impl Network {
    /// Bureaus that all know each other, and a hub.
    pub fn mesh(program: Program, bureaus: &[&str], hub: &str) -> Self {
        Self::of(program, bureaus, &[hub], "mesh")
    }

    /// Bureaus that know only the hub.
    pub fn star(program: Program, bureaus: &[&str], hub: &str) -> Self {
        Self::of(program, bureaus, &[hub], "hub")
    }

    /// Bureaus with a hub each, in turn, and the hubs linked with each other.
    pub fn regions(program: Program, bureaus: &[&str], hubs: &[&str]) -> Self {
        Self::of(program, bureaus, hubs, "region")
    }

    /// A hub and many bureaus, of which only the first few ever run.
    pub fn crowd(program: Program, bureaus: &[&str], hub: &str, run: usize) -> Self {
        let ports = |bureaus: usize| 10 * u16::try_from(bureaus).unwrap();
        let (first, all) = (ports(run), ports(bureaus.len()));
        let base = free_ports_of(all + 10, |place| place < first || place >= all);
        Self::made(program, bureaus, &[hub], "hub", base)
    }

    /// Bureaus and hubs, linked as `net init` knows it.
    pub fn of(program: Program, bureaus: &[&str], hubs: &[&str], links: &str) -> Self {
        let base = free_ports(10 * u16::try_from(bureaus.len() + hubs.len()).unwrap());
        Self::made(program, bureaus, hubs, links, base)
    }

    fn made(program: Program, bureaus: &[&str], hubs: &[&str], links: &str, base: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = program.command();
        command.args(["net", "init"]).arg(dir.path().join("net"));
        for bureau in bureaus {
            command.args(["--bureau", bureau]);
        }
        for hub in hubs {
            command.args(["--hub", hub]);
        }
        command.args(["--links", links, "--port-base", &base.to_string()]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "net init: {}", String::from_utf8_lossy(&output.stderr));
        Self { program, dir, nodes: BTreeMap::new(), starts: 0 }
    }

    /// The folder of a bureau.
    pub fn home(&self, bureau: &str) -> PathBuf {
        self.dir.path().join("net").join(bureau)
    }

    pub fn config(&self, bureau: &str) -> PathBuf {
        self.home(bureau).join("bureau.toml")
    }

    /// Changes a bureau's configuration file.
    pub fn configure(&self, bureau: &str, change: impl FnOnce(String) -> String) {
        let path = self.config(bureau);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, change(text)).unwrap();
    }

    /// Lays a link between two bureaus: the first dials the second through it, and the second does
    /// not dial.
    pub async fn over(&self, from: &str, to: &str, plan: impl FnOnce(Plan) -> Plan) -> Link {
        let config: toml::Table = fs::read_to_string(self.config(to)).unwrap().parse().unwrap();
        let target = config["link"]["listen"].as_str().unwrap().parse().unwrap();
        let link = plan(Link::to(target)).open().await;
        self.peer(from, to, |peer| {
            let address = link.address().to_string();
            peer.insert("addresses".to_owned(), vec![toml::Value::String(address)].into());
        });
        self.peer(to, from, |peer| {
            peer.insert("dial".to_owned(), false.into());
        });
        link
    }

    /// Changes what a bureau's configuration says of a peer.
    pub fn peer(&self, bureau: &str, peer: &str, change: impl FnOnce(&mut toml::Table)) {
        self.configure(bureau, |text| {
            let mut config: toml::Table = text.parse().unwrap();
            let peers = config["peer"].as_array_mut().unwrap().iter_mut();
            let mut peers = peers.map(|peer| peer.as_table_mut().unwrap());
            change(peers.find(|found| found["bureau"].as_str() == Some(peer)).unwrap());
            config.to_string()
        });
    }

    /// Starts a bureau's node and waits until it serves.
    pub async fn start(&mut self, bureau: &str) {
        self.spawn(bureau);
        self.serving(bureau).await;
    }

    /// Starts every bureau named.
    pub async fn start_all(&mut self, bureaus: &[&str]) {
        for bureau in bureaus {
            self.spawn(bureau);
        }
        for bureau in bureaus {
            self.serving(bureau).await;
        }
    }

    /// Starts a bureau's node and does not wait.
    pub fn spawn(&mut self, bureau: &str) {
        assert!(!self.nodes.contains_key(bureau), "{bureau} runs already");
        self.starts += 1;
        let log = File::options().create(true).append(true).open(self.log_path(bureau)).unwrap();
        let mut command = self.program.command();
        command.arg("serve").arg("--config").arg(self.config(bureau));
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.nodes.insert(bureau.to_owned(), command.spawn().unwrap());
    }

    /// Waits until a node serves.
    pub async fn serving(&mut self, bureau: &str) {
        let deadline = Instant::now() + PATIENCE;
        let desk = Desk::of(&self.home(bureau));
        loop {
            if desk.is_serving().await {
                return;
            }
            let ended = self.nodes.get_mut(bureau).unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{bureau} ended: {ended:?}\n{}", self.log(bureau));
            assert!(Instant::now() < deadline, "{bureau} does not serve\n{}", self.log(bureau));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends a node as a power cut would: nothing more runs.
    pub fn kill(&mut self, bureau: &str) {
        let mut node = self.nodes.remove(bureau).unwrap();
        node.kill().unwrap();
        node.wait().unwrap();
    }

    /// Asks a node to end, and gives its exit code and how long it took.
    pub async fn terminate(&mut self, bureau: &str) -> (Option<i32>, Duration) {
        let started = Instant::now();
        self.signal(bureau, rustix::process::Signal::TERM);
        let status = self.ended(bureau).await;
        (status, started.elapsed())
    }

    /// Waits until a node has ended by itself, and gives its exit code.
    pub async fn ended(&mut self, bureau: &str) -> Option<i32> {
        let mut node = self.nodes.remove(bureau).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = node.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "{bureau} does not end\n{}", self.log(bureau));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn signal(&self, bureau: &str, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.nodes[bureau].id()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal)
            .unwrap();
    }

    pub fn pid(&self, bureau: &str) -> u32 {
        self.nodes[bureau].id()
    }

    pub fn runs(&self, bureau: &str) -> bool {
        self.nodes.contains_key(bureau)
    }

    /// What a node's metrics are now.
    pub async fn metrics(&self, bureau: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let config: toml::Table = fs::read_to_string(self.config(bureau)).unwrap().parse().unwrap();
        let address = config["metrics"]["listen"].as_str().unwrap();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// The desk of a bureau.
    pub fn desk(&self, bureau: &str) -> Desk {
        Desk::of(&self.home(bureau))
    }

    fn log_path(&self, bureau: &str) -> PathBuf {
        self.dir.path().join(format!("{bureau}.log"))
    }

    /// What a node has logged so far.
    pub fn log(&self, bureau: &str) -> String {
        fs::read_to_string(self.log_path(bureau)).unwrap_or_default()
    }

    /// Waits until a node has logged a line with all these words.
    pub async fn logged(&self, bureau: &str, words: &[&str]) -> String {
        let found = |line: &&str| words.iter().all(|word| line.contains(word));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.log(bureau);
            if let Some(line) = log.lines().find(found) {
                return line.to_owned();
            }
            assert!(Instant::now() < deadline, "{bureau} never logged {words:?}:\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs a command as the desk of a bureau.
    pub fn cli(&self, bureau: &str, arguments: &[&str]) -> Output {
        let mut command = self.program.command();
        command.env("BUREAU_DESK", self.home(bureau).join("desk.toml")).args(arguments);
        command.output().unwrap()
    }

    /// Runs a command with `-o json` that must succeed, and gives what it printed.
    pub fn json(&self, bureau: &str, arguments: &[&str]) -> serde_json::Value {
        let output = self.cli(bureau, &[&["-o", "json"], arguments].concat());
        let (stdout, stderr) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        serde_json::from_slice(stdout).unwrap_or_else(|error| panic!("{error}: {stdout:?}"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for (_, mut node) in std::mem::take(&mut self.nodes) {
            // The process may have ended by itself.
            drop(node.kill());
            drop(node.wait());
        }
        if std::thread::panicking() {
            eprint_logs(self.dir.path());
        }
    }
}

fn eprint_logs(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            let log = fs::read_to_string(entry.path()).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(25).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            // Test output, on a failing test only.
            #[allow(clippy::print_stderr, reason = "shown only where a test fails")]
            {
                eprintln!("--- {}\n{}", entry.path().display(), tail.join("\n"));
            }
        }
    }
}

/// A range of ports that nobody listens on. Each test process has ranges of its own.
fn free_ports(count: u16) -> u16 {
    free_ports_of(count, |_| true)
}

/// The same where only some of the range must be free, by their place in it.
fn free_ports_of(count: u16, needed: impl Fn(u16) -> bool) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = u16::try_from(std::process::id() % 169).unwrap() * 100;
    loop {
        let taken = NEXT.fetch_add(count, Ordering::Relaxed) % 16_900;
        // Below the ports that outgoing connections take (from 32,768 on Linux).
        let base = 15_000 + (process + taken) % 16_900;
        let free = |port| !needed(port - base) || TcpListener::bind(("127.0.0.1", port)).is_ok();
        if base.checked_add(count).is_some_and(|end| (base..end).all(free)) {
            return base;
        }
    }
}

/// Waits until a condition holds.
pub async fn until<F, T>(what: &str, mut condition: F) -> T
where
    F: AsyncFnMut() -> Option<T>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
