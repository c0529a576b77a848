//! TOML to [`Raw`], with every fault of syntax, name and type, and the line of each option.

use std::ops::Range;

use serde_path_to_error::{Path, Segment};
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer},
};

use super::{fault::Fault, raw::Raw};

/// A file with more faults than this is no configuration file; the first so many are told.
const FAULTS_MAX: usize = 50;

/// A file and where things are in it.
pub(super) struct Document<'a> {
    text: &'a str,
    table: Spanned<DeTable<'a>>,
    /// Options that were left out because they are faulty; they are not missing.
    pruned: Vec<String>,
}

impl<'a> Document<'a> {
    /// Parses a file.
    ///
    /// Serde stops at the first fault: that option is left out, and the rest is tried again.
    ///
    /// # Errors
    /// Faults of syntax; nothing else can be told about such a file.
    pub(super) fn parse(text: &'a str) -> Result<(Self, Raw, Vec<Fault>), Vec<Fault>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut document = Self { text, table, pruned: Vec::new() };
        if !errors.is_empty() {
            let faults = errors.iter().take(FAULTS_MAX).map(|error| document.syntax(error));
            return Err(faults.collect());
        }
        let mut faults = Vec::new();
        let mut table = document.table.clone();
        loop {
            let error = match serde_path_to_error::deserialize(Deserializer::from(table.clone())) {
                Ok(raw) => return Ok((document, raw, faults)),
                Err(error) => error,
            };
            faults.push(document.fault(error.path(), error.inner()));
            let pruned = prune(table.get_mut(), error.path());
            match pruned {
                Some(path) if faults.len() < FAULTS_MAX => document.pruned.push(path),
                // What cannot be found cannot be left out either.
                _ => return Err(faults),
            }
        }
    }

    /// The line of an option, or of what is around it.
    pub(super) fn line(&self, field: &str) -> Option<usize> {
        let mut span: Option<Range<usize>> = None;
        let mut table = Some(self.table.get_ref());
        for part in field.split('.') {
            let (key, index) = match part.split_once('[') {
                Some((key, index)) => (key, index.trim_end_matches(']').parse::<usize>().ok()),
                None => (part, None),
            };
            let Some((name, value)) = table.and_then(|table| table.get_key_value(key)) else {
                break;
            };
            span = Some(name.span());
            let mut value = Some(value);
            if let (Some(DeValue::Array(items)), Some(index)) = (value.map(Spanned::get_ref), index)
            {
                value = items.get(index);
                span = value.map(Spanned::span).or(span);
            }
            table = match value.map(Spanned::get_ref) {
                Some(DeValue::Table(table)) => Some(table),
                _ => None,
            };
        }
        span.map(|span| self.line_at(span.start))
    }

    /// Whether an option was left out because it, or what is around it, is faulty.
    pub(super) fn is_pruned(&self, field: &str) -> bool {
        self.pruned.iter().any(|pruned| {
            let rest = field.strip_prefix(pruned.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    fn line_at(&self, byte: usize) -> usize {
        let before = self.text.as_bytes().iter().take(byte);
        before.filter(|byte| **byte == b'\n').count() + 1
    }

    fn syntax(&self, error: &toml::de::Error) -> Fault {
        Fault {
            line: error.span().map(|span| self.line_at(span.start)),
            field: String::new(),
            problem: format!("not TOML: {}", error.message().escape_debug()),
            cure: "mend the line; texts stand in double quotes".to_owned(),
        }
    }

    fn fault(&self, path: &Path, error: &toml::de::Error) -> Fault {
        let field = path.to_string();
        let (problem, cure) = words(error.message());
        let line = error.span().map(|span| self.line_at(span.start));
        Fault { line: line.or_else(|| self.line(&field)), field: clean(&field), problem, cure }
    }
}

/// What serde says, as a problem and a cure.
fn words(message: &str) -> (String, String) {
    if message.starts_with("unknown field") {
        let known = message.rsplit_once(", expected ").map_or("", |(_, known)| known);
        let known = known.trim_start_matches("one of ").replace("` or `", ", ").replace('`', "");
        return ("unknown option".to_owned(), format!("known here: {known}"));
    }
    let (problem, expected) = message.rsplit_once(", expected ").unwrap_or((message, ""));
    let cure = match expected {
        "u64" => "write a whole number, without quotes",
        "a string" => "write a text in double quotes",
        "a boolean" => "write true or false",
        "a sequence" => "write a list, in square brackets",
        _ => "write it as a table of options",
    };
    (clean(problem), cure.to_owned())
}

/// A text from the file without what could move a terminal's cursor.
fn clean(text: &str) -> String {
    let escape = |c: char| c.is_control() || (!c.is_ascii() && !c.is_alphanumeric());
    text.chars()
        .map(|c| if escape(c) { c.escape_unicode().to_string() } else { c.to_string() })
        .collect()
}

/// Leaves out the option that a path leads to, the innermost that has a name; its path, if there
/// was one to leave out. Items of a list are not left out alone: the rest would change its number.
fn prune(table: &mut DeTable<'_>, path: &Path) -> Option<String> {
    let segments: Vec<&Segment> = path.iter().collect();
    let last = segments.iter().rposition(|segment| matches!(segment, Segment::Map { .. }))?;
    let mut name = String::new();
    let mut table = Some(table);
    let mut segments = segments.iter().take(last + 1).enumerate().peekable();
    while let Some((position, segment)) = segments.next() {
        let Segment::Map { key } = segment else { return None };
        let separator = if name.is_empty() { "" } else { "." };
        name = format!("{name}{separator}{key}");
        let here = table.take()?;
        if position == last {
            return here.remove(key.as_str()).map(|_| name);
        }
        let mut value = here.get_mut(key.as_str())?;
        if let Some((_, Segment::Seq { index })) = segments.peek() {
            name = format!("{name}[{index}]");
            segments.next();
            let DeValue::Array(items) = value.get_mut() else { return None };
            value = items.get_mut(*index)?;
        }
        table = match value.get_mut() {
            DeValue::Table(inner) => Some(inner),
            _ => None,
        };
    }
    None
}
