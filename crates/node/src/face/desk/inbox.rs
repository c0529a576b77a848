//! Listing, showing and taking over what arrived.

use bureau_core::{DeskName, MessageId, Reason};
use bureau_net::{FieldViolation, Refusal};
use bureau_proto::desk::v1::{Acknowledgment, InboxMessage, ListInboxRequest, ListInboxResponse};
use bureau_store::contract::{Arrived, Role};

use super::{DeskFace, message, not_found};
use crate::engine::{scribe::Takeover, store_refusal};

/// Messages that one request may take over.
const TAKE_OVER_MAX: usize = 500;

impl DeskFace {
    pub(super) async fn list(
        &self,
        request: ListInboxRequest,
    ) -> Result<ListInboxResponse, Refusal> {
        let size = message::page_size(request.page_size)?;
        let after = match request.page_token.as_str() {
            "" => 0,
            token => token.parse::<u64>().map_err(|_| {
                Refusal::new(Reason::InvalidPageToken, "not a page token of this list")
            })?,
        };
        // One more than the page: whether there is another. Bodies are read for their subjects.
        let store = &self.engine.store;
        let read = store.inbox(after, size + 1, request.include_acknowledged, true).await;
        let mut arrived = read.map_err(|error| store_refusal(&error))?;
        let more = arrived.len() > size;
        arrived.truncate(size);
        let last = arrived.last().filter(|_| more).map(|arrived| arrived.number.to_string());
        let entries: Result<Vec<_>, Refusal> = arrived
            .into_iter()
            .filter_map(|arrived| {
                let quarantined = self.engine.is_quarantined(&arrived);
                message::inbox_message(arrived, quarantined).map(|shown| shown.entry).transpose()
            })
            .collect();
        Ok(ListInboxResponse { entries: entries?, next_page_token: last.unwrap_or_default() })
    }

    pub(super) async fn show(&self, desk: &DeskName, text: &str) -> Result<InboxMessage, Refusal> {
        let arrived = self.arrived(text).await?;
        tracing::info!(event = "message_read", message = %arrived.message, desk = %desk);
        let quarantined = self.engine.is_quarantined(&arrived);
        message::inbox_message(arrived, quarantined)
    }

    /// The message that a text names: an id, a prefix of one, or `#` and an inbox number.
    pub(super) async fn arrived(&self, text: &str) -> Result<Arrived, Refusal> {
        let store = &self.engine.store;
        let found = match text.strip_prefix('#') {
            Some(number) => {
                let number = number.parse::<u64>().map_err(|_| {
                    Refusal::new(Reason::Malformed, "after # an inbox number is expected")
                })?;
                store.inbox_number(number).await
            }
            None => store.inbox_message(self.find(text, Role::Recipient).await?).await,
        };
        found.map_err(|error| store_refusal(&error))?.ok_or_else(not_found)
    }

    pub(super) async fn take_over(
        &self,
        desk: &DeskName,
        texts: Vec<String>,
    ) -> Result<Vec<Acknowledgment>, Refusal> {
        if texts.is_empty() || texts.len() > TAKE_OVER_MAX {
            let description = format!("1 to {TAKE_OVER_MAX} messages are taken at a time");
            let field = "message_ids".to_owned();
            let violation = FieldViolation { field, description, reason: Reason::FieldInvalid };
            let refusal = Refusal::of_fields(vec![violation]);
            return Err(refusal.unwrap_or_else(not_found));
        }
        // All are found before one is taken: a typing error changes nothing.
        let mut takeovers = Vec::with_capacity(texts.len());
        for text in &texts {
            let arrived = self.arrived(text).await?;
            let (message, slip) = (arrived.message, arrived.slip);
            takeovers.push(Takeover { message, slip, desk: desk.clone() });
        }
        let taken = takeovers.into_iter().map(|takeover| self.take_over_one(takeover));
        futures_util::future::try_join_all(taken).await
    }

    async fn take_over_one(&self, takeover: Takeover) -> Result<Acknowledgment, Refusal> {
        let message: MessageId = takeover.message;
        let taken = self.engine.scribe.acknowledge(takeover).await?;
        let (time, desk, fresh) = taken.ok_or_else(not_found)?;
        if fresh {
            self.engine.metrics.acknowledged();
            tracing::info!(event = "message_acknowledged", message = %message, desk = %desk);
        }
        Ok(Acknowledgment {
            message_id: message.to_string(),
            acknowledge_time: Some(time.to_wire()),
            acknowledge_desk: desk.to_string(),
        })
    }
}
