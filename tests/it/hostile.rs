//! Peers that mean harm, or are mad: the server answers or closes, keeps its memory, and serves the others meanwhile.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use gopherwatch_proto::v1::MetricReport;
use tonic::Code;

use crate::support::{
    client::balanced,
    figures::say,
    h2::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, call, frame, open, read_until,
    },
    reports::{Says, cpu},
    server::{Server, Setup},
    wait::{SOON, alone, eventually, found},
};

/// What a server may take while nobody honest asks much of it.
const MEMORY_CAP_MIB: u64 = 200;
/// Frames of a flood. Written in pieces of a thousand.
const FLOOD: u32 = 50_000;

/// Sends pieces until the server closes the connection or all are sent. What it answers is not read.
fn flood(addr: SocketAddr, pieces: impl Iterator<Item = Vec<u8>>) {
    let mut tcp = open(addr);
    for piece in pieces {
        if tcp.write_all(&piece).is_err() {
            return;
        }
    }
}

/// Runs floods, several at once, while an honest agent sends; nobody else may notice.
fn others_are_served(floods: &[&(dyn Fn(SocketAddr) + Sync)]) {
    let _alone = alone();
    let server = Server::start();
    let grpc = server.grpc();
    let done = AtomicBool::new(false);
    let n_sent = thread::scope(|scope| {
        let honest = scope.spawn(|| {
            let client = server.client();
            let mut n_sent = 0;
            // Once at least, however soon the floods are over.
            while n_sent == 0 || !done.load(Ordering::Relaxed) {
                n_sent += 1;
                let began = Instant::now();
                let receipt = balanced(client.send_epoch(7, [cpu("web", 50.0).numbered(n_sent)]).unwrap());
                assert_eq!(receipt.accepted, 1);
                assert!(began.elapsed() < Duration::from_secs(3), "a receipt took {:?}", began.elapsed());
                assert_eq!(server.get("/healthz").code, 200);
            }
            n_sent
        });
        let floods: Vec<_> = floods.iter().map(|flood| scope.spawn(move || flood(grpc))).collect();
        // Also when one of them panics.
        let ended: Vec<_> = floods.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|end| end.unwrap());
        honest.join().unwrap()
    });
    eventually(SOON, "only the honest agent is left", || server.figure("gopherwatch_connections_open") <= 1.0);
    assert_eq!(server.settle()["accepted"], n_sent);
    let peak = server.peak_mib();
    assert!(peak < MEMORY_CAP_MIB, "{peak} MiB");
}

#[test]
fn calls_opened_and_taken_back_at_once_harm_nobody_else() {
    let resets = |addr| {
        flood(
            addr,
            (0..FLOOD / 1_000).map(|piece| {
                let streams = (0..1_000).map(|n| 2 * (piece * 1_000 + n) + 1);
                let call = call();
                streams
                    .flat_map(|id| [frame(HEADERS, END_HEADERS, id, &call), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])])
                    .flatten()
                    .collect()
            }),
        );
    };
    others_are_served(&[&resets, &resets]);
}

#[test]
fn headers_that_never_end_harm_nobody_else() {
    let endless = |addr| {
        // `:path` and then one literal field after the other.
        let junk: Vec<u8> =
            (0..400).flat_map(|n| [&b"\x00\x04x"[..], format!("{n:03}").as_bytes(), b"\x01y"].concat()).collect();
        let first = frame(HEADERS, 0, 1, &call());
        let pieces = (0..FLOOD / 20).map(|_| frame(CONTINUATION, 0, 1, &junk).repeat(20));
        flood(addr, std::iter::once(first).chain(pieces));
    };
    let empty = |addr| {
        let first = frame(HEADERS, 0, 1, &call());
        let pieces = (0..FLOOD / 1_000).map(|_| frame(CONTINUATION, 0, 1, &[]).repeat(1_000));
        flood(addr, std::iter::once(first).chain(pieces));
    };
    others_are_served(&[&endless, &empty]);
}

#[test]
fn frames_without_content_harm_nobody_else() {
    let data = |addr| {
        let first = frame(HEADERS, END_HEADERS, 1, &call());
        let pieces = (0..4 * FLOOD / 1_000).map(|_| frame(DATA, 0, 1, &[]).repeat(1_000));
        flood(addr, std::iter::once(first).chain(pieces));
    };
    let pings = |addr| flood(addr, (0..4 * FLOOD / 1_000).map(|_| frame(PING, 0, 0, &[7; 8]).repeat(1_000)));
    let settings = |addr| flood(addr, (0..4 * FLOOD / 1_000).map(|_| frame(SETTINGS, 0, 0, &[]).repeat(1_000)));
    others_are_served(&[&data, &pings, &settings]);
}

#[test]
fn a_message_said_to_have_4_gib_is_refused_by_its_first_five_bytes() {
    let server = Server::start();
    for length in [u32::MAX, 1 << 31, 64 * 1024 + 1] {
        let mut tcp = open(server.grpc());
        tcp.write_all(&frame(HEADERS, END_HEADERS, 1, &call())).unwrap();
        tcp.write_all(&frame(DATA, 0, 1, &[&[0][..], &length.to_be_bytes(), b"some of it"].concat())).unwrap();
        let is_end = |kind, flags, stream| (kind, stream) == (HEADERS, 1) && flags & END_STREAM != 0;
        read_until(&mut tcp, is_end).expect("an answer, and not only an end");
    }
    assert_eq!(server.client().send([cpu("web", 1.0)]).unwrap().accepted, 1);
    assert!(server.peak_mib() < MEMORY_CAP_MIB, "{} MiB", server.peak_mib());
}

#[test]
fn metadata_of_64_kib_is_refused_and_others_are_served() {
    let server = Server::start();
    let client = server.client();
    let open = client.open(&[]);
    assert!(open.push(cpu("web", 1.0)));
    let status = server.client().send_with(&[("service-id", &"x".repeat(64 << 10))], [cpu("web", 1.0)]).unwrap_err();
    assert_ne!(status.code(), Code::Ok, "{status:?}");
    assert_eq!(open.finish().unwrap().accepted, 1);
    let mut tcp = TcpStream::connect(server.http()).unwrap();
    let head = format!("GET /status HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    // It may close before it has read all of that.
    let _ = tcp.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let _ = tcp.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(server.get("/status").code, 200);
}

#[test]
fn calls_spelled_out_byte_by_byte_keep_nobody_out() {
    let server = Server::start();
    let slow = frame(HEADERS, END_HEADERS, 1, &call());
    let mut peers: Vec<_> = (0..200).map(|_| open(server.grpc())).collect();
    let mut rest: Vec<_> = (0..300).map(|_| TcpStream::connect(server.http()).unwrap()).collect();
    for n in 0..20 {
        for peer in &mut peers {
            peer.write_all(&slow[n..=n]).unwrap();
        }
        for peer in &mut rest {
            // Those that were idle for longest are closed to make room.
            let _ = peer.write_all(&b"GET /status HTTP/1.1\r\n"[n..=n]);
        }
        assert_eq!(server.client().send([cpu("web", 1.0)]).unwrap().accepted, 1);
        assert_eq!(server.get("/healthz").code, 200);
    }
    assert!(server.peak_mib() < MEMORY_CAP_MIB, "{} MiB", server.peak_mib());
}

/// How many sockets this process may have.
fn soft_limit() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap_or(1 << 20)
}

#[test]
fn ten_thousand_idle_connections_keep_nobody_out_and_hold_up_no_stop() {
    let _alone = alone();
    let n = soft_limit().saturating_sub(2_000).min(10_000);
    let mut server = Server::start();
    // Each with its preface, so that none of them is dropped for being silent.
    let idle: Vec<_> = (0..n).map(|_| open(server.grpc())).collect();
    let taken = found(SOON, "they are taken", || {
        let open = server.figure("gopherwatch_connections_open");
        // On a machine with a low limit the server keeps descriptors back for others.
        (open >= n as f64 || open >= n as f64 * 0.4 && soft_limit() < 12_000).then_some(open)
    });
    let began = Instant::now();
    assert_eq!(server.get("/status").code, 200);
    if taken >= n as f64 {
        assert_eq!(server.client().send([cpu("web", 99.0)]).unwrap().alerts_raised, 1);
    }
    say(&format!(
        "{taken} idle connections, an answer and a receipt in {:?}, {} MiB",
        began.elapsed(),
        server.peak_mib()
    ));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(server.peak_mib() < 600, "{} MiB", server.peak_mib());
    let began = Instant::now();
    server.signal("TERM");
    assert_eq!(server.exit_code(Duration::from_secs(10)), 0);
    say(&format!("stopped in {:?}", began.elapsed()));
    drop(idle);
}

#[test]
fn with_256_descriptors_it_serves_whom_it_can_and_does_not_spin() {
    let server = Setup::new().descriptors(256).start();
    server.client().send([cpu("before", 99.0)]).unwrap();
    let before = server.cpu_seconds();
    let began = Instant::now();
    // More than there are places for, 64 and 256; the kernel lets them wait in their turn.
    let silent = |addr, n| (0..n).map(|_| TcpStream::connect(addr).unwrap()).collect::<Vec<_>>();
    let idle = [silent(server.grpc(), 90), silent(server.http(), 400)];
    // The silent ones are dropped after five seconds.
    let client = server.client();
    let receipt = balanced(client.send([cpu("web", 99.0)]).unwrap());
    assert_eq!((receipt.accepted, receipt.alerts_raised), (1, 1));
    found(SOON, "REST answers", || server.try_get("/status"));
    let (cpu_seconds, wall) = (server.cpu_seconds() - before, began.elapsed().as_secs_f64());
    say(&format!("{cpu_seconds:.2} s of processor in {wall:.1} s"));
    assert!(cpu_seconds < 1.0 + 0.5 * wall, "{cpu_seconds} s of processor in {wall} s: it spins");
    drop(idle);
    server.history_of(2, "");
    server.settle();
}

#[test]
fn more_names_than_there_is_room_for_are_refused_and_the_known_ones_are_not() {
    let _alone = alone();
    const ROOM: usize = 20_000;
    const NAMES: usize = 1_000_000;
    let server = Setup::new().args(&format!("--max-instances {ROOM}")).start();
    let client = server.client();
    client.send_epoch(7, [cpu("known", 99.0).numbered(1)]).unwrap();
    let began = Instant::now();
    let names = |from: usize| (from..from + 10_000).map(|n| MetricReport { ..cpu(&format!("name-{n}"), 10.0) });
    let streams: Vec<_> = (0..NAMES / 10_000).map(|n| client.stream(&[], names(n * 10_000))).collect();
    let (mut n_accepted, mut n_rejected) = (0, 0);
    for stream in streams {
        let receipt = balanced(stream.wait().unwrap());
        n_accepted += receipt.accepted;
        n_rejected += receipt.rejected;
    }
    let room = ROOM as u64 - 1;
    assert_eq!((n_accepted, n_rejected), (room, NAMES as u64 - room));
    say(&format!("{NAMES} names in {:.1} s, {} MiB", began.elapsed().as_secs_f64(), server.peak_mib()));
    assert!(server.peak_mib() < 512, "{} MiB", server.peak_mib());
    assert_eq!(server.status_of("known"), "critical", "what fires is never evicted");
    assert_eq!(client.send_epoch(7, [cpu("known", 1.0).numbered(2)]).unwrap().accepted, 1);
    server.settle();
    assert!(server.history_of(1, "")[0].resolved_at.is_some());
}
