//! What is wrong with a configuration, said so that whoever reads it at 3 a.m. can mend it.

use std::{fmt, path::PathBuf};

/// A configuration with faults: all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// At least one, in the order of the file.
    pub faults: Vec<Fault>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line it stands on, from 1; `None` where it stands nowhere.
    pub line: Option<usize>,
    /// The option, as in `peer[0].bureau`; empty where it is the whole file.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub cure: String,
}

impl Fault {
    pub(super) fn of_file(problem: impl Into<String>, cure: impl Into<String>) -> Self {
        let (problem, cure) = (problem.into(), cure.into());
        Self { line: None, field: String::new(), problem, cure }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.problem, self.cure)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        let faults = if count == 1 { "fault" } else { "faults" };
        write!(f, "{}: {count} {faults}", self.path.display())?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for ConfigError {}
