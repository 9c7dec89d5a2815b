//! `[[receivers]]` and `receivers`: what may stand there, and what is told where it cannot be used.

use std::sync::Arc;

use expect_test::{Expect, expect};

use crate::{
    model::Name,
    rules::{RuleSet, Way, WebhookConfig, parse_file, words},
};

/// A receiver of this name with these fields.
fn receiver(name: &str, fields: &str) -> String {
    let fields = fields.replace("; ", "\n");
    format!("[[receivers]]\nname = \"{name}\"\ntype = \"webhook\"\n{fields}\n")
}

fn ops() -> String {
    receiver("ops", "url = \"https://example.com/hook\"")
}

/// A rule with this field.
fn rule(name: &str, field: &str) -> String {
    format!("[[rules]]\nname = \"{name}\"\nwhen = \"a > 1\"\n{field}\n")
}

#[track_caller]
fn refused(text: &str, told: Expect) {
    told.assert_eq(&parse_file(text, None).expect_err("not a valid file").to_string());
}

fn told(rules: &RuleSet, rule: &str) -> Option<Arc<[Name]>> {
    rules.rule(rule).expect("it is there").receivers.clone()
}

#[test]
fn rules_tell_everybody_unless_they_or_the_defaults_name_some() {
    let chat = receiver("chat", "url = \"http://chat.example.com:8065/x\"; send_resolved = false");
    let rules = [rule("all", ""), rule("one", "receivers = [\"chat\", \"chat\"]"), rule("none", "receivers = []")];
    let text = ops() + &chat + &rules.concat();
    let set = RuleSet::of_file(parse_file(&text, None).expect("valid"), "test".to_owned(), None);
    let names: Vec<_> = set.receivers.iter().map(|receiver| (&*receiver.name, receiver.send_resolved)).collect();
    assert_eq!(names, [("ops", true), ("chat", false)]);
    let Way::Webhook(webhook) = &set.receivers[1].way;
    assert_eq!((webhook.shown(), webhook.allow_private), ("http://chat.example.com:8065", false));
    assert_eq!(told(&set, "all"), None);
    assert_eq!(told(&set, "one"), Some(["chat".into()].into()));
    assert_eq!(told(&set, "none"), Some([].into()));
    assert!(words(set.rule("one").expect("it is there")).contains(&"Tells chat.".to_owned()));

    let text = format!("[defaults]\nreceivers = [\"ops\"]\n{text}");
    let set = RuleSet::of_file(parse_file(&text, None).expect("valid"), "test".to_owned(), None);
    assert_eq!(told(&set, "all"), Some(["ops".into()].into()));
    assert_eq!(told(&set, "one"), Some(["chat".into()].into()));
}

#[test]
fn receivers_alone_leave_the_built_in_rules_in_force_and_outlive_the_next_load() {
    let set = RuleSet::of_file(parse_file(&ops(), None).expect("valid"), "test".to_owned(), None);
    assert_eq!((set.source.as_str(), set.rules.len()), (RuleSet::BUILT_IN, 3));
    let set = set.succeeding(&[], crate::model::Timestamp::from_nanos(1));
    assert_eq!(set.receivers.len(), 1);
}

#[test]
fn a_receiver_that_nobody_knows_is_told_with_its_place_and_the_name_that_was_meant() {
    let with = |field| ops() + &rule("a", field);
    refused(
        &with("receivers = [\"ops\", \"osp\"]"),
        expect!["line 8, column 21: receivers: no [[receivers]] is called `osp`: did you mean `ops`?"],
    );
    refused(
        &with("receivers = [\"pager\"]"),
        expect!["line 8, column 14: receivers: no [[receivers]] is called `pager`: there is `ops`"],
    );
    refused(
        &rule("a", "receivers = [\"ops\"]"),
        expect!["line 4, column 14: receivers: no [[receivers]] is called `ops`: this file has none"],
    );
    refused(
        &with("receivers = \"ops\""),
        expect![[r#"line 8, column 13: receivers: invalid type: string "ops", expected a sequence"#]],
    );
}

#[test]
fn what_a_receiver_needs_is_asked_for() {
    let url = "url = \"https://example.com\"";
    refused(
        "[[receivers]]\ntype = \"webhook\"",
        expect![[r#"line 1, column 1: name: a receiver needs one, such as name = "ops""#]],
    );
    refused(
        &format!("[[receivers]]\nname = \"ops\"\n{url}"),
        expect![[r#"line 1, column 1: type: a receiver needs one, such as type = "webhook""#]],
    );
    refused(
        &format!("[[receivers]]\nname = \"ops\"\ntype = \"mail\"\n{url}"),
        expect![[r#"line 3, column 8: type: use "webhook", the one kind that there is"#]],
    );
    refused(
        &receiver("ops", ""),
        expect![[r#"line 1, column 1: url: a receiver needs one, such as url = "https://example.com/hook""#]],
    );
    refused(&receiver("o p", url), expect!["line 2, column 8: name: use 1 to 128 of A-Z a-z 0-9 _ . -"]);
    refused(&(ops() + &ops()), expect!["line 6, column 8: name: another receiver is called `ops`"]);
    refused(
        &receiver("ops", "ulr = \"x\""),
        expect![
            "line 4, column 1: unknown field `ulr`, expected one of `name`, `type`, `url`, `secret_file`, `send_resolved`, `allow_private`: did you mean `url`?"
        ],
    );
    let crowd: String = (0..17).map(|n| receiver(&format!("r{n}"), url)).collect();
    assert!(parse_file(&crowd, None).expect_err("too many").to_string().ends_with("receivers: use 16 at most"));
}

#[test]
fn a_url_is_one_that_a_request_can_be_sent_to() {
    let told = |url: &str| match parse_file(&receiver("ops", &format!("url = \"{url}\"")), None) {
        Ok(_) => "fine".to_owned(),
        Err(err) => err.to_string(),
    };
    for good in
        ["https://example.com", "http://example.com:8080/a?b=c", "https://1.1.1.1/x", "https://[2606:4700::1111]/"]
    {
        assert_eq!(told(good), "fine", "{good}");
    }
    for (bad, why) in [
        ("ftp://example.com", "begins with https:// or http://"),
        ("example.com/hook", "use one"),
        ("/hook", "use one that begins with"),
        ("https://", "use one such as"),
        ("https://a b/", "use one such as"),
        ("https://user:secret@example.com/", "leave user and password out"),
        ("https://example.com/#part", "leave out `#`"),
        ("http://127.0.0.1:9000/", "say allow_private = true"),
        ("http://[::ffff:10.0.0.1]/", "say allow_private = true"),
        ("http://169.254.169.254/latest", "say allow_private = true"),
    ] {
        let told = told(bad);
        assert!(told.starts_with("line 4, column 7: url: ") && told.contains(why), "{bad}: {told}");
        assert!(!told.contains("secret"), "{told}");
    }
    let allowed = receiver("ops", "url = \"http://127.0.0.1:9000/\"; allow_private = true");
    assert!(parse_file(&allowed, None).is_ok());
}

#[test]
fn of_a_webhook_only_that_is_shown_which_admits_to_nothing() {
    for (url, shown) in [
        ("https://example.com", "https://example.com"),
        ("https://example.com/hook/secret", "https://example.com"),
        ("http://example.com:8080?token=secret", "http://example.com:8080"),
        ("http://h/", "http://h"),
    ] {
        let webhook = WebhookConfig { url: url.to_owned(), secret_file: None, allow_private: false };
        assert_eq!(webhook.shown(), shown);
        assert_eq!(format!("{webhook:?}"), format!("WebhookConfig {{ url: {shown:?}, secret_file: None }}"));
        assert_eq!(Way::Webhook(webhook).as_str(), "webhook");
    }
}
