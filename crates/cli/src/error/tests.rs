//! Exit codes and hints.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use super::*;

fn refusal(code: Code, reason: Option<&str>) -> CommandError {
    CommandError::Refused(Box::new(ReceivedRefusal {
        code,
        reason: reason.map(str::to_owned),
        message: "no".to_owned(),
        violations: Vec::new(),
        retry_after: None,
        metadata: Default::default(),
    }))
}

fn dial(error: DialError) -> CommandError {
    let (bureau, address) = ("FR".to_owned(), "127.0.0.1:7101".to_owned());
    CommandError::Dial { bureau, address, error: Box::new(error) }
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    for (error, code) in [
        (refusal(Code::InvalidArgument, Some("NO_RECIPIENT")), 67),
        (refusal(Code::NotFound, Some("NOT_FOUND")), 69),
        (refusal(Code::AlreadyExists, Some("REQUEST_ID_REUSED")), 70),
        (refusal(Code::PermissionDenied, Some("NOT_PERMITTED")), 71),
        (refusal(Code::ResourceExhausted, Some("QUEUE_FULL")), 72),
        (refusal(Code::Unavailable, None), 78),
        (refusal(Code::Unauthenticated, None), 80),
        (dial(DialError::UnknownCa), 78),
        (CommandError::NoProfile, 2),
        (InitError::from(crate::net::PlanError::Alone).into(), 2),
        (InitError::NotEmpty("there".into()).into(), 1),
        (io::Error::from(io::ErrorKind::BrokenPipe).into(), 0),
        (io::Error::from(io::ErrorKind::StorageFull).into(), 1),
    ] {
        assert_eq!(error.exit_code(), code, "{error}");
    }
}

#[test]
fn only_what_may_pass_is_tried_again() {
    assert!(refusal(Code::Unavailable, Some("STARTING")).is_transient());
    assert!(refusal(Code::ResourceExhausted, Some("RATE_LIMITED")).is_transient());
    assert!(!refusal(Code::ResourceExhausted, Some("QUEUE_FULL")).is_transient());
    assert!(!refusal(Code::InvalidArgument, None).is_transient());
    assert!(!dial(DialError::UnknownCa).is_transient());
    assert!(dial(DialError::Unreachable { kind: io::ErrorKind::ConnectionRefused }).is_transient());
}

#[test]
fn a_lost_answer_leaves_the_outcome_open_and_a_lost_question_does_not() {
    assert!(refusal(Code::Unavailable, None).leaves_outcome_open());
    assert!(refusal(Code::Unavailable, Some("OUTCOME_UNKNOWN")).leaves_outcome_open());
    assert!(!refusal(Code::Unavailable, Some("STARTING")).leaves_outcome_open());
    assert!(!dial(DialError::Http2).leaves_outcome_open());
    let unsure = CommandError::Unsure {
        request_id: "01936e5c".to_owned(),
        error: Box::new(refusal(Code::Unavailable, None)),
    };
    assert_eq!((unsure.exit_code(), unsure.reason()), (78, Some("UNAVAILABLE")));
    assert!(unsure.hint().unwrap().contains("--request-id 01936e5c"));
}

#[test]
fn hints_fit_the_fault() {
    let hint = |error: CommandError| error.hint().unwrap_or_default();
    assert!(hint(CommandError::NoProfile).contains("BUREAU_DESK"));
    assert!(hint(dial(DialError::UnknownCa)).contains("`ca`"));
    let refused = DialError::Unreachable { kind: io::ErrorKind::ConnectionRefused };
    assert!(hint(dial(refused)).contains("is the node running"));
    assert!(hint(refusal(Code::PermissionDenied, Some("NOT_PERMITTED"))).contains("permissions"));
    assert!(hint(refusal(Code::InvalidArgument, Some("NOT_UTF8"))).contains("--media-type"));
    assert_eq!(hint(refusal(Code::NotFound, Some("NOT_FOUND"))), "");
}
