//! The rules in force: at whom they look, what is remembered of them, and what the operator hears.

use std::sync::Arc;

use expect_test::expect;

use super::play::{START, rule, rules};
use crate::{
    model::InstanceKey,
    rules::{Mismatch, Record},
};

#[test]
fn each_list_of_patterns_counts_by_itself() {
    for (fields, key, why) in [
        (r#"services = ["db-*"]"#, ("web", "a"), Mismatch::Service),
        (r#"exclude = ["w?b"]"#, ("web", "a"), Mismatch::Excluded),
        (r#"instances = ["b"]"#, ("web", "a"), Mismatch::Instance),
    ] {
        let rules = rule(&format!("when = \"cpu_percent > 90\"; {fields}"));
        let looks_at = |(service, instance)| {
            let key = InstanceKey::new(service, instance);
            (rules.rules[0].applies_to(&key), rules.plan(&key).rules.len())
        };
        assert_eq!(looks_at(key), (Err(why), 0), "{fields}");
        assert_eq!(looks_at(("db-eu", "b")), (Ok(()), 1), "{fields}");
    }
}

#[test]
fn instances_that_every_rule_looks_at_share_a_plan() {
    let rules = rules(
        "[[rules]]\nname = \"all\"\nwhen = \"cpu_percent > 90\"\n\
         [[rules]]\nname = \"web\"\nwhen = \"cpu_percent > 80\"\nservices = [\"web\"]",
    );
    let plan = |service, instance| rules.plan(&InstanceKey::new(service, instance));
    assert!(Arc::ptr_eq(&plan("web", "a"), &plan("web", "b")));
    let names: Vec<_> = plan("db", "a").rules.iter().map(|rule| rule.name.to_string()).collect();
    assert_eq!(names, ["all"]);
}

#[test]
fn a_rule_goes_on_as_the_same_if_its_name_and_its_question_do() {
    let first = rule(r#"when = "cpu_percent > 90"; for = "10s""#).succeeding(&[], START);
    let later = START.shifted(1_000_000_000);
    let generation = |fields: &str| rule(fields).succeeding(&first.records(), later).rules[0].generation;
    let (same, fresh) = (first.rules[0].generation, later.as_micros().unsigned_abs());
    assert_ne!(same, fresh);
    assert_eq!(generation(r#"when = "(cpu_percent>90)"; for = "10000ms"; severity = "info""#), same);
    assert_eq!(generation(r#"when = "cpu_percent > 91"; for = "10s""#), fresh);
    assert_eq!(generation(r#"when = "cpu_percent > 90"; for = "11s""#), fresh);
    assert_eq!(generation(r#"when = "cpu_percent > 90"; for = "10s"; clear = "cpu_percent < 80""#), fresh);
    let renamed = rules("[[rules]]\nname = \"other\"\nwhen = \"cpu_percent > 90\"\nfor = \"10s\"");
    assert_eq!(renamed.succeeding(&first.records(), later).rules[0].generation, fresh);
}

#[test]
fn the_operator_hears_what_is_surely_wrong_and_where() {
    let rules = rules(
        "[[rules]]\nname = \"sound\"\nwhen = \"cpu_percent > 90\"\n\
         [[rules]]\nname = \"own\"\nwhen = \"queue_length > 90\"\n\
         [[rules]]\nname = \"never\"\nwhen = \"cpu_percent > 100\"",
    );
    expect!["test: line 9, column 8: rule `never`: when: no report makes it true, so the rule never fires: `cpu_percent` lies between 0 and 100"].assert_eq(&rules.warnings().join("\n"));
}

#[test]
fn a_rule_is_found_by_its_name() {
    let rules = rules(
        "[[rules]]\nname = \"a\"\nwhen = \"cpu_percent > 90\"\n\
         [[rules]]\nname = \"b\"\nwhen = \"cpu_percent > 80\"\nservices = [\"web\", \"db-*\"]",
    );
    let found = rules.rule("b").expect("it is there");
    assert_eq!(&*found.name, "b");
    assert_eq!(found.services.as_ref().expect("services").patterns(), ["web", "db-*"], "as they were written");
    assert!(rules.rule("c").is_none());
}

#[test]
fn which_reports_get_a_row_has_a_word() {
    assert_eq!([Record::Episode, Record::Every].map(Record::as_str), ["episode", "every"]);
}
