//! The house rules that a test can hold; the reasons stand in CONTRIBUTING.md. What a compiler lint
//! holds, too, is here once more where it must not be switched off by an attribute.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "tidy/source.rs"]
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use source::{Source, words};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Which crate may name which: proto ← core ← {store, net} ← node ← cli ← bin. The bench stands
/// beside the binary. The commands open no store: what a node does is the node's.
const ARROWS: [(&str, &[&str]); 9] = [
    ("proto", &[]),
    ("core", &["proto"]),
    ("store", &["proto", "core"]),
    ("net", &["proto", "core"]),
    ("node", &["proto", "core", "store", "net"]),
    ("cli", &["proto", "core", "net", "node"]),
    ("sim", &["proto", "core", "store", "node"]),
    ("bench", &["proto", "core", "store", "net", "node", "cli", "sim"]),
    ("", &["cli"]),
];

/// What core must not name: it is pure, so that what it decides can be tried anywhere.
const IMPURE: [&str; 8] =
    ["tokio", "tonic", "tracing", "rustls", "SystemTime", "Instant", "TcpStream", "fs"];

#[test]
fn files_are_short() {
    let long = sources().into_iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{}: {lines} lines", source.path.display()))
    });
    none(&format!("files of more than {FILE_LINES_MAX} lines"), long);
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for source in sources() {
        for function in source.functions() {
            let lines = function.last - function.first + 1;
            if lines > FUNCTION_LINES_MAX {
                let (path, first) = (source.path.display(), function.first);
                long.push(format!("{path}:{first}: {} has {lines} lines", function.name));
            }
        }
    }
    none(&format!("functions of more than {FUNCTION_LINES_MAX} lines"), long);
}

#[test]
fn arrows_point_one_way() {
    let mut wrong = Vec::new();
    for (name, allowed) in ARROWS {
        let manifest = manifest(name);
        for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
            // The root package's tests look into every room.
            if name.is_empty() && kind == "dev-dependencies" {
                continue;
            }
            for dependency in keys(&manifest, kind) {
                let Some(other) = dependency.strip_prefix("bureau-") else { continue };
                // A crate's own tests may turn on its own features.
                let itself = other == name && kind == "dev-dependencies";
                if !allowed.contains(&other) && !itself {
                    wrong.push(format!("{name}: {kind}: {dependency}"));
                }
            }
        }
    }
    let known: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let rooms = fs::read_dir(root().join("crates")).unwrap();
    for room in rooms.map(|room| room.unwrap().file_name().into_string().unwrap()) {
        if room != "bin" && !known.contains(room.as_str()) {
            wrong.push(format!("{room}: not in the arrows"));
        }
    }
    none("crates that name what they must not", wrong);
}

#[test]
fn only_the_store_names_sled() {
    let outside = |source: &Source| !source.path.starts_with("crates/store");
    let sources = sources().into_iter().filter(outside);
    let mut named: Vec<String> = sources
        .flat_map(|source| {
            let at: Vec<usize> = words(&source.code, "sled").collect();
            at.into_iter().map(move |at| source.place(at))
        })
        .collect();
    for (name, _) in ARROWS.into_iter().filter(|(name, _)| *name != "store") {
        let manifest = manifest(name);
        let kinds = ["dependencies", "build-dependencies", "dev-dependencies"];
        if kinds.iter().any(|kind| keys(&manifest, kind).iter().any(|key| key == "sled")) {
            named.push(format!("{name}/Cargo.toml"));
        }
    }
    none("sled outside the store", named);
}

#[test]
fn core_is_pure() {
    let core = sources().into_iter().filter(|source| source.path.starts_with("crates/core/src"));
    let impure = core.flat_map(|source| {
        let find = |word: &&str| words(&source.shipped, word).next().map(|at| source.place(at));
        let awaits = [".await", "async fn"].iter().filter_map(|word| source.shipped.find(word));
        let awaits: Vec<_> = awaits.map(|at| source.place(at)).collect();
        IMPURE.iter().filter_map(find).chain(awaits).collect::<Vec<_>>()
    });
    none("I/O, clock or async in core", impure);
}

#[test]
fn nothing_shipped_panics_on_purpose() {
    let mut found = Vec::new();
    // The bench ships to nobody, and ends where it cannot go on.
    let shipped = |source: &Source| !source.path.starts_with("crates/bench");
    for source in sources().into_iter().filter(shipped) {
        for word in [".unwrap()", ".unwrap_err()", ".expect(", ".expect_err("] {
            found.extend(source.shipped.match_indices(word).map(|(at, _)| source.place(at)));
        }
        for word in ["panic", "todo", "unimplemented"] {
            let called = |at: &usize| source.shipped[at + word.len()..].starts_with('!');
            found.extend(words(&source.shipped, word).filter(called).map(|at| source.place(at)));
        }
    }
    none("unwrap, expect, panic!, todo! or unimplemented! outside tests", found);
}

#[test]
fn no_crate_allows_unsafe_code() {
    let roots = ["src/lib.rs", "src/main.rs", "main.rs"];
    let rooms = fs::read_dir(root().join("crates")).unwrap();
    let mut missing = Vec::new();
    for room in rooms.map(|room| room.unwrap().path()) {
        let found: Vec<_> =
            roots.iter().map(|name| room.join(name)).filter(|path| path.is_file()).collect();
        assert!(!found.is_empty(), "{} has no crate root", room.display());
        for path in found {
            let text = fs::read_to_string(&path).unwrap();
            if !text.lines().any(|line| line == "#![forbid(unsafe_code)]") {
                missing.push(path.display().to_string());
            }
        }
    }
    none("crate roots without #![forbid(unsafe_code)]", missing);
}

#[test]
fn exceptions_say_why() {
    let mut silent = Vec::new();
    for source in sources() {
        for start in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
            for (at, _) in source.code.match_indices(start) {
                let attribute = source.code[at..].split(']').next().unwrap_or("");
                if !attribute.contains("reason =") {
                    silent.push(source.place(at));
                }
            }
        }
    }
    none("lint exceptions without a reason", silent);
}

#[test]
fn nothing_is_left_for_later() {
    let mut left = Vec::new();
    for source in sources() {
        for word in ["TODO", "FIXME", "XXX"] {
            let in_comment = |at: &usize| {
                let line = source.text[..*at].rfind('\n').map_or(0, |end| end + 1);
                source.code[*at..].starts_with(' ') && source.text[line..*at].contains("//")
            };
            let found = words(&source.text, word).filter(in_comment);
            left.extend(found.map(|at| source.place(at)));
        }
    }
    none("comments that put something off", left);
}

#[test]
fn no_private_key_is_committed() {
    let mark = ["PRIVATE KEY", "-----"].concat();
    let mut keys = Vec::new();
    for path in committed() {
        let text = String::from_utf8_lossy(&fs::read(root().join(&path)).unwrap()).into_owned();
        let mut lines = text.lines().map(|line| line.trim().trim_end_matches("\\n"));
        while let Some(line) = lines.next() {
            if line.ends_with(&mark) && lines.next().is_some_and(is_base64) {
                keys.push(path.display().to_string());
            }
        }
    }
    none("files with a private key", keys);
}

/// A line of a key, and not a sentence or a place for one.
fn is_base64(line: &str) -> bool {
    let symbol = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    line.len() >= 16 && line.bytes().all(symbol)
}

#[test]
fn every_event_is_in_the_handbook() {
    let mut events = BTreeMap::new();
    let mut unnamed = Vec::new();
    for source in sources() {
        for at in words(&source.shipped, "event") {
            let Some(value) = source.shipped[at..].strip_prefix("event = ") else { continue };
            if value.starts_with('"') {
                let name = source.literal(at + "event = ".len()).to_owned();
                events.entry(name).or_insert_with(|| source.place(at));
            } else if source.shipped[..at].trim_end().ends_with(['(', ',']) {
                unnamed.push(source.place(at));
            }
        }
    }
    none("events whose name is not written out", unnamed);
    let found = events.keys().cloned().collect();
    same_as_in_the_handbook("Events", &found, |name| events[name].clone());
}

#[test]
fn every_reason_is_in_the_handbook() {
    let reasons = bureau_core::Reason::ALL.iter().map(|reason| reason.as_str().to_owned());
    same_as_in_the_handbook("Error reasons", &reasons.collect(), |_| "reason.rs".to_owned());
    let refusals = bureau_net::HandshakeRefusal::ALL.iter().map(|reason| reason.as_str());
    let refusals = refusals.map(str::to_owned).collect();
    same_as_in_the_handbook("Handshake refusals", &refusals, |_| "refusal.rs".to_owned());
}

#[test]
fn every_metric_is_in_the_handbook() {
    let path = PathBuf::from("crates/node/src/telemetry/metrics/families.rs");
    let source = Source::read(root(), path);
    // Each is the first text of a registration: make.plain("accepted", "Messages …").
    let quotes = source.shipped.match_indices('"').map(|(at, _)| at).step_by(2);
    let names = quotes.filter(|at| {
        let call = source.shipped[..*at].trim_end().strip_suffix('(').unwrap_or("");
        ["plain", "measured", "times", "register"].iter().any(|made| call.ends_with(made))
    });
    let names: BTreeSet<String> =
        names.map(|at| format!("bureau_{}", source.literal(at))).collect();
    assert!(names.len() > 15, "only {names:?}: this test looks in the wrong place");
    // The format adds what kind of figure it is, and its unit.
    let told = handbook_table("Metrics").into_iter().map(|told| {
        let ends = ["_total", "_seconds", "_bytes", "_info"];
        let bare = ends.iter().find_map(|end| told.strip_suffix(end));
        bare.filter(|bare| names.contains(*bare)).map(str::to_owned).unwrap_or(told)
    });
    let told = told.collect();
    none("metrics missing in the handbook", names.difference(&told).cloned());
    none("metrics in the handbook that are no more", told.difference(&names).cloned());
}

/// Both ways: what is not told cannot be acted on, what is told and gone misleads.
fn same_as_in_the_handbook(
    heading: &str,
    names: &BTreeSet<String>,
    place: impl Fn(&str) -> String,
) {
    assert!(!names.is_empty(), "{heading}: nothing found: this test looks in the wrong place");
    let told = handbook_table(heading);
    let untold = names.difference(&told).map(|name| format!("{name} ({})", place(name)));
    none(&format!("names missing in the handbook's table \"{heading}\""), untold);
    let gone = told.difference(names).cloned();
    none(&format!("names in the handbook's table \"{heading}\" that are no more"), gone);
}

/// The first column of the table under a heading: names between backquotes.
fn handbook_table(heading: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("deploy/HANDBOOK.md")).unwrap();
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with('#') {
            inside = line.trim_start_matches('#').trim() == heading;
        } else if inside && let Some(rest) = line.strip_prefix("| `") {
            let name = rest.split('`').next().unwrap().to_owned();
            assert!(names.insert(name.clone()), "the handbook tells {name} twice");
        }
    }
    names
}

#[test]
fn every_option_is_in_the_example() {
    let path = PathBuf::from("crates/node/src/config/raw.rs");
    let options = options(&Source::read(root(), path).code);
    assert!(options.len() > 30, "only {options:?}: this test looks in the wrong place");
    let text = fs::read_to_string(root().join("deploy/bureau.toml")).unwrap();
    let mut written = BTreeSet::new();
    flatten("", &toml::Value::Table(text.parse().unwrap()), &mut written);
    none("options missing in deploy/bureau.toml", options.difference(&written).cloned());
    none("unknown options in deploy/bureau.toml", written.difference(&options).cloned());
}

/// Every option by its path, as in `limits.body_bytes`, from the structs that read it.
fn options(code: &str) -> BTreeSet<String> {
    let mut structs: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    let mut current = None;
    for line in code.lines().skip_while(|line| !line.starts_with("raw!")).map(str::trim) {
        if let Some(name) = line.strip_suffix(" {") {
            current = Some(name);
        } else if let (Some(name), Some((field, kind))) = (current, line.split_once(": ")) {
            structs.entry(name).or_default().push((field, kind.trim_end_matches(',')));
        }
    }
    let mut options = BTreeSet::new();
    for (field, kind) in &structs["Raw"] {
        let inner = kind.trim_start_matches("Vec<").trim_end_matches('>');
        match structs.get(inner) {
            Some(fields) => {
                options.extend(fields.iter().map(|(name, _)| format!("{field}.{name}")));
            }
            None => drop(options.insert((*field).to_owned())),
        }
    }
    options
}

fn flatten(path: &str, value: &toml::Value, options: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, options);
            }
        }
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            items.iter().for_each(|item| flatten(path, item, options));
        }
        _ => drop(options.insert(path.to_owned())),
    }
}

#[test]
fn the_rules_can_be_broken() {
    let text = r##"
fn a<'a>(x: &'a str) -> char { let y = "} .unwrap()"; /* { /* { */ */ '{' } // {
fn b() { let x = r#"fn c() { .unwrap() }"#; x.unwrap() }
#[cfg(test)]
mod tests { fn d() { x.unwrap() } }
"##;
    let source = Source::new(PathBuf::from("src/x.rs"), text.to_owned());
    let functions = source.functions();
    let found: Vec<_> = functions.iter().map(|f| (f.name, f.first, f.last)).collect();
    assert_eq!(found, [("a", 2, 2), ("b", 3, 3), ("d", 5, 5)]);
    let unwraps: Vec<_> = source.shipped.match_indices(".unwrap()").collect();
    assert_eq!(unwraps.len(), 1, "one is shipped; the others are texts and tests");
    assert_eq!(source.line(unwraps[0].0), 3);
    assert!(is_base64("MC4CAQAwBQYDK2VwBCIEIA"));
    assert!(!is_base64("a sentence about keys"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the project.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in ["crates", "tests"] {
        walk(Path::new(folder), &mut paths);
    }
    let rust = paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let sources: Vec<_> = rust.map(|path| Source::read(root(), path)).collect();
    assert!(sources.len() > 50, "only {} files: this test looks in the wrong place", sources.len());
    sources
}

/// Every file that git knows; every file there is, in a copy without git.
fn committed() -> Vec<PathBuf> {
    let git = Command::new("git").arg("-C").arg(root()).args(["ls-files", "-z"]).output();
    if let Ok(output) = git
        && output.status.success()
    {
        let names = String::from_utf8(output.stdout).unwrap();
        let paths = names.split_terminator('\0').map(PathBuf::from);
        return paths.filter(|path| root().join(path).is_file()).collect();
    }
    let mut paths = Vec::new();
    walk(Path::new(""), &mut paths);
    paths
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        let name = entry.file_name();
        if entry.file_type().unwrap().is_file() {
            paths.push(path);
        } else if entry.file_type().unwrap().is_dir() && name != "target" && name != ".git" {
            walk(&path, paths);
        }
    }
}

fn manifest(name: &str) -> toml::Table {
    let path = match name {
        "" => root().join("Cargo.toml"),
        name => root().join("crates").join(name).join("Cargo.toml"),
    };
    fs::read_to_string(path).unwrap().parse().unwrap()
}

fn keys(manifest: &toml::Table, table: &str) -> Vec<String> {
    let table = manifest.get(table).and_then(toml::Value::as_table);
    table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

/// Fails with all of them, so that one run shows the whole work.
fn none(what: &str, found: impl IntoIterator<Item = String>) {
    let found: Vec<String> = found.into_iter().collect();
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}
