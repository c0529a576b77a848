#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;

fn violation(field: &str, reason: Reason) -> FieldViolation {
    FieldViolation { field: field.to_owned(), description: "is wrong".to_owned(), reason }
}

#[test]
fn a_refusal_comes_back_whole() {
    let mut refusal = Refusal::of_fields(vec![
        violation("recipients[0]", Reason::SelfRecipient),
        violation("expire_time", Reason::LifetimeTooLong),
    ])
    .unwrap()
    .retry_after(Duration::from_millis(1500))
    .with("limit", 300);
    refusal.message = "two things".to_owned();

    let status = Status::from(refusal);
    assert_eq!(status.code(), Code::InvalidArgument);
    let received = Refusal::from_status(&status);

    assert!(received.is(Reason::SelfRecipient));
    assert_eq!(received.message, "two things");
    assert_eq!(received.retry_after, Some(Duration::from_millis(1500)));
    assert_eq!(received.metadata.get("limit").map(String::as_str), Some("300"));
    let fields: Vec<_> =
        received.violations.iter().map(|v| (v.field.as_str(), v.reason.as_str())).collect();
    assert_eq!(fields, [("recipients[0]", "SELF_RECIPIENT"), ("expire_time", "LIFETIME_TOO_LONG")]);
}

#[test]
fn every_reason_survives_the_wire() {
    for reason in Reason::ALL {
        let status = Status::from(Refusal::new(*reason, "text"));
        assert_ne!(status.code(), Code::Ok);
        assert_ne!(status.code(), Code::Unknown);
        assert!(Refusal::from_status(&status).is(*reason), "{reason}");
    }
}

#[test]
fn floods_say_when_to_come_back_and_which_quota() {
    let refusal = Refusal::new(Reason::RateLimited, "more than 100 a second")
        .retry_after(Duration::from_secs(2));
    let status = Status::from(refusal);
    assert_eq!(status.code(), Code::ResourceExhausted);
    let quota = status.get_details_quota_failure().unwrap();
    assert_eq!(quota.violations[0].subject, "RATE_LIMITED");
    let retry = status.get_details_retry_info().unwrap();
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(2)));
}

#[test]
fn statuses_of_others_are_read_too() {
    let plain = Refusal::from_status(&Status::unavailable("tcp connect error"));
    assert_eq!((plain.code, plain.reason), (Code::Unavailable, None));

    let mut details = ErrorDetails::new();
    details.set_error_info("NOT_FOUND", "other.example", HashMap::new());
    let foreign = Status::with_error_details(Code::NotFound, "x", details);
    assert_eq!(Refusal::from_status(&foreign).reason, None);

    let mut details = ErrorDetails::new();
    details.set_error_info("FROM_THE_FUTURE", DOMAIN, HashMap::new());
    let newer = Status::with_error_details(Code::Aborted, "x", details);
    let newer = Refusal::from_status(&newer);
    assert_eq!(newer.reason.as_deref(), Some("FROM_THE_FUTURE"));
    assert_eq!(newer.known_reason(), None);

    let garbage = Status::with_details(Code::Internal, "x", vec![0xff; 64].into());
    assert_eq!(Refusal::from_status(&garbage).reason, None);
}

#[test]
fn details_fit_into_a_header() {
    let violations: Vec<_> =
        (0..300).map(|n| violation(&format!("recipients[{n}]"), Reason::UnknownBureau)).collect();
    let mut refusal = Refusal::of_fields(violations).unwrap();
    for _ in 0..100 {
        refusal = refusal.with("k", "v".repeat(400));
    }
    refusal.message = "é".repeat(5000);
    let status = Status::from(refusal);

    // base64 makes four of three; grpcio takes 8 KiB of headers by default.
    assert!(status.details().len() * 4 / 3 < 8 * 1024, "{}", status.details().len());
    let received = Refusal::from_status(&status);
    assert!(received.message.len() <= MESSAGE_BYTES_MAX);
    let omitted: usize = received.metadata.get(OMITTED).unwrap().parse().unwrap();
    assert!(!received.violations.is_empty());
    assert_eq!(received.violations.len() + omitted, 300);
}

#[test]
fn a_message_cannot_steer_a_terminal() {
    let status = Status::from(Refusal::new(Reason::Malformed, "a\u{1b}[31m\n\u{202e}b"));
    assert_eq!(status.message(), "a\u{fffd}[31m\u{fffd}\u{fffd}b");
}

#[test]
fn no_violation_is_no_refusal() {
    assert_eq!(Refusal::of_fields(Vec::new()), None);
}
