//! Runs that look for faults: FR sends to KE, whose desk watches and acknowledges, and meanwhile
//! nodes are killed or links break. The checker counts what was lost, came twice or from nowhere.

mod checker;
mod flap;
mod kill;
mod outage;

pub(crate) use self::{
    flap::{Flap, flap},
    kill::kill,
    outage::{Outage, outage},
};

use serde::Serialize;

use crate::Format;

/// The bureaus at the two ends, and the hub between them.
const NODES: [&str; 3] = ["FR", "KE", "IPSG"];

fn print(outcome: &(impl Serialize + std::fmt::Debug), output: Format) {
    match output {
        Format::Json => println!("{}", serde_json::to_string_pretty(outcome).unwrap()),
        Format::Table => println!("{outcome:#?}"),
    }
}

/// The most memory that a process ever had, in MiB, from `/proc`.
fn peak_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}
