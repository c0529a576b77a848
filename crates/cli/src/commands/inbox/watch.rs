//! `bureau inbox watch`: what arrives, as it arrives. A lost connection is taken up again where
//! it broke, for as long as it takes.

use std::time::Duration;

use bureau_proto::desk::v1::{
    AcknowledgeRequest, InboxMessage, WatchInboxRequest, watch_inbox_response::Event,
};
use clap::Args;
use tokio::time::{Instant, sleep, timeout};

use super::{show_message, view::MessageView};
use crate::{
    client::{Desk, DeskFace},
    error::CommandError,
    output::{Output, escape},
};

/// The node gives a sign of life every 10 seconds; three missed ones are a dead connection.
const SILENCE_MAX: Duration = Duration::from_secs(35);
/// Pause before the connection is taken up again, at first and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Print what arrived and is not acknowledged, then what arrives, until interrupted.
///
/// With -o json: one object a line. When the node goes away this waits for it and goes on where
/// it was.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  bureau inbox watch\n  bureau -o json inbox watch --ack --count 1"
)]
pub(crate) struct WatchArgs {
    /// Only messages with a greater inbox number
    #[arg(long, env = "BUREAU_AFTER", value_name = "N", default_value_t = 0)]
    pub(crate) after: u64,
    /// Take each message over after it was printed
    #[arg(long, env = "BUREAU_ACK")]
    pub(crate) ack: bool,
    /// End after so many messages
    #[arg(long, env = "BUREAU_COUNT", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

struct Watch {
    ack: bool,
    /// Number of the last message that was printed, and acknowledged where asked for.
    after: u64,
    left: Option<u64>,
}

pub(super) async fn run(
    args: WatchArgs,
    desk: &Desk,
    output: &mut Output,
) -> Result<(), CommandError> {
    let mut watch = Watch { ack: args.ack, after: args.after, left: args.count };
    // The first connection must succeed: what is wrong then is wrong with what was typed.
    let mut face = desk.desk_face().await?;
    let mut pause = PAUSE_FIRST;
    loop {
        let begun = Instant::now();
        match watch.follow(&face, output).await {
            Ok(()) => return Ok(()),
            Err(error) if !error.is_transient() => return Err(error),
            Err(error) => output.note(&format!("{}; waiting for the node", escaped(&error))),
        }
        if begun.elapsed() > PAUSE_MAX {
            pause = PAUSE_FIRST;
        }
        face = loop {
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            match desk.desk_face().await {
                Ok(face) => break face,
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(error),
            }
        };
    }
}

impl Watch {
    /// Prints what comes, until as many as wanted were printed or the connection breaks.
    async fn follow(&mut self, face: &DeskFace, output: &mut Output) -> Result<(), CommandError> {
        let mut client = face.client.clone();
        let request = WatchInboxRequest { after_number: self.after };
        let mut stream = face.call(client.watch_inbox(request)).await?;
        while self.left != Some(0) {
            let silent = || tonic::Status::unavailable("the node was silent for too long");
            let next = timeout(SILENCE_MAX, stream.message()).await;
            let response = next.unwrap_or_else(|_elapsed| Err(silent()));
            let response = response.map_err(|status| face.refused(&status))?;
            // The node ends its streams when it shuts down.
            let ended = || face.refused(&tonic::Status::unavailable("the node ended the stream"));
            if let Some(Event::Message(message)) = response.ok_or_else(ended)?.event {
                self.take(message, face, output).await?;
            }
        }
        Ok(())
    }

    async fn take(
        &mut self,
        message: InboxMessage,
        face: &DeskFace,
        output: &mut Output,
    ) -> Result<(), CommandError> {
        let entry = message.entry.as_ref().ok_or(CommandError::Incomplete("the entry"))?;
        let (number, id) = (entry.number, entry.message_id.clone());
        if output.is_json() {
            output.object(&MessageView::from(message))?;
        } else {
            show_message(&message, output)?;
            output.line(&"-".repeat(72))?;
            output.flush()?;
        }
        // Only what was printed is taken over: a reader that went away loses nothing.
        if self.ack {
            let request = AcknowledgeRequest { message_ids: vec![id] };
            let mut client = face.client.clone();
            face.call(client.acknowledge(request)).await?;
        }
        self.after = number;
        self.left = self.left.map(|left| left - 1);
        Ok(())
    }
}

fn escaped(error: &CommandError) -> String {
    escape::line(&error.to_string()).into_owned()
}
