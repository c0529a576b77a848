//! Whom a call takes for its peer, and how it says what went wrong.

use std::{sync::Arc, time::Duration};

use bureau_net::{AcceptorLimits, DialError, HandshakeRefusal, Target};
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion, ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{io::AsyncWriteExt, net::TcpListener};
use tokio_rustls::TlsAcceptor;

use crate::{
    harness::{Authority, DAY, Face, Issued, Party, Wish, check, desk, links, node, target, wish},
    raw,
};

async fn call_to(server: &Issued, authority: &Authority) -> DialError {
    // The server trusts the authority; only the caller is to object.
    let party = Party::new(authority, &node("FR"));
    let config = plain_config(server);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        drop(TlsAcceptor::from(Arc::new(config)).accept(tcp).await);
    });
    let error = party.dialer().connect(&target(address, "KE")).await.unwrap_err();
    served.await.unwrap();
    error
}

fn plain_config(own: &Issued) -> ServerConfig {
    let chain = CertificateDer::pem_slice_iter(own.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap()
}

#[tokio::test]
async fn only_a_node_of_the_expected_bureau_is_the_peer() {
    let authority = Authority::new("bureau ca");
    let foreign = wish("spiffe://other.example/bureau/KE/node/n1".to_owned());
    for other in [node("BR"), desk("KE"), foreign] {
        let uri = other.uris[0].clone();
        let error = call_to(&authority.issue(&other), &authority).await;
        let DialError::WrongPeer { expected, found } = &error else { panic!("{error}") };
        assert_eq!(expected, "KE in demo.example");
        assert_eq!(found.to_string(), uri);
        assert_eq!(error.as_str(), "WRONG_PEER");
    }
}

#[tokio::test]
async fn what_is_wrong_with_its_certificate_has_a_name() {
    let authority = Authority::new("bureau ca");
    let expired = Wish { valid: (-2 * DAY, -1), ..node("KE") };
    let error = call_to(&authority.issue(&expired), &authority).await;
    assert_eq!(error, DialError::CertificateExpired);

    let early = Wish { valid: (3600, DAY), ..node("KE") };
    assert_eq!(call_to(&authority.issue(&early), &authority).await, DialError::NotYetValid);

    for name in ["other ca", "bureau ca"] {
        let other = Authority::new(name).issue(&node("KE"));
        assert_eq!(call_to(&other, &authority).await, DialError::UnknownCa);
    }

    let nobody = Wish { uris: Vec::new(), ..node("KE") };
    let error = call_to(&authority.issue(&nobody), &authority).await;
    assert_eq!(error.as_str(), "UNKNOWN_IDENTITY");

    let client = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let client = authority.issue(&Wish { uses: client, ..node("KE") });
    assert_eq!(call_to(&client, &authority).await.as_str(), "BAD_CERTIFICATE");
}

#[tokio::test]
async fn a_revoked_node_is_not_called() {
    let authority = Authority::new("bureau ca");
    let face = Face::link(&authority).await;
    let list = authority.revoke(&[7]);
    let own = authority.issue(&Wish { serial: 8, ..node("KE") });
    let caller = Party::with(&authority, &own, Some(&list));
    assert_eq!(caller.call(&face, "FR").await.unwrap_err(), DialError::Revoked);
    face.refused(HandshakeRefusal::RefusedByPeer, 1).await;
    face.end().await;
}

#[tokio::test]
async fn being_refused_is_known_before_the_first_rpc() {
    let authority = Authority::new("bureau ca");
    let face = Face::link(&authority).await;
    let wrong = Party::new(&authority, &desk("FR"));
    let error = wrong.call(&face, "FR").await.unwrap_err();
    assert!(matches!(error, DialError::Refused { .. }), "{error}");
    face.refused(HandshakeRefusal::WrongRole, 1).await;
    face.end().await;
}

#[tokio::test]
async fn nobody_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let party = Party::new(&Authority::new("bureau ca"), &node("FR"));
    let dialer = party.dialer();

    // Listens, says nothing.
    let silent = dialer.connect(&target(address, "KE")).await.unwrap_err();
    assert_eq!(silent, DialError::Timeout { after: Duration::from_secs(3) });
    drop(listener);
    let closed = dialer.connect(&target(address, "KE")).await.unwrap_err();
    assert_eq!(closed.as_str(), "UNREACHABLE");

    for bad in ["", "localhost", "fr example:1", "http://localhost:1", "localhost:1/x", "h:99999"] {
        let target = Target { address: bad.to_owned(), ..target(address, "KE") };
        let error = dialer.connect(&target).await.unwrap_err();
        assert_eq!(error.as_str(), "INVALID_ADDRESS", "{bad:?}");
    }
}

#[tokio::test]
async fn somebody_who_speaks_something_else() {
    let party = Party::new(&Authority::new("bureau ca"), &node("FR"));
    for (answer, name) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "NOT_TLS"),
        (&[21, 3, 3, 0, 2, 2, 70], "TLS_VERSION"),
        (&[], "CLOSED"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            // Reads the hello first: a reset would overtake the answer.
            tcp.readable().await.unwrap();
            tcp.try_read(&mut [0; 16384]).unwrap();
            tcp.write_all(answer).await.unwrap();
        });
        let error = party.dialer().connect(&target(address, "KE")).await.unwrap_err();
        assert_eq!(error.as_str(), name, "{error}");
        served.await.unwrap();
    }
}

#[tokio::test]
async fn the_hybrid_group_and_nothing_below_tls_1_3() {
    let authority = Authority::new("bureau ca");
    let face = Face::link(&authority).await;
    let own = authority.issue(&node("KE"));

    let stream = raw::connect(raw::config(Some(&own)), face.address).await.unwrap();
    let session = stream.get_ref().1;
    let group = session.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));

    // Clients without it (grpcio, Java) get the next best.
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::SECP256R1];
    let stream = raw::connect(raw::config_with(Some(&own), provider), face.address).await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::secp256r1);
    face.end().await;
}

#[tokio::test]
async fn a_call_offers_the_hybrid_group_first() {
    let authority = Authority::new("bureau ca");
    let config = plain_config(&authority.issue(&node("KE")));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let stream = TlsAcceptor::from(Arc::new(config)).accept(tcp).await.unwrap();
        stream.get_ref().1.negotiated_key_exchange_group().unwrap().name()
    });
    let caller = Party::new(&authority, &node("FR"));
    let error = caller.dialer().connect(&target(address, "KE")).await.unwrap_err();
    assert_eq!(error.as_str(), "CLOSED");
    assert_eq!(served.await.unwrap(), NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn no_session_is_resumed() {
    let authority = Authority::new("bureau ca");
    let face = Face::link(&authority).await;
    // The same configuration twice: it would keep a ticket if it were given one.
    let config = raw::config(Some(&authority.issue(&node("KE"))));
    for _ in 0..2 {
        let mut stream = raw::connect(config.clone(), face.address).await.unwrap();
        tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 64]).await.unwrap();
        let session = stream.get_ref().1;
        // A second full handshake, or one with a retry for the group; never a resumed one.
        assert_ne!(session.handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(session.tls13_tickets_received(), 0);
    }
    face.end().await;
}

#[tokio::test]
async fn a_channel_finds_its_way_back() {
    let authority = Authority::new("bureau ca");
    let face =
        Face::start(Party::new(&authority, &node("FR")), links(), AcceptorLimits::default()).await;
    let caller = Party::new(&authority, &node("KE"));
    let channel = caller.call(&face, "FR").await.unwrap();
    check(&channel).await.unwrap();
    assert_eq!(face.party.connections.cut(bureau_net::CutCause::NotPermitted, |_| true), 1);
    crate::harness::until(
        || caller.connections.peers().is_empty(),
        || "the caller has not noticed".to_owned(),
    )
    .await;
    check(&channel).await.unwrap();
    assert_eq!(face.counters.established(), 2);
    face.end().await;
}
