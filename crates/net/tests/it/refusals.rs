//! Who is not let in, by what name, and that the others do not notice.

use std::time::{Duration, Instant};

use bureau_net::{AcceptorLimits, HandshakeRefusal, Role};
use rcgen::ExtendedKeyUsagePurpose;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{
        Authority, DAY, Face, NETWORK, Party, Wish, check, desk, desks, links, node, tcp_from,
        until, wish,
    },
    raw,
};

async fn shown(wish: &Wish, refusal: HandshakeRefusal, alert: &str) {
    let authority = Authority::new("bureau ca");
    let face = Face::link(&authority).await;
    assert_eq!(raw::alert(Some(&authority.issue(wish)), face.address).await, alert);
    face.refused(refusal, 1).await;
    face.end().await;
}

#[tokio::test]
async fn no_certificate() {
    let authority = Authority::new("bureau ca");
    let face = Face::link(&authority).await;
    assert_eq!(raw::alert(None, face.address).await, "CertificateRequired");
    face.refused(HandshakeRefusal::NoCertificate, 1).await;
    face.end().await;
}

#[tokio::test]
async fn another_authority() {
    let face = Face::link(&Authority::new("bureau ca")).await;
    let other = Authority::new("other ca").issue(&node("KE"));
    assert_eq!(raw::alert(Some(&other), face.address).await, "UnknownCA");
    face.refused(HandshakeRefusal::UnknownCa, 1).await;
    // Of the same name, with another key.
    let twin = Authority::new("bureau ca").issue(&node("KE"));
    assert_eq!(raw::alert(Some(&twin), face.address).await, "UnknownCA");
    face.refused(HandshakeRefusal::UnknownCa, 2).await;
    face.end().await;
}

#[tokio::test]
async fn a_desk_at_the_link_face() {
    shown(&desk("FR"), HandshakeRefusal::WrongRole, "CertificateUnknown").await;
}

#[tokio::test]
async fn another_network() {
    let other = wish("spiffe://other.example/bureau/KE/node/n1".to_owned());
    shown(&other, HandshakeRefusal::WrongNetwork, "CertificateUnknown").await;
}

#[tokio::test]
async fn expired() {
    let expired = Wish { valid: (-2 * DAY, -1), ..node("KE") };
    shown(&expired, HandshakeRefusal::CertificateExpired, "CertificateExpired").await;
}

#[tokio::test]
async fn not_yet_valid() {
    let early = Wish { valid: (3600, DAY), ..node("KE") };
    shown(&early, HandshakeRefusal::NotYetValid, "CertificateExpired").await;
}

#[tokio::test]
async fn for_another_use() {
    let server = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let wish = Wish { uses: server, ..node("KE") };
    shown(&wish, HandshakeRefusal::BadCertificate, "UnsupportedCertificate").await;
}

#[tokio::test]
async fn names_that_name_nobody() {
    let authority = Authority::new("bureau ca");
    let face = Face::link(&authority).await;
    let uri = node("KE").uris.remove(0);
    let unknown = [
        Vec::new(),
        vec![uri.clone(), uri.clone()],
        vec![uri.clone(), "https://ke.example/".to_owned()],
        vec![format!("spiffe://{NETWORK}/bureau/ke/node/n1")],
        vec![format!("spiffe://{NETWORK}/bureau/KE/node/n1/x")],
        vec![format!("spiffe://{NETWORK}/bureau/K%45/node/n1")],
    ];
    for (number, uris) in unknown.into_iter().enumerate() {
        let own = authority.issue(&Wish { uris, ..node("KE") });
        assert_eq!(raw::alert(Some(&own), face.address).await, "CertificateUnknown");
        face.refused(HandshakeRefusal::UnknownIdentity, number as u64 + 1).await;
    }
    face.end().await;
}

#[tokio::test]
async fn at_the_desk_face_only_own_desks() {
    let authority = Authority::new("bureau ca");
    let party = Party::new(&authority, &node("FR"));
    let face = Face::start(party, desks("FR"), AcceptorLimits::default()).await;

    let stranger = authority.issue(&desk("KE"));
    assert_eq!(raw::alert(Some(&stranger), face.address).await, "CertificateUnknown");
    face.refused(HandshakeRefusal::WrongBureau, 1).await;

    // A desk calls as the commands do, and is known by name.
    let own = Party::new(&authority, &desk("FR"));
    check(&own.call(&face, "FR").await.unwrap()).await.unwrap();
    let seen = face.seen.lock().unwrap().remove(0);
    assert_eq!(seen.bureau().as_str(), "FR");
    assert_eq!(seen.desk().unwrap().as_str(), "trafficking");
    assert_eq!(seen.node(), None);
    assert_eq!(seen.to_string(), "FR/desk/trafficking");
    face.end().await;
}

#[tokio::test]
async fn a_node_at_the_desk_face() {
    let authority = Authority::new("bureau ca");
    let party = Party::new(&authority, &node("FR"));
    let face = Face::start(party, desks("FR"), AcceptorLimits::default()).await;
    raw::alert(Some(&authority.issue(&node("FR"))), face.address).await;
    face.refused(HandshakeRefusal::WrongRole, 1).await;
    face.end().await;
}

#[tokio::test]
async fn revoked() {
    let authority = Authority::new("bureau ca");
    let list = authority.revoke(&[66]);
    let party = Party::with(&authority, &authority.issue(&node("FR")), Some(&list));
    let face = Face::start(party, links(), AcceptorLimits::default()).await;

    let revoked = authority.issue(&Wish { serial: 66, ..node("KE") });
    assert_eq!(raw::alert(Some(&revoked), face.address).await, "CertificateRevoked");
    face.refused(HandshakeRefusal::Revoked, 1).await;

    let good = Party::new(&authority, &node("KE"));
    check(&good.call(&face, "FR").await.unwrap()).await.unwrap();
    face.end().await;
}

/// Sends bytes, and returns all that comes back.
async fn say(face: &Face, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(face.address).await.unwrap();
    tcp.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an answer too.
    let _ = tcp.read_to_end(&mut answer).await;
    answer
}

#[tokio::test]
async fn tls_1_2() {
    let face = Face::link(&Authority::new("bureau ca")).await;
    let answer = say(&face, &client_hello_1_2()).await;
    // Record: alert; fatal; protocol_version.
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 70]);
    face.refused(HandshakeRefusal::TlsVersion, 1).await;
    face.end().await;
}

/// A hello as a client without TLS 1.3 sends it: no supported_versions.
fn client_hello_1_2() -> Vec<u8> {
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..], // supported_groups: secp256r1
        &[0, 11, 0, 2, 1, 0],            // ec_point_formats: uncompressed
        &[0, 13, 0, 4, 0, 2, 4, 3],      // signature_algorithms: ecdsa_secp256r1_sha256
        &[0, 23, 0, 0],                  // extended_master_secret
    ]
    .concat();
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.push(0);
    hello.extend([0, 2, 0xc0, 0x2b]); // ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    hello.extend([1, 0]);
    hello.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    hello.extend(extensions);
    let length = u8::try_from(hello.len()).unwrap();
    let handshake = [&[1, 0, 0, length][..], &hello].concat();
    [&[22, 3, 1, 0, length + 4][..], &handshake].concat()
}

#[tokio::test]
async fn plain_http() {
    let face = Face::link(&Authority::new("bureau ca")).await;
    say(&face, b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    face.refused(HandshakeRefusal::NotTls, 1).await;
    say(&face, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    face.refused(HandshakeRefusal::NotTls, 2).await;
    face.end().await;
}

#[tokio::test]
async fn gone_in_the_middle() {
    let face = Face::link(&Authority::new("bureau ca")).await;
    drop(TcpStream::connect(face.address).await.unwrap());
    face.refused(HandshakeRefusal::ClosedEarly, 1).await;
    face.end().await;
}

#[tokio::test]
async fn a_silent_socket_has_its_time() {
    let party = Party::new(&Authority::new("bureau ca"), &node("FR"));
    let limit = Duration::from_millis(200);
    let limits = AcceptorLimits { handshake_timeout: limit, ..AcceptorLimits::default() };
    let face = Face::start(party, links(), limits).await;
    let begun = Instant::now();
    let mut tcp = TcpStream::connect(face.address).await.unwrap();
    assert_eq!(tcp.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(begun.elapsed() >= limit);
    face.refused(HandshakeRefusal::Timeout, 1).await;
    face.end().await;
}

#[tokio::test]
async fn silent_sockets_delay_nobody() {
    let authority = Authority::new("bureau ca");
    let face = Face::link(&authority).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(tcp_from(2, face.address).await);
    }
    // An address may have 32 under way; the others were closed at once.
    face.refused(HandshakeRefusal::TooManyHandshakes, 100 - 32).await;

    let begun = Instant::now();
    let honest = Party::new(&authority, &node("KE"));
    check(&honest.call(&face, "FR").await.unwrap()).await.unwrap();
    // Had it waited for a silent one, it would have taken the 5 s those have.
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());

    drop(silent);
    until(
        || face.counters.refused(HandshakeRefusal::ClosedEarly) == 32,
        || face.counters.to_string(),
    )
    .await;
    // The places are given back.
    let again = tcp_from(2, face.address).await;
    until(|| face.counters.accepted() == 102, || face.counters.to_string()).await;
    assert_eq!(face.counters.refused(HandshakeRefusal::TooManyHandshakes), 68);
    drop(again);
    face.end().await;
}

#[tokio::test]
async fn one_identity_cannot_take_all_connections() {
    let authority = Authority::new("bureau ca");
    let party = Party::new(&authority, &node("FR"));
    let limits = AcceptorLimits { connections_per_identity_max: 2, ..AcceptorLimits::default() };
    let face = Face::start(party, links(), limits).await;

    let greedy = Party::new(&authority, &node("KE"));
    let first = greedy.call(&face, "FR").await.unwrap();
    let second = greedy.call(&face, "FR").await.unwrap();
    assert_eq!(greedy.call(&face, "FR").await.unwrap_err().as_str(), "CLOSED");
    face.refused(HandshakeRefusal::TooManyConnections, 1).await;

    let modest = Party::new(&authority, &node("BR"));
    check(&modest.call(&face, "FR").await.unwrap()).await.unwrap();
    check(&first).await.unwrap();
    drop((first, second));
    until(|| face.party.connections.open("link") <= 1, || "still open".to_owned()).await;
    check(&greedy.call(&face, "FR").await.unwrap()).await.unwrap();
    face.end().await;
}

#[tokio::test]
async fn the_identity_reaches_the_rpc() {
    let authority = Authority::new("bureau ca");
    let face = Face::link(&authority).await;
    let own = authority.issue(&node("KE"));
    let caller = Party::with(&authority, &own, None);
    let channel = caller.call(&face, "FR").await.unwrap();
    check(&channel).await.unwrap();

    let seen = face.seen.lock().unwrap().remove(0);
    assert_eq!(seen.id, caller.tls.summary().id);
    assert!(matches!(&seen.id.role, Role::Node(name) if name.as_str() == "n1"));
    assert_eq!(seen.address.ip().to_string(), "127.0.0.1");
    assert_eq!(seen.not_after, caller.tls.summary().validity.not_after);
    let answered = channel.peer().unwrap();
    assert_eq!(answered.to_string(), "FR/node/n1");
    assert_eq!(face.counters.established(), 1);
    assert_eq!(face.party.connections.peers(), [seen]);
    face.end().await;
}
