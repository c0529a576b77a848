#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use rcgen::{CertificateParams, KeyPair, SanType};

use super::*;

fn certificate(uris: &[&str], dns: &[&str]) -> CertificateDer<'static> {
    let mut params =
        CertificateParams::new(dns.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    for uri in uris {
        params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
    }
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().clone()
}

#[test]
fn both_forms_round_trip() {
    for uri in [
        "spiffe://i24.example/bureau/FR/node/paris-1",
        "spiffe://demo/bureau/IPSG/desk/trafficking",
        "spiffe://a/bureau/A1/desk/0",
    ] {
        assert_eq!(uri.parse::<SpiffeId>().unwrap().to_string(), uri);
    }
    let id: SpiffeId = "spiffe://demo/bureau/FR/desk/d".parse().unwrap();
    assert_eq!(id.role.kind(), RoleKind::Desk);
    assert_eq!(id.bureau.as_str(), "FR");
}

#[test]
fn everything_else_is_refused() {
    let long = format!("spiffe://demo/bureau/FR/node/{}", "a".repeat(64));
    for uri in [
        "",
        "spiffe://",
        "spiffe://demo",
        "spiffe://demo/bureau/FR/node",
        "spiffe://demo/bureau/FR/node/",
        "spiffe://demo/bureau/FR/node/n/",
        "spiffe://demo/bureau/FR/node/n/x",
        "spiffe://demo//bureau/FR/node/n",
        "spiffe://demo/bureau/FR/NODE/n",
        "spiffe://demo/bureau/FR/admin/n",
        "spiffe://demo/Bureau/FR/node/n",
        "spiffe://demo/bureau/fr/node/n",
        "spiffe://demo/bureau/F/node/n",
        "spiffe://demo/bureau/F%52/node/n",
        "spiffe://demo/bureau/FR/node/%6e",
        "spiffe://demo/bureau/FR/node/n?x=1",
        "spiffe://demo/bureau/FR/node/n#x",
        "spiffe://demo/bureau/FR/node/..",
        "spiffe://demo/bureau/FR/node/-n",
        "spiffe://demo/bureau/FR/node/n-",
        "spiffe://demo/bureau/FR/node/N",
        "spiffe://demo:443/bureau/FR/node/n",
        "spiffe://user@demo/bureau/FR/node/n",
        "spiffe://Demo/bureau/FR/node/n",
        "SPIFFE://demo/bureau/FR/node/n",
        "https://demo/bureau/FR/node/n",
        " spiffe://demo/bureau/FR/node/n",
        "spiffe://demo/bureau/FR/node/n\n",
        "spiffe://demo/bureau/FR/node/n\0",
        long.as_str(),
    ] {
        assert!(uri.parse::<SpiffeId>().is_err(), "{uri:?}");
    }
}

#[test]
fn a_certificate_has_exactly_one_uri() {
    let uri = "spiffe://demo/bureau/FR/node/n1";
    let read = |uris: &[&str], dns: &[&str]| SpiffeId::from_certificate(&certificate(uris, dns));

    assert_eq!(read(&[uri], &["localhost", "fr.example"]).unwrap().to_string(), uri);
    assert_eq!(read(&[], &["localhost"]), Err(IdentityFault::UriCount { count: 0 }));
    assert_eq!(read(&[], &[]), Err(IdentityFault::UriCount { count: 0 }));
    assert_eq!(read(&[uri, uri], &[]), Err(IdentityFault::UriCount { count: 2 }));
    assert_eq!(read(&[uri, "https://fr.example/"], &[]), Err(IdentityFault::UriCount { count: 2 }));
    assert_eq!(read(&["https://fr.example/"], &[]), Err(IdentityFault::Form));
}

#[test]
fn trailing_bytes_are_refused() {
    let mut der = certificate(&["spiffe://demo/bureau/FR/node/n1"], &[]).to_vec();
    der.push(0);
    let padded = CertificateDer::from(der);
    assert_eq!(SpiffeId::from_certificate(&padded), Err(IdentityFault::NotACertificate));
}

#[test]
fn damaged_certificates_do_not_panic() {
    let good = certificate(&["spiffe://demo/bureau/FR/node/n1"], &["localhost"]).to_vec();
    for length in 0..good.len() {
        let cut = CertificateDer::from(good[..length].to_vec());
        assert!(SpiffeId::from_certificate(&cut).is_err(), "prefix of {length}");
    }
    for position in 0..good.len() {
        let mut bytes = good.clone();
        bytes[position] ^= 0x20;
        // A flipped bit may leave a readable certificate; its signature is TLS's business.
        let _ = SpiffeId::from_certificate(&CertificateDer::from(bytes));
    }
}

#[test]
fn a_request_from_elsewhere_has_no_peer() {
    let refusal = peer(&tonic::Request::new(())).unwrap_err();
    assert_eq!(refusal.reason, Reason::Unauthenticated);
}
