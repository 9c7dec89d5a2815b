//! One stream's sender, as CONTRACT.md §2 asks of it: numbered reports, one call after the other, and without a receipt
//! the same reports again, unchanged, an older numbering's first and on a call of their own.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use gopherwatch_proto::{
    AGENT_EPOCH, AGENT_TIME, SERVICE_ID,
    v1::{MetricReport, Summary, metrics_service_client::MetricsServiceClient},
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status,
    metadata::{MetadataKey, MetadataValue},
    transport::{Channel, Endpoint},
};

use crate::{
    dice::Dice,
    generator::{Generator, Shape, now_nanos, now_us},
    ledger::{Ledger, Receipt, Sent},
};

/// Reports between the ledger and the call: few, so that one taken back by a fault was hardly on its way.
const MAX_WAITING: usize = 64;
/// An answer that takes longer does not come any more: the call is given up and its reports are sent again.
const ANSWER_WAIT: Duration = Duration::from_secs(20);
/// Between two tries, so that a dead server costs no processor.
const RETRY_WAIT: Duration = Duration::from_millis(50);

/// How a stream is to behave.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server, or what stands before it: `http://127.0.0.1:1234`.
    pub server: String,
    /// Whose reports.
    pub stream: String,
    /// How many instances it speaks for.
    pub n_instances: u32,
    /// What they report.
    pub shape: Shape,
    /// From one report of each instance to the next.
    pub pace: Duration,
    /// How long a call lasts at most until its receipt is asked for.
    pub rotate: Duration,
    /// Of everything that is random.
    pub seed: u64,
}

/// A sender and its ledger.
#[derive(Debug)]
pub struct Sender {
    options: Options,
    ledger: Ledger,
    generator: Generator,
    dice: Dice,
    channel: Option<Channel>,
    /// What has no receipt yet, oldest first. Bounded by what one call sends before its receipt is asked for.
    unreceipted: Vec<Sent>,
    n_receipted: usize,
    epoch_is_written: bool,
}

impl Sender {
    /// Goes on where the ledger in `folder` ends.
    pub fn open(options: Options, folder: &Path) -> io::Result<Self> {
        let (ledger, before) = Ledger::open(folder, &options.stream)?;
        let generator = Generator::new(options.shape, options.n_instances, options.seed, &before);
        let n_receipted = before.n_receipted();
        Ok(Self {
            dice: Dice::of(options.seed, before.n_epochs.wrapping_add(1 << 32)),
            ledger,
            generator,
            channel: None,
            unreceipted: before.sent[n_receipted..].to_vec(),
            n_receipted,
            epoch_is_written: false,
            options,
        })
    }

    /// Sends until `stop` says so, and then until everything has its receipt.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        loop {
            let stopping = *stop.borrow();
            if stopping && self.unreceipted.is_empty() {
                return Ok(());
            }
            let n_batches = if stopping { 0 } else { u64::MAX };
            if self.call(n_batches, &mut stop).await?.is_err() {
                // Not on the old connection: it may be half open.
                self.channel = None;
                sleep(RETRY_WAIT).await;
            }
        }
    }

    /// One call: what is left over, and, if all of that is of this numbering, up to `n_batches` new batches. The answer
    /// is in the ledger.
    pub async fn call(
        &mut self,
        n_batches: u64,
        stop: &mut watch::Receiver<bool>,
    ) -> io::Result<Result<Summary, Status>> {
        let channel = match self.connect().await {
            Ok(channel) => channel,
            Err(status) => return Ok(Err(status)),
        };
        let epoch = self.unreceipted.first().map_or(self.generator.epoch(), |sent| sent.epoch);
        let n_leftover = self.unreceipted.iter().take_while(|sent| sent.epoch == epoch).count();
        let is_current = epoch == self.generator.epoch();

        let (reports, stream) = mpsc::channel::<MetricReport>(MAX_WAITING);
        let mut request = Request::new(ReceiverStream::new(stream));
        let metadata = [
            (SERVICE_ID, self.options.stream.clone()),
            (AGENT_EPOCH, epoch.to_string()),
            (AGENT_TIME, now_nanos().to_string()),
        ];
        for (key, value) in metadata {
            let value = MetadataValue::try_from(value).expect("names and numbers are ASCII");
            request.metadata_mut().insert(MetadataKey::from_static(key), value);
        }
        let mut client = MetricsServiceClient::new(channel);
        let mut answer = tokio::spawn(async move { client.send_metrics(request).await });

        // Early means that the server ends the call by itself, which it may.
        let early = tokio::select! {
            early = &mut answer => Some(early),
            fed = self.feed(reports, n_leftover, if is_current { n_batches } else { 0 }, stop) => { fed?; None }
        };
        let ended_at = Instant::now();
        let answer = match early {
            Some(early) => early.map_err(io::Error::other)?,
            None => match timeout(ANSWER_WAIT, &mut answer).await {
                Ok(answer) => answer.map_err(io::Error::other)?,
                Err(_) => {
                    answer.abort();
                    return Ok(Err(Status::deadline_exceeded("no answer")));
                }
            },
        };
        let answer = answer.map(tonic::Response::into_inner);
        if let Ok(summary) = &answer {
            self.receipted(summary, epoch, ended_at.elapsed())?;
        }
        Ok(answer)
    }

    /// Sends what is left over, then new batches until it is time for a receipt. Whatever is sent is in the ledger first.
    async fn feed(
        &mut self,
        reports: mpsc::Sender<MetricReport>,
        n_leftover: usize,
        n_batches: u64,
        stop: &mut watch::Receiver<bool>,
    ) -> io::Result<()> {
        for sent in &self.unreceipted[..n_leftover] {
            if reports.send(sent.report(&self.options.stream)).await.is_err() {
                return Ok(());
            }
        }
        let rotate = self.options.rotate.mul_f64(0.5 + self.dice.below(500) as f64 / 1_000.0);
        let began = Instant::now();
        for n in 0..n_batches {
            if n > 0 {
                // The pace, or the end, whichever is first.
                let stopped = tokio::time::timeout(self.options.pace, stop.wait_for(|stop| *stop)).await.is_ok();
                if stopped || began.elapsed() >= rotate {
                    break;
                }
            }
            let batch = self.generator.batch();
            if !self.epoch_is_written {
                self.ledger.epoch(self.generator.epoch())?;
                self.epoch_is_written = true;
            }
            self.ledger.sent(&batch)?;
            // All of it is now to be sent, also when this call ends before its turn.
            let wire: Vec<_> = batch.iter().map(|sent| sent.report(&self.options.stream)).collect();
            self.unreceipted.extend(batch);
            self.ledger.given(wire.len(), now_us())?;
            for report in wire {
                if reports.send(report).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Notes a receipt, and what about it cannot be.
    fn receipted(&mut self, summary: &Summary, epoch: u64, latency: Duration) -> io::Result<()> {
        let n_of_epoch = self.unreceipted.iter().take_while(|sent| sent.epoch == epoch).count();
        let n = usize::try_from(summary.received).unwrap_or(usize::MAX).min(n_of_epoch);
        if summary.received > n_of_epoch as u64 {
            self.ledger
                .fault(&format!("a receipt for more than the {n_of_epoch} reports that were sent: {summary:?}"))?;
        }
        if summary.received != summary.accepted + summary.rejected + summary.duplicates {
            self.ledger.fault(&format!("a receipt that does not add up: {summary:?}"))?;
        }
        // The mark may be further: a call cut off before may have brought more than this one.
        let last = n.checked_sub(1).map(|place| self.unreceipted[place].sequence);
        if last.is_some_and(|last| summary.last_sequence < last) {
            self.ledger.fault(&format!("a mark before {last:?}, the last report that it counts: {summary:?}"))?;
        }
        self.n_receipted += n;
        self.ledger.receipt(Receipt {
            upto: self.n_receipted,
            accepted: summary.accepted,
            rejected: summary.rejected,
            duplicates: summary.duplicates,
            at_us: now_us(),
            latency_us: u64::try_from(latency.as_micros()).unwrap_or(u64::MAX),
        })?;
        self.unreceipted.drain(..n);
        Ok(())
    }

    /// How many reports have no receipt.
    pub fn n_unreceipted(&self) -> usize {
        self.unreceipted.len()
    }

    /// Gives the connection up: the next call makes another one.
    pub fn disconnect(&mut self) {
        self.channel = None;
    }

    async fn connect(&mut self) -> Result<Channel, Status> {
        if let Some(channel) = &self.channel {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(self.options.server.clone()).expect("the harness's own address");
        let endpoint = endpoint.connect_timeout(Duration::from_secs(3));
        let channel = endpoint.connect().await.map_err(|err| Status::unavailable(err.to_string()))?;
        self.channel = Some(channel.clone());
        Ok(channel)
    }
}
