//! A thousand agents with nothing to tell cost next to nothing: few commits, and a quiet log.

use std::time::{Duration, Instant};

use gopherwatch_proto::v1::metrics_service_client::MetricsServiceClient;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{sync::watch, task::JoinSet, time};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

use crate::support::{
    client::{balanced, runtime},
    figures::{say, seconds},
    reports::{Says, cpu},
    server::{Server, Setup},
    wait::{SOON, eventually},
};

const N_AGENTS: u64 = 1_000;
/// As the agent does it: from one reading to the next, and until a stream is closed for its receipt.
const INTERVAL: Duration = Duration::from_secs(1);
const N_PER_STREAM: u32 = 5;

/// Agents that report calm readings on connections of their own until they are stopped.
struct Idle {
    stop: watch::Sender<bool>,
    agents: JoinSet<u64>,
}

impl Idle {
    fn on(server: &Server) -> Self {
        // A connection has a descriptor at either end, and many systems begin with 1,024.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit }).unwrap();
        let (stop, stopped) = watch::channel(false);
        let mut agents = JoinSet::new();
        let _inside = runtime().enter();
        for n in 0..N_AGENTS {
            let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc())).unwrap();
            agents.spawn(agent(n, endpoint, stopped.clone()));
        }
        Self { stop, agents }
    }

    /// Stops them; how many reports have receipts.
    fn stop(self) -> u64 {
        self.stop.send(true).unwrap();
        runtime().block_on(self.agents.join_all()).into_iter().sum()
    }
}

/// One agent, to its end: how many reports it has receipts for.
async fn agent(n: u64, endpoint: Endpoint, mut stopped: watch::Receiver<bool>) -> u64 {
    // Spread over the life of a stream, so that receipts are asked for all the time: then each could cost a commit.
    time::sleep((INTERVAL * N_PER_STREAM).mul_f64(n as f64 / N_AGENTS as f64)).await;
    let channel = endpoint.connect().await.unwrap();
    let (mut sequence, mut ticks) = (0, time::interval(INTERVAL));
    while !*stopped.borrow() {
        sequence = stream(n, channel.clone(), sequence, &mut ticks, &mut stopped).await;
    }
    sequence
}

/// One stream, to its receipt; the number of its last report.
async fn stream(
    n: u64,
    channel: Channel,
    before: u64,
    ticks: &mut time::Interval,
    stopped: &mut watch::Receiver<bool>,
) -> u64 {
    let name = format!("idle-{n}");
    let (reports, stream) = tokio::sync::mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(stream));
    request.metadata_mut().insert("service-id", name.parse().unwrap());
    request.metadata_mut().insert("agent-epoch", "1".parse().unwrap());
    let mut client = MetricsServiceClient::new(channel);
    let answer = tokio::spawn(async move { client.send_metrics(request).await });
    let mut sequence = before;
    while sequence < before + u64::from(N_PER_STREAM) && !*stopped.borrow() {
        tokio::select! {
            _ = ticks.tick() => {
                sequence += 1;
                reports.send(cpu(&name, 10.0).numbered(sequence)).await.unwrap();
            }
            _ = stopped.changed() => {}
        }
    }
    drop(reports);
    let summary = balanced(answer.await.unwrap().unwrap().into_inner());
    assert_eq!(summary.accepted, sequence - before, "{summary:?}");
    sequence
}

#[test]
fn a_thousand_idle_agents_cost_twenty_commits_a_second_and_hardly_a_line() {
    // As many systems begin: the server has to ask for more.
    let server = Setup::new().soft_descriptors(1_024).start();
    let idle = Idle::on(&server);
    let accepted = |server: &Server| server.figure("gopherwatch_reports_accepted_total");
    // Everybody has called, which is a line each, and has a receipt.
    eventually(SOON, "all agents are there", || server.log().with_message("an agent calls").len() as u64 == N_AGENTS);
    eventually(SOON, "all have reported", || server.status()["totals"]["instances"] == N_AGENTS);

    let window = Duration::from_secs(seconds(10));
    let look = |server: &Server| (Instant::now(), server.figure("gopherwatch_journal_commits_total"));
    let n_lines = |server: &Server| server.log().lines().len();
    let (lines_before, accepted_before) = (n_lines(&server), accepted(&server));
    let (began, commits_before) = look(&server);
    eventually(2 * window, "the time is over", || began.elapsed() >= window);
    let (ended, commits) = look(&server);
    let took = (ended - began).as_secs_f64();
    let (n_commits, n_lines) = (commits - commits_before, n_lines(&server) - lines_before);
    let n_reports = accepted(&server) - accepted_before;
    say(&format!(
        "{took:.1} s of {N_AGENTS} idle agents: {:.1} commits/s, {:.0} reports/s, {n_lines} log lines",
        n_commits / took,
        n_reports / took,
    ));
    // One more, since the window may begin just before one and end just behind another.
    assert!(n_commits <= 20.0 * took + 1.0, "{n_commits} commits in {took:.1} s");
    assert!(n_commits > 0.0 && n_reports > 0.0, "nobody reports: that is not idle but dead");
    assert!(n_lines <= 10, "{n_lines} lines in {took:.1} s:\n{}", server.log().text());

    let n_receipted = idle.stop();
    let balance = server.settle();
    assert_eq!((balance["accepted"].as_u64(), balance["events"].as_u64()), (Some(n_receipted), Some(0)), "{balance}");
}
