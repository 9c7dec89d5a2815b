//! What a process has used, as /proc says.

use std::{fs, process::Command};

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// User and system seconds of all threads.
    pub(crate) cpu_seconds: f64,
    /// Memory now, in MiB.
    pub(crate) rss_mib: f64,
    /// The most memory at once so far, in MiB.
    pub(crate) peak_rss_mib: f64,
}

/// Of process `pid` (or `self`); `None`: there is none.
pub(crate) fn usage(pid: &str) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold spaces: fields are counted from behind it. utime and stime are 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
    };
    Some(Usage { cpu_seconds: ticks / ticks_per_second(), rss_mib: mib("VmRSS:")?, peak_rss_mib: mib("VmHWM:")? })
}

fn ticks_per_second() -> f64 {
    let answer = Command::new("getconf").arg("CLK_TCK").output();
    answer.ok().and_then(|out| String::from_utf8(out.stdout).ok()?.trim().parse().ok()).unwrap_or(100.0)
}
