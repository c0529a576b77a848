//! Attachments at a desk, as a case system brings them and takes them out; and what of them is on
//! a node's disk.

use std::{fs, path::PathBuf};

use bureau_core::envelope::Content;
use bureau_net::status::ReceivedRefusal;
use bureau_proto::desk::v1::{
    AttachmentToSend, DownloadAttachmentRequest, GetUploadRequest, ReleaseAttachmentsRequest,
    ReleaseAttachmentsResponse, UploadAttachmentRequest, UploadHeader,
    upload_attachment_request::Piece,
};
use bytes::Bytes;
use tokio_stream::StreamExt as _;

use super::{Chance, Desk, Network, desk::refusal};

/// Pieces of an upload.
const PIECE_BYTES: usize = 256 * 1024;

/// Bytes that nothing makes smaller, the same for the same seed.
pub fn noise(seed: u64, bytes: usize) -> Bytes {
    let mut chance = Chance::of(seed);
    let words = (0..bytes.div_ceil(8)).flat_map(|_| chance.next().to_le_bytes());
    words.take(bytes).collect()
}

impl Desk {
    /// Brings a file to the node; gives what a message names it by.
    pub async fn upload(&self, file: &Bytes) -> AttachmentToSend {
        self.try_upload(file).await.unwrap()
    }

    /// Brings a file to the node, from where the node has it, or gives what it was refused with.
    pub async fn try_upload(&self, file: &Bytes) -> Result<AttachmentToSend, ReceivedRefusal> {
        let Content { digest, size } = Content::of(file);
        let digest = Bytes::copy_from_slice(&digest);
        let mut client = self.client().await;
        let held = client.get_upload(GetUploadRequest { digest: digest.clone() }).await;
        let offset = held.map_err(refusal)?.into_inner().received;
        let rest = file.slice(usize::try_from(offset).unwrap()..);
        let header = UploadHeader { digest: digest.clone(), size, offset };
        let pieces = rest.chunks(PIECE_BYTES).map(|data| Piece::Data(rest.slice_ref(data)));
        let pieces = std::iter::once(Piece::Header(header)).chain(pieces);
        let pieces: Vec<_> =
            pieces.map(|piece| UploadAttachmentRequest { piece: Some(piece) }).collect();
        let uploaded = client.upload_attachment(tokio_stream::iter(pieces)).await;
        assert_eq!(uploaded.map_err(refusal)?.into_inner().size, size);
        let media_type = String::new();
        Ok(AttachmentToSend { digest, size, name: "file.bin".to_owned(), media_type })
    }

    /// An attachment of a message that arrived, from an offset on.
    pub async fn download(
        &self,
        message_id: &str,
        index: u32,
        offset: u64,
    ) -> Result<Bytes, ReceivedRefusal> {
        let request =
            DownloadAttachmentRequest { message_id: message_id.to_owned(), index, offset };
        let pieces = self.client().await.download_attachment(request).await;
        let mut pieces = pieces.map_err(refusal)?.into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(refusal)?;
            assert_eq!(piece.offset, offset + bytes.len() as u64);
            bytes.extend_from_slice(&piece.data);
        }
        Ok(bytes.into())
    }

    /// Releases what policy holds back of a message.
    pub async fn release(
        &self,
        message_id: &str,
    ) -> Result<ReleaseAttachmentsResponse, ReceivedRefusal> {
        let request = ReleaseAttachmentsRequest { message_id: message_id.to_owned() };
        let released = self.client().await.release_attachments(request).await;
        released.map(tonic::Response::into_inner).map_err(refusal)
    }
}

impl Network {
    /// How much of a file a bureau has, whoever brought it.
    pub fn received(&self, bureau: &str, digest: &Bytes) -> u64 {
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let files = self.kept_files(bureau).into_iter();
        let of_it = files.filter(|(path, _)| path.to_string_lossy().contains(&name));
        of_it.map(|(_, size)| size).max().unwrap_or(0)
    }

    /// Bytes that came in of what is not whole yet.
    pub fn coming_in(&self, bureau: &str) -> u64 {
        let parts = self.kept_files(bureau).into_iter();
        let parts = parts.filter(|(path, _)| path.extension().is_some_and(|end| end == "part"));
        parts.map(|(_, size)| size).sum()
    }

    /// Files of bodies and attachments, and what is coming in, each with its size.
    pub fn kept_files(&self, bureau: &str) -> Vec<(PathBuf, u64)> {
        let entries = fs::read_dir(self.home(bureau).join("data/bodies"));
        // A file may be renamed meanwhile.
        let size = |entry: fs::DirEntry| Some((entry.path(), entry.metadata().ok()?.len()));
        entries.into_iter().flatten().flatten().filter_map(size).collect()
    }
}
