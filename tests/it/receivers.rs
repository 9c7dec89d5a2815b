//! Somebody is told: by webhook, signed, at least once, in order, and to nobody's delay (CONTRACT §3, [[receivers]]).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    reports::{Says, cpu, now_nanos},
    server::{Server, Setup},
    wait::{SOON, alone, eventually, found},
    webhook::{Hook, Post},
    workload::{Breach, Workload},
};

const RULE: &str = "[[rules]]\nname = \"cpu-high\"\nwhen = \"cpu_percent > 90\"\n\
                    labels = { team = \"payments\" }\nrunbook_url = \"https://example.com/cpu\"\n";
const FILE: &str = "gopherwatch.toml";

/// With this hook as the only receiver.
fn setup(hook: &Hook, fields: &str) -> Setup {
    Setup::new().rules(&(hook.receiver("ops", fields) + RULE))
}

/// FNV-1a over the labels of web/a, as Alertmanager takes it.
fn fingerprint() -> String {
    let labels = "alertname\u{0}cpu-high\u{0}instance\u{0}a\u{0}metric\u{0}cpu_percent\u{0}service\u{0}web\u{0}severity\u{0}critical\u{0}\
                  team\u{0}payments\u{0}";
    let bytes = labels.bytes().map(|byte| if byte == 0 { 0xff } else { byte });
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// What `/readyz` says of receivers: the whole status, this check's, and its detail.
fn check(server: &Server) -> (String, String, String) {
    let answer = server.get("/readyz").json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let check = &answer["checks"]["receivers"];
    (text(&answer["status"]), text(&check["status"]), text(&check["detail"]))
}

#[test]
fn a_raise_and_its_resolve_are_posted_to_the_byte_and_signed() {
    let _alone = alone();
    let hook = Hook::start();
    let setup = setup(&hook, "secret_file = \"ops.key\"").file("ops.key", "hunter2\n");
    let server = setup.start();
    server.client().send_epoch(7, [cpu("web", 95.5).of("a").numbered(1)]).unwrap();
    server.client().send_epoch(7, [cpu("web", 20.0).of("a").numbered(2)]).unwrap();
    let posts = hook.posts_of(2);
    server.settle();
    let row = server.get("/alerts/history").json()["alerts"][0].clone();
    let text = |name: &str| row[name].as_str().unwrap().to_owned();
    let (id, began, received, ended) =
        (text("alert_id"), text("triggered_at"), text("received_at"), text("resolved_at"));
    let origin = format!("http://{}", server.http());
    let labels = r#"{"alertname":"cpu-high","instance":"a","metric":"cpu_percent","service":"web","severity":"critical","team":"payments"}"#;
    let annotations =
        r#"{"runbook_url":"https://example.com/cpu","summary":"cpu_percent of web/a is 95.5 (cpu_percent > 90)"}"#;
    let expected = |status: &str, reason: &str, ends: &str, extra: &str| {
        format!(
            r#"{{"version":"4","groupKey":"{{}}:{{alertname=\"cpu-high\", instance=\"a\", service=\"web\"}}","truncatedAlerts":0,"status":"{status}","receiver":"ops","groupLabels":{{"alertname":"cpu-high","instance":"a","service":"web"}},"commonLabels":{labels},"commonAnnotations":{annotations},"externalURL":"{origin}","notification_reason":"{reason}","alerts":[{{"status":"{status}","labels":{labels},"annotations":{annotations},"startsAt":"{began}","endsAt":"{ends}","generatorURL":"{origin}/alerts/{id}","fingerprint":"{}"}}],"gopherwatch":{extra}}}"#,
            fingerprint()
        )
    };
    let extra = |event: &str, version: u32, last: f64, ended: &str, why: &str| {
        format!(
            r#"{{"event":"{event}","alert_id":"{id}","version":{version},"metric":"cpu_percent","value":95.5,"threshold":90.0,"last_value":{last:?},"late":false,"triggered_at":"{began}","received_at":"{received}","resolved_at":{ended},"resolve_reason":{why}}}"#
        )
    };
    let body = |post: &Post| String::from_utf8(post.body.clone()).unwrap();
    let raise = extra("raise", 1, 95.5, "null", "null");
    assert_eq!(body(&posts[0]), expected("firing", "first notification", "0001-01-01T00:00:00Z", &raise));
    let resolve = extra("resolve", 2, 20.0, &format!("\"{ended}\""), "\"cleared\"");
    assert_eq!(body(&posts[1]), expected("resolved", "all alerts resolved", &ended, &resolve));

    assert_eq!((posts[0].key(), posts[1].key()), (format!("{id}-1-raise"), format!("{id}-2-resolve")));
    for post in &posts {
        assert!(post.head.starts_with("POST /ops HTTP/1.1\r\n"), "{post:?}");
        assert_eq!(post.header("content-type").unwrap(), "application/json");
        assert!(post.header("user-agent").unwrap().starts_with("gopherwatch/"));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"hunter2");
        let tag = ring::hmac::sign(&key, &post.body);
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(post.header("x-gopherwatch-signature").unwrap(), format!("sha256={hex}"));
    }
    assert_eq!(check(&server), ("ready".to_owned(), "ok".to_owned(), "ops".to_owned()));
    let figure = |name: &str| server.figure(&format!("gopherwatch_receiver_{name}"));
    eventually(SOON, "it is counted", || figure("notifications_total") == 2.0 && figure("pending") == 0.0);
    assert_eq!((figure("errors_total"), figure("dead_letters")), (0.0, 0.0));
    assert_eq!(server.figure("gopherwatch_raise_told_seconds_count"), 1.0);
    let shown = server.log().text() + &server.get("/metrics").body + &server.get("/rules").body;
    assert!(!shown.contains("hunter2"));
}

#[test]
fn without_a_receiver_it_is_said_that_nobody_is_told() {
    let server = Server::start();
    server.logged(1, "nobody is told of alerts: the rule file has no [[receivers]]");
    let (ready, status, detail) = check(&server);
    assert_eq!((ready.as_str(), status.as_str()), ("ready", "ok"));
    assert!(detail.contains("nobody is told"), "{detail}");
}

#[test]
fn what_is_told_survives_a_kill_between_raise_and_post() {
    let _alone = alone();
    let hook = Hook::start();
    hook.hangs(true);
    let setup = setup(&hook, "");
    let mut server = setup.start();
    server.client().send([cpu("a", 95.0), cpu("b", 95.0)]).unwrap();
    let before = hook.posts_of(2);
    server.kill9();
    hook.hangs(false);
    let server = server.start_again("");
    let posts = hook.posts_of(4);
    let keys = |posts: &[Post]| {
        let mut keys: Vec<_> = posts.iter().map(Post::key).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&before), keys(&posts[2..]), "whoever knows the keys is told once");
    assert_eq!(before[0].body.len(), posts[2].body.len());
    server.client().send([cpu("c", 95.0)]).unwrap();
    assert_eq!(hook.told(5)[4], "raise c/default");
}

/// One page that its receiver cannot take used to bring all that were told behind it again with every restart.
#[test]
fn one_that_always_fails_does_not_bring_the_others_again_after_a_kill() {
    let hook = Hook::start();
    hook.chokes_on("raise poison/default");
    let setup = setup(&hook, "");
    let mut server = setup.start();
    server.client().send([cpu("poison", 95.0)]).unwrap();
    server.client().send((0..20).map(|n| cpu(&format!("s{n}"), 95.0))).unwrap();
    let told = |posts: &[Post]| posts.iter().filter(|post| post.words() != "raise poison/default").count();
    eventually(SOON, "the others are told", || told(&hook.posts()) == 20);
    let figure = |name: &str| server.figure(&format!("gopherwatch_receiver_{name}"));
    eventually(SOON, "and that is counted", || figure("notifications_total") == 20.0);
    // A receipt comes with a commit, and what the receiver has been told is part of that.
    server.client().send([cpu("poison", 96.0)]).unwrap();
    server.kill9();
    let n_before = hook.posts().len();
    let server = server.start_again("");
    eventually(SOON, "the one that fails is tried again", || hook.posts().len() >= n_before + 2);
    server.client().send([cpu("after", 95.0)]).unwrap();
    eventually(SOON, "who comes last", || hook.posts().iter().any(|post| post.words() == "raise after/default"));
    assert_eq!(told(&hook.posts()), 21);
}

#[test]
fn a_receiver_that_was_away_is_told_in_order_when_it_is_back() {
    let _alone = alone();
    let hook = Hook::start();
    let addr = hook.addr();
    let setup = setup(&hook, "");
    drop(hook);
    let server = setup.start();
    for percent in [95.0, 10.0, 96.0] {
        server.client().send([cpu("web", percent)]).unwrap();
    }
    eventually(SOON, "it is seen to be away", || check(&server).1 == "degraded");
    let (ready, _, detail) = check(&server);
    assert!(ready == "degraded" && detail.starts_with("ops does not take what it is told"), "{ready}: {detail}");
    server.logged(1, "a receiver does not take what it is told: it is told again for 24 h");
    let hook = Hook::at(addr);
    assert_eq!(hook.told(3), ["raise web/default", "resolve web/default", "raise web/default"]);
    eventually(SOON, "all is well", || check(&server).1 == "ok");
    server.logged(1, "a receiver takes what it is told again");
    assert!(server.figure("gopherwatch_receiver_errors_total") >= 1.0);
}

#[test]
fn an_error_is_tried_again_and_its_wish_to_wait_is_heeded() {
    let _alone = alone();
    let hook = Hook::start();
    hook.answers(&["500 Oh\r\n", "429 Slow\r\nretry-after: 3\r\n"]);
    let server = setup(&hook, "").start();
    server.client().send([cpu("web", 95.0)]).unwrap();
    let posts = hook.posts_of(3);
    assert_eq!((posts[0].key(), &posts[0].body), (posts[2].key(), &posts[2].body));
    assert!(posts[1].came - posts[0].came >= Duration::from_millis(500));
    assert!(posts[2].came - posts[1].came >= Duration::from_secs(3));
    eventually(SOON, "it is counted", || server.figure("gopherwatch_receiver_notifications_total") == 1.0);
    assert_eq!(server.figure("gopherwatch_receiver_errors_total"), 2.0);
}

#[test]
fn what_is_refused_or_sent_on_is_a_dead_letter_and_the_rest_goes_on() {
    let _alone = alone();
    let (hook, other) = (Hook::start(), Hook::start());
    let location = format!("302 Found\r\nlocation: http://{}/\r\n", other.addr());
    hook.answers(&[&location, "404 Not Found\r\n"]);
    let mut server = setup(&hook, "").start();
    server.client().send([cpu("a", 95.0)]).unwrap();
    hook.posts_of(1);
    let line = server.logged(1, "a receiver is not told: what it was to hear is a dead letter")[0].clone();
    assert_eq!((line["level"].as_str(), line["receiver"].as_str()), (Some("ERROR"), Some("ops")));
    assert!(line["error"].as_str().unwrap().contains("redirects are not followed"), "{line}");
    let (ready, status, detail) = check(&server);
    assert_eq!((ready.as_str(), status.as_str()), ("degraded", "degraded"));
    assert!(detail.starts_with("ops was not told"), "{detail}");
    server.client().send([cpu("b", 95.0)]).unwrap();
    hook.posts_of(2);
    server.client().send([cpu("c", 95.0)]).unwrap();
    hook.posts_of(3);
    eventually(SOON, "it is told again", || server.figure("gopherwatch_receiver_notifications_total") == 1.0);
    assert!(other.posts().is_empty());
    assert_eq!(server.figure("gopherwatch_receiver_dead_letters"), 2.0);
    let (_, status, detail) = check(&server);
    assert!(status == "degraded" && detail.contains("404"), "whoever looks in later is to see it: {detail}");
    server.settle();
    server.stop();
    let server = server.start_again("");
    assert_eq!(server.figure("gopherwatch_receiver_dead_letters"), 2.0, "they are kept");
    eventually(SOON, "and shown", || check(&server).2.starts_with("ops was not told"));
    assert_eq!(hook.posts().len(), 3, "and nothing is told twice");
}

#[test]
fn a_receiver_that_hangs_holds_up_neither_receipts_nor_a_stop() {
    let _alone = alone();
    let (hook, other) = (Hook::start(), Hook::start());
    hook.hangs(true);
    let rules = hook.receiver("ops", "") + &other.receiver("chat", "") + RULE;
    let mut server = Setup::new().rules(&rules).start();
    for n in 0..50 {
        let summary = server.client().send([cpu(&format!("service-{n}"), 95.0)]).unwrap();
        assert_eq!((summary.accepted, summary.alerts_raised), (1, 1));
    }
    other.posts_of(50);
    server.settle();
    assert_eq!(hook.posts_of(8).len(), 8, "as many as are under way at once");
    assert_eq!(server.stop(), 0);
    assert_eq!(
        server.log().with_message("left notifications under way: they are sent again after the next start").len(),
        1
    );
    hook.hangs(false);
    let _server = server.start_again("");
    hook.posts_of(58);
    assert_eq!(other.posts().len(), 50, "who was told is not told again");
}

#[test]
fn a_name_that_leads_inside_is_not_told_until_that_is_allowed() {
    let _alone = alone();
    let hook = Hook::start();
    let receiver = hook.receiver("ops", "").replace("127.0.0.1", "localhost");
    let refused = receiver.replace("allow_private = true", "");
    let setup = Setup::new().rules(&(refused + RULE));
    let server = setup.start();
    server.client().send([cpu("web", 95.0)]).unwrap();
    eventually(SOON, "it is said", || check(&server).2.contains("say allow_private = true"));
    assert!(hook.posts().is_empty());
    fs::write(setup.cwd().join(FILE), receiver + RULE).unwrap();
    assert_eq!(server.post("/-/reload").code, 200);
    assert_eq!(hook.told(1), ["raise web/default"], "it was kept, and goes out at once");
}

#[test]
fn late_alerts_that_are_over_are_one_digest_and_one_that_fires_is_a_page() {
    let hook = Hook::start();
    let server = setup(&hook, "send_resolved = false").start();
    let begin = now_nanos() - 600_000_000_000;
    let backlog = |service: &str, values: &[f64]| {
        let report = |(n, value): (usize, &f64)| {
            cpu(service, *value).numbered(n as u64 + 1).at(begin + n as u64 * 1_000_000_000)
        };
        values.iter().enumerate().map(report).collect::<Vec<_>>()
    };
    server.client().send_epoch(7, backlog("web", &[95.0, 10.0, 96.0, 10.0])).unwrap();
    server.client().send_epoch(7, backlog("db", &[95.0, 10.0])).unwrap();
    server.client().send_epoch(7, backlog("cache", &[95.0])).unwrap();
    server.client().send([cpu("live", 95.0)]).unwrap();
    assert_eq!(hook.told(1), ["raise live/default"], "what is not late does not wait");
    let mut told = hook.told(3);
    told.sort();
    assert_eq!(told, ["digest web/default web/default db/default", "raise cache/default", "raise live/default"]);
    let posts = hook.posts();
    let digest = posts.iter().find(|post| post.words().starts_with("digest")).unwrap();
    let body = digest.json();
    assert_eq!((&body["status"], &body["truncatedAlerts"]), (&"resolved".into(), &0.into()));
    assert!(body["gopherwatch"]["alerts"].as_array().unwrap().iter().all(|alert| alert["late"] == true));
    assert_eq!(body["commonLabels"]["alertname"], "cpu-high");
}

#[test]
fn held_back_alerts_survive_a_kill() {
    let hook = Hook::start();
    let mut server = setup(&hook, "").start();
    let begin = now_nanos() - 600_000_000_000;
    let report = |n: u64, percent| cpu("web", percent).numbered(n).at(begin + n * 1_000_000_000);
    server.client().send_epoch(7, [report(1, 95.0), report(2, 10.0), report(3, 96.0)]).unwrap();
    server.kill9();
    let _server = server.start_again("");
    let mut told = hook.told(2);
    told.sort();
    assert_eq!(told, ["digest web/default", "raise web/default"]);
}

#[test]
fn one_that_still_fires_is_told_again_and_resolves_go_to_those_who_want_them() {
    let _alone = alone();
    let (hook, other) = (Hook::start(), Hook::start());
    let rule = RULE.to_owned() + "repeat = \"1s\"\n";
    let server = Setup::new()
        .rules(&(hook.receiver("ops", "send_resolved = false") + &other.receiver("chat", "") + &rule))
        .start();
    server.client().send([cpu("web", 95.0)]).unwrap();
    found(SOON, "it is told again twice", || (hook.posts().len() >= 3).then_some(()));
    server.client().send([cpu("web", 10.0)]).unwrap();
    found(SOON, "the resolve comes", || {
        other.posts().iter().any(|post| post.words() == "resolve web/default").then_some(())
    });
    let posts = hook.posts();
    assert!(posts[1..].iter().all(|post| post.words() == "repeat web/default"), "{posts:?}");
    assert_eq!(posts[1].json()["notification_reason"], "repeat interval elapsed");
    assert_ne!(posts[1].key(), posts[2].key(), "each time is another one");
}

#[test]
fn a_reload_adds_changes_and_removes_receivers() {
    let _alone = alone();
    let (ops, chat, moved) = (Hook::start(), Hook::start(), Hook::start());
    let setup = setup(&ops, "");
    let server = setup.start();
    let reload = |text: &str| {
        fs::write(setup.cwd().join(FILE), text).unwrap();
        let answer = server.post("/-/reload");
        assert_eq!(answer.code, 200, "{answer:?}");
    };
    server.client().send([cpu("old", 95.0)]).unwrap();
    ops.posts_of(1);

    // A new one hears of nothing that was before it, and of everything from then on.
    let only_chat = RULE.to_owned() + "receivers = [\"chat\"]\n";
    reload(&(ops.receiver("ops", "") + &chat.receiver("chat", "") + &only_chat));
    server.client().send([cpu("new", 95.0)]).unwrap();
    assert_eq!(chat.told(1), ["raise new/default"]);

    // Who was told of a raise is told of its resolve, whatever the rule says by then.
    reload(&(ops.receiver("ops", "") + &chat.receiver("chat", "") + RULE + "receivers = [\"ops\"]\n"));
    server.client().send([cpu("new", 10.0)]).unwrap();
    assert_eq!(chat.told(2)[1], "resolve new/default");
    assert_eq!(ops.posts().len(), 1);

    // What is still to be told goes where it is now.
    ops.hangs(true);
    chat.answers(&["500 Oh\r\n"]);
    reload(&(chat.receiver("chat", "") + RULE));
    server.logged(1, "a receiver is gone from the rule file");
    server.client().send([cpu("third", 95.0)]).unwrap();
    chat.posts_of(3);
    reload(&(moved.receiver("chat", "") + RULE));
    assert_eq!(moved.told(1), ["raise third/default"]);
    assert_eq!(server.figure("gopherwatch_receiver_pending{receiver=\"ops\"}"), 0.0);
    assert!(!server.get("/metrics").body.contains("receiver=\"ops\""), "it is gone");
    assert_eq!(ops.posts().len(), 1);
    ops.hangs(false);

    // A bad file, or a secret that cannot be read, changes nothing.
    fs::write(setup.cwd().join(FILE), moved.receiver("chat", "secret_file = \"nowhere\"") + RULE).unwrap();
    let answer = server.post("/-/reload");
    assert_eq!((answer.code, &answer.json()["line"]), (400, &6.into()), "{answer:?}");
    server.client().send([cpu("fourth", 95.0)]).unwrap();
    assert_eq!(moved.told(2)[1], "raise fourth/default");
}

#[test]
fn a_receiver_removed_with_events_left_says_how_many() {
    let _alone = alone();
    let hook = Hook::start();
    hook.answers(&["503 Busy\r\nretry-after: 600\r\n"]);
    let setup = setup(&hook, "");
    let server = setup.start();
    server.client().send([cpu("a", 95.0)]).unwrap();
    hook.posts_of(1);
    server.client().send([cpu("b", 95.0), cpu("c", 95.0)]).unwrap();
    fs::write(setup.cwd().join(FILE), RULE).unwrap();
    assert_eq!(server.post("/-/reload").code, 200);
    let line = server.logged(1, "a receiver is gone from the rule file")[0].clone();
    assert_eq!((line["receiver"].as_str(), line["events_not_told"].as_u64()), (Some("ops"), Some(3)), "{line}");
    assert!(check(&server).2.contains("nobody is told"));
    // One of that name is a new one.
    fs::write(setup.cwd().join(FILE), hook.receiver("ops", "") + RULE).unwrap();
    assert_eq!(server.post("/-/reload").code, 200);
    server.client().send([cpu("d", 95.0)]).unwrap();
    assert_eq!(hook.told(2)[1], "raise d/default");
}

#[test]
fn a_storm_is_told_whole_and_in_order() {
    let _alone = alone();
    let hook = Hook::start();
    let n_reports: u64 = std::env::var("GOPHERWATCH_STORM").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let server = setup(&hook, "").args("--workers 2").start();
    let work = Workload::new(n_reports, 500, 4, Breach::Alternating);
    work.send_all(&server);
    let told = || server.figure("gopherwatch_receiver_notifications_total");
    // Each service's last report, if it is a violation, has no resolve.
    eventually(SOON * 4, "all is told", || told() > 0.0 && server.figure("gopherwatch_receiver_pending") == 0.0);
    let events = server.settle()["events"].as_u64().unwrap();
    let posts = hook.posts();
    assert_eq!((posts.len() as u64, told() as u64), (events, events));
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    for post in &posts {
        let body = post.json();
        let event = body["gopherwatch"]["event"].as_str().unwrap().to_owned();
        let before = last.insert(body["groupKey"].as_str().unwrap().to_owned(), event.clone());
        assert_eq!(event == "raise", before.is_none_or(|before| before == "resolve"), "raise and resolve by turns");
    }
    let keys: BTreeSet<String> = posts.iter().map(Post::key).collect();
    assert_eq!(keys.len(), posts.len(), "nothing is told twice");
}
