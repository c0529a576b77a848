//! Every prefix and every single-byte change of what is signed is refused.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod network;

use bureau_core::{
    Roster,
    receipt::ReceiptKind,
    roster::{self, Anchor},
};
use bytes::Bytes;
use network::{Network, at, key, roster_of};
use proptest::prelude::*;

/// Calls a verifier with every prefix and with single bytes changed in several ways, and expects it
/// to refuse all.
fn refuses_all(good: &Bytes, masks: &[u8], accepts: impl Fn(Bytes) -> bool) {
    assert!(accepts(good.clone()), "the good one is refused");
    for length in 0..good.len() {
        assert!(!accepts(good.slice(..length)), "a prefix of {length} bytes is accepted");
    }
    for position in 0..good.len() {
        for mask in masks {
            let mut changed = good.to_vec();
            changed[position] ^= mask;
            assert!(!accepts(changed.into()), "byte {position} changed by {mask:#x} is accepted");
        }
    }
}

const MASKS: [u8; 4] = [0x01, 0x08, 0x80, 0xff];

#[test]
fn an_envelope_holds_whole_or_not_at_all() {
    let network = Network::new();
    for group_size in [2, 20, 300] {
        let (envelope, _) = network.message("body", group_size);
        refuses_all(&envelope.encode(), &MASKS, |bytes| {
            network.verifier.envelope(bytes, at(0)).is_ok()
        });
    }
}

#[test]
fn a_slip_holds_whole_or_not_at_all() {
    let network = Network::new();
    for group_size in [2, 20, 300] {
        let (envelope, slip) = network.message("body", group_size);
        refuses_all(&slip.encode(), &MASKS, |bytes| {
            network.verifier.slip(bytes, &envelope, at(0)).is_ok()
        });
    }
}

#[test]
fn a_receipt_holds_whole_or_not_at_all() {
    let network = Network::new();
    let (_, slip) = network.message("body", 2);
    let statement = network.statement(ReceiptKind::Delivered, &slip, "KE");
    let receipt = network.receipt("KE", statement);
    refuses_all(&receipt.encode(), &MASKS, |bytes| network.verifier.receipt(bytes, at(0)).is_ok());
}

#[test]
fn a_roster_holds_whole_or_not_at_all() {
    let network = Network::new();
    let wire = roster_of(&network.name, network.members.clone());
    let signed = roster::sign(&wire, &network.name, vec![key(99)]).unwrap();
    let anchor = Anchor { keys: vec![network.root.public()], threshold: 1 };
    refuses_all(&signed, &[0x01, 0x80], |bytes| {
        Roster::verify(bytes, &network.name, &anchor).is_ok()
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any bytes, and good ones with any stretch replaced: refused or equal, and never a panic.
    #[test]
    fn decoders_are_total(
        random in prop::collection::vec(any::<u8>(), 0..600),
        at_byte: prop::sample::Index,
        stretch in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let network = Network::new();
        let (envelope, slip) = network.message("text", 2);
        let verifier = &network.verifier;
        let random = Bytes::from(random);
        prop_assert!(verifier.envelope(random.clone(), at(0)).is_err());
        prop_assert!(verifier.slip(random.clone(), &envelope, at(0)).is_err());
        prop_assert!(verifier.receipt(random.clone(), at(0)).is_err());
        let _ = bureau_core::envelope::stored_manifest(random.clone());
        let _ = bureau_core::receipt::stored_statement(random.clone());
        let _ = bureau_core::slip::Count::decode(random);

        let replace = |good: Bytes| {
            let mut bytes = good.to_vec();
            let from = at_byte.index(bytes.len());
            let to = (from + stretch.len()).min(bytes.len());
            bytes[from..to].copy_from_slice(&stretch[..to - from]);
            Bytes::from(bytes)
        };
        if let Ok(accepted) = verifier.envelope(replace(envelope.encode()), at(0)) {
            prop_assert_eq!(accepted.id(), envelope.id());
            prop_assert_eq!(accepted.body(), envelope.body());
        }
        if let Ok(accepted) = verifier.slip(replace(slip.encode()), &envelope, at(0)) {
            prop_assert_eq!(accepted.digest(), slip.digest());
        }
    }
}
