//! A node played by hand, with a real bureau's certificate and keys: what a peer sees, and what a
//! hostile one can try.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bureau_core::{
    BureauCode, Envelope, Epoch, Lane, Manifest, MessageId, NetworkName, Receipt, Signer,
    SigningKey, Slip, Timestamp, Verified,
    envelope::{Content, HandlingCode, Kind, SealingSuite},
    receipt::Statement,
    signing::{self, Context},
    slip::{Count, Label},
};
use bureau_net::{Connections, DialLimits, Dialer, Target, TlsFiles, TlsStore, connections};
use bureau_proto::{
    envelope::v1::{Body, ReceiptKind, Signed},
    link::v1::{
        self as wire, Frame, OpenRequest, OpenResponse, frame::Kind as FrameKind,
        link_service_client::LinkServiceClient,
    },
};
use bytes::Bytes;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

/// Sequence and digest of the last slip of a count.
type Head = (u64, [u8; 32]);

/// A bureau whose node is played.
pub struct Actor {
    pub bureau: BureauCode,
    pub node: String,
    pub network: NetworkName,
    pub signer: Signer,
    /// Its store's, as if it had one: each player begins anew.
    pub epoch: Epoch,
    /// The last slip of each count: a bureau numbers and chains them.
    heads: Mutex<BTreeMap<(String, Lane), Head>>,
    dialer: Dialer,
}

impl Actor {
    /// Takes the certificate and key of a bureau from its folder. Its own node must not run.
    pub fn of(home: &Path) -> Self {
        let text = std::fs::read_to_string(home.join("bureau.toml")).unwrap();
        let config: toml::Table = text.parse().unwrap();
        let tls = config["tls"].as_table().unwrap();
        let path = |key: &str| home.join(tls[key].as_str().unwrap());
        let files = TlsFiles {
            certificates: path("certificate"),
            key: path("key"),
            authorities: path("ca"),
            revocations: Vec::new(),
        };
        let tls = Arc::new(TlsStore::open(files).unwrap());
        let connections = Connections::start(Arc::clone(&tls), connections::PATROL_INTERVAL);
        let key = home.join(config["keys"]["signing_key"].as_str().unwrap());
        let key = SigningKey::from_pkcs8_pem(&std::fs::read_to_string(key).unwrap()).unwrap();
        let network: NetworkName = config["network"].as_str().unwrap().parse().unwrap();
        let bureau: BureauCode = config["bureau"].as_str().unwrap().parse().unwrap();
        Self {
            bureau,
            node: config["node"].as_str().unwrap().to_owned(),
            signer: Signer::new(network.clone(), bureau, key),
            network,
            epoch: Epoch(uuid::Uuid::now_v7().into_bytes()),
            heads: Mutex::default(),
            dialer: Dialer::new(tls, connections, DialLimits::default()),
        }
    }

    /// What `bureau.toml` of another bureau says its link face is.
    pub fn link_address(home: &Path) -> String {
        let text = std::fs::read_to_string(home.join("bureau.toml")).unwrap();
        let config: toml::Table = text.parse().unwrap();
        config["link"]["listen"].as_str().unwrap().to_owned()
    }

    /// Opens a stream to a node and sends nothing.
    pub async fn dial(&self, home: &Path, bureau: &str) -> Result<Link, Status> {
        let target = Target {
            address: Self::link_address(home),
            network: self.network.clone(),
            bureau: bureau.parse().unwrap(),
        };
        let channel = self.dialer.connect(&target).await.unwrap();
        let (frames, outbound) = mpsc::channel::<Frame>(1024);
        let outbound =
            ReceiverStream::new(outbound).map(|frame| OpenRequest { frame: Some(frame) });
        let mut client = LinkServiceClient::new(channel.channel());
        let inbound = client.open(outbound).await?.into_inner();
        Ok(Link { frames, inbound })
    }

    /// A greeting as this bureau's node would say it.
    pub fn hello(&self) -> wire::Hello {
        wire::Hello {
            protocol_version_max: 1,
            protocol_version_min: 1,
            bureau: self.bureau.to_string(),
            node: self.node.clone(),
            epoch: Bytes::copy_from_slice(&self.epoch.0),
            roster_serial: 1,
            time: Some(now().to_wire()),
            limits: Some(wire::LinkLimits {
                window_parcels: 64,
                window_bytes: 1 << 20,
                frame_bytes: 1 << 22,
                zstd: false,
            }),
            software: "actor".to_owned(),
            high_waters: Vec::new(),
        }
    }

    /// Dials and greets.
    pub async fn link(&self, home: &Path, bureau: &str) -> Link {
        let mut link = self.dial(home, bureau).await.unwrap();
        link.send(FrameKind::Hello(self.hello())).await;
        match link.next().await {
            Some(FrameKind::Hello(_)) => link,
            other => panic!("no greeting but {other:?}"),
        }
    }

    /// A manifest of this bureau over a body.
    pub fn manifest(&self, body: &[u8]) -> Manifest {
        Manifest {
            origin: self.bureau,
            key_id: self.signer.public().id(),
            kind: Kind::Message,
            lane: Lane::Priority,
            created: now(),
            expires: now().plus_ms(3_600_000),
            nonce: uuid::Uuid::now_v7().into_bytes(),
            suite: SealingSuite::Open,
            exercise: false,
            handling: HandlingCode::H1,
            body: Content::of(body),
            attachments: Vec::new(),
            key_commitment: Bytes::new(),
        }
    }

    /// Signs a manifest and body, and a slip for each recipient.
    pub fn sign(
        &self,
        manifest: Manifest,
        body: Bytes,
        recipients: &[&str],
    ) -> (Verified<Envelope>, Vec<Verified<Slip>>) {
        let mut group = self.signer.group();
        let (lane, suite) = (manifest.lane, manifest.suite);
        let envelope = group.add(Envelope::new(&self.network, manifest, body));
        let message = envelope.item().id();
        let mut slips = Vec::new();
        let mut heads = self.heads.lock().unwrap();
        for recipient in recipients {
            let head = heads.entry(((*recipient).to_owned(), lane)).or_insert((0, [0; 32]));
            let count = Count { sequence: head.0 + 1, previous: (head.0 > 0).then_some(head.1) };
            let label = Label {
                message,
                recipient: recipient.parse().unwrap(),
                lane,
                origin_epoch: self.epoch,
                suite,
                private: count.encode(),
                encapsulation: Bytes::new(),
            };
            let slip = Slip::new(&self.network, label);
            *head = (count.sequence, slip.digest());
            slips.push(group.add(slip));
        }
        drop(heads);
        let mut signed = group.sign().unwrap();
        let envelope = signed.take(envelope).unwrap();
        (envelope, slips.into_iter().map(|slip| signed.take(slip).unwrap()).collect())
    }

    /// A good parcel of a text.
    pub fn parcel(&self, number: u64, text: &str, recipients: &[&str]) -> wire::Parcel {
        let body = body(text);
        let (envelope, slips) = self.sign(self.manifest(&body), body, recipients);
        parcel(number, &envelope, &slips)
    }
}

pub fn parcel(
    number: u64,
    envelope: &Verified<Envelope>,
    slips: &[Verified<Slip>],
) -> wire::Parcel {
    let slips = slips.iter().map(|slip| slip.encode()).collect();
    wire::Parcel { number, envelope: envelope.encode(), slips, hops: 1, refills: 0 }
}

/// A body of a text, encoded.
pub fn body(text: &str) -> Bytes {
    let body = Body { format: 1, content: text.to_owned().into(), ..Body::default() };
    body.encode_to_vec().into()
}

pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_ms(i64::try_from(since.as_millis()).unwrap())
}

impl Actor {
    /// A receipt of this bureau for the first slip of a parcel.
    pub fn receipt(&self, parcel: &wire::Parcel, kind: ReceiptKind) -> Bytes {
        let signed = Signed::decode(parcel.slips[0].clone()).unwrap();
        let slip = bureau_proto::envelope::v1::Slip::decode(signed.payload.clone()).unwrap();
        let digest = signing::digest(&self.network, Context::Slip, &signed.payload);
        let mut group = self.signer.group();
        let ticket = group.add(Receipt::new(Statement {
            kind,
            message: MessageId::from_bytes(&slip.message_id).unwrap(),
            recipient: slip.recipient.parse().unwrap(),
            slip: digest,
            signer: self.bureau,
            signer_epoch: self.epoch,
            time: now(),
            reason: String::new(),
            advice: String::new(),
            previous_hop: None,
            next_hop: None,
            desk: None,
        }));
        group.sign().unwrap().take(ticket).unwrap().encode()
    }
}

/// A stream to a node.
pub struct Link {
    frames: mpsc::Sender<Frame>,
    inbound: Streaming<OpenResponse>,
}

impl Link {
    pub async fn send(&self, kind: FrameKind) {
        self.frames.send(Frame { kind: Some(kind) }).await.unwrap();
    }

    /// The next frame but pings, which are answered; `None` where the stream has ended.
    pub async fn next(&mut self) -> Option<FrameKind> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(20), self.inbound.next());
            let response = next.await.expect("the node says nothing")?.ok()?;
            match response.frame?.kind? {
                FrameKind::Ping(ping) => {
                    let pong = wire::Pong { number: ping.number };
                    // A node that is ending may not take it.
                    drop(self.frames.send(Frame { kind: Some(FrameKind::Pong(pong)) }).await);
                }
                kind => return Some(kind),
            }
        }
    }

    /// Sends a parcel and gives what the node answers: the reason of a rejection, or the kind of
    /// the first receipt.
    pub async fn offer(&mut self, parcel: wire::Parcel) -> String {
        self.send(FrameKind::Parcel(parcel)).await;
        loop {
            match self.next().await {
                Some(FrameKind::Rejection(rejection)) => return rejection.reason,
                Some(FrameKind::Receipts(batch)) => return receipt_text(&batch),
                Some(FrameKind::Bye(bye)) => return format!("BYE {}", bye.reason),
                Some(_) => {}
                None => return "CLOSED".to_owned(),
            }
        }
    }
}

fn receipt_text(batch: &wire::ReceiptBatch) -> String {
    let statement = bureau_core::receipt::stored_statement(batch.receipts[0].clone()).unwrap();
    let kind = statement.kind.as_str_name().trim_start_matches("RECEIPT_KIND_");
    match statement.reason.as_str() {
        "" => kind.to_owned(),
        reason => format!("{kind} {reason}"),
    }
}
