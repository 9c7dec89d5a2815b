//! Log lines: JSON or text on standard error.
//!
//! Ordinary lines go through a bounded queue that drops, and counts, what a slow reader does not take. Alert lines do
//! not: their sink writes them itself and waits ([`AlertLog`]). Both write whole lines, so that they never mix.

use std::{
    error::Error,
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex},
};

use slog::{
    Drain, FnValue, KV, Level, LevelFilter, Logger, Never, PushFnValue, Record, SendSyncRefUnwindSafeDrain, Serializer,
    o,
};
use slog_async::{Async, AsyncGuard, OverflowStrategy};

use crate::model::{Alert, Event, EventKind, Severity, Timestamp};

/// Ordinary lines that may wait for a slow reader.
const QUEUE_LINES: usize = 4_096;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Format {
    /// Text for a person at a terminal, JSON for everything else.
    pub fn fitting() -> Self {
        if io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// A logger whose lines wait in a queue; drop the logger's clones and then the guard to write out what waits.
pub fn queued(format: Format, level: Level) -> (Logger, AsyncGuard) {
    let drain = LevelFilter::new(drain(format), level).fuse();
    let queue = Async::new(drain).chan_size(QUEUE_LINES).overflow_strategy(OverflowStrategy::DropAndReport);
    let (queue, guard) = queue.build_with_guard();
    (Logger::root(queue.fuse(), o!()), guard)
}

/// Writes the lines of alerts, each before it returns.
#[derive(Debug)]
pub struct AlertLog {
    log: Logger,
}

impl AlertLog {
    /// Writes in this format, whatever the level of ordinary lines.
    pub fn new(format: Format) -> Self {
        // A failed write is ignored: the reader is gone for good, and the alert is in the journal and the store.
        Self { log: Logger::root(drain(format), o!()) }
    }

    /// Whether an event of this kind has a line. Rows of `record = "every"` have none: they are readings of an alert that
    /// has its line. Nor have rows restated for the store.
    pub fn has_line(kind: EventKind) -> bool {
        !matches!(kind, EventKind::Record | EventKind::Restate)
    }

    /// Writes the line of one event, if it has one: a raise, or that it still fires, at its severity's level, a resolve as
    /// information.
    pub fn write(&self, event: &Event) {
        let alert = &*event.alert;
        match (event.kind, alert.severity) {
            (EventKind::Record | EventKind::Restate, _) => {}
            (EventKind::Raise, Severity::Critical) => slog::crit!(self.log, "alert raised"; Facts(alert)),
            (EventKind::Raise, Severity::Warning) => slog::warn!(self.log, "alert raised"; Facts(alert)),
            (EventKind::Raise, Severity::Info) => slog::info!(self.log, "alert raised"; Facts(alert)),
            (EventKind::Repeat, Severity::Critical) => slog::crit!(self.log, "alert still fires"; Facts(alert)),
            (EventKind::Repeat, Severity::Warning) => slog::warn!(self.log, "alert still fires"; Facts(alert)),
            (EventKind::Repeat, Severity::Info) => slog::info!(self.log, "alert still fires"; Facts(alert)),
            (EventKind::Update, _) => slog::info!(self.log, "alert updated"; Facts(alert)),
            (EventKind::Resolve, _) => slog::info!(self.log, "alert resolved"; Facts(alert)),
        }
    }
}

/// Every fact of an alert as a key of its own.
struct Facts<'a>(&'a Alert);

impl KV for Facts<'_> {
    fn serialize(&self, _: &Record<'_>, s: &mut dyn Serializer) -> slog::Result {
        let alert = self.0;
        // Last first, as slog hands over keys: the text format turns them round.
        if !alert.labels.is_empty() {
            let labels: Vec<String> = alert.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            s.emit_str("labels", &labels.join(","))?;
        }
        if let (Some(at), Some(why)) = (alert.resolved_at, alert.resolve_reason) {
            s.emit_f64("last_value", alert.last_value)?;
            s.emit_str("resolve_reason", why.as_str())?;
            s.emit_arguments("resolved_at", &format_args!("{at}"))?;
        }
        if alert.late {
            s.emit_bool("late", true)?;
        }
        s.emit_arguments("received_at", &format_args!("{}", alert.received_at))?;
        s.emit_arguments("triggered_at", &format_args!("{}", alert.triggered_at))?;
        s.emit_str("summary", &alert.summary)?;
        if let Some(threshold) = alert.threshold {
            s.emit_f64("threshold", threshold)?;
        }
        s.emit_f64("value", alert.value)?;
        s.emit_str("metric", &alert.metric)?;
        s.emit_str("severity", alert.severity.as_str())?;
        s.emit_str("rule", &alert.rule)?;
        s.emit_str("instance", alert.key.instance())?;
        s.emit_str("service", alert.key.service())?;
        s.emit_arguments("alert_id", &format_args!("{}", alert.alert_id))
    }
}

/// An error and everything that caused it, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing into a String cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// Lines of one format on standard error, each written at once.
fn drain(format: Format) -> Arc<dyn SendSyncRefUnwindSafeDrain<Ok = (), Err = Never>> {
    let out = WholeLines { line: Vec::new() };
    match format {
        Format::Json => {
            let keys = o!(
                "time" => PushFnValue(|_, out| out.emit(format_args!("{}", Timestamp::now()))),
                "level" => FnValue(|record: &Record<'_>| record.level().as_str()),
                "message" => PushFnValue(|record, out| out.emit(record.msg())),
            );
            Arc::new(Mutex::new(slog_json::Json::new(out).add_key_value(keys).build()).ignore_res())
        }
        Format::Text => {
            let lines = slog_term::PlainSyncDecorator::new(out);
            Arc::new(
                slog_term::FullFormat::new(lines)
                    .use_original_order()
                    .use_custom_header_print(header)
                    .build()
                    .ignore_res(),
            )
        }
    }
}

/// The head of a line of text: time, the level's whole word, message.
fn header(
    _: &dyn slog_term::ThreadSafeTimestampFn<Output = io::Result<()>>,
    line: &mut dyn slog_term::RecordDecorator,
    record: &Record<'_>,
    _: bool,
) -> io::Result<bool> {
    line.start_timestamp()?;
    write!(line, "{}", Timestamp::now())?;
    line.start_whitespace()?;
    write!(line, " ")?;
    line.start_level()?;
    write!(line, "{:<8}", record.level().as_str())?;
    line.start_whitespace()?;
    write!(line, " ")?;
    line.start_msg()?;
    write!(line, "{}", record.msg())?;
    Ok(true)
}

/// Gathers a line and writes it at once: two threads that log never mix their lines.
struct WholeLines {
    line: Vec<u8>,
}

impl Write for WholeLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") {
            let mut line = std::mem::take(&mut self.line);
            // A line break or an escape sequence in a name or a summary must not make a line of its own, or colour it.
            let n_bytes = line.len() - 1;
            line[..n_bytes].iter_mut().filter(|byte| byte.is_ascii_control()).for_each(|byte| *byte = b' ');
            io::stderr().lock().write_all(&line)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
