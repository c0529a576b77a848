//! The annotated configuration that is shipped says every option and its true default.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::{fs, path::Path};

use bureau_node::config::{Config, ConfigError, Limits, Links, Log, Store};

/// RFC 8032, 7.1, test 1: stands for the root key that only an operator can fill in.
const ROOT_KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

const TABLES: [&str; 12] = [
    "keys", "tls", "roster", "desk", "link", "admin", "metrics", "log", "policy", "limits",
    "store", "links",
];
const LISTS: [&str; 2] = ["peer", "client"];

/// The shipped file; a root key written as `<…>` is filled in.
fn shipped() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/bureau.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    match text.split_once("root_keys = [\"<") {
        Some((before, after)) => {
            let (_, after) = after.split_once(">\"").unwrap();
            format!("{before}root_keys = [\"{ROOT_KEY}\"{after}")
        }
        None => text,
    }
}

fn load(text: &str) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bureau.toml");
    fs::write(&path, text).unwrap();
    Config::load(&path)
}

/// The options that a table has, from what is said about one that it has not.
fn options(table: &str, field: &str) -> Vec<String> {
    let error = load(&format!("{table}\nno_such_option = 1\n")).unwrap_err();
    let fault = error.faults.iter().find(|fault| fault.field == field);
    let fault = fault.unwrap_or_else(|| panic!("{field} is not in\n{error}"));
    let known = fault.cure.strip_prefix("known here: ").unwrap();
    known.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_shipped_file_gives_the_defaults() {
    let config = load(&shipped()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.store, Store::default());
    assert_eq!(config.links, Links::default());
    assert_eq!(config.log, Log::default());
    assert_eq!((config.drain_seconds, config.tls.crls.len()), (10, 0));
}

#[test]
fn the_shipped_file_names_every_option() {
    let shipped: toml::Table = shipped().parse().unwrap();
    let root = options("", "no_such_option");
    let known: Vec<&str> = TABLES.into_iter().chain(LISTS).collect();
    for option in &root {
        assert!(shipped.contains_key(option), "{option} is missing");
        // A table that this test does not know would not be looked into.
        let is_table = shipped[option].is_table() || shipped[option].is_array();
        assert_eq!(is_table, known.contains(&option.as_str()), "{option}");
    }
    for table in TABLES {
        for option in options(&format!("[{table}]"), &format!("{table}.no_such_option")) {
            assert!(shipped[table].get(&option).is_some(), "{table}.{option} is missing");
        }
    }
    for list in LISTS {
        for option in options(&format!("[[{list}]]"), &format!("{list}[0].no_such_option")) {
            assert!(shipped[list][0].get(&option).is_some(), "{list}.{option} is missing");
        }
    }
}
