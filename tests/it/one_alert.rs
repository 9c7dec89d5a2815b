//! `/alerts/{alert_id}` tells one alert whole, from its raise to its end, whatever the store does while it fires.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::{
    mariadb::Mariadb,
    reports::{Says, cpu, now_nanos},
    server::Server,
    stores::{Store, on},
    wait::{SOON, eventually, found},
};

fn one(server: &Server, alert_id: &str) -> Value {
    let answer = server.get(&format!("/alerts/{alert_id}"));
    assert_eq!(answer.code, 200, "{answer:?}");
    answer.json()
}

/// The id of the alert that fires, and of no other.
fn firing_id(server: &Server) -> String {
    let active = server.get("/alerts/active").json();
    let alerts = active["alerts"].as_array().unwrap();
    assert_eq!(alerts.len(), 1, "{active}");
    alerts[0]["alert_id"].as_str().unwrap().to_owned()
}

fn kinds(alert: &Value) -> Vec<&str> {
    alert["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect()
}

#[test]
fn an_alert_is_told_whole_while_it_fires_and_after() {
    for store in Store::BOTH {
        let server = store.setup().start();
        let begin = now_nanos() - 10_000_000_000;
        let client = server.client();
        client.send_epoch(7, [cpu("web", 95.5).of("a").numbered(1).at(begin)]).unwrap();
        let id = firing_id(&server);
        let firing = one(&server, &id);
        assert_eq!((&firing["alert_id"], &firing["episode_id"]), (&json!(id), &json!(id)), "{store:?}");
        assert_eq!(
            (&firing["id"], &firing["stored_at"], &firing["resolved_at"]),
            (&Value::Null, &Value::Null, &Value::Null)
        );
        let evidence = json!({"when": "cpu_percent > 90", "points": [[begin / 1_000_000, 95.5]]});
        assert_eq!(firing["evidence"], evidence);
        assert_eq!(kinds(&firing), ["raise"]);

        client.send_epoch(7, [cpu("web", 20.0).of("a").numbered(2).at(begin + 5_000_000_000)]).unwrap();
        eventually(SOON, "the store has its end", || server.history_of(1, "")[0].resolved_at.is_some());
        let ended = one(&server, &id);
        assert_eq!((&ended["resolve_reason"], &ended["version"]), (&json!("cleared"), &json!(2)));
        assert_eq!((&ended["metric_value"], &ended["last_value"]), (&json!(95.5), &json!(20.0)));
        assert_eq!((&ended["evidence"], kinds(&ended)), (&evidence, vec!["raise", "resolve"]));
        assert_eq!(ended["events"][0], firing["events"][0]);
        assert_eq!(ended["events"][1]["at"], ended["resolved_at"]);
        // What the history has of it is the same.
        let row = &server.get("/alerts/history").json()["alerts"][0];
        assert!(row["stored_at"].is_string());
        row.as_object().unwrap().iter().for_each(|(name, value)| assert_eq!(&ended[name], value, "{name}"));

        assert_eq!(one(&server, &id.to_uppercase())["alert_id"], json!(id));
        let unknown = server.get("/alerts/00000000-0000-5000-8000-000000000000");
        assert_eq!((unknown.code, unknown.json()["status"].as_u64()), (404, Some(404)));
        let malformed = server.get("/alerts/f5e9228b").json();
        assert_eq!(malformed["status"], 400);
        assert!(malformed["detail"].as_str().unwrap().starts_with("alert_id: "), "{malformed}");
        server.settle();
    }
}

#[test]
fn with_the_store_away_what_fires_is_told_and_what_has_ended_is_asked_for_again() {
    let mariadb = Arc::new(Mariadb::start());
    let server = on(&mariadb).start();
    let client = server.client();
    client.send([cpu("old", 99.0)]).unwrap();
    let ended = firing_id(&server);
    client.send([cpu("old", 1.0)]).unwrap();
    eventually(SOON, "the store has its end", || server.history_of(1, "")[0].resolved_at.is_some());

    mariadb.stop();
    client.send([cpu("web", 99.0)]).unwrap();
    let firing = firing_id(&server);
    assert_eq!(one(&server, &firing)["service_name"], "web");
    let answer = server.get(&format!("/alerts/{ended}"));
    assert_eq!(answer.code, 503, "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"));

    mariadb.restart();
    let answer =
        found(SOON, "the store answers", || Some(server.get(&format!("/alerts/{ended}"))).filter(|a| a.code != 503));
    assert_eq!(answer.json()["resolve_reason"], "cleared", "{answer:?}");
    server.settle();
}

#[test]
fn a_row_of_a_further_violating_report_names_its_episode() {
    let server = Store::Sqlite.setup().args("--record every").start();
    server.client().send([cpu("web", 95.0), cpu("web", 96.0)]).unwrap();
    let rows = server.history_of(2, "");
    let episode = firing_id(&server);
    let further = rows.iter().find(|row| row.alert_id != episode).unwrap();
    let told = one(&server, &further.alert_id);
    assert_eq!((&told["episode_id"], &told["resolve_reason"]), (&json!(episode), &json!("recorded")));
    assert_eq!(kinds(&told), ["record"]);
}
