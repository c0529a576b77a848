//! Attachments at a desk, as a case system brings them.

use bureau_core::envelope::Content;
use bureau_proto::desk::v1::{
    AttachmentToSend, GetUploadRequest, UploadAttachmentRequest, UploadHeader,
    upload_attachment_request::Piece,
};
use bytes::Bytes;

use super::{Chance, Desk};

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
        let Content { digest, size } = Content::of(file);
        let digest = Bytes::copy_from_slice(&digest);
        let header = UploadHeader { digest: digest.clone(), size, offset: 0 };
        let pieces = file.chunks(PIECE_BYTES).map(|data| Piece::Data(file.slice_ref(data)));
        let pieces = std::iter::once(Piece::Header(header)).chain(pieces);
        let pieces: Vec<_> =
            pieces.map(|piece| UploadAttachmentRequest { piece: Some(piece) }).collect();
        let uploaded = self.client().await.upload_attachment(tokio_stream::iter(pieces)).await;
        assert_eq!(uploaded.unwrap().into_inner().size, size);
        AttachmentToSend { digest, size, name: "file.bin".to_owned(), media_type: String::new() }
    }

    /// How much of a file this bureau has.
    pub async fn received(&self, digest: &Bytes) -> u64 {
        let request = GetUploadRequest { digest: digest.clone() };
        self.client().await.get_upload(request).await.unwrap().into_inner().received
    }
}
