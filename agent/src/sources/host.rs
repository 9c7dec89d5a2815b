//! This host's figures, read through sysinfo under the well-known metric names.
//!
//! Only what is reported is refreshed: the agent is meant to cost a host next to nothing.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

use gopherwatch_proto::v1::Metric;
use sysinfo::{Disk, DiskRefreshKind, Disks, MINIMUM_CPU_UPDATE_INTERVAL, MemoryRefreshKind, System};

use super::network::Network;
use super::{Round, Source};

/// How long after [`Host::new`] the first reading has a CPU figure.
pub const WARM_UP: Duration = Duration::from_millis(250);

/// How often mounts that are gone are forgotten; new ones are seen at once.
const RELIST: Duration = Duration::from_secs(30);

/// This host.
#[derive(Debug)]
pub struct Host {
    service: String,
    instance: String,
    system: System,
    disks: Disks,
    network: Network,
    cpu: Cpu,
    relisted: Instant,
}

/// CPU use is what happened between two samples; sysinfo needs them [`MINIMUM_CPU_UPDATE_INTERVAL`] apart.
#[derive(Debug)]
struct Cpu {
    sampled: Instant,
    percent: Option<f64>,
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
            disks: Disks::new_with_refreshed_list_specifics(disk_figures())?,
            network: Network::new()?,
            cpu: Cpu { sampled: Instant::now(), percent: None },
            relisted: Instant::now(),
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
        add("memory_percent", percent(system.used_memory(), system.total_memory()));
        add("memory_used_bytes", system.used_memory() as f64);
        add("swap_percent", percent(system.used_swap(), system.total_swap()));
        if let Some(percent) = fullest(&self.disks) {
            add("disk_percent", percent);
        }
        let (read, written) = disk_bytes(&self.disks);
        add("disk_read_bytes", read as f64);
        add("disk_write_bytes", written as f64);
        if let Some(network) = self.network.bytes() {
            add("network_rx_bytes", network.received as f64);
            add("network_tx_bytes", network.transmitted as f64);
        }
        if let Ok(load) = System::load_average() {
            add("load_1m", load.one);
            add("load_5m", load.five);
            add("load_15m", load.fifteen);
        }
        if let Some(n_processes) = processes() {
            add("processes", n_processes as f64);
        }
        if let Ok(seconds) = System::uptime() {
            add("uptime_seconds", seconds as f64);
        }
        metrics
    }

    fn refresh(&mut self) {
        if self.cpu.sampled.elapsed() >= MINIMUM_CPU_UPDATE_INTERVAL {
            self.system.refresh_cpu_usage();
            let percent = f64::from(self.system.global_cpu_usage()).clamp(0.0, 100.0);
            self.cpu = Cpu { sampled: Instant::now(), percent: Some(percent) };
        }
        self.system.refresh_memory_specifics(MemoryRefreshKind::everything());
        let relist = self.relisted.elapsed() >= RELIST;
        if relist {
            self.relisted = Instant::now();
        }
        self.disks.refresh_specifics(relist, disk_figures());
    }
}

impl Source for Host {
    fn read(&mut self, round: &mut Round) {
        let metrics = self.figures();
        round.add(&self.service, &self.instance, metrics);
    }
}

fn disk_figures() -> DiskRefreshKind {
    DiskRefreshKind::nothing().with_storage().with_io_usage()
}

/// 0 for a share of nothing: a host without swap uses none of it.
fn percent(used: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { used as f64 / total as f64 * 100.0 }
}

/// The fill of the fullest file system that can fill up and hurt.
fn fullest(disks: &Disks) -> Option<f64> {
    disks
        .iter()
        .filter(|disk| counts(disk.file_system(), disk.mount_point(), disk.is_read_only(), disk.total_space()))
        .map(|disk| percent(disk.total_space().saturating_sub(disk.available_space()), disk.total_space()))
        .max_by(f64::total_cmp)
}

/// Whether a file system is writable and real. sysinfo has left out tmpfs, proc and their like, and network mounts.
fn counts(file_system: &OsStr, mount_point: &Path, is_read_only: bool, total_bytes: u64) -> bool {
    let file_system = file_system.to_string_lossy();
    let is_real = match &*file_system {
        // As the root, it is a container's own disk; elsewhere it repeats the disk below it.
        "overlay" => mount_point == Path::new("/"),
        "ramfs" | "tmpfs" | "devtmpfs" | "efivarfs" | "erofs" | "cramfs" | "squashfs" | "iso9660" | "udf" => false,
        other => !other.starts_with("fuse."),
    };
    is_real && !is_read_only && total_bytes > 0
}

/// Bytes read and written since boot, each device once however often it is mounted.
fn disk_bytes(disks: &Disks) -> (u64, u64) {
    let mut seen = HashSet::new();
    disks
        .iter()
        .filter(|disk| seen.insert(disk.name()))
        .map(Disk::usage)
        .fold((0, 0), |(read, written), usage| (read + usage.total_read_bytes, written + usage.total_written_bytes))
}

/// How many processes there are. Counting `/proc` costs a hundredth of reading each process, as sysinfo would.
fn processes() -> Option<usize> {
    let entries = std::fs::read_dir("/proc").ok()?;
    let is_process = |name: &OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    Some(entries.flatten().filter(|entry| is_process(&entry.file_name())).count())
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

    #[test]
    fn the_disks_that_count_are_writable_and_real() {
        let counts =
            |kind: &str, mount: &str, read_only, bytes| counts(kind.as_ref(), mount.as_ref(), read_only, bytes);
        assert!(counts("ext4", "/", false, 1));
        assert!(counts("xfs", "/var", false, 1));
        assert!(counts("overlay", "/", false, 1), "a container's root");
        assert!(!counts("overlay", "/var/lib/docker/overlay2/x/merged", false, 1));
        assert!(!counts("ext4", "/mnt", true, 1), "read-only");
        assert!(!counts("ext4", "/mnt", false, 0), "no size");
        assert!(!counts("tmpfs", "/tmp", false, 1));
        assert!(!counts("squashfs", "/snap/core", false, 1));
        assert!(!counts("fuse.lxcfs", "/var/lib/lxcfs", false, 1));
    }

    #[test]
    fn a_share_of_nothing_is_zero() {
        assert_eq!(percent(0, 0), 0.0);
        assert_eq!(percent(1, 4), 25.0);
    }
}
