//! The log as a sink: one line per raise and resolve, written before the cursor moves, however slow the reader is.

use std::{
    io,
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{Receiver, select};
use slog::{Logger, error};

use super::is_over;
use crate::{
    journal::{Reader, Recorded, SinkCursor},
    log::{AlertLog, chain},
};

/// Events read at once.
const BATCH: usize = 500;
/// How long to wait after the journal could not be read.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// Starts the thread. It ends when `stop` is disconnected and every event in the journal has its line.
pub fn start(
    lines: AlertLog,
    reader: Reader,
    cursor: SinkCursor,
    stop: Receiver<()>,
    log: &Logger,
) -> io::Result<JoinHandle<()>> {
    let log = log.new(slog::o!("thread" => "deliver-log"));
    thread::Builder::new().name("deliver-log".to_owned()).spawn(move || run(&lines, &reader, &cursor, &stop, &log))
}

fn run(lines: &AlertLog, reader: &Reader, cursor: &SinkCursor, stop: &Receiver<()>, log: &Logger) {
    loop {
        // Asked before reading: what was committed before the stop is then in what is read.
        let last_look = is_over(stop);
        let after = cursor.position();
        match reader.read_only(after, BATCH, AlertLog::has_line) {
            Ok((_, last)) if last == after && last_look => return,
            Ok((_, last)) if last == after => select! {
                recv(cursor.doorbell()) -> _ => {}
                recv(stop) -> _ => {}
            },
            Ok((events, last)) => {
                for Recorded { seq, event, .. } in events {
                    match event {
                        Ok(event) => lines.write(&event),
                        Err(err) => error!(log, "an alert line is lost: its event in the journal is damaged";
                            "seq" => seq, "error" => chain(&err)),
                    }
                    cursor.advance(seq);
                }
                cursor.advance(last);
            }
            Err(err) => {
                error!(log, "alert lines wait: the journal cannot be read"; "error" => chain(&err));
                if last_look {
                    return;
                }
                // Ends early when told to stop.
                let _ = stop.recv_timeout(RETRY_WAIT);
            }
        }
    }
}
