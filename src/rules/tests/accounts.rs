//! The rule by which the server watches its own accounts.

use std::sync::Arc;

use super::play::rules;
use crate::{
    model::InstanceKey,
    rules::{ACCOUNTS, RuleSet},
};

#[test]
fn the_servers_accounts_have_a_rule_of_their_own_whatever_the_file_says() {
    let own = Arc::new(InstanceKey::new(ACCOUNTS, "server"));
    let other = Arc::new(InstanceKey::new("web", "a"));
    for rules in [RuleSet::built_in(None), rules("rules = []"), rules("[[rules]]\nname = 'all'\nwhen = 'a > 1'")] {
        let names: Vec<_> = rules.plan(&own).rules.iter().map(|rule| rule.name.to_string()).collect();
        assert_eq!(names, ["accounts-balance"]);
        assert!(rules.plan(&other).place("accounts-balance").is_none());
        assert!(rules.rule("accounts-balance").is_none(), "it is not one of those in force, and cannot be changed");
        assert_eq!(rules.plan(&own).rules[0].r#for.as_secs(), 30);
    }
}
