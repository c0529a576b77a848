//! Figures, as a table or as JSON. The first row is what the others are a ratio of.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::Format;

/// How long things took.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    micros: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { micros: Histogram::new(3).unwrap() }
    }
}

impl Latencies {
    pub(crate) fn note(&mut self, took: Duration) {
        // An hour is more than anything here takes; the histogram grows up to that.
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.record(micros.min(3_600_000_000)).unwrap();
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.micros.add(&other.micros).unwrap();
    }

    pub(crate) fn count(&self) -> u64 {
        self.micros.len()
    }

    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.micros.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// One line of figures.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    what: String,
    per_second: f64,
    ratio: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Memory of the node, where there is one.
    rss_mib: Option<f64>,
    /// Processor time of the node for each message, where there is one.
    cpu_micros: Option<f64>,
}

/// All lines.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn add(&mut self, what: &str, took: Duration, latencies: &Latencies) -> &mut Row {
        let per_second = latencies.count() as f64 / took.as_secs_f64();
        let base = self.rows.first().map_or(per_second, |row| row.per_second);
        self.rows.push(Row {
            what: what.to_owned(),
            per_second,
            ratio: per_second / base,
            p50_ms: latencies.quantile_ms(0.5),
            p99_ms: latencies.quantile_ms(0.99),
            max_ms: latencies.quantile_ms(1.0),
            rss_mib: None,
            cpu_micros: None,
        });
        eprintln!("measured: {what}");
        self.rows.last_mut().unwrap()
    }

    pub(crate) fn print(&self, format: Format) {
        if format == Format::Json {
            println!("{}", serde_json::to_string_pretty(self).unwrap());
            return;
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        let head =
            ["", "PER SECOND", "RATIO", "P50 MS", "P99 MS", "MAX MS", "RSS MIB", "CPU US EACH"];
        table.set_header(head);
        for row in &self.rows {
            let number =
                |number: Option<f64>| number.map_or_else(String::new, |n| format!("{n:.1}"));
            table.add_row([
                row.what.clone(),
                format!("{:.0}", row.per_second),
                format!("{:.3}", row.ratio),
                format!("{:.2}", row.p50_ms),
                format!("{:.2}", row.p99_ms),
                format!("{:.2}", row.max_ms),
                number(row.rss_mib),
                number(row.cpu_micros),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("{table}");
    }
}

impl Row {
    /// Notes what the node took for so many messages.
    pub(crate) fn node(&mut self, usage: Usage, messages: u64) {
        self.rss_mib = Some(usage.rss_bytes as f64 / 1024.0 / 1024.0);
        self.cpu_micros = Some(usage.cpu.as_micros() as f64 / messages.max(1) as f64);
    }
}

/// What a process has taken so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) rss_bytes: u64,
    pub(crate) cpu: Duration,
}

impl Usage {
    /// Of a process, from `/proc`.
    pub(crate) fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // After the name in brackets: fields 14 and 15 of proc(5), in ticks of 10 ms.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Self { rss_bytes: kib * 1024, cpu: Duration::from_millis(ticks * 10) }
    }
}
