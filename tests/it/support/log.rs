//! What a program writes on standard error, line by line, as it comes.

use std::{
    io::{BufRead, BufReader, Read},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;

/// The lines so far. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub(crate) struct LogLines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    lines: Mutex<Vec<String>>,
    paused: AtomicBool,
    reader: Mutex<Option<JoinHandle<()>>>,
}

impl LogLines {
    /// Reads `from` to its end, on a thread of its own.
    pub(crate) fn read(from: impl Read + Send + 'static) -> Self {
        let log = Self::default();
        let shared = log.0.clone();
        let reader = thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n') {
                while shared.paused.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(5));
                }
                let Ok(line) = line else { return };
                shared.lines.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        *log.0.reader.lock().unwrap() = Some(reader);
        log
    }

    /// Reads no further: the program's pipe fills, and it has to wait or to drop.
    pub(crate) fn pause(&self) {
        self.0.paused.store(true, Ordering::Relaxed);
    }

    /// Reads on.
    pub(crate) fn resume(&self) {
        self.0.paused.store(false, Ordering::Relaxed);
    }

    /// Waits for the end of a program that has ended.
    pub(crate) fn read_to_end(&self) {
        self.resume();
        if let Some(reader) = self.0.reader.lock().unwrap().take() {
            reader.join().unwrap();
        }
    }

    /// Every line.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lines.lock().unwrap().clone()
    }

    /// All of it.
    pub(crate) fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// The lines with this message, in JSON.
    pub(crate) fn with_message(&self, message: &str) -> Vec<Value> {
        let lines = self.0.lines.lock().unwrap();
        let values = lines.iter().filter(|line| line.contains(message));
        values.filter_map(|line| serde_json::from_str(line).ok()).filter(|v: &Value| v["message"] == message).collect()
    }
}
