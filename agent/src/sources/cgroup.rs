//! What a process may use at most: the limits of its cgroup and of those around it, of the unified hierarchy (v2).
//!
//! Where the hierarchy is mounted is read from `/proc/self/mountinfo`. Without it, as where the controllers are still
//! those of v1, nothing is limited as far as we know, and the machine is the measure.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// The hierarchy, as far as it can be seen from here.
#[derive(Debug, Clone)]
pub(crate) struct Hierarchy {
    mount_point: PathBuf,
    /// The cgroup that is mounted there: another than `/` where a container sees a part of its host's.
    mounted: PathBuf,
}

/// The tightest limits on a cgroup, each with the cgroup that sets it: that one's use is what the limit is held against.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Limits {
    pub(crate) cpu: Option<Limit>,
    pub(crate) memory: Option<Limit>,
}

/// One limit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Limit {
    /// Cores, or bytes.
    pub(crate) most: f64,
    /// The cgroup's directory.
    pub(crate) dir: PathBuf,
}

impl Hierarchy {
    /// The hierarchy that the `proc` file system at `proc` tells of.
    pub(crate) fn find(proc: &Path) -> Option<Self> {
        mounted(&fs::read_to_string(proc.join("self/mountinfo")).ok()?)
    }

    /// The directory of the cgroup that a `/proc/PID/cgroup` names; none if that lies outside of what can be seen.
    pub(crate) fn dir(&self, proc_cgroup: &str) -> Option<PathBuf> {
        let path = Path::new(proc_cgroup.lines().find_map(|line| line.strip_prefix("0::"))?);
        let inside = path.strip_prefix(&self.mounted).ok()?;
        inside.components().all(|part| matches!(part, Component::Normal(_))).then(|| self.mount_point.join(inside))
    }

    /// The tightest limits on the cgroup at `dir`.
    pub(crate) fn limits(&self, dir: &Path) -> Limits {
        let around = || dir.ancestors().take_while(|dir| dir.starts_with(&self.mount_point));
        let read = |dir: &Path, file: &str| fs::read_to_string(dir.join(file)).ok();
        let cpu = around().filter_map(|dir| Limit::new(cores(&read(dir, "cpu.max")?)?, dir));
        let memory = around().filter_map(|dir| Limit::new(bytes(&read(dir, "memory.max")?)?, dir));
        Limits { cpu: tightest(cpu), memory: tightest(memory) }
    }
}

impl Limit {
    fn new(most: f64, dir: &Path) -> Option<Self> {
        (most > 0.0).then(|| Self { most, dir: dir.to_owned() })
    }

    /// CPU time that the cgroup has used, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Option<f64> {
        let micros = value(&fs::read_to_string(self.dir.join("cpu.stat")).ok()?, "usage_usec")?;
        Some(micros / 1e6)
    }

    /// Memory that the cgroup uses, in bytes, without files' pages that the kernel would give up first: they fill any
    /// limit in time. `docker stats` and Kubernetes reckon so too.
    pub(crate) fn memory_bytes(&self) -> Option<f64> {
        let current: f64 = fs::read_to_string(self.dir.join("memory.current")).ok()?.trim().parse().ok()?;
        let inactive = value(&fs::read_to_string(self.dir.join("memory.stat")).ok()?, "inactive_file")?;
        Some((current - inactive).max(0.0))
    }
}

/// The innermost cgroup that holds all of these.
pub(crate) fn common(dirs: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    dirs.into_iter().reduce(|one, other| one.ancestors().find(|dir| other.starts_with(dir)).unwrap_or(&one).to_owned())
}

fn tightest(limits: impl Iterator<Item = Limit>) -> Option<Limit> {
    limits.min_by(|one, other| one.most.total_cmp(&other.most))
}

/// The first mount of the unified hierarchy in a mountinfo (proc(5)): number, parent's, device, what is mounted, where,
/// options, optional fields, `-`, type, …
fn mounted(mountinfo: &str) -> Option<Hierarchy> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = mount.split(' ').skip(3).map(|field| PathBuf::from(field.replace("\\040", " ")));
        let (mounted, mount_point) = (fields.next()?, fields.next()?);
        Some(Hierarchy { mount_point, mounted })
    })
}

/// Of a `cpu.max`: `QUOTA PERIOD` in microseconds, `max` for no quota.
fn cores(cpu_max: &str) -> Option<f64> {
    let (quota, period) = cpu_max.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0).then_some(quota / period)
}

/// Of a `memory.max`: bytes, or `max`.
fn bytes(memory_max: &str) -> Option<f64> {
    memory_max.trim().parse::<u64>().ok().map(|bytes| bytes as f64)
}

/// Of a file of `NAME VALUE` lines.
fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::tree::Tree;

    fn hierarchy(tree: &Tree) -> Hierarchy {
        Hierarchy::find(&tree.path("proc")).expect("a hierarchy")
    }

    #[test]
    fn the_tightest_of_a_cgroup_and_those_around_it_is_the_limit() {
        let tree = Tree::with_cgroups(&[
            ("cgroup/a/cpu.max", "150000 100000\n"),
            ("cgroup/a/memory.max", "max\n"),
            ("cgroup/a/b/cpu.max", "max 100000\n"),
            ("cgroup/a/b/memory.max", "1073741824\n"),
            ("cgroup/a/b/c/cpu.max", "200000 100000\n"),
            ("cgroup/a/b/c/memory.max", "2147483648\n"),
        ]);
        let limits = hierarchy(&tree).limits(&tree.path("cgroup/a/b/c"));
        assert_eq!(limits.cpu, Some(Limit { most: 1.5, dir: tree.path("cgroup/a") }));
        assert_eq!(limits.memory, Some(Limit { most: 1_073_741_824.0, dir: tree.path("cgroup/a/b") }));
    }

    #[test]
    fn the_root_has_no_limits_and_garbage_is_none() {
        let tree = Tree::with_cgroups(&[("cgroup/a/cpu.max", "fast\n"), ("cgroup/a/memory.max", "-1\n")]);
        assert_eq!(hierarchy(&tree).limits(&tree.path("cgroup")), Limits::default());
        assert_eq!(hierarchy(&tree).limits(&tree.path("cgroup/a")), Limits::default());
    }

    #[test]
    fn a_process_is_found_in_the_unified_hierarchy_alone() {
        let tree = Tree::with_cgroups(&[]);
        let dir = |text: &str| hierarchy(&tree).dir(text);
        assert_eq!(dir("4:memory:/x\n0::/a/b\n"), Some(tree.path("cgroup/a/b")));
        assert_eq!(dir("0::/\n"), Some(tree.path("cgroup")));
        assert_eq!(dir("4:memory:/x\n"), None);
        assert_eq!(dir("0::/../b\n"), None, "outside of this container's view");
    }

    #[test]
    fn a_part_of_the_hosts_hierarchy_may_be_what_is_mounted() {
        let line = "31 23 0:27 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let hierarchy = mounted(line).expect("a hierarchy");
        assert_eq!(hierarchy.dir("0::/docker/x/y\n"), Some("/sys/fs/cgroup/y".into()));
        assert_eq!(hierarchy.dir("0::/docker/z\n"), None);
    }

    #[test]
    fn without_a_unified_hierarchy_nothing_is_limited() {
        assert!(mounted("30 23 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n").is_none());
        assert!(Hierarchy::find(Path::new("/nowhere")).is_none());
    }

    #[test]
    fn a_limits_use_is_that_of_its_cgroup() {
        let tree = Tree::with_cgroups(&[
            ("cgroup/a/cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
            ("cgroup/a/memory.current", "1000\n"),
            ("cgroup/a/memory.stat", "anon 5\ninactive_file 400\n"),
        ]);
        let limit = Limit { most: 1.0, dir: tree.path("cgroup/a") };
        assert_eq!((limit.cpu_seconds(), limit.memory_bytes()), (Some(2.5), Some(600.0)));
        let gone = Limit { most: 1.0, dir: tree.path("cgroup/b") };
        assert_eq!((gone.cpu_seconds(), gone.memory_bytes()), (None, None));
    }

    #[test]
    fn several_cgroups_are_held_by_the_innermost_around_them() {
        let of = |dirs: &[&str]| common(dirs.iter().map(PathBuf::from));
        assert_eq!(of(&["/c/a/b", "/c/a/b"]), Some("/c/a/b".into()));
        assert_eq!(of(&["/c/a/b", "/c/a/d", "/c/a/b"]), Some("/c/a".into()));
        assert_eq!(of(&["/c/a", "/c/ab"]), Some("/c".into()));
        assert_eq!(of(&[]), None);
    }
}
