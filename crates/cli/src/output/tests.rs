//! What people and programs are shown.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::io::{self, Write};

use bureau_net::status::{ReceivedRefusal, ReceivedViolation};
use tonic::Code;

use super::{capture::output, table::shorten, *};

fn refused(message: &str, violations: &[(&str, &str, &str)]) -> CommandError {
    CommandError::Refused(Box::new(ReceivedRefusal {
        code: Code::InvalidArgument,
        reason: Some("UNKNOWN_BUREAU".to_owned()),
        message: message.to_owned(),
        violations: violations
            .iter()
            .map(|(field, description, reason)| ReceivedViolation {
                field: (*field).to_owned(),
                description: (*description).to_owned(),
                reason: (*reason).to_owned(),
            })
            .collect(),
        retry_after: None,
        metadata: Default::default(),
    }))
}

#[test]
fn columns_are_aligned_and_foreign_text_is_escaped() {
    let (mut output, answers, _) = output(Format::Table);
    let mut table = Table::new(&["#NO", "FROM", "SUBJECT"]);
    table.row(["7", "FR", "short"]);
    table.row(["1234", "IPSG", "\u{1b}[2J and \u{202e}reversed"]);
    output.table(table).unwrap();
    let expected =
        "  NO  FROM  SUBJECT\n   7  FR    short\n1234  IPSG  \\u{1b}[2J and \\u{202e}reversed\n";
    assert_eq!(answers.text(), expected);
}

#[test]
fn a_narrow_terminal_folds_long_cells() {
    let mut table = Table::new(&["NO", "SUBJECT"]);
    table.row(["1", &"word ".repeat(30)]);
    let lines = table.render(Some(60));
    assert!(lines.len() > 2);
    assert!(lines.iter().all(|line| line.chars().count() <= 60), "{lines:?}");
}

#[test]
fn an_empty_table_is_nothing() {
    let (mut output, answers, _) = output(Format::Table);
    output.table(Table::new(&["NO"])).unwrap();
    assert_eq!(answers.text(), "");
}

#[test]
fn texts_are_shortened_by_characters() {
    assert_eq!(shorten("قضية مفقودين", 5), "قضية…");
    assert_eq!(shorten("short", 5), "short");
}

#[test]
fn errors_list_every_fault_on_a_line_of_its_own() {
    let (mut output, answers, errors) = output(Format::Json);
    let faults = [
        ("recipients[1]", "XX is not in the roster", "UNKNOWN_BUREAU"),
        ("subject", "\u{1b}[31m", "CONTROL_CHARACTERS"),
    ];
    output.error(&refused("recipients[1]: XX is not in the roster (and 1 more)", &faults));
    let text = errors.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..3],
        [
            "error: recipients[1]: XX is not in the roster (and 1 more) (UNKNOWN_BUREAU)",
            "  recipients[1]: XX is not in the roster (UNKNOWN_BUREAU)",
            "  subject: \\u{1b}[31m (CONTROL_CHARACTERS)",
        ]
    );
    assert!(lines[3].starts_with("hint: "), "{text}");
    assert_eq!(answers.text(), "");
}

#[test]
fn a_document_is_json_that_steers_nothing() {
    let (mut output, answers, _) = output(Format::Json);
    output.document(&serde_json::json!({ "subject": "\u{9b}2J\u{202e}" })).unwrap();
    output.object(&serde_json::json!({ "number": 1 })).unwrap();
    let text = answers.text();
    assert!(text.contains("\\u009b2J\\u202e"), "{text}");
    assert!(text.ends_with("{\"number\":1}\n"), "{text}");
}

#[tokio::test]
async fn a_reader_that_went_away_is_no_error() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("net");
    let words = ["bureau", "net", "init", path.to_str().unwrap(), "--bureau", "FR,KE"];
    let arguments = <crate::Arguments as clap::Parser>::try_parse_from(words).unwrap();
    let errors = capture::Captured::default();
    let mut output = Output::to(Format::Table, Gone, errors.clone());
    assert_eq!(crate::run(arguments, &mut output).await, 0);
    assert_eq!(errors.text(), "");
}
