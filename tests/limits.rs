//! What a caller may take of a node: silence, headers, streams, slow reading, and long lists. Past
//! each limit there is a typed refusal or the end of that connection; nobody else is disturbed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod harness;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bureau_net::{Refusal, server};
use bureau_proto::{
    admin::v1::ListQueueRequest,
    desk::v1::{
        AcknowledgeRequest, GetInboxMessageRequest, ListInboxRequest, SubmitManyRequest,
        TrackRequest, WatchInboxRequest, desk_service_client::DeskServiceClient,
        submit_many_response::Outcome,
    },
};
use harness::{Desk, Network, Program, desk::message, tls};
use tokio::{io::AsyncReadExt as _, net::TcpSocket};
use tokio_stream::StreamExt as _;
use tonic::{Request, Status};

async fn network(running: &[&str]) -> Network {
    let program = Program::at(env!("CARGO_BIN_EXE_bureau"));
    let mut network = Network::mesh(program, &["FR", "KE"], "IPSG");
    network.start_all(running).await;
    network
}

fn reason(status: &Status) -> String {
    Refusal::from_status(status).reason.unwrap_or_else(|| format!("no reason: {status:?}"))
}

/// Sockets that say nothing, from addresses of their own: one alone is bounded to 32.
#[tokio::test]
async fn a_hundred_silent_sockets_delay_nobody_and_are_closed() {
    let network = network(&["FR"]).await;
    let fr = network.desk("FR");
    let desk_face: SocketAddr = tls::face(&network, "FR", "desk").parse().unwrap();
    let began = Instant::now();
    let mut silent = Vec::new();
    for number in 0..100_u8 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 1, number / 25], 0).into()).unwrap();
        silent.push(socket.connect(desk_face).await.unwrap());
    }
    let honest = Instant::now();
    fr.send(&["KE"], "among the silent").await;
    assert!(honest.elapsed() < Duration::from_secs(2), "delayed by {:?}", honest.elapsed());
    // Many more from one address than it may have: refused at once, the others go on.
    for _ in 0..40 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 1, 9], 0).into()).unwrap();
        silent.push(socket.connect(desk_face).await.unwrap());
    }
    network.logged("FR", &["handshake_refused", "reason=TOO_MANY_HANDSHAKES"]).await;
    fr.send(&["KE"], "still among the silent").await;
    for mut socket in silent {
        let limit = Duration::from_secs(10).saturating_sub(began.elapsed());
        let closed = tokio::time::timeout(limit, socket.read_to_end(&mut Vec::new())).await;
        // A reset is an end, too.
        drop(closed.expect("a silent socket is still open"));
        assert!(began.elapsed() > Duration::from_secs(4), "the first had less than its time");
    }
    network.logged("FR", &["handshake_refused", "reason=TIMEOUT"]).await;
}

#[tokio::test]
async fn headers_and_streams_of_one_connection_are_bounded() {
    let network = network(&["FR"]).await;
    let fr = network.desk("FR");
    let channel = fr.channel().await.unwrap().channel();
    let mut client = DeskServiceClient::new(channel);

    let limit = usize::try_from(server::HEADER_LIST_BYTES_MAX).unwrap();
    let with_header = |bytes: usize| {
        let mut request = Request::new(message(&["KE"], "with a header"));
        request.metadata_mut().insert("x-large", "x".repeat(bytes).parse().unwrap());
        request
    };
    client.submit(with_header(limit / 2)).await.expect("half of the limit");
    let refused = client.submit(with_header(limit + 1)).await.unwrap_err();
    // HTTP/2 answers before any service can: 431, Request Header Fields Too Large.
    assert!(refused.message().contains("431"), "{refused:?}");
    client.track(TrackRequest::default()).await.expect_err("the connection goes on");
    let queued = || async { fr.depths().await.iter().map(|depth| depth.messages).sum::<u64>() };
    assert_eq!(queued().await, 1, "{refused:?}");

    // Streams up to the limit are open; the next waits until one has ended.
    let mut client = fr.client().await;
    let mut watches = Vec::new();
    for _ in 0..server::STREAMS_MAX {
        watches.push(client.watch_inbox(WatchInboxRequest::default()).await.unwrap());
    }
    let mut waiting = client.clone();
    let one_more = waiting.submit(message(&["KE"], "one more"));
    tokio::pin!(one_more);
    let early = tokio::time::timeout(Duration::from_millis(300), one_more.as_mut()).await;
    assert!(early.is_err(), "a stream above the limit: {early:?}");
    fr.send(&["KE"], "on another connection").await;
    watches.pop();
    one_more.await.expect("a place is free again");
    assert_eq!(queued().await, 3);
}

/// A desk that opens its inbox and reads nothing holds up neither the link nor other desks.
#[tokio::test]
async fn a_desk_that_does_not_read_holds_nobody_up() {
    let network = network(&["FR", "KE"]).await;
    let (fr, ke) = (network.desk("FR"), network.desk("KE"));
    let asleep = ke.watch(0).await;
    let text = "x".repeat(256 * 1024);
    let mut ids = Vec::new();
    for _ in 0..24 {
        ids.push(fr.send(&["KE"], &text).await);
    }
    let mut awake = ke.watch(0).await;
    let mut arrived = Vec::new();
    for _ in 0..24 {
        arrived.push(awake.next().await.unwrap().entry.unwrap().message_id);
    }
    ids.sort();
    arrived.sort();
    assert_eq!(arrived, ids);
    // What it missed is still there for it.
    let mut late = asleep;
    for number in 1..=24 {
        assert_eq!(late.next().await.unwrap().entry.unwrap().number, number);
    }
}

#[tokio::test]
async fn what_is_asked_for_is_bounded_and_named() {
    let network = network(&["FR"]).await;
    let fr = network.desk("FR");
    let mut client = fr.client().await;
    let list = |page_size, page_token: &str| ListInboxRequest {
        page_size,
        page_token: page_token.to_owned(),
        include_acknowledged: false,
    };
    for (expected, request) in [
        ("FIELD_INVALID", list(-1, "")),
        ("INVALID_PAGE_TOKEN", list(1, "no token")),
        ("INVALID_PAGE_TOKEN", list(1, "\u{202e}1")),
    ] {
        let refused = client.list_inbox(request).await.unwrap_err();
        assert_eq!(reason(&refused), expected, "{refused:?}");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
    }
    client.list_inbox(list(i32::MAX, "")).await.expect("the most there may be");
    for (expected, id) in [
        ("MALFORMED", ""),
        ("MALFORMED", "abc"),
        ("MALFORMED", "../../../etc"),
        ("MALFORMED", "aaaaaa\u{0}"),
        ("NOT_FOUND", "aaaaaa"),
    ] {
        let track = TrackRequest { message_id: id.to_owned() };
        assert_eq!(reason(&client.track(track).await.unwrap_err()), expected, "track {id:?}");
        let show = GetInboxMessageRequest { message_id: id.to_owned() };
        let shown = client.get_inbox_message(show).await.unwrap_err();
        assert_eq!(reason(&shown), expected, "show {id:?}");
        let take = AcknowledgeRequest { message_ids: vec![id.to_owned()] };
        assert_eq!(reason(&client.acknowledge(take).await.unwrap_err()), expected, "take {id:?}");
    }
    for (expected, ids) in [("FIELD_INVALID", 0), ("FIELD_INVALID", 501)] {
        let take = AcknowledgeRequest { message_ids: vec!["#1".to_owned(); ids] };
        assert_eq!(reason(&client.acknowledge(take).await.unwrap_err()), expected, "{ids} ids");
    }
    let shown = client.get_inbox_message(GetInboxMessageRequest { message_id: "#0".to_owned() });
    assert!(["MALFORMED", "NOT_FOUND"].contains(&&*reason(&shown.await.unwrap_err())));
    queue_requests(&fr).await;
    a_stream_ends_at_what_is_too_large(&fr).await;
}

async fn queue_requests(fr: &Desk) {
    let mut admin = fr.admin().await;
    for (expected, request) in [
        ("FIELD_INVALID", ListQueueRequest { page_size: -1, ..ListQueueRequest::default() }),
        ("MALFORMED", ListQueueRequest { recipient: "ke".into(), ..ListQueueRequest::default() }),
        (
            "INVALID_PAGE_TOKEN",
            ListQueueRequest { page_token: "KE.9.x".into(), ..ListQueueRequest::default() },
        ),
    ] {
        let refused = admin.list_queue(request).await.unwrap_err();
        assert_eq!(reason(&refused), expected, "{refused:?}");
    }
}

/// A request above the transport's limit cannot be skipped: the stream ends, what came before it
/// stays accepted.
async fn a_stream_ends_at_what_is_too_large(fr: &Desk) {
    let large = "x".repeat(server::MESSAGE_BYTES_MAX + 1);
    let requests = ["before", &large, "after"].map(|text| message(&["KE"], text));
    let stream =
        tokio_stream::iter(requests.map(|request| SubmitManyRequest { request: Some(request) }));
    let mut responses = fr.client().await.submit_many(stream).await.unwrap().into_inner();
    let first = responses.next().await.unwrap().unwrap().outcome.unwrap();
    let Outcome::Accepted(accepted) = first else { panic!("{first:?}") };
    let refused = responses.next().await.unwrap().unwrap_err();
    assert_eq!(reason(&refused), "TOO_LARGE", "{refused:?}");
    assert!(responses.next().await.is_none());
    assert_eq!(fr.track(&accepted.message_id).await.recipients.len(), 1);
}
