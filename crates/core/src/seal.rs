//! Sealing to a bureau: HPKE (RFC 9180) in base mode, with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and
//! ChaCha20Poly1305. Base mode proves nothing of who sealed: a signature over the encapsulated key does.
//!
//! Private keys are zeroized when dropped, never printed, and never read from a file here. Random
//! bytes come from the caller.

use std::{convert::Infallible, fmt};

use data_encoding::BASE64;
use hpke::{
    Deserializable as _, HpkeError, Kem as _, OpModeR, OpModeS, Serializable as _,
    aead::{AeadCtxR, AeadCtxS, ChaCha20Poly1305},
    kdf::HkdfSha256,
    kem::X25519HkdfSha256,
    rand_core::{TryCryptoRng, TryRng},
    setup_receiver, setup_sender_with_rng,
};
use zeroize::Zeroizing;

use crate::{ids::KeyId, keys::KeyError};

type Kem = X25519HkdfSha256;
type PrivateKey = <Kem as hpke::Kem>::PrivateKey;

/// Bytes of a key of either kind, and of an encapsulated key.
pub const KEY_BYTES: usize = 32;
/// What sealing adds to bytes: the tag.
pub const TAG_BYTES: usize = 16;

/// What stands before the 32 bytes of a key in PKCS#8 (RFC 8410): version 0, the algorithm X25519.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20,
];
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// Why something is not sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// A public or encapsulated key that no shared secret comes of.
    #[error("not an X25519 key that can be agreed with")]
    BadKey,
    /// What was sealed is not this, or not here.
    #[error("it does not open")]
    DoesNotOpen,
    /// One context has sealed all it may.
    #[error("too much was sealed with one key")]
    UsedUp,
}

impl From<HpkeError> for SealError {
    fn from(error: HpkeError) -> Self {
        match error {
            HpkeError::OpenError => Self::DoesNotOpen,
            HpkeError::MessageLimitReached => Self::UsedUp,
            _ => Self::BadKey,
        }
    }
}

/// A private key that opens what was sealed for its bureau.
pub struct SealingKey {
    key: PrivateKey,
    id: KeyId,
}

impl SealingKey {
    /// The key that 32 random bytes give (RFC 9180, DeriveKeyPair).
    #[must_use]
    pub fn derive(random: &[u8; KEY_BYTES]) -> Self {
        let (key, _) = Kem::derive_keypair(random);
        Self::of(key)
    }

    /// A fresh key.
    ///
    /// # Errors
    /// [`KeyError::NoRandom`].
    pub fn generate() -> Result<Self, KeyError> {
        let mut random = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(random.as_mut()).map_err(|_| KeyError::NoRandom)?;
        Ok(Self::derive(&random))
    }

    /// Reads a PKCS#8 PEM text, as `openssl genpkey -algorithm x25519` writes it.
    ///
    /// # Errors
    /// [`KeyError::NotSealingPem`].
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, KeyError> {
        let inner = pem.trim().strip_prefix(PEM_BEGIN).and_then(|rest| rest.strip_suffix(PEM_END));
        let mut text = Zeroizing::new(String::with_capacity(pem.len()));
        text.extend(inner.ok_or(KeyError::NotSealingPem)?.chars().filter(|c| !c.is_whitespace()));
        let der = BASE64.decode(text.as_bytes()).map_err(|_| KeyError::NotSealingPem)?;
        let der = Zeroizing::new(der);
        let key = der.strip_prefix(&PKCS8_PREFIX).filter(|key| key.len() == KEY_BYTES);
        let key = PrivateKey::from_bytes(key.ok_or(KeyError::NotSealingPem)?);
        key.map(Self::of).map_err(|_| KeyError::NotSealingPem)
    }

    /// Writes the key as PKCS#8 PEM. Keep the file at mode 0600.
    #[must_use]
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        let mut der = Zeroizing::new([0; PKCS8_PREFIX.len() + KEY_BYTES]);
        der[..PKCS8_PREFIX.len()].copy_from_slice(&PKCS8_PREFIX);
        self.key.write_exact(&mut der[PKCS8_PREFIX.len()..]);
        let text = Zeroizing::new(BASE64.encode(der.as_ref()));
        Zeroizing::new(format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", text.as_str()))
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> [u8; KEY_BYTES] {
        Kem::sk_to_pk(&self.key).to_bytes().into()
    }

    /// Its id: that of its public half.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Begins to open what was sealed for this key.
    ///
    /// # Errors
    /// [`SealError::BadKey`].
    pub fn opener(&self, encapsulated: &[u8], info: &[u8]) -> Result<Opener, SealError> {
        let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated)?;
        let context = setup_receiver(&OpModeR::Base, &self.key, &encapsulated, info)?;
        Ok(Opener { context })
    }

    fn of(key: PrivateKey) -> Self {
        let public: [u8; KEY_BYTES] = Kem::sk_to_pk(&key).to_bytes().into();
        Self { key, id: KeyId::of(&public) }
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.id)
    }
}

/// Seals one thing after another for one bureau, in order.
pub struct Sealer {
    context: AeadCtxS<ChaCha20Poly1305, HkdfSha256, Kem>,
}

impl Sealer {
    /// A sealer for a public key, and the encapsulated key that its owner needs. The random bytes must
    /// be fresh and secret.
    ///
    /// # Errors
    /// [`SealError::BadKey`].
    pub fn new(
        public: &[u8; KEY_BYTES],
        info: &[u8],
        random: &Zeroizing<[u8; KEY_BYTES]>,
    ) -> Result<(Self, [u8; KEY_BYTES]), SealError> {
        let public = <Kem as hpke::Kem>::PublicKey::from_bytes(public)?;
        let mut given = Given { bytes: random.clone(), used: 0 };
        let (encapsulated, context) =
            setup_sender_with_rng(&OpModeS::Base, &public, info, &mut given)?;
        Ok((Self { context }, encapsulated.to_bytes().into()))
    }

    /// Seals the next bytes. What opens them must be given the same associated data.
    ///
    /// # Errors
    /// [`SealError::UsedUp`].
    pub fn seal(&mut self, bytes: &[u8], associated: &[u8]) -> Result<Vec<u8>, SealError> {
        Ok(self.context.seal(bytes, associated)?)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

/// Opens one thing after another, in the order in which they were sealed.
pub struct Opener {
    context: AeadCtxR<ChaCha20Poly1305, HkdfSha256, Kem>,
}

impl Opener {
    /// Opens the next bytes. What does not open leaves the place where it was.
    ///
    /// # Errors
    /// [`SealError::DoesNotOpen`].
    pub fn open(&mut self, sealed: &[u8], associated: &[u8]) -> Result<Vec<u8>, SealError> {
        Ok(self.context.open(sealed, associated)?)
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

/// Random bytes that were drawn before, given out once. HPKE asks for 32 to make its one-time key.
struct Given {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    used: usize,
}

impl TryRng for Given {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, wanted: &mut [u8]) -> Result<(), Infallible> {
        let from = self.used.min(KEY_BYTES);
        self.used = from + wanted.len();
        for (wanted, byte) in wanted.iter_mut().zip(self.bytes.iter().skip(from)) {
            *wanted = *byte;
        }
        Ok(())
    }
}

impl TryCryptoRng for Given {}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        HEXLOWER.decode(hex.as_bytes()).unwrap()
    }

    fn key(hex: &str) -> [u8; 32] {
        bytes(hex).try_into().unwrap()
    }

    /// RFC 9180, A.2.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, base mode.
    #[test]
    fn rfc_9180_vectors_hold() {
        let info = bytes("4f6465206f6e2061204772656369616e2055726e");
        let text = bytes("4265617574792069732074727574682c20747275746820626561757479");
        let random =
            Zeroizing::new(key("909a9b35d3dc4713a5e72a4da274b55d3d3821a37e5d099e74a647db583a904b"));
        let recipient = SealingKey::derive(&key(
            "1ac01f181fdf9f352797655161c58b75c656a6cc2716dcb66372da835542e1df",
        ));
        assert_eq!(
            recipient.public(),
            key("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a")
        );
        let sealed = [
            "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
            "6b53c051e4199c518de79594e1c4ab18b96f081549d45ce015be002090bb119e85285337cc95ba5f59992dc98c",
        ];
        let (mut sealer, encapsulated) = Sealer::new(&recipient.public(), &info, &random).unwrap();
        assert_eq!(
            encapsulated,
            key("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
        );
        let mut opener = recipient.opener(&encapsulated, &info).unwrap();
        for (count, sealed) in sealed.iter().enumerate() {
            let associated = format!("Count-{count}");
            assert_eq!(sealer.seal(&text, associated.as_bytes()).unwrap(), bytes(sealed));
            let mut changed = bytes(sealed);
            changed[3] ^= 1;
            let refused = Err(SealError::DoesNotOpen);
            assert_eq!(opener.open(&changed, associated.as_bytes()), refused);
            assert_eq!(opener.open(&bytes(sealed), b"Count-9"), refused);
            assert_eq!(opener.open(&bytes(sealed), associated.as_bytes()).unwrap(), text);
        }
    }

    #[test]
    fn a_key_without_a_secret_is_refused() {
        let random = Zeroizing::new([7; 32]);
        assert_eq!(Sealer::new(&[0; 32], b"", &random).unwrap_err(), SealError::BadKey);
        let key = SealingKey::generate().unwrap();
        assert_eq!(key.opener(&[0; 32], b"").unwrap_err(), SealError::BadKey);
        assert_eq!(key.opener(&[1; 31], b"").unwrap_err(), SealError::BadKey);
    }

    #[test]
    fn pem_round_trips_and_nothing_prints_a_key() {
        let key = SealingKey::generate().unwrap();
        let pem = key.to_pkcs8_pem();
        let again = SealingKey::from_pkcs8_pem(&pem).unwrap();
        assert_eq!((again.public(), again.id()), (key.public(), key.id()));
        assert_eq!(format!("{key:?}"), format!("SealingKey({})", KeyId::of(&key.public())));
        // As openssl writes a key of these bytes.
        let of_openssl = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VuBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n\
            -----END PRIVATE KEY-----\n";
        let key = SealingKey::from_pkcs8_pem(of_openssl).unwrap();
        let public = key.public();
        assert_eq!(
            HEXLOWER.encode(&public),
            "8f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f"
        );
        let signing = crate::SigningKey::generate().unwrap().to_pkcs8_pem().unwrap();
        for wrong in ["", "no key", signing.as_str(), &of_openssl[..60]] {
            assert_eq!(SealingKey::from_pkcs8_pem(wrong).unwrap_err(), KeyError::NotSealingPem);
        }
    }
}
