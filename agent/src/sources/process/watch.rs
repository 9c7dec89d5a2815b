//! Which processes a service is: `SERVICE=PATTERN`, or `SERVICE=pid:FILE`.

use std::path::PathBuf;

use regex::bytes::{Regex, RegexBuilder};

/// What a compiled pattern may take at most, so that a strange one does not make the agent large.
const PATTERN_BYTES: usize = 1 << 20;

/// A service and how to know its processes.
#[derive(Debug, Clone)]
pub struct Watch {
    /// A valid name.
    pub service: String,
    pub(super) by: By,
    /// As it was written.
    pub(crate) pattern: String,
}

#[derive(Debug, Clone)]
pub(super) enum By {
    /// Every process whose arguments, joined by spaces, match.
    CommandLine(Regex),
    /// The process whose number is in this file, and all that it started.
    PidFile(PathBuf),
}

impl Watch {
    /// The processes of `service`, a valid name, that `pattern` describes.
    ///
    /// # Errors
    /// The pattern says nothing, in words for the one who wrote it.
    pub fn new(service: String, pattern: &str) -> Result<Self, String> {
        let by = match pattern.strip_prefix("pid:") {
            Some("") => return Err("pid: needs the path of a pid file, such as pid:/run/nginx.pid".into()),
            Some(path) => By::PidFile(path.into()),
            None if pattern.is_empty() => return Err("the pattern is empty: it would match every process".into()),
            None => By::CommandLine(regex(pattern).map_err(|err| err.to_string())?),
        };
        Ok(Self { service, by, pattern: pattern.to_owned() })
    }

    /// Whether these arguments, joined by spaces, are those of one of the service's processes.
    ///
    /// Not if they hold this very option: then it is an agent, or the sudo or shell that started one.
    pub(super) fn matches(&self, command_line: &[u8]) -> bool {
        let By::CommandLine(regex) = &self.by else { return false };
        regex.is_match(command_line) && !self.is_our_option(command_line)
    }

    fn is_our_option(&self, command_line: &[u8]) -> bool {
        let option = format!("{}={}", self.service, self.pattern);
        contains(command_line, b"--process") && contains(command_line, option.as_bytes())
    }
}

/// Bytes, since a command line need not be UTF-8; outside of ASCII only literal characters match.
fn regex(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).unicode(false).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).build()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, command_line: &str) -> bool {
        Watch::new("web".to_owned(), pattern).expect(pattern).matches(command_line.as_bytes())
    }

    #[test]
    fn a_pattern_may_match_any_part_of_the_arguments_joined_by_spaces() {
        assert!(matches("nginx", "nginx: worker process"));
        assert!(matches(r"^java .*-jar /srv/shop\.jar$", "java -Xmx1g -jar /srv/shop.jar"));
        assert!(matches("(gunicorn|uwsgi) ", "/usr/bin/gunicorn shop:app"));
        assert!(matches("büro", "/opt/büro serve"));
        assert!(!matches("^nginx", "/usr/sbin/nginx"));
        assert!(!matches("redis", "postgres"));
    }

    #[test]
    fn an_agent_that_looks_for_it_is_not_it() {
        assert!(!matches("nginx", "sudo gopherwatch-agent --process web=nginx"));
        assert!(!matches("nginx", "/bin/sh -c gopherwatch-agent '--process=web=nginx' --interval 5s"));
        assert!(matches("nginx", "nginx -g web=nginx"), "only where the option is there too");
    }

    #[test]
    fn a_pattern_that_says_nothing_is_refused_with_the_reason() {
        for (pattern, because) in [("", "empty"), ("pid:", "path"), ("(", "unclosed group"), (r"\p{Greek}", "Unicode")]
        {
            let message = Watch::new("web".to_owned(), pattern).expect_err(pattern);
            assert!(message.contains(because), "{pattern}: {message}");
        }
    }
}
