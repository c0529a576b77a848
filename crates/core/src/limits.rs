//! What is too much. Every limit is named here once; a node's configuration may lower or raise
//! those in [`Limits`].

/// Format number of manifests, slips, receipts, bodies and rosters of this version.
pub const FORMAT: u32 = 1;
/// Random bytes in a manifest.
pub const NONCE_BYTES: usize = 16;
/// Largest encoded manifest. 32 attachments of 50 bytes and what else there is come to 2 KiB.
pub const MANIFEST_BYTES_MAX: usize = 4096;
/// Largest encoded slip: codes, digests and a wrapped key come to under 400 bytes.
pub const SLIP_BYTES_MAX: usize = 1024;
/// Largest encoded receipt: digests, codes and two sentences.
pub const RECEIPT_BYTES_MAX: usize = 1024;
/// Spans in one list of a statement of what was sent, or of what is missing: what is beyond comes
/// with the next one.
pub const SPANS_MAX: usize = 64;
/// Bytes of such a statement: two lists of spans of at most 24 bytes.
pub const STATEMENT_BYTES_MAX: usize = 3584;
/// What a signature adds to signed bytes: salt, path and root come to 610 bytes. The rest is room
/// for what newer versions add. Without a bound, a few MiB of empty path elements would take
/// twenty times as much memory before anything is checked.
pub const SIGNATURE_BYTES_MAX: usize = 2048;
/// Largest signed roster: 1,000 members of 4 KiB.
pub const ROSTER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most signatures under a roster: each costs a verification.
pub const ROSTER_SIGNATURES_MAX: usize = 64;
/// Longest subject, in characters.
pub const SUBJECT_CHARS_MAX: usize = 200;
/// Longest case reference, in characters.
pub const CASE_REFERENCE_CHARS_MAX: usize = 64;
/// Longest media type, in characters.
pub const MEDIA_TYPE_CHARS_MAX: usize = 100;
/// Longest name of a bureau in a roster, in characters.
pub const BUREAU_NAME_CHARS_MAX: usize = 200;
/// Longest address of a node in a roster: a DNS name and a port.
pub const ADDRESS_BYTES_MAX: usize = 261;
/// Longest file name of an attachment, in characters.
pub const FILE_NAME_CHARS_MAX: usize = 128;
/// Longest reason or advice in a receipt, in characters.
pub const RECEIPT_TEXT_CHARS_MAX: usize = 300;
/// What a body may hold beside its content: subject, references, visible recipients.
pub const BODY_OVERHEAD_BYTES_MAX: usize = 32 * 1024;
/// How far a peer's clock may be off, either way.
pub const CLOCK_SKEW_MS_MAX: i64 = 5 * 60 * 1000;
/// How long ids are remembered after their message expired.
pub const MEMORY_AFTER_EXPIRY_MS: i64 = 7 * 24 * 3600 * 1000;
/// Nodes a parcel may pass.
pub const HOPS_MAX: u32 = 8;

/// Limits that a bureau may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest content of a message, in bytes.
    pub body_bytes: usize,
    /// Most attachments of a message.
    pub attachments: usize,
    /// Largest attachment, in bytes.
    pub attachment_bytes: u64,
    /// Most recipients of a message.
    pub recipients: usize,
    /// Longest time from making to expiry, in milliseconds.
    pub lifetime_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1024 * 1024,
            attachments: 32,
            attachment_bytes: 256 * 1024 * 1024,
            recipients: 300,
            lifetime_ms: 30 * 24 * 3600 * 1000,
        }
    }
}
