//! Sending the messages, evenly over the time, from the desks of their origins. A desk whose node
//! is away asks again under the same request id, as officers and systems do.

use std::{sync::Arc, time::Duration};

use bureau_proto::desk::v1::SubmitRequest;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    DemoError,
    corpus::Template,
    ledger::{Ledger, Sent},
};
use crate::{client::DeskFace, error::CommandError};

/// Messages under way to their nodes at one time.
const IN_FLIGHT_MAX: usize = 256;
/// Before a desk asks again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What is sent, and when.
pub(super) struct Traffic {
    pub(super) templates: Vec<Template>,
    pub(super) count: usize,
    pub(super) start: Instant,
    pub(super) length: Duration,
    pub(super) deadline: Instant,
}

impl Traffic {
    /// Sends all, and returns when all are accepted or the time is over.
    pub(super) async fn send(
        &self,
        desks: &[(&'static str, DeskFace)],
        ledger: &Arc<Ledger>,
    ) -> Result<(), CommandError> {
        let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let mut submitting = JoinSet::new();
        for (number, template) in self.templates.iter().cycle().take(self.count).enumerate() {
            let share = number as f64 / self.count as f64;
            sleep_until(self.start + self.length.mul_f64(share)).await;
            let desk = desks.iter().find(|(bureau, _)| *bureau == template.origin);
            let missing = || DemoError::NoNode(template.origin.clone());
            let (origin, face) = desk.cloned().ok_or_else(missing)?;
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { break };
            let (request, ledger) = (template.request(number + 1), Arc::clone(ledger));
            let deadline = self.deadline;
            submitting.spawn(async move {
                let submitted = submit(origin, &face, request, &ledger, deadline).await;
                drop(permit);
                submitted
            });
            while let Some(submitted) = submitting.try_join_next() {
                joined(submitted)?;
            }
        }
        while let Some(submitted) = submitting.join_next().await {
            joined(submitted)?;
        }
        Ok(())
    }
}

fn joined(
    submitted: Result<Result<(), CommandError>, tokio::task::JoinError>,
) -> Result<(), CommandError> {
    submitted.map_err(|source| CommandError::Task { task: "sending", source })?
}

async fn submit(
    origin: &str,
    face: &DeskFace,
    request: SubmitRequest,
    ledger: &Ledger,
    deadline: Instant,
) -> Result<(), CommandError> {
    let asked = Instant::now();
    let mut client = face.client.clone();
    let response = loop {
        match face.call(client.submit(request.clone())).await {
            Ok(response) => break response,
            Err(error) if error.is_transient() && Instant::now() < deadline => {
                sleep(ASK_AGAIN).await;
            }
            Err(error) => {
                let (bureau, error) = (origin.to_owned(), Box::new(error));
                return Err(DemoError::Desk { bureau, error }.into());
            }
        }
    };
    let sent = Sent {
        origin: origin.to_owned(),
        recipients: request.recipients,
        subject: request.subject,
        content: request.content,
        asked,
        accepted: Instant::now(),
        timed: true,
    };
    ledger.sent(response.message_id, sent);
    Ok(())
}
