//! The patches in `tests/mends` keep to the code that they take mends out of; whether tests turn red is for `make mends`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const README: &str = "tests/mends/README.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One patch: what its head says, and its hunks by file.
struct Patch {
    name: String,
    head: Vec<(String, String)>,
    hunks: Vec<(String, String)>,
}

impl Patch {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let (head, body) = text.split_at(text.find("diff --git ").unwrap_or_else(|| panic!("{}", path.display())));
        let mut hunks: Vec<(String, String)> = Vec::new();
        let mut file = "";
        for line in body.lines() {
            match (line.strip_prefix("+++ b/"), line.chars().next()) {
                (Some(name), _) => file = name,
                (None, _) if line.starts_with("@@ ") => hunks.push((file.to_owned(), String::new())),
                // What must be there before it: the lines around, and those that go.
                (None, Some(' ' | '-')) if !line.starts_with("--- ") => {
                    let (_, before) = hunks.last_mut().expect("a hunk begins with @@");
                    before.push_str(&line[1..]);
                    before.push('\n');
                }
                _ => {}
            }
        }
        let head = head.lines().filter_map(|line| line.split_once(": "));
        Self {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            head: head.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            hunks,
        }
    }

    /// What the head says under `key`.
    fn said(&self, key: &str) -> Vec<&str> {
        self.head.iter().filter(|(found, _)| found == key).map(|(_, value)| value.as_str()).collect()
    }
}

fn patches() -> Vec<Patch> {
    let entries = fs::read_dir(root().join("tests/mends")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|ext| ext == "patch")).collect();
    paths.sort();
    assert!(paths.len() > 50, "these are not our patches: {paths:?}");
    paths.iter().map(|path| Patch::read(path)).collect()
}

#[test]
fn each_still_applies_and_takes_its_mend_out_of_the_product() {
    for Patch { name, hunks, .. } in patches() {
        assert!(!hunks.is_empty(), "{name} changes nothing");
        for (file, before) in hunks {
            let is_test = Path::new(&file).components().any(|part| part.as_os_str() == "tests");
            assert!(!is_test && !file.ends_with("tests.rs"), "{name} changes {file}, which is no part of the product");
            let text = fs::read_to_string(root().join(&file)).unwrap_or_else(|err| panic!("{name}: {file}: {err}"));
            assert!(text.contains(&before), "{name} no longer applies to {file}: make it anew. It wants\n{before}");
        }
    }
}

#[test]
fn each_names_tests_that_there_are() {
    let folders = BTreeMap::from([
        ("cargo test --lib", "src"),
        ("cargo test --test it", "tests/it"),
        ("cargo test -p gopherwatch-client --lib", "client/src"),
        ("cargo test -p gopherwatch-client --test it", "client/tests/it"),
        ("cargo test -p gopherwatch-agent --lib", "agent/src"),
        ("cargo test -p gopherwatch-agent --test it", "agent/tests/it"),
    ]);
    for patch in patches() {
        let tests = patch.said("Test");
        assert!(!tests.is_empty(), "{} names no test", patch.name);
        for test in tests {
            let (command, path) = test.rsplit_once(' ').unwrap();
            let folder = folders.get(command).unwrap_or_else(|| panic!("{}: {test}", patch.name));
            let function = format!("fn {}(", path.rsplit("::").next().unwrap());
            let is_there = sources(&root().join(folder)).iter().any(|text| text.contains(&function));
            assert!(is_there, "{}: there is no {test}", patch.name);
        }
    }
}

fn sources(folder: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            texts.extend(sources(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            texts.push(fs::read_to_string(path).unwrap());
        }
    }
    texts
}

#[test]
fn the_table_says_what_the_patches_say() {
    let readme = fs::read_to_string(root().join(README)).unwrap();
    let wanted: Vec<_> = patches()
        .iter()
        .map(|patch| {
            let one = |key| patch.said(key).first().copied().unwrap_or_else(|| panic!("{}: no {key}", patch.name));
            let names: Vec<_> = patch.said("Test").iter().filter_map(|test| test.rsplit(' ').next()).collect();
            let tests: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            let Patch { name, .. } = patch;
            format!("| {} | {} | [{name}]({name}.patch) | {} |", one("Hole"), one("Mend"), tests.join(" "))
        })
        .collect();
    let found: Vec<_> = readme.lines().filter(|line| line.contains(".patch) |")).collect();
    assert_eq!(found, wanted, "`scripts/mends.sh --table` prints the rows for {README}");
}
