//! `--process`: real processes, and what is reported of them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, BufReader as AsyncBufReader};

use crate::reported::{Agent, is_limited, numbers, numbers_of, skipped};

/// A process of the test's, killed when it is dropped.
pub(crate) struct Running(Child);

impl Running {
    /// `script` for a shell, its last argument the marker. What it reads never comes, and ends with the test.
    pub(crate) fn shell(script: &str, marker: &str) -> Self {
        Self(Command::new("sh").args(["-c", script, marker]).stdin(Stdio::piped()).spawn().unwrap())
    }

    /// A Python process that has so many threads, open files and MiB of memory beyond its own.
    fn python(extra: usize, marker: &str) -> Option<Self> {
        let script = "import sys,threading,time\n\
            n=int(sys.argv[1]); held=[open('/dev/null') for _ in range(n)]; block=b'x'*(n<<20)\n\
            [threading.Thread(target=time.sleep,args=(600,),daemon=True).start() for _ in range(n)]\n\
            print('ready',flush=True); time.sleep(600)";
        let mut command = Command::new("python3");
        command.args(["-c", script, &extra.to_string(), marker]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Some(Self(child))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A word that is in no other command line of this machine.
pub(crate) fn marker() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("gopherwatch-it-{}-{}-", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// User and system time of a process so far, in seconds, and when that was.
pub(crate) fn cpu_time(pid: u32) -> (f64, Instant) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = numbers(stat.rsplit_once(") ").unwrap().1.split_once(' ').unwrap().1);
    let ticks_per_second = numbers_of("getconf", &["CLK_TCK"])[0];
    ((fields[10] + fields[11]) / ticks_per_second, Instant::now())
}

fn n_cores() -> f64 {
    numbers_of("getconf", &["_NPROCESSORS_ONLN"])[0]
}

#[tokio::test]
async fn ten_processes_are_ten_services_with_their_own_figures() {
    let marker = marker();
    let Some(running) = (0..10).map(|idx| Running::python(idx, &format!("{marker}{idx}"))).collect::<Option<Vec<_>>>()
    else {
        skipped("there is no python3 here");
        return;
    };
    let watches: Vec<String> = (0..10).map(|idx| format!("app-{idx}={marker}{idx}$")).collect();
    let mut arguments = vec!["--interval", "500ms"];
    watches.iter().for_each(|watch| arguments.extend(["--process", watch]));
    let agent = Agent::start(&arguments).await;
    let is_limited = is_limited();
    for (idx, process) in running.iter().enumerate() {
        let service = format!("app-{idx}");
        let report = agent.until_last("a CPU figure", &service, |report| report.get("cpu_percent").is_some()).await;
        let pid = process.pid().to_string();

        let ps = numbers_of("ps", &["-o", "rss=,nlwp=,etimes=", "-p", &pid]);
        let resident = ps[0] * 1024.0;
        assert_eq!(report.value("processes"), 1.0);
        assert_eq!(report.value("threads"), ps[1]);
        assert_eq!(report.value("threads"), idx as f64 + 1.0);
        assert!((report.value("memory_used_bytes") - resident).abs() <= 65536.0, "{report:?}, ps: {resident}");
        assert!((report.value("uptime_seconds") - ps[2]).abs() <= 3.0, "{report:?}, ps: {}", ps[2]);
        let n_descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        assert_eq!(report.value("open_files"), n_descriptors as f64);
        let total = numbers_of("free", &["-b"])[0];
        let percent = resident / total * 100.0;
        assert!(
            is_limited || (report.value("memory_percent") - percent).abs() <= percent * 0.01,
            "{report:?}: {percent}"
        );
        assert_eq!(report.value("restarts"), 0.0);
        assert!(report.value("cpu_percent") < 50.0, "they sleep: {report:?}");
    }
    let memory = |idx: usize| agent.of(&format!("app-{idx}")).last().unwrap().value("memory_used_bytes");
    let difference = memory(9) - memory(0);
    assert!((difference - 9.0 * 1048576.0).abs() < 2.0 * 1048576.0, "each its own: {difference}");
    assert_eq!(agent.double.most_open(), 1, "on one stream");
}

#[tokio::test]
async fn the_cpu_use_of_a_busy_process_is_what_proc_says() {
    if is_limited() {
        return;
    }
    let marker = marker();
    let busy = Running::shell("while :; do :; done", &marker);
    let agent = Agent::start(&["--interval", "500ms", "--process", &format!("busy={marker}")]).await;
    let (mean, before, after) = agent.mean_beside("busy", "cpu_percent", 8, || cpu_time(busy.pid())).await;
    let wanted = (after.0 - before.0) / (after.1 - before.1).as_secs_f64() / n_cores() * 100.0;
    assert!((mean - wanted).abs() < 8.0, "{mean}, by /proc {wanted}");
    assert!(mean > 5.0, "{mean}");
    assert!(agent.of("busy").iter().all(|report| report.get("cpu_percent") != Some(0.0)), "never 0 for not known");
}

#[tokio::test]
async fn gone_is_not_reported_and_back_is_a_restart() {
    let marker = marker();
    let mut process = Running::shell("while :; do :; done", &marker);
    let agent = Agent::start(&["--interval", "200ms", "--process", &format!("busy={marker}")]).await;
    agent.until_last("a CPU figure", "busy", |report| report.get("cpu_percent").is_some()).await;

    for n_restarts in 1..=2 {
        drop(process);
        let gone_at = agent.of("host").last().unwrap().sequence;
        agent.until("rounds without it", "host", |all| all.last().is_some_and(|r| r.sequence >= gone_at + 5)).await;
        let last = agent.of("busy").last().unwrap().clone();
        assert!(last.sequence <= gone_at + 2 && !last.leaving, "{last:?}, gone before {gone_at}");

        process = Running::shell("while :; do :; done", &marker);
        let back =
            agent.until("it is back", "busy", |all| all.last().is_some_and(|r| r.sequence > last.sequence)).await;
        let first = back.iter().find(|report| report.sequence > last.sequence).unwrap();
        assert_eq!((first.value("restarts"), first.get("cpu_percent")), (f64::from(n_restarts), None), "{first:?}");
        agent.until_last("a CPU figure again", "busy", |report| report.get("cpu_percent").is_some()).await;
    }
}

#[tokio::test]
async fn a_pid_file_names_the_process_and_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("web.pid");
    let [first, second] = ["exec 3<&0; (read x <&3) & wait", "read x"].map(|script| Running::shell(script, &marker()));
    std::fs::write(&file, format!("{}\n", first.pid())).unwrap();
    let agent = Agent::start(&["--interval", "200ms", "--process", &format!("web=pid:{}", file.display())]).await;
    agent.until_last("both the shell and what it started", "web", |report| report.get("processes") == Some(2.0)).await;

    std::fs::write(&file, second.pid().to_string()).unwrap();
    let report = agent.until_last("the other one", "web", |report| report.get("restarts") == Some(1.0)).await;
    assert_eq!(report.value("processes"), 1.0);
}

#[tokio::test]
async fn a_service_that_is_not_there_is_warned_of_once() {
    let marker = marker();
    let mut agent = Agent::start(&["--interval", "100ms", "--process", &format!("web={marker}")]).await;
    agent.until("a few rounds", "host", |reports| reports.len() >= 5).await;
    agent.child.start_kill().unwrap();
    let mut lines = AsyncBufReader::new(agent.child.stderr.take().unwrap()).lines();
    let mut warnings = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("no process of this service") {
            warnings.push(line);
        }
    }
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(&marker), "{warnings:?}");
    assert!(agent.of("web").is_empty());
}

#[tokio::test]
async fn the_variable_takes_one_a_line_and_a_stop_says_goodbye_for_those_that_are_there() {
    let (here, gone) = (marker(), marker());
    let _process = Running::shell("read x", &here);
    let list = format!("web={here}\ndb={gone}");
    let mut agent = Agent::start_with(&["--interval", "100ms"], &[("GOPHERWATCH_PROCESS", &list)]).await;
    agent.until("a report", "web", |reports| !reports.is_empty()).await;
    let pid = agent.child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(agent.child.wait().await.unwrap().code(), Some(0));
    assert!(agent.of("web").last().is_some_and(|report| report.leaving));
    assert!(agent.of("host").last().is_some_and(|report| report.leaving));
    assert!(agent.of("db").is_empty());
}

/// It used to hold up the whole agent, for ever: nobody writes to it.
#[tokio::test]
async fn a_named_pipe_in_the_place_of_a_pid_file_is_told_and_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("web.pid");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let agent = crate::support::Agent::start(&["--process", &format!("web=pid:{}", pipe.display())]).await;
    assert!(agent.line("no process of this service").await.contains("it is no regular file"));
    agent.until("the host", || (agent.reports("host/h1").len() >= 3).then_some(())).await;
}
