//! Scraping: a real exporter, and targets that misbehave.

use std::fs;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::support::{Agent, program};

const EXPORTER: &str = "/usr/bin/prometheus-node-exporter";

/// prometheus-node-exporter on a free port, killed when dropped.
async fn exporter(arguments: &[&str]) -> (Child, SocketAddr) {
    assert!(
        Path::new(EXPORTER).exists(),
        "node_exporter is missing: `make test` installs it, or `apt-get install prometheus-node-exporter` ({EXPORTER})"
    );
    for _ in 0..5 {
        let addr = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut process = Command::new(EXPORTER)
            .arg(format!("--web.listen-address={addr}"))
            .args(arguments)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while tokio::time::Instant::now() < deadline {
            if tokio::net::TcpStream::connect(addr).await.is_ok() && process.try_wait().unwrap().is_none() {
                return (process, addr);
            }
            if process.try_wait().unwrap().is_some() {
                // Somebody else was quicker to take the port.
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    panic!("node_exporter does not start");
}

fn textfile(dir: &Path, text: &str) {
    // Renamed over, as node_exporter wants it, so that it never reads half of it.
    fs::write(dir.join("new"), text).unwrap();
    fs::rename(dir.join("new"), dir.join("shop.prom")).unwrap();
}

#[tokio::test]
async fn a_real_exporters_figures_are_what_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let text = |orders: u32, failed: u32, quick: u32, slow: u32| {
        format!(
            "# HELP shop_orders_total Orders.\n# TYPE shop_orders_total counter\n\
             shop_orders_total{{shop=\"a\"}} {orders}\nshop_orders_total{{shop=\"b\"}} 7\n\
             # TYPE http_requests_total counter\nhttp_requests_total{{code=\"200\"}} 1000\nhttp_requests_total{{code=\"500\"}} {failed}\n\
             # TYPE shop_stock gauge\nshop_stock{{item=\"x \\\"y\\\"\"}} 40\nshop_stock{{item=\"z\"}} 2.5\n\
             # TYPE shop_latency_seconds histogram\n\
             shop_latency_seconds_bucket{{le=\"0.1\"}} {quick}\nshop_latency_seconds_bucket{{le=\"1\"}} {all}\n\
             shop_latency_seconds_bucket{{le=\"+Inf\"}} {all}\nshop_latency_seconds_sum 1\nshop_latency_seconds_count {all}\n",
            all = quick + slow
        )
    };
    textfile(dir.path(), &text(100, 1, 50, 0));
    let mapping = dir.path().join("mapping.toml");
    fs::write(
        &mapping,
        "[[mapping]]\ntake = [{ from = \"http_requests_total\", labels = { code = \"5*\" }, as = \"errors\" }]\n",
    )
    .unwrap();
    let folder = format!("--collector.textfile.directory={}", dir.path().display());
    let collectors = [
        "--collector.disable-defaults",
        "--web.disable-exporter-metrics",
        "--collector.textfile",
        "--collector.meminfo",
        "--collector.time",
    ];
    let (mut exporter, addr) = exporter(&[&collectors[..], &[&folder]].concat()).await;
    let target = format!("node=http://{addr}/metrics");
    let mut agent =
        Agent::start(&["--statsd-addr", "off", "--scrape", &target, "--mapping", mapping.to_str().unwrap()]).await;

    let first = [("shop_orders_count", 107.0), ("shop_stock", 42.5), ("request_count", 1_001.0), ("error_count", 1.0)];
    agent.until_last("node/h1", &first).await;
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let total_kib: f64 = meminfo.lines().next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(agent.last("node/h1")["node_memory_MemTotal_bytes"], total_kib * 1024.0);

    textfile(dir.path(), &text(160, 11, 100, 50));
    agent
        .until_last("node/h1", &[("shop_orders_count", 167.0), ("error_count", 11.0), ("request_count", 1_011.0)])
        .await;
    agent.until_last("node/h1", &[("shop_latency_seconds_count", 150.0), ("shop_latency_seconds_p50", 0.1)]).await;
    // Of 100 new values, 50 were up to 0.1 and 50 up to 1: the 95th is at nine tenths of the second bucket.
    let p95 = agent.last("node/h1")["shop_latency_seconds_p95"];
    assert!((p95 - 0.91).abs() < 1e-9, "{p95}");
    // Scraped each second, and at first after 300 ms: what the rates say adds up to what came.
    agent.until_last("node/h1", &[("shop_orders_rate", 0.0)]).await;
    let rates: Vec<f64> = agent
        .reports("node/h1")
        .iter()
        .flat_map(|report| &report.metrics)
        .filter(|metric| metric.name == "shop_orders_rate" && metric.value > 0.0)
        .map(|metric| metric.value)
        .collect();
    assert!(rates.len() == 1 && (10.0..250.0).contains(&rates[0]), "{rates:?}");

    // The exporter goes: its service is not reported any more, and says no goodbye.
    exporter.kill().await.unwrap();
    agent.line("cannot scrape").await;
    let n_reports = agent.reports("node/h1").len();
    let n_hosts = agent.reports("host/h1").len();
    agent.until("more of the host", || (agent.reports("host/h1").len() > n_hosts + 10).then_some(())).await;
    assert!(agent.reports("node/h1").len() <= n_reports + 1);
    terminate(&mut agent).await;
    assert!(agent.reports("node/h1").iter().all(|report| !report.leaving));
    assert!(agent.reports("host/h1").iter().any(|report| report.leaving));
    assert_eq!(agent.lines("cannot scrape").len(), 1, "one warning");
}

#[tokio::test]
async fn all_that_a_real_exporter_says_is_understood_and_fits_a_report() {
    let (_exporter, addr) = exporter(&[]).await;
    let agent = Agent::start(&["--statsd-addr", "off", "--scrape", &format!("node={addr}")]).await;
    agent.line("more figures than a report takes").await;
    agent.until("two reports", || (agent.reports("node/h1").len() >= 2).then_some(())).await;
    // The server keeps 256 names of an instance, and refuses reports with another one.
    let names = agent.last("node/h1").into_keys().collect::<Vec<_>>();
    assert!((240..=256).contains(&names.len()), "{}", names.len());
    assert!(names.iter().all(|name| gopherwatch_proto::is_valid_name(name)), "{names:?}");
    assert!(names.iter().any(|name| name == "node_context_switches_rate"), "{names:?}");
    assert!(agent.lines("not of the text format").is_empty(), "{:?}", agent.lines("not of the text format"));

    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/mapping.toml");
    let target = format!("node=http://{addr}/metrics");
    let agent = Agent::start(&["--statsd-addr", "off", "--scrape", &target, "--mapping", example]).await;
    let load = agent.first("node/h1", "load_1m").await;
    assert!((0.0..1e4).contains(&load), "{load}");
    assert!(agent.first("node/h1", "node_network_receive_bytes_count").await >= 0.0);
    assert!(agent.lines("more figures").is_empty());
    assert!(agent.reports("node/h1")[0].metrics.iter().all(|metric| !metric.name.starts_with("go_")));
}

/// A target that says what the test says, to each connection.
async fn target(answer: &str) -> (SocketAddr, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let answer = Arc::new(Mutex::new(answer.to_owned()));
    let said = Arc::clone(&answer);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = said.lock().unwrap().clone();
            if answer.is_empty() {
                // It never answers; the connection stays open.
                tokio::spawn(async move { stream.read(&mut request).await });
                continue;
            }
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (addr, answer)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_target_that_hangs_delays_no_tick_and_is_reported_again_when_it_answers() {
    let (addr, answer) = target("").await;
    let mut agent = Agent::start(&["--statsd-addr", "off", "--scrape", &format!("web={addr}")]).await;
    let line = agent.line("cannot scrape").await;
    assert!(line.contains("no answer within 900ms"), "{line}");
    agent.until("the host", || (agent.reports("host/h1").len() >= 3).then_some(())).await;
    assert!(agent.reports("web/h1").is_empty());
    *answer.lock().unwrap() = ok("requests_total 5\n");
    agent.until_last("web/h1", &[("request_count", 5.0)]).await;
    agent.line("scraping again").await;
    *answer.lock().unwrap() = ok("requests_total 9\n");
    agent.until_last("web/h1", &[("request_count", 9.0)]).await;
    terminate(&mut agent).await;
    assert_eq!(agent.reports("web/h1").iter().filter(|report| report.leaving).count(), 1, "it said goodbye");
}

#[tokio::test]
async fn redirects_errors_and_endless_bodies_are_no_readings() {
    for (answer, because) in [
        (
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "redirects are not followed",
        ),
        ("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_owned(), "it answers 500"),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{}", "up 1\n".repeat(4 << 20)), "more than 4 MiB"),
        (ok(""), "no metric in Prometheus' text format"),
        (ok("<!DOCTYPE html>\n<title>Log in</title>\n<p>Who are you?</p>\n"), "no metric in Prometheus' text format"),
        ("HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 5\r\n\r\nup 1\n".to_owned(), "encoded (br)"),
        ("no http at all\r\n\r\n".to_owned(), "asking"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nup 1\n".to_owned(), "reading its answer"),
    ] {
        let (addr, _) = target(&answer).await;
        let agent = Agent::start(&["--statsd-addr", "off", "--scrape", &format!("web={addr}")]).await;
        let line = agent.line("cannot scrape").await;
        assert!(line.contains(because), "{because}: {line}");
        assert!(agent.reports("web/h1").is_empty());
        assert!(agent.lines("not of the text format").is_empty(), "one warning is enough");
    }
}

/// A fifth of the scrapes used to be overwritten by the next one before a tick took them, where answers took about as long as
/// it was to the tick: what their rates and percentiles said was gone for good.
#[tokio::test]
async fn every_scrape_is_reported_once_whatever_the_latency_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for n in 1.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            // To both sides of the tick, which comes 250 ms after the agent's start and then each second.
            tokio::time::sleep(Duration::from_millis([200, 300, 700][n % 3])).await;
            let _ = stream.write_all(ok(&format!("hits_total {n}\n")).as_bytes()).await;
        }
    });
    let target = format!("web={addr}");
    let agent = Agent::start_every("1s", &["--statsd-addr", "off", "--scrape", &target]).await;
    agent.until("six reports", || (agent.reports("web/h1").len() >= 6).then_some(())).await;
    let reports = agent.reports("web/h1");
    let hits = |name: &str| {
        let metrics = reports.iter().flat_map(|report| &report.metrics);
        metrics.filter(|metric| metric.name == name).map(|metric| metric.value).collect::<Vec<_>>()
    };
    let counts = hits("hits_count");
    assert!(counts.iter().zip(1..).all(|(count, n)| *count == f64::from(n)), "{counts:?}");
    assert_eq!(hits("hits_rate").len(), counts.len() - 1);
}

#[tokio::test]
async fn a_bad_mapping_file_or_target_exits_64_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mapping.toml");
    fs::write(&path, "[[mapping]]\ndorp = [\"a\"]\n").unwrap();
    let run = async |arguments: &[&str]| program().args(arguments).output().await.unwrap();
    let output = run(&["--mapping", path.to_str().unwrap()]).await;
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{message}");
    assert!(message.contains("line 2, column 1: unknown field `dorp`"), "{message}");
    for wrong in [
        &["--mapping", "/nonexistent"][..],
        &["--scrape", "web"],
        &["--scrape", "web=https://a"],
        &["--statsd-addr", "here"],
        &["--simulate", "3", "--scrape", "a=b:1"],
        &["--simulate", "3", "--statsd-socket", "/tmp/x"],
    ] {
        assert_eq!(run(wrong).await.status.code(), Some(64), "{wrong:?}");
    }
}

async fn terminate(agent: &mut Agent) {
    let pid = agent.process.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert_eq!(agent.process.wait().await.unwrap().code(), Some(0));
}
