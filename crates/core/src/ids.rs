//! Names and ids, each with its narrow alphabet. A value of these types is safe to put into a
//! log line, a path, a key or a certificate. Nothing here knows what is named.

use std::{fmt, str::FromStr};

use data_encoding::BASE32_NOPAD;
use sha2::{Digest as _, Sha256};

/// A text that is not a name of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: {rule}")]
pub struct InvalidName {
    /// What was asked for.
    pub what: &'static str,
    /// Which texts are good.
    pub rule: &'static str,
}

/// Code of a bureau: 2 to 12 of A-Z and 0-9, as the roster lists it (`FR`, `IPSG`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BureauCode {
    /// The text, filled with zeros, so that codes sort as texts and have one width in keys.
    padded: [u8; Self::WIDTH],
}

impl BureauCode {
    /// Bytes of [`Self::padded`].
    pub const WIDTH: usize = 12;

    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let length = self.padded.iter().position(|byte| *byte == 0).unwrap_or(Self::WIDTH);
        // Only ASCII gets in, so this never falls back.
        std::str::from_utf8(&self.padded[..length]).unwrap_or_default()
    }

    /// The code, filled with zeros to one width.
    #[must_use]
    pub const fn padded(&self) -> &[u8; Self::WIDTH] {
        &self.padded
    }

    /// The code from its padded form.
    ///
    /// # Errors
    /// [`InvalidName`] where the bytes are no padded code.
    pub fn from_padded(padded: &[u8]) -> Result<Self, InvalidName> {
        let length = padded.iter().position(|byte| *byte == 0).unwrap_or(padded.len());
        let (text, fill) = padded.split_at(length);
        if padded.len() != Self::WIDTH || fill.iter().any(|byte| *byte != 0) {
            return Err(Self::invalid());
        }
        std::str::from_utf8(text).map_err(|_| Self::invalid())?.parse()
    }

    const fn invalid() -> InvalidName {
        InvalidName { what: "bureau code", rule: "2 to 12 of A-Z and 0-9" }
    }
}

impl FromStr for BureauCode {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let good = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        if text.len() < 2 || text.len() > Self::WIDTH || !text.bytes().all(good) {
            return Err(Self::invalid());
        }
        let mut padded = [0; Self::WIDTH];
        padded[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { padded })
    }
}

impl fmt::Display for BureauCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for BureauCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $good:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let good: fn(u8) -> bool = $good;
                let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
                let bytes = text.as_bytes();
                if bytes.len() > 63
                    || !edge(bytes.first())
                    || !edge(bytes.last())
                    || !bytes.iter().copied().all(good)
                {
                    return Err(InvalidName { what: $what, rule: $rule });
                }
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_name!(
    /// Name of a network: the SPIFFE trust domain, and the name under every signature.
    NetworkName,
    "network name",
    "1 to 63 of a-z, 0-9, '.' and '-', beginning and ending with a letter or digit",
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.' || byte == b'-'
);
text_name!(
    /// Name of a node within its bureau.
    NodeName,
    "node name",
    "1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
);
text_name!(
    /// Name of a desk within its bureau.
    DeskName,
    "desk name",
    "1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
);

/// Id of a message: the hash of its manifest (see `proto/`, `Manifest`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub [u8; 32]);

impl MessageId {
    /// Shortest prefix of the text form that is taken for an id.
    pub const PREFIX_MIN: usize = 6;
    /// Length of the text form.
    pub const TEXT_LENGTH: usize = 52;

    /// The id from its 32 bytes.
    ///
    /// # Errors
    /// [`InvalidName`] where there are not 32.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidName> {
        bytes.try_into().map(Self).map_err(|_| Self::invalid())
    }

    const fn invalid() -> InvalidName {
        InvalidName { what: "message id", rule: "52 characters of a-z and 2-7" }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.len() != Self::TEXT_LENGTH {
            return Err(Self::invalid());
        }
        let upper = text.to_ascii_uppercase();
        let bytes = BASE32_NOPAD.decode(upper.as_bytes()).map_err(|_| Self::invalid())?;
        Self::from_bytes(&bytes)
    }
}

/// A prefix of a message id's text, as people type it: 6 to 52 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdPrefix {
    text: String,
}

impl IdPrefix {
    /// The lowest id that can begin with this prefix: where a scan starts.
    #[must_use]
    pub fn lowest(&self) -> MessageId {
        let mut id = [0; 32];
        let mut bit = 0;
        for symbol in self.text.bytes() {
            let value = symbol_value(symbol).unwrap_or(0);
            for shift in (0..5).rev() {
                if bit < 256 && value >> shift & 1 == 1 {
                    id[bit / 8] |= 0x80 >> (bit % 8);
                }
                bit += 1;
            }
        }
        MessageId(id)
    }

    /// Whether an id begins with it.
    #[must_use]
    pub fn matches(&self, id: &MessageId) -> bool {
        id.to_string().starts_with(&self.text)
    }
}

impl FromStr for IdPrefix {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let text = text.to_ascii_lowercase();
        let lengths = MessageId::PREFIX_MIN..=MessageId::TEXT_LENGTH;
        if !lengths.contains(&text.len()) || !text.bytes().all(|byte| symbol_value(byte).is_some())
        {
            return Err(InvalidName {
                what: "message id",
                rule: "the first 6 to 52 characters of an id, of a-z and 2-7",
            });
        }
        Ok(Self { text })
    }
}

fn symbol_value(symbol: u8) -> Option<u8> {
    match symbol {
        b'a'..=b'z' => Some(symbol - b'a'),
        b'2'..=b'7' => Some(symbol - b'2' + 26),
        _ => None,
    }
}

/// Which of a bureau's keys: the first 16 bytes of SHA-256 of the public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 16]);

impl KeyId {
    /// The id of a public key.
    #[must_use]
    pub fn of(public_key: &[u8]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&Sha256::digest(public_key)[..16]);
        Self(id)
    }
}

/// A node's store incarnation: changes when it was wiped or restored with loss.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub [u8; 16]);

/// A bundle that is carried by hand: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BundleId(pub [u8; 16]);

macro_rules! hex_id {
    ($name:ident, $what:literal) => {
        impl $name {
            /// The id from its 16 bytes.
            ///
            /// # Errors
            /// [`InvalidName`] where there are not 16.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidName> {
                let invalid = |_| InvalidName { what: $what, rule: "16 bytes" };
                bytes.try_into().map(Self).map_err(invalid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}
hex_id!(KeyId, "key id");
hex_id!(BundleId, "bundle id");
hex_id!(Epoch, "epoch");

/// Urgency. Lower sorts first and goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Lane {
    /// Lives are at stake now.
    Flash = 1,
    /// Within minutes.
    Immediate = 2,
    /// Within the hour.
    Priority = 3,
    /// Everything else.
    Routine = 4,
}

impl Lane {
    /// Every lane, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Flash, Self::Immediate, Self::Priority, Self::Routine];

    /// The lane from its number on the wire; `None` for unspecified or unknown.
    #[must_use]
    pub fn from_wire(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.to_wire() == number)
    }

    /// Its number on the wire.
    #[must_use]
    pub const fn to_wire(self) -> i32 {
        self as i32
    }

    /// Its name, as people write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flash => "FLASH",
            Self::Immediate => "IMMEDIATE",
            Self::Priority => "PRIORITY",
            Self::Routine => "ROUTINE",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Lane {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::ALL
            .into_iter()
            .find(|lane| lane.as_str().eq_ignore_ascii_case(text))
            .ok_or(InvalidName { what: "lane", rule: "FLASH, IMMEDIATE, PRIORITY or ROUTINE" })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_narrow_alphabets() {
        for good in ["FR", "IPSG", "ABCDEFGHIJ12"] {
            assert_eq!(good.parse::<BureauCode>().unwrap().as_str(), good);
        }
        for bad in ["", "F", "fr", "F R", "FR\n", "ABCDEFGHIJ123", "É1", "F/R"] {
            assert!(bad.parse::<BureauCode>().is_err(), "{bad:?}");
        }
        for bad in ["", "-a", "a-", "A", "a/b", "a b", "a\u{202e}", "a.b", &"a".repeat(64)] {
            assert!(bad.parse::<DeskName>().is_err(), "{bad:?}");
        }
        assert!("i24.example".parse::<NetworkName>().is_ok());
    }

    proptest! {
        #[test]
        fn ids_round_trip_and_prefixes_find_them(bytes: [u8; 32], length in 6usize..=52) {
            let id = MessageId(bytes);
            let text = id.to_string();
            prop_assert_eq!(text.parse::<MessageId>().unwrap(), id);
            let prefix: IdPrefix = text[..length].parse().unwrap();
            prop_assert!(prefix.matches(&id));
            prop_assert!(prefix.lowest() <= id);
        }

        #[test]
        fn codes_round_trip(text in "[A-Z0-9]{2,12}") {
            let code: BureauCode = text.parse().unwrap();
            prop_assert_eq!(code.as_str(), text);
            prop_assert_eq!(BureauCode::from_padded(code.padded()).unwrap(), code);
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<BureauCode>();
            let _ = text.parse::<MessageId>();
            let _ = text.parse::<IdPrefix>();
            let _ = text.parse::<Lane>();
        }
    }
}
