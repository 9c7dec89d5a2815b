//! Pre-encoded reports of a made-up fleet: service after service, round after round.
//!
//! Everything about a report follows from its service and round, so that a report sent again is the same but for its
//! time. Frames are made by copying: the generator must not be what a measurement measures.

use std::ops::Range;

/// What the fleet reports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FleetOptions {
    /// Services, of one instance each.
    pub(crate) n_services: usize,
    /// Metrics of each report.
    pub(crate) n_metrics: usize,
    /// Share of the reports that violate `cpu_percent > 90`, 0 to 1.
    pub(crate) violating: f64,
    /// Whether reports carry sequence numbers.
    pub(crate) numbered: bool,
    /// Whether the order of the metrics changes from report to report.
    pub(crate) shuffled: bool,
    /// Names of each service's own, which take turns behind the [`SHARED`] ones; 0: all services have the same names.
    pub(crate) n_own: usize,
}

impl FleetOptions {
    /// Names that one service reports in all.
    pub(crate) fn n_names(&self) -> usize {
        match self.n_own {
            0 => self.n_metrics,
            n_own => self.n_metrics.max(SHARED + n_own),
        }
    }
}

/// The first metrics of every report; more are called `metric_5` and so on.
const NAMES: [&str; 4] = ["cpu_percent", "memory_percent", "request_count", "disk_percent"];
/// Those of them that every report has also where services have names of their own: the built-in rules look at these.
const SHARED: usize = 2;
const HIGH_CPU: f64 = 97.5;
/// Orders of the metrics that are drawn from: all 24 of four metrics are among them.
const N_ORDERS: usize = 1024;

#[derive(Debug)]
struct Service {
    /// Fields 1 and 2: the service and its instance.
    head: Vec<u8>,
    /// Field 5, as often as there are names.
    metrics: Vec<u8>,
    /// Where each metric begins, and where the last one ends.
    starts: Vec<u16>,
}

impl Service {
    fn metric(&self, idx: usize) -> &[u8] {
        &self.metrics[usize::from(self.starts[idx])..usize::from(self.starts[idx + 1])]
    }
}

/// The reports that can be made.
#[derive(Debug)]
pub(crate) struct Fleet {
    options: FleetOptions,
    services: Vec<Service>,
    /// The first metric with too much load.
    high: Vec<u8>,
    /// [`N_ORDERS`] permutations of the metrics, one after the other.
    orders: Vec<u16>,
}

impl Fleet {
    pub(crate) fn new(options: FleetOptions) -> Self {
        let services = (0..options.n_services).map(|idx| service(idx, &options)).collect();
        let mut high = Vec::new();
        metric(NAMES[0], HIGH_CPU, &mut high);
        let orders = if options.shuffled { orders(options.n_metrics) } else { Vec::new() };
        Self { options, services, high, orders }
    }

    /// Whether the report of a service in a round violates.
    pub(crate) fn is_violating(&self, service: usize, round: u64) -> bool {
        let share = self.options.violating;
        // A hash of both, spread over 0 to 1.
        let mixed = mix(mix(service as u64) ^ round);
        share > 0.0 && (mixed >> 11) as f64 / (1_u64 << 53) as f64 <= share
    }

    /// Whether any report violates.
    pub(crate) fn has_violations(&self) -> bool {
        self.options.violating > 0.0
    }

    /// Whether the report of a service in a round begins an episode.
    pub(crate) fn is_raising(&self, service: usize, round: u64) -> bool {
        self.is_violating(service, round) && (round == 0 || !self.is_violating(service, round - 1))
    }

    /// Appends one report as gRPC frames it: five bytes of length, then the message.
    pub(crate) fn frame(&self, service: usize, round: u64, time_unix_nano: u64, out: &mut Vec<u8>) {
        let fleet = &self.services[service];
        let frame = out.len();
        out.extend_from_slice(&[0; 5]);
        out.extend_from_slice(&fleet.head);
        out.push(3 << 3 | 1);
        out.extend_from_slice(&time_unix_nano.to_le_bytes());
        if self.options.numbered {
            out.push(4 << 3);
            varint(sequence(round), out);
        }
        self.metrics(service, round, out);
        let n_bytes = u32::try_from(out.len() - frame - 5).expect("a report is small");
        out[frame + 1..frame + 5].copy_from_slice(&n_bytes.to_be_bytes());
    }

    fn metrics(&self, service: usize, round: u64, out: &mut Vec<u8>) {
        let is_violating = self.is_violating(service, round);
        let fleet = &self.services[service];
        let FleetOptions { n_metrics, n_own, shuffled, .. } = self.options;
        let mut put =
            |idx| out.extend_from_slice(if idx == 0 && is_violating { &self.high } else { fleet.metric(idx) });
        if !shuffled && n_own == 0 {
            put(0);
            out.extend_from_slice(&fleet.metrics[usize::from(fleet.starts[1])..]);
            return;
        }
        let turn = |place: usize| match n_own {
            0 => place,
            _ if place < SHARED => place,
            _ => SHARED + (round as usize * (n_metrics - SHARED) + place - SHARED) % n_own,
        };
        if shuffled {
            let first = mix(mix(service as u64) ^ round) as usize % N_ORDERS * n_metrics;
            self.orders[first..first + n_metrics].iter().for_each(|&place| put(turn(usize::from(place))));
        } else {
            (0..n_metrics).for_each(|place| put(turn(place)));
        }
    }
}

/// The number of a service's report in a round.
pub(crate) fn sequence(round: u64) -> u64 {
    round + 1
}

/// The reports of one stream, which has every `n_streams`-th service, so that an instance is on one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) stream_idx: usize,
    pub(crate) n_streams: usize,
    pub(crate) n_services: usize,
}

impl Part {
    fn n_own(self) -> u64 {
        self.n_services.saturating_sub(self.stream_idx).div_ceil(self.n_streams) as u64
    }

    /// Service and round of the report at `position` of the stream.
    pub(crate) fn report(self, position: u64) -> (usize, u64) {
        let n_own = self.n_own();
        let service = self.stream_idx + (position % n_own) as usize * self.n_streams;
        (service, position / n_own)
    }

    /// Appends the frames of these positions.
    pub(crate) fn frames(self, fleet: &Fleet, positions: Range<u64>, mut time_unix_nano: u64, out: &mut Vec<u8>) {
        let n_own = self.n_own();
        let (mut service, mut round) = self.report(positions.start);
        let past_last = self.stream_idx + n_own as usize * self.n_streams;
        for _ in positions {
            fleet.frame(service, round, time_unix_nano, out);
            time_unix_nano += 1;
            service += self.n_streams;
            if service == past_last {
                service = self.stream_idx;
                round += 1;
            }
        }
    }
}

fn service(idx: usize, options: &FleetOptions) -> Service {
    let mut head = Vec::new();
    text(1, &format!("service-{idx:05}"), &mut head);
    text(2, &format!("host-{:04}", idx % 10_000), &mut head);
    let (mut metrics, mut starts) = (Vec::new(), vec![0]);
    for metric_idx in 0..options.n_names() {
        let name = match NAMES.get(metric_idx) {
            _ if options.n_own > 0 && metric_idx >= SHARED => format!("own_{idx}_{metric_idx}"),
            Some(name) => (*name).to_owned(),
            None => format!("metric_{}", metric_idx + 1),
        };
        metric(&name, 10.0 + ((idx * 7 + metric_idx * 13) % 600) as f64 / 10.0, &mut metrics);
        starts.push(u16::try_from(metrics.len()).expect("256 metrics of 40 bytes at most"));
    }
    // A million services are held at once.
    metrics.shrink_to_fit();
    Service { head, metrics, starts }
}

/// Permutations, each as likely as any other (Fisher and Yates).
fn orders(n_metrics: usize) -> Vec<u16> {
    let mut orders = Vec::new();
    for order_idx in 0..N_ORDERS {
        let mut order: Vec<u16> = (0..).take(n_metrics).collect();
        for last in (1..n_metrics).rev() {
            order.swap(last, mix((order_idx << 16 | last) as u64) as usize % (last + 1));
        }
        orders.extend(order);
    }
    orders
}

fn metric(name: &str, value: f64, out: &mut Vec<u8>) {
    let mut message = Vec::new();
    text(1, name, &mut message);
    message.push(2 << 3 | 1);
    message.extend_from_slice(&value.to_le_bytes());
    out.push(5 << 3 | 2);
    varint(message.len() as u64, out);
    out.extend_from_slice(&message);
}

fn text(field: u8, text: &str, out: &mut Vec<u8>) {
    out.push(field << 3 | 2);
    varint(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// SplitMix64's finaliser.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
