//! Expiry and forgetting: nothing waits for ever, and its sender is told.

use std::{sync::Arc, time::Duration};

use bureau_core::receipt::ReceiptKind;
use bureau_net::Refusal;
use bureau_store::contract::{Operation, Role, State, Timer, TimerKind, Tracked, TrackedRecipient};
use tokio_util::sync::CancellationToken;

use super::{Engine, scribe::Farewell, store_refusal};

/// How often due timers are looked for. Timers are kept by the minute.
const PERIOD: Duration = Duration::from_secs(5);
/// Timers that are handled before the next look.
const TIMERS_MAX: usize = 16;

/// Handles timers until it is cancelled.
pub async fn run(engine: Arc<Engine>, cancel: CancellationToken) {
    loop {
        let more = match round(&engine).await {
            Ok(more) => more,
            Err(refusal) => {
                tracing::warn!(event = "timers_failed", reason = %refusal.reason);
                false
            }
        };
        let wait = if more { Duration::ZERO } else { PERIOD };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Handles what is due. Whether there may be more.
async fn round(engine: &Engine) -> Result<bool, Refusal> {
    let now = engine.clock.now();
    let due = engine.store.due(now, TIMERS_MAX).await.map_err(|error| store_refusal(&error))?;
    let more = due.len() == TIMERS_MAX;
    for timer in due {
        if timer.kind != TimerKind::Forget {
            give_up_all(engine, &timer).await?;
        }
        let handled = vec![Operation::TimerHandled { timer, now }];
        engine.store.commit(handled).await.map_err(|error| store_refusal(&error))?;
    }
    Ok(more)
}

async fn give_up_all(engine: &Engine, timer: &Timer) -> Result<(), Refusal> {
    for message in &timer.messages {
        let tracked = engine.store.track(*message).await.map_err(|error| store_refusal(&error))?;
        let Some(tracked) = tracked else { continue };
        for track in &tracked.recipients {
            if is_due(track, timer.kind) {
                give_up(engine, &tracked, track).await?;
            }
        }
    }
    Ok(())
}

/// Whether this node must say that a message expired: it waits here; or, a while later, this is its
/// origin and whoever took custody did not say.
fn is_due(track: &TrackedRecipient, kind: TimerKind) -> bool {
    match track.state {
        State::Queued => true,
        State::Relayed => kind == TimerKind::Overdue && track.role == Role::Origin,
        _ => false,
    }
}

async fn give_up(
    engine: &Engine,
    tracked: &Tracked,
    track: &TrackedRecipient,
) -> Result<(), Refusal> {
    let farewell = Farewell {
        message: tracked.message,
        recipient: track.recipient,
        slip: track.slip,
        kind: ReceiptKind::Expired,
        reason: String::new(),
        advice: String::new(),
    };
    if engine.scribe.give_up(farewell).await? {
        engine.metrics.expired();
        tracing::warn!(
            event = "message_expired",
            message = %tracked.message, origin = %tracked.origin, recipient = %track.recipient
        );
    }
    Ok(())
}
