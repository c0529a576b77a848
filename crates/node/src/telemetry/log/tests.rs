#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex},
};

use tracing::{error, info, warn};

use super::*;
use crate::config::LogLevel;

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is written while something runs.
fn logged_as(look: Look, level: LogLevel, variable: Option<&str>, run: impl FnOnce()) -> String {
    let capture = Capture::default();
    let made = capture.clone();
    let log = Log { format: look.format, level };
    let subscriber = tracing_subscriber::registry()
        .with(layer(look, move || made.clone()))
        .with(filter(&log, variable).unwrap());
    tracing::subscriber::with_default(subscriber, run);
    let bytes = capture.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn logged(format: LogFormat, run: impl FnOnce()) -> String {
    let look = Look { format, colors: false, priorities: false };
    logged_as(look, LogLevel::Info, None, run)
}

/// Two hundred texts that somebody might send to be believed: every control character, every
/// character that reorders or hides, alone and in forged lines.
fn hostile() -> Vec<String> {
    let controls = ('\0'..='\u{9f}').filter(|c| c.is_control());
    let hidden = "\u{ad}\u{61c}\u{180e}\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\
                  \u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2060}\u{2066}\u{2067}\u{2068}\u{2069}\
                  \u{feff}\u{fff9}\u{fffb}\u{e0001}\u{e0041}\u{e007f}";
    let mut texts = Vec::new();
    for c in controls.chain(hidden.chars()) {
        texts.push(format!("a{c}b"));
        texts.push(format!("{c}2026-11-23T10:00:00.000Z INFO  message_accepted message=\"{c}"));
    }
    for text in [
        "",
        " ",
        "\"",
        "\\",
        "\\\"",
        "\\n",
        "a=b",
        "a b=c",
        "\"} ",
        "{\"event\":\"x\"}",
        "\",\"event\":\"forged\",\"x\":\"",
        "x\"}\n{\"ts\":\"2026\",\"level\":\"INFO\",\"event\":\"forged\"}",
        "\r\n\r\n",
        "\u{1b}[2J\u{1b}[H",
        "\u{1b}]0;title\u{7}",
        "naïve 日本語 Ελλάδα العربية",
        "🚓",
        "%s%n",
        "${jndi:ldap://x}",
    ] {
        texts.push(text.to_owned());
    }
    texts
}

fn is_hostile(c: char) -> bool {
    let ranges = "\u{ad}\u{61c}\u{180e}\u{2028}\u{2029}\u{2060}\u{feff}\u{fff9}\u{fffb}";
    c.is_control()
        || ranges.contains(c)
        || ('\u{200b}'..='\u{200f}').contains(&c)
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
        || ('\u{e0000}'..='\u{e007f}').contains(&c)
}

/// Parses one flat JSON object of texts, numbers and truths; strict about what is in a text.
fn parse(line: &str) -> BTreeMap<String, String> {
    let mut rest = line.strip_prefix('{').unwrap().chars().peekable();
    let mut fields = BTreeMap::new();
    loop {
        let name = string(&mut rest);
        assert_eq!(rest.next(), Some(':'), "{line}");
        let value = match rest.peek() {
            Some('"') => string(&mut rest),
            _ => std::iter::from_fn(|| rest.next_if(|c| !matches!(c, ',' | '}'))).collect(),
        };
        assert!(fields.insert(name, value).is_none(), "a name stands twice: {line}");
        match rest.next() {
            Some(',') => {}
            Some('}') => break,
            other => panic!("{other:?} in {line}"),
        }
    }
    assert_eq!(rest.next(), None, "{line}");
    fields
}

fn string(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    assert_eq!(rest.next(), Some('"'));
    let mut units: Vec<u16> = Vec::new();
    loop {
        let c = match rest.next().unwrap() {
            '"' => break,
            '\\' => match rest.next().unwrap() {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let hex: String = rest.take(4).collect();
                    units.push(u16::from_str_radix(&hex, 16).unwrap());
                    continue;
                }
                c => {
                    assert!(matches!(c, '"' | '\\'), "{c}");
                    c
                }
            },
            c => c,
        };
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16(&units).unwrap()
}

#[test]
fn nobody_can_forge_a_line() {
    let texts = hostile();
    assert!(texts.len() >= 200, "{}", texts.len());
    for text in &texts {
        let log = || {
            info!(event = "request_refused", detail = text.as_str(), shown = %text, held = ?text, n = 1);
        };
        for format in LogFormat::ALL {
            let lines = logged(format, log);
            let line = lines.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(is_hostile), "{format:?} {text:?}: {line:?}");
        }
        let fields = parse(logged(LogFormat::Json, log).trim_end_matches('\n'));
        assert_eq!(fields["event"], "request_refused");
        assert_eq!((&fields["detail"], &fields["shown"]), (text, text));
        assert_eq!((fields.len(), &*fields["n"]), (8, "1"));
    }
}

#[test]
fn a_hostile_event_name_or_target_is_escaped_too() {
    for text in &hostile() {
        for format in LogFormat::ALL {
            let lines = logged(format, || info!(event = text.as_str(), a = 1));
            assert_eq!(lines.chars().filter(|c| is_hostile(*c)).count(), 1, "{lines:?}");
            // As the `log` crate hands a target on.
            let lines = logged(format, || info!(log.target = text.as_str(), log.line = 7, a = 1));
            assert_eq!(lines.chars().filter(|c| is_hostile(*c)).count(), 1, "{lines:?}");
            assert!(!lines.contains("log.line"), "{lines}");
        }
    }
}

#[test]
fn a_human_line_is_scanned_by_columns() {
    let lines = logged(LogFormat::Human, || {
        info!(event = "message_accepted", message = %"abc", desk = "a", recipients = 2, ok = true);
        warn!(event = "link_down", peer = "KE", detail = "no route", none = Option::<u8>::None);
    });
    let lines: Vec<&str> =
        lines.lines().map(|line| line.split_at("2026-11-23T10:00:00.000Z".len()).1).collect();
    assert_eq!(
        lines,
        [
            " INFO  message_accepted       message=abc desk=a recipients=2 ok=true",
            " WARN  link_down              peer=KE detail=\"no route\"",
        ]
    );
}

#[test]
fn a_json_line_is_one_flat_object() {
    let source = io::Error::new(io::ErrorKind::NotFound, "gone");
    let line = logged(LogFormat::Json, || {
        let error: &(dyn std::error::Error + 'static) = &source;
        error!(event = "x", n = -5, big = u128::MAX, half = 0.5, nan = f64::NAN, yes = true, error);
    });
    let fields = parse(line.trim_end());
    assert_eq!(fields["level"], "ERROR");
    assert!(fields["target"].ends_with("telemetry::log::tests"));
    assert_eq!(fields["ts"].len(), "2026-11-23T10:00:00.000Z".len());
    assert_eq!((&*fields["n"], &*fields["half"], &*fields["yes"]), ("-5", "0.5", "true"));
    assert_eq!((&*fields["nan"], &*fields["error"]), ("NaN", "gone"));
    let line = logged(LogFormat::Json, || info!(event = "x", level = "y", ts = 1, target = "z"));
    let fields = parse(line.trim_end());
    assert_eq!((&*fields["level"], &*fields["level_"], &*fields["ts_"]), ("INFO", "y", "1"));
}

#[test]
fn a_long_value_is_cut() {
    let text = "é".repeat(100_000);
    for format in LogFormat::ALL {
        let line = logged(format, || info!(event = "x", text));
        assert!(line.len() < 10_000 && line.contains('…'), "{}", line.len());
    }
}

#[test]
fn libraries_are_quiet_and_the_variable_overrides() {
    let run = || {
        info!(target: "h2::codec", "connected");
        warn!(target: "h2::codec", "broken\npipe");
        info!(target: "bureau_store::journal", event = "checkpoint");
        tracing::debug!(target: "bureau_net", event = "dialed");
    };
    let look = Look { format: LogFormat::Human, colors: false, priorities: false };
    let names = |level, variable| -> Vec<String> {
        let lines = logged_as(look, level, variable, run);
        lines.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    };
    let unnamed = "WARN  unnamed                target=h2::codec message=\"broken\\npipe\"";
    assert_eq!(names(LogLevel::Info, None), [unnamed, "INFO  checkpoint"]);
    assert_eq!(names(LogLevel::Error, Some(" ")), [unnamed]);
    assert_eq!(names(LogLevel::Debug, None).len(), 3);
    assert_eq!(names(LogLevel::Info, Some("debug")).len(), 4);
    assert_eq!(names(LogLevel::Info, Some("bureau_net=debug")), ["DEBUG dialed"]);
    assert!(filter(&Log::default(), Some("bureau=loud")).is_err());
}

#[test]
fn terminals_get_colors_and_the_journal_priorities() {
    let look = Look { format: LogFormat::Human, colors: true, priorities: false };
    let line = logged_as(look, LogLevel::Info, None, || warn!(event = "x"));
    assert!(line.contains(" \u{1b}[33mWARN \u{1b}[0m x"), "{line:?}");
    let look = Look { format: LogFormat::Json, colors: false, priorities: true };
    let lines = logged_as(look, LogLevel::Info, None, || {
        error!(event = "x");
        info!(event = "x");
    });
    let begins: Vec<&str> = lines.lines().map(|line| &line[..4]).collect();
    assert_eq!(begins, ["<3>{", "<6>{"]);
}
