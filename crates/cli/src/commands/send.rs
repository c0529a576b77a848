//! `bureau send`: one message, accepted once however often it is tried.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use bureau_core::Timestamp;
use bureau_proto::{
    desk::v1::{SubmitRequest, SubmitResponse},
    envelope::v1 as wire_envelope,
};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::{task::spawn_blocking, time::sleep};
use uuid::Uuid;

use crate::{
    client::{Desk, DeskFace},
    duration::Moment,
    error::CommandError,
    files::{self, Prepared},
    output::Output,
    retry, wire,
};

/// Above any body a node takes: a gRPC message of 4 MiB must hold it.
const CONTENT_BYTES_MAX: u64 = 4 * 1024 * 1024 - 64 * 1024;
/// Tries of one message.
const TRIES_MAX: u32 = 5;

/// Send a message, and print its id when the node has it on disk.
///
/// From then on it will be delivered, or the sender is told why not: see `bureau track ID`.
/// Where the node cannot be reached, or goes away, the message is tried again a few times under
/// the same request id, so it is accepted once at most.
///
/// Files given by --attach are brought to the node first, whatever their size; where that breaks
/// off it goes on where it was, here and when the command is called again within 7 days.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub(crate) struct SendArgs {
    /// Codes of the bureaus it is for, such as KE or KE,BR
    #[arg(long, env = "BUREAU_TO", value_name = "CODE", value_delimiter = ',', required = true)]
    pub(crate) to: Vec<String>,
    /// How urgent it is
    #[arg(
        long,
        env = "BUREAU_LANE",
        value_name = "LANE",
        value_enum,
        ignore_case = true,
        default_value = "ROUTINE"
    )]
    pub(crate) lane: Lane,
    /// What kind of message it is
    #[arg(
        long,
        env = "BUREAU_KIND",
        value_name = "KIND",
        value_enum,
        ignore_case = true,
        default_value = "MESSAGE"
    )]
    pub(crate) kind: Kind,
    /// One line that says what it is about
    #[arg(
        long,
        env = "BUREAU_SUBJECT",
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) subject: String,
    /// When to give up: after a duration (90s, 2h, 7d), or at a time (2027-01-31T12:00:00Z)
    #[arg(long, env = "BUREAU_EXPIRES", value_name = "WHEN")]
    pub(crate) expires: Option<Moment>,
    /// A UUID: the same again is the same message, sent once [default: a new one]
    #[arg(long, env = "BUREAU_REQUEST_ID", value_name = "UUID")]
    pub(crate) request_id: Option<Uuid>,
    /// What recipients may do with it: H0 anything, H1 prevent and combat crime,
    /// H2 not in court without leave, H3 as the text says
    #[arg(
        verbatim_doc_comment,
        long,
        env = "BUREAU_HANDLING",
        value_name = "CODE",
        value_enum,
        ignore_case = true,
        default_value = "H1"
    )]
    pub(crate) handling: Handling,
    /// The own case or operation
    #[arg(
        long = "case",
        env = "BUREAU_CASE",
        value_name = "REF",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) case_reference: String,
    /// Why it is sent
    #[arg(long, env = "BUREAU_PURPOSE", value_name = "PURPOSE", value_enum, ignore_case = true)]
    pub(crate) purpose: Option<Purpose>,
    /// Media type of the content
    #[arg(long, env = "BUREAU_MEDIA_TYPE", value_name = "TYPE", default_value = "text/plain")]
    pub(crate) media_type: String,
    /// Id of the message this one answers
    #[arg(
        long,
        env = "BUREAU_IN_REPLY_TO",
        value_name = "ID",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) in_reply_to: String,
    /// Id of the message this one replaces
    #[arg(
        long,
        env = "BUREAU_REPLACES",
        value_name = "ID",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) replaces: String,
    /// Do not tell recipients of each other
    #[arg(long, env = "BUREAU_HIDE_RECIPIENTS")]
    pub(crate) hide_recipients: bool,
    /// A file to send along, under its name; may be given more than once
    #[arg(long, env = "BUREAU_ATTACH", value_name = "FILE", value_delimiter = None)]
    pub(crate) attach: Vec<PathBuf>,
    /// Mark it as exercise traffic
    #[arg(long, env = "BUREAU_EXERCISE")]
    pub(crate) exercise: bool,
    /// The file to send, or - for what comes on stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  bureau send --to KE --subject 'Stolen passports' report.txt
  echo 'Seen at JKIA at 14:05.' | bureau send --to KE,BR --lane FLASH --expires 2h -
  bureau send --to KE --attach photo.jpg --attach scan.pdf report.txt
  bureau send --to KE --request-id 01936e5c-7d3a-7000-8000-3f2b8c1d9e4f report.txt";

macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident($wire:ident) { $($choice:ident = $text:literal,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
            pub(crate) enum $name {
                $(#[value(name = $text)] $choice,)*
            }

            impl $name {
                const fn to_wire(self) -> i32 {
                    match self {
                        $(Self::$choice => wire_envelope::$wire::$choice as i32,)*
                    }
                }
            }
        )*
    };
}

choices! {
    /// The lanes.
    Lane(Lane) {
        Flash = "FLASH", Immediate = "IMMEDIATE", Priority = "PRIORITY", Routine = "ROUTINE",
    }
    /// The kinds a desk may send.
    Kind(Kind) {
        Message = "MESSAGE", Diffusion = "DIFFUSION", Notice = "NOTICE", Request = "REQUEST",
        Reply = "REPLY", Order = "ORDER",
    }
    /// The handling codes.
    Handling(HandlingCode) { H0 = "H0", H1 = "H1", H2 = "H2", H3 = "H3", }
    /// The purposes.
    Purpose(Purpose) {
        Prevention = "PREVENTION", Investigation = "INVESTIGATION", Extradition = "EXTRADITION",
        MissingPerson = "MISSING_PERSON", VictimProtection = "VICTIM_PROTECTION",
        PublicSafety = "PUBLIC_SAFETY", Sanctions = "SANCTIONS",
        Administration = "ADMINISTRATION",
    }
}

#[derive(Serialize)]
struct View {
    message_id: String,
    request_id: String,
    accept_time: Option<String>,
    expire_time: Option<String>,
    repeated_request: bool,
    attachments: Vec<AttachedView>,
}

#[derive(Serialize)]
struct AttachedView {
    name: String,
    media_type: &'static str,
    size: u64,
    sha256: String,
}

impl From<&Prepared> for AttachedView {
    fn from(file: &Prepared) -> Self {
        let sha256 = files::hex(&file.digest);
        Self { name: file.name.clone(), media_type: file.media_type, size: file.size, sha256 }
    }
}

pub(crate) async fn run(
    args: SendArgs,
    profile: Option<&Path>,
    output: &mut Output,
) -> Result<(), CommandError> {
    let desk = Desk::open(profile).await?;
    let file = args.file.clone();
    let content = spawn_blocking(move || read(&file))
        .await
        .map_err(|source| CommandError::Task { task: "reading the content", source })??;
    let attached = files::prepare(&args.attach).await?;
    let mut request = request(args, content, wire::now());
    request.attachments = attached.iter().map(Prepared::to_wire).collect();
    for file in &attached {
        files::upload(&desk, file, output).await?;
    }
    let response = submit(&desk, &request, output).await?;
    let view = View {
        message_id: response.message_id,
        request_id: request.request_id,
        accept_time: wire::time(response.accept_time.as_ref()),
        expire_time: wire::time(response.expire_time.as_ref()),
        repeated_request: response.repeated_request,
        attachments: attached.iter().map(AttachedView::from).collect(),
    };
    if output.is_json() {
        return output.document(&view);
    }
    if view.repeated_request {
        output.note("this request id was accepted before: nothing was sent again");
    }
    output.line(&crate::output::escape::line(&view.message_id))
}

fn read(file: &Path) -> Result<Vec<u8>, CommandError> {
    let failed = |source| CommandError::Read { path: file.to_owned(), source };
    let mut content = Vec::new();
    if file == Path::new("-") {
        let stdin = std::io::stdin().lock();
        stdin.take(CONTENT_BYTES_MAX + 1).read_to_end(&mut content).map_err(failed)?;
    } else {
        let opened = std::fs::File::open(file).map_err(failed)?;
        opened.take(CONTENT_BYTES_MAX + 1).read_to_end(&mut content).map_err(failed)?;
    }
    if content.len() as u64 > CONTENT_BYTES_MAX {
        return Err(CommandError::TooLarge { path: file.to_owned(), limit: CONTENT_BYTES_MAX });
    }
    Ok(content)
}

fn request(args: SendArgs, content: Vec<u8>, now: Timestamp) -> SubmitRequest {
    let request_id = args.request_id.unwrap_or_else(Uuid::now_v7);
    // A duration counts from the moment within the request id where it has one: then the same
    // command again is the same request, and not another one that expires later.
    let begin = args.request_id.and_then(moment_of).unwrap_or(now);
    SubmitRequest {
        attachments: Vec::new(),
        request_id: request_id.to_string(),
        recipients: args.to.iter().map(|code| code.trim().to_ascii_uppercase()).collect(),
        lane: args.lane.to_wire(),
        kind: args.kind.to_wire(),
        subject: args.subject,
        content: content.into(),
        media_type: args.media_type,
        expire_time: args.expires.map(|expires| expires.from(begin).to_wire()),
        handling_code: args.handling.to_wire(),
        exercise: args.exercise,
        case_reference: args.case_reference,
        purpose: args.purpose.map_or(0, Purpose::to_wire),
        in_reply_to: args.in_reply_to,
        replaces: args.replaces,
        hide_recipients: args.hide_recipients,
        send_time: None,
    }
}

/// The moment within a UUID of version 7.
fn moment_of(id: Uuid) -> Option<Timestamp> {
    let (seconds, nanos) = id.get_timestamp().filter(|_| id.get_version_num() == 7)?.to_unix();
    let ms = i64::try_from(seconds)
        .ok()?
        .checked_mul(1000)?
        .checked_add(i64::from(nanos) / 1_000_000)?;
    Some(Timestamp::from_ms(ms))
}

/// Submits until there is an answer that more tries cannot change.
async fn submit(
    desk: &Desk,
    request: &SubmitRequest,
    output: &mut Output,
) -> Result<SubmitResponse, CommandError> {
    let mut face: Option<DeskFace> = None;
    let mut unsure = false;
    let mut tries = 0;
    loop {
        let error = match try_once(desk, &mut face, request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        tries += 1;
        unsure |= error.leaves_outcome_open();
        if !error.is_transient() || tries == TRIES_MAX {
            let request_id = request.request_id.clone();
            return Err(match unsure && error.is_transient() {
                true => CommandError::Unsure { request_id, error: Box::new(error) },
                false => error,
            });
        }
        let pause = retry::pause(tries, error.retry_after());
        output.note(&format!(
            "{}; trying again in {:.1} s",
            crate::output::escape::line(&error.to_string()),
            pause.as_secs_f64()
        ));
        sleep(pause).await;
    }
}

async fn try_once(
    desk: &Desk,
    face: &mut Option<DeskFace>,
    request: &SubmitRequest,
) -> Result<SubmitResponse, CommandError> {
    let face = match face {
        Some(face) => face,
        None => face.insert(desk.desk_face().await?),
    };
    let mut client = face.client.clone();
    face.call(client.submit(request.clone())).await
}

#[cfg(test)]
#[path = "send/tests.rs"]
mod tests;
