//! What a report costs that changes nothing: no memory.

use super::play::{Player, START, readings, rules};
use crate::{
    model::Timestamp,
    rules::{Reading, evaluate},
};

/// How often one report takes memory, and how much, when it is evaluated and applied.
fn allocations(text: &str, metrics: &str) -> (u64, u64) {
    allocations_after(text, metrics, metrics)
}

/// The same after reports with other readings.
fn allocations_after(text: &str, before: &str, metrics: &str) -> (u64, u64) {
    let mut player = Player::new(rules(text));
    for seconds in 0..3 {
        player.report(START.shifted(seconds), START, &readings(before));
    }
    let metrics = readings(metrics);
    let metrics = crate::model::Row::new(&metrics);
    let at: Timestamp = START.shifted(9);
    let key = std::sync::Arc::new(crate::model::InstanceKey::new("web", "a"));
    let reading = Reading {
        key: &key,
        metrics: metrics.readings(),
        at,
        wire_time: 1,
        received_at: at,
        skew_nanos: 0,
        epoch: 1,
        sequence: 9,
    };
    let info = allocation_counter::measure(|| {
        let outcome = evaluate(&player.progress, &reading);
        assert!(player.progress.apply(outcome, metrics.readings(), at).is_empty());
    });
    (info.count_total, info.bytes_total)
}

#[test]
fn a_plain_threshold_is_evaluated_without_taking_memory() {
    let rules = "[[rules]]\nname = \"a\"\nwhen = \"cpu_percent > 90\"\n\
                 [[rules]]\nname = \"b\"\nwhen = \"(memory_percent - cpu_percent) / 2 > 90 or not (load_1m < 8)\"\n\
                 [[rules]]\nname = \"c\"\nwhen = \"cpu_percent >= 50\"\nclear = \"cpu_percent < 10\"";
    assert_eq!(allocations(rules, "cpu_percent=5,memory_percent=7,load_1m=1"), (0, 0), "nothing fires");
    assert_eq!(allocations(rules, "cpu_percent=60,memory_percent=7,load_1m=1"), (0, 0), "one fires already");
    assert_eq!(allocations(rules, "memory_percent=7"), (0, 0), "and one is unknown");
    let between = allocations_after(rules, "cpu_percent=60", "cpu_percent=30");
    assert_eq!(between, (0, 0), "it fires, is no longer true, and is not clear either");
}

#[test]
fn a_window_is_evaluated_without_taking_memory_but_for_its_points() {
    let rules = "[[rules]]\nname = \"a\"\nwhen = \"stddev(cpu_percent, 1m) > 90 and max(cpu_percent, 5m) > 3\"";
    assert_eq!(allocations(rules, "cpu_percent=5"), (0, 0));
}

#[test]
fn a_new_instance_that_every_rule_looks_at_gets_its_plan_without_taking_memory() {
    let rules = rules("[[rules]]\nname = \"a\"\nwhen = \"cpu_percent > 90\"");
    let key = crate::model::InstanceKey::new("web", "a");
    let info = allocation_counter::measure(|| assert_eq!(rules.plan(&key).rules.len(), 1));
    assert_eq!(info.count_total, 0);
}
