//! Bad input from a desk: a typed error each, all faults at once, nothing disturbed, no trace.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod harness;

use bureau_proto::{
    desk::v1::{DeliveryState, SubmitManyRequest, SubmitRequest, submit_many_response::Outcome},
    envelope::v1::Lane,
};
use harness::{Network, Program, desk::message, peer::now};
use tokio_stream::StreamExt as _;
use tonic::Code;

/// Stands in every refused content; it must be found nowhere afterwards.
const MARKER: &str = "zanzibar-7731";

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_bureau"))
}

fn good() -> SubmitRequest {
    message(&["KE"], MARKER)
}

/// Requests with one fault each, and the reason and field they are refused for.
fn faults() -> Vec<(SubmitRequest, &'static str, &'static str)> {
    let many: Vec<String> = (0..301).map(|number| format!("B{number}")).collect();
    let to = |codes: &[&str]| message(codes, MARKER);
    let time = |ms: i64| Some(now().plus_ms(ms).to_wire());
    let day_ms = 24 * 3600 * 1000;
    let bytes = |bytes: &'static [u8]| SubmitRequest { content: bytes.into(), ..good() };
    let text = |text: String| SubmitRequest { content: text.into(), ..good() };
    vec![
        (bytes(b""), "BODY_EMPTY", "content"),
        (text(MARKER.repeat(100_000)), "BODY_TOO_LARGE", "content"),
        (bytes(b"zanzibar-7731 \xff\xfe"), "NOT_UTF8", "content"),
        (bytes(b"zanzibar-7731 \x1b[31m"), "CONTROL_CHARACTERS", "content"),
        (text(format!("{MARKER}\u{202e}")), "CONTROL_CHARACTERS", "content"),
        (to(&[]), "NO_RECIPIENT", "recipients"),
        (SubmitRequest { recipients: many, ..good() }, "TOO_MANY_RECIPIENTS", "recipients"),
        (to(&["KE", "KE"]), "DUPLICATE_RECIPIENT", "recipients[1]"),
        (to(&["KE", "FR"]), "SELF_RECIPIENT", "recipients[1]"),
        (to(&["XX"]), "UNKNOWN_BUREAU", "recipients[0]"),
        (to(&["../KE\n"]), "UNKNOWN_BUREAU", "recipients[0]"),
        (SubmitRequest { lane: 9, ..good() }, "UNKNOWN_LANE", "lane"),
        (SubmitRequest { kind: 99, ..good() }, "UNKNOWN_KIND", "kind"),
        (SubmitRequest { handling_code: 99, ..good() }, "FIELD_INVALID", "handling_code"),
        (SubmitRequest { purpose: 99, ..good() }, "FIELD_INVALID", "purpose"),
        (SubmitRequest { expire_time: time(-1), ..good() }, "ALREADY_EXPIRED", "expire_time"),
        (
            SubmitRequest { expire_time: time(31 * day_ms), ..good() },
            "LIFETIME_TOO_LONG",
            "expire_time",
        ),
        (
            SubmitRequest {
                expire_time: Some(prost_types::Timestamp { seconds: -5, nanos: -1 }),
                ..good()
            },
            "MALFORMED",
            "expire_time",
        ),
        (SubmitRequest { subject: "x".repeat(201), ..good() }, "FIELD_TOO_LONG", "subject"),
        (SubmitRequest { subject: "a\nb".into(), ..good() }, "CONTROL_CHARACTERS", "subject"),
        (
            SubmitRequest { case_reference: "x".repeat(65), ..good() },
            "FIELD_TOO_LONG",
            "case_reference",
        ),
        (SubmitRequest { media_type: "x".repeat(101), ..good() }, "FIELD_TOO_LONG", "media_type"),
        (SubmitRequest { request_id: "7".into(), ..good() }, "REQUEST_ID_INVALID", "request_id"),
        (SubmitRequest { in_reply_to: "abc".into(), ..good() }, "MALFORMED", "in_reply_to"),
        (SubmitRequest { replaces: "é".repeat(26), ..good() }, "MALFORMED", "replaces"),
    ]
}

#[tokio::test]
async fn every_fault_has_its_reason_and_leaves_no_trace() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start_all(&["FR", "KE"]).await;
    let fr = network.desk("FR");
    fr.linked("KE", true).await;
    for (request, reason, field) in faults() {
        let refusal = fr.submit(request).await.unwrap_err();
        assert_eq!(refusal.code, Code::InvalidArgument, "{reason}");
        assert_eq!(refusal.reason.as_deref(), Some(reason), "{refusal:?}");
        let found = refusal.violations.iter().any(|v| v.field == field && v.reason == reason);
        assert!(found, "{reason} in {field}: {:?}", refusal.violations);
    }
    // All faults at once.
    let all = SubmitRequest {
        recipients: vec!["KE".into(), "KE".into(), "FR".into(), "XX".into()],
        subject: "a\u{7}".into(),
        lane: 9,
        content: bytes::Bytes::new(),
        ..SubmitRequest::default()
    };
    let refusal = fr.submit(all).await.unwrap_err();
    assert_eq!(refusal.violations.len(), 6, "{:?}", refusal.violations);

    assert!(!harness::holds(&network.home("FR").join("data"), MARKER));
    assert!(!network.log("FR").contains(MARKER));
    assert_eq!(fr.depths().await, []);
    // Nothing else is disturbed.
    let id = fr.send(&["KE"], "good").await;
    fr.tracked(&id, "KE", DeliveryState::Delivered).await;
    assert_eq!(network.desk("KE").inbox().await, [(1, id)]);
}

#[tokio::test]
async fn a_stream_answers_each_in_order_and_goes_on() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    let mut requests = Vec::new();
    let mut expected = Vec::new();
    for (request, reason, _) in faults() {
        requests.push(SubmitManyRequest { request: Some(request) });
        expected.push(Some(reason));
        requests.push(SubmitManyRequest { request: Some(message(&["KE"], "good")) });
        expected.push(None);
    }
    let mut client = network.desk("FR").client().await;
    let stream = client.submit_many(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let responses: Vec<_> = stream.collect().await;
    assert_eq!(responses.len(), expected.len());
    for (response, expected) in responses.into_iter().zip(&expected) {
        match (response.unwrap().outcome.unwrap(), expected) {
            (Outcome::Accepted(_), None) => {}
            (Outcome::Error(error), Some(reason)) => assert_eq!(error.reason, *reason),
            other => panic!("{other:?}"),
        }
    }
    let accepted = expected.len() as u64 / 2;
    assert_eq!(network.desk("FR").depths().await[0].messages, accepted);
}

/// Sends bytes as the message of a call, whatever they are.
async fn raw(network: &Network, bytes: Vec<u8>) -> bureau_net::status::ReceivedRefusal {
    let channel = network.desk("FR").channel().await.unwrap().channel();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = "/bureau.desk.v1.DeskService/Submit".parse().unwrap();
    let request = tonic::Request::new(bytes);
    let answer: Result<tonic::Response<()>, _> = grpc.unary(request, path, RawCodec).await;
    bureau_net::Refusal::from_status(&answer.unwrap_err())
}

#[derive(Debug, Clone, Copy)]
struct RawCodec;

impl tonic::codec::Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for RawCodec {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(
        &mut self,
        item: Vec<u8>,
        buffer: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), tonic::Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for RawCodec {
    type Item = ();
    type Error = tonic::Status;

    fn decode(
        &mut self,
        buffer: &mut tonic::codec::DecodeBuf<'_>,
    ) -> Result<Option<()>, tonic::Status> {
        bytes::Buf::advance(buffer, bytes::Buf::remaining(buffer));
        Ok(Some(()))
    }
}

#[tokio::test]
async fn what_cannot_be_decoded_is_refused_by_name() {
    use prost::Message as _;
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    // Field 2 as a text that is not UTF-8; a length beyond the end; a field of another type.
    for (bytes, reason) in [
        (vec![0x12, 2, 0xff, 0xfe], "NOT_UTF8"),
        (vec![0x12, 0x7f, b'K'], "MALFORMED"),
        (vec![0x10, 1], "MALFORMED"),
    ] {
        let refusal = raw(&network, bytes).await;
        assert_eq!(refusal.reason.as_deref(), Some(reason), "{refusal:?}");
        assert_eq!(refusal.code, Code::InvalidArgument);
    }
    let huge = SubmitRequest { content: vec![b'x'; 5 << 20].into(), ..good() };
    let refusal = raw(&network, huge.encode_to_vec()).await;
    assert_eq!(refusal.reason.as_deref(), Some("TOO_LARGE"), "{refusal:?}");
    // A field that a newer client knows: no error.
    let mut newer = good().encode_to_vec();
    newer.extend_from_slice(&[0xc2, 0x3e, 3, b'n', b'e', b'w']);
    let channel = network.desk("FR").channel().await.unwrap().channel();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = "/bureau.desk.v1.DeskService/Submit".parse().unwrap();
    let request = tonic::Request::new(newer);
    let answer: Result<tonic::Response<()>, _> = grpc.unary(request, path, RawCodec).await;
    assert!(answer.is_ok(), "{answer:?}");
}

#[tokio::test]
async fn desks_do_only_what_they_may_and_not_too_fast() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.configure("FR", |text| {
        let text = text.replace("\"receive\", \"operate\"", "\"publish\"");
        text.replace("[policy]", "[limits]\ndesk_messages_per_second = 5\n\n[policy]")
    });
    network.start("FR").await;
    let fr = network.desk("FR");
    let refused = |status: tonic::Status| bureau_net::Refusal::from_status(&status).reason;
    let everything = bureau_proto::desk::v1::ListInboxRequest::default();
    let mut client = fr.client().await;
    let listed = client.list_inbox(everything);
    assert_eq!(refused(listed.await.unwrap_err()).as_deref(), Some("NOT_PERMITTED"));
    let status = fr.admin().await.get_status(bureau_proto::admin::v1::GetStatusRequest {}).await;
    assert_eq!(refused(status.unwrap_err()).as_deref(), Some("NOT_PERMITTED"));
    let flash = SubmitRequest { lane: Lane::Flash.into(), ..message(&["KE"], "x") };
    let mut limited = None;
    for _ in 0..20 {
        if let Err(refusal) = fr.submit(flash.clone()).await {
            limited = Some(refusal);
        }
    }
    let limited = limited.unwrap();
    assert_eq!(limited.reason.as_deref(), Some("RATE_LIMITED"));
    assert_eq!(limited.code, Code::ResourceExhausted);
    assert!(limited.retry_after.is_some());
}
