//! Reports, said in few words.

use std::time::{SystemTime, UNIX_EPOCH};

use gopherwatch_proto::v1::{Metric, MetricReport};

/// A report of `service` with one reading.
pub(crate) fn report(service: &str, metric: &str, value: f64) -> MetricReport {
    MetricReport {
        service_name: service.to_owned(),
        metrics: vec![Metric { name: metric.to_owned(), value }],
        ..MetricReport::default()
    }
}

/// A report of `service` with its CPU; more than 90 is a breach of the built-in rule.
pub(crate) fn cpu(service: &str, percent: f64) -> MetricReport {
    report(service, "cpu_percent", percent)
}

/// What else a report may say.
pub(crate) trait Says: Sized {
    fn numbered(self, sequence: u64) -> Self;
    fn of(self, instance: &str) -> Self;
    fn at(self, unix_nanos: u64) -> Self;
    fn leaving(self) -> Self;
}

impl Says for MetricReport {
    fn numbered(self, sequence: u64) -> Self {
        Self { sequence, ..self }
    }

    fn of(self, instance: &str) -> Self {
        Self { instance: instance.to_owned(), ..self }
    }

    fn at(self, unix_nanos: u64) -> Self {
        Self { time_unix_nano: unix_nanos, ..self }
    }

    fn leaving(self) -> Self {
        Self { leaving: true, ..self }
    }
}

/// Now, in whole microseconds: what the database keeps of a time.
pub(crate) fn now_nanos() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_micros()).unwrap() * 1_000
}

/// A reproducible source of numbers (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// True once in `n` throws.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.throw().is_multiple_of(n)
    }

    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
