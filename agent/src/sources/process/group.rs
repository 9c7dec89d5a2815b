//! The processes of one service: who they are now, and what they use together.

use std::time::{Duration, Instant};

use gopherwatch_proto::v1::Metric;

use super::table::{Id, Machine, Stat};
use crate::sources::cgroup::{Limit, Limits};
use crate::sources::metric;

/// The kernel counts CPU time in hundredths of a second: over less than this the rounding would be most of the figure.
const CPU_SPAN_MIN: Duration = Duration::from_millis(200);

/// What the service's figures are percent of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ceiling {
    pub(super) cores: f64,
    pub(super) memory_bytes: f64,
}

/// How the kernel counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Units {
    pub(super) ticks_per_second: f64,
    pub(super) page_bytes: f64,
}

/// What the processes hold together, which takes looking at each of them once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) resident_pages: u64,
    /// None if the descriptors of one of them are not ours to see: a part of the sum would be a wrong figure.
    pub(super) n_open_files: Option<u64>,
}

/// One service's processes.
#[derive(Debug, Default)]
pub(super) struct Group {
    members: Vec<Member>,
    /// The one that the service stands and falls with: the pid file's, or the oldest. Kept when it is gone.
    main: Option<Id>,
    n_restarts: u64,
    ceiling: Option<Ceiling>,
    cpu: Cpu,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    now: Stat,
    /// CPU time that it had used at the beginning of the span; none if it was not known then.
    base_ticks: Option<u64>,
}

#[derive(Debug, Default)]
struct Cpu {
    since: Option<Instant>,
    percent: Option<f64>,
}

impl Group {
    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.members.iter().map(|member| member.now.id.pid)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The main process, while it is there.
    pub(super) fn main(&self) -> Option<Id> {
        self.main.filter(|main| self.members.iter().any(|member| member.now.id == *main))
    }

    /// Reads every known process again; those that are gone leave.
    pub(super) fn refresh(&mut self, mut stat: impl FnMut(u32) -> Option<Stat>) {
        self.members.retain_mut(|member| match stat(member.now.id.pid) {
            // Another beginning: another process under the number of one that ended.
            Some(now) if now.id == member.now.id => {
                member.now = now;
                true
            }
            _ => false,
        });
    }

    /// Takes what a look at all processes found for all that there is. `main` is among them.
    pub(super) fn adopt(&mut self, found: Vec<Stat>, main: Option<Id>, ceiling: Option<Ceiling>) {
        let known = std::mem::take(&mut self.members);
        let base_ticks = |id: Id| known.iter().find(|member| member.now.id == id)?.base_ticks;
        self.members = found.into_iter().map(|now| Member { now, base_ticks: base_ticks(now.id) }).collect();
        self.ceiling = ceiling;
        let Some(main) = main else { return };
        // An elder one that only now looks like one of the service's ends nothing.
        if self.main.is_some_and(|before| before != main) && self.main().is_none() {
            self.n_restarts += 1;
        }
        self.main = Some(main);
    }

    /// The figures of now; none without a process.
    pub(super) fn figures(
        &mut self,
        now: Instant,
        since_boot: Duration,
        units: Units,
        held: Held,
    ) -> Option<Vec<Metric>> {
        self.sample_cpu(now, units);
        let oldest = self.members.iter().map(|member| member.now.id.started).min()?;
        let sum = |of: fn(&Stat) -> u64| self.members.iter().map(|member| of(&member.now)).sum::<u64>() as f64;
        let used_bytes = held.resident_pages as f64 * units.page_bytes;
        let mut metrics = vec![
            metric("memory_used_bytes", used_bytes),
            metric("processes", self.members.len() as f64),
            metric("threads", sum(|stat| stat.n_threads)),
            metric("restarts", self.n_restarts as f64),
            metric("uptime_seconds", (since_boot.as_secs_f64() - oldest as f64 / units.ticks_per_second).max(0.0)),
        ];
        metrics.extend(self.cpu.percent.map(|percent| metric("cpu_percent", percent)));
        // Pages that processes share are counted for each of them: the sum can be more than there is.
        let memory_percent = |ceiling: Ceiling| (used_bytes / ceiling.memory_bytes * 100.0).min(100.0);
        metrics.extend(self.ceiling.map(|ceiling| metric("memory_percent", memory_percent(ceiling))));
        metrics.extend(held.n_open_files.map(|n| metric("open_files", n as f64)));
        Some(metrics)
    }

    /// CPU use is what the processes known at both ends of a span used in it: one that came adds nothing of its past,
    /// and one that came back does not begin with a difference to its predecessor.
    fn sample_cpu(&mut self, now: Instant, units: Units) {
        let span = self.cpu.since.map(|since| now.saturating_duration_since(since));
        if self.members.is_empty() {
            self.cpu = Cpu::default();
            return;
        }
        if span.is_some_and(|span| span < CPU_SPAN_MIN) {
            return;
        }
        let spent = |member: &Member| Some(member.now.cpu_ticks.saturating_sub(member.base_ticks?));
        let ticks = self.members.iter().filter_map(spent).reduce(|one, other| one + other);
        self.cpu.percent = ticks.zip(span).zip(self.ceiling).map(|((ticks, span), ceiling)| {
            let cores = ticks as f64 / units.ticks_per_second / span.as_secs_f64();
            (cores / ceiling.cores * 100.0).min(100.0)
        });
        self.cpu.since = Some(now);
        self.members.iter_mut().for_each(|member| member.base_ticks = Some(member.now.cpu_ticks));
    }
}

impl Ceiling {
    /// The machine, or what limits are tighter.
    pub(super) fn new(machine: Machine, limits: &Limits) -> Self {
        let least = |most: f64, limit: &Option<Limit>| limit.as_ref().map_or(most, |limit| limit.most.min(most));
        Self { cores: least(machine.cores, &limits.cpu), memory_bytes: least(machine.memory_bytes, &limits.memory) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNITS: Units = Units { ticks_per_second: 100.0, page_bytes: 4096.0 };
    const CEILING: Ceiling = Ceiling { cores: 2.0, memory_bytes: 4096.0 * 1000.0 };

    const HELD: Held = Held { resident_pages: 200, n_open_files: Some(7) };

    fn stat(pid: u32, started: u64, cpu_ticks: u64) -> Stat {
        Stat { id: Id { started, pid }, parent: 1, cpu_ticks, n_threads: 3 }
    }

    /// A group whose clock and processes are the test's.
    struct Scene {
        group: Group,
        began: Instant,
        at: Duration,
    }

    impl Scene {
        fn new() -> Self {
            Self { group: Group::default(), began: Instant::now(), at: Duration::ZERO }
        }

        /// A look at all processes, a second after the last one.
        fn found(&mut self, stats: &[Stat]) -> Option<Vec<Metric>> {
            let main = stats.iter().map(|stat| stat.id).min();
            self.group.adopt(stats.to_vec(), main, Some(CEILING));
            self.figures(1_000)
        }

        /// A look at the known ones only.
        fn followed(&mut self, millis: u64, stats: &[Stat]) -> Option<Vec<Metric>> {
            self.group.refresh(|pid| stats.iter().find(|stat| stat.id.pid == pid).copied());
            self.figures(millis)
        }

        fn figures(&mut self, millis: u64) -> Option<Vec<Metric>> {
            self.at += Duration::from_millis(millis);
            self.group.figures(self.began + self.at, Duration::from_secs(100) + self.at, UNITS, HELD)
        }
    }

    fn value(metrics: &Option<Vec<Metric>>, name: &str) -> Option<f64> {
        metrics.as_ref()?.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }

    #[test]
    fn all_processes_count_together_and_the_oldest_says_since_when() {
        let mut scene = Scene::new();
        let metrics = scene.found(&[stat(20, 5_000, 0), stat(10, 9_000, 0)]);
        for (name, wanted) in [
            ("processes", 2.0),
            ("threads", 6.0),
            ("memory_used_bytes", 200.0 * 4096.0),
            ("memory_percent", 20.0),
            ("open_files", 7.0),
            ("uptime_seconds", 51.0),
            ("restarts", 0.0),
        ] {
            assert_eq!(value(&metrics, name), Some(wanted), "{name}");
        }
    }

    #[test]
    fn the_first_cpu_figure_comes_with_the_second_sample() {
        let mut scene = Scene::new();
        assert_eq!(value(&scene.found(&[stat(1, 1, 5_000)]), "cpu_percent"), None);
        let second = scene.followed(1_000, &[stat(1, 1, 5_050)]);
        assert_eq!(value(&second, "cpu_percent"), Some(25.0), "half of one of two cores");
    }

    #[test]
    fn a_span_too_short_to_tell_leaves_the_figure_before() {
        let mut scene = Scene::new();
        scene.found(&[stat(1, 1, 0)]);
        scene.followed(1_000, &[stat(1, 1, 100)]);
        assert_eq!(value(&scene.followed(100, &[stat(1, 1, 120)]), "cpu_percent"), Some(50.0));
        assert_eq!(value(&scene.followed(100, &[stat(1, 1, 120)]), "cpu_percent"), Some(50.0), "20 ticks in 0.2 s");
        assert_eq!(value(&scene.followed(1_000, &[stat(1, 1, 120)]), "cpu_percent"), Some(0.0));
    }

    #[test]
    fn one_that_came_adds_nothing_of_its_past() {
        let mut scene = Scene::new();
        scene.found(&[stat(1, 1, 0)]);
        let metrics = scene.found(&[stat(1, 1, 100), stat(2, 2, 99_999)]);
        assert_eq!(value(&metrics, "cpu_percent"), Some(50.0));
        let metrics = scene.followed(1_000, &[stat(1, 1, 100), stat(2, 2, 100_049)]);
        assert_eq!(value(&metrics, "cpu_percent"), Some(25.0));
    }

    #[test]
    fn gone_means_no_figures_and_back_is_a_restart_without_a_cpu_figure() {
        let mut scene = Scene::new();
        scene.found(&[stat(1, 1, 0)]);
        scene.followed(1_000, &[stat(1, 1, 100)]);
        assert_eq!(scene.followed(1_000, &[]), None);
        assert_eq!(scene.found(&[]), None);
        let back = scene.found(&[stat(9, 10_000, 4_000)]);
        assert_eq!((value(&back, "restarts"), value(&back, "cpu_percent")), (Some(1.0), None));
        let later = scene.followed(1_000, &[stat(9, 10_000, 4_020)]);
        assert_eq!((value(&later, "restarts"), value(&later, "cpu_percent")), (Some(1.0), Some(10.0)));
    }

    #[test]
    fn a_number_used_again_is_another_process() {
        let mut scene = Scene::new();
        scene.found(&[stat(7, 1, 500)]);
        assert_eq!(scene.followed(1_000, &[stat(7, 9_000, 900)]), None);
        let metrics = scene.found(&[stat(7, 9_000, 900)]);
        assert_eq!((value(&metrics, "restarts"), value(&metrics, "cpu_percent")), (Some(1.0), None));
    }

    #[test]
    fn a_worker_that_comes_or_goes_and_an_elder_seen_late_are_no_restart() {
        let mut scene = Scene::new();
        scene.found(&[stat(5, 50, 0), stat(6, 60, 0)]);
        scene.found(&[stat(5, 50, 0), stat(7, 70, 0)]);
        let metrics = scene.found(&[stat(4, 40, 0), stat(5, 50, 0)]);
        assert_eq!(value(&metrics, "restarts"), Some(0.0));
        assert_eq!(value(&scene.found(&[stat(5, 50, 0)]), "restarts"), Some(1.0), "now the main one has ended");
    }

    #[test]
    fn the_ceiling_is_the_tightest_of_limits_and_machine() {
        let machine = Machine { cores: 4.0, memory_bytes: 1e9 };
        let limit = |most| Some(Limit { most, dir: "/".into() });
        let ceiling = |cpu, memory| Ceiling::new(machine, &Limits { cpu, memory });
        assert_eq!(ceiling(None, None), Ceiling { cores: 4.0, memory_bytes: 1e9 });
        assert_eq!(ceiling(limit(0.5), limit(1e6)), Ceiling { cores: 0.5, memory_bytes: 1e6 });
        assert_eq!(ceiling(limit(8.0), limit(1e12)), Ceiling { cores: 4.0, memory_bytes: 1e9 });
    }
}
