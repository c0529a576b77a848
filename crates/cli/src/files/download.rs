//! A file on its way from the node: into a part file beside its place, from where that ends;
//! checked, and only then given its name.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use bureau_proto::desk::v1::{Attachment, DownloadAttachmentRequest};
use rustix::fs::{FlockOperation, OFlags, flock};
use sha2::{Digest as _, Sha256};
use tempfile::TempPath;
use tokio::{
    io::AsyncWriteExt as _,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tonic::Status;

use super::{PIECE_BYTES, STALL, TRIES_MAX, hex, progress::Bar};
use crate::{
    client::Desk,
    error::CommandError,
    output::{Output, escape},
    retry,
};

/// What is to be fetched, and where to.
pub(crate) struct Wanted<'a> {
    /// The message, as the node understands it.
    pub(crate) message: &'a str,
    /// Which of its attachments, from 0.
    pub(crate) index: u32,
    /// What it is.
    pub(crate) attachment: &'a Attachment,
    /// The file it becomes.
    pub(crate) path: PathBuf,
    /// Whether a file that is there may be replaced.
    pub(crate) force: bool,
}

/// A file while it comes in.
struct Growing {
    file: tokio::fs::File,
    hash: Sha256,
    length: u64,
}

/// Fetches a file and gives where it is, however often the connection breaks, as long as each time more of it arrives.
pub(crate) async fn download(
    desk: &Desk,
    wanted: Wanted<'_>,
    output: &mut Output,
) -> Result<PathBuf, CommandError> {
    if !wanted.force && wanted.path.symlink_metadata().is_ok() {
        return Err(CommandError::Exists { path: wanted.path });
    }
    let attachment = wanted.attachment;
    let part = part_path(&wanted.path, &attachment.digest);
    let (opening, size) = (part.clone(), attachment.size);
    let growing = spawn_blocking(move || open_part(&opening, size)).await;
    let growing =
        growing.map_err(|source| CommandError::Task { task: "opening a file", source })?;
    let write_error = |source| CommandError::Write { path: part.clone(), source };
    let mut growing = growing.map_err(write_error)?;
    let bar = Bar::new("fetching", &attachment.name, size);
    let mut tries = 0;
    while growing.length < size {
        let before = growing.length;
        let Err(error) = go_on(desk, &wanted, &part, &mut growing, &bar).await else { continue };
        if growing.length > before {
            tries = 0;
        }
        tries += 1;
        if !error.is_transient() || tries == TRIES_MAX {
            if growing.length == 0 {
                // Nothing to go on from; an error in removing it changes nothing.
                drop(std::fs::remove_file(&part));
            }
            return Err(error);
        }
        let pause = retry::pause(tries, error.retry_after());
        let (words, seconds) = (error.to_string(), pause.as_secs_f64());
        bar.note(output, &format!("{}; going on in {seconds:.1} s", escape::line(&words)));
        sleep(pause).await;
    }
    growing.file.sync_all().await.map_err(write_error)?;
    if growing.hash.finalize().as_slice() != &*attachment.digest {
        // What is wrong must not be gone on from.
        std::fs::remove_file(&part).map_err(write_error)?;
        return Err(CommandError::Corrupt { name: attachment.name.clone() });
    }
    place(part, &wanted.path, wanted.force)?;
    Ok(wanted.path)
}

/// Where a file lies until it is whole: beside its place, named by its content, so that another
/// try finds it.
fn part_path(path: &Path, digest: &[u8]) -> PathBuf {
    let digest: String = hex(digest).chars().take(16).collect();
    path.with_file_name(format!(".bureau-{digest}.part"))
}

/// Opens a part file and reads what it has. Never through a link that somebody laid there.
fn open_part(path: &Path, size: u64) -> io::Result<Growing> {
    let no_link = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_link);
    let mut file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("something that is no file is in its place"));
    }
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| io::Error::other("another command is writing it"))?;
    if file.metadata()?.len() > size {
        file.set_len(0)?;
    }
    let (mut hash, mut length) = (Sha256::new(), 0);
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(Growing { file: tokio::fs::File::from_std(file), hash, length });
        }
        hash.update(buffer.get(..read).unwrap_or(&[]));
        length += read as u64;
    }
}

/// One try, from where the file ends.
async fn go_on(
    desk: &Desk,
    wanted: &Wanted<'_>,
    part: &Path,
    growing: &mut Growing,
    bar: &Bar,
) -> Result<(), CommandError> {
    let face = desk.desk_face().await?;
    let mut client = face.client.clone();
    bar.begin(growing.length);
    let request = DownloadAttachmentRequest {
        message_id: wanted.message.to_owned(),
        index: wanted.index,
        offset: growing.length,
    };
    let mut pieces = face.call(client.download_attachment(request)).await?;
    while growing.length < wanted.attachment.size {
        let piece = match timeout(STALL, pieces.message()).await {
            Ok(Ok(Some(piece))) => piece,
            Ok(Ok(None)) => {
                return Err(face.refused(&Status::unavailable("the stream ended too early")));
            }
            Ok(Err(status)) => return Err(face.refused(&status)),
            Err(_elapsed) => {
                let message = format!("nothing moved for {} s", STALL.as_secs());
                return Err(face.refused(&Status::deadline_exceeded(message)));
            }
        };
        let left = wanted.attachment.size - growing.length;
        if piece.offset != growing.length || piece.data.is_empty() || piece.data.len() as u64 > left
        {
            return Err(CommandError::Incomplete("the piece that was asked for"));
        }
        let write_error = |source| CommandError::Write { path: part.to_owned(), source };
        growing.file.write_all(&piece.data).await.map_err(write_error)?;
        // What was not written must not be counted.
        growing.file.flush().await.map_err(write_error)?;
        growing.hash.update(&piece.data);
        growing.length += piece.data.len() as u64;
        bar.add(piece.data.len() as u64);
    }
    Ok(())
}

/// Gives a file its name. Without `force`, what came into its place meanwhile stays.
fn place(part: PathBuf, path: &Path, force: bool) -> Result<(), CommandError> {
    let write_error = |source| CommandError::Write { path: path.to_owned(), source };
    if force {
        return std::fs::rename(&part, path).map_err(write_error);
    }
    let part = TempPath::try_from_path(part).map_err(write_error)?;
    part.persist_noclobber(path).map_err(|failed| {
        // It stays, whole, for another try; keeping it cannot fail on Unix.
        drop(failed.path.keep());
        match failed.error.kind() {
            io::ErrorKind::AlreadyExists => CommandError::Exists { path: path.to_owned() },
            _ => write_error(failed.error),
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_part_goes_on_where_it_ends_and_is_nobodys_link() {
        let folder = tempfile::tempdir().unwrap();
        let part = part_path(&folder.path().join("a.pdf"), &[0xab; 32]);
        assert!(part.ends_with(".bureau-abababababababab.part"));
        assert_eq!(open_part(&part, 10).unwrap().length, 0);
        std::fs::write(&part, b"12345").unwrap();
        let growing = open_part(&part, 10).unwrap();
        assert_eq!((growing.length, growing.hash.clone().finalize()), {
            (5, Sha256::digest(b"12345"))
        });
        let busy = open_part(&part, 10).map(|_| ()).unwrap_err();
        assert_eq!(busy.to_string(), "another command is writing it");
        drop(growing);
        // Longer than the whole: not of it.
        assert_eq!(open_part(&part, 4).unwrap().length, 0);

        std::fs::remove_file(&part).unwrap();
        let victim = folder.path().join("victim");
        std::fs::write(&victim, b"mine").unwrap();
        std::os::unix::fs::symlink(&victim, &part).unwrap();
        assert!(open_part(&part, 10).is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
    }

    #[test]
    fn what_is_there_is_replaced_only_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let (part, path) = (folder.path().join("part"), folder.path().join("a.pdf"));
        std::fs::write(&part, b"new").unwrap();
        std::fs::write(&path, b"old").unwrap();
        let exists = place(part.clone(), &path, false).unwrap_err();
        assert!(matches!(exists, CommandError::Exists { .. }), "{exists}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        place(part.clone(), &path, true).unwrap();
        assert_eq!((std::fs::read(&path).unwrap(), part.exists()), (b"new".to_vec(), false));
    }
}
