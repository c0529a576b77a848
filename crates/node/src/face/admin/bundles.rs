//! Bundles at the admin face: made and taken in as streams, one at a time.

use std::{future::ready, pin::Pin, sync::Arc, time::Duration};

use bureau_core::{BureauCode, Reason};
use bureau_net::{FieldViolation, Refusal};
use bureau_proto::admin::v1::{
    BundleRecord, BundleReport, ExportBundleRequest, ExportBundleResponse, ExportNoted,
    ExportOptions, ImportBundleRequest, ImportBundleResponse, ImportRefusal, ListBundlesRequest,
    ListBundlesResponse, export_bundle_request::Step, export_bundle_response::Part,
    import_bundle_request::Piece,
};
use bureau_store::contract::{BundleKept, BundleWay};
use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::AdminFace;
use crate::engine::{
    Engine,
    bundle::{
        export::{self, Exported, Wanted},
        import::{self, Imported, Source},
    },
    store_refusal,
};

/// Bundles in one list.
const LISTED_MAX: usize = 500;
/// Pieces of 64 KiB that wait for the caller.
const PIECES_MAX: usize = 4;
/// How long the caller may take to make the whole file safe: a stick is slow.
const STORED_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// The largest piece of a bundle that is taken.
const PIECE_BYTES_MAX: usize = 1024 * 1024;

/// The answers of an export.
pub(super) type Exporting =
    Pin<Box<dyn stream::Stream<Item = Result<ExportBundleResponse, Status>> + Send>>;

fn bureau(field: &str, text: &str) -> Result<BureauCode, Refusal> {
    text.parse::<BureauCode>().map_err(|error| {
        let (field, description) = (field.to_owned(), error.to_string());
        let violation = FieldViolation { field, description, reason: Reason::Malformed };
        Refusal::of_fields(vec![violation])
            .unwrap_or_else(|| Refusal::new(Reason::Malformed, error.to_string()))
    })
}

const fn answer(part: Part) -> ExportBundleResponse {
    ExportBundleResponse { part: Some(part) }
}

fn report(exported: &Exported, from: BureauCode) -> BundleReport {
    let BundleKept { id, peer, time, messages, attachments, receipts, bytes, left_out, .. } =
        exported.kept;
    BundleReport {
        bundle_id: id.to_string(),
        from_bureau: from.to_string(),
        to_bureau: peer.to_string(),
        create_time: Some(time.to_wire()),
        messages,
        attachments,
        attachment_bytes: exported.attachment_bytes,
        receipts,
        bytes,
        left_out,
    }
}

impl AdminFace {
    fn one_bundle(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.bundles).try_acquire_owned().map_err(|_| {
            Refusal::new(Reason::Busy, "another bundle is being made or taken in")
                .retry_after(Duration::from_secs(10))
        })
    }

    /// Makes a bundle.
    pub(super) async fn make_bundle(
        &self,
        mut steps: Streaming<ExportBundleRequest>,
    ) -> Result<Exporting, Refusal> {
        let options = match next_step(&mut steps).await? {
            Some(Step::Options(options)) => options,
            _ => return Err(Refusal::new(Reason::FieldMissing, "the first step is the options")),
        };
        let ExportOptions { to_bureau, again, max_bytes } = options;
        let to = bureau("options.to_bureau", &to_bureau)?;
        let wanted = Wanted { to, again, max_bytes };
        let permit = self.one_bundle()?;
        let (pieces, file) = mpsc::channel(PIECES_MAX);
        let (words, said) = mpsc::channel(2);
        let engine = Arc::clone(&self.engine);
        // Driven by the answers themselves: where the caller goes away, all of it ends.
        let work = async move {
            let _permit = permit;
            let ended = export_bundle(&engine, wanted, pieces, &words, &mut steps).await;
            if let Err(refusal) = ended {
                engine.metrics.refused("bundle", refusal.reason.as_str());
                tracing::warn!(event = "bundle_not_exported", peer = %to, reason = %refusal.reason);
                // The caller may be gone: then nobody is there to be told.
                drop(words.send(Err(Status::from(refusal))).await);
            }
            None
        };
        let file = ReceiverStream::new(file).map(|data| Ok(answer(Part::Data(data))));
        let answers = file.chain(ReceiverStream::new(said));
        let work = stream::once(work).filter_map(ready);
        Ok(Box::pin(stream::select(answers, work)))
    }

    /// Takes a bundle in.
    pub(super) async fn take_bundle(
        &self,
        mut pieces: Streaming<ImportBundleRequest>,
    ) -> Result<ImportBundleResponse, Refusal> {
        let _permit = self.one_bundle()?;
        let first = next_piece(&mut pieces).await?;
        let (inspect, first) = match first {
            Some(Piece::Options(options)) => (options.inspect, None),
            Some(Piece::Data(data)) => (false, Some(data)),
            None => (false, None),
        };
        let rest = stream::unfold(Some(pieces), |pieces| async move {
            let mut pieces = pieces?;
            match next_piece(&mut pieces).await {
                Ok(Some(Piece::Data(data))) if data.len() <= PIECE_BYTES_MAX => {
                    Some((Ok(data), Some(pieces)))
                }
                Ok(Some(_)) => {
                    let text =
                        format!("after the options come pieces of up to {PIECE_BYTES_MAX} bytes");
                    Some((Err(Refusal::new(Reason::FieldInvalid, text)), None))
                }
                Ok(None) => None,
                Err(refusal) => Some((Err(refusal), None)),
            }
        });
        let source: Source = Box::pin(stream::iter(first.map(Ok)).chain(rest));
        let imported = import::import(&self.engine, source, inspect).await;
        imported.map(response).inspect_err(|refusal| {
            self.engine.metrics.refused("bundle", refusal.reason.as_str());
            tracing::warn!(event = "bundle_refused", reason = %refusal.reason,
                detail = %refusal.message);
        })
    }

    /// Lists bundles.
    pub(super) async fn bundle_list(
        &self,
        request: ListBundlesRequest,
    ) -> Result<ListBundlesResponse, Refusal> {
        let peer = match request.bureau.as_str() {
            "" => None,
            text => Some(bureau("bureau", text)?),
        };
        let kept = self.engine.store.bundles(None, peer, LISTED_MAX).await;
        let kept = kept.map_err(|error| store_refusal(&error))?;
        Ok(ListBundlesResponse { bundles: kept.into_iter().map(record).collect() })
    }
}

async fn export_bundle(
    engine: &Arc<Engine>,
    wanted: Wanted,
    pieces: mpsc::Sender<bytes::Bytes>,
    words: &mpsc::Sender<Result<ExportBundleResponse, Status>>,
    steps: &mut Streaming<ExportBundleRequest>,
) -> Result<(), Refusal> {
    let gone = |_| Refusal::new(Reason::Stalled, "nobody takes the bundle any more");
    let exported = export::export(engine, wanted, &pieces).await?;
    drop(pieces);
    let complete = answer(Part::Complete(report(&exported, engine.bureau())));
    words.send(Ok(complete)).await.map_err(gone)?;
    let stored = timeout(STORED_TIMEOUT, next_step(steps)).await;
    let Ok(Ok(Some(Step::Stored(_)))) = stored else {
        let text = "the caller did not say that the file is safe: nothing was noted";
        return Err(Refusal::new(Reason::Stalled, text));
    };
    export::note(engine, exported).await?;
    words.send(Ok(answer(Part::Noted(ExportNoted {})))).await.map_err(gone)
}

async fn next_step(steps: &mut Streaming<ExportBundleRequest>) -> Result<Option<Step>, Refusal> {
    let step = steps.message().await.map_err(|status| broken(&status))?;
    Ok(step.and_then(|request| request.step))
}

async fn next_piece(pieces: &mut Streaming<ImportBundleRequest>) -> Result<Option<Piece>, Refusal> {
    match pieces.message().await {
        Ok(None) => Ok(None),
        Ok(Some(ImportBundleRequest { piece: Some(piece) })) => Ok(Some(piece)),
        Ok(Some(_)) => Err(Refusal::new(Reason::FieldMissing, "neither options nor data")),
        Err(status) => Err(broken(&status)),
    }
}

/// The stream broke: nobody is there to read the answer.
fn broken(status: &Status) -> Refusal {
    if status.code() == tonic::Code::OutOfRange {
        return crate::face::gate::too_large();
    }
    Refusal::new(Reason::Stalled, status.message().to_owned())
}

fn response(imported: Imported) -> ImportBundleResponse {
    let Imported { header, bytes, summary, counts, before } = imported;
    let label = header.label();
    let refusal = |(number, recipient, reason)| ImportRefusal { number, recipient, reason };
    ImportBundleResponse {
        bundle: Some(BundleReport {
            bundle_id: label.id.to_string(),
            from_bureau: label.from.to_string(),
            to_bureau: label.to.to_string(),
            create_time: Some(label.created.to_wire()),
            messages: summary.messages,
            attachments: summary.attachments,
            attachment_bytes: summary.attachment_bytes,
            receipts: summary.receipts,
            bytes,
            left_out: 0,
        }),
        delivered: counts.delivered,
        relayed: counts.relayed,
        duplicates: counts.duplicates,
        refused: counts.refused,
        refusals: counts.refusals.into_iter().map(refusal).collect(),
        receipts_taken: counts.receipts,
        bundles_confirmed: counts.confirmed,
        imported_before_time: before.map(bureau_core::Timestamp::to_wire),
    }
}

fn record(kept: BundleKept) -> BundleRecord {
    BundleRecord {
        bundle_id: kept.id.to_string(),
        bureau: kept.peer.to_string(),
        imported: kept.way == BundleWay::Imported,
        time: Some(kept.time.to_wire()),
        messages: kept.messages,
        attachments: kept.attachments,
        receipts: kept.receipts,
        bytes: kept.bytes,
        left_out: kept.left_out,
        confirm_time: kept.confirmed.map(bureau_core::Timestamp::to_wire),
    }
}
