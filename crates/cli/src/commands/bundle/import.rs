//! `bureau bundle import` and `inspect`: the file goes to the node, which opens and judges it.

use std::{io, path::Path, time::Duration};

use bureau_core::bundle::{Label, read_label};
use bureau_proto::admin::v1::{
    ImportBundleRequest, ImportBundleResponse, ImportOptions, import_bundle_request::Piece,
};
use bytes::Bytes;
use tokio::{fs::File, io::AsyncReadExt as _, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{ImportArgs, InspectArgs, Progress, view};
use crate::{client::Desk, error::CommandError, output::Output};

/// Bytes that are sent as one.
const PIECE_BYTES: usize = 256 * 1024;
/// What a header takes at most.
const HEADER_BYTES: usize = 8 * 1024;
/// How long a bundle may take, and how many bytes a second it must come to beyond that.
const TIMEOUT: Duration = Duration::from_secs(10 * 60);
const BYTES_PER_SECOND_MIN: u64 = 100 * 1024;

pub(super) async fn run(
    args: ImportArgs,
    profile: Option<&Path>,
    output: &mut Output,
) -> Result<(), CommandError> {
    let imported = send(&args.file, profile, false, output).await?;
    view::imported(&imported, output)
}

pub(super) async fn inspect(
    args: InspectArgs,
    profile: Option<&Path>,
    output: &mut Output,
) -> Result<(), CommandError> {
    let (label, bytes) = label(&args.file).await?;
    if profile.is_none() {
        let reason = "no desk profile was given, so no node could check it".to_owned();
        return view::inspected(&label, bytes, Err(reason), output);
    }
    match send(&args.file, profile, true, output).await {
        Ok(opened) => view::inspected(&label, bytes, Ok(opened), output),
        // For another bureau, or another key: its header is all that can be seen here.
        Err(error) if matches!(error.reason(), Some("WRONG_RECIPIENT" | "NO_SEALING_KEY")) => {
            view::inspected(&label, bytes, Err(error.to_string()), output)
        }
        Err(error) => Err(error),
    }
}

/// What anybody can read.
async fn label(path: &Path) -> Result<(Label, u64), CommandError> {
    let failed = |source| CommandError::Read { path: path.to_owned(), source };
    let file = File::open(path).await.map_err(failed)?;
    let bytes = file.metadata().await.map_err(failed)?.len();
    let mut beginning = Vec::new();
    file.take(HEADER_BYTES as u64).read_to_end(&mut beginning).await.map_err(failed)?;
    match read_label(&beginning) {
        Ok(Some(label)) => Ok((label, bytes)),
        Ok(None) => Err(failed(io::ErrorKind::UnexpectedEof.into())),
        Err(reason) => Err(CommandError::NotABundle { path: path.to_owned(), reason }),
    }
}

async fn send(
    path: &Path,
    profile: Option<&Path>,
    inspect: bool,
    output: &mut Output,
) -> Result<ImportBundleResponse, CommandError> {
    let failed = |source| CommandError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).await.map_err(failed)?;
    let bytes = file.metadata().await.map_err(failed)?.len();
    let face = Desk::open(profile).await?.admin_face(profile).await?;
    let mut client = face.client.clone();
    let (pieces, stream) = mpsc::channel(4);
    let limit = TIMEOUT + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN);
    let taking = timeout(limit, client.import_bundle(ReceiverStream::new(stream)));
    let reading = async {
        let mut progress = Progress::new();
        // Where the node has answered, nobody takes more: then its answer is what counts.
        let options = Piece::Options(ImportOptions { inspect });
        let mut open = pieces.send(ImportBundleRequest { piece: Some(options) }).await.is_ok();
        while open {
            let mut data = vec![0; PIECE_BYTES];
            let read = file.read(&mut data).await?;
            data.truncate(read);
            if read == 0 {
                break;
            }
            let piece = Some(Piece::Data(Bytes::from(data)));
            open = pieces.send(ImportBundleRequest { piece }).await.is_ok();
            progress.add(read, output);
        }
        drop(pieces);
        Ok::<_, io::Error>(())
    };
    let (answer, read) = tokio::join!(taking, reading);
    read.map_err(failed)?;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
    answer.map(tonic::Response::into_inner).map_err(|status| face.refused(&status))
}
