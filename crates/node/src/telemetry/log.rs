//! The log: one line an event on standard output, for eyes or for machines.
//!
//! Every event of the node names itself in a field `event`. Whatever a field holds, a line stays
//! one line and shows what is in it: control characters and those that reorder or hide text are
//! escaped, so nobody can write a line that the node did not. How lines look stands in `line.rs`.

mod line;

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, IsTerminal as _},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
};

use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::ParseError,
    fmt::MakeWriter,
    layer::SubscriberExt as _,
    util::{SubscriberInitExt as _, TryInitError},
};

use self::line::{Lines, Look};
use crate::config::{Log, LogFormat};

/// The variable that replaces the configured level, for a look into one run: `debug`, or
/// `bureau_net=trace,warn`.
pub const FILTER_VARIABLE: &str = "BUREAU_LOG";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The variable holds no filter.
    #[error("{FILTER_VARIABLE} is no filter: {0}; write a level, or target=level,…")]
    Filter(#[from] ParseError),
    /// The variable is not UTF-8.
    #[error("{FILTER_VARIABLE} is not UTF-8: {}", .0.display())]
    NotUnicode(OsString),
    /// The process has a log already.
    #[error("the process has a log already: {0}")]
    Twice(#[from] TryInitError),
}

/// Starts the log of this process.
///
/// # Errors
/// [`LogError`].
pub fn init(log: &Log) -> Result<(), LogError> {
    let filter = match env::var(FILTER_VARIABLE) {
        Ok(text) => filter(log, Some(&text))?,
        Err(env::VarError::NotPresent) => filter(log, None)?,
        Err(env::VarError::NotUnicode(text)) => return Err(LogError::NotUnicode(text)),
    };
    let look = Look {
        format: log.format,
        colors: io::stdout().is_terminal()
            && env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()),
        priorities: is_journal(),
    };
    tracing_subscriber::registry().with(layer(look, io::stdout)).with(filter).try_init()?;
    Ok(())
}

/// What is logged: of the node as configured, of its libraries warnings only.
fn filter(log: &Log, variable: Option<&str>) -> Result<EnvFilter, ParseError> {
    let builder = EnvFilter::builder();
    match variable.map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => builder.parse(text),
        // A target matches all that begin with it: every crate of the house.
        None => builder.parse(format!("warn,bureau={}", log.level.as_str())),
    }
}

fn layer<W>(look: Look, writer: W) -> impl Layer<Registry>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .with_ansi(look.colors && look.format == LogFormat::Human)
        .event_format(Lines { look })
        .with_writer(writer)
        // A line that cannot be written is told on standard error, and where that is closed too,
        // telling it would be a panic.
        .log_internal_errors(false)
}

/// Whether standard output is the journal, which takes a priority before each line
/// (`systemd.exec(5)`, `JOURNAL_STREAM`; `sd-daemon(3)`).
fn is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let metadata = stdout.and_then(|stdout| stdout.metadata());
    metadata.is_ok_and(|metadata| stream == format!("{}:{}", metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests;
