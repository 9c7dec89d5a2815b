//! Requests that change something: who may ask, and what is asked of control. What control makes of it is tested with
//! the whole server, in tests/it.

use super::support::Running;

const CHANGES: [(&str, &str); 2] = [("POST", "/-/reload"), ("DELETE", "/services/web/instances/a")];

#[test]
fn other_methods_are_told_which_one_there_is() {
    let it = Running::empty();
    for (allowed, path) in CHANGES {
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE"].into_iter().filter(|method| *method != allowed) {
            let answer = it.ask(method, path, "content-length: 0\r\n");
            assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method} {path}");
        }
    }
    assert!(it.requests.is_empty(), "nothing was asked of control");
}

#[test]
fn pages_of_other_origins_are_refused_and_our_own_are_not() {
    let it = Running::empty();
    it.add("web", "a", |_| {});
    for (method, path) in CHANGES {
        for foreign in
            ["http://evil.example", "null", "https://test:8080", "test", "http://test.evil.example", "\u{e9}"]
        {
            let detail = it.ask(method, path, &format!("origin: {foreign}\r\n")).problem(403);
            assert_eq!(detail, "a page of another origin may not ask this", "{foreign}");
        }
    }
    assert!(it.requests.is_empty(), "nothing was asked of control");
    drop(it);
    for (method, path) in CHANGES {
        for origin in ["", "origin: http://test\r\n", "origin: https://TEST\r\n"] {
            let mut it = Running::empty();
            it.add("web", "a", |_| {});
            it.control_ends();
            it.ask(method, path, origin).problem(503);
        }
    }
}

#[test]
fn a_body_is_ignored_and_a_long_one_refused() {
    let mut it = Running::empty();
    it.control_ends();
    let detail = it.ask_with_body("POST", "/-/reload", 64 * 1024).problem(503);
    assert_eq!(detail, "the server is stopping");
    let detail = it.ask_with_body("POST", "/-/reload", 64 * 1024 + 1).problem(413);
    assert_eq!(detail, "this needs no body; one of more than 65536 bytes is not read");
}

#[test]
fn an_unknown_instance_or_parameter_is_not_passed_on() {
    let it = Running::empty();
    it.add("web", "a/b", |_| {});
    for path in ["/services/web/instances/b", "/services/other/instances/a", "/services/web/instances/a%252Fb"] {
        assert_eq!(it.ask("DELETE", path, "").problem(404), "no such instance is known", "{path}");
    }
    it.ask("DELETE", "/services/web/instances", "").problem(404);
    it.ask("DELETE", "/services/web/instances/a%2Fb?force=1", "").problem(400);
    it.ask("POST", "/-/reload?dry=1", "").problem(400);
    assert!(it.requests.is_empty(), "nothing was asked of control");
}

#[test]
fn more_requests_than_may_wait_are_told_to_come_again() {
    let it = Running::empty();
    while it.control.reload(crate::control::By::Signal).is_ok() {}
    let answer = it.ask("POST", "/-/reload", "");
    assert_eq!(answer.problem(503), "earlier changes are still on their way to the lanes");
    assert!(answer.header("retry-after").is_some());
}
