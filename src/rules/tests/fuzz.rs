//! What the fuzzer starts from and what it has found (fuzz/README.md), and soups of words.

use std::{fs, path::Path};

use proptest::{collection::vec, prelude::*, sample::select};

// The probe is compiled here and by the fuzzer, which knows this crate by its name.
use crate as gopherwatch;

#[path = "../../../fuzz/src/rules_probe.rs"]
mod probe;

#[test]
fn what_the_fuzzer_starts_from_and_has_found_holds() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let texts = fs::read_dir(seeds.join("rules")).expect("the seeds").map(|seed| {
        let seed = seed.expect("readable").path();
        fs::read_to_string(seed).expect("text")
    });
    let found = fs::read_to_string(seeds.join("found.json")).expect("what was found");
    let found: Vec<String> = serde_json::from_str(&found).expect("a list of texts");
    let texts: Vec<_> = texts.chain(found).collect();
    assert!(texts.len() > 100, "{} texts in {}", texts.len(), seeds.display());
    texts.iter().for_each(|text| probe::probe(text));
}

/// Each metric of a condition used to be looked for from the file's beginning: the square of its length.
#[test]
fn reading_takes_time_by_the_length_and_no_more() {
    const BYTES: usize = 128 * 1_024;
    for shape in [
        "m>m and ",
        "m > 1 or ",
        "m+",
        "m*",
        "m-",
        "not ",
        "-",
        "(",
        ")",
        "(m>1)and",
        "`",
        "`m`>`n`or ",
        "m",
        "9",
        " ",
        "\t\r\n",
        "avg(m,5m)+",
        "avg(",
        "absent(",
        "m>1\nand ",
        "ö",
        ">",
        "1e",
        ".",
        "m,",
    ] {
        let text = shape.repeat(BYTES / shape.len());
        for text in [text.clone(), format!("{text}m > 1"), format!("m > 1 and {text}")] {
            for file in [
                format!("[[rules]]\nname = 'a'\nwhen = '''{text}'''"),
                format!("[[rules]]\nname = 'a'\nwhen = 'a > 1'\nsummary = '''{text}'''"),
            ] {
                probe::takes_no_longer_than_its_length_allows(&file);
            }
        }
        probe::takes_no_longer_than_its_length_allows(&text);
    }
    for rule in ["[[rules]]\nname='N'\nwhen='a>1'\n", "[[rules]]\nname='N'\nwhen='''\na>1'''\nclear=\"\\u0061<1\"\n"] {
        let file: String = (0..BYTES / rule.len()).map(|n| rule.replace('N', &n.to_string())).collect();
        probe::takes_no_longer_than_its_length_allows(&file);
    }
}

/// Words of the language and what looks like them.
const WORDS: [&str; 58] = [
    "a",
    "cpu_percent",
    "`d/e`",
    "`",
    "``",
    "`a b`",
    "1",
    "90",
    ".5",
    "1e3",
    "1e999",
    "5.",
    "9x",
    "+",
    "-",
    "*",
    "/",
    "%",
    ">",
    ">=",
    "<",
    "<=",
    "==",
    "!=",
    "=",
    "=>",
    "<>",
    "!",
    "&&",
    "||",
    "and",
    "or",
    "not",
    "AND",
    "nott",
    "absent",
    "(",
    ")",
    "()",
    ",",
    "avg",
    "rate",
    "count",
    "averge",
    "avg(a, 5m)",
    "absent()",
    "absent(30s)",
    "5m",
    "0s",
    "25h",
    "500ms",
    "a > 1",
    "a < 2",
    "\n",
    "\t",
    "\"",
    "'",
    "é",
];

fn soup() -> impl Strategy<Value = String> {
    (vec(select(WORDS.to_vec()), 1..60), select(vec!["", " ", "\n"])).prop_map(|(words, between)| words.join(between))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_soup_of_words_is_read_or_refused(soup in soup()) {
        probe::probe(&soup);
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        probe::probe(&text);
    }
}
