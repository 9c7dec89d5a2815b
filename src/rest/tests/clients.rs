//! Clients that are slow, silent or many: they keep neither others nor the end of the server.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use super::{
    super::Options,
    support::{Hanging, Rows, Running, ask, connect, until},
};

/// Within this everything that does not wait for a slow client is over, also on a busy machine.
const SOON: Duration = Duration::from_secs(3);

fn half_a_head(it: &Running) -> TcpStream {
    let mut tcp = connect(it.addr());
    tcp.write_all(b"GET /status HTTP/1.1\r\nhost: te").expect("the connection holds");
    tcp
}

/// Reads until the server closes; whether by FIN or RST is its business.
fn closed_after(mut tcp: TcpStream) -> Duration {
    let start = Instant::now();
    let _ = tcp.read_to_end(&mut Vec::new());
    start.elapsed()
}

#[test]
fn any_number_of_silent_and_half_spoken_clients_leave_room_for_others() {
    let it = Running::with_store(Rows::default(), Options { max_connections: 8, ..Options::default() });
    let start = Instant::now();
    let silent: Vec<_> = (0..40).map(|_| (connect(it.addr()), half_a_head(&it))).collect();
    for _ in 0..10 {
        assert_eq!(it.get("/livez").status, 200);
    }
    // All of them together wait for less than one time-out.
    assert!(start.elapsed() < Options::default().header_read, "{:?}", start.elapsed());
    // The one more accepts.
    until("there are no more of them than places", || {
        it.server.runtime.as_ref().expect("it runs").metrics().num_alive_tasks() <= 8 + 1
    });
    assert!(start.elapsed() < Options::default().header_read, "the time-out did not do it: {:?}", start.elapsed());
    drop(silent);
}

#[test]
fn a_client_that_does_not_finish_its_head_is_closed_in_time() {
    let options = Options { header_read: Duration::from_millis(300), ..Options::default() };
    let it = Running::with_store(Rows::default(), options);
    let mut kept_alive = connect(it.addr());
    kept_alive.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n").expect("the connection holds");
    for tcp in [connect(it.addr()), half_a_head(&it), kept_alive] {
        assert!(closed_after(tcp) < SOON);
    }
}

#[test]
fn a_client_that_does_not_read_its_answer_is_closed_in_time() {
    let options = Options { request: Duration::from_millis(300), ..Options::default() };
    let it = Running::with_store(Rows::default(), options);
    let _reader = slow_reader(&it);
    until("its place is free", || it.server.runtime.as_ref().expect("it runs").metrics().num_alive_tasks() == 1);
}

/// A client of an answer larger than what the kernel buffers, which it does not read.
fn slow_reader(it: &Running) -> TcpStream {
    for n in 0..20_000 {
        let name = format!("a-service-whose-name-is-as-long-as-that-of-services-often-is-{n}");
        it.add(&name, "a", |_| {});
    }
    let mut tcp = connect(it.addr());
    tcp.write_all("GET /status HTTP/1.1\r\nhost: test\r\n\r\n".repeat(10).as_bytes()).expect("the connection holds");
    tcp.read_exact(&mut [0; 100]).expect("the connection holds");
    tcp
}

#[test]
fn one_connection_answers_one_request_after_the_other() {
    let it = Running::empty();
    let mut tcp = connect(it.addr());
    for _ in 0..3 {
        tcp.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n").expect("the connection holds");
        let mut answer = Vec::new();
        while !answer.ends_with(br#"{"status":"ok"}"#) {
            let mut byte = [0];
            tcp.read_exact(&mut byte).expect("the connection holds");
            answer.push(byte[0]);
        }
    }
}

#[test]
fn a_client_may_close_its_half_once_it_has_asked() {
    let it = Running::empty();
    let mut tcp = connect(it.addr());
    tcp.write_all(b"GET /alerts/history HTTP/1.0\r\n\r\n").expect("the connection holds");
    tcp.shutdown(std::net::Shutdown::Write).expect("the connection holds");
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).expect("the connection holds");
    assert!(answer.ends_with(r#"{"alerts":[],"next_cursor":null}"#), "{answer}");
}

#[test]
fn stopping_waits_for_nobody_who_is_idle_half_spoken_or_slow() {
    let it = Running::empty();
    let slow = slow_reader(&it);
    let (silent, half, idle) = (connect(it.addr()), half_a_head(&it), connect(it.addr()));
    // Accepted in order: when this one is answered, those before it are connections.
    assert_eq!(it.get("/livez").status, 200);
    let (addr, start) = (it.addr(), Instant::now());
    it.server.stop(Duration::from_secs(30));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert!(TcpStream::connect(addr).is_err(), "nobody listens any more");
    drop((slow, silent, half, idle));
}

#[test]
fn stopping_answers_the_requests_under_way() {
    let store = Hanging::default();
    let it = Running::with_store(store.clone(), Options::default());
    let addr = it.addr();
    let client = thread::spawn(move || ask(addr, "GET", "/alerts/history", ""));
    until("the read began", || store.n_reads.load(Ordering::SeqCst) == 1);
    let stopping = thread::spawn(move || it.server.stop(Duration::from_secs(30)));
    until("nobody listens any more", || TcpStream::connect(addr).is_err());
    store.release();
    assert_eq!(client.join().expect("the thread went well").status, 200);
    stopping.join().expect("the thread went well");
}

#[test]
fn stopping_ends_within_its_time_whatever_the_store_does() {
    let store = Hanging::default();
    let it = Running::with_store(store.clone(), Options { store_deadline: SOON * 10, ..Options::default() });
    let addr = it.addr();
    let mut tcp = connect(addr);
    tcp.write_all(b"GET /alerts/history HTTP/1.1\r\nhost: test\r\n\r\n").expect("the connection holds");
    until("a read began", || store.n_reads.load(Ordering::SeqCst) == 1);
    let start = Instant::now();
    it.server.stop(Duration::from_millis(200));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert!(closed_after(tcp) < SOON);
}
