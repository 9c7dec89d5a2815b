//! An instance is forgotten when somebody says so, and nothing says so before it is durable.

use serde_json::json;

use crate::support::{
    reports::{Says, cpu},
    server::{Server, ask},
    wait::{SOON, eventually},
};

/// The instances of `service` that are shown.
fn instances(server: &Server, service: &str) -> Vec<String> {
    let service = server.service(service).unwrap_or_default();
    let instances = service["instances"].as_array().cloned().unwrap_or_default();
    instances.iter().map(|instance| instance["instance"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_instance_is_gone_its_alerts_resolve_and_no_restart_brings_it_back() {
    let mut server = Server::start();
    let client = server.client();
    client.send_epoch(7, [cpu("web", 99.0).of("a").numbered(3), cpu("web", 99.0).of("b").numbered(1)]).unwrap();
    server.history_of(2, "state=firing");
    let answer = server.delete("/services/web/instances/a");
    assert_eq!((answer.code, answer.body.as_str()), (204, ""));
    assert_eq!(instances(&server, "web"), ["b"]);
    assert_eq!(server.get("/alerts/active").json()["alerts"].as_array().unwrap().len(), 1);
    assert_eq!(server.figure("gopherwatch_alerts_firing"), 1.0);
    assert_eq!(server.figure("gopherwatch_instances"), 1.0);
    assert_eq!(server.delete("/services/web/instances/a").code, 404, "it is not known any longer");

    // What was answered is durable, however the server ends.
    server.kill9();
    let server = server.start_again("");
    assert_eq!(instances(&server, "web"), ["b"]);
    eventually(SOON, "its alert is resolved", || {
        server.history("instance=a")[0].reason.as_deref() == Some("forgotten")
    });
    assert_eq!(server.history("instance=b")[0].resolved_at, None);

    // Its marks stay: what it sent before is not taken twice, and with something new it is back.
    let again = server.client().send_epoch(7, [cpu("web", 99.0).of("a").numbered(3)]).unwrap();
    assert_eq!((again.accepted, again.duplicates), (0, 1));
    server.client().send_epoch(7, [cpu("web", 10.0).of("a").numbered(4)]).unwrap();
    assert_eq!(instances(&server, "web"), ["a", "b"]);
    server.settle();
}

#[test]
fn a_name_in_the_path_is_decoded_once_and_an_unknown_one_is_not_found() {
    let server = Server::start();
    server.client().send([cpu("eu/web", 10.0).of("a/1"), cpu("web", 10.0)]).unwrap();
    for unknown in
        ["/services/web/instances/a", "/services/eu/instances/default", "/services/eu%252Fweb/instances/a%2F1"]
    {
        let answer = server.delete(unknown);
        assert_eq!(
            (answer.code, answer.json()["detail"].clone()),
            (404, json!("no such instance is known")),
            "{unknown}"
        );
    }
    assert_eq!(server.delete("/services/eu%2Fweb/instances/a%2F1").code, 204);
    assert_eq!(server.status()["totals"]["instances"], 1);
}

#[test]
fn only_delete_forgets_and_no_page_of_another_origin() {
    let server = Server::start();
    server.client().send([cpu("web", 10.0)]).unwrap();
    let path = "/services/web/instances/default";
    for method in ["GET", "POST", "PUT"] {
        let answer = ask(server.http(), method, path, &[]).unwrap();
        assert_eq!((answer.code, answer.headers["allow"].to_str().unwrap()), (405, "DELETE"), "{method}");
    }
    assert_eq!(ask(server.http(), "DELETE", path, &[("origin", "https://evil.example")]).unwrap().code, 403);
    assert_eq!(instances(&server, "web"), ["default"]);
    let own = format!("http://{}", server.http());
    assert_eq!(ask(server.http(), "DELETE", path, &[("origin", &own)]).unwrap().code, 204);
    assert_eq!(instances(&server, "web"), [""; 0]);
}

#[test]
fn one_instance_after_the_other_while_they_report() {
    let server = Server::start();
    let client = server.client();
    let names: Vec<_> = (0..50).map(|n| format!("s{n}")).collect();
    client.send_epoch(7, names.iter().map(|name| cpu(name, 99.0).numbered(1))).unwrap();
    let load = client.stream(&[("agent-epoch", "8")], (1..=50_000).map(|n| cpu("busy", (n % 100) as f64).numbered(n)));
    for name in &names {
        assert_eq!(server.delete(&format!("/services/{name}/instances/default")).code, 204);
    }
    assert_eq!(load.wait().unwrap().accepted, 50_000);
    let balance = server.settle();
    assert_eq!(balance["received"], 50_050);
    assert_eq!(server.status()["totals"]["instances"], 1);
    for name in &names {
        assert_eq!(server.history(&format!("service={name}"))[0].reason.as_deref(), Some("forgotten"));
    }
}
