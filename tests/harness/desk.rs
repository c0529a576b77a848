//! A desk: the calls a case system makes.

use std::{path::Path, sync::Arc, time::Duration};

use bureau_net::{
    Connections, DialLimits, Dialer, PeerChannel, Refusal, Target, TlsFiles, TlsStore, connections,
    status::ReceivedRefusal,
};
use bureau_proto::{
    admin::v1::{
        GetStatusRequest, GetStatusResponse, ListPeersRequest, ListQueueRequest, Peer, QueueDepth,
        admin_service_client::AdminServiceClient,
    },
    desk::v1::{
        AcknowledgeRequest, DeliveryState, InboxMessage, ListInboxRequest, SubmitRequest,
        TrackRequest, TrackResponse, WatchInboxRequest, WatchInboxResponse,
        desk_service_client::DeskServiceClient, watch_inbox_response::Event,
    },
};
use tokio_stream::StreamExt as _;
use tonic::{Status, Streaming, transport::Channel};

/// A desk of a bureau, from the profile that `net init` wrote.
#[derive(Clone)]
pub struct Desk {
    target: Target,
    admin: Target,
    dialer: Dialer,
}

impl Desk {
    pub fn of(home: &Path) -> Self {
        let text = std::fs::read_to_string(home.join("desk.toml")).unwrap();
        let profile: toml::Table = text.parse().unwrap();
        let value = |key: &str| profile[key].as_str().unwrap().to_owned();
        let path = |key: &str| home.join(value(key));
        Self::with(
            &value("network"),
            &value("bureau"),
            &value("address"),
            &value("admin_address"),
            TlsFiles {
                certificates: path("certificate"),
                key: path("key"),
                authorities: path("ca"),
                revocations: Vec::new(),
            },
        )
    }

    pub fn with(network: &str, bureau: &str, desk: &str, admin: &str, files: TlsFiles) -> Self {
        let tls = Arc::new(TlsStore::open(files).unwrap());
        let connections = Connections::start(Arc::clone(&tls), connections::PATROL_INTERVAL);
        let target = |address: &str| Target {
            address: address.to_owned(),
            network: network.parse().unwrap(),
            bureau: bureau.parse().unwrap(),
        };
        let dialer = Dialer::new(tls, connections, DialLimits::default());
        Self { target: target(desk), admin: target(admin), dialer }
    }

    pub async fn channel(&self) -> Result<PeerChannel, bureau_net::DialError> {
        self.dialer.connect(&self.target).await
    }

    pub async fn client(&self) -> DeskServiceClient<Channel> {
        let channel = self.channel().await.unwrap();
        DeskServiceClient::new(channel.channel()).max_decoding_message_size(8 << 20)
    }

    pub async fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.dialer.connect(&self.admin).await.unwrap().channel())
    }

    pub async fn is_serving(&self) -> bool {
        let Ok(channel) = self.channel().await else { return false };
        // Any answer but STARTING comes from the engine.
        let request = TrackRequest { message_id: "aaaaaa".to_owned() };
        match DeskServiceClient::new(channel.channel()).track(request).await {
            Ok(_) => true,
            Err(status) => {
                !matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Unknown)
            }
        }
    }

    /// Sends a text and gives the message's id.
    pub async fn send(&self, to: &[&str], text: &str) -> String {
        self.submit(message(to, text)).await.unwrap()
    }

    /// Submits, and gives the message's id or what it was refused with.
    pub async fn submit(&self, request: SubmitRequest) -> Result<String, ReceivedRefusal> {
        let submitted = self.client().await.submit(request).await;
        submitted.map(|response| response.into_inner().message_id).map_err(refusal)
    }

    pub async fn track(&self, id: &str) -> TrackResponse {
        let request = TrackRequest { message_id: id.to_owned() };
        self.client().await.track(request).await.unwrap().into_inner()
    }

    /// Waits until a message stands like this for a recipient.
    pub async fn tracked(&self, id: &str, recipient: &str, state: DeliveryState) -> TrackResponse {
        let what = format!("{id} is {state:?} for {recipient}");
        super::until(&what, async || {
            let track = self.track(id).await;
            let stands = track
                .recipients
                .iter()
                .any(|status| status.recipient == recipient && status.state() == state);
            stands.then_some(track)
        })
        .await
    }

    /// Everything in the inbox that is not acknowledged: number and id.
    pub async fn inbox(&self) -> Vec<(u64, String)> {
        let mut client = self.client().await;
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let request =
                ListInboxRequest { page_size: 500, page_token: token, include_acknowledged: false };
            let page = client.list_inbox(request).await.unwrap().into_inner();
            all.extend(page.entries.into_iter().map(|entry| (entry.number, entry.message_id)));
            token = page.next_page_token;
            if token.is_empty() {
                return all;
            }
        }
    }

    /// Watches the inbox from a number on.
    pub async fn watch(&self, after_number: u64) -> Watch {
        let request = WatchInboxRequest { after_number };
        let stream = self.client().await.watch_inbox(request).await.unwrap().into_inner();
        Watch { stream }
    }

    pub async fn acknowledge(&self, ids: &[&str]) -> Result<(), ReceivedRefusal> {
        let message_ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let request = AcknowledgeRequest { message_ids };
        self.client().await.acknowledge(request).await.map(|_| ()).map_err(refusal)
    }

    pub async fn peers(&self) -> Vec<Peer> {
        let listed = self.admin().await.list_peers(ListPeersRequest {}).await.unwrap();
        listed.into_inner().peers
    }

    pub async fn status(&self) -> GetStatusResponse {
        self.admin().await.get_status(GetStatusRequest {}).await.unwrap().into_inner()
    }

    pub async fn depths(&self) -> Vec<QueueDepth> {
        let listed = self.admin().await.list_queue(ListQueueRequest::default()).await.unwrap();
        listed.into_inner().depths
    }

    /// Waits until the link to a peer is up, or down.
    pub async fn linked(&self, peer: &str, up: bool) {
        use bureau_proto::admin::v1::LinkState;
        super::until(&format!("the link to {peer} is up: {up}"), async || {
            let peers = self.peers().await;
            let is_up = |found: &Peer| found.bureau == peer && found.state() == LinkState::Up;
            (peers.iter().any(is_up) == up).then_some(())
        })
        .await;
    }
}

/// An inbox that is watched.
pub struct Watch {
    stream: Streaming<WatchInboxResponse>,
}

impl Watch {
    /// The next message.
    pub async fn next(&mut self) -> Result<InboxMessage, Status> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(30), self.stream.next()).await;
            let ended = || Status::cancelled("the stream ended");
            match next.expect("nothing arrives").ok_or_else(ended)??.event {
                Some(Event::Message(message)) => return Ok(message),
                Some(Event::Heartbeat(_)) | None => {}
            }
        }
    }
}

/// A message of a text.
pub fn message(to: &[&str], text: &str) -> SubmitRequest {
    SubmitRequest {
        recipients: to.iter().map(|code| (*code).to_owned()).collect(),
        subject: "a test".to_owned(),
        content: text.to_owned().into(),
        ..SubmitRequest::default()
    }
}

pub(super) fn refusal(status: Status) -> ReceivedRefusal {
    Refusal::from_status(&status)
}
