//! Text that would be code elsewhere: what rules say of an alert reaches readers as it is, and breaks no line, no page and no
//! figure. Names with such text are refused (`ingest.rs`).

use crate::support::{reports::cpu, server::Setup, webhook::Hook};

/// A colour of terminals, a bell, a line that looks like one of ours, a tag, letters that run the other way, quotes.
const HOSTILE: &str =
    "\u{1b}[31mred\u{7}\r\nCRITICAL forged <script>alert(1)</script> \u{202e}evil\u{2028} '\" ; DROP TABLE alerts";
/// The same in TOML.
const ESCAPED: &str =
    r#"\u001b[31mred\u0007\r\nCRITICAL forged <script>alert(1)</script> \u202eevil\u2028 '\" ; DROP TABLE alerts"#;

#[test]
fn hostile_summaries_and_labels_stay_text_everywhere() {
    for format in ["json", "text"] {
        let hook = Hook::start();
        let rules = format!(
            "[[rules]]\nname = \"hot\"\nwhen = \"cpu_percent > 90\"\nsummary = \"{ESCAPED}\"\nlabels = {{ team = \"{ESCAPED}\" }}\n{}",
            hook.receiver("ops", "")
        );
        let server = Setup::new().rules(&rules).args(&format!("--log-format {format}")).start();
        assert_eq!(server.client().send([cpu("web", 99.0)]).unwrap().alerts_raised, 1);
        let row = server.history_of(1, "").remove(0);
        let history = server.get("/alerts/history").json();
        assert_eq!(history["alerts"][0]["summary"], HOSTILE);
        assert_eq!(history["alerts"][0]["labels"]["team"], HOSTILE);
        let alert = server.get(&format!("/alerts/{}", row.alert_id));
        assert_eq!(alert.json()["summary"], HOSTILE);
        assert_eq!(alert.headers["content-type"], "application/json");
        assert_eq!(hook.posts_of(1)[0].json()["alerts"][0]["labels"]["team"], HOSTILE);
        for path in ["/rules", "/explain?service=web&instance=default&rule=hot", "/alerts/active"] {
            server.get(path).json();
        }
        for line in server.get("/metrics").body.lines() {
            assert!(line.starts_with('#') || line.starts_with("gopherwatch_"), "{line:?}");
        }
        // Lines for people show no control characters either: a terminal would obey them.
        let lines = server.log().lines();
        assert!(lines.iter().any(|line| line.contains("alert raised")), "{lines:?}");
        for line in lines {
            assert!(!line.contains(|c: char| c.is_control() && c != '\t'), "{line:?}");
            assert!(!line.trim_start().starts_with("CRITICAL forged"), "{line:?}");
        }
    }
}
