//! The one binary: a command line in, an exit code out. Everything between is in `bureau_cli`, so
//! that the bench and the tests run the same code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(bureau_cli::main(std::env::args_os()))
}
