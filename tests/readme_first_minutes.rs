//! The README's first five minutes, typed as they stand there: every command must do what it did
//! when they were written, and print what is shown, but for identifiers, times and ports.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod harness;
#[path = "readme/blocks.rs"]
mod readme;

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use harness::{Network, Program};

const HEADING: &str = "The first five minutes by hand";
/// Typed where the node that was started last runs.
const CTRL_C: &str = "^C";
/// Log lines that are left out.
const ELLIPSIS: &str = "...";
/// The shortest prefix of an id that the commands take.
const PREFIX_MIN: usize = 6;

#[test]
fn the_two_commands_stand_alone() {
    let alone = |command: &str| {
        let is_it = |block: &readme::Block| block.lines == [command];
        readme::blocks().iter().filter(|block| is_it(block)).count()
    };
    assert_eq!(alone("cargo run --release -- demo"), 1);
    assert_eq!(alone("cargo test --workspace"), 1);
}

#[test]
fn the_first_minutes_go_as_told() {
    let mut walk = Walk::begin();
    let blocks = readme::blocks().into_iter().filter(|block| block.heading == HEADING);
    let mut steps = 0;
    for block in blocks.filter(|block| block.language == "console") {
        for (command, shown) in commands(&block.lines) {
            walk.step(&command, &shown);
            steps += 1;
        }
    }
    assert!(steps > 8, "only {steps} commands under {HEADING:?}");
    walk.end();
}

/// Each command of a block, with what is shown below it.
fn commands(lines: &[String]) -> Vec<(String, Vec<String>)> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for line in lines {
        match line.strip_prefix("$ ").or((line == CTRL_C).then_some(CTRL_C)) {
            Some(command) => commands.push((command.to_owned(), Vec::new())),
            None => commands.last_mut().expect("a block begins with $").1.push(line.clone()),
        }
    }
    commands
}

/// Somebody who reads the README and types.
struct Walk {
    folder: tempfile::TempDir,
    first_port: u16,
    variables: Vec<(String, String)>,
    /// Those that run, and their logs; the last one started comes last.
    nodes: Vec<(Child, PathBuf)>,
    starts: u32,
    /// Ids that the README shows, and what they are here.
    ids: Vec<(String, String)>,
}

impl Walk {
    fn begin() -> Self {
        let program = Program::at(env!("CARGO_BIN_EXE_bureau"));
        // Made for its ports, which nobody else has then.
        let ports = Network::mesh(program, &["FR", "KE"], "IPSG");
        let text = fs::read_to_string(ports.home("FR").join("desk.toml")).unwrap();
        let profile: toml::Table = text.parse().unwrap();
        let (_, port) = profile["address"].as_str().unwrap().split_once(':').unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            first_port: port.parse::<u16>().unwrap() - 1,
            variables: Vec::new(),
            nodes: Vec::new(),
            starts: 0,
            ids: Vec::new(),
        }
    }

    fn step(&mut self, command: &str, shown: &[String]) {
        if let Some(variable) = command.strip_prefix("export ") {
            let (name, value) = variable.split_once('=').unwrap();
            self.variables.push((name.to_owned(), value.to_owned()));
        } else if command.starts_with("bureau serve ") {
            self.serve(command, shown);
        } else if command == CTRL_C {
            let (node, log) = self.nodes.pop().expect("no node runs");
            interrupt(node);
            self.logged(&log, shown);
        } else {
            self.compare(command, shown);
        }
    }

    fn serve(&mut self, command: &str, shown: &[String]) {
        self.starts += 1;
        let log = self.folder.path().join(format!("{}.log", self.starts));
        let file = File::create(&log).unwrap();
        let mut shell = self.shell(&format!("exec {command}"));
        let node = shell.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        self.nodes.push((node, log.clone()));
        self.logged(&log, shown);
    }

    /// Waits until the log has the events that are shown, in whatever order.
    fn logged(&self, log: &Path, shown: &[String]) {
        let event =
            |line: &str| line.split_whitespace().skip(1).take(2).collect::<Vec<_>>().join(" ");
        let deadline = Instant::now() + harness::PATIENCE;
        loop {
            let text = fs::read_to_string(log).unwrap();
            let logged = |line: &str| text.lines().any(|found| event(found) == event(line));
            let missing = shown.iter().find(|line| *line != ELLIPSIS && !logged(line));
            let Some(missing) = missing else { return };
            assert!(Instant::now() < deadline, "never logged: {missing}\n{text}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a command until it prints what is shown: receipts take a moment to come.
    fn compare(&mut self, command: &str, shown: &[String]) {
        let command = self.here(command);
        let once = [" send ", " init ", " watch "].iter().any(|word| command.contains(word));
        let deadline = Instant::now() + harness::PATIENCE;
        loop {
            let output = self.shell(&command).output().unwrap();
            let stdout = String::from_utf8(output.stdout).unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            let same = shape(stdout.lines()) == shape(shown.iter().map(String::as_str));
            if same && output.status.success() {
                return self.remember(shown, &stdout);
            }
            let told = shown.join("\n");
            assert!(
                !once && Instant::now() < deadline,
                "$ {command}\n{stdout}{stderr}\nThe README says:\n{told}"
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// A command of the README, with the ports and ids of this walk.
    fn here(&self, command: &str) -> String {
        if command.contains(" net init ") {
            return format!("{command} --port-base {}", self.first_port);
        }
        let words = command.split(' ').map(|word| {
            let known = self
                .ids
                .iter()
                .find(|(told, _)| word.len() >= PREFIX_MIN && told.starts_with(word));
            known.map_or(word, |(_, real)| &real[..word.len()])
        });
        words.collect::<Vec<_>>().join(" ")
    }

    fn remember(&mut self, shown: &[String], stdout: &str) {
        if let ([told], [real]) = (shown, stdout.lines().collect::<Vec<_>>().as_slice())
            && is_id(told)
        {
            self.ids.push((told.clone(), (*real).to_owned()));
        }
    }

    fn shell(&self, command: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_bureau"));
        let path = format!("{}:{}", program.parent().unwrap().display(), env::var("PATH").unwrap());
        let mut shell = Command::new("bash");
        shell.args(["-c", command]).current_dir(self.folder.path()).stdin(Stdio::null());
        shell.env_remove("BUREAU_DESK").envs(self.variables.iter().cloned()).env("PATH", path);
        shell
    }

    fn end(mut self) {
        self.nodes.drain(..).for_each(|(node, _)| interrupt(node));
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        for (node, _) in &mut self.nodes {
            // It may have ended by itself.
            drop(node.kill());
            drop(node.wait());
        }
    }
}

fn interrupt(mut node: Child) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(node.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(node.wait().unwrap().success());
}

/// What is left of a text without widths, identifiers, times, sizes and ports.
fn shape<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Vec<&'a str>> {
    let lines = lines.map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let next = words.iter().skip(1).copied().chain([""]);
        // How often a link was tried is a matter of luck.
        let shown = words.iter().zip(next).map(|(word, next)| {
            if varies(word) || next.starts_with("attempts") { "#" } else { word }
        });
        shown.collect()
    });
    lines.filter(|line: &Vec<&str>| !line.is_empty()).collect()
}

fn varies(word: &str) -> bool {
    let word = word.trim_matches(['(', ')', ',']);
    let begins_with_digit = word.starts_with(|c: char| c.is_ascii_digit());
    let is_size = word.len() >= 3 && word.bytes().all(|byte| byte.is_ascii_digit());
    // A date, a time of day, an address with its port; "6d", "23h", "0s".
    let is_time = word.contains(['-', ':']) || word.ends_with(['d', 'h', 'm', 's']);
    is_id(word) || is_cut_id(word) || is_size || (begins_with_digit && is_time)
}

fn is_id(word: &str) -> bool {
    word.len() == 52 && word.bytes().all(is_base32)
}

/// Tables show the beginning of an id, which may have no digit.
fn is_cut_id(word: &str) -> bool {
    word.len() == 12 && word.bytes().all(is_base32)
}

const fn is_base32(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'2'..=b'7')
}
