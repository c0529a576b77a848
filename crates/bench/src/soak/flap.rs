//! Promise 6: links that come and go for a day. FR sends over the hub IPSG to KE; both links are up
//! for 5 to 300 seconds and down for 5 seconds to an hour, by a seed, with a round trip of 50 to
//! 2,000 ms. They go down by a reset, by silence, or by silence in one direction only, and are reset
//! while up, too.
//!
//! Time is scaled: the times of the links and of the nodes' own options for them are shorter by one
//! factor. The disk and the processor are not faster: what is seen is rather too hard.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{
    NODES,
    checker::{Checker, Tally},
    peak_mib, print,
};
use crate::{
    Format,
    harness::{
        Chance, Network,
        proxy::{Link, Way},
    },
    program,
};

/// Seconds a link is up, and down.
const UP: (u64, u64) = (5, 300);
const DOWN: (u64, u64) = (5, 3600);
/// A round trip in ms.
const ROUND_TRIP: (u64, u64) = (50, 2000);
/// Memory that a node may take, in MiB.
const MEMORY_MIB: f64 = 256.0;

/// What is asked for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Flap {
    /// Hours of the links' own time.
    #[arg(long, default_value_t = 24)]
    hours: u64,
    /// How much faster than that time goes. Above 50 the nodes' options cannot follow.
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u64).range(1..=50))]
    scale: u64,
    /// Messages in a second of this clock.
    #[arg(long, default_value_t = 20)]
    rate: u64,
    /// When links go down, and how.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    seed: u64,
    hours: u64,
    scale: u64,
    #[serde(flatten)]
    tally: Tally,
    links: Vec<OfLink>,
    peak_mib: Vec<(&'static str, f64)>,
    seconds: u64,
}

/// What one link went through.
#[derive(Debug, Default, Serialize)]
struct OfLink {
    from: &'static str,
    severed: u64,
    silent: u64,
    half_open: u64,
    resets: u64,
    /// Of the whole time, in the links' own seconds.
    up_seconds: u64,
    down_seconds: u64,
    /// Times somebody connected, and the same in a second of the links' time.
    attempts: u64,
    attempts_per_second: f64,
    /// The most in ten seconds of the links' time, in a second.
    attempts_per_second_max: f64,
}

pub(crate) async fn flap(flap: Flap, output: Format) -> bool {
    let started = Instant::now();
    let mut network = Network::star(program(), &["FR", "KE"], "IPSG");
    NODES.into_iter().for_each(|node| hasten(&network, node, flap.scale));
    let links = [
        network.over("FR", "IPSG", |plan| plan.seed(flap.seed)).await,
        network.over("KE", "IPSG", |plan| plan.seed(flap.seed + 1)).await,
    ];
    network.start_all(&NODES).await;
    let checker = Checker::begin(&network, flap.rate);
    let mut chance = Chance::of(flap.seed);
    let (first, second, ()) = tokio::join!(
        weather(&links[0], "FR", &flap, chance.split()),
        weather(&links[1], "KE", &flap, chance.split()),
        tell(&checker, &flap),
    );
    links.iter().for_each(Link::mend);
    let tally = checker.end(Vec::new()).await;
    let peak = NODES.into_iter().map(|node| (node, peak_mib(network.pid(node)))).collect();
    let outcome = Outcome {
        seed: flap.seed,
        hours: flap.hours,
        scale: flap.scale,
        tally,
        links: vec![first, second],
        peak_mib: peak,
        seconds: started.elapsed().as_secs(),
    };
    print(&outcome, output);
    outcome.tally.is_good()
        && outcome.peak_mib.iter().all(|(_, mib)| *mib <= MEMORY_MIB)
        && outcome.links.iter().all(|link| link.attempts_per_second_max <= 1.0)
}

/// Makes a node's times for links shorter, all by one factor.
fn hasten(network: &Network, node: &str, scale: u64) {
    let ms = |ms: u64| toml::Value::Integer(i64::try_from(ms / scale).unwrap());
    network.configure(node, |text| {
        let mut config: toml::Table = text.parse().unwrap();
        let links = [
            ("ping_ms", ms(5_000)),
            ("stall_ms", ms(15_000)),
            ("backoff_base_ms", ms(1_000)),
            ("backoff_max_ms", ms(30_000)),
            ("connect_timeout_ms", ms(10_000)),
        ];
        let links = links.map(|(name, value)| (name.to_owned(), value));
        config.insert("links".to_owned(), toml::Table::from_iter(links).into());
        config.to_string()
    });
}

/// Lets a link be up and down until the hours are over.
async fn weather(link: &Link, from: &'static str, flap: &Flap, mut chance: Chance) -> OfLink {
    let end = Instant::now() + scaled(Duration::from_secs(3600 * flap.hours), flap);
    let mut of_link = OfLink { from, ..OfLink::default() };
    let mut counted = Counted { at: Instant::now(), attempts: 0, most: 0.0 };
    while Instant::now() < end {
        link.latency_ms(chance.between(ROUND_TRIP.0, ROUND_TRIP.1) / 2 / flap.scale);
        link.mend();
        let up = chance.between(UP.0, UP.1);
        // Half of the times it breaks once while it is up.
        let first = chance.up_to(up);
        counted.wait(link, first, flap).await;
        if chance.up_to(1) == 0 {
            link.cut();
            of_link.resets += 1;
        }
        counted.wait(link, up - first, flap).await;
        match chance.up_to(2) {
            0 => {
                link.sever();
                of_link.severed += 1;
            }
            1 => {
                link.partition();
                of_link.silent += 1;
            }
            _ => {
                link.swallow(if chance.up_to(1) == 0 { Way::There } else { Way::Back });
                of_link.half_open += 1;
            }
        }
        let down = chance.between(DOWN.0, DOWN.1);
        counted.wait(link, down, flap).await;
        of_link.up_seconds += up;
        of_link.down_seconds += down;
    }
    of_link.attempts = link.connections();
    let seconds = (of_link.up_seconds + of_link.down_seconds) as f64;
    of_link.attempts_per_second = of_link.attempts as f64 / seconds;
    of_link.attempts_per_second_max = counted.most;
    of_link
}

fn scaled(time: Duration, flap: &Flap) -> Duration {
    time / u32::try_from(flap.scale).unwrap()
}

/// Attempts in the last while.
struct Counted {
    at: Instant,
    attempts: u64,
    most: f64,
}

impl Counted {
    /// Waits so many seconds of the links' time, and counts attempts in each ten of them.
    async fn wait(&mut self, link: &Link, seconds: u64, flap: &Flap) {
        let window = scaled(Duration::from_secs(10), flap);
        let end = Instant::now() + scaled(Duration::from_secs(seconds), flap);
        loop {
            let next = (self.at + window).min(end);
            tokio::time::sleep_until(next.into()).await;
            let (now, attempts) = (Instant::now(), link.connections());
            if now >= self.at + window {
                let took = (now - self.at).as_secs_f64() * flap.scale as f64;
                self.most = self.most.max((attempts - self.attempts) as f64 / took);
                (self.at, self.attempts) = (now, attempts);
            }
            if now >= end {
                return;
            }
        }
    }
}

async fn tell(checker: &Checker, flap: &Flap) {
    for hour in 1..=flap.hours {
        tokio::time::sleep(scaled(Duration::from_secs(3600), flap)).await;
        eprintln!("hour {hour} of {}: {} messages have arrived", flap.hours, checker.arrived());
    }
}
