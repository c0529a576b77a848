//! A node with many peers of which most are away: what it costs while nothing happens, and whether
//! messages to those that are there are slowed.
//!
//! One node is the hub of all; its peers are bureaus that run, bureaus that refuse a connection, and
//! bureaus that take one and say nothing. The same is measured without those that are away.

use std::{
    collections::HashMap,
    net::TcpListener,
    time::{Duration, Instant},
};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::{
    Format,
    harness::{Network, desk::message},
    program,
    report::{Latencies, Usage},
};

/// The node that is measured.
const HUB: &str = "HUB";
/// Every so many-th of those that are away takes a connection and says nothing.
const SILENT_EACH: usize = 4;
/// Messages that are timed, and how far apart.
const MESSAGES: usize = 1000;
const APART: Duration = Duration::from_millis(20);

/// What is asked for.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Peers {
    /// Peers in the configuration.
    #[arg(long, default_value_t = 200)]
    configured: usize,
    /// Peers that run.
    #[arg(long, default_value_t = 5)]
    up: usize,
    /// How long the idle node is measured, after a first minute.
    #[arg(long, default_value_t = 120)]
    idle_seconds: u64,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Row {
    peers: usize,
    down: usize,
    first_minute_log_lines: u64,
    log_lines_a_minute: f64,
    attempts_a_minute: f64,
    cpu_seconds_a_minute: f64,
    rss_mib: f64,
    delivered: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

pub(crate) async fn run(asked: Peers, output: Format) -> bool {
    let Peers { configured, up, idle_seconds } = asked;
    let alone = measure(up, up, idle_seconds).await;
    let crowd = measure(configured, up, idle_seconds).await;
    let all = MESSAGES as u64;
    let good = alone.delivered == all && crowd.delivered == all;
    match output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&[alone, crowd]).unwrap()),
        Format::Table => print(&alone, &crowd),
    }
    good
}

async fn measure(configured: usize, up: usize, idle_seconds: u64) -> Row {
    let codes: Vec<String> = (0..configured).map(|number| format!("B{number}")).collect();
    let codes: Vec<&str> = codes.iter().map(String::as_str).collect();
    let mut network = Network::crowd(program(), &codes, HUB, up);
    let (here, away) = codes.split_at(up);
    let silent: Vec<TcpListener> = away
        .iter()
        .step_by(SILENT_EACH)
        .map(|code| TcpListener::bind(link_face(&network, code)).unwrap())
        .collect();
    eprintln!("{configured} peers, {} away, of them {} silent", away.len(), silent.len());
    network.start(HUB).await;
    network.start_all(here).await;
    let hub = network.desk(HUB);
    for code in here {
        hub.linked(code, true).await;
    }
    let lines = |network: &Network| network.log(HUB).lines().count() as u64;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let first = lines(&network);

    let (pid, begun) = (network.pid(HUB), Instant::now());
    let (before, attempts) = (Usage::of(pid), attempts(&network).await);
    tokio::time::sleep(Duration::from_secs(idle_seconds)).await;
    let after = Usage::of(pid);
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let log_lines_a_minute = (lines(&network) - first) as f64 / minutes;
    let attempts_a_minute = (self::attempts(&network).await - attempts) / minutes;
    let latencies = time(&network, here).await;
    Row {
        peers: configured,
        down: away.len(),
        first_minute_log_lines: first,
        log_lines_a_minute,
        attempts_a_minute,
        cpu_seconds_a_minute: (after.cpu - before.cpu).as_secs_f64() / minutes,
        rss_mib: after.rss_bytes as f64 / 1024.0 / 1024.0,
        delivered: latencies.count(),
        p50_ms: latencies.quantile_ms(0.5),
        p99_ms: latencies.quantile_ms(0.99),
        max_ms: latencies.quantile_ms(1.0),
    }
}

/// Sends to each in turn, and notes how long each took from the desk's call to the other's inbox.
async fn time(network: &Network, codes: &[&str]) -> Latencies {
    let (arrivals, mut arrived) = mpsc::unbounded_channel();
    for code in codes {
        let (mut watch, arrivals) = (network.desk(code).watch(0).await, arrivals.clone());
        tokio::spawn(async move {
            while let Ok(message) = watch.next().await {
                let text = String::from_utf8_lossy(&message.content).into_owned();
                drop(arrivals.send((text, Instant::now())));
            }
        });
    }
    let mut client = network.desk(HUB).client().await;
    let mut begun = HashMap::new();
    let mut ticks = tokio::time::interval(APART);
    for number in 0..MESSAGES {
        ticks.tick().await;
        let text = format!("number {number}");
        begun.insert(text.clone(), Instant::now());
        client.submit(message(&[codes[number % codes.len()]], &text)).await.unwrap();
    }
    let mut latencies = Latencies::default();
    while latencies.count() < MESSAGES as u64 {
        let next = tokio::time::timeout(Duration::from_secs(30), arrived.recv()).await;
        let Ok(Some((text, at))) = next else { break };
        latencies.note(at - begun[&text]);
    }
    latencies
}

/// How often peers were dialed so far.
async fn attempts(network: &Network) -> f64 {
    let text = network.metrics(HUB).await;
    let of_peer = |line: &&str| line.starts_with("bureau_links_connect_attempts_total{");
    let number = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    text.lines().filter(of_peer).map(number).sum()
}

fn link_face(network: &Network, bureau: &str) -> String {
    let text = std::fs::read_to_string(network.config(bureau)).unwrap();
    let config: toml::Table = text.parse().unwrap();
    config["link"]["listen"].as_str().unwrap().to_owned()
}

fn print(alone: &Row, crowd: &Row) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let peers = |row: &Row| format!("{} PEERS, {} DOWN", row.peers, row.down);
    table.set_header(["".to_owned(), peers(alone), peers(crowd), "RATIO".to_owned()]);
    let mut row = |what: &str, of: fn(&Row) -> f64, ratio: bool| {
        let (alone, crowd) = (of(alone), of(crowd));
        let ratio = if ratio { format!("{:.2}", crowd / alone) } else { String::new() };
        table.add_row([what.to_owned(), format!("{alone:.2}"), format!("{crowd:.2}"), ratio]);
    };
    row("log lines in the first minute", |row| row.first_minute_log_lines as f64, false);
    row("log lines a minute then", |row| row.log_lines_a_minute, false);
    row("dials a minute", |row| row.attempts_a_minute, false);
    row("cpu seconds a minute", |row| row.cpu_seconds_a_minute, false);
    row("memory in MiB", |row| row.rss_mib, true);
    row("delivered", |row| row.delivered as f64, false);
    row("p50 in ms", |row| row.p50_ms, true);
    row("p99 in ms", |row| row.p99_ms, true);
    row("longest in ms", |row| row.max_ms, true);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}
