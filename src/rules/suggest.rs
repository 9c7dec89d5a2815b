//! What somebody probably meant who wrote a name that we do not know.

use gopherwatch_proto::WELL_KNOWN_METRICS;

/// The candidate nearest to `word`, if it is near: at most a third of its letters wrong, missing, added or exchanged.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &&str| strsim::damerau_levenshtein(&word.to_lowercase(), candidate);
    // Comparing costs the product of the lengths: what is far longer than any name of ours is none of them.
    if word.len() > 64 {
        return None;
    }
    let (distance, candidate) =
        candidates.into_iter().map(|c| (distance(&c), c)).min_by_key(|(distance, _)| *distance)?;
    let most = (word.chars().count().max(candidate.chars().count()) / 3).max(1);
    (distance <= most && word != candidate).then_some(candidate)
}

/// The well-known metric that an unknown one is probably a misspelling of.
pub fn misspelt_metric(metric: &str) -> Option<&'static str> {
    // Metrics of one's own are the rule, not the exception: only what is all but a well-known name is suspected.
    let near = nearest(metric, WELL_KNOWN_METRICS)?;
    (strsim::damerau_levenshtein(metric, near) <= 2).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_told_and_a_name_of_ones_own_is_not() {
        assert_eq!(misspelt_metric("cpu_percnt"), Some("cpu_percent"));
        assert_eq!(misspelt_metric("memory_precent"), Some("memory_percent"));
        assert_eq!(misspelt_metric("cpu_percent"), None, "it is well known itself");
        assert_eq!(misspelt_metric("queue_length"), None);
        assert_eq!(misspelt_metric("memory_current"), None, "three letters of fourteen: a name of one's own");
        assert_eq!(misspelt_metric("load"), None);
        assert_eq!(nearest("averge", ["avg", "max"]), None);
        assert_eq!(nearest("Avg", ["avg", "max"]), Some("avg"));
        assert_eq!(nearest("avg", ["avg", "max"]), None);
        assert_eq!(nearest("sdtdev", ["avg", "stddev"]), Some("stddev"));
        assert_eq!(nearest("serverity", ["severity", "services"]), Some("severity"));
    }

    #[test]
    fn what_is_longer_than_any_name_is_near_to_none() {
        let name = "a".repeat(63);
        assert_eq!(nearest(&"a".repeat(64), [name.as_str()]), Some(name.as_str()));
        assert_eq!(nearest(&"a".repeat(65), [name.as_str()]), None);
        assert_eq!(nearest(&"a".repeat(66), [name.as_str()]), None);
    }
}
