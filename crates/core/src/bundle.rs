//! A bundle: what is carried by hand from one node to another. Its header, which anybody can read and
//! its exporter signs, and its sealed chunks, which only the receiving bureau can open. What is in
//! them is for others to make and to judge. The form is described in `bundle.proto`.

use bureau_proto::bundle::v1 as wire;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    ids::{BundleId, BureauCode, KeyId, NetworkName},
    limits::{FORMAT, SIGNATURE_BYTES_MAX},
    reason::Reason,
    seal::{KEY_BYTES, Opener, SealError, Sealer, SealingKey, TAG_BYTES},
    signing::{Context, Signable},
    time::Timestamp,
};

/// What every bundle begins with, before the number of its version.
const MAGIC: &[u8] = b"BUREAU-BUNDLE ";
/// The version this software writes, and the only one it reads.
const VERSION: &[u8] = b"1\n";
/// Bytes before the header: magic, version, length.
const PROLOGUE_BYTES: usize = 20;
/// Largest encoded header: names, ids and a key come to under 300 bytes.
pub const HEADER_BYTES_MAX: usize = 1024;
/// Bytes that are sealed as one: what a receiver must hold before it knows that they are good.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Largest item: a link's largest frame, and what stands around it.
pub const ITEM_BYTES_MAX: usize = 4 * 1024 * 1024 + 1024;
/// What the sealing is for: what was sealed for anything else does not open.
const INFO: &[u8] = b"bureau/bundle/v1";
/// Set in the length of the last chunk.
const LAST: u32 = 1 << 31;

/// What whoever finds a bundle can read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The network.
    pub network: NetworkName,
    /// Who exported it.
    pub from: BureauCode,
    /// Who can open it.
    pub to: BureauCode,
    /// The key it is sealed for.
    pub recipient_key: KeyId,
    /// The encapsulated key.
    pub encapsulated: [u8; KEY_BYTES],
    /// Its id.
    pub id: BundleId,
    /// When it was exported.
    pub created: Timestamp,
}

impl Label {
    fn encode(&self) -> Bytes {
        let header = wire::BundleHeader {
            format: FORMAT,
            network: self.network.to_string(),
            from_bureau: self.from.to_string(),
            to_bureau: self.to.to_string(),
            recipient_key_id: Bytes::copy_from_slice(&self.recipient_key.0),
            encapsulated_key: Bytes::copy_from_slice(&self.encapsulated),
            bundle_id: Bytes::copy_from_slice(&self.id.0),
            create_time: Some(self.created.to_wire()),
        };
        header.encode_to_vec().into()
    }

    /// Reads what a header says. Nothing of it is proven.
    ///
    /// # Errors
    /// The [`Reason`] it is no header for.
    pub fn decode(payload: Bytes) -> Result<Self, Reason> {
        let malformed = |_| Reason::Malformed;
        let header = wire::BundleHeader::decode(payload).map_err(|_| Reason::Malformed)?;
        if header.format != FORMAT {
            return Err(Reason::UnknownFormat);
        }
        Ok(Self {
            network: header.network.parse().map_err(malformed)?,
            from: header.from_bureau.parse().map_err(malformed)?,
            to: header.to_bureau.parse().map_err(malformed)?,
            recipient_key: KeyId::from_bytes(&header.recipient_key_id).map_err(malformed)?,
            encapsulated: header
                .encapsulated_key
                .as_ref()
                .try_into()
                .map_err(|_| Reason::Malformed)?,
            id: BundleId::from_bytes(&header.bundle_id).map_err(malformed)?,
            created: Timestamp::from_wire(header.create_time.as_ref()).ok_or(Reason::Malformed)?,
        })
    }
}

/// A header with its signature.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    label: Label,
    signed: bureau_proto::envelope::v1::Signed,
}

impl Header {
    /// A header to be signed.
    #[must_use]
    pub fn new(label: Label) -> Self {
        let payload = label.encode();
        let signed = bureau_proto::envelope::v1::Signed { payload, attestation: None };
        Self { label, signed }
    }

    pub(crate) fn from_signed(signed: bureau_proto::envelope::v1::Signed) -> Result<Self, Reason> {
        Ok(Self { label: Label::decode(signed.payload.clone())?, signed })
    }

    /// What it says.
    #[must_use]
    pub const fn label(&self) -> &Label {
        &self.label
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.signed.payload).into()
    }
}

impl Signable for Header {
    const CONTEXT: Context = Context::Bundle;

    fn payload(&self) -> &Bytes {
        &self.signed.payload
    }

    fn attach(&mut self, attestation: bureau_proto::envelope::v1::Attestation) {
        self.signed.attestation = Some(attestation);
    }
}

/// Reads a header that stands at the beginning of a file, unproven: for one who cannot check it.
///
/// # Errors
/// As [`split_header`]; what it says may be no header.
pub fn read_label(beginning: &[u8]) -> Result<Option<Label>, Reason> {
    let Some((signed, _)) = split_header(beginning)? else { return Ok(None) };
    let signed = bureau_proto::envelope::v1::Signed::decode(signed);
    Label::decode(signed.map_err(|_| Reason::Malformed)?.payload).map(Some)
}

/// The signed header at the beginning of a file, and how many bytes it takes with what stands
/// before it. `None`: more bytes are needed.
///
/// # Errors
/// [`Reason::NotABundle`], [`Reason::VersionUnsupported`], [`Reason::TooLarge`].
pub fn split_header(beginning: &[u8]) -> Result<Option<(Bytes, usize)>, Reason> {
    let known = beginning.len().min(MAGIC.len());
    if beginning[..known] != MAGIC[..known] {
        return Err(Reason::NotABundle);
    }
    let Some(prologue) = beginning.get(..PROLOGUE_BYTES) else { return Ok(None) };
    if prologue[MAGIC.len()..MAGIC.len() + VERSION.len()] != *VERSION {
        return Err(Reason::VersionUnsupported);
    }
    let mut length = &prologue[MAGIC.len() + VERSION.len()..];
    let length = length.get_u32() as usize;
    if length > HEADER_BYTES_MAX + SIGNATURE_BYTES_MAX {
        return Err(Reason::TooLarge);
    }
    let header = beginning.get(PROLOGUE_BYTES..PROLOGUE_BYTES + length);
    Ok(header.map(|header| (Bytes::copy_from_slice(header), PROLOGUE_BYTES + length)))
}

/// What a bundle's label must be made of before it is signed: the encapsulated key, and what seals.
///
/// # Errors
/// [`SealError::BadKey`].
pub fn sealer(
    public: &[u8; KEY_BYTES],
    random: &Zeroizing<[u8; KEY_BYTES]>,
) -> Result<(Sealer, [u8; KEY_BYTES]), SealError> {
    Sealer::new(public, INFO, random)
}

/// Writes a bundle.
#[derive(Debug)]
pub struct Writer {
    sealer: Sealer,
    digest: [u8; 32],
}

impl Writer {
    /// A writer below a header, and what the file begins with.
    #[must_use]
    pub fn new(header: &Header, sealer: Sealer) -> (Self, Bytes) {
        let signed = header.signed.encode_to_vec();
        let mut beginning = BytesMut::with_capacity(PROLOGUE_BYTES + signed.len());
        beginning.put_slice(MAGIC);
        beginning.put_slice(VERSION);
        beginning.put_u32(u32::try_from(signed.len()).unwrap_or(u32::MAX));
        beginning.put_slice(&signed);
        (Self { sealer, digest: header.digest() }, beginning.freeze())
    }

    /// The next chunk, as it stands in the file. At most [`CHUNK_BYTES`] go into one.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn chunk(&mut self, bytes: &[u8], last: bool) -> Result<Bytes, SealError> {
        let length = u32::try_from(bytes.len() + TAG_BYTES).unwrap_or(LAST);
        let head = (length | if last { LAST } else { 0 }).to_be_bytes();
        let sealed = self.sealer.seal(bytes, &associated(&self.digest, head))?;
        let mut chunk = BytesMut::with_capacity(head.len() + sealed.len());
        chunk.put_slice(&head);
        chunk.put_slice(&sealed);
        Ok(chunk.freeze())
    }
}

/// Why a bundle cannot be read on, and where in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// [`Reason::BundleDamaged`], [`Reason::BundleTruncated`], [`Reason::TooLarge`].
    pub reason: Reason,
    /// Where in the file, in bytes.
    pub offset: u64,
}

/// Opens the chunks of a bundle as its bytes come.
#[derive(Debug)]
pub struct Reader {
    opener: Opener,
    digest: [u8; 32],
    buffer: BytesMut,
    /// Where in the file the buffer begins.
    offset: u64,
    ended: bool,
}

impl Reader {
    /// A reader of what stands after a header of so many bytes.
    ///
    /// # Errors
    /// [`Reason::BundleDamaged`] where the encapsulated key is none.
    pub fn new(header: &Header, key: &SealingKey, header_bytes: usize) -> Result<Self, Reason> {
        let opener = key.opener(&header.label.encapsulated, INFO);
        let opener = opener.map_err(|_| Reason::BundleDamaged)?;
        let (digest, buffer) = (header.digest(), BytesMut::new());
        Ok(Self { opener, digest, buffer, offset: header_bytes as u64, ended: false })
    }

    /// Takes more of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Opens the next chunk; `None` where not all of one is here.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let damaged = Fault { reason: Reason::BundleDamaged, offset: self.offset };
        if self.ended {
            return if self.buffer.is_empty() { Ok(None) } else { Err(damaged) };
        }
        let Some(head) = self.buffer.first_chunk::<4>().copied() else { return Ok(None) };
        let number = u32::from_be_bytes(head);
        let (length, last) = ((number & !LAST) as usize, number & LAST != 0);
        if !(TAG_BYTES..=CHUNK_BYTES + TAG_BYTES).contains(&length) {
            return Err(damaged);
        }
        let Some(sealed) = self.buffer.get(4..4 + length) else { return Ok(None) };
        let opened = self.opener.open(sealed, &associated(&self.digest, head));
        let opened = opened.map_err(|_| damaged)?;
        self.buffer.advance(4 + length);
        self.offset += 4 + length as u64;
        self.ended = last;
        Ok(Some(opened))
    }

    /// The file has ended.
    ///
    /// # Errors
    /// [`Reason::BundleTruncated`] where the last chunk did not come.
    pub const fn finish(&self) -> Result<(), Fault> {
        if self.ended {
            return Ok(());
        }
        let offset = self.offset;
        Err(Fault { reason: Reason::BundleTruncated, offset })
    }

    /// How far the file was opened.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }
}

fn associated(digest: &[u8; 32], head: [u8; 4]) -> [u8; 36] {
    let mut associated = [0; 36];
    associated[..32].copy_from_slice(digest);
    associated[32..].copy_from_slice(&head);
    associated
}

/// Opened chunks, put together to items.
#[derive(Debug, Default)]
pub struct Items {
    buffer: BytesMut,
}

impl Items {
    /// Takes the content of a chunk.
    pub fn push(&mut self, opened: &[u8]) {
        self.buffer.extend_from_slice(opened);
    }

    /// The next item, encoded; `None` where not all of one is here.
    ///
    /// # Errors
    /// [`Reason::TooLarge`], [`Reason::Malformed`].
    pub fn next_item(&mut self) -> Result<Option<Bytes>, Reason> {
        // A varint of a length has at most ten bytes.
        let whole = self.buffer.iter().take(10).any(|byte| byte & 0x80 == 0);
        if !whole {
            return if self.buffer.len() < 10 { Ok(None) } else { Err(Reason::Malformed) };
        }
        let mut ahead = &self.buffer[..];
        let length = prost::decode_length_delimiter(&mut ahead).map_err(|_| Reason::Malformed)?;
        if length > ITEM_BYTES_MAX {
            return Err(Reason::TooLarge);
        }
        let before = self.buffer.len() - ahead.len();
        if ahead.len() < length {
            return Ok(None);
        }
        self.buffer.advance(before);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Whether nothing is left over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}
