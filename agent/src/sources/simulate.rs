//! An invented fleet: N services with daily curves, growing counters and an occasional breach.
//!
//! Which service does what when follows from its number and the simulated time alone, so that a demo looks the same
//! each time. Days pass [`Fleet`]'s `speed` times faster than real ones.

use std::f64::consts::TAU;
use std::time::{Duration, Instant};

use gopherwatch_proto::v1::Metric;

use super::{Round, Source};

const DAY: f64 = 86_400.0;
const HOUR: f64 = 3_600.0;

/// A service has at most one breach a shift: at 720 times real speed a shift is 40 s.
const SHIFT: f64 = 8.0 * HOUR;
/// One shift in four has a CPU breach.
const CPU_BREACH: f64 = 0.25;
/// Memory breaches are rare.
const MEMORY_BREACH: f64 = 0.03;
/// The first service breaches an hour after the start, 5 s at 720 times real speed: a demo must not keep one waiting.
const FIRST_BREACH: Breach = Breach { from: HOUR, until: 3.5 * HOUR };

#[rustfmt::skip]
const NAMES: [&str; 40] = [
    "checkout", "payments", "search", "cart", "catalog", "inventory", "shipping", "pricing", "recommendations", "auth",
    "accounts", "sessions", "gateway", "web", "mobile-api", "notifications", "email", "billing", "invoices", "ledger",
    "fraud", "reviews", "ratings", "media", "thumbnails", "uploads", "orders", "returns", "warehouse", "tracking",
    "geocoder", "maps", "feed", "chat", "presence", "scheduler", "reports", "exports", "webhooks", "audit",
];

/// The services and their counters.
#[derive(Debug)]
pub struct Fleet {
    services: Vec<Service>,
    speed: f64,
    /// The instance that each of them is.
    instance: String,
    began: Instant,
    /// After the beginning.
    read_at: Duration,
}

#[derive(Debug)]
struct Service {
    idx: u64,
    name: String,
    request_count: f64,
    error_count: f64,
}

/// Simulated seconds since the shift began.
#[derive(Debug, Clone, Copy)]
struct Breach {
    from: f64,
    until: f64,
}

/// What a service shows at one time.
#[derive(Debug, Clone, Copy)]
struct Figures {
    cpu_percent: f64,
    memory_percent: f64,
    /// Per second.
    request_rate: f64,
    /// Per second.
    error_rate: f64,
}

impl Fleet {
    /// `n_services` services whose days pass `speed` times faster than real ones.
    pub fn new(n_services: u32, speed: f64, instance: String) -> Self {
        let service = |idx: u64| Service { idx, name: name(idx), request_count: 0.0, error_count: 0.0 };
        let services = (0..u64::from(n_services)).map(service).collect();
        Self { services, speed, instance, began: Instant::now(), read_at: Duration::ZERO }
    }

    /// Hands each service's name and readings, `elapsed` after the start, to `each`.
    fn read_at(&mut self, elapsed: Duration, mut each: impl FnMut(&str, Vec<Metric>)) {
        let step = elapsed.saturating_sub(self.read_at).as_secs_f64();
        self.read_at = elapsed;
        let time = elapsed.as_secs_f64() * self.speed;
        for service in &mut self.services {
            let figures = figures(service.idx, time, elapsed);
            service.request_count += figures.request_rate * step;
            service.error_count += figures.error_rate * step;
            let metric = |name: &str, value: f64| Metric { name: name.into(), value };
            let metrics = vec![
                metric("cpu_percent", rounded(figures.cpu_percent)),
                metric("memory_percent", rounded(figures.memory_percent)),
                metric("request_count", service.request_count.floor()),
                metric("request_rate", rounded(figures.request_rate)),
                metric("error_count", service.error_count.floor()),
                metric("error_rate", rounded(figures.error_rate)),
            ];
            each(&service.name, metrics);
        }
    }
}

impl Source for Fleet {
    fn read(&mut self, round: &mut Round) {
        let instance = self.instance.clone();
        self.read_at(self.began.elapsed(), |service, metrics| round.add(service, &instance, metrics));
    }
}

fn name(idx: u64) -> String {
    let n_names = NAMES.len() as u64;
    let base = NAMES[(idx % n_names) as usize];
    match idx / n_names {
        0 => base.to_owned(),
        round => format!("{base}-{}", round + 1),
    }
}

fn figures(idx: u64, time: f64, elapsed: Duration) -> Figures {
    let of = |what: &str| chance(idx, 0, what);
    let noise = |what: &str| chance(idx, elapsed.as_millis() as u64, what) - 0.5;
    // 0 in the small hours, 1 in the afternoon; each service's users are elsewhere.
    let day = 0.5 - 0.5 * (TAU * (time / DAY + of("phase"))).cos();

    let capacity = 20.0 * 100_f64.powf(of("size"));
    let request_rate = capacity * (0.15 + 0.85 * day) * (1.0 + 0.2 * noise("requests"));
    let mut error_share = 0.002 * (1.0 + noise("errors"));
    let mut cpu_percent = 12.0 + 18.0 * of("cpu") + 42.0 * day + 8.0 * noise("cpu");
    let mut memory_percent = 30.0 + 25.0 * of("memory") + 14.0 * day + 2.0 * noise("memory");
    if is_breaching(idx, time, "cpu breach", CPU_BREACH) {
        cpu_percent = 95.5 + 7.0 * noise("cpu");
        error_share = 0.05 * (1.0 + noise("errors"));
    }
    if is_breaching(idx, time, "memory breach", MEMORY_BREACH) {
        memory_percent = 87.0 + 6.0 * noise("memory");
    }
    Figures { cpu_percent, memory_percent, request_rate, error_rate: request_rate * error_share }
}

fn is_breaching(idx: u64, time: f64, what: &str, share: f64) -> bool {
    let shift = (time / SHIFT).floor();
    let breach = match (idx, shift as u64, what) {
        (0, 0, "cpu breach") => FIRST_BREACH,
        (_, shift, _) if chance(idx, shift, what) < share => {
            // It ends an hour before the shift does, so that it resolves before the next one.
            let from = HOUR + 3.0 * HOUR * chance(idx, shift, "from");
            Breach { from, until: from + HOUR + 2.0 * HOUR * chance(idx, shift, "length") }
        }
        _ => return false,
    };
    (breach.from..breach.until).contains(&(time - shift * SHIFT))
}

/// A number in 0..1 that looks random and is always the same for the same arguments (FNV-1a, then SplitMix64's mixer).
fn chance(idx: u64, when: u64, what: &str) -> f64 {
    let hash = what.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut x = hash ^ idx.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ when.wrapping_mul(0xd1b5_4a32_d192_ed03);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Two decimals: as much as a reader of a dashboard believes.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    const DEMO: f64 = 720.0;

    /// The values of `metric` by service, one a second.
    fn run(n_services: u32, seconds: u64, metric: &str) -> BTreeMap<String, Vec<f64>> {
        let mut fleet = Fleet::new(n_services, DEMO, "a".to_owned());
        let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for second in 0..seconds {
            fleet.read_at(Duration::from_secs(second), |service, metrics| {
                let value = metrics.iter().find(|m| m.name == metric).expect(metric).value;
                values.entry(service.to_owned()).or_default().push(value);
            });
        }
        values
    }

    #[test]
    fn ten_thousand_services_have_names_of_their_own() {
        let names: HashSet<String> = (0..10_000).map(name).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| gopherwatch_proto::is_valid_name(name)));
        assert!(names.contains("checkout") && names.contains("search-3"));
    }

    #[test]
    fn a_demo_sees_a_cpu_breach_within_ten_seconds_and_its_end_soon_after() {
        let cpu = &run(1, 40, "cpu_percent")["checkout"];
        assert!(cpu[0] < 90.0, "not from the start: {cpu:?}");
        assert!(cpu[..10].iter().any(|&value| value > 90.0), "{cpu:?}");
        assert!(cpu[25..].iter().all(|&value| value < 80.0), "{cpu:?}");
    }

    #[test]
    fn breaches_are_occasional_and_memory_breaches_rare() {
        let share = |metric: &str, limit: f64| {
            let values: Vec<f64> = run(200, 240, metric).into_values().flatten().collect();
            values.iter().filter(|&&value| value > limit).count() as f64 / values.len() as f64
        };
        let cpu = share("cpu_percent", 90.0);
        let memory = share("memory_percent", 80.0);
        assert!((0.01..0.15).contains(&cpu), "{cpu}");
        assert!((0.001..0.02).contains(&memory), "{memory}");
    }

    #[test]
    fn figures_stay_plausible_and_counters_only_grow() {
        for metric in ["cpu_percent", "memory_percent"] {
            for values in run(50, 240, metric).into_values() {
                assert!(values.iter().all(|value| (0.0..=100.0).contains(value)), "{metric}: {values:?}");
            }
        }
        for metric in ["request_count", "error_count"] {
            for values in run(50, 240, metric).into_values() {
                assert_eq!(values[0], 0.0);
                assert!(values.is_sorted(), "{metric}: {values:?}");
                assert!(values[239] > 0.0, "{metric}");
            }
        }
    }

    #[test]
    fn a_day_rises_and_falls() {
        let rates = &run(1, 120, "request_rate")["checkout"];
        let (low, high) = rates.iter().fold((f64::MAX, 0_f64), |(low, high), &rate| (low.min(rate), high.max(rate)));
        assert!(high > 4.0 * low, "{low} to {high}");
    }
}
