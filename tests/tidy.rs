//! Tests of the source tree itself: allowed dependencies and imports between folders, no import cycles, where backends may be
//! named, a `//!` line in every file, no ignored tests, and the tree in README.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// All Rust files below a folder, with their paths from the root.
pub fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn dependencies(member: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    let table = manifest
        .get("dependencies")
        .and_then(|table| table.as_table());
    table
        .map(|table| table.keys().cloned().collect())
        .unwrap_or_default()
}

/// Fails for every line of code, comments left out, that holds one of the words.
fn forbid(files: &[(String, String)], words: &[&str], why: &str) {
    for (name, text) in files {
        for (index, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for word in words {
                assert!(!code.contains(word), "{name}:{}: {word}: {why}", index + 1);
            }
        }
    }
}

#[test]
fn model_crates_are_mathematics() {
    for member in ["brian", "brillm"] {
        // Arrays, vector instructions, threads and short numbers are for the passes that run on the host, bytes for tables in shards.
        let allowed = [
            "burn",
            "burn-cubecl",
            "burn-ndarray",
            "bytemuck",
            "half",
            "ndarray",
            "pulp",
            "rayon",
            "serde",
            "thiserror",
        ];
        let allowed: BTreeSet<String> = allowed.map(String::from).into();
        let foreign: Vec<_> = dependencies(member).difference(&allowed).cloned().collect();
        assert_eq!(foreign, [""; 0], "dependencies of {member}");
        let words = [
            "std::fs",
            "std::io",
            "std::net",
            "std::time",
            "burn::train",
            "println!",
            "clap",
            "train::",
        ];
        let mut files = sources(&format!("{member}/src"));
        // A test says what it did not run.
        files.retain(|(name, _)| !name.ends_with("/tests.rs"));
        forbid(&files, &words, "a model crate touches no world");
    }
    forbid(
        &sources("brian/src"),
        &["brillm"],
        "the two models share nothing",
    );
    forbid(
        &sources("brillm/src"),
        &["brian"],
        "the two models share nothing",
    );
}

#[test]
fn what_is_joined_is_held_meanwhile() {
    let mut files = sources("brian/src");
    files.retain(|(name, _)| name != "brian/src/ops/cat.rs" && !name.contains("tests"));
    let why = "ops/cat.rs says what Burn's would lose";
    forbid(&files, &["Tensor::cat", "Tensor::stack"], why);
}

#[test]
fn arrows_inside_the_model_point_one_way() {
    let arrows = [
        (
            "brian/src/block",
            vec![
                "crate::route",
                "crate::model",
                "crate::baseline",
                "crate::generate",
                "crate::loss",
            ],
        ),
        (
            "brian/src/memory",
            vec![
                "crate::route",
                "crate::model",
                "crate::baseline",
                "crate::generate",
                "crate::loss",
            ],
        ),
        (
            "brian/src/route",
            vec![
                "crate::model",
                "crate::baseline",
                "crate::generate",
                "crate::loss",
            ],
        ),
        (
            "brian/src/loss",
            vec!["crate::model", "crate::baseline", "crate::block"],
        ),
    ];
    for (folder, forbidden) in arrows {
        forbid(&sources(folder), &forbidden, "this arrow points back");
    }
    let mut operations = sources("brian/src/ops");
    operations.retain(|(name, _)| !name.ends_with("tests.rs"));
    forbid(
        &operations,
        &["crate::"],
        "operations know nothing but each other",
    );
}

/// Of every file of a crate, tests left out, which others it imports from; by their modules, such as `route::walk`.
fn imports(member: &str) -> BTreeMap<String, BTreeSet<String>> {
    let folder = format!("{member}/src/");
    let module = |name: &str| {
        let name = name.strip_prefix(&folder).unwrap().trim_end_matches(".rs");
        let name = name.trim_end_matches("lib").trim_end_matches("/mod");
        name.replace('/', "::")
    };
    let files: BTreeMap<String, String> = sources(&folder)
        .into_iter()
        .filter(|(name, _)| !name.contains("tests"))
        .map(|(name, text)| (module(&name), text))
        .collect();
    let of = |(module, text): (&String, &String)| {
        let tests = [
            "#[cfg(test)]\nmod ",
            "#[cfg(test)]\npub mod ",
            "#[cfg(test)]\npub(super) mod ",
            "#[cfg(all(test",
        ];
        let before = |code, begin: &&str| str::split(code, *begin).next().unwrap();
        let code = tests.iter().fold(text.as_str(), before);
        let found = uses(code).into_iter().filter_map(|path| {
            let mut path: Vec<&str> = path.split("::").collect();
            let mut from: Vec<&str> = module.split("::").collect();
            match path[0] {
                "crate" => {
                    from.clear();
                    path.remove(0);
                }
                "super" => {
                    while path.first() == Some(&"super") {
                        path.remove(0);
                        from.pop();
                    }
                }
                _ => {}
            }
            let path = [from, path].concat();
            let longest = (1..=path.len()).rev().map(|n| path[..n].join("::"));
            let mut known = longest.filter(|name| files.contains_key(name));
            known.next().filter(|found| found != module)
        });
        (module.clone(), found.collect())
    };
    files.iter().map(of).collect()
}

/// The paths of all `use` items, their braces written out.
fn uses(code: &str) -> Vec<String> {
    fn written_out(item: &str) -> Vec<String> {
        let Some((head, rest)) = item.split_once('{') else {
            return vec![item.to_string()];
        };
        let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
        let (mut parts, mut depth) = (vec![String::new()], 0);
        for letter in inner.chars() {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => parts.push(String::new()),
                _ => {}
            }
            if letter != ',' || depth > 0 {
                parts.last_mut().unwrap().push(letter);
            }
        }
        let parts = parts.iter().filter(|part| !part.is_empty());
        parts
            .flat_map(|part| written_out(&format!("{head}{part}")))
            .collect()
    }
    let code: Vec<&str> = code
        .lines()
        .map(|line| line.split("//").next().unwrap())
        .collect();
    let code = format!("\n{}", code.join("\n"));
    let starts = code.split("use ").skip(1);
    let items = starts.filter_map(|rest| rest.split_once(';'));
    let items = items.map(|(item, _)| item.split_whitespace().collect::<String>());
    items.flat_map(|item| written_out(&item)).collect()
}

/// Files of `train` that still import in circles, each group among themselves alone: a group counts as one file.
const KNOTS: [&[&str]; 9] = [
    &["cli"],
    &["command::route"],
    &["command::sample", "command::stream"],
    &["command::trace"],
    &["data"],
    &["import"],
    &["learner::gpu"],
    &["render"],
    &["run"],
];

/// The name of a file, or of the knot that it belongs to.
fn knot(file: &str) -> String {
    let below = |folder: &&str| {
        let rest = file.strip_prefix(*folder);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let knot = KNOTS.iter().find(|knot| knot.iter().any(&below));
    knot.map_or(file, |knot| knot[0]).to_string()
}

#[test]
fn files_import_in_no_circle() {
    let braces = uses("use super::a::{b, c::{d, e}};\npub use crate::f;");
    assert_eq!(
        braces,
        [
            "super::a::b",
            "super::a::c::d",
            "super::a::c::e",
            "crate::f"
        ]
    );
    for member in ["brian", "brillm", "train"] {
        let mut left = imports(member);
        if member == "train" {
            let files = std::mem::take(&mut left);
            for (file, from) in files {
                let file = knot(&file);
                let from = from.iter().map(|name| knot(name));
                let others: Vec<String> = from.filter(|name| *name != file).collect();
                left.entry(file).or_default().extend(others);
            }
        }
        assert!(left.values().map(BTreeSet::len).sum::<usize>() > 50);
        // Who imports from nobody that is left is in no circle.
        loop {
            let before = left.len();
            let names: BTreeSet<String> = left.keys().cloned().collect();
            left.retain(|_, from| from.iter().any(|name| names.contains(name)));
            if left.len() == before {
                break;
            }
        }
        let names: Vec<&String> = left.keys().collect();
        assert!(names.is_empty(), "{member}: a circle among {names:?}");
    }
}

#[test]
fn arrows_inside_train_point_one_way() {
    let arrows = [
        (
            "train/src/data",
            vec![
                "crate::learner",
                "crate::task",
                "crate::recipe",
                "crate::run",
                "crate::command",
                "crate::hook",
            ],
        ),
        (
            "train/src/run",
            vec![
                "crate::learner",
                "crate::task",
                "crate::recipe",
                "crate::command",
                "crate::data",
                "crate::hook",
            ],
        ),
        (
            "train/src/recipe",
            vec!["crate::command", "crate::task", "crate::run", "crate::hook"],
        ),
        (
            "train/src/task",
            vec![
                "crate::command",
                "crate::hook",
                "crate::recipe",
                "crate::run",
            ],
        ),
        ("train/src/hook", vec!["crate::command"]),
        ("train/src/metric", vec!["crate::command", "crate::hook"]),
        ("train/src/learner", vec!["crate::command", "crate::cli"]),
        ("train/src/import", vec!["crate::command", "crate::learner"]),
    ];
    for (folder, forbidden) in arrows {
        forbid(&sources(folder), &forbidden, "this arrow points back");
    }
    let error = sources("train/src")
        .into_iter()
        .filter(|(name, _)| name == "train/src/error.rs");
    forbid(
        &error.collect::<Vec<_>>(),
        &["crate::"],
        "errors are a leaf",
    );
}

#[test]
fn backends_are_named_in_one_file_and_the_support_files_only() {
    let names = [
        "NdArray",
        "Flex",
        "Wgpu",
        "Vulkan",
        "Cuda",
        "burn_ndarray",
        "Autodiff<",
    ];
    let mut files = sources("brian");
    for folder in ["brillm", "train", "tests", "bench"] {
        files.extend(sources(folder));
    }
    let allowed = [
        "train/src/device.rs",
        "brian/examples/one_weight.rs",
        "brian/src/ops/host/custom_op.rs",
        "brian/src/ops/gpu/custom_op.rs",
        "brian/src/ops/gpu/tests.rs",
        "brillm/src/ops/tests.rs",
        "brillm/src/resident/runtime.rs",
        "brillm/src/resident/tests.rs",
        "train/src/learner/gpu/mod.rs",
        "brian/src/ops/tests.rs",
        "brillm/src/resident/runtime.rs",
        "brillm/src/resident/tests.rs",
        "tests/support/mod.rs",
        "bench/support.rs",
        "tests/tidy.rs",
    ];
    files.retain(|(name, _)| !allowed.contains(&name.as_str()));
    forbid(
        &files,
        &names,
        "everything else is generic over the backend",
    );
}

#[test]
fn every_file_opens_with_its_purpose() {
    for folder in ["brian", "brillm", "train", "tests", "bench"] {
        for (name, text) in sources(folder) {
            let first = text.lines().next().unwrap_or("");
            assert!(
                first.starts_with("//! ") && first.len() > 12,
                "{name}: {first:?}"
            );
        }
    }
}

#[test]
fn no_test_is_ignored_and_nothing_random_has_a_state() {
    for folder in ["brian", "brillm", "train", "bench", "tests"] {
        let mut files = sources(folder);
        files.retain(|(name, _)| name != "tests/tidy.rs");
        forbid(&files, &["#[ignore"], "a test that is not run is no test");
        forbid(
            &files,
            &["Tensor::random", "B::seed(", "thread_rng"],
            "draws are functions of (seed, stream, step)",
        );
    }
}

/// Top-level names that the README's tree shows, and whether each is a folder.
fn shown() -> BTreeSet<String> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let tree = readme
        .split("```")
        .find(|block| block.contains("brian/") && block.contains("train/"));
    let tree = tree.expect("the README shows the tree in a code block");
    let top = tree
        .lines()
        .filter(|line| line.starts_with(|first: char| !first.is_whitespace()));
    let names = top.flat_map(|line| {
        let names = line.split("  ").next().unwrap();
        names
            .split_whitespace()
            .map(|name| name.trim_end_matches('/').to_string())
            .collect::<Vec<_>>()
    });
    names.collect()
}

#[test]
fn the_tree_in_the_readme_is_the_tree() {
    let hidden = [".git", "target", "runs", "data", "Cargo.lock"];
    let entries = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let there = entries.map(|name| name.to_str().unwrap().to_string());
    let there: BTreeSet<String> = there
        .filter(|name| !hidden.contains(&name.as_str()))
        .collect();
    let mut shown = shown();
    shown.remove("Cargo.lock");
    assert_eq!(shown, there);
}
