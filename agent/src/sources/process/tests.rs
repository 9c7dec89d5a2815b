//! Services in a `/proc` of our own making.

use super::*;
use crate::sources::tree::Tree;

const MACHINE: [(&str, &str); 2] = [
    ("proc/stat", "cpu  9 9\ncpu0 4 4\ncpu1 5 5\nintr 1\n"),
    ("proc/meminfo", "MemTotal:        1000000 kB\nMemFree: 1 kB\n"),
];

/// A tree, what watches it, and its clock.
struct Scene {
    tree: Tree,
    processes: Processes,
    began: Instant,
    at: Duration,
}

/// Figures by service and metric.
type Figures = BTreeMap<(String, String), f64>;

impl Scene {
    fn new(tree: Tree, watches: &[(&str, &str)]) -> Self {
        MACHINE.iter().for_each(|(path, text)| tree.write(path, text));
        let watch = |&(service, pattern): &(&str, &str)| {
            let pattern = pattern.replace("TREE", &tree.path("").display().to_string());
            Watch::new(service.to_owned(), &pattern).expect("a pattern")
        };
        let watches = watches.iter().map(watch).collect();
        let log = Logger::root(slog::Discard, slog::o!());
        let processes = Processes::at(tree.path("proc"), watches, "a".to_owned(), log);
        Self { tree, processes, began: Instant::now(), at: Duration::ZERO }
    }

    /// What is reported so much later.
    fn after(&mut self, seconds: u64) -> Figures {
        self.at += Duration::from_secs(seconds);
        let mut round = Round::default();
        self.processes.read_at(self.began + self.at, Duration::from_secs(1_000), &mut round);
        let named = |(service, _, metrics): (String, String, Vec<gopherwatch_proto::v1::Metric>)| {
            metrics.into_iter().map(move |metric| ((service.clone(), metric.name), metric.value))
        };
        round.into_readings().flat_map(named).collect()
    }
}

fn start(tree: &Tree, pid: u32, parent: u32, started: u64, command_line: &str) {
    tree.write(&format!("proc/{pid}/cmdline"), &(command_line.replace(' ', "\0") + "\0"));
    tree.write(&format!("proc/{pid}/cgroup"), &format!("0::/{}\n", command_line.split(' ').next().unwrap_or_default()));
    tree.write(&format!("proc/{pid}/fd/0"), "");
    run(tree, pid, parent, started, 0);
}

fn run(tree: &Tree, pid: u32, parent: u32, started: u64, ticks: u64) {
    let text = format!("{pid} (x) S {parent} 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 2 0 {started} 0 0 0");
    tree.write(&format!("proc/{pid}/stat"), &text);
    tree.write(&format!("proc/{pid}/statm"), "5000 1000 300 1 0 200 0");
}

fn value(figures: &Figures, service: &str, name: &str) -> Option<f64> {
    figures.get(&(service.to_owned(), name.to_owned())).copied()
}

#[test]
fn each_service_has_the_figures_of_its_own_processes() {
    let tree = Tree::new(&[]);
    start(&tree, 10, 1, 100, "nginx: master");
    start(&tree, 11, 10, 110, "nginx: worker");
    start(&tree, 20, 1, 200, "postgres -D /data");
    tree.write("proc/20/fd/1", "");
    let mut scene = Scene::new(tree, &[("web", "^nginx"), ("db", "postgres")]);
    let figures = scene.after(1);
    let both = |name| (value(&figures, "web", name), value(&figures, "db", name));
    assert_eq!(both("processes"), (Some(2.0), Some(1.0)));
    assert_eq!(both("threads"), (Some(4.0), Some(2.0)));
    assert_eq!(both("open_files"), (Some(2.0), Some(2.0)));
    let memory = 1000.0 * rustix::param::page_size() as f64;
    assert_eq!(both("memory_used_bytes"), (Some(2.0 * memory), Some(memory)));
    assert_eq!(value(&figures, "db", "memory_percent"), Some(memory / 1_024_000_000.0 * 100.0), "of the machine");
}

#[test]
fn figures_are_percent_of_the_cgroups_limits() {
    let tree =
        Tree::with_cgroups(&[("cgroup/nginx/cpu.max", "50000 100000\n"), ("cgroup/nginx/memory.max", "8192000\n")]);
    start(&tree, 10, 1, 100, "nginx master");
    let mut scene = Scene::new(tree, &[("web", "nginx")]);
    scene.after(1);
    run(&scene.tree, 10, 1, 100, 25);
    let figures = scene.after(1);
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    assert_eq!(value(&figures, "web", "cpu_percent"), Some(25.0 / ticks_per_second / 0.5 * 100.0));
    let used = 1000.0 * rustix::param::page_size() as f64;
    assert_eq!(value(&figures, "web", "memory_percent"), Some(used / 8_192_000.0 * 100.0));
}

#[test]
fn processes_of_two_cgroups_are_held_against_what_is_around_both() {
    let tree = Tree::with_cgroups(&[("cgroup/app/memory.max", "1024\n"), ("cgroup/web/memory.max", "1024\n")]);
    start(&tree, 10, 1, 100, "app one");
    start(&tree, 11, 1, 100, "web one");
    let mut scene = Scene::new(tree, &[("both", "one")]);
    let used = 2000.0 * rustix::param::page_size() as f64;
    assert_eq!(value(&scene.after(1), "both", "memory_percent"), Some(used / 1_024_000_000.0 * 100.0));
}

#[test]
fn a_new_worker_is_seen_within_seconds_and_a_new_main_process_at_once() {
    let tree = Tree::new(&[]);
    start(&tree, 10, 1, 100, "nginx master");
    let mut scene = Scene::new(tree, &[("web", "nginx")]);
    start(&scene.tree, 11, 10, 110, "nginx worker");
    assert_eq!(value(&scene.after(1), "web", "processes"), Some(1.0));
    assert_eq!(value(&scene.after(5), "web", "processes"), Some(2.0));

    scene.tree.remove("proc/10");
    scene.tree.remove("proc/11");
    start(&scene.tree, 12, 1, 300, "nginx master");
    let figures = scene.after(1);
    assert_eq!((value(&figures, "web", "processes"), value(&figures, "web", "restarts")), (Some(1.0), Some(1.0)));
}

#[test]
fn a_service_without_a_process_is_not_reported_at_all() {
    let tree = Tree::new(&[]);
    start(&tree, 10, 1, 100, "nginx master");
    let mut scene = Scene::new(tree, &[("web", "nginx"), ("db", "postgres")]);
    assert!(scene.after(1).keys().all(|(service, _)| service == "web"));
    scene.tree.remove("proc/10");
    assert_eq!(scene.after(1), Figures::new());
    start(&scene.tree, 20, 1, 100, "postgres");
    assert_eq!(scene.after(1), Figures::new(), "between two looks");
    assert_eq!(value(&scene.after(5), "db", "restarts"), Some(0.0), "its first life");
}

#[test]
fn a_pid_file_names_a_process_and_all_that_it_started_and_is_read_again() {
    let tree = Tree::new(&[("run/web.pid", "10\n")]);
    start(&tree, 10, 1, 100, "server");
    start(&tree, 11, 10, 50, "child");
    start(&tree, 12, 11, 120, "grandchild");
    start(&tree, 30, 1, 300, "server");
    let mut scene = Scene::new(tree, &[("web", "pid:TREE/run/web.pid")]);
    assert_eq!(value(&scene.after(1), "web", "processes"), Some(3.0));
    scene.tree.write("run/web.pid", "30\nmore\n");
    let figures = scene.after(1);
    assert_eq!((value(&figures, "web", "processes"), value(&figures, "web", "restarts")), (Some(1.0), Some(1.0)));
    scene.tree.write("run/web.pid", "not yet written");
    assert_eq!(value(&scene.after(6), "web", "processes"), Some(1.0), "still the process that it was");
}

#[test]
fn descriptors_that_are_not_shown_are_left_out() {
    let tree = Tree::new(&[]);
    start(&tree, 10, 1, 100, "nginx master");
    tree.remove("proc/10/fd");
    tree.write("proc/10/fd", "not a directory: an error other than its absence");
    let mut scene = Scene::new(tree, &[("web", "nginx")]);
    let figures = scene.after(1);
    assert_eq!((value(&figures, "web", "open_files"), value(&figures, "web", "threads")), (None, Some(2.0)));
}
