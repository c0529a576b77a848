//! The first act: a film on its way over a slow line, a FLASH that overtakes it, and the line cut
//! in the middle, so that the film goes over the hub. What is told is looked at before.

use std::time::Duration;

use bureau_core::envelope::Content;
use bureau_proto::{
    admin::v1::{Explanation, ExplanationCause},
    desk::v1::{
        AttachmentToSend, DownloadAttachmentRequest, SubmitRequest, UploadAttachmentRequest,
        UploadHeader, upload_attachment_request::Piece,
    },
    envelope::v1::Lane,
};
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::{
    DemoError,
    ledger::{Ledger, Sent},
    network::{HUB, NEIGHBOR, Network, VICTIM},
    story::Story,
};
use crate::{client::DeskFace, error::CommandError, wire};

/// 64 kbit/s.
const SLOW_BYTES_PER_SECOND: u64 = 8_000;
/// A film of a few seconds: 38 s of that line.
const FILM_BYTES: usize = 300_000;
/// How much of it must be on its way before anything else happens.
const UNDER_WAY_BYTES: u64 = 12_000;
/// How long the film is watched on its way, and how long the FLASH may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// What the detour may take: the lines to the hub are fast.
const DETOUR_MAX: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long the film goes on after the FLASH, so that one sees that it does.
const GOES_ON: Duration = Duration::from_millis(1_500);

/// Plays it.
pub(super) async fn play(
    network: &mut Network,
    desks: &[(&'static str, DeskFace)],
    ledger: &Ledger,
    story: &mut Story<'_>,
) -> Result<(), CommandError> {
    let desk = |bureau: &str| {
        let desk = desks.iter().find(|(name, _)| *name == bureau);
        desk.map(|(_, face)| face).ok_or_else(|| DemoError::NoNode(bureau.to_owned()))
    };
    let (sender, receiver) = (desk(NEIGHBOR)?, desk(VICTIM)?);
    network.slow_down_straight(SLOW_BYTES_PER_SECOND);
    story.tell(&format!("the line from {NEIGHBOR} to {VICTIM} is SLOW from now on: 64 kbit/s"))?;
    let mut film = vec![0; FILM_BYTES];
    getrandom::fill(&mut film).map_err(|error| DemoError::Film(error.to_string()))?;
    let film = Bytes::from(film);
    let attachment = upload(sender, &film).await?;
    let request = SubmitRequest {
        attachments: vec![attachment],
        ..message(Lane::Routine, "Vidéosurveillance de la gare de Lyon, quai 7")
    };
    let film_id = submit(sender, request, ledger).await?;
    let size = wire::shown_bytes(FILM_BYTES as u64);
    story.tell(&format!("{NEIGHBOR} sends {VICTIM} a film of {size}, ROUTINE"))?;
    let explanation = under_way(network, &film_id).await?;
    story.why(NEIGHBOR, &film_id, &explanation)?;

    let asked = Instant::now();
    let request = message(Lane::Flash, "Zoë Okello-Brévent atterrit à Nairobi à 14 h 20");
    let flash_id = submit(sender, request, ledger).await?;
    delivered(ledger, &flash_id, asked + PATIENCE, "the FLASH did not arrive").await?;
    holds(!has(ledger, &film_id), "the film arrived before the FLASH")?;
    let sent = network.why(NEIGHBOR, &film_id).await?.attachment_sent_bytes;
    let (took, shown) = (shown_time(arrived_at(ledger, &flash_id), asked), wire::shown_bytes(sent));
    story.tell(&format!(
        "a FLASH overtakes it: in {VICTIM} after {took}; of the film {shown} are sent"
    ))?;

    sleep(GOES_ON).await;
    network.cut_straight();
    let cut = Instant::now();
    holds(!has(ledger, &film_id), "the film arrived before the line was cut")?;
    story.tell(&format!("the line from {NEIGHBOR} to {VICTIM} is CUT"))?;
    delivered(ledger, &film_id, cut + DETOUR_MAX, "the film did not arrive over the hub").await?;
    let hop = arrived_over(ledger, &film_id);
    holds(hop == HUB, "the film did not come over the hub")?;
    holds(download(receiver, &film_id).await? == film, "the film came changed")?;
    let took = shown_time(arrived_at(ledger, &film_id), cut);
    story.tell(&format!("the film came over {HUB} instead: whole in {VICTIM} {took} later"))
}

/// Waits until the film is well on its way, and the line is measured.
async fn under_way(network: &mut Network, id: &str) -> Result<Explanation, CommandError> {
    let until = Instant::now() + PATIENCE;
    loop {
        let explanation = network.why(NEIGHBOR, id).await?;
        let under_way = explanation.cause() == ExplanationCause::AttachmentsUnderWay;
        let known = explanation.estimate_time.is_some();
        if under_way && known && explanation.attachment_sent_bytes >= UNDER_WAY_BYTES {
            return Ok(explanation);
        }
        holds(Instant::now() < until, "the film was not on its way in time")?;
        sleep(LOOK_AGAIN).await;
    }
}

fn message(lane: Lane, subject: &str) -> SubmitRequest {
    SubmitRequest {
        request_id: Uuid::now_v7().to_string(),
        recipients: vec![VICTIM.to_owned()],
        lane: lane.into(),
        subject: subject.to_owned(),
        content: Bytes::from_static("EXERCICE. Tout ici est inventé.\n".as_bytes()),
        exercise: true,
        ..SubmitRequest::default()
    }
}

async fn upload(face: &DeskFace, film: &Bytes) -> Result<AttachmentToSend, CommandError> {
    let content = Content::of(film);
    let digest = Bytes::copy_from_slice(&content.digest);
    let header = UploadHeader { digest: digest.clone(), size: content.size, offset: 0 };
    let pieces = [Piece::Header(header), Piece::Data(film.clone())];
    let pieces = pieces.map(|piece| UploadAttachmentRequest { piece: Some(piece) });
    let mut client = face.client.clone();
    face.call(client.upload_attachment(tokio_stream::iter(pieces))).await?;
    let (name, media_type) = ("quai-7.mp4".to_owned(), "video/mp4".to_owned());
    let size = content.size;
    Ok(AttachmentToSend { digest, size, name, media_type })
}

async fn submit(
    face: &DeskFace,
    request: SubmitRequest,
    ledger: &Ledger,
) -> Result<String, CommandError> {
    let asked = Instant::now();
    let mut client = face.client.clone();
    let id = face.call(client.submit(request.clone())).await?.message_id;
    let sent = Sent {
        origin: NEIGHBOR.to_owned(),
        recipients: request.recipients,
        subject: request.subject,
        content: request.content,
        asked,
        accepted: Instant::now(),
        timed: false,
    };
    ledger.sent(id.clone(), sent);
    Ok(id)
}

async fn download(face: &DeskFace, id: &str) -> Result<Vec<u8>, CommandError> {
    let mut client = face.client.clone();
    let request = DownloadAttachmentRequest { message_id: id.to_owned(), index: 0, offset: 0 };
    let mut pieces = face.call(client.download_attachment(request)).await?;
    let mut film = Vec::with_capacity(FILM_BYTES);
    while let Some(piece) = pieces.message().await.map_err(|status| face.refused(&status))? {
        film.extend_from_slice(&piece.data);
        holds(film.len() <= FILM_BYTES, "the film came longer than it was")?;
    }
    Ok(film)
}

async fn delivered(
    ledger: &Ledger,
    id: &str,
    until: Instant,
    otherwise: &'static str,
) -> Result<(), DemoError> {
    let arrived = timeout_at(until, ledger.delivered(VICTIM, id)).await;
    arrived.map_err(|_elapsed| DemoError::NotSo(otherwise))
}

fn has(ledger: &Ledger, id: &str) -> bool {
    ledger.records().arrived.contains_key(&(VICTIM.to_owned(), id.to_owned()))
}

fn arrived_over(ledger: &Ledger, id: &str) -> String {
    let records = ledger.records();
    let arrived = records.arrived.get(&(VICTIM.to_owned(), id.to_owned()));
    arrived.map(|arrived| arrived.hop.clone()).unwrap_or_default()
}

fn arrived_at(ledger: &Ledger, id: &str) -> Option<Instant> {
    let records = ledger.records();
    records.arrived.get(&(VICTIM.to_owned(), id.to_owned())).map(|arrived| arrived.at)
}

/// From one moment to another that came.
fn shown_time(to: Option<Instant>, from: Instant) -> String {
    match to.map(|to| to.saturating_duration_since(from)) {
        Some(took) if took < Duration::from_secs(1) => format!("{} ms", took.as_millis()),
        Some(took) => format!("{:.1} s", took.as_secs_f64()),
        None => "-".to_owned(),
    }
}

/// What the demo is about to say must be so.
fn holds(so: bool, otherwise: &'static str) -> Result<(), DemoError> {
    if so { Ok(()) } else { Err(DemoError::NotSo(otherwise)) }
}
