//! Scraped services: their metrics in Prometheus' text format, fetched by a task for each, at each interval but at most
//! once a second.
//!
//! A tick takes what was found last, once. A target that does not answer is not reported, and its `silent` alert does the
//! rest.

mod fetch;
mod histogram;
mod reading;
mod series;
mod text;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use gopherwatch_client::error::chain;
use gopherwatch_client::trouble::{Say, Trouble};
use gopherwatch_proto::v1::Metric;
use slog::{Logger, info, o, warn};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::transport::Uri;

use super::{Round, Source};
use crate::mapping::{Mapping, Names};
use reading::{Memory, Outcome, Reading};

/// More often would measure the scraping.
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);
/// As Prometheus waits.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A service to scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A valid name.
    pub service: String,
    /// A valid name.
    pub instance: String,
    /// http, with a host.
    pub url: Uri,
}

/// The source: one target.
#[derive(Debug)]
pub struct Scrape {
    target: Target,
    found: Arc<Mutex<Found>>,
    task: JoinHandle<()>,
}

/// What the task has for the next tick.
#[derive(Debug, Default)]
struct Found {
    metrics: Option<Vec<Metric>>,
    /// Whether it answered when it was asked last.
    is_there: bool,
}

impl Scrape {
    /// Begins to scrape, inside a tokio runtime.
    pub fn new(target: Target, tick: Duration, mapping: &Mapping, log: &Logger) -> Self {
        let found = Arc::<Mutex<Found>>::default();
        let period = tick.max(SHORTEST_PERIOD);
        let scraper = Scraper {
            url: target.url.clone(),
            names: mapping.of(&target.service),
            period,
            // Something is left of the period for what comes after it.
            wait: LONGEST_WAIT.min(period * 9 / 10),
            memory: Memory::default(),
            scraped: None,
            failing: Trouble::default(),
            malformed: Trouble::default(),
            was_beyond: false,
            log: log.new(o!("url" => target.url.to_string(), "target" => target.service.clone(), "source" => "scrape")),
        };
        let task = tokio::spawn(scraper.run(Arc::clone(&found)));
        Self { target, found, task }
    }
}

impl Source for Scrape {
    fn read(&mut self, round: &mut Round) {
        if let Some(metrics) = lock(&self.found).metrics.take() {
            round.add(&self.target.service, &self.target.instance, metrics);
        }
    }

    fn leave(&mut self, round: &mut Round) {
        let mut found = lock(&self.found);
        if found.is_there {
            round.add(&self.target.service, &self.target.instance, found.metrics.take().unwrap_or_default());
        }
    }
}

impl Drop for Scrape {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How many samples this target has to give.
pub(crate) async fn n_samples(target: &Target) -> Result<usize, fetch::Error> {
    let body = fetch::fetch(&target.url).await?;
    let is_sample = |line: &str| matches!(text::parse(line), Ok(Some(text::Line::Sample(_))));
    Ok(String::from_utf8_lossy(&body).lines().filter(|line| is_sample(line)).count())
}

fn lock(found: &Mutex<Found>) -> MutexGuard<'_, Found> {
    found.lock().expect("nothing panics while it holds this lock")
}

struct Scraper {
    url: Uri,
    names: Names,
    period: Duration,
    wait: Duration,
    memory: Memory,
    /// The last time that it answered.
    scraped: Option<Instant>,
    failing: Trouble,
    malformed: Trouble,
    was_beyond: bool,
    log: Logger,
}

impl Scraper {
    async fn run(mut self, found: Arc<Mutex<Found>>) {
        let mut ticks = interval(self.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let metrics = self.scrape().await;
            let mut found = lock(&found);
            found.is_there = metrics.is_some();
            if metrics.is_some() {
                found.metrics = metrics;
            }
        }
    }

    async fn scrape(&mut self) -> Option<Vec<Metric>> {
        let fetched = timeout(self.wait, fetch::fetch(&self.url)).await;
        let now = Instant::now();
        let error = match fetched {
            Ok(Ok(body)) => {
                let elapsed = self.scraped.replace(now).map(|before| now - before);
                let outcome = Reading::new(&mut self.memory, &self.names).body(&body).end(elapsed);
                self.note(&outcome, now);
                return Some(outcome.metrics);
            }
            Ok(Err(err)) => chain(&err),
            Err(_) => format!("no answer within {:?}", self.wait),
        };
        match self.failing.happened(1, now) {
            Say::First => warn!(self.log, "cannot scrape: the service is not reported"; "error" => error),
            Say::Again(_) | Say::Nothing => {}
        }
        None
    }

    fn note(&mut self, outcome: &Outcome, now: Instant) {
        if let Some(episode) = self.failing.over() {
            info!(self.log, "scraping again"; "failures" => episode.count, "for_seconds" => episode.seconds());
        }
        if outcome.beyond > 0 && !std::mem::replace(&mut self.was_beyond, true) {
            warn!(self.log, "more figures than a report takes: the first are kept; --mapping says which are wanted";
                "left_out" => outcome.beyond, "kept" => outcome.metrics.len());
        }
        self.malformed.over_if_old(now);
        if outcome.malformed > 0 {
            match self.malformed.happened(outcome.malformed, now) {
                Say::First => {
                    warn!(self.log, "lines that are not of the text format are ignored"; "lines" => outcome.malformed)
                }
                Say::Again(episode) => warn!(self.log, "lines that are not of the text format are ignored";
                    "lines" => episode.count, "for_seconds" => episode.seconds()),
                Say::Nothing => {}
            }
        }
    }
}
