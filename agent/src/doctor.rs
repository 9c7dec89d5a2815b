//! `doctor`: looks at everything that an agent needs, and says what is wrong and what to do about it.
//!
//! Each check is made as the agent itself would, with its flags; nothing is reported, and nothing stays behind.

mod buffer;
mod server;
mod sources;
mod tls;

use std::fmt;

use crate::agent::Options;

/// How serious it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// The agent works; something will be missing.
    Doubtful,
    /// The agent cannot do what it is there for.
    Broken,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How serious it is.
    pub verdict: Verdict,
    /// What was looked at, in a word.
    pub subject: &'static str,
    /// What it is like.
    pub says: String,
    /// What to do; empty: nothing.
    pub advice: String,
}

impl Finding {
    fn fine(subject: &'static str, says: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fine, subject, says: says.into(), advice: String::new() }
    }

    fn doubtful(subject: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Doubtful, subject, says: says.into(), advice: advice.into() }
    }

    fn broken(subject: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Broken, ..Self::doubtful(subject, says, advice) }
    }
}

/// Everything that was found.
#[derive(Debug)]
pub struct Report(Vec<Finding>);

impl Report {
    /// Whether an agent can do its work here.
    pub fn is_healthy(&self) -> bool {
        self.0.iter().all(|finding| finding.verdict < Verdict::Broken)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { verdict, subject, says, advice } in &self.0 {
            let mark = match verdict {
                Verdict::Fine => "ok",
                Verdict::Doubtful => "warn",
                Verdict::Broken => "FAIL",
            };
            writeln!(f, "{mark:<5} {subject:<10} {says}")?;
            if !advice.is_empty() {
                writeln!(f, "{:<16} -> {advice}", "")?;
            }
        }
        let count = |verdict| self.0.iter().filter(|finding| finding.verdict == verdict).count();
        match (count(Verdict::Broken), count(Verdict::Doubtful)) {
            (0, 0) => write!(f, "all is well"),
            (0, n) => write!(f, "the agent works here; {n} to look at"),
            (n, _) => write!(f, "the agent does not work here: {n} to mend"),
        }
    }
}

/// Makes every check. `unknown` are the variables of the environment that look like ours and are not.
pub async fn run(options: &Options, unknown: &[String]) -> Report {
    let mut findings = server::look(options).await;
    findings.extend(unknown.iter().map(|name| {
        let advice = "is it misspelt? `gopherwatch-agent --help` names the variable of each flag";
        Finding::doubtful("variable", format!("{name} is none that the agent or the server knows"), advice)
    }));
    findings.extend(sources::look(options).await);
    Report(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_broken_is_counted_and_says_what_to_do() {
        let report = Report(vec![
            Finding::fine("address", "it is 127.0.0.1"),
            Finding::doubtful("clock", "3 s behind", "set it"),
            Finding::broken("server", "nobody answers", "start it"),
        ]);
        assert!(!report.is_healthy());
        let text = report.to_string();
        assert!(text.contains("FAIL  server     nobody answers\n                 -> start it\n"), "{text}");
        assert!(text.ends_with("the agent does not work here: 1 to mend"), "{text}");
        assert!(Report(report.0[..2].to_vec()).is_healthy());
    }
}
