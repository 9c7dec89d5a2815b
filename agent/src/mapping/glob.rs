//! Names with `*` for any run of characters and `?` for one. The agent needs no more, and a crate for globs brings a
//! regular expression engine.

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob(String);

impl Glob {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    /// Whether the whole of `text` is of this form.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        // Where the last star stands, and what it has swallowed up to: one to go back to is enough, as a later star can
        // take whatever an earlier one could.
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, t));
                    p += 1;
                }
                Some(b'?') => (p, t) = (p + 1, t + 1),
                Some(byte) if *byte == text[t] => (p, t) = (p + 1, t + 1),
                _ => {
                    let Some((at, swallowed)) = star else { return false };
                    star = Some((at, swallowed + 1));
                    (p, t) = (at + 1, swallowed + 1);
                }
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_run_and_a_question_mark_one_character() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "a"),
            ("go_*", "go_gc"),
            ("*_total", "a_total_total"),
            ("5??", "503"),
            ("a*b*c", "axxbxc"),
        ] {
            assert!(Glob::new(pattern).matches(text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("go_*", "ago_"), ("5??", "50"), ("a*b*c", "acb"), ("a", "ab")] {
            assert!(!Glob::new(pattern).matches(text), "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let began = std::time::Instant::now();
        assert!(!Glob::new(&format!("{}b", "a*".repeat(50))).matches(&"a".repeat(5_000)));
        assert!(began.elapsed() < std::time::Duration::from_secs(1));
    }
}
