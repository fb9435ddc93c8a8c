//! Tidiness as tests: invariants by absence over the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::tree::files;

const CRATES: [&str; 4] = ["protocol", "maildir", "server", "client"];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lies in the workspace")
        .to_owned()
}

/// A source file: its path from the workspace's root, and its code without tests and comments.
struct Source {
    path: String,
    code: String,
}

/// All non-test code of some crates.
fn sources(crates: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for name in crates {
        collect(&root().join(name).join("src"), &mut found);
    }
    assert!(found.len() >= crates.len(), "there are sources");
    found
}

fn collect(dir: &Path, found: &mut Vec<Source>) {
    for path in files(dir) {
        if path.is_dir() {
            collect(&path, found);
            continue;
        }
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("file names are text");
        if !name.ends_with(".rs") || name == "tests.rs" || name.ends_with("_tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("sources can be read");
        let relative = path
            .strip_prefix(root())
            .expect("lies in the workspace")
            .display()
            .to_string();
        found.push(Source {
            path: relative,
            code: code_of(&text),
        });
    }
}

/// What is compiled into a program: no test module, no comment.
fn code_of(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    code.lines().filter(is_code).collect::<Vec<_>>().join("\n")
}

/// Places outside of `allowed` (path prefixes) that hold one of these words.
fn offenders(crates: &[&str], words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources(crates) {
        if allowed.iter().any(|start| source.path.starts_with(start)) {
            continue;
        }
        for (number, line) in source.code.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!(
                    "{} (line {} of its code): {}",
                    source.path,
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    found
}

#[track_caller]
fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn the_tidy_test_sees_code_and_only_code() {
    let text = "//! has unsafe\nfn a() {} // b\n/// unsafe\n#[cfg(test)]\nmod tests { unsafe }";
    assert_eq!(code_of(text), "fn a() {} // b");
    assert!(!offenders(&["protocol"], &["pub struct Unique"], &[]).is_empty());
}

#[test]
fn the_mark_before_flags_is_known_to_one_file() {
    assert_none(
        "only protocol::name knows \":2,\"",
        &offenders(&CRATES, &[":2,"], &["protocol/src/name.rs"]),
    );
}

#[test]
fn nothing_is_unsafe() {
    let found = offenders(
        &[&CRATES[..], &["tests"]].concat(),
        &["unsafe {", "unsafe fn", "unsafe impl"],
        &[],
    );
    assert_none("no unsafe", &found);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("manifest is there");
    assert!(manifest.contains("unsafe_code = \"forbid\""));
}

/// Whatever shows nothing on some machine says so by name, and fails where tests are what the machine is there for.
#[test]
fn one_file_lets_tests_show_nothing() {
    // Put together here, so that this file does not say it.
    let said = ["shows", "nothing"].join(" ");
    let dir = root().join("tests");
    for source in kept_files() {
        let is_source = source.extension().is_some_and(|end| end == "rs");
        if !source.starts_with(&dir) || !is_source || source.ends_with("src/lacks.rs") {
            continue;
        }
        let text = fs::read_to_string(&source).expect("sources can be read");
        let is_printed = |line: &&str| !line.trim_start().starts_with("//") && line.contains(&said);
        let found: Vec<&str> = text.lines().filter(is_printed).collect();
        assert!(found.is_empty(), "{}: {found:?}", source.display());
    }
}

#[test]
fn nothing_unwraps() {
    assert_none(
        "say why it holds: expect(\"…\")",
        &offenders(&CRATES, &[".unwrap()"], &[]),
    );
}

#[test]
fn bytes_become_text_only_for_people() {
    let found = offenders(
        &CRATES,
        &["to_string_lossy", "from_utf8_lossy"],
        &["client/src/report"],
    );
    assert_none(
        "names are bytes; only client::report makes text of them",
        &found,
    );
}

#[test]
fn files_are_written_where_durability_is_known() {
    let words = ["File::create", "fs::write", "OpenOptions"];
    assert_none(
        "only maildir and the archive write files",
        &offenders(&["protocol", "server"], &words, &[]),
    );
    let found = offenders(
        &["client"],
        &words,
        &["client/src/archive", "client/src/endpoint/ssh"],
    );
    assert_none(
        "only maildir and the state files' writer write files",
        &found,
    );
}

#[test]
fn the_merge_is_pure() {
    const ROOM: &str = "client/src/merge/";
    let impure = [
        "std::fs",
        "std::net",
        "std::process",
        "std::env",
        "std::time::Instant",
        "SystemTime",
        "tokio",
        "tracing",
        "rusqlite",
        "println!",
        "maildir::",
        "std::thread",
        "Mutex",
    ];
    for file in ["reconcile", "plan", "guard", "pair", "fold", "folders"] {
        let path = format!("{ROOM}{file}.rs");
        assert!(root().join(&path).is_file(), "{path} is there");
    }
    let mut found = offenders(&["client"], &impure, &[]);
    found.retain(|place| place.starts_with(ROOM) || place.starts_with("client/src/merge.rs"));
    // Which directories may be a folder's is for the crate to say that makes them.
    found.retain(|place| !place.contains("maildir::check_dir("));
    assert_none("the merge is values in, values out", &found);
}

/// The rooms of the client, from the bottom up.
const ROOMS: [&str; 8] = [
    "merge", "cli", "archive", "config", "report", "endpoint", "run", "watch",
];

#[test]
fn rooms_do_not_depend_on_each_other_in_circles() {
    for (at, room) in ROOMS.iter().enumerate() {
        let above = ROOMS[at + 1..].iter().map(|room| format!("crate::{room}"));
        // A list would hide a name from this test.
        let words: Vec<String> = above.chain(["crate::{".to_owned()]).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut found = offenders(&["client"], &words, &[]);
        let starts = [".rs", "/"].map(|end| format!("client/src/{room}{end}"));
        found.retain(|place| starts.iter().any(|start| place.starts_with(start)));
        assert_none(&format!("{room} names only the rooms below it"), &found);
    }
    for path in files(&root().join("client/src")) {
        let name = path.file_stem().and_then(|name| name.to_str());
        let is_known = name.is_some_and(|name| name == "main" || ROOMS.contains(&name));
        assert!(is_known, "{} is no room", path.display());
    }
}

/// The modules of its crate that a source names, but for those that it lies in or that lie in it.
fn named_modules(source: &Source, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let own = module_of(source);
    let parent = own.rsplit_once("::").map_or("", |(parent, _)| parent);
    let is_of_path = |letter: char| letter.is_alphanumeric() || "_:".contains(letter);
    let mut found = BTreeSet::new();
    for (word, base) in [("crate::", ""), ("super::", parent)] {
        for rest in source.code.split(word).skip(1) {
            let path: String = rest
                .chars()
                .take_while(|&letter| is_of_path(letter))
                .collect();
            let list = rest[path.len()..].strip_prefix('{').unwrap_or_default();
            let list = list.split('}').next().unwrap_or_default().split(',');
            for name in list {
                let whole = format!("{base}::{path}{}", name.trim());
                let parts: Vec<&str> = whole.split("::").filter(|part| !part.is_empty()).collect();
                let mut starts = (1..=parts.len()).rev().map(|end| parts[..end].join("::"));
                found.extend(starts.find(|start| modules.contains(start)));
            }
        }
    }
    let lies_in =
        |inner: &str, outer: &str| format!("{inner}::").starts_with(&format!("{outer}::"));
    found.retain(|module| !lies_in(module, &own) && !lies_in(&own, module));
    found
}

/// `merge::plan::order`, as its own crate names it.
fn module_of(source: &Source) -> String {
    let (_, path) = source.path.split_once("/src/").expect("lies in a crate");
    path.trim_end_matches(".rs").replace('/', "::")
}

/// What each module of a crate names.
fn edges(name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let sources = sources(&[name]);
    let modules: BTreeSet<String> = sources.iter().map(module_of).collect();
    let named = |source: &Source| (module_of(source), named_modules(source, &modules));
    sources.iter().map(named).collect()
}

#[test]
fn modules_do_not_depend_on_each_other_in_circles() {
    let client = edges("client");
    assert!(client["merge::plan::order"].contains("merge::record"));
    assert!(client["endpoint::ssh::master"].contains("endpoint::ssh::terminal"));
    for edges in CRATES.map(edges) {
        for (module, named) in &edges {
            let mut reached = named.clone();
            let mut ahead: Vec<&String> = named.iter().collect();
            while let Some(next) = ahead.pop() {
                let new = edges[next].iter();
                ahead.extend(new.filter(|&module| reached.insert(module.clone())));
            }
            let circle = reached.contains(module);
            assert!(!circle, "{module} depends on itself: {reached:?}");
        }
    }
}

#[test]
fn the_protocol_does_no_io() {
    let words = [
        "std::fs",
        "std::net",
        "std::process",
        "std::env",
        "std::time",
        "tokio",
        "tracing",
        "println!",
    ];
    assert_none(
        "protocol works on values and streams handed to it",
        &offenders(&["protocol"], &words, &[]),
    );
}

#[test]
fn tokio_is_only_where_bytes_or_events_arrive() {
    assert_none(
        "protocol and maildir are plain calls",
        &offenders(&["protocol", "maildir"], &["tokio"], &[]),
    );
    let allowed = ["client/src/endpoint/ssh"];
    assert_none(
        "tokio in the client",
        &offenders(&["client"], &["tokio"], &allowed),
    );
}

#[test]
fn one_file_names_the_codec() {
    assert_none(
        "only protocol::codec names bincode",
        &offenders(&CRATES, &["bincode"], &["protocol/src/codec"]),
    );
    for name in ["maildir", "server", "client"] {
        let manifest =
            fs::read_to_string(root().join(name).join("Cargo.toml")).expect("manifest is there");
        assert!(!manifest.contains("bincode"), "{name} depends on bincode");
    }
}

#[test]
fn one_file_knows_ssh() {
    let allowed = ["client/src/endpoint/ssh"];
    assert_none(
        "only client::ssh names openssh",
        &offenders(&CRATES, &["openssh::"], &allowed),
    );
}

#[test]
fn no_global_state_changes() {
    assert_none(
        "no global mutable state",
        &offenders(
            &CRATES,
            &["static mut", "lazy_static", "thread_local!"],
            &[],
        ),
    );
}

#[test]
fn modules_are_named_for_what_they_own() {
    for source in sources(&[&CRATES[..], &["tests"]].concat()) {
        for vague in [
            "util", "utils", "common", "helpers", "helper", "manager", "misc",
        ] {
            let named = source.path.split(['/', '.']).any(|part| part == vague);
            assert!(!named, "{} is named {vague}", source.path);
        }
    }
}

#[test]
fn crates_depend_downwards() {
    let manifest = |name: &str| {
        fs::read_to_string(root().join(name).join("Cargo.toml")).expect("manifest is there")
    };
    let depends = |name: &str, on: &str| {
        manifest(name)
            .lines()
            .any(|line| line.split(['.', ' ', '=']).next() == Some(on))
    };
    for (name, on) in [
        ("client", "server"),
        ("client", "maildir-sync-server"),
        ("server", "client"),
        ("maildir", "client"),
        ("maildir", "server"),
        ("protocol", "maildir"),
        ("protocol", "client"),
        ("protocol", "server"),
    ] {
        assert!(!depends(name, on), "{name} depends on {on}");
    }
    for name in ["protocol", "maildir", "client", "server"] {
        assert!(
            !depends("tests", name),
            "the suite links {name}: it is to be black box"
        );
    }
}

/// Everything that is kept in git, or would be.
fn kept_files() -> Vec<PathBuf> {
    let mut command = Command::new("git");
    command.arg("-C").arg(root()).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
    ]);
    let done = harness::process::run(command, harness::process::LIMIT);
    assert_eq!(done.code, Some(0), "{done:?}");
    let names = done
        .stdout
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty());
    let path =
        |name: &[u8]| root().join(String::from_utf8(name.to_vec()).expect("file names are text"));
    names.map(path).filter(|path| path.is_file()).collect()
}

/// The project stands alone: a fresh clone needs nothing beside it.
#[test]
fn nothing_names_a_place_beside_the_project() {
    // Put together here, so that this file does not name them.
    let places = [
        ["..", "shared"].join("/"),
        ["", "work", "shared"].join("/"),
        ["", "work", "main"].join("/"),
    ];
    for path in kept_files() {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for place in &places {
            assert!(
                !text.contains(place.as_str()),
                "{} names {place}",
                path.display()
            );
        }
    }
}

#[test]
fn every_source_says_what_it_owns() {
    for source in kept_files()
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
    {
        let text = fs::read_to_string(source).expect("sources can be read");
        assert!(
            text.starts_with("//!") || text.starts_with("#!["),
            "{} has no module comment",
            source.display()
        );
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("manifest is there");
    let dependencies = manifest
        .split("[workspace.dependencies]")
        .nth(1)
        .expect("there are dependencies");
    let dependencies = dependencies.split("\n[").next().expect("they end");
    let mut reason_above = false;
    for line in dependencies.lines().filter(|line| !line.is_empty()) {
        let is_comment = line.starts_with('#');
        let ours = line.contains("path = \"");
        let whole = is_comment
            || ours
            || line.contains("# ")
            || reason_above
            || line.starts_with("serde_json");
        assert!(whole, "no reason beside {line}");
        reason_above = is_comment && line.len() > 60;
    }
}
