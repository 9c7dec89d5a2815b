//! A real cgroup with limits, where one can be made: root, and a unified hierarchy that has the controllers.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::{Running, cpu_time, marker};
use crate::reported::{Agent, skipped};

/// A cgroup of the test's, removed when it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    /// May use a fifth of a core and 64 MiB.
    fn new() -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(|err| err.to_string())?;
        let mount =
            mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).ok_or("no cgroup2 is mounted")?;
        let root = Path::new(mount.split(' ').nth(1).ok_or("a mount without a place")?);
        let enabled = fs::read_to_string(root.join("cgroup.subtree_control")).map_err(|err| err.to_string())?;
        if !["cpu", "memory"].iter().all(|wanted| enabled.split_whitespace().any(|one| one == *wanted)) {
            return Err(format!("{} passes on {:?}, not cpu and memory", root.display(), enabled.trim()));
        }
        let dir = root.join(marker());
        fs::create_dir(&dir).map_err(|err| format!("making {}: {err}", dir.display()))?;
        let cgroup = Self(dir);
        for (file, text) in [("cpu.max", "20000 100000"), ("memory.max", "67108864")] {
            fs::write(cgroup.0.join(file), text).map_err(|err| format!("writing {file}: {err}"))?;
        }
        Ok(cgroup)
    }

    fn take(&self, process: &Running) {
        fs::write(self.0.join("cgroup.procs"), process.pid().to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[tokio::test]
async fn in_a_cgroup_with_limits_percentages_are_of_the_limit() {
    let cgroup = match Cgroup::new() {
        Ok(cgroup) => cgroup,
        Err(because) => {
            skipped(&format!("no cgroup with limits can be made here: {because}"));
            return;
        }
    };
    let marker = marker();
    let busy = Running::shell("while :; do :; done", &marker);
    cgroup.take(&busy);
    let agent = Agent::start(&["--interval", "500ms", "--process", &format!("busy={marker}")]).await;
    let (mean, before, after) = agent.mean_beside("busy", "cpu_percent", 8, || cpu_time(busy.pid())).await;
    let wanted = (after.0 - before.0) / (after.1 - before.1).as_secs_f64() / 0.2 * 100.0;
    assert!((mean - wanted.min(100.0)).abs() < 10.0, "{mean}, by /proc {wanted}");
    assert!(mean > 50.0, "a fifth of a core is all that it has: {mean}");
    let report = agent.of("busy").pop().unwrap();
    let percent = report.value("memory_used_bytes") / 67_108_864.0 * 100.0;
    assert!((report.value("memory_percent") - percent).abs() < 0.01, "{report:?}");
}
