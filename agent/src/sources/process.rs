//! Services on this host by their processes: `--process SERVICE=PATTERN`.
//!
//! A service is all processes that match, added up; with a pid file it is that one and all that it started. A look at
//! every process of the host is dear, so there is one every few seconds, and at once when a service's main process is
//! gone; between them only the known ones are read. A service without a process is not reported at all: its silence is
//! what the server tells of.

mod group;
mod table;
mod watch;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::time::{ClockId, clock_gettime};
use slog::{Logger, info, warn};

use self::group::{Ceiling, Group, Held, Units};
use self::table::{Id, Stat, Table, descendants};
use self::watch::By;
pub use self::watch::Watch;
use super::cgroup::{self, Hierarchy, Limits};
use super::{Round, Source};

/// How often all processes are looked at: how late a new one may be seen.
const LOOK_AROUND: Duration = Duration::from_secs(5);

/// The watched services.
#[derive(Debug)]
pub struct Processes {
    services: Vec<Service>,
    instance: String,
    table: Table,
    hierarchy: Option<Hierarchy>,
    units: Units,
    looked: Option<Instant>,
    log: Logger,
}

#[derive(Debug)]
struct Service {
    watch: Watch,
    group: Group,
    /// What the pid file says; none if it cannot be read, as while it is written: then the service is what it was.
    pid: Option<u32>,
    /// Whether its having no process was mentioned, or having them.
    is_introduced: bool,
    is_shut: bool,
}

impl Processes {
    /// Takes the first CPU samples; warns of services that have no process. `instance` is a valid name.
    pub fn new(watches: Vec<Watch>, instance: String, log: Logger) -> Self {
        Self::at("/proc".into(), watches, instance, log)
    }

    fn at(proc: PathBuf, watches: Vec<Watch>, instance: String, log: Logger) -> Self {
        let service =
            |watch| Service { watch, group: Group::default(), pid: None, is_introduced: false, is_shut: false };
        let units = Units {
            ticks_per_second: rustix::param::clock_ticks_per_second() as f64,
            page_bytes: rustix::param::page_size() as f64,
        };
        let mut processes = Self {
            services: watches.into_iter().map(service).collect(),
            instance,
            hierarchy: Hierarchy::find(&proc),
            table: Table::new(proc),
            units,
            looked: None,
            log,
        };
        processes.read(&mut Round::default());
        for service in processes.services.iter_mut().filter(|service| service.group.is_empty()) {
            service.is_introduced = true;
            warn!(processes.log, "no process of this service is running: it is reported once there is one";
                "service" => &service.watch.service, "looking_for" => &service.watch.pattern,
                "problem" => service.pid_file_problem());
        }
        processes
    }

    fn read_at(&mut self, now: Instant, since_boot: Duration, round: &mut Round) {
        let mut is_due = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK_AROUND);
        for service in &mut self.services {
            is_due |= service.follow(&mut self.table);
        }
        if is_due {
            self.look_around();
            self.looked = Some(now);
        }
        for service in &mut self.services {
            let held = service.held(&mut self.table, &self.log);
            if let Some(metrics) = service.group.figures(now, since_boot, self.units, held) {
                round.add(&service.watch.service, &self.instance, metrics);
            }
        }
    }

    /// Finds the processes of every service among all that there are.
    fn look_around(&mut self) {
        let own = std::process::id();
        let by_pid_file = self.services.iter().any(|service| matches!(service.watch.by, By::PidFile(_)));
        let by_command_line = self.services.iter().any(|service| matches!(service.watch.by, By::CommandLine(_)));
        let mut all = Vec::new();
        let mut found: Vec<Vec<Stat>> = vec![Vec::new(); self.services.len()];
        for pid in self.table.pids() {
            let line = if by_command_line && pid != own { self.table.command_line(pid) } else { None };
            let matching: Vec<usize> = line.map_or_else(Vec::new, |line| {
                (0..self.services.len()).filter(|&idx| self.services[idx].watch.matches(line)).collect()
            });
            if matching.is_empty() && !by_pid_file {
                continue;
            }
            let Some(stat) = self.table.stat(pid) else { continue };
            matching.into_iter().for_each(|idx| found[idx].push(stat));
            all.push(stat);
        }
        let mut ceilings = Ceilings::new(self.hierarchy.as_ref());
        for (service, mut found) in self.services.iter_mut().zip(found) {
            if let By::PidFile(_) = service.watch.by
                && let Some(pid) = service.pid.or_else(|| Some(service.group.main()?.pid))
            {
                found = descendants(pid, &all);
            }
            let ceiling = ceilings.of(&found, &mut self.table);
            service.take(found, ceiling, &self.log);
        }
    }
}

impl Source for Processes {
    fn read(&mut self, round: &mut Round) {
        self.read_at(Instant::now(), since_boot(), round);
    }
}

impl Service {
    /// Reads the known processes. True if that calls for a look around: the main one is gone, or is another by now.
    fn follow(&mut self, table: &mut Table) -> bool {
        let had_main = self.group.main().is_some();
        self.group.refresh(|pid| table.stat(pid));
        let is_gone = had_main && self.group.main().is_none();
        let By::PidFile(path) = &self.watch.by else { return is_gone };
        let pid = pid_in(path).ok();
        let is_another = pid.is_some() && pid != self.pid;
        self.pid = pid;
        is_gone || is_another
    }

    fn take(&mut self, found: Vec<Stat>, ceiling: Option<Ceiling>, log: &Logger) {
        let main = match self.watch.by {
            By::CommandLine(_) => found.iter().map(|stat| stat.id).min(),
            By::PidFile(_) => found.first().map(|stat| stat.id),
        };
        self.group.adopt(found, main, ceiling);
        if let Some(Id { pid, .. }) = main
            && !self.is_introduced
        {
            self.is_introduced = true;
            info!(log, "found the processes of a service"; "service" => &self.watch.service, "pid" => pid,
                "processes" => self.group.pids().count());
        }
    }

    /// One that has ended since it was read holds nothing.
    fn held(&mut self, table: &mut Table, log: &Logger) -> Held {
        let resident_pages = self.group.pids().filter_map(|pid| table.resident_pages(pid)).sum();
        Held { resident_pages, n_open_files: self.open_files(table, log) }
    }

    fn open_files(&mut self, table: &Table, log: &Logger) -> Option<u64> {
        let mut sum = 0;
        for pid in self.group.pids() {
            match table.open_files(pid) {
                Ok(n) => sum += n,
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => {
                    if !self.is_shut {
                        self.is_shut = true;
                        warn!(log, "open_files is left out: the descriptors of another user's process are not shown to this one; \
                            run the agent as that user, as root or with CAP_SYS_PTRACE";
                            "service" => &self.watch.service, "pid" => pid, "error" => %err);
                    }
                    return None;
                }
            }
        }
        Some(sum)
    }

    fn pid_file_problem(&self) -> Option<String> {
        let By::PidFile(path) = &self.watch.by else { return None };
        Some(match pid_in(path) {
            Ok(pid) => format!("the file says {pid}, and there is no such process"),
            Err(err) => format!("the file cannot be read: {err}"),
        })
    }
}

/// What the processes of a service may use, each cgroup's limits read once a look.
struct Ceilings<'a> {
    hierarchy: Option<&'a Hierarchy>,
    machine: Option<table::Machine>,
    limits: BTreeMap<PathBuf, Limits>,
}

impl<'a> Ceilings<'a> {
    fn new(hierarchy: Option<&'a Hierarchy>) -> Self {
        Self { hierarchy, machine: None, limits: BTreeMap::new() }
    }

    /// Processes of several cgroups have the limits of the innermost one around them all.
    fn of(&mut self, processes: &[Stat], table: &mut Table) -> Option<Ceiling> {
        if processes.is_empty() {
            return None;
        }
        if self.machine.is_none() {
            self.machine = table.machine();
        }
        let dirs = self.hierarchy.iter().flat_map(|hierarchy| {
            processes.iter().filter_map(|stat| hierarchy.dir(table.cgroup(stat.id.pid)?)).collect::<Vec<_>>()
        });
        let limits = match (self.hierarchy, cgroup::common(dirs)) {
            (Some(hierarchy), Some(dir)) => {
                self.limits.entry(dir).or_insert_with_key(|dir| hierarchy.limits(dir)).clone()
            }
            _ => Limits::default(),
        };
        Some(Ceiling::new(self.machine?, &limits))
    }
}

fn pid_in(path: &std::path::Path) -> io::Result<u32> {
    // A named pipe would hold the agent up until somebody writes to it.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    // PostgreSQL's has more lines below.
    let first = text.lines().next().unwrap_or_default().trim();
    first.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{first:?} is no process number")))
}

/// On the clock that processes' beginnings are told on.
fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    clock_gettime(clock).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests;
