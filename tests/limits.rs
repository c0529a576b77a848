//! Limits of a connection, tried from outside: what is too much costs its sender, and nobody else.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod harness;

use std::time::Duration;

use bureau_proto::desk::v1::{
    TrackRequest, WatchInboxRequest, desk_service_client::DeskServiceClient,
};
use harness::{Network, Program};

fn program() -> Program {
    Program::at(env!("CARGO_BIN_EXE_bureau"))
}

#[tokio::test]
async fn a_header_list_of_20_kib_is_not_taken() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    let desk = network.desk("FR");
    let mut client = desk.client().await;
    let with = |bytes: usize| {
        let message_id = "aaaaaa".to_owned();
        let mut request = tonic::Request::new(TrackRequest { message_id });
        request.metadata_mut().insert("x-long", "x".repeat(bytes).parse().unwrap());
        request
    };
    // NOT_FOUND comes from the engine: this one was taken.
    assert_eq!(client.track(with(8_000)).await.unwrap_err().code(), tonic::Code::NotFound);
    let refused = client.track(with(20_000)).await.unwrap_err();
    assert_ne!(refused.code(), tonic::Code::NotFound, "{refused:?}");
    assert!(desk.is_serving().await);
}

#[tokio::test]
async fn one_connection_has_so_many_streams_and_others_do_not_wait() {
    let mut network = Network::mesh(program(), &["FR", "KE"], "IPSG");
    network.start("FR").await;
    let desk = network.desk("FR");
    let channel = desk.channel().await.unwrap().channel();
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut client = DeskServiceClient::new(channel.clone());
        let watch = client.watch_inbox(WatchInboxRequest { after_number: 0 });
        open.push(watch.await.unwrap());
    }
    let mut client = DeskServiceClient::new(channel.clone());
    let one_more = client.watch_inbox(WatchInboxRequest { after_number: 0 });
    assert!(tokio::time::timeout(Duration::from_millis(500), one_more).await.is_err());
    assert!(desk.is_serving().await, "another connection is not held up");
    drop(open);
}
