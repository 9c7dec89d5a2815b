//! The kernel's table of processes, as `/proc` shows it (proc(5)).
//!
//! A figure that cannot be read is none, never 0: a process may end between two readings.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What of a command line is looked at: some are megabytes of file names, and nobody means those.
const COMMAND_LINE_BYTES: u64 = 64 * 1024;

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    root: PathBuf,
    /// Whether this kernel tells how many descriptors a process has as the size of its `fd` (Linux 6.2).
    counts_descriptors: bool,
    text: Vec<u8>,
}

/// One process for its life: a number is used again, but not with the same beginning. The oldest is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    /// In clock ticks after the boot.
    pub(super) started: u64,
    pub(super) pid: u32,
}

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) id: Id,
    pub(super) parent: u32,
    /// CPU time used, by user and system, in clock ticks.
    pub(super) cpu_ticks: u64,
    pub(super) n_threads: u64,
}

/// What the machine has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Machine {
    pub(super) cores: f64,
    pub(super) memory_bytes: f64,
}

impl Table {
    /// The table under `root`, `/proc`.
    pub(super) fn new(root: PathBuf) -> Self {
        let counts_descriptors = size_is_count(&root.join("self/fd"));
        Self { root, counts_descriptors, text: Vec::new() }
    }

    /// The numbers of all processes.
    pub(super) fn pids(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// None if it has ended; one that only waits for its parent to take note has.
    pub(super) fn stat(&mut self, pid: u32) -> Option<Stat> {
        self.read(pid, "stat").ok()?;
        stat(pid, &self.text)
    }

    /// Memory that it has in use, in pages. Of `statm`, not of `stat`: since Linux 6.2 that one's figure may be hundreds
    /// of kilobytes off.
    pub(super) fn resident_pages(&mut self, pid: u32) -> Option<u64> {
        self.read(pid, "statm").ok()?;
        str::from_utf8(&self.text).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
    }

    /// Its arguments joined by spaces. The kernel's own threads have none.
    pub(super) fn command_line(&mut self, pid: u32) -> Option<&[u8]> {
        self.read(pid, "cmdline").ok()?;
        while self.text.last().is_some_and(|byte| matches!(byte, 0 | b' ')) {
            self.text.pop();
        }
        self.text.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
        (!self.text.is_empty()).then_some(&self.text)
    }

    /// Its `/proc/PID/cgroup`.
    pub(super) fn cgroup(&mut self, pid: u32) -> Option<&str> {
        self.read(pid, "cgroup").ok()?;
        str::from_utf8(&self.text).ok()
    }

    /// How many descriptors it has open.
    ///
    /// # Errors
    /// Not ours to see, or it has ended.
    pub(super) fn open_files(&self, pid: u32) -> io::Result<u64> {
        let path = self.root.join(format!("{pid}/fd"));
        if self.counts_descriptors {
            return fs::metadata(path).map(|metadata| metadata.len());
        }
        Ok(fs::read_dir(path)?.count() as u64)
    }

    /// The machine behind it.
    pub(super) fn machine(&self) -> Option<Machine> {
        let stat = fs::read_to_string(self.root.join("stat")).ok()?;
        let is_core = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
        let cores = stat.lines().filter(is_core).count() as f64;
        let meminfo = fs::read_to_string(self.root.join("meminfo")).ok()?;
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kilobytes: f64 = total.trim().strip_suffix(" kB")?.parse().ok()?;
        (cores > 0.0 && kilobytes > 0.0).then_some(Machine { cores, memory_bytes: kilobytes * 1024.0 })
    }

    fn read(&mut self, pid: u32, file: &str) -> io::Result<()> {
        self.text.clear();
        File::open(self.root.join(format!("{pid}/{file}")))?.take(COMMAND_LINE_BYTES).read_to_end(&mut self.text)?;
        Ok(())
    }
}

/// Everything that descends from `pid`, itself included, as far as `all` knows.
pub(super) fn descendants(pid: u32, all: &[Stat]) -> Vec<Stat> {
    let mut children: BTreeMap<u32, Vec<&Stat>> = BTreeMap::new();
    all.iter().for_each(|stat| children.entry(stat.parent).or_default().push(stat));
    let mut found: Vec<Stat> = all.iter().filter(|stat| stat.id.pid == pid).copied().collect();
    let mut seen = 0;
    while let Some(parent) = found.get(seen).map(|stat| stat.id.pid) {
        seen += 1;
        // Taken out, so that a number used again while we looked cannot lead in a circle.
        found.extend(children.remove(&parent).unwrap_or_default().into_iter().filter(|stat| stat.id.pid != pid));
    }
    found
}

/// Parses `PID (NAME) STATE PPID …`. The name may hold blanks and parentheses: the fields begin behind the last one.
fn stat(pid: u32, text: &[u8]) -> Option<Stat> {
    let behind_name = text.iter().rposition(|&byte| byte == b')')? + 1;
    let fields: Vec<&str> = str::from_utf8(&text[behind_name..]).ok()?.split_ascii_whitespace().collect();
    // proc(5) counts from 1, and the third is the first here.
    let field = |number: usize| fields.get(number - 3).copied();
    let number = |at: usize| field(at)?.parse::<u64>().ok();
    if matches!(field(3)?, "Z" | "X" | "x") {
        return None;
    }
    Some(Stat {
        id: Id { started: number(22)?, pid },
        parent: number(4)?.try_into().ok()?,
        cpu_ticks: number(14)? + number(15)?,
        n_threads: number(20)?,
    })
}

/// Whether a directory's size is the number of its entries. Reading it opens one more.
fn size_is_count(own_descriptors: &Path) -> bool {
    let size = fs::metadata(own_descriptors).map_or(0, |metadata| metadata.len());
    let count = fs::read_dir(own_descriptors).map_or(0, |entries| entries.count() as u64);
    size > 0 && count == size + 1
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const STAT: &str =
        "77 (a (b) c) S 1 77 77 0 -1 4194560 900 0 3 0 120 34 7 8 20 0 5 0 1234 9000000 321 18446744073709551615 1 1";

    #[test]
    fn a_name_may_hold_blanks_and_parentheses() {
        let wanted = Stat { id: Id { started: 1234, pid: 77 }, parent: 1, cpu_ticks: 154, n_threads: 5 };
        assert_eq!(stat(77, STAT.as_bytes()), Some(wanted));
    }

    #[test]
    fn what_has_ended_or_is_cut_off_is_no_process() {
        assert_eq!(stat(77, STAT.replace(") S", ") Z").as_bytes()), None);
        assert_eq!(stat(77, b"77 (a) S 1 77"), None);
        assert_eq!(stat(77, b""), None);
    }

    #[test]
    fn descendants_are_found_in_any_order_and_without_a_circle() {
        let one = |pid, parent| Stat { id: Id { started: 1, pid }, parent, cpu_ticks: 0, n_threads: 1 };
        let all = [one(9, 7), one(2, 1), one(7, 5), one(5, 1), one(6, 5), one(1, 0)];
        let pids = |pid, all: &[Stat]| {
            let mut pids: Vec<u32> = descendants(pid, all).iter().map(|stat| stat.id.pid).collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!(pids(5, &all), [5, 6, 7, 9]);
        assert_eq!(pids(4, &all), [] as [u32; 0]);
        assert_eq!(pids(3, &[one(3, 4), one(4, 3)]), [3, 4]);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let mut table = Table::new("/proc".into());
        let pid = std::process::id();
        assert!(table.pids().contains(&pid));
        let stat = table.stat(pid).expect("this process");
        assert!(stat.n_threads >= 1);
        assert!(table.resident_pages(pid).is_some_and(|pages| pages > 100));
        assert!(table.command_line(pid).is_some_and(|line| !line.contains(&0)));
        assert!(table.open_files(pid).expect("ours to see") >= 3);
        assert!(table.machine().is_some_and(|machine| machine.cores >= 1.0 && machine.memory_bytes > 1e6));
    }

    #[test]
    fn both_ways_to_count_descriptors_agree() {
        let mut table = Table::new("/proc".into());
        if !table.counts_descriptors {
            return;
        }
        // Another process, as those of this one are opened and closed by other tests meanwhile.
        let mut other = std::process::Command::new("sleep").arg("60").spawn().expect("started");
        // Until it has loaded its libraries they come and go.
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            table.counts_descriptors = true;
            let quick = table.open_files(other.id()).expect("ours to see");
            table.counts_descriptors = false;
            let slow = table.open_files(other.id()).expect("ours to see");
            if quick == slow && quick >= 3 {
                break;
            }
            assert!(Instant::now() < deadline, "{quick} and {slow}");
        }
        other.kill().and_then(|()| other.wait()).expect("ended");
    }
}
