//! Ed25519 keys. A private key is zeroized when dropped, never printed, and never read from a
//! file here: reading with its mode check is the caller's.

use std::fmt;

use ed25519_dalek::{
    Signature, Signer as _,
    pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, spki::der::pem::LineEnding},
};
use zeroize::Zeroizing;

use crate::{ids::KeyId, reason::Reason};

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a PKCS#8 PEM file with an Ed25519 private key (RFC 8410).
    #[error("not a PKCS#8 PEM Ed25519 private key")]
    NotPkcs8Pem,
    /// Not a PKCS#8 PEM file with an X25519 private key (RFC 8410).
    #[error("not a PKCS#8 PEM X25519 private key")]
    NotSealingPem,
    /// Not 32 bytes of a curve point in canonical form.
    #[error("not an Ed25519 public key")]
    NotAPoint,
    /// A point of small order or with a torsion part: signatures under it prove nothing.
    #[error("a weak Ed25519 public key")]
    Weak,
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    NoRandom,
}

/// A private key that signs manifests, slips, receipts or rosters.
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// A fresh key.
    ///
    /// # Errors
    /// [`KeyError::NoRandom`].
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(|_| KeyError::NoRandom)?;
        Ok(Self::from_seed(&seed))
    }

    /// The key of a 32-byte seed (RFC 8032, 5.1.5).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self { key: ed25519_dalek::SigningKey::from_bytes(seed) }
    }

    /// Reads a PKCS#8 PEM text, as `openssl genpkey -algorithm ed25519` writes it.
    ///
    /// # Errors
    /// [`KeyError::NotPkcs8Pem`].
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, KeyError> {
        let key = ed25519_dalek::SigningKey::from_pkcs8_pem(pem);
        key.map(|key| Self { key }).map_err(|_| KeyError::NotPkcs8Pem)
    }

    /// Writes the key as PKCS#8 PEM. Keep the file at mode 0600.
    ///
    /// # Errors
    /// [`KeyError::NotPkcs8Pem`] where it cannot be encoded.
    pub fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        // Version 1 (without the public key) is what openssl and Java read.
        let version_1 = ed25519_dalek::pkcs8::KeypairBytes {
            secret_key: self.key.to_bytes(),
            public_key: None,
        };
        version_1.to_pkcs8_pem(LineEnding::LF).map_err(|_| KeyError::NotPkcs8Pem)
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::of(self.key.verifying_key())
    }

    pub(crate) fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.key.sign(bytes).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

/// A public key that was checked to be strong.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    key: ed25519_dalek::VerifyingKey,
    id: KeyId,
}

impl PublicKey {
    /// Takes 32 bytes (RFC 8032, 5.1.2). Refuses non-canonical encodings, small order and any
    /// torsion part.
    ///
    /// # Errors
    /// [`KeyError::NotAPoint`], [`KeyError::Weak`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes: &[u8; 32] = bytes.try_into().map_err(|_| KeyError::NotAPoint)?;
        let key =
            ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAPoint)?;
        let point = key.to_edwards();
        if point.compress().as_bytes() != bytes {
            return Err(KeyError::NotAPoint);
        }
        if key.is_weak() || !point.is_torsion_free() {
            return Err(KeyError::Weak);
        }
        Ok(Self::of(key))
    }

    /// Its 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    pub(crate) fn verify(&self, bytes: &[u8], signature: &[u8]) -> Result<(), Reason> {
        let signature = Signature::from_slice(signature).map_err(|_| Reason::BadSignature)?;
        self.key.verify_strict(bytes, &signature).map_err(|_| Reason::BadSignature)
    }

    fn of(key: ed25519_dalek::VerifyingKey) -> Self {
        Self { id: KeyId::of(key.as_bytes()), key }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    /// RFC 8032, 7.1: secret key, public key, message, signature.
    const VECTORS: [[&str; 4]; 4] = [
        [
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ],
        [
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ],
        [
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ],
        [
            "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
        ],
    ];

    #[test]
    fn rfc_8032_vectors_hold() {
        for [secret, public, message, signature] in VECTORS {
            let bytes = |hex: &str| HEXLOWER.decode(hex.as_bytes()).unwrap();
            let seed: [u8; 32] = bytes(secret).try_into().unwrap();
            let key = SigningKey::from_seed(&seed);
            assert_eq!(key.public().as_bytes().as_slice(), bytes(public));
            assert_eq!(key.sign(&bytes(message)).as_slice(), bytes(signature));
            key.public().verify(&bytes(message), &bytes(signature)).unwrap();
            let mut wrong = bytes(signature);
            wrong[40] ^= 1;
            assert_eq!(key.public().verify(&bytes(message), &wrong), Err(Reason::BadSignature));
        }
    }

    #[test]
    fn weak_and_mixed_order_keys_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(PublicKey::from_bytes(&identity), Err(KeyError::Weak));
        // An order-8 point, from the table of small-order points in "Taming the many EdDSAs".
        let order_8 = HEXLOWER
            .decode(b"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
            .unwrap();
        assert_eq!(PublicKey::from_bytes(&order_8), Err(KeyError::Weak));
        // y = p + 1 is the identity written in a non-canonical way.
        let mut high = [0xff; 32];
        high[0] = 0xee;
        high[31] = 0x7f;
        assert!(PublicKey::from_bytes(&high).is_err());
        assert_eq!(PublicKey::from_bytes(&[1; 31]), Err(KeyError::NotAPoint));
    }

    #[test]
    fn pem_round_trips_and_nothing_prints_a_key() {
        let key = SigningKey::generate().unwrap();
        let pem = key.to_pkcs8_pem().unwrap();
        assert_eq!(SigningKey::from_pkcs8_pem(&pem).unwrap().public(), key.public());
        assert_eq!(SigningKey::from_pkcs8_pem("no key").unwrap_err(), KeyError::NotPkcs8Pem);
        let secret = HEXLOWER.encode(&key.key.to_bytes());
        assert!(!format!("{key:?}").contains(&secret[..16]));
    }
}
