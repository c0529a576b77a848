//! What happens while connections live: reloads, revocation, expiry, cuts, the end.

use std::time::{Duration, Instant};

use bureau_net::{AcceptorLimits, CutCause, DialError, TlsError, tls::TlsSummary};
use tokio::net::TcpStream;
use tonic::Code;

use crate::harness::{Authority, DAY, Face, Party, Wish, check, links, node, until, watch};

#[tokio::test]
async fn a_new_certificate_serves_the_next_handshake() {
    let authority = Authority::new("bureau ca");
    let face = Face::link(&authority).await;
    let caller = Party::new(&authority, &node("KE"));
    let before = caller.call(&face, "FR").await.unwrap();
    let mut stream = watch(&before).await;

    face.party.replace(&authority.issue(&Wish { valid: (-DAY, 2 * DAY), ..node("FR") }));
    let summary: TlsSummary = face.party.tls.reload().unwrap();
    assert_eq!(summary.generation, 2);
    let after = caller.call(&face, "FR").await.unwrap();
    assert_ne!(before.peer().unwrap().fingerprint, after.peer().unwrap().fingerprint);
    assert_eq!(after.peer().unwrap().not_after, summary.validity.not_after);

    // The caller's certificate too, and what was open before goes on.
    caller.replace(&authority.issue(&node("KE")));
    caller.tls.reload().unwrap();
    check(&caller.call(&face, "FR").await.unwrap()).await.unwrap();
    let seen = face.seen.lock().unwrap().clone();
    assert_ne!(seen.first().unwrap().fingerprint, seen.last().unwrap().fingerprint);
    check(&before).await.unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(200), stream.message()).await;
    assert!(quiet.is_err(), "the stream ended: {quiet:?}");
    face.end().await;
}

#[tokio::test]
async fn a_broken_file_changes_nothing() {
    let authority = Authority::new("bureau ca");
    let face = Face::link(&authority).await;
    let caller = Party::new(&authority, &node("KE"));
    let good = caller.call(&face, "FR").await.unwrap().peer().unwrap().fingerprint;
    let own = authority.issue(&node("FR"));
    let twin = Authority::new("bureau ca").issue(&node("FR"));
    let expired = authority.issue(&Wish { valid: (-2 * DAY, -1), ..node("FR") });
    let other = authority.issue(&node("BR"));

    let half = own.certificate[..200].to_owned();
    let faults = [
        ("Pem", half.as_str(), &own.key),
        ("Pem", "", &own.key),
        ("Rejected", &own.certificate, &other.key),
        ("OwnChain", &twin.certificate, &twin.key),
        ("OutsideValidity", &expired.certificate, &expired.key),
        ("OtherIdentity", &other.certificate, &other.key),
    ];
    for (expected, certificate, key) in faults {
        face.party.write("own.pem", certificate);
        face.party.write("own.key", key);
        let error = face.party.tls.reload().unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{expected}: {error:?}");
        assert_eq!(face.party.tls.summary().generation, 1);
        let channel = caller.call(&face, "FR").await.unwrap();
        assert_eq!(channel.peer().unwrap().fingerprint, good, "{expected}");
    }

    // A key that others may read, and one that is missing.
    face.party.replace(&own);
    let key = face.party.path("own.key");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&key, open).unwrap();
    let error = face.party.tls.reload().unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
    std::fs::remove_file(&key).unwrap();
    assert!(matches!(face.party.tls.reload().unwrap_err(), TlsError::Secret(_)));

    face.party.replace(&own);
    face.party.tls.reload().unwrap();
    let channel = caller.call(&face, "FR").await.unwrap();
    assert_ne!(channel.peer().unwrap().fingerprint, good);
    face.end().await;
}

#[tokio::test]
async fn a_list_that_lists_nothing_is_not_believed() {
    let authority = Authority::new("bureau ca");
    let list = authority.revoke(&[]);
    let party = Party::with(&authority, &authority.issue(&node("FR")), Some(&list));
    assert!(party.tls.summary().revocations_due.is_some());
    party.write("crl.pem", "");
    assert!(matches!(party.tls.reload().unwrap_err(), TlsError::Pem { .. }));
    // Of another authority: nobody of ours could be verified any more.
    party.write("crl.pem", &Authority::new("other ca").revoke(&[]));
    assert!(matches!(party.tls.reload().unwrap_err(), TlsError::OwnChain { .. }));
}

#[tokio::test]
async fn a_revoked_peer_is_cut_streams_too() {
    let authority = Authority::new("bureau ca");
    let own = authority.issue(&node("FR"));
    let party = Party::with(&authority, &own, Some(&authority.revoke(&[])));
    let face = Face::start(party, links(), AcceptorLimits::default()).await;
    let bad = Party::new(&authority, &Wish { serial: 66, ..node("KE") });
    let good = Party::new(&authority, &node("BR"));
    let cut = bad.call(&face, "FR").await.unwrap();
    let kept = good.call(&face, "FR").await.unwrap();
    let mut ended = watch(&cut).await;
    let _alive = watch(&kept).await;

    face.party.write("crl.pem", &authority.revoke(&[66]));
    face.party.tls.reload().unwrap();
    assert_ne!(ended.message().await.unwrap_err().code(), Code::Ok);
    check(&kept).await.unwrap();
    assert_eq!(face.party.connections.open("link"), 1);
    // It tries again by itself, and is refused.
    check(&cut).await.unwrap_err();
    assert!(matches!(cut.last_fault(), Some(DialError::Refused { .. })), "{:?}", cut.last_fault());
    face.end().await;
}

#[tokio::test]
async fn the_caller_cuts_a_revoked_peer_too() {
    let authority = Authority::new("bureau ca");
    let face = Face::link(&authority).await;
    let own = authority.issue(&Wish { serial: 8, ..node("KE") });
    let caller = Party::with(&authority, &own, Some(&authority.revoke(&[])));
    let channel = caller.call(&face, "FR").await.unwrap();
    let mut stream = watch(&channel).await;
    caller.write("crl.pem", &authority.revoke(&[7]));
    caller.tls.reload().unwrap();
    stream.message().await.unwrap_err();
    assert_eq!(channel.last_fault(), Some(DialError::Cut(CutCause::Revoked)));
    face.end().await;
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let authority = Authority::new("bureau ca");
    let face = Face::link(&authority).await;
    let brief = Party::new(&authority, &Wish { valid: (-DAY, 3), ..node("KE") });
    let not_after = brief.tls.summary().validity.not_after;
    let channel = brief.call(&face, "FR").await.unwrap();
    let mut stream = watch(&channel).await;
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.message()).await.unwrap();
    ended.unwrap_err();
    assert!(std::time::SystemTime::now() > not_after);
    assert_eq!(face.party.connections.open("link"), 0);
    face.end().await;
}

#[tokio::test]
async fn a_cut_ends_only_whom_it_names() {
    let authority = Authority::new("bureau ca");
    let face = Face::link(&authority).await;
    let (kenya, brazil) =
        (Party::new(&authority, &node("KE")), Party::new(&authority, &node("BR")));
    let (cut, kept) =
        (kenya.call(&face, "FR").await.unwrap(), brazil.call(&face, "FR").await.unwrap());
    let mut stream = watch(&cut).await;
    let _alive = watch(&kept).await;

    let begun = Instant::now();
    let chosen = |peer: &bureau_net::PeerIdentity| peer.bureau().as_str() == "KE";
    assert_eq!(face.party.connections.cut(CutCause::NotPermitted, chosen), 1);
    stream.message().await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(1));
    check(&kept).await.unwrap();
    until(|| face.party.connections.open("link") == 1, || "KE is still open".to_owned()).await;
    assert_eq!(face.party.connections.peers()[0].bureau().as_str(), "BR");
    face.end().await;
}

#[tokio::test]
async fn the_end_waits_for_nobody_silent() {
    let face = Face::link(&Authority::new("bureau ca")).await;
    let silent = TcpStream::connect(face.address).await.unwrap();
    until(|| face.counters.accepted() == 1, || face.counters.to_string()).await;
    let (address, begun) = (face.address, Instant::now());
    face.end().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(TcpStream::connect(address).await.is_err(), "it still listens");
    drop(silent);
}
