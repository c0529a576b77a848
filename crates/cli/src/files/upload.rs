//! A file on its way to the node: hashed first, then sent from where the node says.

use std::{
    fs::File,
    io::{self, Read as _, SeekFrom},
    path::{Path, PathBuf},
};

use bureau_proto::desk::v1::{
    AttachmentToSend, GetUploadRequest, UploadAttachmentRequest, UploadHeader,
    upload_attachment_request::Piece,
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    sync::mpsc,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use super::{PIECE_BYTES, STALL, TRIES_MAX, media_type, progress::Bar};
use crate::{
    client::{Desk, DeskFace},
    error::CommandError,
    output::{Output, escape},
    retry,
};

/// Pieces that are read ahead of the connection.
const AHEAD: usize = 4;

/// A file that is to be attached.
#[derive(Debug)]
pub(crate) struct Prepared {
    path: PathBuf,
    /// Its name, without a path.
    pub(crate) name: String,
    /// Its media type.
    pub(crate) media_type: &'static str,
    /// How many bytes it has.
    pub(crate) size: u64,
    /// Their SHA-256.
    pub(crate) digest: [u8; 32],
}

impl Prepared {
    pub(crate) fn to_wire(&self) -> AttachmentToSend {
        AttachmentToSend {
            digest: Bytes::copy_from_slice(&self.digest),
            size: self.size,
            name: self.name.clone(),
            media_type: self.media_type.to_owned(),
        }
    }
}

/// Reads files once, to know them.
pub(crate) async fn prepare(paths: &[PathBuf]) -> Result<Vec<Prepared>, CommandError> {
    let mut prepared = Vec::with_capacity(paths.len());
    for path in paths {
        let path = path.clone();
        let one = spawn_blocking(move || prepare_one(path)).await;
        prepared
            .push(one.map_err(|source| CommandError::Task { task: "reading a file", source })??);
    }
    Ok(prepared)
}

fn prepare_one(path: PathBuf) -> Result<Prepared, CommandError> {
    let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let Some(name) = name else { return Err(CommandError::NoName { path }) };
    let (size, digest) = digest_of(&path, &name)
        .map_err(|source| CommandError::Read { path: path.clone(), source })?;
    if size == 0 {
        return Err(CommandError::Empty { path });
    }
    Ok(Prepared { media_type: media_type(&path), path, name, size, digest })
}

/// Size and digest of a file, piece by piece.
fn digest_of(path: &Path, name: &str) -> io::Result<(u64, [u8; 32])> {
    let mut file = File::open(path)?;
    let bar = Bar::new("reading", name, file.metadata()?.len());
    let (mut hash, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok((size, hash.finalize().into())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(buffer.get(..read).unwrap_or(&[]));
        size += read as u64;
        bar.add(read as u64);
    }
}

/// Brings a file to the node, however often the connection breaks, as long as each time more of it
/// arrives. What is there already is not sent.
pub(crate) async fn upload(
    desk: &Desk,
    file: &Prepared,
    output: &mut Output,
) -> Result<(), CommandError> {
    let bar = Bar::new("sending", &file.name, file.size);
    let (mut tries, mut furthest) = (0, 0);
    loop {
        let mut received = 0;
        let error = match go_on(desk, file, &bar, &mut received).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if received > furthest {
            (tries, furthest) = (0, received);
        }
        tries += 1;
        if !(error.is_transient() || error.is_about("header.offset")) || tries == TRIES_MAX {
            return Err(error);
        }
        let pause = retry::pause(tries, error.retry_after());
        let (words, seconds) = (error.to_string(), pause.as_secs_f64());
        bar.note(output, &format!("{}; going on in {seconds:.1} s", escape::line(&words)));
        sleep(pause).await;
    }
}

/// One try, from where the node is.
async fn go_on(
    desk: &Desk,
    file: &Prepared,
    bar: &Bar,
    received: &mut u64,
) -> Result<(), CommandError> {
    let face = desk.desk_face().await?;
    let mut client = face.client.clone();
    let digest = Bytes::copy_from_slice(&file.digest);
    let held = face.call(client.get_upload(GetUploadRequest { digest: digest.clone() })).await?;
    *received = held.received;
    if held.complete {
        return Ok(());
    }
    let offset = held.received.min(file.size);
    bar.begin(offset);
    let (pieces, stream) = mpsc::channel(AHEAD);
    let header = UploadHeader { digest, size: file.size, offset };
    let answer = client.upload_attachment(ReceiverStream::new(stream));
    let feed = feed(file, header, pieces, bar);
    tokio::pin!(answer, feed);
    tokio::select! {
        biased;
        // Where the node refuses, the rest is not read.
        answer = &mut answer => answered(&face, answer),
        fed = &mut feed => {
            fed?;
            match timeout(STALL, answer).await {
                Ok(answer) => answered(&face, answer),
                Err(_elapsed) => Err(face.refused(&stalled())),
            }
        }
    }
}

fn answered<T>(face: &DeskFace, answer: Result<Response<T>, Status>) -> Result<(), CommandError> {
    answer.map(|_| ()).map_err(|status| face.refused(&status))
}

fn stalled() -> Status {
    Status::deadline_exceeded(format!("nothing moved for {} s", STALL.as_secs()))
}

/// Hands the pieces over as fast as the connection takes them.
async fn feed(
    file: &Prepared,
    header: UploadHeader,
    pieces: mpsc::Sender<UploadAttachmentRequest>,
    bar: &Bar,
) -> Result<(), CommandError> {
    let failed = |source| CommandError::Read { path: file.path.clone(), source };
    let mut opened = tokio::fs::File::open(&file.path).await.map_err(failed)?;
    let mut left = file.size - header.offset;
    opened.seek(SeekFrom::Start(header.offset)).await.map_err(failed)?;
    let mut piece = Piece::Header(header);
    loop {
        let request = UploadAttachmentRequest { piece: Some(piece) };
        match timeout(STALL, pieces.send(request)).await {
            Ok(Ok(())) => {}
            // The answer is there; it says why.
            Ok(Err(_)) => return Ok(()),
            Err(_elapsed) => {
                let message = stalled();
                return Err(CommandError::Refused(Box::new(bureau_net::Refusal::from_status(
                    &message,
                ))));
            }
        }
        if left == 0 {
            return Ok(());
        }
        let mut buffer = vec![0; PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES))];
        let read = opened.read(&mut buffer).await.map_err(failed)?;
        if read == 0 {
            return Err(CommandError::Changed { path: file.path.clone() });
        }
        buffer.truncate(read);
        left -= read as u64;
        bar.add(read as u64);
        piece = Piece::Data(buffer.into());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_known_by_its_bytes_and_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Photo.JPG");
        let bytes = vec![7; PIECE_BYTES + 3];
        std::fs::write(&path, &bytes).unwrap();
        let prepared = prepare(std::slice::from_ref(&path)).await.unwrap().remove(0);
        assert_eq!((&*prepared.name, prepared.media_type), ("Photo.JPG", "image/jpeg"));
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        assert_eq!((prepared.size, prepared.digest), (bytes.len() as u64, digest));

        std::fs::write(&path, b"").unwrap();
        let empty = prepare(std::slice::from_ref(&path)).await.unwrap_err();
        assert!(matches!(empty, CommandError::Empty { .. }), "{empty}");
        let missing = prepare(&[folder.path().join("none")]).await.unwrap_err();
        assert!(matches!(missing, CommandError::Read { .. }), "{missing}");
        let folder = prepare(&[folder.path().to_owned()]).await.unwrap_err();
        assert!(matches!(folder, CommandError::Read { .. }), "{folder}");
    }
}
