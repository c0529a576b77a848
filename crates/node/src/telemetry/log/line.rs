//! How an event becomes a line.

use std::{
    error::Error,
    fmt::{self, Write as _},
    time::{SystemTime, UNIX_EPOCH},
};

use bureau_core::Timestamp;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::config::LogFormat;

/// What is kept of a value: more than any event of the node holds. A library's may be longer.
const VALUE_BYTES_MAX: usize = 8 * 1024;
/// Causes of an error that are told.
const CAUSES_MAX: usize = 8;
/// Width of the event's name among columns.
const EVENT_WIDTH: usize = 22;
/// The name of events without one: those of libraries.
const UNNAMED: &str = "unnamed";

/// What lines look like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) format: LogFormat,
    /// Levels are colored.
    pub(super) colors: bool,
    /// Each line begins with its priority, for the journal.
    pub(super) priorities: bool,
}

/// Formats events as lines.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) look: Look,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let level = *metadata.level();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = Timestamp::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        // What comes through the `log` crate names its target in a field.
        let target = fields.target.take().unwrap_or_else(|| metadata.target().to_owned());
        if self.look.priorities {
            write!(writer, "<{}>", priority(level))?;
        }
        match self.look.format {
            LogFormat::Human => {
                let level = Colored { level, colors: self.look.colors };
                human(&mut writer, &time, level, &target, &fields)
            }
            LogFormat::Json => json(&mut writer, &time, level, &target, &fields),
        }
    }
}

fn human(
    writer: &mut Writer<'_>,
    time: &Timestamp,
    level: Colored,
    target: &str,
    fields: &Fields,
) -> fmt::Result {
    write!(writer, "{time} {level} ")?;
    let mut name = String::new();
    escape(&mut name, fields.event.as_deref().unwrap_or(UNNAMED), Quotes::None)?;
    // Padded only where something follows: no line ends in spaces.
    let alone = fields.event.is_some() && fields.others.is_empty();
    let width = if alone { 0 } else { EVENT_WIDTH };
    write!(writer, "{name:width$}")?;
    if fields.event.is_none() {
        writer.write_str(" target=")?;
        plain_or_quoted(writer, target)?;
    }
    for (name, value) in &fields.others {
        write!(writer, " {name}=")?;
        match value {
            Value::Bare(text) => writer.write_str(text)?,
            Value::Text(text) => plain_or_quoted(writer, text)?,
        }
    }
    writer.write_char('\n')
}

/// A value as it is where it is one word, else in quotes.
fn plain_or_quoted(writer: &mut Writer<'_>, text: &str) -> fmt::Result {
    let word = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\\' | '=') && !is_unsafe(c);
    if !text.is_empty() && text.chars().all(word) {
        return writer.write_str(text);
    }
    writer.write_char('"')?;
    escape(writer, text, Quotes::Human)?;
    writer.write_char('"')
}

fn json(
    writer: &mut Writer<'_>,
    time: &Timestamp,
    level: Level,
    target: &str,
    fields: &Fields,
) -> fmt::Result {
    write!(writer, "{{\"ts\":\"{time}\",\"level\":\"{level}\",\"event\":\"")?;
    escape(writer, fields.event.as_deref().unwrap_or(UNNAMED), Quotes::Json)?;
    writer.write_str("\",\"target\":\"")?;
    escape(writer, target, Quotes::Json)?;
    writer.write_char('"')?;
    for (name, value) in &fields.others {
        // The object is flat: a field may not take the place of what every line has.
        let taken = matches!(*name, "ts" | "level" | "event" | "target");
        write!(writer, ",\"{name}{}\":", if taken { "_" } else { "" })?;
        match value {
            Value::Bare(text) => writer.write_str(text)?,
            Value::Text(text) => {
                writer.write_char('"')?;
                escape(writer, text, Quotes::Json)?;
                writer.write_char('"')?;
            }
        }
    }
    writer.write_str("}\n")
}

/// What is around an escaped text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    None,
    Human,
    Json,
}

fn escape(writer: &mut impl fmt::Write, text: &str, quotes: Quotes) -> fmt::Result {
    for c in text.chars() {
        match c {
            '"' | '\\' if quotes != Quotes::None => write!(writer, "\\{c}")?,
            '\n' => writer.write_str("\\n")?,
            '\t' => writer.write_str("\\t")?,
            '\r' => writer.write_str("\\r")?,
            c if is_unsafe(c) && quotes == Quotes::Json => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            c if is_unsafe(c) => write!(writer, "\\u{{{:x}}}", u32::from(c))?,
            c => writer.write_char(c)?,
        }
    }
    Ok(())
}

/// Whether a character may change how the text around it is shown: what steers a terminal, ends a
/// line, reorders text (Unicode Standard Annex 9), or is there and not seen.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// Priorities of syslog (RFC 5424, 6.2.1), as `sd-daemon(3)` writes them.
const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[derive(Clone, Copy)]
struct Colored {
    level: Level,
    colors: bool,
}

impl fmt::Display for Colored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, colors } = *self;
        let color = match level {
            Level::ERROR => "31",
            Level::WARN => "33",
            Level::INFO => "32",
            _ => "2",
        };
        match colors {
            true => write!(f, "\u{1b}[{color}m{:5}\u{1b}[0m", level.as_str()),
            false => write!(f, "{:5}", level.as_str()),
        }
    }
}

/// The fields of one event, in its order.
#[derive(Default)]
struct Fields {
    event: Option<String>,
    target: Option<String>,
    others: Vec<(&'static str, Value)>,
}

enum Value {
    /// A number, true or false.
    Bare(String),
    Text(String),
}

impl Fields {
    fn text(&mut self, field: &Field, value: impl fmt::Display) {
        let mut text = Bounded::default();
        // Only a value's own Display can fail here, and then what it wrote is kept.
        let complete = write!(text, "{value}").is_ok() && !text.cut;
        let mut text = text.text;
        if !complete {
            text.push('…');
        }
        match field.name() {
            "event" => self.event = Some(text),
            "log.target" => self.target = Some(text),
            // Where in a library's source the line came from is of no use to an operator.
            name if name.starts_with("log.") => {}
            name => self.others.push((name, Value::Text(text))),
        }
    }

    fn bare(&mut self, field: &Field, value: impl fmt::Display) {
        if !field.name().starts_with("log.") {
            self.others.push((field.name(), Value::Bare(value.to_string())));
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.bare(field, value),
            false => self.text(field, value),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.bare(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.bare(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        // An error's causes are what an operator needs most.
        let mut text = value.to_string();
        let mut cause = value.source();
        for _ in 0..CAUSES_MAX {
            let Some(error) = cause else { break };
            let told = error.to_string();
            // Many errors name their cause themselves.
            if !text.contains(&told) {
                text = format!("{text}: {told}");
            }
            cause = error.source();
        }
        self.text(field, text);
    }
}

/// A text that stops growing.
#[derive(Default)]
struct Bounded {
    text: String,
    cut: bool,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = VALUE_BYTES_MAX.saturating_sub(self.text.len());
        let kept = more.floor_char_boundary(room);
        self.text.push_str(more.get(..kept).unwrap_or_default());
        self.cut |= kept < more.len();
        Ok(())
    }
}
