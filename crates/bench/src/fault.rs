//! What can go wrong with a measurement itself. What a measurement finds stands in its report.

use std::{io, path::PathBuf, process::ExitStatus};

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("cannot plan a network: {0}")]
    Plan(#[from] bureau_cli::net::PlanError),
    #[error("cannot make a network: {0}")]
    Network(#[from] bureau_cli::net::InitError),
    #[error("not a name: {0}")]
    Name(#[from] bureau_core::ids::InvalidName),
    #[error("no TLS: {0}")]
    Tls(#[from] bureau_net::TlsError),
    #[error("cannot connect: {0}")]
    Dial(#[from] bureau_net::DialError),
    #[error("refused: {} {}", .0.code(), .0.message())]
    Status(Box<tonic::Status>),
    #[error("the store failed: {0}")]
    Store(#[from] bureau_store::StoreError),
    #[error("no key: {0}")]
    Key(#[from] bureau_core::keys::KeyError),
    #[error("not signed: {0}")]
    Sign(#[from] bureau_core::signing::SignError),
    #[error("a task ended badly: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("no figure: {0}")]
    Figure(#[from] hdrhistogram::RecordError),
    #[error("no JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{bureau} ended by itself ({status}); its log: {}\n{tail}", log.display())]
    Died { bureau: &'static str, status: ExitStatus, log: PathBuf, tail: String },
    #[error("{bureau} does not serve; its log: {}\n{tail}", log.display())]
    NotServing { bureau: &'static str, log: PathBuf, tail: String },
    #[error("{0} does not run")]
    NotRunning(&'static str),
    #[error("message {number} was answered by nothing for {seconds} s; last: {last}")]
    Unanswered { number: usize, seconds: u64, last: String },
    #[error("the system's figures of process {0} cannot be read")]
    Process(u32),
}

impl From<tonic::Status> for BenchError {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}
