//! Where log lines go: standard error, as JSON or, on a terminal, as text.
//!
//! Lines are written by a thread of their own; the guard that [`build`] returns flushes them when it is dropped after
//! the last logger.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use slog::{Drain, FnValue, LevelFilter, Logger, PushFnValue, o};
use slog_async::{Async, AsyncGuard, OverflowStrategy};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The least severe level that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Level {
    Critical,
    Error,
    #[value(alias = "warn")]
    Warning,
    Info,
    Debug,
    Trace,
}

/// What [`build`] needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// None: text on a terminal, JSON otherwise.
    pub format: Option<Format>,
    /// The least severe level.
    pub level: Level,
}

/// The root logger, and the guard that flushes it.
pub fn build(options: &Options) -> (Logger, AsyncGuard) {
    let by_terminal = || if io::stderr().is_terminal() { Format::Text } else { Format::Json };
    let (drain, guard) = match options.format.unwrap_or_else(by_terminal) {
        Format::Json => background(json()),
        Format::Text => {
            let decorator = slog_term::TermDecorator::new().stderr().build();
            let now = |line: &mut dyn io::Write| write!(line, "{:.6}", jiff::Timestamp::now());
            background(slog_term::FullFormat::new(decorator).use_original_order().use_custom_timestamp(now).build())
        }
    };
    let level = match options.level {
        Level::Critical => slog::Level::Critical,
        Level::Error => slog::Level::Error,
        Level::Warning => slog::Level::Warning,
        Level::Info => slog::Level::Info,
        Level::Debug => slog::Level::Debug,
        Level::Trace => slog::Level::Trace,
    };
    (Logger::root(LevelFilter::new(drain, level).fuse(), o!()), guard)
}

fn json() -> slog_json::Json<io::Stderr> {
    slog_json::Json::new(io::stderr())
        .add_key_value(o!(
            "message" => PushFnValue(|record, ser| ser.emit(record.msg())),
            // slog-json's own default would print "WARN" and "CRIT".
            "level" => FnValue(|record| record.level().as_str()),
            "time" => FnValue(|_| format!("{:.6}", jiff::Timestamp::now())),
        ))
        .build()
}

fn background<D>(drain: D) -> (slog::Fuse<Async>, AsyncGuard)
where
    D: Drain<Ok = (), Err = io::Error> + Send + 'static,
{
    // The queue is allocated whole: an agent says little, and its memory is meant to be small. A standard error that
    // is not read must not stop the agent, so a line is dropped, and counted, rather than waited for.
    let (drain, guard) = Async::new(drain.ignore_res())
        .chan_size(256)
        .overflow_strategy(OverflowStrategy::DropAndReport)
        .build_with_guard();
    (drain.fuse(), guard)
}
