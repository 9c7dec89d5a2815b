//! The host's figures beside what the system's own tools say.
//!
//! Other tests run beside these: the tolerances are for what changes between two looks, not for another way to count.

use crate::reported::{Agent, is_limited, numbers, numbers_of, skipped};

fn file(path: &str) -> Vec<f64> {
    numbers(&std::fs::read_to_string(path).unwrap())
}

/// Clock ticks of all cores so far: idle or waiting for disks, and all.
fn ticks() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    // The last two, guests, are counted among the first two already.
    let fields = numbers(stat.lines().next().unwrap().trim_start_matches("cpu"));
    (fields[3] + fields[4], fields[..8].iter().sum())
}

#[tokio::test]
async fn cpu_use_is_what_proc_stat_says() {
    if is_limited() {
        return;
    }
    let agent = Agent::start(&["--interval", "500ms"]).await;
    let (mean, before, after) = agent.mean_beside("host", "cpu_percent", 8, ticks).await;
    let wanted = (1.0 - (after.0 - before.0) / (after.1 - before.1)) * 100.0;
    assert!((mean - wanted).abs() < 8.0, "{mean}, by /proc/stat {wanted}");
}

#[tokio::test]
async fn memory_is_what_free_says() {
    if is_limited() {
        return;
    }
    let agent = Agent::start(&[]).await;
    let report = agent.until_last("a report", "host", |_| true).await;
    // total, used, free, shared, buff/cache, available; then swap's total, used, free. What is used is what is not
    // available, also where `free` is of a version that reckons otherwise.
    let free = numbers_of("free", &["-b"]);
    let (total, available) = (free[0], free[5]);
    let tolerance = total * 0.03;
    assert!((report.value("memory_used_bytes") - (total - available)).abs() < tolerance, "{report:?}, {free:?}");
    let percent = (total - available) / total * 100.0;
    assert!((report.value("memory_percent") - percent).abs() < 3.0, "{report:?}, {percent}");
    let swap = if free[6] > 0.0 { free[7] / free[6] * 100.0 } else { 0.0 };
    assert!((report.value("swap_percent") - swap).abs() < 3.0, "{report:?}, {swap}");
}

#[tokio::test]
async fn the_fullest_file_system_is_the_fullest_of_df() {
    let agent = Agent::start(&[]).await;
    let report = agent.until_last("a report", "host", |_| true).await;
    let output = std::process::Command::new("df").args(["--output=fstype,pcent,target"]).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let fill = |line: &str| {
        let is_root = line.ends_with(" /");
        let is_real = line.starts_with("ext") || line.starts_with("xfs") || line.starts_with("btrfs");
        // The type of a file system may have a digit in it.
        let percent = line.split_whitespace().nth(1)?.strip_suffix('%')?.parse().ok();
        percent.filter(|_: &f64| is_real || (is_root && line.starts_with("overlay")))
    };
    let Some(fullest) = lines.lines().filter_map(fill).max_by(f64::total_cmp) else {
        skipped(&format!("df shows no file system of a kind that this test knows:\n{lines}"));
        return;
    };
    // df rounds up; a tenth is for what others wrote meanwhile.
    let below = fullest - report.value("disk_percent");
    assert!((-0.1..1.1).contains(&below), "{report:?}, df: {fullest}");
}

#[tokio::test]
async fn the_rest_is_what_proc_says() {
    let agent = Agent::start(&[]).await;
    let before = carried();
    let n_reports = agent.of("host").len();
    let report = agent.until("a report", "host", |all| all.len() > n_reports + 1).await.pop().unwrap();
    let after = carried();
    for (name, before, after) in [("network_rx_bytes", before.0, after.0), ("network_tx_bytes", before.1, after.1)] {
        assert!((before..=after).contains(&report.value(name)), "{name}: {before} to {after}, {report:?}");
    }
    let load = file("/proc/loadavg");
    for (name, load) in ["load_1m", "load_5m", "load_15m"].iter().zip(load) {
        assert!((report.value(name) - load).abs() <= 1.0, "{name} {load}, {report:?}");
    }
    let n_processes = std::fs::read_dir("/proc").unwrap().flatten();
    let n_processes = n_processes.filter(|entry| entry.file_name().to_str().unwrap().parse::<u32>().is_ok()).count();
    assert!((report.value("processes") - n_processes as f64).abs() <= 30.0, "{n_processes}, {report:?}");
    assert!((report.value("uptime_seconds") - file("/proc/uptime")[0]).abs() <= 3.0, "{report:?}");
}

/// Bytes received and sent by all interfaces but loopback.
fn carried() -> (f64, f64) {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap();
    let interfaces = text.lines().skip(2).filter(|line| !line.trim_start().starts_with("lo:"));
    let figures = interfaces.map(|line| numbers(line.rsplit_once(':').unwrap().1));
    figures.fold((0.0, 0.0), |sum, figures| (sum.0 + figures[0], sum.1 + figures[8]))
}
