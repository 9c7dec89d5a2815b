//! The container that the agent runs in: where it has limits, these are what the host's figures are percent of.
//!
//! A container is told by its namespace of processes. Limits without one, as of a service of systemd, are the agent's
//! own affair, and so are those of a container that was given the machine's processes to watch (`--pid=host`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cgroup::{Hierarchy, Limits};

/// The namespace of the machine's own processes: the kernel gives it this number (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// How often limits are read again: they can be changed while a container runs.
const REFRESH: Duration = Duration::from_secs(10);

/// What is known of the container, if there is one.
#[derive(Debug)]
pub(crate) struct Container {
    proc: PathBuf,
    limits: Limits,
    refreshed: Instant,
    cpu: Option<CpuSample>,
}

#[derive(Debug, Clone, Copy)]
struct CpuSample {
    at: Instant,
    /// CPU time used until then.
    seconds: f64,
    /// What that was percent of.
    cores: f64,
}

/// Use of memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Memory {
    pub(crate) used: f64,
    pub(crate) limit: f64,
}

impl Container {
    /// The container that the `proc` file system at `proc` shows the inside of, and its first CPU sample.
    pub(crate) fn new(proc: PathBuf) -> Self {
        let limits = limits(&proc);
        let mut container = Self { proc, limits, refreshed: Instant::now(), cpu: None };
        container.sample(Instant::now());
        container
    }

    pub(crate) fn refresh(&mut self) {
        if self.refreshed.elapsed() >= REFRESH {
            self.limits = limits(&self.proc);
            self.refreshed = Instant::now();
        }
    }

    /// Whether it may use less than these cores, all of the machine's.
    pub(crate) fn limits_cpu(&self, cores: f64) -> bool {
        self.limits.cpu.as_ref().is_some_and(|limit| limit.most < cores)
    }

    /// The share of its limit that it has used since the call before.
    pub(crate) fn cpu_percent(&mut self, now: Instant) -> Option<f64> {
        let before = self.cpu;
        let after = self.sample(now)?;
        let before = before.filter(|before| before.cores == after.cores)?;
        let seconds = now.saturating_duration_since(before.at).as_secs_f64();
        Some(((after.seconds - before.seconds) / seconds / after.cores * 100.0).clamp(0.0, 100.0))
    }

    /// None if it may use all of these bytes, all of the machine's.
    pub(crate) fn memory(&self, machine_bytes: f64) -> Option<Memory> {
        let limit = self.limits.memory.as_ref().filter(|limit| limit.most < machine_bytes)?;
        Some(Memory { used: limit.memory_bytes()?, limit: limit.most })
    }

    fn sample(&mut self, at: Instant) -> Option<CpuSample> {
        let limit = self.limits.cpu.as_ref();
        self.cpu = limit.and_then(|limit| Some(CpuSample { at, seconds: limit.cpu_seconds()?, cores: limit.most }));
        self.cpu
    }
}

fn limits(proc: &Path) -> Limits {
    let inside = || {
        let namespace = fs::read_link(proc.join("self/ns/pid")).ok()?;
        if namespace == Path::new(FIRST_PID_NAMESPACE) {
            return None;
        }
        let hierarchy = Hierarchy::find(proc)?;
        let dir = hierarchy.dir(&fs::read_to_string(proc.join("self/cgroup")).ok()?)?;
        Some(hierarchy.limits(&dir))
    };
    inside().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::tree::Tree;

    const FILES: [(&str, &str); 6] = [
        ("proc/self/cgroup", "0::/agent\n"),
        ("cgroup/agent/cpu.max", "50000 100000\n"),
        ("cgroup/agent/cpu.stat", "usage_usec 1000000\n"),
        ("cgroup/agent/memory.max", "1000000\n"),
        ("cgroup/agent/memory.current", "700000\n"),
        ("cgroup/agent/memory.stat", "anon 300000\ninactive_file 400000\n"),
    ];

    fn container(tree: &Tree, namespace: &str) -> Container {
        tree.link("proc/self/ns/pid", namespace);
        Container::new(tree.path("proc"))
    }

    #[test]
    fn a_containers_figures_are_of_its_limits() {
        let tree = Tree::with_cgroups(&FILES);
        let mut container = container(&tree, "pid:[4026532201]");
        assert!(container.limits_cpu(2.0));
        assert_eq!(container.memory(1e9), Some(Memory { used: 300_000.0, limit: 1_000_000.0 }));
        let began = container.cpu.expect("the first sample").at;
        tree.write("cgroup/agent/cpu.stat", "usage_usec 1250000\n");
        assert_eq!(container.cpu_percent(began + Duration::from_secs(1)), Some(50.0), "a quarter of half a core");
        assert_eq!(container.cpu_percent(began + Duration::from_secs(2)), Some(0.0));
    }

    #[test]
    fn limits_that_the_machine_is_below_are_none() {
        let tree = Tree::with_cgroups(&FILES);
        let container = container(&tree, "pid:[4026532201]");
        assert!(!container.limits_cpu(0.5));
        assert_eq!(container.memory(1_000_000.0), None);
    }

    #[test]
    fn a_systemd_units_limits_are_not_the_hosts() {
        let tree = Tree::with_cgroups(&FILES);
        let mut container = container(&tree, FIRST_PID_NAMESPACE);
        assert!(!container.limits_cpu(2.0));
        assert_eq!((container.memory(1e9), container.cpu_percent(Instant::now())), (None, None));
    }

    #[test]
    fn use_that_cannot_be_read_is_no_figure() {
        let tree = Tree::with_cgroups(&FILES[..2]);
        let mut container = container(&tree, "pid:[4026532201]");
        assert!(container.limits_cpu(2.0));
        assert_eq!(container.cpu_percent(Instant::now()), None);
    }
}
