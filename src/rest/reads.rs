//! Reads of the store, within a deadline.
//!
//! The only place of REST that blocks, and so the only `spawn_blocking`. A read that outlives its deadline goes on with
//! its permit, so that a store that hangs costs as many threads as there are permits, and no more.

use std::{sync::Arc, time::Duration};

use slog::{Logger, error, warn};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use super::{Options, problem::Problem};
use crate::store::{AlertStore, StoreError};

/// The store, as handlers may read it.
pub(super) struct Reads {
    store: Arc<dyn AlertStore>,
    turns: Arc<Semaphore>,
    deadline: Duration,
    log: Logger,
}

impl Reads {
    /// Reads `store` within the limits of `options`.
    pub(super) fn new(store: Arc<dyn AlertStore>, options: &Options, log: Logger) -> Self {
        let turns = Arc::new(Semaphore::new(options.max_store_reads));
        Self { store, turns, deadline: options.store_deadline, log }
    }

    /// What the store answers to `ask`.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn AlertStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let read = async {
            let turn = self.turns.clone().acquire_owned().await.expect("nobody closes the semaphore");
            let store = self.store.clone();
            spawn_blocking(move || {
                let answer = ask(&*store);
                drop(turn);
                answer
            })
            .await
        };
        match timeout(self.deadline, read).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(err))) => Err(self.failed(&err)),
            Ok(Err(_panic)) => {
                error!(self.log, "reading the alert history panicked");
                Err(Problem::internal())
            }
            Err(_elapsed) => {
                let seconds = self.deadline.as_secs_f64();
                warn!(self.log, "the store did not answer in time"; "deadline_seconds" => seconds);
                Err(Problem::unavailable("the alert history does not answer at the moment"))
            }
        }
    }

    /// The client hears whether to try again; the log hears why.
    fn failed(&self, err: &StoreError) -> Problem {
        let chain = crate::log::chain(err);
        if err.is_transient() {
            warn!(self.log, "the alert history could not be read"; "error" => chain);
            Problem::unavailable("the alert history cannot be read at the moment")
        } else {
            error!(self.log, "the alert history could not be read"; "error" => chain);
            Problem::internal()
        }
    }
}
