//! What crosses a link, in bytes of TCP's payload, TLS and HTTP/2 included, each way: coming up, an
//! idle hour, messages of 1 KiB with their receipts, and acknowledgments. TCP and IP add 40 to 52
//! bytes to each packet.

use std::time::{Duration, Instant};

use bureau_proto::{
    desk::v1::{DeliveryState, SubmitManyRequest, SubmitRequest},
    envelope::v1::Lane,
};
use bytes::Bytes;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::{
    Format,
    harness::{
        Desk, Network,
        desk::message,
        files::noise,
        proxy::{Link, Way},
    },
    program,
};

/// Bytes of content.
const CONTENT_BYTES: usize = 1024;
/// Messages sent alone, one after another, and in a burst.
const ALONE: u64 = 20;
const BURST: u64 = 100;
/// How long nothing must cross before something counts as over: what is sent at once, as pings on a
/// link that is idle, is apart.
const QUIET: Duration = Duration::from_millis(700);

/// What crossed.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    there: f64,
    back: f64,
    /// What there is above the content, where there is content.
    over_percent: Option<f64>,
}

pub(crate) async fn run(idle_seconds: u64, output: Format) -> bool {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    let link = network.over("FR", "KE", |plan| plan.latency_ms(20)).await;
    network.start_all(&["KE", "FR"]).await;
    let (fr, ke) = (network.desk("FR"), network.desk("KE"));
    fr.linked("KE", true).await;
    let mut rows = Vec::new();
    quiet(&link).await;
    let up = Meter { there: 0, back: 0 };
    rows.push(each("a link comes up", up.crossed(&link), 1, 0));

    eprintln!("idle for {idle_seconds} s");
    let meter = Meter::begin(&link);
    tokio::time::sleep(Duration::from_secs(idle_seconds)).await;
    let (there, back) = meter.crossed(&link);
    let hour = 3600.0 / idle_seconds as f64;
    rows.push(Row {
        what: format!("an idle hour, from {idle_seconds} s"),
        there: there as f64 * hour,
        back: back as f64 * hour,
        over_percent: None,
    });
    for (name, text) in [("noise", false), ("text", true)] {
        alone(&link, &fr, &ke, name, text, &mut rows).await;
        burst(&link, &fr, &ke, name, text, &mut rows).await;
    }
    print(&rows, output);
    true
}

fn print(rows: &[Row], output: Format) {
    if output == Format::Json {
        println!("{}", serde_json::to_string_pretty(rows).unwrap());
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["BYTES OF", "THERE", "BACK", "OVER CONTENT"]);
    for row in rows {
        let over = row.over_percent.map_or_else(String::new, |over| format!("{over:.0} %"));
        let (there, back) = (format!("{:.0}", row.there), format!("{:.0}", row.back));
        table.add_row([row.what.clone(), there, back, over]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}

/// Counts from a moment on.
#[derive(Clone, Copy)]
struct Meter {
    there: u64,
    back: u64,
}

impl Meter {
    fn begin(link: &Link) -> Self {
        Self { there: link.carried(Way::There), back: link.carried(Way::Back) }
    }

    fn crossed(&self, link: &Link) -> (u64, u64) {
        (link.carried(Way::There) - self.there, link.carried(Way::Back) - self.back)
    }
}

/// Waits until nothing crosses any more.
async fn quiet(link: &Link) {
    let (mut before, mut since) = (link.carried_both(), Instant::now());
    while since.elapsed() < QUIET {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = link.carried_both();
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
}

/// Content that is nothing but itself, or a text as people write it.
fn request(number: u64, text: bool) -> SubmitRequest {
    let request = SubmitRequest {
        request_id: uuid::Uuid::now_v7().to_string(),
        lane: Lane::Routine.into(),
        ..message(&["KE"], "")
    };
    if text {
        return SubmitRequest { content: prose(number), ..request };
    }
    let media_type = "application/octet-stream".to_owned();
    SubmitRequest { content: noise(number, CONTENT_BYTES), media_type, ..request }
}

/// Words in an order by chance: what an officer writes has no fewer repetitions.
fn prose(number: u64) -> Bytes {
    const WORDS: [&str; 32] = [
        "the",
        "vehicle",
        "was",
        "seen",
        "near",
        "border",
        "crossing",
        "on",
        "Tuesday",
        "with",
        "two",
        "persons",
        "please",
        "verify",
        "registration",
        "and",
        "report",
        "passport",
        "number",
        "to",
        "our",
        "bureau",
        "by",
        "return",
        "request",
        "identity",
        "of",
        "owner",
        "in",
        "connection",
        "investigation",
        "vessel",
    ];
    let mut chance = crate::harness::Chance::of(number);
    let mut text = String::new();
    while text.len() < CONTENT_BYTES {
        text.push_str(WORDS[usize::try_from(chance.up_to(31)).unwrap()]);
        text.push(' ');
    }
    text.truncate(CONTENT_BYTES);
    text.into_bytes().into()
}

async fn alone(link: &Link, fr: &Desk, ke: &Desk, name: &str, text: bool, rows: &mut Vec<Row>) {
    let mut client = fr.client().await;
    let (mut sent, mut acknowledged) = ((0, 0), (0, 0));
    for number in 0..ALONE {
        quiet(link).await;
        let meter = Meter::begin(link);
        let submitted = client.submit(request(number, text)).await.unwrap().into_inner();
        fr.tracked(&submitted.message_id, "KE", DeliveryState::Delivered).await;
        quiet(link).await;
        sent = add(sent, meter.crossed(link));
        let meter = Meter::begin(link);
        ke.acknowledge(&[&submitted.message_id]).await.unwrap();
        fr.tracked(&submitted.message_id, "KE", DeliveryState::Acknowledged).await;
        quiet(link).await;
        acknowledged = add(acknowledged, meter.crossed(link));
    }
    rows.push(each(
        &format!("1 KiB of {name}, alone, and its receipt"),
        sent,
        ALONE,
        CONTENT_BYTES,
    ));
    rows.push(each("its acknowledgment", acknowledged, ALONE, 0));
}

async fn burst(link: &Link, fr: &Desk, ke: &Desk, name: &str, text: bool, rows: &mut Vec<Row>) {
    quiet(link).await;
    let meter = Meter::begin(link);
    let many = (1000..1000 + BURST).map(move |number| request(number, text));
    let many: Vec<_> = many.map(|request| SubmitManyRequest { request: Some(request) }).collect();
    let answers = fr.client().await.submit_many(tokio_stream::iter(many)).await.unwrap();
    let mut answers = answers.into_inner();
    while answers.message().await.unwrap().is_some() {}
    while fr.depths().await.iter().any(|depth| depth.messages > 0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    quiet(link).await;
    let sent = meter.crossed(link);
    rows.push(each(&format!("1 KiB of {name} in a burst of {BURST}"), sent, BURST, CONTENT_BYTES));
    let ids: Vec<String> = ke.inbox().await.into_iter().map(|(_, id)| id).collect();
    let meter = Meter::begin(link);
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    ke.acknowledge(&ids).await.unwrap();
    quiet(link).await;
    rows.push(each("an acknowledgment among so many", meter.crossed(link), ids.len() as u64, 0));
}

fn add(one: (u64, u64), other: (u64, u64)) -> (u64, u64) {
    (one.0 + other.0, one.1 + other.1)
}

fn each(what: &str, (there, back): (u64, u64), count: u64, content: usize) -> Row {
    let (there, back) = (there as f64 / count as f64, back as f64 / count as f64);
    let over = (there / content as f64 - 1.0) * 100.0;
    Row { what: what.to_owned(), there, back, over_percent: (content > 0).then_some(over) }
}
