//! Watches the server's own accounts (I4): a difference that lasts is a fault of ours, and raises an alert.
//!
//! The server reports the difference as an instance of its own, which a rule of its own looks at (`rules::ACCOUNTS`):
//! so it fires, is restored, told and resolved like every other alert. It reports nothing as long as nothing is wrong.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use slog::{Logger, error};

use crate::{
    dispatch::{ByName, Chunk, Dispatcher, Item},
    model::{InstanceKey, Timestamp},
    rules::ACCOUNTS,
    state::State,
    stats::{Balance, Stats},
};

/// How often the accounts are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// Looks of one time, and the wait between them: figures are read one by one while others count, so that a difference of a
/// moment is none.
const LOOKS: u32 = 20;
const LOOK_WAIT: Duration = Duration::from_millis(2);

/// Starts the thread. It ends when `stop` is disconnected.
pub fn start(
    dispatcher: Dispatcher,
    state: Arc<State>,
    stats: Arc<Stats>,
    stop: Receiver<()>,
    log: &Logger,
) -> io::Result<JoinHandle<()>> {
    let log = log.new(slog::o!("thread" => "accounts"));
    let key = Arc::new(InstanceKey::new(ACCOUNTS, "server"));
    let run = move || {
        while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(EVERY) {
            let difference = lasting_difference(&stats, &stop);
            // Told as long as it is there, and until the end of it is told.
            let is_known = state.knows(&key);
            if difference == 0 && !is_known {
                continue;
            }
            if difference > 0 {
                error!(log, "the accounts do not balance: please report this fault"; "difference" => difference,
                    "balance" => ?stats.balance());
            }
            let lane_idx = state.lane_of(&key);
            let chunk = chunk(lane_idx, &key, difference, difference == 0);
            // Without room it is told the next time.
            let _ = dispatcher.try_dispatch(lane_idx, chunk);
        }
    };
    thread::Builder::new().name("accounts".to_owned()).spawn(run)
}

/// The smallest difference of several looks; 0 as soon as one look finds none.
fn lasting_difference(stats: &Stats, stop: &Receiver<()>) -> u64 {
    let mut least = u64::MAX;
    for _ in 0..LOOKS {
        least = least.min(difference(&stats.balance()));
        if least == 0 || stop.recv_timeout(LOOK_WAIT) != Err(RecvTimeoutError::Timeout) {
            return 0;
        }
    }
    least
}

/// By how much the accounts of reports and of events are out.
fn difference(balance: &Balance) -> u64 {
    let reports = balance.accepted + balance.rejected + balance.duplicates + balance.queued;
    let events = balance.stored + balance.pending + balance.dead_letter;
    balance.received.abs_diff(reports) + balance.events.abs_diff(events)
}

/// A report of the difference, the last one if there is none any longer.
fn chunk(lane_idx: usize, key: &Arc<InstanceKey>, difference: u64, leaving: bool) -> Box<Chunk> {
    let now = Timestamp::now();
    let mut reports = ByName::new(lane_idx + 1);
    let item = Item { leaving, ..Item::default() };
    reports.put(lane_idx, key, item, &[("balance_difference".into(), difference as f64)]);
    let chunk = reports.packer().chunk(lane_idx, &Arc::default(), now, Instant::now());
    chunk.expect("it has been packed")
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;

    #[test]
    fn a_difference_is_one_in_either_account_and_passes_with_the_moment() {
        let stats = Stats::new();
        let (_stop, stopped) = bounded(0);
        assert_eq!(lasting_difference(&stats, &stopped), 0);
        stats.received.inc_by(3);
        stats.accepted.inc_by(1);
        assert_eq!(lasting_difference(&stats, &stopped), 2);
        stats.queued.set(2);
        assert_eq!(lasting_difference(&stats, &stopped), 0);
        // The writer has gone past five events and given the store three.
        stats.events.set(7);
        stats.store_position.set(5);
        stats.events_stored.set(3);
        assert_eq!(lasting_difference(&stats, &stopped), 2);
        stats.events_dead.set(2);
        assert_eq!(lasting_difference(&stats, &stopped), 0);
    }
}
