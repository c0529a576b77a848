//! The commands of bureau.
//!
//! The rooms, in the order a command passes them:
//! - [`Arguments`]: what was typed, or came by the environment;
//! - `commands`: one file each, from arguments to answer;
//! - `profile`, `client`: which desk this is, and calls to its node;
//! - `files`: attachments, from disk to the node and back; `retry`: when to try again;
//! - `wire`, `duration`: what people write and read for what travels;
//! - [`Output`]: tables for people, JSON for programs, nothing that steers a terminal;
//! - `error`: what went wrong, what to do, and the exit code;
//! - [`net`]: a network made from nothing, `demo`: a network tried.
//!
//! What a node does is the node's; nothing here opens a store or signs a message.
#![forbid(unsafe_code)]

mod args;
mod client;
mod commands;
mod demo;
mod duration;
mod error;
mod files;
pub mod net;
mod output;
mod profile;
mod retry;
mod wire;

pub use args::Arguments;
pub use output::{Format, Output};

use std::{
    ffi::OsString,
    io::{self, Write as _},
};

use clap::Parser as _;
use tokio::runtime::Builder;

/// The whole program: words of a command line in (the first is the program's own name), exit code
/// out. Answers go to stdout, errors to stderr. Help and usage errors end here, too.
#[must_use]
pub fn main(words: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments = match Arguments::try_parse_from(args::with_bundle_file(words)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Where nobody reads there is nobody to be told.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let mut output = Output::standard(arguments.format());
    match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(arguments, &mut output)),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: no runtime: {error}");
            1
        }
    }
}

/// Runs what was asked for; the exit code of the process.
///
/// Answers and errors go to `output`. A reader that went away (a closed pipe) is no error.
pub async fn run(arguments: Arguments, output: &mut Output) -> u8 {
    match commands::run(arguments, output).await {
        Ok(code) => code,
        Err(error) => {
            let code = error.exit_code();
            if code != 0 {
                output.error(&error);
            }
            code
        }
    }
}
