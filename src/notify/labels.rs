//! The labels of an alert, as the field knows them, and the fingerprint over them.

use std::{borrow::Cow, collections::BTreeMap};

use crate::model::Alert;

/// Labels by name.
pub(super) type Labels<'a> = BTreeMap<Cow<'a, str>, &'a str>;

/// What every alert has, and the labels of its rule. One of these that is called like one of those keeps its value as
/// `exported_` and the name, as Prometheus does where a target's labels meet its own.
pub(super) fn labels(alert: &Alert) -> Labels<'_> {
    let fixed = [
        ("alertname", &*alert.rule),
        ("severity", alert.severity.as_str()),
        ("service", alert.key.service()),
        ("instance", alert.key.instance()),
        ("metric", &*alert.metric),
    ];
    let mut labels: Labels<'_> = fixed.iter().map(|(name, value)| (Cow::Borrowed(*name), *value)).collect();
    for (name, value) in &*alert.labels {
        let mut name = Cow::Borrowed(name.as_str());
        if fixed.iter().any(|(fixed, _)| *fixed == name) {
            name = Cow::Owned(format!("exported_{name}"));
            while alert.labels.contains_key(&*name) {
                name = Cow::Owned(format!("exported_{name}"));
            }
        }
        labels.insert(name, value);
    }
    labels
}

/// Alertmanager's fingerprint of a set of labels: FNV-1a, 64 bits, over name, 0xFF, value, 0xFF of each, sorted by name.
pub(super) fn fingerprint(labels: &Labels<'_>) -> String {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let bytes = labels.iter().flat_map(|(name, value)| name.bytes().chain([0xff]).chain(value.bytes()).chain([0xff]));
    format!("{:016x}", bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME)))
}

/// Labels as Go prints them, which is part of Alertmanager's group keys: `{a="b", c="d"}`.
pub(super) fn printed(labels: &Labels<'_>) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let each: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", each.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::notify::webhook::tests::alert;

    #[test]
    fn a_rules_own_label_never_hides_what_the_alert_is() {
        let mut alert = alert();
        let own = [("service", "mine"), ("exported_service", "theirs"), ("team", "a \"b\"\n")];
        alert.labels = Arc::new(own.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        let labels = labels(&alert);
        assert_eq!((labels["service"], labels["exported_exported_service"]), ("web", "mine"));
        assert_eq!((labels["exported_service"], labels["team"]), ("theirs", "a \"b\"\n"));
        assert!(printed(&labels).ends_with("service=\"web\", severity=\"critical\", team=\"a \\\"b\\\"\\n\"}"));
    }

    #[test]
    fn fingerprints_are_alertmanagers() {
        // Worked out apart from this code, from the definition of FNV-1a.
        assert_eq!(fingerprint(&Labels::new()), "cbf29ce484222325");
        let one = Labels::from([(Cow::Borrowed("alertname"), "HighCpu")]);
        assert_eq!(fingerprint(&one), "9ea0ef6b3b106f08");
    }
}
