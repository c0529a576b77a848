//! Calls to the desk's own node: one connection, every call with a deadline, every refusal with
//! its reason. Whether a call is made again is for the command to say.

use std::{path::Path, sync::Arc, time::Duration};

use bureau_net::{
    Connections, DialLimits, Dialer, PeerChannel, Refusal, Target, TlsStore, connections,
    server::MESSAGE_BYTES_MAX, status::ReceivedRefusal,
};
use bureau_proto::{
    admin::v1::admin_service_client::AdminServiceClient,
    desk::v1::desk_service_client::DeskServiceClient,
};
use tokio::{task::spawn_blocking, time::timeout};
use tonic::{Code, Response, Status, transport::Channel};

use crate::{
    error::CommandError,
    profile::{Profile, ProfileError},
};

/// How long an answer is waited for.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Name, TCP, TLS and the verdict on the certificate.
const DIAL_LIMITS: DialLimits = DialLimits {
    connect_timeout: Duration::from_secs(10),
    verdict_timeout: Duration::from_secs(3),
};

/// A desk with its certificate loaded, ready to call.
#[derive(Clone)]
pub(crate) struct Desk {
    profile: Arc<Profile>,
    dialer: Dialer,
}

/// A connection to one face of the node.
#[derive(Clone)]
pub(crate) struct Face<C> {
    pub(crate) client: C,
    channel: PeerChannel,
    call_timeout: Duration,
}

/// The desk face.
pub(crate) type DeskFace = Face<DeskServiceClient<Channel>>;
/// The admin face.
pub(crate) type AdminFace = Face<AdminServiceClient<Channel>>;

impl Desk {
    /// The desk of a profile. Connects to nobody yet.
    pub(crate) async fn open(path: Option<&Path>) -> Result<Self, CommandError> {
        let path = path.ok_or(CommandError::NoProfile)?.to_owned();
        let loaded = spawn_blocking(move || {
            let profile = Profile::load(&path)?;
            let tls = TlsStore::open(profile.tls.clone())?;
            profile.check_certificate(&tls.summary().id)?;
            Ok::<_, CommandError>((profile, tls))
        });
        let (profile, tls) = loaded
            .await
            .map_err(|source| CommandError::Task { task: "loading the profile", source })??;
        let tls = Arc::new(tls);
        let register = Connections::start(Arc::clone(&tls), connections::PATROL_INTERVAL);
        Ok(Self { profile: Arc::new(profile), dialer: Dialer::new(tls, register, DIAL_LIMITS) })
    }

    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Connects to the desk face.
    pub(crate) async fn desk_face(&self) -> Result<DeskFace, CommandError> {
        let channel = self.connect(&self.profile.address).await?;
        let client = DeskServiceClient::new(channel.channel())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Face { client, channel, call_timeout: CALL_TIMEOUT })
    }

    /// Connects to the admin face.
    pub(crate) async fn admin_face(&self, path: Option<&Path>) -> Result<AdminFace, CommandError> {
        let address = self.profile.admin_address.as_deref().ok_or_else(|| {
            ProfileError::NoAdmin { path: path.unwrap_or(Path::new("the profile")).to_owned() }
        })?;
        let channel = self.connect(address).await?;
        let client =
            AdminServiceClient::new(channel.channel()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Face { client, channel, call_timeout: CALL_TIMEOUT })
    }

    async fn connect(&self, address: &str) -> Result<PeerChannel, CommandError> {
        let Profile { network, bureau, .. } = self.profile();
        let target =
            Target { address: address.to_owned(), network: network.clone(), bureau: *bureau };
        self.dialer.connect(&target).await.map_err(|error| CommandError::Dial {
            bureau: bureau.to_string(),
            address: address.to_owned(),
            error: Box::new(error),
        })
    }
}

impl<C> Face<C> {
    /// Waits for an answer, but not for ever.
    pub(crate) async fn call<T>(
        &self,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CommandError> {
        match timeout(self.call_timeout, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.refused(&status)),
            Err(_elapsed) => {
                let message = format!("no answer within {} s", self.call_timeout.as_secs());
                Err(self.refused(&Status::deadline_exceeded(message)))
            }
        }
    }

    /// What a status says; where the connection broke, why it did.
    pub(crate) fn refused(&self, status: &Status) -> CommandError {
        let mut refusal: ReceivedRefusal = Refusal::from_status(status);
        if refusal.reason.is_none() && is_broken_connection(status) {
            refusal.code = Code::Unavailable;
            refusal.message = match self.channel.last_fault() {
                Some(fault) => format!("the connection broke: {fault}"),
                None => "the connection broke".to_owned(),
            };
        }
        CommandError::Refused(Box::new(refusal))
    }
}

/// tonic tells a lost connection by various codes, without details.
fn is_broken_connection(status: &Status) -> bool {
    use std::error::Error as _;
    let told = matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
    );
    // What a node said has no source; what this side found out has one.
    told && status.source().is_some()
}
