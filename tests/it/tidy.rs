//! What ARCHITECTURE.md says of the layers is mostly about absence; here it is looked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The code of each top-level module of `src/`, without comments and tests.
fn modules() -> BTreeMap<String, String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    let mut modules: BTreeMap<String, String> = BTreeMap::new();
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        // `simulation` is a test as a whole: it stands in for every edge.
        let is_test = |name: &Path| name == Path::new("tests") || name == Path::new("simulation");
        if inside.components().any(|part| is_test(&Path::new(part.as_os_str()).with_extension(""))) {
            continue;
        }
        let first = inside.components().next().unwrap();
        let module = Path::new(first.as_os_str()).with_extension("").display().to_string();
        modules.entry(module).or_default().push_str(&code(&fs::read_to_string(file).unwrap()));
    }
    assert!(modules.len() > 10, "these are not our sources: {:?}", modules.keys());
    modules
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            into.push(path);
        }
    }
}

fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).fold(String::new(), |all, line| all + line + "\n")
}

/// The modules of ours that this code names.
fn imports(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for prefix in ["crate::", "gopherwatch::"] {
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            if !rest.starts_with('{') {
                found.insert(word(rest));
                continue;
            }
            // The names at the first level of the braces.
            let mut depth = 0;
            let mut begins = false;
            for (at, c) in rest.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
                if depth == 1 && (c == '{' || c == ',') {
                    begins = true;
                } else if begins && c.is_alphabetic() {
                    found.insert(word(&rest[at..]));
                    begins = false;
                }
            }
        }
    }
    found
}

/// Whether `code` uses the crate or path.
fn uses(code: &str, name: &str) -> bool {
    let part_of_a_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        !before.is_some_and(part_of_a_name) && !after.is_some_and(part_of_a_name)
    })
}

#[test]
fn each_crate_has_its_home() {
    let homes: [(&[&str], &[&str]); 11] = [
        (&["tonic", "tonic_health", "tonic_types", "tonic_reflection"], &["ingest"]),
        (&["warp", "hyper", "hyper_util"], &["rest"]),
        (&["tokio", "tokio_util", "tokio_stream"], &["ingest", "dispatch", "doors", "control", "rest", "app", "main"]),
        (&["rayon"], &["evaluate"]),
        (&["r2d2", "mysql", "r2d2_mysql", "rusqlite", "r2d2_sqlite"], &["store", "journal"]),
        (&["toml"], &["rules", "ruletest"]),
        (&["ureq", "rustls_native_certs"], &["notify"]),
        (&["ring"], &["notify", "doors", "init"]),
        (&["rcgen"], &["init"]),
        (&["subtle", "tokio_rustls"], &["doors"]),
        (&["rustls"], &["doors", "init", "main"]),
    ];
    for (module, code) in modules() {
        for (crates, at_home_in) in homes {
            for name in crates {
                let used = uses(&code, &format!("{name}::"));
                assert!(
                    !used || at_home_in.contains(&module.as_str()),
                    "{module} uses {name}, at home in {at_home_in:?}"
                );
            }
        }
    }
}

#[test]
fn modules_depend_in_one_direction() {
    // What each may name; the layers from the first to the last. Stages name the borders of the next.
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("model", &[] as &[&str]),
        ("units", &[]),
        ("stats", &["model"]),
        ("health", &["model"]),
        ("log", &["model"]),
        ("rules", &["model", "units"]),
        ("state", &["model", "rules"]),
        ("store", &["model", "log"]),
        ("rule_file", &["rules"]),
        ("notify", &["log", "model", "rule_file", "rules"]),
        ("dispatch", &["model", "rules", "state", "stats"]),
        ("journal", &["dispatch", "health", "log", "model", "rules", "state", "stats"]),
        ("restore", &["journal", "model", "rules", "state"]),
        (
            "control",
            &["deliver", "dispatch", "doors", "health", "log", "model", "rule_file", "rules", "state", "stats"],
        ),
        ("evaluate", &["dispatch", "journal", "model", "rules", "state", "stats"]),
        ("accounts", &["dispatch", "model", "rules", "state", "stats"]),
        ("data_dir", &["model"]),
        ("descriptors", &[]),
        ("doors", &["log", "stats"]),
        ("deliver", &["health", "journal", "log", "model", "notify", "rule_file", "rules", "stats", "store"]),
        ("ingest", &["dispatch", "doors", "log", "model", "state", "stats"]),
        ("rest", &["control", "doors", "health", "log", "model", "rules", "state", "stats", "store"]),
        ("ruletest", &["model", "rules", "state", "units"]),
        ("service_manager", &[]),
        ("init", &[]),
        ("commands", &["init", "log", "rules", "ruletest"]),
        ("config", &["doors", "init", "log", "rule_file", "rules", "store", "units"]),
    ]);
    let modules = modules();
    let names: BTreeSet<&str> = modules.keys().map(String::as_str).collect();
    for (module, code) in &modules {
        let named = imports(code);
        let named: BTreeSet<&str> = named.iter().map(String::as_str).filter(|name| names.contains(name)).collect();
        match module.as_str() {
            // The wiring sees every stage; the program sees the wiring.
            "app" | "main" | "lib" => {}
            module => {
                let allowed =
                    allowed.get(module).unwrap_or_else(|| panic!("{module} is new: say here what it may name"));
                let wrong: Vec<_> = named.iter().filter(|name| **name != module && !allowed.contains(name)).collect();
                assert!(wrong.is_empty(), "{module} names {wrong:?}");
            }
        }
    }
    assert!(imports(&modules["evaluate"]).contains("dispatch"), "the reader of imports reads nothing");
}

#[test]
fn rules_are_pure() {
    let rules = &modules()["rules"];
    for impure in [
        "Instant",
        "SystemTime",
        "Timestamp::now",
        "std::thread",
        "thread::",
        "std::fs",
        "fs::",
        "std::io",
        "std::env",
        "Mutex",
        "RwLock",
        "slog",
        "rand",
        "File",
    ] {
        // RwLock stands only in the type that others share the rules by.
        let code = rules.replace("parking_lot::RwLock", "").replace("Arc<RwLock<Arc<RuleSet>>>", "");
        assert!(!uses(&code, impure), "rules use {impure}");
    }
}

/// What checks the server must not share its mistakes.
#[test]
fn the_proof_does_not_depend_on_the_server() {
    let chaos = Path::new(env!("CARGO_MANIFEST_DIR")).join("chaos");
    let manifest = fs::read_to_string(chaos.join("Cargo.toml")).unwrap();
    let named = |name: &str| {
        manifest.lines().any(|line| line.starts_with(&format!("{name}.")) || line.starts_with(&format!("{name} ")))
    };
    assert!(named("gopherwatch-proto") && !named("gopherwatch"), "chaos/Cargo.toml");
    let mut files = Vec::new();
    collect(&chaos.join("src"), &mut files);
    assert!(files.len() > 10, "these are not its sources: {files:?}");
    for file in files {
        let code = code(&fs::read_to_string(&file).unwrap());
        let path_to_server = code.contains("\"../src") || code.contains("include!(");
        assert!(!uses(&code, "gopherwatch::") && !path_to_server, "{} uses the server's code", file.display());
        for word in ["unbounded(", "unbounded_channel(", "mpsc::channel()"] {
            assert!(!code.contains(word), "{} has a queue without a bound (I1)", file.display());
        }
    }
}

#[test]
fn no_queue_is_unbounded() {
    for (module, code) in modules() {
        for word in ["unbounded(", "unbounded_channel("] {
            assert!(!code.contains(word), "{module} has a queue without a bound (I1)");
        }
    }
}

#[test]
fn the_core_types_are_not_serializable() {
    let model = &modules()["model"];
    assert!(!uses(model, "serde") && !uses(model, "Serialize"));
}
