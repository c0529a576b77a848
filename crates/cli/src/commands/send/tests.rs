//! From flags to request.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use clap::Parser as _;

use super::*;
use crate::args::{Arguments, Command};

const NOW: Timestamp = Timestamp::from_ms(1_795_513_545_678);

fn args(line: &str) -> SendArgs {
    let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
    match arguments.command {
        Command::Send(args) => *args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults_are_the_nodes_own() {
    let request = request(args("bureau send --to ke,BR file"), b"text".to_vec(), NOW);
    assert_eq!(request.recipients, ["KE", "BR"]);
    assert_eq!(request.lane(), wire_envelope::Lane::Routine);
    assert_eq!(request.kind(), wire_envelope::Kind::Message);
    assert_eq!(request.handling_code(), wire_envelope::HandlingCode::H1);
    assert_eq!((request.expire_time, request.content.as_ref()), (None, b"text".as_ref()));
    assert_eq!(Uuid::try_parse(&request.request_id).unwrap().get_version_num(), 7);
}

#[test]
fn attachments_may_be_many() {
    let args = args("bureau send --to KE --attach a,b.pdf --attach c.jpg f");
    assert_eq!(args.attach, ["a,b.pdf", "c.jpg"].map(PathBuf::from));
    assert_eq!(args.file, PathBuf::from("f"));
}

#[test]
fn a_duration_counts_from_now_or_from_the_request_id() {
    let expiry = |line: &str| {
        Timestamp::from_wire(request(args(line), Vec::new(), NOW).expire_time.as_ref()).unwrap()
    };
    assert_eq!(expiry("bureau send --to KE --expires 2h f"), NOW.plus_ms(7_200_000));
    let version_4 =
        "bureau send --to KE --expires 2h --request-id 5e1f3a7c-9b1d-4c3e-8f2a-0123456789ab f";
    assert_eq!(expiry(version_4), NOW.plus_ms(7_200_000));
    // 0x01936e5c7d3a ms after 1970: the same command an hour later is the same request.
    let version_7 =
        "bureau send --to KE --expires 2h --request-id 01936e5c-7d3a-7000-8000-3f2b8c1d9e4f f";
    let begin = Timestamp::from_ms(0x0193_6e5c_7d3a);
    assert_eq!(expiry(version_7), begin.plus_ms(7_200_000));
    let moment = "bureau send --to KE --expires 2027-01-31T12:00:00Z f";
    assert_eq!(expiry(moment).to_string(), "2027-01-31T12:00:00.000Z");
}

#[test]
fn content_is_read_up_to_a_limit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("content");
    std::fs::write(&path, b"\xff\x00 any bytes").unwrap();
    assert_eq!(read(&path).unwrap(), b"\xff\x00 any bytes");
    let size = usize::try_from(CONTENT_BYTES_MAX).unwrap();
    std::fs::write(&path, vec![b'x'; size + 1]).unwrap();
    assert!(matches!(read(&path), Err(CommandError::TooLarge { .. })));
    assert!(matches!(read(&directory.path().join("none")), Err(CommandError::Read { .. })));
}
