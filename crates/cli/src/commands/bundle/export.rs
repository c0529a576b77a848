//! `bureau bundle export`: the file is whole and on its disk, or it is not there; only then the node
//! notes what went into it.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bureau_proto::admin::v1::{
    BundleReport, ExportBundleRequest, ExportBundleResponse, ExportOptions, ExportStored,
    export_bundle_request::Step, export_bundle_response::Part,
};
use tempfile::NamedTempFile;
use tokio::{io::AsyncWriteExt as _, sync::mpsc, task::spawn_blocking, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{ExportArgs, Progress, view};
use crate::{
    client::{AdminFace, Desk},
    error::CommandError,
    output::Output,
};

/// How long the node may take for the next piece: it reads attachments from its disk.
const PIECE_TIMEOUT: Duration = Duration::from_secs(120);

pub(super) async fn run(
    args: ExportArgs,
    profile: Option<&Path>,
    output: &mut Output,
) -> Result<(), CommandError> {
    let failed = |source| CommandError::Write { path: args.file.clone(), source };
    if args.file.try_exists().map_err(failed)? {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    let directory = match args.file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let face = Desk::open(profile).await?.admin_face(profile).await?;
    // Gone with its value, unless it becomes the bundle.
    let temporary = NamedTempFile::new_in(&directory).map_err(failed)?;
    let mut file = tokio::fs::File::from_std(temporary.reopen().map_err(failed)?);

    let (steps, stream) = mpsc::channel(2);
    let options = ExportOptions {
        to_bureau: args.to.to_string(),
        again: args.again,
        max_bytes: args.max_bytes.unwrap_or(0),
    };
    say(&steps, Step::Options(options)).await?;
    let mut client = face.client.clone();
    let mut answers = face.call(client.export_bundle(ReceiverStream::new(stream))).await?;
    let mut progress = Progress::new();
    let report: BundleReport = loop {
        match next(&face, &mut answers).await? {
            Part::Data(data) => {
                file.write_all(&data).await.map_err(failed)?;
                progress.add(data.len(), output);
            }
            Part::Complete(report) => break report,
            Part::Noted(_) => return Err(CommandError::Incomplete("what is in the bundle")),
        }
    };
    file.flush().await.map_err(failed)?;
    file.sync_all().await.map_err(failed)?;
    let target = args.file.clone();
    let kept = spawn_blocking(move || {
        temporary.persist_noclobber(&target).map_err(|error| error.error)?;
        File::open(&directory)?.sync_all()
    });
    let kept = kept.await;
    kept.map_err(|source| CommandError::Task { task: "keeping the bundle", source })?
        .map_err(failed)?;
    say(&steps, Step::Stored(ExportStored {})).await?;
    let Part::Noted(_) = next(&face, &mut answers).await? else {
        return Err(CommandError::Incomplete("a word that the bundle is noted"));
    };
    view::exported(&report, &args.file, output)
}

async fn say(steps: &mpsc::Sender<ExportBundleRequest>, step: Step) -> Result<(), CommandError> {
    let step = ExportBundleRequest { step: Some(step) };
    steps.send(step).await.map_err(|_| CommandError::Incomplete("listening to the end"))
}

async fn next(
    face: &AdminFace,
    answers: &mut Streaming<ExportBundleResponse>,
) -> Result<Part, CommandError> {
    let answer = timeout(PIECE_TIMEOUT, answers.message()).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no more comes")));
    let answer = answer.map_err(|status| face.refused(&status))?;
    answer.and_then(|answer| answer.part).ok_or(CommandError::Incomplete("the whole bundle"))
}
