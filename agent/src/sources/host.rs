//! This host's figures under the well-known metric names, most of them through sysinfo.
//!
//! Only what is reported is refreshed, and what is dear to read only as often as it is news: the agent is meant to cost
//! a host next to nothing. In a container with limits CPU and memory are of those.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use gopherwatch_proto::v1::Metric;
use sysinfo::{MINIMUM_CPU_UPDATE_INTERVAL, MemoryRefreshKind, System};

use super::container::{Container, Memory};
use super::disk::Storage;
use super::network::Network;
use super::{Round, Source, percent};

/// How long after [`Host::new`] the first reading has a CPU figure.
pub const WARM_UP: Duration = Duration::from_millis(250);

/// How often processes are counted: on a host with thousands of them that costs more than all else.
const RECOUNT: Duration = Duration::from_secs(5);

/// This host.
#[derive(Debug)]
pub struct Host {
    service: String,
    instance: String,
    system: System,
    storage: Storage,
    network: Network,
    container: Container,
    cpu: Cpu,
    processes: Count,
}

/// CPU use is what happened between two samples; sysinfo needs them [`MINIMUM_CPU_UPDATE_INTERVAL`] apart.
#[derive(Debug)]
struct Cpu {
    sampled: Instant,
    percent: Option<f64>,
}

/// How many processes there were.
#[derive(Debug)]
struct Count {
    counted: Instant,
    n_processes: Option<usize>,
}

impl Host {
    /// Takes the first CPU sample, from which the readings count. Service and instance are valid names.
    ///
    /// # Errors
    /// The system's figures cannot be read at all.
    pub fn new(service: String, instance: String) -> Result<Self, sysinfo::Error> {
        let mut system = System::new()?;
        system.refresh_cpu_usage();
        Ok(Self {
            service,
            instance,
            system,
            storage: Storage::new()?,
            network: Network::new()?,
            container: Container::new("/proc".into()),
            cpu: Cpu { sampled: Instant::now(), percent: None },
            processes: Count::new(),
        })
    }

    /// The figures of now. Those that this host does not have are left out.
    fn figures(&mut self) -> Vec<Metric> {
        self.refresh();
        let mut metrics = Vec::with_capacity(14);
        let mut add = |name: &str, value: f64| {
            if value.is_finite() {
                metrics.push(Metric { name: name.into(), value });
            }
        };
        if let Some(percent) = self.cpu.percent {
            add("cpu_percent", percent);
        }
        let system = &self.system;
        if let Some(Memory { used, limit }) = self.container.memory(system.total_memory() as f64) {
            add("memory_percent", (used / limit * 100.0).min(100.0));
            add("memory_used_bytes", used);
        } else {
            add("memory_percent", percent(system.used_memory(), system.total_memory()));
            add("memory_used_bytes", system.used_memory() as f64);
        }
        add("swap_percent", percent(system.used_swap(), system.total_swap()));
        if let Some(percent) = self.storage.fullest_percent() {
            add("disk_percent", percent);
        }
        if let Some(carried) = self.storage.carried() {
            add("disk_read_bytes", carried.read_bytes as f64);
            add("disk_write_bytes", carried.written_bytes as f64);
        }
        if let Some(network) = self.network.bytes() {
            add("network_rx_bytes", network.received as f64);
            add("network_tx_bytes", network.transmitted as f64);
        }
        if let Ok(load) = System::load_average() {
            add("load_1m", load.one);
            add("load_5m", load.five);
            add("load_15m", load.fifteen);
        }
        if let Some(n_processes) = self.processes.n_processes {
            add("processes", n_processes as f64);
        }
        if let Ok(seconds) = System::uptime() {
            add("uptime_seconds", seconds as f64);
        }
        metrics
    }

    fn refresh(&mut self) {
        self.container.refresh();
        if self.cpu.sampled.elapsed() >= MINIMUM_CPU_UPDATE_INTERVAL {
            let now = Instant::now();
            self.system.refresh_cpu_usage();
            let percent = if self.container.limits_cpu(self.system.cpus().len() as f64) {
                self.container.cpu_percent(now)
            } else {
                Some(f64::from(self.system.global_cpu_usage()).clamp(0.0, 100.0))
            };
            self.cpu = Cpu { sampled: now, percent };
        }
        self.system.refresh_memory_specifics(MemoryRefreshKind::everything());
        self.storage.refresh();
        if self.processes.counted.elapsed() >= RECOUNT {
            self.processes = Count::new();
        }
    }
}

impl Count {
    /// Of now. Counting `/proc` costs a hundredth of reading each process, as sysinfo would.
    fn new() -> Self {
        let is_process = |name: &OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
        let count =
            |entries: std::fs::ReadDir| entries.flatten().filter(|entry| is_process(&entry.file_name())).count();
        Self { counted: Instant::now(), n_processes: std::fs::read_dir("/proc").ok().map(count) }
    }
}

impl Source for Host {
    fn read(&mut self, round: &mut Round) {
        let metrics = self.figures();
        round.add(&self.service, &self.instance, metrics);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(metrics: &[Metric], name: &str) -> Option<f64> {
        metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }

    fn host() -> Result<Host, sysinfo::Error> {
        Host::new("web".to_owned(), "a".to_owned())
    }

    #[test]
    fn the_first_reading_has_no_cpu_figure_rather_than_a_false_zero() {
        let mut host = host().expect("reading this host");
        let metrics = host.figures();
        assert_eq!(value(&metrics, "cpu_percent"), None);
        assert!(value(&metrics, "memory_percent").is_some());
    }

    #[test]
    fn after_the_warm_up_every_figure_is_there_and_plausible() {
        let mut host = host().expect("reading this host");
        std::thread::sleep(WARM_UP);
        let metrics = host.figures();
        let within = |name: &str, range: std::ops::RangeInclusive<f64>| {
            let value = value(&metrics, name).unwrap_or_else(|| panic!("{name} is missing"));
            assert!(range.contains(&value), "{name} is {value}");
        };
        for name in ["cpu_percent", "memory_percent", "swap_percent"] {
            within(name, 0.0..=100.0);
        }
        within("memory_used_bytes", 1e6..=1e15);
        for name in ["disk_read_bytes", "disk_write_bytes", "network_rx_bytes", "network_tx_bytes"] {
            within(name, 0.0..=1e18);
        }
        for name in ["load_1m", "load_5m", "load_15m"] {
            within(name, 0.0..=1e5);
        }
        within("processes", 1.0..=1e7);
        within("uptime_seconds", 1.0..=1e10);
        assert!(metrics.iter().all(|metric| gopherwatch_proto::is_valid_name(&metric.name)));
    }
}
