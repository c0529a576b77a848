//! Taking a message back.

use bureau_core::{BureauCode, DeskName, Reason};
use bureau_net::{FieldViolation, Refusal};
use bureau_proto::desk::v1::{
    DeliveryState, RecallOutcome, RecallRequest, RecallResponse, RecipientRecall,
};
use bureau_store::contract::{Role, State, Turned};

use super::DeskFace;
use crate::{
    engine::lifecycle::{self, Deed, Done},
    face::message::delivery_state,
};

impl DeskFace {
    /// Takes back what still waits here.
    pub(super) async fn take_back(
        &self,
        desk: &DeskName,
        request: RecallRequest,
    ) -> Result<RecallResponse, Refusal> {
        let only = codes(&request.recipients)?;
        let message = self.find(&request.message_id, Role::Origin).await?;
        let mut deeds = lifecycle::recall(&self.engine, desk, message, &only).await?;
        deeds.sort_by_key(|deed| deed.recipient);
        let recipients = deeds.into_iter().map(recipient).collect();
        Ok(RecallResponse { message_id: message.to_string(), recipients })
    }
}

fn codes(given: &[String]) -> Result<Vec<BureauCode>, Refusal> {
    let (mut codes, mut faults) = (Vec::new(), Vec::new());
    for (index, text) in given.iter().enumerate() {
        match text.parse() {
            Ok(code) if codes.contains(&code) => {}
            Ok(code) => codes.push(code),
            Err(_) => faults.push(FieldViolation {
                field: format!("recipients[{index}]"),
                description: "not a bureau code: 2 to 12 of A-Z and 0-9".to_owned(),
                reason: Reason::UnknownBureau,
            }),
        }
    }
    Refusal::of_fields(faults).map_or(Ok(codes), Err)
}

fn recipient(deed: Deed) -> RecipientRecall {
    let (outcome, state, holder) = match deed.done {
        Done::Turned(Turned::Done { may_have_left: false }) => {
            (RecallOutcome::Recalled, Some(State::Recalled), None)
        }
        Done::Turned(Turned::Done { may_have_left: true }) => {
            (RecallOutcome::MayHaveLeft, Some(State::Recalled), None)
        }
        Done::Turned(Turned::Already) => (RecallOutcome::Already, Some(State::Recalled), None),
        Done::Turned(Turned::NotHere(state, holder)) => {
            let outcome = match state {
                State::Delivered | State::Acknowledged => RecallOutcome::Delivered,
                State::Refused | State::Expired => RecallOutcome::Ended,
                _ => RecallOutcome::Elsewhere,
            };
            (outcome, Some(state), holder)
        }
        _ => (RecallOutcome::NotARecipient, None, None),
    };
    RecipientRecall {
        recipient: deed.recipient.to_string(),
        outcome: outcome.into(),
        holder: holder.map(|holder| holder.to_string()).unwrap_or_default(),
        state: state.map_or(DeliveryState::Unspecified, delivery_state).into(),
    }
}
