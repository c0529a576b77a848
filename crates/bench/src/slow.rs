//! A file on a slow link, and what is urgent beside it: how long messages of each lane take from
//! their desk to the other one while a file is under way; and what a file costs that is cut again
//! and again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bureau_proto::{
    desk::v1::{SubmitRequest, desk_service_client::DeskServiceClient},
    envelope::v1::Lane,
};
use bytes::Bytes;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use tonic::transport::Channel;

use crate::{
    Format,
    harness::{
        Chance, Desk, Network,
        desk::message,
        files::noise,
        proxy::{Link, Way},
    },
    program,
    report::Latencies,
};

/// A round trip over a satellite.
const LATENCY_MS: u64 = 300;
const LANES: [Lane; 4] = [Lane::Flash, Lane::Immediate, Lane::Priority, Lane::Routine];
/// What a message of 1 KiB is taken for on the wire, to space them out.
const WIRE_BYTES: u64 = 1400;
/// How long what was sent may take to arrive after the last one.
const PATIENCE: Duration = Duration::from_secs(180);

/// What is asked for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Slow {
    /// Bits a second, each way; several links are tried side by side.
    #[arg(long, value_delimiter = ',', default_values_t = [9_600, 64_000, 512_000])]
    rate: Vec<u64>,
    /// FLASH messages of 1 KiB, one after another.
    #[arg(long, default_value_t = 100)]
    flash: u64,
    /// Bytes of the file under way; at 9.6 kbit/s a tenth of it.
    #[arg(long, default_value_t = 20_000_000)]
    file: usize,
    /// How often the link is cut while the file is under way, after the messages. 0: the run ends
    /// with the messages, and the file is left where it is.
    #[arg(long, default_value_t = 0)]
    cuts: u64,
    /// Where it is cut, and what the file and the messages say.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    bits_per_second: u64,
    lanes: Vec<OfLane>,
    /// Bytes of the file that arrived while the messages did, and how much of the link that was.
    file_bytes: u64,
    file_percent: f64,
    seconds: f64,
    /// How often the link came up: once, where it was not cut.
    links_up: usize,
    resumed: Option<Resumed>,
}

#[derive(Debug, Serialize)]
struct OfLane {
    lane: String,
    sent: usize,
    arrived: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// What a file cost that was cut.
#[derive(Debug, Serialize)]
struct Resumed {
    cuts: u64,
    file_bytes: u64,
    /// Bytes that entered the link from its sender, from the first cut on until the message with the
    /// file was delivered, and what of the file was missing when that began.
    entered: u64,
    missing: u64,
    over_percent: f64,
    /// Of those, bytes that were on their way when the link was cut.
    lost: u64,
    seconds: f64,
}

pub(crate) async fn run(slow: Slow, output: Format) -> bool {
    let outcomes = tokio::task::LocalSet::new().run_until(side_by_side(slow)).await;
    match output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&outcomes).unwrap()),
        Format::Table => print(&outcomes),
    }
    let all = |outcome: &Outcome| {
        outcome.file_bytes > 0 && outcome.lanes.iter().all(|lane| lane.arrived == lane.sent as u64)
    };
    outcomes.iter().all(all)
}

async fn side_by_side(slow: Slow) -> Vec<Outcome> {
    let on_link = |rate: u64| {
        let slow = slow.clone();
        tokio::task::spawn_local(async move { on_link(rate, &slow).await })
    };
    let tries: Vec<_> = slow.rate.iter().copied().map(on_link).collect();
    let mut outcomes = Vec::new();
    for outcome in tries {
        outcomes.push(outcome.await.unwrap());
    }
    outcomes
}

fn print(outcomes: &[Outcome]) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["KBIT/S", "LANE", "SENT", "ARRIVED", "P50 MS", "P99 MS", "MAX MS"]);
    for outcome in outcomes {
        for lane in &outcome.lanes {
            table.add_row([
                format!("{:.1}", outcome.bits_per_second as f64 / 1000.0),
                lane.lane.clone(),
                lane.sent.to_string(),
                lane.arrived.to_string(),
                format!("{:.0}", lane.p50_ms),
                format!("{:.0}", lane.p99_ms),
                format!("{:.0}", lane.max_ms),
            ]);
        }
    }
    for column in [0, 2, 3, 4, 5, 6] {
        let column = table.column_mut(column).unwrap();
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}\n");
    for outcome in outcomes {
        let Outcome { bits_per_second, file_bytes, file_percent, seconds, links_up, .. } = outcome;
        println!(
            "{bits_per_second} bit/s: {file_bytes} bytes of the file meanwhile, {file_percent:.0} % of \
             the link in {seconds:.0} s; the link came up {links_up} times"
        );
        if let Some(resumed) = &outcome.resumed {
            println!("{resumed:#?}");
        }
    }
}

async fn on_link(rate: u64, slow: &Slow) -> Outcome {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    let link = network
        .over("FR", "KE", |plan| plan.seed(slow.seed).rate(rate).latency_ms(LATENCY_MS))
        .await;
    network.start_all(&["FR", "KE"]).await;
    let (fr, ke) = (network.desk("FR"), network.desk("KE"));
    fr.linked("KE", true).await;
    let arrivals = Arrivals::default();
    let watcher = tokio::spawn(watch(ke.clone(), arrivals.clone()));

    let size = if rate < 20_000 { slow.file / 10 } else { slow.file };
    let file = fr.upload(&noise(slow.seed, size)).await;
    let digest = file.digest.clone();
    let with_file = SubmitRequest { attachments: vec![file], ..message(&["KE"], "with a file") };
    let with_file = fr.submit(with_file).await.unwrap();
    while network.received("KE", &digest) < 4096 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eprintln!("{rate} bit/s: the file is under way");

    let begun = Instant::now();
    let before = network.received("KE", &digest);
    let sent = send_all(&fr, rate, slow).await;
    arrivals.all_of(&sent).await;
    let seconds = begun.elapsed().as_secs_f64();
    let file_bytes = network.received("KE", &digest).saturating_sub(before);
    let resumed = match slow.cuts {
        0 => None,
        cuts => Some(
            cut(&network, &link, cuts, slow, (&digest, size as u64), (&arrivals, &with_file)).await,
        ),
    };
    watcher.abort();
    let links_up = network.log("FR").matches("link_up ").count();
    Outcome {
        bits_per_second: rate,
        lanes: LANES.into_iter().map(|lane| of_lane(lane, &sent, &arrivals)).collect(),
        file_bytes,
        file_percent: file_bytes as f64 * 800.0 / (rate as f64 * seconds),
        seconds,
        links_up,
        resumed,
    }
}

/// A message that was sent: its lane, its id and when it was submitted.
struct Sent {
    lane: Lane,
    id: String,
    at: Instant,
}

/// FLASH at a pace that leaves two thirds of the link to others, and now and then one of each other
/// lane.
async fn send_all(desk: &Desk, rate: u64, slow: &Slow) -> Vec<Sent> {
    let mut client = desk.client().await;
    let period = Duration::from_millis((3 * WIRE_BYTES * 8 * 1000 / rate).max(200));
    let (mut sent, mut chance) = (Vec::new(), Chance::of(slow.seed));
    for number in 1..=slow.flash {
        if number % 5 == 0 {
            for lane in [Lane::Routine, Lane::Priority, Lane::Immediate] {
                sent.push(send(&mut client, lane, &mut chance).await);
            }
        }
        sent.push(send(&mut client, Lane::Flash, &mut chance).await);
        // Spread, so that they meet the line at all its states.
        let wait = period.mul_f64(0.5) + period.mul_f64(chance.up_to(1000) as f64 / 1000.0);
        tokio::time::sleep(wait).await;
        if number % 20 == 0 {
            eprintln!("{rate} bit/s: {number} of {} FLASH messages sent", slow.flash);
        }
    }
    sent
}

async fn send(client: &mut DeskServiceClient<Channel>, lane: Lane, chance: &mut Chance) -> Sent {
    let request = SubmitRequest {
        lane: lane.into(),
        media_type: "application/octet-stream".to_owned(),
        content: noise(chance.next(), 1024),
        ..message(&["KE"], "")
    };
    let at = Instant::now();
    let id = client.submit(request).await.unwrap().into_inner().message_id;
    Sent { lane, id, at }
}

/// When messages came to the other desk.
#[derive(Debug, Clone, Default)]
struct Arrivals(Arc<Mutex<HashMap<String, Instant>>>);

impl Arrivals {
    fn at(&self, id: &str) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }

    async fn all_of(&self, sent: &[Sent]) {
        let deadline = Instant::now() + PATIENCE;
        while sent.iter().any(|sent| self.at(&sent.id).is_none()) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn watch(desk: Desk, arrivals: Arrivals) {
    let mut watch = desk.watch(0).await;
    loop {
        // Silence for half a minute is no fault on such a link.
        let Ok(message) = watch.next().await else { return };
        let id = message.entry.unwrap().message_id;
        arrivals.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Instant::now());
    }
}

fn of_lane(lane: Lane, sent: &[Sent], arrivals: &Arrivals) -> OfLane {
    let mut latencies = Latencies::default();
    let of_lane: Vec<_> = sent.iter().filter(|sent| sent.lane == lane).collect();
    for sent in &of_lane {
        if let Some(at) = arrivals.at(&sent.id) {
            latencies.note(at - sent.at);
        }
    }
    OfLane {
        lane: lane.as_str_name().trim_start_matches("LANE_").to_owned(),
        sent: of_lane.len(),
        arrived: latencies.count(),
        p50_ms: latencies.quantile_ms(0.5),
        p99_ms: latencies.quantile_ms(0.99),
        max_ms: latencies.quantile_ms(1.0),
    }
}

/// Cuts the link at places of the rest of the file, and waits for the whole.
async fn cut(
    network: &Network,
    link: &Link,
    cuts: u64,
    slow: &Slow,
    (digest, size): (&Bytes, u64),
    (arrivals, with_file): (&Arrivals, &str),
) -> Resumed {
    let begun = Instant::now();
    let mut chance = Chance::of(slow.seed);
    let missing = size - network.received("KE", digest);
    let (entered, carried) = (link.entered(Way::There), link.carried(Way::There));
    for number in 1..=cuts {
        // Each at a place of its own share of what is missing.
        let share = missing / (cuts + 1);
        let place = size - missing + share * (number - 1) + chance.between(share / 2, share);
        let cut_before = link.cuts();
        let now = network.received("KE", digest);
        link.cut_after(place.saturating_sub(now).max(1));
        while link.cuts() == cut_before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        eprintln!("cut {number} of {cuts}, at {place} of {size} bytes or so");
    }
    while arrivals.at(with_file).is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let entered = link.entered(Way::There) - entered;
    let carried = link.carried(Way::There) - carried;
    Resumed {
        cuts,
        file_bytes: size,
        entered,
        missing,
        over_percent: (entered as f64 / missing as f64 - 1.0) * 100.0,
        lost: entered - carried,
        seconds: begun.elapsed().as_secs_f64(),
    }
}
