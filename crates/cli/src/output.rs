//! The one way out: answers to stdout, errors and notes to stderr. Nothing foreign reaches a
//! terminal unescaped.

pub(crate) mod escape;
pub(crate) mod table;

use std::io::{self, IsTerminal as _, Write};

use serde::Serialize;

use self::table::Table;
use crate::error::CommandError;

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON document, or one object a line where it streams.
    Json,
}

/// Where answers and errors go.
pub struct Output {
    answers: Box<dyn Write + Send>,
    errors: Box<dyn Write + Send>,
    format: Format,
    /// Columns of the terminal; `None` where a program reads.
    width: Option<u16>,
}

/// Columns of a terminal that does not say.
const WIDTH_DEFAULT: u16 = 100;
/// Narrower than this, tables are no longer tables.
const WIDTH_MIN: u16 = 60;

impl Output {
    /// To the process's own stdout and stderr.
    #[must_use]
    pub fn standard(format: Format) -> Self {
        let terminal = io::stdout().is_terminal();
        let columns = rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col);
        let columns = columns.filter(|columns| *columns > 0).unwrap_or(WIDTH_DEFAULT);
        let width = terminal.then(|| columns.max(WIDTH_MIN));
        Self { answers: Box::new(io::stdout()), errors: Box::new(io::stderr()), format, width }
    }

    /// To the given writers, as to a program.
    #[must_use]
    pub fn to(
        format: Format,
        answers: impl Write + Send + 'static,
        errors: impl Write + Send + 'static,
    ) -> Self {
        Self { answers: Box::new(answers), errors: Box::new(errors), format, width: None }
    }

    pub(crate) const fn is_json(&self) -> bool {
        matches!(self.format, Format::Json)
    }

    /// Columns of the terminal; `None` where a program reads.
    pub(crate) const fn width(&self) -> Option<u16> {
        self.width
    }

    pub(crate) const fn is_terminal(&self) -> bool {
        self.width.is_some()
    }

    /// A line of the own words and of foreign text that was escaped.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), CommandError> {
        writeln!(self.answers, "{line}")?;
        Ok(())
    }

    /// A table; nothing where it has no rows.
    pub(crate) fn table(&mut self, table: Table) -> Result<(), CommandError> {
        for line in table.render(self.width) {
            self.line(&line)?;
        }
        Ok(())
    }

    /// The one JSON document of an answer.
    pub(crate) fn document<T: Serialize>(&mut self, value: &T) -> Result<(), CommandError> {
        let document = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
        self.line(&escape::json(&document))
    }

    /// One JSON object of many, on a line of its own, written through at once.
    pub(crate) fn object<T: Serialize>(&mut self, value: &T) -> Result<(), CommandError> {
        let object = serde_json::to_string(value).map_err(io::Error::other)?;
        self.line(&escape::json(&object))?;
        self.flush()
    }

    /// Bytes as they are, for a file or a program.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        self.answers.write_all(bytes)?;
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> Result<(), CommandError> {
        self.answers.flush()?;
        Ok(())
    }

    /// A remark beside the answer.
    pub(crate) fn note(&mut self, note: &str) {
        // Where stderr is closed nobody is there to be told.
        let _ = writeln!(self.errors, "{note}");
    }

    /// What went wrong, every fault of it, and what may help.
    pub(crate) fn error(&mut self, error: &CommandError) {
        let reason = error.reason().map(|reason| format!(" ({})", escape::line(reason)));
        let message = error.to_string();
        // Only the own words have lines: what a peer said must not look like more than one.
        let message = match error {
            CommandError::Node(_) => escape::text(&message),
            _ => escape::line(&message),
        };
        self.note(&format!("error: {message}{}", reason.unwrap_or_default()));
        for fault in error.faults() {
            let (field, description) = (escape::line(fault.field), escape::line(fault.description));
            self.note(&format!("  {field}: {description} ({})", escape::line(fault.reason)));
        }
        if let Some(hint) = error.hint() {
            self.note(&format!("hint: {}", escape::line(&hint)));
        }
    }
}

#[cfg(test)]
pub(crate) mod capture {
    //! What a command wrote.

    use std::{
        io::{self, Write},
        sync::{Arc, Mutex, PoisonError},
    };

    use super::{Format, Output};

    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub(crate) fn text(&self) -> String {
            let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&bytes).into_owned()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An output with what goes to its stdout and to its stderr.
    pub(crate) fn output(format: Format) -> (Output, Captured, Captured) {
        let (answers, errors) = (Captured::default(), Captured::default());
        (Output::to(format, answers.clone(), errors.clone()), answers, errors)
    }
}

#[cfg(test)]
#[path = "output/tests.rs"]
mod tests;
