//! What the thread of a [`Client`](crate::Client) does: a report each interval, delivered beside that.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gopherwatch_proto::v1::MetricReport;
use slog::{Logger, warn};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::transport::Uri;

use crate::buffer::{self, Accounts, Buffer, Limits};
use crate::client::locked;
use crate::clock::Clock;
use crate::codec::encode;
#[cfg(feature = "spool")]
use crate::error::chain;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::overflow::Overflow;
use crate::send;
use crate::tls::TlsFiles;
use crate::token::Token;

/// See the module. Service and instance are valid names.
pub(crate) struct Reporter {
    pub(crate) server: Uri,
    pub(crate) tls: TlsFiles,
    pub(crate) service: String,
    pub(crate) instance: String,
    pub(crate) interval: Duration,
    pub(crate) token: Option<Token>,
    pub(crate) buffer: buffer::Options,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    /// Kept up to date for whoever asks, who so never waits for a disk.
    pub(crate) accounts: Arc<Mutex<Accounts>>,
    pub(crate) log: Logger,
}

impl Reporter {
    /// Reports until `stopping` says how long the last receipt may take.
    pub(crate) async fn run(self, mut stopping: watch::Receiver<Option<Duration>>) {
        // 0 would mean "no epoch".
        let epoch = rand::random_range(1..=u64::MAX);
        let outbox = Arc::new(Outbox::by(self.clock.clone(), self.buffer(epoch)));
        let delivery = send::Options {
            tls: self.tls.clone(),
            token: self.token.clone(),
            ..send::Options::new(self.server.clone(), &self.service)
        };
        let sender = tokio::spawn(send::run(delivery, Arc::clone(&outbox), self.log.clone()));

        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut sequence = 0;
        let mut overflow = Overflow::new(self.log.clone());
        let wait = loop {
            let leaving = tokio::select! {
                _ = ticks.tick() => None,
                // The client is gone without a word only if it was leaked: then nobody waits.
                changed = stopping.changed() => Some(changed.map_or(Duration::ZERO, |()| stopping.borrow().unwrap_or_default())),
            };
            sequence += 1;
            let n_dropped = outbox.push(encode(&MetricReport {
                service_name: self.service.clone(),
                instance: self.instance.clone(),
                time_unix_nano: self.clock.unix_nanos(),
                sequence,
                metrics: self.metrics.read(Instant::now(), leaving.is_some()),
                leaving: leaving.is_some(),
            }));
            overflow.note(n_dropped, &outbox);
            *locked(&self.accounts) = outbox.accounts();
            if let Some(wait) = leaving {
                break wait;
            }
        };
        outbox.finish();
        // What the sender was doing is cut short with the runtime.
        let _ = timeout(wait, sender).await;
        let accounts = outbox.accounts();
        *locked(&self.accounts) = accounts;
        if accounts.pending > outbox.n_lasting() {
            warn!(self.log, "ended with undelivered reports, which are lost"; accounts);
        }
    }

    #[cfg(feature = "spool")]
    fn buffer(&self, epoch: u64) -> Buffer {
        Buffer::open(&self.buffer, epoch, &self.log).unwrap_or_else(|taken| {
            warn!(self.log, "no spool: reports are kept in memory"; "error" => chain(&taken));
            self.in_memory(epoch)
        })
    }

    #[cfg(not(feature = "spool"))]
    fn buffer(&self, epoch: u64) -> Buffer {
        self.in_memory(epoch)
    }

    fn in_memory(&self, epoch: u64) -> Buffer {
        Buffer::new(self.buffer.limits.unwrap_or(Limits::IN_MEMORY), epoch)
    }
}
