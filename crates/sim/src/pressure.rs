//! A slow link with far more to carry than it can: what is urgent is there at once, and what is not
//! still gets its share.

use std::{sync::Arc, time::Duration};

use bureau_core::Lane;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{World, chance::Chance, desk};

/// Messages that wait before anything urgent comes.
const ROUTINE: u64 = 80;
/// How often something urgent comes, at first.
const FIRST_FLASH: u64 = 8;
/// An urgent message is there within so long: a round trip, the line and the disk, twice over.
const FLASH_WITHIN: Duration = Duration::from_secs(5);
/// How long more that is urgent comes than the link can carry.
const FLOOD: Duration = Duration::from_secs(60);
/// A sixteenth of the link is 30 KB in that time, or 20 messages; half of that must have come.
const SHARE_MESSAGES: usize = 10;

/// Sends, and checks what came when.
pub(crate) async fn run(world: Arc<World>) {
    let mut chance = Chance::new(world.plan.seed, 6);
    let mut open = JoinSet::new();
    let mut spawn = |open: &mut JoinSet<()>, lane, bytes| {
        let node = Arc::clone(&world.nodes[0]);
        let recipients = vec![world.nodes[1].code];
        let wish = desk::Wish { recipients, lane, bytes, attachment: None, expires: None };
        open.spawn(desk::send(Arc::clone(&world), node, wish, chance.next()));
    };
    for _ in 0..ROUTINE {
        spawn(&mut open, Lane::Routine, 600);
    }
    sleep(Duration::from_secs(20)).await;
    for _ in 0..FIRST_FLASH {
        spawn(&mut open, Lane::Flash, 100);
        sleep(Duration::from_secs(3)).await;
    }
    sleep(FLASH_WITHIN).await;
    urgent_is_fast(&world);
    let (before, began) = (routine_there(&world), Instant::now());
    while began.elapsed() < FLOOD {
        spawn(&mut open, Lane::Flash, 4000);
        sleep(Duration::from_millis(250)).await;
    }
    let after = routine_there(&world);
    let rest = usize::try_from(ROUTINE).unwrap_or(0) - before;
    if after - before < SHARE_MESSAGES.min(rest) {
        let text = format!("of {rest} less urgent messages {} came in a minute", after - before);
        world.book.violation("starvation", &text);
    }
    while open.join_next().await.is_some() {}
}

fn routine_there(world: &World) -> usize {
    let attempts = world.book.attempts().into_iter();
    let routine = attempts.filter(|attempt| attempt.lane == Lane::Routine);
    routine.filter_map(|attempt| world.book.seen_at(1, attempt.accepted?)).count()
}

fn urgent_is_fast(world: &World) {
    for attempt in world.book.attempts() {
        let (Some(id), Some(at)) = (attempt.accepted, attempt.accepted_at) else { continue };
        if attempt.lane != Lane::Flash {
            continue;
        }
        let took = world.book.seen_at(1, id).map(|seen| seen.duration_since(at));
        if took.is_none_or(|took| took > FLASH_WITHIN) {
            let text = format!("an urgent message took {took:?} past what is not urgent");
            world.book.violation("urgency", &text);
        }
    }
}
