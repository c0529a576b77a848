//! The commands against a node that answers as it is told to, over real TLS.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{
    collections::VecDeque,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex},
};

use bureau_core::Reason;
use bureau_net::{
    Acceptor, AcceptorLimits, Connections, Expectation, Refusal, TlsFiles, TlsStore, connections,
    server,
};
use bureau_proto::desk::v1::{
    AcknowledgeRequest, AcknowledgeResponse, DownloadAttachmentRequest, DownloadAttachmentResponse,
    GetInboxMessageRequest, GetInboxMessageResponse, GetUploadRequest, GetUploadResponse,
    InboxEntry, InboxMessage, ListInboxRequest, ListInboxResponse, RecallRequest, RecallResponse,
    ReleaseAttachmentsRequest, ReleaseAttachmentsResponse, SubmitManyRequest, SubmitManyResponse,
    SubmitRequest, SubmitResponse, TrackRequest, TrackResponse, UploadAttachmentRequest,
    UploadAttachmentResponse, WatchInboxRequest, WatchInboxResponse,
    desk_service_server::{DeskService, DeskServiceServer},
    watch_inbox_response::Event,
};
use clap::Parser as _;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    Arguments, Format,
    net::{self, Links, Plan, Ports},
    output::capture,
    wire,
};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the node is to answer, and what it was asked.
#[derive(Clone, Default)]
struct Script {
    submissions: Arc<Mutex<VecDeque<Refusal>>>,
    /// Inbox numbers of each watch, after which the stream ends.
    watches: Arc<Mutex<VecDeque<Vec<u64>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn note(&self, asked: String) {
        self.asked.lock().unwrap().push(asked);
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl DeskService for Script {
    async fn submit(
        &self,
        request: Request<SubmitRequest>,
    ) -> Result<Response<SubmitResponse>, Status> {
        self.note(request.into_inner().request_id);
        if let Some(refusal) = self.submissions.lock().unwrap().pop_front() {
            return Err(refusal.into());
        }
        let message_id = "accepted".to_owned();
        Ok(Response::new(SubmitResponse { message_id, ..SubmitResponse::default() }))
    }

    async fn acknowledge(
        &self,
        request: Request<AcknowledgeRequest>,
    ) -> Result<Response<AcknowledgeResponse>, Status> {
        self.note(format!("ack {}", request.into_inner().message_ids.join(" ")));
        Ok(Response::new(AcknowledgeResponse::default()))
    }

    type WatchInboxStream = Answers<WatchInboxResponse>;

    async fn watch_inbox(
        &self,
        request: Request<WatchInboxRequest>,
    ) -> Result<Response<Self::WatchInboxStream>, Status> {
        self.note(format!("watch after {}", request.into_inner().after_number));
        let numbers = self.watches.lock().unwrap().pop_front().unwrap_or_default();
        let message = |number| {
            let message_id = format!("id{number}");
            let entry = Some(InboxEntry { number, message_id, ..InboxEntry::default() });
            let message = InboxMessage { entry, ..InboxMessage::default() };
            Ok(WatchInboxResponse { event: Some(Event::Message(message)) })
        };
        Ok(Response::new(Box::pin(tokio_stream::iter(numbers.into_iter().map(message)))))
    }

    type SubmitManyStream = Answers<SubmitManyResponse>;

    async fn submit_many(
        &self,
        _request: Request<Streaming<SubmitManyRequest>>,
    ) -> Result<Response<Self::SubmitManyStream>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn list_inbox(
        &self,
        _request: Request<ListInboxRequest>,
    ) -> Result<Response<ListInboxResponse>, Status> {
        Err(Refusal::new(Reason::NotPermitted, "this desk may not receive").into())
    }

    async fn get_inbox_message(
        &self,
        _request: Request<GetInboxMessageRequest>,
    ) -> Result<Response<GetInboxMessageResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn upload_attachment(
        &self,
        _request: Request<Streaming<UploadAttachmentRequest>>,
    ) -> Result<Response<UploadAttachmentResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn get_upload(
        &self,
        _request: Request<GetUploadRequest>,
    ) -> Result<Response<GetUploadResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    type DownloadAttachmentStream = Answers<DownloadAttachmentResponse>;

    async fn download_attachment(
        &self,
        _request: Request<DownloadAttachmentRequest>,
    ) -> Result<Response<Self::DownloadAttachmentStream>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn recall(
        &self,
        _request: Request<RecallRequest>,
    ) -> Result<Response<RecallResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn release_attachments(
        &self,
        _request: Request<ReleaseAttachmentsRequest>,
    ) -> Result<Response<ReleaseAttachmentsResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn track(
        &self,
        _request: Request<TrackRequest>,
    ) -> Result<Response<TrackResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
}

/// A node that serves the script on FR's desk face, and FR's desk.
struct Scene {
    script: Script,
    directory: tempfile::TempDir,
    _acceptor: Acceptor,
    server: JoinHandle<()>,
}

impl Scene {
    async fn begin() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let desk = listener.local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let codes = ["FR", "KE"].map(|code| code.parse().unwrap());
        let ports = |_| Ports { desk, link: 2, admin: 3, metrics: None };
        let (network, name) = ("example".parse().unwrap(), "desk".parse().unwrap());
        let plan = Plan::new(network, &codes, &[], Links::Mesh, name, ports).unwrap();
        net::init(directory.path(), &plan, wire::now()).unwrap();

        let tls = directory.path().join("FR/tls");
        let tls = Arc::new(
            TlsStore::open(TlsFiles {
                certificates: tls.join("node.pem"),
                key: tls.join("node.key"),
                authorities: tls.join("ca.pem"),
                revocations: Vec::new(),
            })
            .unwrap(),
        );
        let register = Connections::start(Arc::clone(&tls), connections::PATROL_INTERVAL);
        let expected = Expectation::desks("example".parse().unwrap(), codes[0]);
        let limits = AcceptorLimits::default();
        let (acceptor, incoming) =
            Acceptor::start(listener, "desk", expected, limits, tls, register).unwrap();
        let script = Script::default();
        let service = DeskServiceServer::new(script.clone());
        let server = tokio::spawn(async move {
            // Ends with the acceptor; a test that is over asks for no more.
            drop(server::builder().add_service(service).serve_with_incoming(incoming).await);
        });
        Self { script, directory, _acceptor: acceptor, server }
    }

    fn profile(&self) -> PathBuf {
        self.directory.path().join("FR/desk.toml")
    }

    /// Runs a command as FR's desk: its exit code, and what it wrote to stdout and stderr.
    async fn run(&self, words: &str) -> (u8, String, String) {
        let profile = self.profile();
        let content = self.directory.path().join("content.txt");
        std::fs::write(&content, "content").unwrap();
        let words = words.split(' ').map(|word| match word {
            "FILE" => content.to_str().unwrap(),
            word => word,
        });
        let fixed = ["bureau", "--desk", profile.to_str().unwrap()];
        let arguments = Arguments::try_parse_from(fixed.into_iter().chain(words)).unwrap();
        let (mut output, answers, errors) = capture::output(Format::Json);
        let code = crate::run(arguments, &mut output).await;
        (code, answers.text(), errors.text())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[tokio::test]
async fn a_message_is_tried_again_under_the_same_request_id() {
    let scene = Scene::begin().await;
    let refusal = Refusal::new(Reason::OutcomeUnknown, "the disk failed");
    scene.script.submissions.lock().unwrap().push_back(refusal);
    let (code, answer, notes) = scene.run("send --to KE FILE").await;
    assert_eq!(code, 0, "{notes}");
    let asked = scene.script.asked();
    assert!(asked.len() == 2 && asked[0] == asked[1] && asked[0].len() == 36, "{asked:?}");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        (&answer["message_id"], &answer["request_id"]),
        (&"accepted".into(), &asked[0].clone().into())
    );
    assert!(notes.starts_with("the disk failed; trying again in "), "{notes}");
}

#[tokio::test]
async fn what_more_tries_cannot_change_is_tried_once() {
    let scene = Scene::begin().await;
    let refusal = Refusal::new(Reason::BodyTooLarge, "content: too large");
    scene.script.submissions.lock().unwrap().push_back(refusal);
    let (code, answer, errors) = scene.run("send --to KE FILE").await;
    assert_eq!((code, answer.as_str(), scene.script.asked().len()), (67, "", 1));
    assert!(errors.starts_with("error: content: too large (BODY_TOO_LARGE)\n"), "{errors}");
}

#[tokio::test]
async fn a_watch_goes_on_where_it_broke() {
    let scene = Scene::begin().await;
    scene.script.watches.lock().unwrap().extend([vec![4, 5], vec![6, 7]]);
    let (code, answers, notes) = scene.run("inbox watch --after 3 --ack --count 3").await;
    assert_eq!(code, 0, "{notes}");
    let asked = ["watch after 3", "ack id4", "ack id5", "watch after 5", "ack id6"];
    assert_eq!(scene.script.asked(), asked);
    let number =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["number"].as_u64();
    assert_eq!(answers.lines().filter_map(number).collect::<Vec<_>>(), [4, 5, 6]);
    assert!(notes.contains("the node ended the stream; waiting for the node"), "{notes}");
}

#[tokio::test]
async fn a_refusal_has_its_exit_code_and_a_hint() {
    let scene = Scene::begin().await;
    let (code, _, errors) = scene.run("inbox list").await;
    assert_eq!(code, 71);
    assert!(
        errors.starts_with("error: this desk may not receive (NOT_PERMITTED)\nhint: "),
        "{errors}"
    );
}

#[tokio::test]
async fn a_node_that_is_not_there_is_said_to_be_not_there() {
    let scene = Scene::begin().await;
    let profile = std::fs::read_to_string(scene.profile()).unwrap();
    // Port 2 is nobody's.
    let away = moved_away(&profile);
    std::fs::write(scene.profile(), away).unwrap();
    let (code, _, errors) = scene.run("inbox list").await;
    assert_eq!(code, 78);
    assert!(errors.contains("no connection to the node of FR at 127.0.0.1:2"), "{errors}");
    assert!(errors.contains("(UNREACHABLE)\nhint: is the node running"), "{errors}");
}

/// The profile with its desk face moved to port 2.
fn moved_away(profile: &str) -> String {
    let moved = profile.lines().map(|line| match line.starts_with("address = ") {
        true => "address = \"127.0.0.1:2\"".to_owned(),
        false => line.to_owned(),
    });
    moved.collect::<Vec<_>>().join("\n")
}
