//! Scraped services: their metrics in Prometheus' text format, fetched by a task for each, at each interval but at most
//! once a second.
//!
//! A scrape is begun by a tick, late enough to be fresh for the next one, which takes what it found; the next scrape begins
//! only then, so that none is reported twice or not at all, whatever a target's latency is. A target that does not answer,
//! or answers with something else, is not reported, and its `silent` alert does the rest.

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
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::transport::Uri;

use super::{Round, Source};
use crate::mapping::{Mapping, Names};
pub use fetch::Room;
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

/// When a target is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// At every how many ticks.
    every: u32,
    /// How long after such a tick: as late as leaves time for an answer, which is then fresh for the next one.
    delay: Duration,
    /// How long an answer may take.
    pub(crate) wait: Duration,
}

impl Pace {
    pub(crate) fn at(tick: Duration) -> Self {
        let every = SHORTEST_PERIOD.as_micros().div_ceil(tick.as_micros().max(1)) as u32;
        let period = tick * every.max(1);
        // Something is left of the period for what comes before and after.
        let wait = LONGEST_WAIT.min(period * 9 / 10);
        Self { every: every.max(1), delay: (period - wait) - period / 20, wait }
    }
}

/// The source: one target.
#[derive(Debug)]
pub struct Scrape {
    target: Target,
    found: Arc<Mutex<Found>>,
    pace: Pace,
    n_ticks: u32,
    due: Arc<Notify>,
    task: JoinHandle<()>,
}

/// What the task has for the next tick.
#[derive(Debug, Default)]
struct Found {
    metrics: Option<Vec<Metric>>,
    /// Whether it answered when it was asked last.
    is_there: bool,
    /// What figures are called from the next scrape on.
    names: Option<Names>,
}

impl Scrape {
    /// Begins to scrape, inside a tokio runtime. All of them share the room.
    pub fn new(target: Target, tick: Duration, mapping: &Mapping, room: &Room, log: &Logger) -> Self {
        let found = Arc::<Mutex<Found>>::default();
        let pace = Pace::at(tick);
        let scraper = Scraper {
            url: target.url.clone(),
            names: mapping.of(&target.service),
            pace,
            room: room.clone(),
            expected: 0,
            memory: Memory::default(),
            scraped: None,
            failing: Trouble::default(),
            malformed: Trouble::default(),
            was_beyond: false,
            log: log.new(o!("url" => target.url.to_string(), "target" => target.service.clone(), "source" => "scrape")),
        };
        let due = Arc::<Notify>::default();
        let task = tokio::spawn(scraper.run(Arc::clone(&found), Arc::clone(&due)));
        Self { target, found, pace, n_ticks: 0, due, task }
    }
}

impl Source for Scrape {
    fn read(&mut self, round: &mut Round) {
        if let Some(metrics) = lock(&self.found).metrics.take() {
            round.add(&self.target.service, &self.target.instance, metrics);
        }
        if self.n_ticks.is_multiple_of(self.pace.every) {
            self.due.notify_one();
        }
        self.n_ticks = self.n_ticks.wrapping_add(1);
    }

    fn leave(&mut self, round: &mut Round) {
        let mut found = lock(&self.found);
        if found.is_there {
            round.add(&self.target.service, &self.target.instance, found.metrics.take().unwrap_or_default());
        }
    }

    fn remap(&mut self, mapping: &Mapping) {
        lock(&self.found).names = Some(mapping.of(&self.target.service));
    }
}

impl Drop for Scrape {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How many samples this target has to give.
pub(crate) async fn n_samples(target: &Target) -> Result<usize, fetch::Error> {
    let body = fetch::fetch(&target.url, &Room::default(), &mut 0).await?;
    Ok(samples(&body.text).count())
}

/// The lines that are samples.
fn samples(body: &[u8]) -> impl Iterator<Item = &str> {
    let lines = body.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.filter(|line| matches!(text::parse(line), Ok(Some(text::Line::Sample(_)))))
}

fn lock(found: &Mutex<Found>) -> MutexGuard<'_, Found> {
    found.lock().expect("nothing panics while it holds this lock")
}

struct Scraper {
    url: Uri,
    names: Names,
    pace: Pace,
    room: Room,
    /// How large the answer is expected to be.
    expected: usize,
    memory: Memory,
    /// The last time that it answered.
    scraped: Option<Instant>,
    failing: Trouble,
    malformed: Trouble,
    was_beyond: bool,
    log: Logger,
}

impl Scraper {
    async fn run(mut self, found: Arc<Mutex<Found>>, due: Arc<Notify>) {
        loop {
            let metrics = self.scrape().await;
            {
                let mut found = lock(&found);
                found.is_there = metrics.is_some();
                if metrics.is_some() {
                    found.metrics = metrics;
                }
            }
            due.notified().await;
            // A tick that came before this answer has not taken it.
            while lock(&found).metrics.is_some() {
                due.notified().await;
            }
            sleep(self.pace.delay).await;
            let names = lock(&found).names.take();
            if let Some(names) = names.filter(|names| *names != self.names) {
                // What was left out is not known: all begins anew.
                (self.names, self.memory, self.scraped, self.was_beyond) = (names, Memory::default(), None, false);
            }
        }
    }

    async fn scrape(&mut self) -> Option<Vec<Metric>> {
        let fetched = timeout(self.pace.wait, fetch::fetch(&self.url, &self.room, &mut self.expected)).await;
        let now = Instant::now();
        let error = match fetched {
            // A page to log in at, or nothing at all: something answers, and it is not the service.
            Ok(Ok(body)) if samples(&body.text).next().is_none() => {
                "its answer has no metric in Prometheus' text format: is the path right, and does it ask who one is?"
                    .to_owned()
            }
            Ok(Ok(body)) => {
                let elapsed = self.scraped.replace(now).map(|before| now - before);
                let outcome = Reading::new(&mut self.memory, &self.names).body(&body.text).end(elapsed);
                self.note(&outcome, now);
                return Some(outcome.metrics);
            }
            Ok(Err(err)) => chain(&err),
            Err(_) => format!("no answer within {:?}", self.pace.wait),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_ends_before_the_tick_that_takes_it_and_not_long_before() {
        let pace = |ms| Pace::at(Duration::from_millis(ms));
        let ms = Duration::from_millis;
        assert_eq!(pace(10), Pace { every: 100, delay: ms(50), wait: ms(900) });
        assert_eq!(pace(300), Pace { every: 4, delay: ms(60), wait: ms(1_080) });
        assert_eq!(pace(1_000), Pace { every: 1, delay: ms(50), wait: ms(900) });
        assert_eq!(pace(60_000), Pace { every: 1, delay: ms(47_000), wait: ms(10_000) });
    }
}
