//! StatsD, by hand-made packets and by a client that others wrote.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tokio::process::Command;

use crate::support::Agent;

/// A Python that has the `statsd` package, the client that most Python programs use.
async fn python() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/statsd/requirements.txt");
    let output = Command::new(root.join("scripts/python.sh")).arg(requirements).arg("statsd").output().await.unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "Python's statsd client cannot be fetched: {message}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn agent() -> (Agent, impl Fn(&str)) {
    let agent = Agent::start(&["--statsd-addr", "127.0.0.1:0"]).await;
    let addr = agent.statsd_addr().await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    (agent, move |packet: &str| assert_eq!(socket.send_to(packet.as_bytes(), &addr).unwrap(), packet.len()))
}

#[tokio::test]
async fn each_type_arrives_as_it_was_sent() {
    let (agent, send) = agent().await;
    let timings: Vec<String> = (1..=100).map(|n| n.to_string()).collect();
    send(&format!(
        "jobs:3|c\njobs:2|c\nhits:1|c|@0.1\nqueue:7|g\nqueue:+3|g\nqueue:-1|g\nlatency:{}|ms\nsize:10:20|h\nsize:30|d\n\
         users:a|s\nusers:b|s\nusers:a|s\n",
        timings.join(":")
    ));
    let all = [
        ("jobs_count", 5.0),
        ("hits_count", 10.0),
        ("queue", 9.0),
        ("latency_p50", 50.0),
        ("latency_p95", 95.0),
        ("latency_p99", 99.0),
        ("latency_max", 100.0),
        ("latency_count", 100.0),
        ("size_p50", 20.0),
        ("size_max", 30.0),
        ("size_count", 3.0),
    ];
    agent.until_last("host/h1", &all).await;
    assert_eq!(agent.first("host/h1", "users_unique").await, 2.0);
    assert!(agent.last("host/h1").contains_key("cpu_percent"), "with the host's own figures");
    // Rates are of their tick, and the total begins at 0.
    assert!(agent.first("host/h1", "jobs_rate").await > 0.0);
    assert_eq!(agent.first("host/h1", "jobs_count").await, 0.0);
    agent.until_last("host/h1", &[("jobs_count", 5.0), ("jobs_rate", 0.0), ("queue", 9.0)]).await;
}

#[tokio::test]
async fn tags_choose_service_and_instance_and_requests_have_their_well_known_name() {
    let (agent, send) = agent().await;
    send("http_requests_total:40|c|#service:checkout,instance:c2\nerrors:2|c|#instance:c2,env:x,service:checkout");
    send("requests:1|c|#service:cart");
    agent.until_last("checkout/c2", &[("request_count", 40.0), ("error_count", 2.0)]).await;
    agent.until_last("cart/h1", &[("request_count", 1.0)]).await;
    assert!(!agent.last("cart/h1").contains_key("cpu_percent"));
}

#[tokio::test]
async fn a_unix_socket_takes_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("statsd.sock");
    // What a killed agent leaves behind is no obstacle.
    drop(UnixDatagram::bind(&path).unwrap());
    let mut agent = Agent::start(&["--statsd-addr", "off", "--statsd-socket", path.to_str().unwrap()]).await;
    agent.line("taking StatsD through a socket").await;
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to(b"queue:7|g\njobs:1|c|#service:web", &path).unwrap();
    agent.until_last("host/h1", &[("queue", 7.0)]).await;
    agent.until_last("web/h1", &[("jobs_count", 1.0)]).await;
    assert!(agent.lines("taking StatsD by UDP").is_empty());

    let pid = agent.process.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert_eq!(agent.process.wait().await.unwrap().code(), Some(0));
    assert!(!path.exists(), "it takes its socket with it");
    let goodbyes = agent.reports("web/h1").iter().filter(|report| report.leaving).count();
    assert_eq!(goodbyes, 1, "services of StatsD say goodbye, too");
}

#[tokio::test]
async fn other_hosts_may_send_where_that_is_said_to_be_fine() {
    for (arguments, environment) in [(&["--insecure"][..], None), (&[], Some(("GOPHERWATCH_INSECURE", "true")))] {
        let arguments = [&["--statsd-addr", "0.0.0.0:0"], arguments].concat();
        let agent = Agent::start_with(&arguments, environment).await;
        let addr = agent.statsd_addr().await.replace("0.0.0.0", "127.0.0.1");
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"queue:7|g", addr).unwrap();
        agent.until_last("host/h1", &[("queue", 7.0)]).await;
    }
}

#[tokio::test]
async fn a_taken_port_is_one_warning_and_the_host_is_reported() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let agent = Agent::start(&["--statsd-addr", &taken.local_addr().unwrap().to_string()]).await;
    agent.line("no StatsD by UDP").await;
    agent.until("three reports", || (agent.reports("host/h1").len() >= 3).then_some(())).await;
    assert_eq!(agent.lines("\"WARN").len(), 1, "{:?}", agent.lines("WARN"));
}

#[tokio::test]
async fn hostile_packets_neither_stop_the_agent_nor_grow_it() {
    let (agent, send) = agent().await;
    send("seen:1|g");
    agent.until_last("host/h1", &[("seen", 1.0)]).await;
    let before = agent.memory();
    for n in 0..20 {
        let lines: String = (0..200).map(|m| format!("name{n}_{m}:{m}|ms|#service:s{}\n", n * 200 + m)).collect();
        send(&lines);
        send(&format!("{}:1|c", "x".repeat(60_000)));
        send(&"garbage\u{1b}[2J\n".repeat(400));
        // The kernel's queue is finite: let it be read.
        send(&format!("seen:{}|g", n + 2));
        agent.until_last("host/h1", &[("seen", f64::from(n + 2))]).await;
    }
    let after = agent.memory();
    assert!(after < before + 16, "from {before} to {after} MiB");
    assert_eq!(agent.lines("malformed StatsD lines").len(), 1);
    assert_eq!(agent.lines("more StatsD names").len(), 1);
    let reports = agent.reports("s1/h1");
    assert!(reports.iter().all(|report| report.metrics.len() <= 256));
}

#[tokio::test]
async fn pythons_statsd_client_feeds_it() {
    let python = python().await;
    let agent = Agent::start(&["--statsd-addr", "127.0.0.1:0"]).await;
    let addr = agent.statsd_addr().await;
    let port = addr.rsplit(':').next().unwrap();
    let program = "
import statsd, sys
client = statsd.StatsClient('127.0.0.1', int(sys.argv[1]), prefix='shop')
for n in range(25):
    client.incr('orders', 2)
client.decr('orders', 3)
client.gauge('stock', 100)
client.gauge('stock', 5, delta=True)
client.gauge('stock', -20, delta=True)
client.set('customers', 'ada')
# Several lines in one packet.
with client.pipeline() as pipe:
    for n in range(1, 21):
        pipe.timing('latency', n)
    pipe.set('customers', 'bob')
    pipe.set('customers', 'ada')
plain = statsd.StatsClient('127.0.0.1', int(sys.argv[1]))
plain.incr('requests', 12)
# Half of them are sent, each for two.
for n in range(400):
    plain.incr('sampled', rate=0.5)
";
    let output = Command::new(python).args(["-c", program, port]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures = [
        ("shop.orders_count", 47.0),
        ("shop.stock", 85.0),
        ("shop.latency_p50", 10.0),
        ("shop.latency_p95", 19.0),
        ("shop.latency_max", 20.0),
        ("shop.latency_count", 20.0),
        ("request_count", 12.0),
    ];
    agent.until_last("host/h1", &figures).await;
    // The rest may come in the tick after.
    agent.until("what was sampled", || (agent.last("host/h1").get("sampled_rate") == Some(&0.0)).then_some(())).await;
    let sampled = agent.last("host/h1")["sampled_count"];
    assert!((300.0..500.0).contains(&sampled) && sampled % 2.0 == 0.0, "{sampled}");
    let uniques: Vec<f64> = agent
        .reports("host/h1")
        .iter()
        .flat_map(|report| &report.metrics)
        .filter(|metric| metric.name == "shop.customers_unique")
        .map(|metric| metric.value)
        .collect();
    assert!(uniques.contains(&2.0), "{uniques:?}");
    assert!(agent.lines("malformed").is_empty(), "{:?}", agent.lines("malformed"));
}

/// Anybody on the host could have raised and hidden its alerts, and its agent's losses.
#[tokio::test]
async fn the_hosts_and_the_agents_own_figures_win_and_one_warning_names_each_that_is_sent() {
    let (agent, send) = agent().await;
    // Values that no figure of a host can have: it may well run 77 processes.
    send("cpu_percent:-5|g\nagent_reports_dropped:77.125|g\nqueue:7|g");
    agent.until_last("host/h1", &[("queue", 7.0), ("agent_reports_dropped", 0.0)]).await;
    let n_reports = agent.reports("host/h1").len();
    agent.until("more reports", || (agent.reports("host/h1").len() > n_reports + 3).then_some(())).await;
    for report in agent.reports("host/h1") {
        assert!(report.metrics.iter().all(|it| it.value != -5.0 && it.value != 77.125), "{report:?}");
    }
    for figure in ["cpu_percent", "agent_reports_dropped"] {
        assert_eq!(agent.lines(&format!("\"figure\":\"{figure}\"")).len(), 1);
    }
}

#[tokio::test]
async fn a_hangup_has_the_mapping_read_again_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mapping.toml");
    std::fs::write(&path, "[[mapping]]\nrename = { a = \"b\" }\n").unwrap();
    let mut agent = Agent::start(&["--statsd-addr", "127.0.0.1:0", "--mapping", path.to_str().unwrap()]).await;
    let addr = agent.statsd_addr().await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = |packet: &str| assert_eq!(socket.send_to(packet.as_bytes(), &addr).unwrap(), packet.len());
    let pid = agent.process.id().unwrap().to_string();
    let hangup = async || assert!(Command::new("kill").args(["-HUP", &pid]).status().await.unwrap().success());
    send("a:1|g");
    agent.until_last("host/h1", &[("b", 1.0)]).await;

    std::fs::write(&path, "[[mapping]]\nrenmae = { a = \"c\" }\n").unwrap();
    hangup().await;
    let line = agent.line("cannot read the mapping again").await;
    assert!(line.contains("line 2, column 1") && line.contains("ERROR"), "{line}");
    send("a:2|g");
    agent.until_last("host/h1", &[("b", 2.0)]).await;

    std::fs::write(&path, "[[mapping]]\nrename = { a = \"c\" }\n").unwrap();
    hangup().await;
    agent.line("the mapping is read again").await;
    send("a:3|g");
    agent.until_last("host/h1", &[("c", 3.0)]).await;
    let last = agent.reports("host/h1").pop().unwrap();
    assert!(last.metrics.iter().all(|metric| metric.name != "b"), "{last:?}");
    assert!(agent.process.try_wait().unwrap().is_none(), "it goes on");
}
