//! The mapping file's text. Every mistake is told with its line and column.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use gopherwatch_client::mapping::valid_name;
use serde::Deserialize;
use toml::Spanned;

use super::glob::Glob;
use super::{Combine, Mapping, Section, Take};

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("reading {}", .path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It says something wrong.
    #[error("{}: line {line}, column {column}: {message}", .path.display())]
    Wrong {
        /// Which one.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    mapping: Vec<RawSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSection {
    #[serde(default)]
    services: Vec<Spanned<String>>,
    #[serde(default)]
    keep: Vec<Spanned<String>>,
    #[serde(default)]
    drop: Vec<Spanned<String>>,
    #[serde(default)]
    rename: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    take: Vec<RawTake>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTake {
    from: Spanned<String>,
    #[serde(default)]
    labels: BTreeMap<String, Spanned<String>>,
    #[serde(rename = "as")]
    name: Spanned<String>,
    #[serde(default)]
    combine: Combine,
}

/// What is wrong, and where.
type Mistake = (Range<usize>, String);

/// Reads a mapping file.
///
/// # Errors
/// It cannot be read, or says something wrong.
pub fn read(path: &Path) -> Result<Mapping, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let parsed = parse(&text).map(|mapping| Mapping { path: Some(path.to_owned()), ..mapping });
    parsed.map_err(|(span, message)| {
        let before = text.get(..span.start).unwrap_or(&text);
        let line_begins = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        let column = before[line_begins..].chars().count() + 1;
        Error::Wrong { path: path.to_owned(), line, column, message }
    })
}

fn parse(text: &str) -> Result<Mapping, Mistake> {
    let raw: RawFile = toml::from_str(text)
        .map_err(|err| (err.span().unwrap_or_default(), err.message().lines().collect::<Vec<_>>().join(", ")))?;
    let sections = raw.mapping.into_iter().map(section).collect::<Result<_, _>>()?;
    Ok(Mapping { sections, path: None })
}

fn section(raw: RawSection) -> Result<Arc<Section>, Mistake> {
    Ok(Arc::new(Section {
        services: globs(raw.services)?,
        keep: globs(raw.keep)?,
        drop: globs(raw.drop)?,
        rename: raw.rename.into_iter().map(|(from, to)| Ok((from, new_name(to)?))).collect::<Result<_, Mistake>>()?,
        take: raw.take.into_iter().map(take).collect::<Result<_, _>>()?,
    }))
}

fn take(raw: RawTake) -> Result<Take, Mistake> {
    let labels = raw.labels.into_iter().map(|(label, value)| (label, Glob::new(value.as_ref()))).collect();
    Ok(Take { from: filled(raw.from)?, labels, name: new_name(raw.name)?, combine: raw.combine })
}

fn globs(raw: Vec<Spanned<String>>) -> Result<Vec<Glob>, Mistake> {
    raw.into_iter().map(|glob| Ok(Glob::new(&filled(glob)?))).collect()
}

fn filled(text: Spanned<String>) -> Result<String, Mistake> {
    if text.as_ref().is_empty() {
        return Err((text.span(), "is empty".to_owned()));
    }
    Ok(text.into_inner())
}

fn new_name(name: Spanned<String>) -> Result<String, Mistake> {
    let valid = valid_name(name.as_ref());
    if valid.as_deref() != Some(name.as_ref()) {
        let message = "a name is 1 to 120 of A-Z a-z 0-9 _ . : / - and begins with a letter or digit";
        return Err((name.span(), message.to_owned()));
    }
    Ok(name.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, service: &str) -> super::super::Names {
        parse(text).unwrap_or_else(|(span, message)| panic!("{span:?}: {message}")).of(service)
    }

    fn read_text(text: &str) -> Result<Mapping, Error> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("written");
        read(file.path())
    }

    #[test]
    fn a_mapping_renames_keeps_and_drops_for_the_services_that_it_names() {
        let text = r#"
            [[mapping]]
            drop = ["go_*"]

            [[mapping]]
            services = ["web*"]
            keep = ["jobs*", "go_gc"]
            rename = { jobs_done = "jobs" }
        "#;
        let web = names(text, "web-1");
        assert_eq!(web.name("jobs_done"), Some("jobs"));
        assert_eq!(web.name("jobs_failed"), Some("jobs_failed"));
        assert_eq!(web.name("queue"), None, "not among those to keep");
        assert_eq!(web.name("go_gc"), None, "dropped, though it is to be kept");
        let other = names(text, "db");
        assert_eq!(other.name("queue"), Some("queue"));
        assert_eq!(other.name("jobs_done"), Some("jobs_done"));
        assert_eq!(other.name("go_gc"), None);
    }

    #[test]
    fn a_label_value_chooses_what_a_figure_is_made_of() {
        let text = r#"
            [[mapping]]
            drop = ["*"]
            take = [{ from = "http_requests_total", labels = { code = "5??" }, as = "errors" }]
        "#;
        let names = names(text, "web");
        let take: Vec<_> = names.takes("http_requests_total").collect();
        assert_eq!(take.len(), 1);
        assert_eq!((take[0].name.as_str(), take[0].combine), ("errors", Combine::Sum));
        assert!(take[0].fits(|label| (label == "code").then(|| "503".to_owned())));
        assert!(!take[0].fits(|label| (label == "code").then(|| "200".to_owned())));
        assert!(!take[0].fits(|_| None));
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for (text, line, column, because) in [
            ("[[mapping]]\nrenmae = {}", 2, 1, "unknown field `renmae`"),
            ("[[mapping]]\nrename = { a = \"ü\" }", 2, 16, "begins with a letter"),
            ("[[mapping]]\n\nkeep = [\"a\", \"\"]", 3, 14, "is empty"),
            ("[[mapping]]\ntake = [{ from = \"a\" }]", 2, 9, "missing field `as`"),
            ("[[mapping]]\ntake = [{ from = \"a\", as = \"b\", combine = \"avg\" }]", 2, 43, "avg"),
            ("mapping = ", 1, 11, ""),
        ] {
            let Err(Error::Wrong { line: at, column: col, message, .. }) = read_text(text) else { panic!("{text}") };
            assert_eq!((at, col), (line, column), "{text}: {message}");
            assert!(message.contains(because), "{text}: {message}");
        }
    }

    #[test]
    fn an_empty_file_maps_nothing() {
        assert_eq!(names("", "web").name("a"), Some("a"));
    }

    #[test]
    fn the_example_is_valid_and_does_what_it_says() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/mapping.toml");
        let mapping = read(&example).unwrap_or_else(|err| panic!("{err}"));
        let host = mapping.of("node");
        assert_eq!(host.name("node_load1"), Some("load_1m"));
        assert_eq!(host.name("go_goroutines"), None);
        assert_eq!(host.name("node_time_seconds"), None);
        let web = mapping.of("checkout");
        assert_eq!(web.name("orders_placed"), Some("orders"));
        assert!(web.takes("http_requests_total").any(|take| take.name == "errors"));
    }
}
