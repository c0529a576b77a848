//! The commands, one file each: from arguments to answer.

pub(crate) mod bundle;
pub(crate) mod check;
pub(crate) mod gaps;
pub(crate) mod inbox;
pub(crate) mod peers;
pub(crate) mod queue;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod track;
pub(crate) mod why;

use crate::{
    args::{Arguments, Command},
    demo,
    error::CommandError,
    net::command as net,
    output::Output,
};

/// Runs one command; its exit code where it ran as asked.
pub(crate) async fn run(arguments: Arguments, output: &mut Output) -> Result<u8, CommandError> {
    let desk = arguments.global.desk.as_deref();
    match arguments.command {
        Command::Demo(args) => Box::pin(demo::run(args, output)).await,
        Command::Net(command) => net::run(command, output).await.map(|()| 0),
        Command::Serve(args) => Box::pin(serve::run(args)).await.map(|()| 0),
        Command::Check(args) => check::run(args, output).await.map(|()| 0),
        Command::Send(args) => Box::pin(send::run(*args, desk, output)).await.map(|()| 0),
        Command::Inbox(command) => Box::pin(inbox::run(command, desk, output)).await.map(|()| 0),
        Command::Track(args) => track::run(args, desk, output).await.map(|()| 0),
        Command::Why(args) => why::run(args, desk, output).await.map(|()| 0),
        Command::Queue(command) => queue::run(command, desk, output).await.map(|()| 0),
        Command::Bundle(command) => Box::pin(bundle::run(command, desk, output)).await.map(|()| 0),
        Command::Peers(args) => peers::run(args, desk, output).await.map(|()| 0),
        Command::Gaps => gaps::run(desk, output).await.map(|()| 0),
        Command::Status => status::run(desk, output).await.map(|()| 0),
    }
}

#[cfg(test)]
mod tests;
