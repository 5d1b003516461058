//! Imports between modules: no package of the workspace has a circle among them.
//!
//! Each module is compared with its siblings: the top-level modules of a package with each other, and the
//! modules of a folder with each other. A child may use its parent, and a parent its children, since a parent
//! declares them and gives out their names. A name that a parent gives out counts as an import of the module
//! that defines it. Code under `#[cfg(test)]` doesn't count: a test may build what is above its module.
//!
//! These files need the standard library alone: `./dev lint` compiles them by themselves.

mod package;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use self::package::Package;

/// Packages of the workspace, by their folders.
const PACKAGES: [&str; 7] = [
    ".",
    "crates/support",
    "crates/engines",
    "crates/gateway",
    "crates/testing",
    "crates/fixtures",
    "crates/cli",
];

/// Circles that are meant: the package, the modules, and the reason.
const EXCEPTIONS: [(&str, &[&str], &str); 0] = [];

/// Path of a module, from the root of its package.
type Module = Vec<String>;
/// Modules of one parent: the imports of each, with a place for each.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// Returns the circles of a graph: sets of modules, each of which imports every other one of its set,
/// directly or through others.
fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let reached = |from: &String| {
        let (mut reached, mut left) = (BTreeSet::new(), vec![from]);
        while let Some(module) = left.pop() {
            for next in graph.get(module).into_iter().flat_map(BTreeMap::keys) {
                if reached.insert(next) {
                    left.push(next);
                }
            }
        }
        reached
    };
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        graph.keys().map(|from| (from, reached(from))).collect();
    let mut circles: BTreeSet<Vec<String>> = BTreeSet::new();
    for (module, others) in &reached {
        let circle: Vec<String> = others
            .iter()
            .filter(|other| reached.get(*other).is_some_and(|back| back.contains(*module)))
            .map(|other| (*other).clone())
            .collect();
        // A module that imports its own items is no circle.
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

/// Returns the circles of a package, as lines of its modules and of the imports among them.
fn circles_of(files: &BTreeMap<String, String>) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    for (parent, graph) in Package::read(files).graphs() {
        for circle in circles(&graph) {
            let mut text = String::new();
            for (from, to) in circle.iter().flat_map(|from| circle.iter().map(move |to| (from, to))) {
                if let Some(place) =
                    graph.get(from).and_then(|imports| imports.get(to)).filter(|_| from != to)
                {
                    text += &format!("\n    {from} imports {to} in {place}");
                }
            }
            let circle = circle
                .iter()
                .map(|module| [&parent[..], std::slice::from_ref(module)].concat().join("::"))
                .collect();
            found.push((circle, text));
        }
    }
    found
}

fn sources(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry of it").path();
        let name = format!("{prefix}{}", path.file_name().expect("it has a name").to_string_lossy());
        if path.is_dir() {
            sources(&path, &format!("{name}/"), files);
        } else if name.ends_with(".rs") {
            files.insert(name, fs::read_to_string(&path).expect("a source"));
        }
    }
}

#[test]
fn no_modules_import_each_other() {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let mut expected: BTreeSet<(&str, Vec<String>)> = EXCEPTIONS
        .iter()
        .map(|(package, circle, _)| (*package, circle.iter().map(|&name| name.into()).collect()))
        .collect();
    let mut complaints = Vec::new();
    for package in PACKAGES {
        let mut files = BTreeMap::new();
        sources(&root.join(package).join("src"), "", &mut files);
        for (circle, text) in circles_of(&files) {
            if !expected.remove(&(package, circle.clone())) {
                complaints.push(format!("{package}: {}{text}", circle.join(", ")));
            }
        }
    }
    complaints.extend(
        expected
            .into_iter()
            .map(|(package, circle)| format!("{package}: {} is a circle no more", circle.join(", "))),
    );
    assert!(complaints.is_empty(), "modules import each other:\n{}", complaints.join("\n"));
}

/// Returns the circles of a made-up package.
fn planted(files: &[(&str, &str)]) -> Vec<String> {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    circles_of(&files).into_iter().map(|(circle, _)| circle.join(" ")).collect()
}

#[test]
fn a_planted_circle_is_found() {
    // Directly, through a third module, by a path outside of an import, and in a group.
    assert_eq!(planted(&[("a.rs", "use crate::b::B;"), ("b.rs", "use super::a::A;")]), ["a b"]);
    let three = [
        ("a.rs", "fn f() { crate::b::f() }"),
        ("b.rs", "use crate::{c::{self, C}, d};"),
        ("c/mod.rs", "use crate::a as x;"),
        ("d.rs", ""),
    ];
    assert_eq!(planted(&three), ["a b c"]);
    // Between the modules of a folder, by a name that their parent gives out.
    let given_out = [
        ("lib.rs", "mod room;"),
        ("room/mod.rs", "mod a; mod b; pub use self::a::A;"),
        ("room/a.rs", "use super::b;"),
        ("room/b.rs", "use super::A;"),
    ];
    assert_eq!(planted(&given_out), ["room::a room::b"]);
    // Between folders, although no file imports one that imports it.
    let folders = [
        ("a/mod.rs", ""),
        ("a/x.rs", "use crate::b::y;"),
        ("a/z.rs", ""),
        ("b/mod.rs", ""),
        ("b/y.rs", ""),
        ("b/w.rs", "use crate::a::z;"),
    ];
    assert_eq!(planted(&folders), ["a b"]);
    // In a module within a file.
    assert_eq!(
        planted(&[("a.rs", "mod inner { use super::super::b::B; }"), ("b.rs", "use crate::a::inner;")]),
        ["a b"]
    );
}

#[test]
fn what_is_no_circle_is_not_found() {
    let none: [&[(&str, &str)]; 5] = [
        &[
            ("a.rs", "use crate::b::B; use crate::c;"),
            ("b.rs", "use crate::c::C;"),
            ("c.rs", "use other::a::A; use ::b::B;"),
        ],
        // A child and its parent, which gives out its names.
        &[
            ("a/mod.rs", "mod child; pub use child::Child; pub struct A;"),
            ("a/child.rs", "use super::A; use crate::a::A as B;"),
        ],
        // Tests, whether in the file or beside it.
        &[
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "#[cfg(test)]\nmod tests { use crate::a::A; }\n#[cfg(test)]\nuse crate::a;"),
        ],
        &[
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "#[cfg(test)]\nmod tests;"),
            ("b/tests.rs", "use crate::a::A;"),
        ],
        // Comments and literals.
        &[
            ("a.rs", "use crate::b::B;"),
            (
                "b.rs",
                "/// [`A`](crate::a::A)\n/* crate::a /* */ crate::a */ const X: &str = \"crate::a\\\"\"; \
                 const Y: &str = r#\"crate::a\"#; const Z: char = '\"'; fn f<'a>(x: &'a u8) {}",
            ),
        ],
    ];
    for files in none {
        assert_eq!(planted(files), [""; 0], "{files:?}");
    }
}
