//! What a desk must not ask for: each fault has its typed refusal, names every field at once, and
//! leaves no trace; what is right passes beside it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod harness;

use std::time::Duration;

use bureau_core::Timestamp;
use bureau_net::{Refusal, status::ReceivedRefusal};
use bureau_proto::{
    admin::v1::{GetStatusRequest, ListQueueRequest},
    desk::v1::{
        ListInboxRequest, SubmitManyRequest, SubmitRequest, TrackRequest, WatchInboxRequest,
        submit_many_response::Outcome,
    },
};
use harness::{Desk, Network, Program, desk::message, peer::now, raw, until};
use prost::Message as _;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

/// Stands in everything that is refused, and must be nowhere afterwards.
const MARKER: &str = "zebra-quartz-onyx";

const MIB: usize = 1024 * 1024;

async fn network() -> Network {
    let program = Program::at(env!("CARGO_BIN_EXE_bureau"));
    let mut network = Network::mesh(program, &["FR", "KE", "BR"], "IPSG");
    network.start_all(&["FR", "KE"]).await;
    network
}

/// A good message that carries the marker; each test spoils one thing of it.
fn marked() -> SubmitRequest {
    SubmitRequest {
        subject: format!("about {MARKER}"),
        case_reference: MARKER.to_owned(),
        ..message(&["KE"], MARKER)
    }
}

fn to(recipients: &[&str]) -> SubmitRequest {
    SubmitRequest { recipients: message(recipients, "").recipients, ..marked() }
}

fn content(content: impl Into<Vec<u8>>) -> SubmitRequest {
    SubmitRequest { content: content.into().into(), ..marked() }
}

fn expiring(seconds: i64) -> SubmitRequest {
    SubmitRequest { expire_time: Some(now().plus_ms(seconds * 1000).to_wire()), ..marked() }
}

/// Every single fault, its field, and its reason.
fn faults() -> Vec<(&'static str, &'static str, SubmitRequest)> {
    let many: Vec<String> = (0..301).map(|number| format!("A{number}")).collect();
    let mut faults = vec![
        ("content", "BODY_EMPTY", content([])),
        ("content", "BODY_TOO_LARGE", content(MARKER.repeat(MIB / MARKER.len() + 1))),
        ("content", "NOT_UTF8", content([MARKER.as_bytes(), &[0xff]].concat())),
        ("content", "CONTROL_CHARACTERS", content(format!("{MARKER}\u{0}"))),
        ("content", "CONTROL_CHARACTERS", content(format!("{MARKER}\u{1b}[31m"))),
        ("content", "CONTROL_CHARACTERS", content(format!("{MARKER}\u{202e}"))),
        ("recipients", "NO_RECIPIENT", to(&[])),
        ("recipients", "TOO_MANY_RECIPIENTS", SubmitRequest { recipients: many, ..marked() }),
        ("recipients[1]", "DUPLICATE_RECIPIENT", to(&["KE", "KE"])),
        ("recipients[0]", "SELF_RECIPIENT", to(&["FR"])),
        ("recipients[1]", "UNKNOWN_BUREAU", to(&["KE", "ZZ"])),
        ("recipients[0]", "UNKNOWN_BUREAU", to(&["ke"])),
        ("recipients[0]", "UNKNOWN_BUREAU", to(&["../../etc/passwd"])),
        ("recipients[0]", "UNKNOWN_BUREAU", to(&[""])),
        ("lane", "UNKNOWN_LANE", SubmitRequest { lane: 5, ..marked() }),
        ("lane", "UNKNOWN_LANE", SubmitRequest { lane: -1, ..marked() }),
        ("kind", "UNKNOWN_KIND", SubmitRequest { kind: 99, ..marked() }),
        ("handling_code", "FIELD_INVALID", SubmitRequest { handling_code: 9, ..marked() }),
        ("purpose", "FIELD_INVALID", SubmitRequest { purpose: 99, ..marked() }),
        ("expire_time", "LIFETIME_TOO_LONG", expiring(31 * 24 * 3600)),
        ("expire_time", "ALREADY_EXPIRED", expiring(-1)),
        (
            "request_id",
            "REQUEST_ID_INVALID",
            SubmitRequest { request_id: "no uuid".into(), ..marked() },
        ),
    ];
    for (seconds, nanos) in [(i64::MAX, 0), (i64::MIN, 0), (2_000_000_000, -1), (1, 1_000_000_000)]
    {
        let mut time = Timestamp::from_ms(0).to_wire();
        (time.seconds, time.nanos) = (seconds, nanos);
        let request = SubmitRequest { expire_time: Some(time), ..marked() };
        faults.push(("expire_time", "MALFORMED", request));
    }
    faults.extend(text_faults());
    faults
}

fn text_faults() -> Vec<(&'static str, &'static str, SubmitRequest)> {
    let subject = |subject| SubmitRequest { subject, ..marked() };
    let case = |case_reference| SubmitRequest { case_reference, ..marked() };
    let media = |media_type| SubmitRequest { media_type, ..marked() };
    let long = |length: usize| MARKER.repeat(length / MARKER.len() + 1);
    let id = MARKER.to_owned();
    vec![
        ("subject", "FIELD_TOO_LONG", subject(long(200))),
        ("subject", "CONTROL_CHARACTERS", subject(format!("{MARKER}\n"))),
        ("subject", "CONTROL_CHARACTERS", subject(format!("{MARKER}\u{7f}"))),
        ("subject", "CONTROL_CHARACTERS", subject(format!("{MARKER}\u{2067}"))),
        ("case_reference", "FIELD_TOO_LONG", case(long(64))),
        ("case_reference", "CONTROL_CHARACTERS", case(format!("{MARKER}\u{85}"))),
        ("media_type", "FIELD_TOO_LONG", media(long(100))),
        ("media_type", "CONTROL_CHARACTERS", media("text/plain\r\nx".to_owned())),
        ("in_reply_to", "MALFORMED", SubmitRequest { in_reply_to: id.clone(), ..marked() }),
        ("replaces", "MALFORMED", SubmitRequest { replaces: id, ..marked() }),
    ]
}

#[tokio::test]
async fn every_fault_is_refused_by_name_and_leaves_no_trace() {
    let network = network().await;
    let fr = network.desk("FR");
    for (field, reason, request) in faults() {
        let refusal = fr.submit(request).await.expect_err(reason);
        assert_eq!(refusal.code, Code::InvalidArgument, "{refusal:?}");
        assert_eq!(refusal.reason.as_deref(), Some(reason), "{refusal:?}");
        assert_eq!(violations(&refusal), [(field, reason)], "{refusal:?}");
        assert!(!refusal.message.contains(MARKER), "{refusal:?}");
    }
    every_fault_at_once(&fr).await;
    whole_requests(&fr).await;
    many_at_once(&fr).await;
    what_is_right_passes(&fr).await;

    let kept = fr.send(&["KE"], "granite-basalt").await;
    until("KE has what was right", async || {
        network.desk("KE").inbox().await.iter().any(|(_, id)| *id == kept).then_some(())
    })
    .await;
    until("nothing waits", async || {
        let waits: u64 = fr.depths().await.iter().map(|depth| depth.messages).sum();
        (waits == 0).then_some(())
    })
    .await;
    // 3 of the stream, 6 that are right, and the last; nothing else came over.
    assert_eq!(network.desk("KE").inbox().await.len(), 10);
    for bureau in ["FR", "KE"] {
        let data = network.home(bureau).join("data");
        assert_ne!(raw::files_with(&data, "granite-basalt"), [""; 0], "the search finds nothing");
        assert_eq!(raw::files_with(&data, MARKER), [""; 0], "kept by {bureau}");
        assert!(!network.log(bureau).contains(MARKER), "{bureau} logged what was refused");
    }
}

/// The permissions are read again at SIGHUP, so one network shows them all.
#[tokio::test]
async fn a_desk_may_only_do_what_the_configuration_grants() {
    let mut network = network().await;
    let fr = network.desk("FR");
    let id = fr.send(&["KE"], "before").await;
    for (granted, submits, receives, operates) in [
        (r#""receive", "operate""#, false, true, true),
        (r#""submit", "operate""#, true, false, true),
        (r#""submit", "receive""#, true, true, false),
    ] {
        grant(&mut network, "desk", granted).await;
        let request = TrackRequest { message_id: id.clone() };
        let mut client = fr.client().await;
        permits(submits, fr.submit(message(&["KE"], "may I?")).await);
        permits(submits, client.track(request).await.map_err(|status| refusal(&status)));
        let stream = tokio_stream::iter([SubmitManyRequest::default()]);
        permits(submits, client.submit_many(stream).await.map_err(|status| refusal(&status)));
        let listed = client.list_inbox(ListInboxRequest::default()).await;
        permits(receives, listed.map_err(|status| refusal(&status)));
        let watched = client.watch_inbox(WatchInboxRequest::default()).await;
        permits(receives, watched.map_err(|status| refusal(&status)));
        let acknowledged = fr.acknowledge(&["#1"]).await;
        // Not held is what a desk that may receive is told.
        let acknowledged = match acknowledged {
            Err(refusal) if refusal.code == Code::NotFound => Ok(()),
            answer => answer,
        };
        permits(receives, acknowledged);
        let mut admin = fr.admin().await;
        let status = admin.get_status(GetStatusRequest {}).await;
        permits(operates, status.map_err(|status| refusal(&status)));
        let queue = admin.list_queue(ListQueueRequest::default()).await;
        permits(operates, queue.map_err(|status| refusal(&status)));
    }
    // Its certificate is good, but nobody granted it anything.
    grant(&mut network, "other", r#""submit", "receive", "operate""#).await;
    permits(false, fr.submit(message(&["KE"], "may I?")).await);
    permits(false, fr.acknowledge(&["#1"]).await);
}

async fn grant(network: &mut Network, desk: &str, permissions: &str) {
    network.configure("FR", |text| {
        let clients = text.find("[[client]]").unwrap();
        let client = format!("[[client]]\ndesk = \"{desk}\"\npermissions = [{permissions}]\n");
        format!("{}{client}", &text[..clients])
    });
    let before = network.log("FR").matches("reloaded ").count();
    network.signal("FR", rustix::process::Signal::HUP);
    until("FR has read its files again", async || {
        (network.log("FR").matches("reloaded ").count() > before).then_some(())
    })
    .await;
}

#[track_caller]
fn permits<T: std::fmt::Debug>(permitted: bool, answer: Result<T, ReceivedRefusal>) {
    match answer {
        Ok(_) => assert!(permitted, "was permitted"),
        Err(refusal) => {
            assert!(!permitted, "{refusal:?}");
            assert_eq!(refusal.code, Code::PermissionDenied, "{refusal:?}");
            assert_eq!(refusal.reason.as_deref(), Some("NOT_PERMITTED"), "{refusal:?}");
        }
    }
}

#[tokio::test]
async fn a_flood_and_a_full_queue_are_refused_for_a_while() {
    let program = Program::at(env!("CARGO_BIN_EXE_bureau"));
    let mut network = Network::mesh(program, &["FR", "KE", "BR"], "IPSG");
    let limits = "[limits]\ndesk_messages_per_second = 5\nqueued_messages_per_destination = 4\n";
    network.configure("FR", |text| text.replacen("[keys]", &format!("{limits}[keys]"), 1));
    network.start("FR").await;
    let fr = network.desk("FR");

    for number in 0..4 {
        fr.send(&["KE"], &format!("waits {number}")).await;
    }
    let full = fr.submit(message(&["BR", "KE"], "one too many")).await.unwrap_err();
    assert_eq!((full.code, full.reason.as_deref()), exhausted("QUEUE_FULL"), "{full:?}");
    assert!(full.retry_after.is_some(), "{full:?}");

    let mut taken = 0;
    let flooded = loop {
        match fr.submit(message(&["BR"], "flood")).await {
            Ok(_) => taken += 1,
            Err(refusal) if refusal.reason.as_deref() == Some("QUEUE_FULL") => {}
            Err(refusal) => break refusal,
        }
        assert!(taken <= 4, "more than the queue holds");
    };
    assert_eq!((flooded.code, flooded.reason.as_deref()), exhausted("RATE_LIMITED"));
    let wait = flooded.retry_after.expect("RetryInfo");
    assert!(wait > Duration::ZERO && wait <= Duration::from_millis(200), "{wait:?}");
    // Nothing of what was refused waits.
    let depths = fr.depths().await;
    let waits = |code: &str| -> u64 {
        depths.iter().filter(|depth| depth.recipient == code).map(|depth| depth.messages).sum()
    };
    assert_eq!((waits("KE"), waits("BR")), (4, taken));
    // After the time that it was told, the desk is heard again.
    tokio::time::sleep(wait).await;
    let later = fr.submit(message(&["IPSG"], "after the flood")).await;
    later.expect("the time that was told is enough");
}

fn exhausted(reason: &'static str) -> (Code, Option<&'static str>) {
    (Code::ResourceExhausted, Some(reason))
}

fn violations(refusal: &ReceivedRefusal) -> Vec<(&str, &str)> {
    refusal.violations.iter().map(|fault| (fault.field.as_str(), fault.reason.as_str())).collect()
}

async fn every_fault_at_once(fr: &Desk) {
    let request = SubmitRequest {
        request_id: "-".to_owned(),
        lane: 17,
        kind: 17,
        handling_code: 17,
        purpose: 17,
        subject: format!("{MARKER}\u{7}"),
        case_reference: MARKER.repeat(9),
        content: vec![0xff].into(),
        in_reply_to: "x".to_owned(),
        expire_time: Some(now().to_wire()),
        ..to(&["FR", "ZZ", "KE", "KE"])
    };
    let refusal = fr.submit(request).await.unwrap_err();
    let expected = [
        ("request_id", "REQUEST_ID_INVALID"),
        ("recipients[0]", "SELF_RECIPIENT"),
        ("recipients[1]", "UNKNOWN_BUREAU"),
        ("recipients[3]", "DUPLICATE_RECIPIENT"),
        ("expire_time", "ALREADY_EXPIRED"),
        ("lane", "UNKNOWN_LANE"),
        ("kind", "UNKNOWN_KIND"),
        ("handling_code", "FIELD_INVALID"),
        ("in_reply_to", "MALFORMED"),
        ("subject", "CONTROL_CHARACTERS"),
        ("case_reference", "FIELD_TOO_LONG"),
        ("content", "NOT_UTF8"),
        ("purpose", "FIELD_INVALID"),
    ];
    assert_eq!(violations(&refusal), expected);
    // 300 faults do not fit into a header; what is left out is counted.
    let recipients = vec!["ZZ".to_owned(); 300];
    let refusal = fr.submit(SubmitRequest { recipients, ..marked() }).await.unwrap_err();
    let omitted: usize = refusal.metadata["violations_omitted"].parse().unwrap();
    assert_eq!(refusal.violations.len() + omitted, 599, "300 unknown, 299 of them twice");
}

const SUBMIT: &str = "/bureau.desk.v1.DeskService/Submit";

async fn submit_raw(fr: &Desk, bytes: Vec<u8>) -> Result<(), ReceivedRefusal> {
    let channel = fr.channel().await.unwrap().channel();
    raw::call(channel, SUBMIT, bytes).await.map(|_| ()).map_err(|status| refusal(&status))
}

fn refusal(status: &Status) -> ReceivedRefusal {
    Refusal::from_status(status)
}

/// Requests that are no requests of this service.
async fn whole_requests(fr: &Desk) {
    let good = marked().encode_to_vec();
    let not_utf8 = [MARKER.as_bytes(), &[0xff]].concat();
    let cases = [
        ("NOT_UTF8", [good.clone(), raw::field(5, &not_utf8)].concat()),
        ("NOT_UTF8", [good.clone(), raw::field(2, &not_utf8)].concat()),
        ("MALFORMED", vec![0xff; 40]),
        ("MALFORMED", [good.clone(), vec![0x07]].concat()),
        ("MALFORMED", good[..good.len() - 1].to_vec()),
        ("MALFORMED", [raw::field(3, MARKER.as_bytes()), good.clone()].concat()),
        // A group that opens a thousand others.
        ("MALFORMED", [good.clone(), [0xa3, 0x06].repeat(1000)].concat()),
        ("TOO_LARGE", raw::field(6, MARKER.repeat(4 * MIB / MARKER.len() + 1).as_bytes())),
    ];
    for (reason, bytes) in cases {
        let refusal = submit_raw(fr, bytes).await.expect_err(reason);
        assert_eq!(refusal.reason.as_deref(), Some(reason), "{refusal:?}");
        assert_eq!(refusal.code, Code::InvalidArgument, "{refusal:?}");
        assert!(!refusal.message.contains(MARKER), "{refusal:?}");
    }
}

/// One stream: each is answered in its turn, the good ones with an id.
async fn many_at_once(fr: &Desk) {
    let faults = faults();
    let mut requests = vec![message(&["KE"], "first of many")];
    requests.extend(faults.iter().map(|(_, _, request)| request.clone()));
    requests.insert(requests.len() / 2, message(&["KE"], "between"));
    requests.push(message(&["KE"], "last of many"));
    let request = |request| SubmitManyRequest { request: Some(request) };
    let stream = tokio_stream::iter(requests.clone().into_iter().map(request));
    let mut responses = fr.client().await.submit_many(stream).await.unwrap().into_inner();
    let mut reasons = faults.iter().map(|(field, reason, _)| (*field, *reason));
    for request in requests {
        let outcome = responses.next().await.unwrap().unwrap().outcome.unwrap();
        match outcome {
            Outcome::Accepted(_) => assert_eq!(request.subject, "a test", "{request:?}"),
            Outcome::Error(error) => {
                assert_eq!(error.code, Code::InvalidArgument as i32);
                let found = (error.violations[0].field.as_str(), error.reason.as_str());
                assert_eq!(Some(found), reasons.next());
            }
        }
    }
    assert_eq!(reasons.next(), None);
    assert!(responses.next().await.is_none());
}

/// The edges of what is allowed, and what a newer client may send.
async fn what_is_right_passes(fr: &Desk) {
    let whole = || message(&["KE"], &"x".repeat(MIB));
    fr.submit(whole()).await.expect("exactly 1 MiB");
    let edges = SubmitRequest {
        subject: "\u{e9}".repeat(200),
        case_reference: "c".repeat(64),
        expire_time: Some(now().plus_ms(30 * 24 * 3_600_000 - 60_000).to_wire()),
        ..message(&["KE"], "tab\tand\r\nlines, \u{627}\u{644}\u{200f}")
    };
    fr.submit(edges).await.expect("the edges");
    let binary = SubmitRequest {
        media_type: "application/octet-stream".to_owned(),
        content: vec![0, 0xff, 0x1b].into(),
        ..message(&["KE"], "")
    };
    fr.submit(binary).await.expect("what is no text may be any bytes");
    let newer = [message(&["KE"], "newer").encode_to_vec(), raw::field(99, b"later")].concat();
    submit_raw(fr, newer).await.expect("unknown fields are ignored");

    let request_id = uuid::Uuid::now_v7().to_string();
    let request = SubmitRequest { request_id: request_id.clone(), ..message(&["KE"], "once") };
    let first = fr.submit(request.clone()).await.unwrap();
    assert_eq!(fr.submit(request.clone()).await.unwrap(), first);
    let other = SubmitRequest { request_id, ..marked() };
    let refusal = fr.submit(other).await.unwrap_err();
    assert_eq!(
        (refusal.code, refusal.reason.as_deref().unwrap()),
        (Code::AlreadyExists, "REQUEST_ID_REUSED")
    );
    let request_id = uuid::Uuid::now_v7().to_string();
    let spoiled = SubmitRequest { request_id: request_id.clone(), ..content([]) };
    fr.submit(spoiled).await.unwrap_err();
    let mended = SubmitRequest { request_id, ..message(&["KE"], "mended") };
    fr.submit(mended).await.expect("a refused request does not use up its id");
}
