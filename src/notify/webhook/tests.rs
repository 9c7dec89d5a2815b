//! Webhooks, against a listener that answers as it is told.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Instant, UNIX_EPOCH},
};

use expect_test::expect;

use super::*;
use crate::{
    model::{EventKind, InstanceKey, LifeEvent, RaiseId, ResolveReason, Severity, Timestamp},
    notify::{Notification, Occasion},
};

/// A critical alert of web/a, from the year 2026.
pub(in crate::notify) fn alert() -> crate::model::Alert {
    let key = Arc::new(InstanceKey::new("web", "a"));
    let id = RaiseId::Counter(1).alert_id(&key, "cpu-high");
    let at = Timestamp::from_nanos(1_795_401_565_000_001_000);
    crate::model::Alert {
        alert_id: id,
        episode_id: id,
        key,
        rule: "cpu-high".into(),
        metric: "cpu_percent".into(),
        value: 95.5,
        threshold: Some(90.0),
        severity: Severity::Critical,
        labels: Arc::new(BTreeMap::from([("team".to_owned(), "payments".to_owned())])),
        summary: "CPU of web/a is 95.5%".to_owned(),
        runbook_url: Some("https://example.com/cpu".into()),
        receivers: None,
        evidence: None,
        life: vec![LifeEvent { kind: EventKind::Raise, at, by: None, value: Some(95.5) }],
        late: false,
        triggered_at: at,
        received_at: at.plus(Duration::from_micros(300)),
        resolved_at: None,
        resolve_reason: None,
        last_value: 95.5,
        version: 1,
    }
}

fn raise() -> Notification {
    Notification { occasion: Occasion::Raise, alerts: vec![Arc::new(alert())], n_more: 0, key: "key-1".to_owned() }
}

fn webhook(url: &str, secret: Option<&str>) -> Webhook {
    let config = WebhookConfig { url: url.to_owned(), secret_file: None, allow_private: true };
    Webhook::new("ops".into(), &config, secret.map(Secret::new).as_ref(), "http://gw:8080")
}

/// Answers every connection with these bytes, once a whole request is there; what came.
fn answering(answer: &'static str) -> (SocketAddr, thread::JoinHandle<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = request(&stream);
        stream.write_all(answer.as_bytes()).unwrap();
        request
    });
    (addr, thread)
}

/// Head and body of a request.
fn request(stream: &TcpStream) -> (String, Vec<u8>) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "cut off: {head}");
    }
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    reader.read_exact(&mut body).unwrap();
    (head, body)
}

/// The outcome of a raise that is answered so.
fn outcome(answer: &'static str) -> Outcome {
    let (addr, thread) = answering(answer);
    let outcome = webhook(&format!("http://{addr}/"), None).send(&raise());
    thread.join().unwrap();
    outcome
}

#[test]
fn the_body_is_alertmanagers_and_one_key_more() {
    let (addr, thread) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let sent = webhook(&format!("http://{addr}/hook?a=b"), Some("hunter2")).send(&raise());
    assert_eq!(sent, Outcome::Done);
    let (head, body) = thread.join().unwrap();
    assert!(head.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{head}");
    let lower = head.to_lowercase();
    for header in ["content-type: application/json\r\n", "idempotency-key: key-1\r\n", "user-agent: gopherwatch/"] {
        assert!(lower.contains(header), "{header} is not in {head}");
    }
    let body = String::from_utf8(body).unwrap();
    expect![[r#"{"version":"4","groupKey":"{}:{alertname=\"cpu-high\", instance=\"a\", service=\"web\"}","truncatedAlerts":0,"status":"firing","receiver":"ops","groupLabels":{"alertname":"cpu-high","instance":"a","service":"web"},"commonLabels":{"alertname":"cpu-high","instance":"a","metric":"cpu_percent","service":"web","severity":"critical","team":"payments"},"commonAnnotations":{"runbook_url":"https://example.com/cpu","summary":"CPU of web/a is 95.5%"},"externalURL":"http://gw:8080","notification_reason":"first notification","alerts":[{"status":"firing","labels":{"alertname":"cpu-high","instance":"a","metric":"cpu_percent","service":"web","severity":"critical","team":"payments"},"annotations":{"runbook_url":"https://example.com/cpu","summary":"CPU of web/a is 95.5%"},"startsAt":"2026-11-23T02:39:25.000001Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"http://gw:8080/alerts/7221ef31-bdac-5ab2-bb7c-eeafec7858a4","fingerprint":"ccd4120b1587fc48"}],"gopherwatch":{"event":"raise","alert_id":"7221ef31-bdac-5ab2-bb7c-eeafec7858a4","version":1,"metric":"cpu_percent","value":95.5,"threshold":90.0,"last_value":95.5,"late":false,"triggered_at":"2026-11-23T02:39:25.000001Z","received_at":"2026-11-23T02:39:25.000301Z","resolved_at":null,"resolve_reason":null}}"#]].assert_eq(&body);
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"hunter2");
    assert!(lower.contains(&format!("x-gopherwatch-signature: {}\r\n", signature(&key, body.as_bytes()))), "{head}");
}

#[test]
fn signatures_are_those_of_rfc_4231() {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
    let told = signature(&key, b"what do ya want for nothing?");
    assert_eq!(told, "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

#[test]
fn a_resolve_says_when_and_a_digest_speaks_of_all() {
    let at = alert().triggered_at.plus(Duration::from_secs(60));
    let resolved = Arc::new(alert().resolved(at, ResolveReason::Cleared, Some(20.0)));
    let told = |occasion, alerts: Vec<_>, n_more| -> serde_json::Value {
        let notification = Notification { occasion, alerts, n_more, key: String::new() };
        serde_json::from_slice(&body::body("ops", "http://gw:8080", &notification)).unwrap()
    };
    let one = told(Occasion::Resolve, vec![resolved.clone()], 0);
    assert_eq!((&one["status"], &one["alerts"][0]["status"]), (&"resolved".into(), &"resolved".into()));
    assert_eq!(one["alerts"][0]["endsAt"], "2026-11-23T02:40:25.000001Z");
    assert_eq!(one["notification_reason"], "all alerts resolved");
    assert_eq!((&one["gopherwatch"]["resolve_reason"], &one["gopherwatch"]["version"]), (&"cleared".into(), &2.into()));

    let mut other = (*resolved).clone();
    other.key = Arc::new(InstanceKey::new("web", "b"));
    let many = told(Occasion::Digest, vec![resolved, Arc::new(other)], 5);
    assert_eq!((&many["groupKey"], &many["truncatedAlerts"]), (&"{}:{}".into(), &5.into()));
    assert_eq!((&many["commonLabels"]["service"], many["commonLabels"].get("instance")), (&"web".into(), None));
    assert_eq!(many["gopherwatch"]["event"], "digest");
    assert_eq!(many["gopherwatch"]["alerts"].as_array().map(Vec::len), Some(2));
    assert_eq!(many["gopherwatch"].get("alert_id"), None);
}

#[test]
fn the_status_alone_decides() {
    for done in
        ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 202 OK\r\ncontent-length: 9\r\n\r\nx"]
    {
        assert_eq!(outcome(done), Outcome::Done, "{done}");
    }
    let retry = |answer| match outcome(answer) {
        Outcome::Retry { after, why } => (after, why),
        other => panic!("{answer}: {other:?}"),
    };
    let (after, why) = retry("HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 9\r\n\r\ncome\nback");
    assert_eq!((after, why.as_str()), (Some(Duration::from_secs(7)), "it answered 503 Service Unavailable: come back"));
    assert_eq!(retry("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n").0, None);
    assert_eq!(retry("HTTP/1.1 429 Slow\r\nretry-after: 86400\r\n\r\n").0, Some(MAX_RETRY_AFTER));
    assert_eq!(retry("HTTP/1.1 429 Slow\r\nretry-after: 99999999999999999999\r\n\r\n").0, Some(MAX_RETRY_AFTER));
    retry("HTTP/1.1 408 Late\r\n\r\n");
    retry("nonsense\r\n\r\n");
    for refused in ["HTTP/1.1 400 Bad\r\n\r\n", "HTTP/1.1 404 No\r\n\r\n", "HTTP/1.1 410 Gone\r\n\r\n"] {
        assert!(matches!(outcome(refused), Outcome::Refused { .. }), "{refused}");
    }
}

#[test]
fn a_redirect_is_not_followed() {
    for status in ["301", "302", "303", "307", "308"] {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        other.set_nonblocking(true).unwrap();
        let to = other.local_addr().unwrap();
        let answer: &'static str =
            format!("HTTP/1.1 {status} X\r\nlocation: http://{to}/\r\ncontent-length: 0\r\n\r\n").leak();
        let Outcome::Refused { why } = outcome(answer) else { panic!("{status} is an answer like another") };
        assert!(why.contains("redirects are not followed") && !why.contains(&to.to_string()), "{why}");
        assert_eq!(other.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody came by {status}");
    }
}

/// Pages of errors like to repeat what they were asked for.
#[test]
fn what_admits_to_a_webhook_is_not_shown_when_its_answer_repeats_it() {
    let secrets = secrets("https://example.com/hooks/T0KEN-1?key=s3cr3tkey&x=1");
    let said = secrets
        .iter()
        .fold("no T0KEN-1 at /hooks/T0KEN-1?key=s3cr3tkey&x=1, key s3cr3tkey".to_owned(), |text, part| {
            text.replace(part, "[hidden]")
        });
    assert_eq!(said, "no [hidden] at [hidden], key [hidden]");
    assert!(super::secrets("https://example.com").is_empty() && super::secrets("https://example.com/").is_empty());
}

#[test]
fn an_endless_answer_is_cut_off() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        request(&stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").unwrap();
        let mut n_bytes = 0_u64;
        while stream.write_all(&[b'x'; 4_096]).is_ok() {
            n_bytes += 4_096;
        }
        n_bytes
    });
    assert_eq!(webhook(&format!("http://{addr}/"), None).send(&raise()), Outcome::Done);
    // What the kernel takes for itself is in it.
    assert!(thread.join().unwrap() < 100_000_000);
}

#[test]
fn a_name_that_leads_inside_is_not_connected_to() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
    let config = WebhookConfig { url, secret_file: None, allow_private: false };
    let Outcome::Retry { why, .. } = Webhook::new("ops".into(), &config, None, "").send(&raise()) else {
        panic!("the name may lead elsewhere some day")
    };
    assert!(why.contains("say allow_private = true"), "{why}");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn nobody_there_is_told_soon() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let began = Instant::now();
    let Outcome::Retry { after: None, why } = webhook(&format!("http://{addr}/"), None).send(&raise()) else {
        panic!("somebody may come")
    };
    assert!(began.elapsed() < CONNECT_WAIT && why.to_lowercase().contains("refused"), "{why}");
}

#[test]
fn a_wish_to_be_left_alone_comes_in_two_forms() {
    let after = |text: &str| {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
        retry_after(&headers, UNIX_EPOCH + Duration::from_secs(784_111_777))
    };
    assert_eq!(after("120"), Some(Duration::from_secs(120)));
    assert_eq!(after("Sun, 06 Nov 1994 08:51:37 GMT"), Some(Duration::from_secs(120)));
    assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
    assert_eq!(after("Fri, 01 Jan 2100 00:00:00 GMT"), Some(MAX_RETRY_AFTER));
    assert_eq!((after("soon"), after("-5")), (None, None));
}
