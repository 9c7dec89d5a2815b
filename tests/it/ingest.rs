//! Whatever arrives has a clear answer, harms nothing else, and is accounted for.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use gopherwatch_proto::v1::{Metric, MetricReport, Summary};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::support::{
    client::{Client, balanced, runtime},
    history::micros,
    raw::RawBytes,
    reports::{Says, cpu, now_nanos, report},
    server::{Server, Setup},
    wait::{SOON, eventually, found},
};

const MINUTE: u64 = 60_000_000_000;

fn many_metrics(service: &str, n: usize) -> MetricReport {
    let metrics = (0..n).map(|n| Metric { name: format!("m{n}"), value: 1.0 }).collect();
    MetricReport { metrics, ..cpu(service, 1.0) }
}

/// The count of one reason in `/metrics`.
fn rejected_for(server: &Server, reason: &str) -> f64 {
    let text = server.get("/metrics").body;
    let series = format!("gopherwatch_reports_rejected_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

#[test]
fn each_reason_to_refuse_a_report_is_counted_and_the_rest_is_kept() {
    let server = Setup::new().args("--retention 1h").start();
    let now = now_nanos();
    let bad = [
        ("no_service", cpu("", 1.0)),
        ("bad_name", cpu("-x", 1.0)),
        ("bad_name", cpu("web", 1.0).of("a b")),
        ("bad_name", report("web", "naïve", 1.0)),
        ("bad_name", cpu(&"x".repeat(129), 1.0)),
        ("too_many_metrics", many_metrics("web", 257)),
        ("not_finite", cpu("web", f64::NAN)),
        ("not_finite", cpu("web", f64::INFINITY)),
        ("not_finite", cpu("web", f64::NEG_INFINITY)),
        ("too_new", cpu("web", 1.0).at(now + 6 * MINUTE)),
        ("too_new", cpu("web", 1.0).at(u64::MAX)),
        ("too_old", cpu("web", 1.0).at(1_700_000_000)),
        ("too_old", cpu("web", 1.0).at(now - 61 * MINUTE)),
        ("metric_cap", many_metrics("full", 256)),
    ];
    let good = || cpu("web", 50.0);
    // Between good ones, so that each proves that the stream goes on. `full` has a metric already that is not among
    // the 256 of its next report.
    let reports: Vec<_> =
        [cpu("full", 1.0)].into_iter().chain(bad.iter().flat_map(|(_, bad)| [bad.clone(), good()])).collect();
    let summary = balanced(server.client().send(reports).unwrap());
    let n = bad.len() as u64;
    assert_eq!((summary.received, summary.accepted, summary.rejected), (2 * n + 1, n + 1, n), "{summary:?}");
    for (reason, _) in &bad {
        let expected = bad.iter().filter(|(other, _)| other == reason).count() as f64;
        assert_eq!(rejected_for(&server, reason), expected, "{reason}");
    }
    // The first of each reason in a stream is logged, and only the first.
    for reason in ["bad_name", "not_finite", "too_new", "too_old", "no_service", "too_many_metrics"] {
        let lines = server.log().with_message("refused a report: the first of this stream for this reason");
        assert_eq!(lines.iter().filter(|line| line["reason"] == reason).count(), 1, "{reason}");
    }
    let balance = server.settle();
    assert_eq!((&balance["received"], &balance["rejected"]), (&(2 * n + 1).into(), &n.into()));
    assert_eq!(server.status_of("web"), "ok");
}

#[test]
fn a_report_with_no_metrics_and_one_with_256_are_accepted_and_a_repeated_metric_counts_last() {
    let server = Server::start();
    let twice = MetricReport {
        metrics: [99.0, 10.0].map(|value| Metric { name: "cpu_percent".to_owned(), value }).to_vec(),
        ..cpu("twice", 0.0)
    };
    let reports = [many_metrics("none", 0), many_metrics("many", 256), twice];
    let summary = server.client().send(reports).unwrap();
    assert_eq!((summary.accepted, summary.alerts_raised), (3, 0));
}

#[test]
fn a_stream_in_which_nothing_can_be_named_is_an_invalid_argument() {
    let server = Server::start();
    let status = server.client().send([cpu("", 1.0), cpu("", 2.0)]).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains("service-id"), "{status:?}");
    assert_eq!(server.settle()["rejected"], 2);
}

#[test]
fn the_metadata_names_the_service_of_reports_that_name_none() {
    let server = Server::start();
    let client = server.client();
    let summary = client.send_with(&[("service-id", "checkout")], [cpu("", 1.0), cpu("other", 1.0)]).unwrap();
    assert_eq!(summary.accepted, 2);
    assert_eq!(server.status_of("checkout"), "ok");
    assert_eq!(server.status_of("other"), "ok");
}

#[test]
fn malformed_metadata_is_refused_at_once() {
    let server = Server::start();
    for (key, value) in [
        ("service-id", "not a name"),
        ("service-id", ""),
        ("agent-epoch", "0x7"),
        ("agent-epoch", "-1"),
        ("agent-epoch", ""),
    ] {
        let status = server.client().send_with(&[(key, value)], [cpu("web", 1.0)]).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{key}: {value:?}: {status:?}");
        assert!(status.message().contains(key), "{status:?}");
    }
    assert_eq!(server.status_of("web"), "", "no report was read");
}

#[test]
fn the_skew_of_an_agents_clock_is_subtracted_before_a_reading_is_too_new() {
    let server = Server::start();
    let ahead = now_nanos() + 60 * MINUTE;
    let summary = server
        .client()
        .send_with(&[("agent-time-unix-nano", &ahead.to_string())], [cpu("web", 1.0).at(ahead)])
        .unwrap();
    assert_eq!(summary.accepted, 1);
    let skew = server.service("web").unwrap()["instances"][0]["clock_skew_seconds"].as_f64().unwrap();
    assert!((3_590.0..3_610.0).contains(&skew), "{skew}");
}

#[test]
fn an_oversized_message_ends_its_stream_only() {
    let server = Server::start();
    let client = server.client();
    let open = client.open(&[]);
    assert!(open.push(cpu("web", 1.0)));
    // What tonic would take unless told otherwise, and what it would not.
    for n_bytes in [65 << 10, 10 << 20] {
        let large = MetricReport { service_name: "x".repeat(n_bytes), ..MetricReport::default() };
        let status = client.send([large]).unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{n_bytes} bytes: {status:?}");
    }
    assert!(open.push(cpu("web", 2.0)));
    assert_eq!(open.finish().unwrap().accepted, 2);
    assert!(server.peak_mib() < 200, "{} MiB", server.peak_mib());
}

#[test]
fn malformed_protobuf_ends_its_stream_only() {
    let server = Server::start();
    let client = server.client();
    let open = client.open(&[]);
    assert!(open.push(cpu("web", 1.0)));
    for bytes in [&b"\xff\xff\xff\xff"[..], b"\x0a\x7fshort", b"\x0a\x02\xff\xfe"] {
        let code = send_raw(&client, bytes.to_vec()).unwrap_err().code();
        assert!(matches!(code, Code::InvalidArgument | Code::Internal), "{code:?} for {bytes:?}");
    }
    assert!(open.push(cpu("web", 2.0)));
    assert_eq!(open.finish().unwrap().accepted, 2);
}

#[test]
fn http_1_and_garbage_on_the_grpc_port_are_dropped_and_others_served() {
    let server = Server::start();
    for bytes in [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], &[0; 64]]
    {
        let mut tcp = TcpStream::connect(server.grpc()).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        tcp.write_all(bytes).unwrap();
        let began = Instant::now();
        let mut answer = Vec::new();
        // The end, or a reset: both are the server's. A time-out would be our own.
        if let Err(err) = tcp.read_to_end(&mut answer) {
            assert_eq!(err.kind(), std::io::ErrorKind::ConnectionReset, "{err}");
        }
        assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    }
    assert_eq!(server.client().send([cpu("web", 1.0)]).unwrap().accepted, 1);
    assert_eq!(server.figure("gopherwatch_connections_dropped_total"), 3.0);
}

#[test]
fn a_connection_that_never_opens_http_2_is_dropped_in_time() {
    let server = Server::start();
    let mut silent: Vec<_> = (0..20).map(|_| TcpStream::connect(server.grpc()).unwrap()).collect();
    assert_eq!(server.client().send([cpu("web", 1.0)]).unwrap().accepted, 1);
    for tcp in &mut silent {
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(tcp.read(&mut [0; 8]).unwrap(), 0, "the server closes");
    }
    eventually(SOON, "they are counted", || server.figure("gopherwatch_connections_dropped_total") == 20.0);
}

#[test]
fn more_connections_than_descriptors_leave_the_server_its_own() {
    let server = Setup::new().descriptors(256).start();
    let client = server.client();
    let silent: Vec<_> = (0..400).map(|_| TcpStream::connect(server.grpc()).unwrap()).collect();
    // A part of the descriptors is theirs, the rest is for files, the store and REST.
    eventually(SOON, "they are let in", || server.figure("gopherwatch_connections_open") >= 64.0);
    let receipt = client.send((0..50).map(|n| cpu(&format!("s{n}"), 99.0))).unwrap();
    assert_eq!(receipt.alerts_raised, 50);
    assert_eq!(server.history_of(50, "").len(), 50);
    // Dropped in time they make room for the next.
    assert_eq!(server.client().send([cpu("web", 1.0)]).unwrap().accepted, 1);
    eventually(SOON, "all have been looked at", || server.figure("gopherwatch_connections_dropped_total") == 400.0);
    assert_eq!(server.figure("gopherwatch_accept_errors_total"), 0.0);
    drop(silent);
}

/// tonic's own loop asks again at once, and keeps a core busy for as long as there is no descriptor.
#[test]
fn without_a_descriptor_accepting_pauses_and_goes_on_by_itself() {
    let server = Server::start();
    let client = server.client();
    // So that asking for figures needs no descriptor more.
    assert_eq!(client.send([cpu("web", 1.0)]).unwrap().accepted, 1);
    server.limit_open_files(3);
    let waiting = TcpStream::connect(server.grpc()).unwrap();
    let failed = server.logged(5, "accepting a connection failed");
    let at = |n: usize| micros(&failed[n]["time"]).unwrap();
    assert!(at(4) - at(0) >= 350_000, "five tries within {} µs", at(4) - at(0));
    assert_eq!(client.send([cpu("web", 2.0)]).unwrap().accepted, 1, "those who are in are served");
    server.limit_open_files(1_024);
    drop(waiting);
    assert_eq!(server.client().send([cpu("web", 3.0)]).unwrap().accepted, 1);
    assert!(server.figure("gopherwatch_accept_errors_total") >= 5.0);
}

#[test]
fn health_and_reflection_are_served() {
    let server = Server::start();
    let channel = server.client().channel();
    runtime().block_on(async {
        let mut health = HealthClient::new(channel.clone());
        for service in ["", "gopherwatch.v1.MetricsService"] {
            let answer = health.check(HealthCheckRequest { service: service.to_owned() }).await.unwrap();
            assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
        }
        let unknown = health.check(HealthCheckRequest { service: "unknown".to_owned() }).await;
        assert_eq!(unknown.unwrap_err().code(), Code::NotFound);

        let ask = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut reflection = ServerReflectionClient::new(channel);
        let mut answers = reflection.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
        let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
        let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
        let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
        assert!(names.contains(&"gopherwatch.v1.MetricsService"), "{names:?}");
    });
}

#[test]
fn new_instances_beyond_the_caps_are_refused_and_known_ones_are_not() {
    let server = Setup::new().args("--max-instances 50 --max-instances-per-stream 30 --workers 2").start();
    let client = server.client();
    let reports = |from: usize, to: usize| (from..to).map(|n| cpu("web", 1.0).of(&format!("i{n}")));
    let first = balanced(client.send(reports(0, 40).chain(reports(0, 30))).unwrap());
    assert_eq!((first.accepted, first.rejected), (60, 10));
    let second = balanced(client.send(reports(30, 59)).unwrap());
    assert_eq!((second.accepted, second.rejected), (20, 9), "50 in all");
    let known = balanced(client.send(reports(0, 30)).unwrap());
    assert_eq!((known.accepted, known.rejected), (30, 0));
    assert_eq!(rejected_for(&server, "instance_cap"), 19.0);
    assert_eq!(server.status()["totals"]["instances"], 50);
    server.settle();
}

#[test]
fn who_calls_is_logged_once_per_connection() {
    let server = Server::start();
    let client = server.client();
    for _ in 0..3 {
        client.send_with(&[("service-id", "checkout")], [cpu("", 1.0)]).unwrap();
    }
    client.send_with(&[("service-id", "payments")], [cpu("", 1.0)]).unwrap();
    server.client().send_with(&[("service-id", "checkout")], [cpu("", 1.0)]).unwrap();
    let calls = found(SOON, "three lines", || {
        let lines = server.log().with_message("an agent calls");
        (lines.len() >= 3).then_some(lines)
    });
    let who: Vec<_> = calls.iter().map(|line| line["service-id"].as_str().unwrap()).collect();
    assert_eq!(who, ["checkout", "payments", "checkout"]);
    assert!(calls.iter().all(|line| line["level"] == "INFO"), "{calls:?}");
}

#[test]
fn two_hundred_and_fifty_six_streams_share_a_connection() {
    let server = Server::start();
    let client = server.client();
    let open: Vec<_> = (0..256).map(|_| client.open(&[])).collect();
    for (n, stream) in open.iter().enumerate() {
        assert!(stream.push(cpu(&format!("s{n}"), 1.0)));
    }
    eventually(SOON, "all are heard", || server.status()["totals"]["services"] == 256);
    for stream in open {
        assert_eq!(stream.finish().unwrap().accepted, 1);
    }
}

#[test]
fn rest_answers_nonsense_clearly() {
    let server = Server::start();
    for (path, code, word) in [
        ("/nowhere", 404, "no such"),
        ("/alerts/history?limit=abc", 400, "limit"),
        ("/alerts/history?limit=0", 400, "limit"),
        ("/alerts/history?limit=1001", 400, "limit"),
        ("/alerts/history?since=yesterday", 400, "since"),
        ("/alerts/history?cursor=%00", 400, "cursor"),
        ("/alerts/history?colour=blue", 400, "colour"),
        ("/status/unknown", 404, "service"),
    ] {
        let answer = server.get(path);
        assert_eq!(answer.code, code, "{path}: {answer:?}");
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{path}");
        let problem = answer.json();
        assert_eq!(problem["status"], code, "{path}");
        assert!(problem["detail"].as_str().unwrap().contains(word), "{path}: {problem}");
    }
}

/// The bytes of the test above are refused for what they are, not for how they were sent.
#[test]
fn raw_bytes_of_a_whole_report_are_a_report() {
    let server = Server::start();
    let client = server.client();
    let bytes = prost::Message::encode_to_vec(&cpu("web", 1.0));
    assert_eq!(send_raw(&client, bytes).unwrap().accepted, 1);
}

fn send_raw(client: &Client, bytes: Vec<u8>) -> Result<Summary, Status> {
    runtime().block_on(async {
        let mut grpc = tonic::client::Grpc::new(client.channel());
        grpc.ready().await.unwrap();
        let path = "/gopherwatch.v1.MetricsService/SendMetrics".parse().unwrap();
        let stream = Request::new(tokio_stream::iter([bytes]));
        grpc.client_streaming(stream, path, RawBytes::<Summary>::default()).await.map(Response::into_inner)
    })
}

/// Validation comes first (CONTRACT §2): a report that was refused is refused again, whatever came after it.
#[test]
fn a_report_with_too_many_new_metrics_is_no_duplicate_when_it_is_sent_again() {
    let server = Server::start();
    let client = server.client();
    let wide = |sequence: u64, prefix: &str| MetricReport {
        service_name: "web".to_owned(),
        sequence,
        metrics: (0..200).map(|n| Metric { name: format!("{prefix}{n}"), value: 1.0 }).collect(),
        ..MetricReport::default()
    };
    let first = client.send_epoch(7, [wide(1, "a"), wide(2, "b"), wide(3, "a")]).unwrap();
    assert_eq!((first.accepted, first.rejected), (2, 1));
    let again = client.send_epoch(7, [wide(2, "b"), wide(3, "a")]).unwrap();
    assert_eq!((again.rejected, again.duplicates), (1, 1));
}
