//! An event as its record, written straight from what it is of.
//!
//! prost would have every name and list copied into a message first, for each event of a storm. The messages in `alert` read
//! these records back, and say what the fields are; a test holds both forms against each other.

use crate::model::{Alert, Event, EvidencePoint, LifeEvent, Timestamp};

/// Most records are shorter: they are made without growing.
const USUAL_BYTES: usize = 512;

const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const LENGTH: u32 = 2;

/// The record of an event, without its seal.
pub(in crate::journal) fn encode_event(event: &Event) -> Vec<u8> {
    let mut out = Out(Vec::with_capacity(USUAL_BYTES));
    out.text(1, event.kind.as_str());
    out.message(2, |out| alert(out, &event.alert));
    out.0
}

fn alert(out: &mut Out, alert: &Alert) {
    out.bytes(1, alert.alert_id.as_bytes());
    out.bytes(2, alert.episode_id.as_bytes());
    out.text(3, alert.key.service());
    out.text(4, alert.key.instance());
    out.text(5, &alert.rule);
    out.text(6, &alert.metric);
    out.double(7, alert.value);
    out.some(8, alert.threshold, Out::some_double);
    out.text(9, alert.severity.as_str());
    for (name, value) in &*alert.labels {
        out.message(10, |out| {
            out.text(1, name);
            out.text(2, value);
        });
    }
    out.text(11, &alert.summary);
    if let Some(evidence) = &alert.evidence {
        out.message(12, |out| {
            out.text(1, &evidence.when);
            evidence.points.iter().for_each(|point| out.message(2, |out| reading(out, point)));
        });
    }
    alert.life.iter().for_each(|event| out.message(13, |out| life(out, event)));
    out.number(14, u64::from(alert.late));
    out.time(15, alert.triggered_at);
    out.time(16, alert.received_at);
    out.some(17, alert.resolved_at, Out::some_time);
    out.some(18, alert.resolve_reason.map(|why| why.as_str().as_bytes()), Out::bytes);
    out.double(19, alert.last_value);
    out.number(20, u64::from(alert.version));
    out.some(21, alert.runbook_url.as_deref().map(str::as_bytes), Out::bytes);
    if let Some(names) = &alert.receivers {
        out.message(22, |out| names.iter().for_each(|name| out.bytes(1, name.as_bytes())));
    }
}

fn reading(out: &mut Out, point: &EvidencePoint) {
    out.time(1, point.at);
    out.double(2, point.value);
}

fn life(out: &mut Out, event: &LifeEvent) {
    out.text(1, event.kind.as_str());
    out.time(2, event.at);
    out.some(3, event.by.as_deref().map(str::as_bytes), Out::bytes);
    out.some(4, event.value, Out::some_double);
}

/// A message that grows, each field behind its tag. Plain fields are left out where they hold what their absence says.
struct Out(Vec<u8>);

impl Out {
    fn some<T>(&mut self, tag: u32, value: Option<T>, write: impl FnOnce(&mut Self, u32, T)) {
        if let Some(value) = value {
            write(self, tag, value);
        }
    }

    fn text(&mut self, tag: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(tag, text.as_bytes());
        }
    }

    fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        self.key(tag, LENGTH);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn number(&mut self, tag: u32, number: u64) {
        if number != 0 {
            self.key(tag, VARINT);
            self.varint(number);
        }
    }

    fn double(&mut self, tag: u32, value: f64) {
        if value != 0.0 {
            self.some_double(tag, value);
        }
    }

    fn some_double(&mut self, tag: u32, value: f64) {
        self.key(tag, FIXED_64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn time(&mut self, tag: u32, time: Timestamp) {
        if time.as_nanos() != 0 {
            self.some_time(tag, time);
        }
    }

    fn some_time(&mut self, tag: u32, time: Timestamp) {
        self.key(tag, FIXED_64);
        self.0.extend_from_slice(&time.as_nanos().to_le_bytes());
    }

    /// A message within this one. Its length stands before it and is known behind it: one byte is kept free, and where that
    /// is too little the message is moved.
    fn message(&mut self, tag: u32, write: impl FnOnce(&mut Self)) {
        self.key(tag, LENGTH);
        let at = self.0.len();
        self.0.push(0);
        write(self);
        let n_bytes = self.0.len() - at - 1;
        if n_bytes <= 127 {
            self.0[at] = n_bytes as u8;
        } else {
            let mut length = Self(Vec::with_capacity(4));
            length.varint(n_bytes as u64);
            self.0.splice(at..=at, length.0);
        }
    }

    fn key(&mut self, tag: u32, kind: u32) {
        self.varint(u64::from(tag << 3 | kind));
    }

    fn varint(&mut self, mut number: u64) {
        while number > 127 {
            self.0.push(number as u8 | 128);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}
