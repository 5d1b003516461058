//! Imports between modules: no package of the workspace has a circle among them.
//!
//! Each module is compared with its siblings: the top-level modules of a package with each other, and the
//! modules of a folder with each other. A child may use its parent, and a parent its children, since a parent
//! declares them and gives out their names. A name that a parent gives out counts as an import of the module
//! that defines it. Code under `#[cfg(test)]` doesn't count: a test may build what is above its module.
//!
//! This file needs the standard library alone: `./dev lint` compiles it by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

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

/// A piece of source text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Separator,
    Sign(char),
}

/// Splits source text into tokens, without comments and literals.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut at) = (Vec::new(), 0);
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied().unwrap_or_default();
        match c {
            '/' if next == '/' => at += chars[at..].iter().take_while(|c| **c != '\n').count(),
            '/' if next == '*' => at = end_of_comment(&chars, at),
            '"' => at = end_of_string(&chars, at),
            'r' | 'b' | 'c' if starts_literal(&chars, at) => at = end_of_prefixed(&chars, at),
            '\'' if next == '\\' || chars.get(at + 2) == Some(&'\'') => {
                // An escape has no quote but its own, right behind the backslash.
                let rest = if next == '\\' { at + 3 } else { at + 2 };
                at = rest + chars[rest..].iter().take_while(|c| **c != '\'').count() + 1;
            }
            ':' if next == ':' => {
                tokens.push(Token::Separator);
                at += 2;
            }
            c if is_word(c) => {
                let word: String = chars[at..].iter().copied().take_while(|c| is_word(*c)).collect();
                at += word.chars().count();
                tokens.push(Token::Word(word));
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token::Sign(c));
                }
                at += 1;
            }
        }
    }
    tokens
}

fn end_of_comment(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// Returns whether the letters at `at` are the prefix of a raw, byte or C string.
fn starts_literal(chars: &[char], at: usize) -> bool {
    let is_inside_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    let rest: String = chars[at..].iter().take(8).collect();
    let body = rest.trim_start_matches(['r', 'b', 'c']);
    !is_inside_word && rest.len() - body.len() <= 2 && body.trim_start_matches('#').starts_with('"')
}

fn end_of_prefixed(chars: &[char], start: usize) -> usize {
    let quote = start + chars[start..].iter().take_while(|c| **c != '"').count();
    if !chars[start..quote].contains(&'r') {
        return end_of_string(chars, quote);
    }
    let hashes = chars[start..quote].iter().filter(|c| **c == '#').count();
    let mut end = quote + 1;
    while end < chars.len() {
        if chars[end] == '"' && chars[end + 1..].iter().take_while(|c| **c == '#').count() >= hashes {
            return end + 1 + hashes;
        }
        end += 1;
    }
    end
}

/// Use of a path in a module.
struct Import {
    module: Module,
    /// Segments of the path, as written.
    path: Vec<String>,
    /// Name that the path has in the module from then on, if it is imported.
    name: Option<String>,
}

/// Modules and imports of a package.
#[derive(Default)]
struct Package {
    modules: BTreeSet<Module>,
    imports: Vec<Import>,
    /// Modules that only tests have.
    tests: BTreeSet<Module>,
}

impl Package {
    /// Reads the source files of a package, given by their paths within its `src`.
    fn read(files: &BTreeMap<String, String>) -> Package {
        let mut package = Package::default();
        for (path, text) in files {
            let module = module_of(path);
            package.modules.insert(module.clone());
            Reader { package: &mut package, tokens: &tokens(text), at: 0 }.items(&module);
        }
        let tests = std::mem::take(&mut package.tests);
        let is_test = |module: &Module| tests.iter().any(|test| module.starts_with(test));
        package.modules.retain(|module| !is_test(module));
        package.imports.retain(|import| !is_test(&import.module));
        package
    }

    /// Returns the graph of the modules below each parent.
    fn graphs(&self) -> BTreeMap<Module, Graph> {
        let mut names = BTreeMap::new();
        for import in &self.imports {
            if let (Some(name), Some(path)) = (&import.name, self.absolute(&import.module, &import.path)) {
                names.insert((import.module.clone(), name.clone()), path);
            }
        }
        let mut graphs: BTreeMap<Module, Graph> = BTreeMap::new();
        for Import { module, path, .. } in &self.imports {
            let Some(path) = self.absolute(module, path) else { continue };
            let target = self.module_behind(path, &names);
            let common = module.iter().zip(&target).take_while(|(one, other)| one == other).count();
            if let (Some(from), Some(to)) = (module.get(common), target.get(common)) {
                let graph = graphs.entry(module[..common].to_vec()).or_default();
                graph.entry(from.clone()).or_default().insert(to.clone(), module.join("::"));
            }
        }
        graphs
    }

    /// Returns a path of this package from its root; `None` for a path of another package.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let (mut base, mut rest) = (module.to_vec(), path);
        match rest.first()?.as_str() {
            "crate" => (base, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            child => {
                base.push(child.to_owned());
                let is_child = self.modules.contains(&base);
                base.pop();
                is_child.then_some(())?;
            }
        }
        Some([base, rest.to_vec()].concat())
    }

    /// Returns the module that defines what `path` names.
    fn module_behind(&self, path: Vec<String>, names: &BTreeMap<(Module, String), Vec<String>>) -> Module {
        let mut path = path;
        // A chain of names that modules give out ends after a few steps; a name that refers to itself never
        // ends.
        for _ in 0..16 {
            let length = (0..=path.len()).rev().find(|length| self.modules.contains(&path[..*length]));
            let (module, rest) = path.split_at(length.unwrap_or(0));
            let given_out = rest.first().and_then(|name| names.get(&(module.to_vec(), name.clone())));
            match given_out {
                Some(other) if other[..] != path[..] => path = [other, &rest[1..]].concat(),
                _ => return module.to_vec(),
            }
        }
        path
    }
}

/// Returns the path of the module in the file at `path`.
fn module_of(path: &str) -> Module {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if matches!(path, "lib" | "main") { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// Position in the tokens of a file.
struct Reader<'a> {
    package: &'a mut Package,
    tokens: &'a [Token],
    at: usize,
}

impl Reader<'_> {
    fn word(&self, offset: usize) -> &str {
        match self.tokens.get(self.at + offset) {
            Some(Token::Word(word)) => word,
            _ => "",
        }
    }

    fn is(&self, offset: usize, sign: char) -> bool {
        self.tokens.get(self.at + offset) == Some(&Token::Sign(sign))
    }

    fn is_separator(&self, offset: usize) -> bool {
        self.tokens.get(self.at + offset) == Some(&Token::Separator)
    }

    /// Reads what belongs to `module`, to the brace that closes it or to the end of the file.
    fn items(&mut self, module: &Module) {
        let mut depth = 0;
        while self.at < self.tokens.len() {
            if self.is(0, '{') {
                depth += 1;
            } else if self.is(0, '}') {
                if depth == 0 {
                    return;
                }
                depth -= 1;
            } else if self.is_test_attribute() {
                self.skip_test(module);
                continue;
            } else if self.word(0) == "mod" && self.is(2, '{') {
                let inner = [module.clone(), vec![self.word(1).to_owned()]].concat();
                self.package.modules.insert(inner.clone());
                self.at += 3;
                self.items(&inner);
            } else if self.word(0) == "use" {
                self.at += 1;
                self.tree(module, &[]);
                continue;
            } else if matches!(self.word(0), "crate" | "self" | "super") && self.is_separator(1) {
                self.path(module);
                continue;
            }
            self.at += 1;
        }
    }

    fn is_test_attribute(&self) -> bool {
        self.is(0, '#')
            && self.is(1, '[')
            && self.word(2) == "cfg"
            && self.is(3, '(')
            && self.word(4) == "test"
            && self.is(5, ')')
    }

    /// Skips an item of the tests, to its semicolon or its closing brace.
    fn skip_test(&mut self, module: &Module) {
        self.at += 7;
        if self.word(0) == "mod" {
            self.package.tests.insert([module.clone(), vec![self.word(1).to_owned()]].concat());
        }
        let mut depth = 0;
        while self.at < self.tokens.len() {
            depth += i32::from(self.is(0, '{')) - i32::from(self.is(0, '}'));
            let is_end = depth == 0 && (self.is(0, ';') || self.is(0, '}'));
            self.at += 1;
            if is_end {
                return;
            }
        }
    }

    /// Reads a tree of imports behind `prefix`.
    fn tree(&mut self, module: &Module, prefix: &[String]) {
        let mut path = prefix.to_vec();
        loop {
            if self.is(0, '{') {
                self.at += 1;
                while self.at < self.tokens.len() && !self.is(0, '}') {
                    if self.is(0, ',') {
                        self.at += 1;
                    } else {
                        self.tree(module, &path);
                    }
                }
                self.at += 1;
                return;
            }
            if self.is(0, '*') {
                self.at += 1;
                return self.import(module, path, None);
            }
            if path.is_empty() && self.is_separator(0) {
                // The name of another package.
                path.push(String::new());
            } else {
                match self.word(0) {
                    // `{self}` names what is before the braces.
                    "self" if !path.is_empty() => {}
                    word => path.push(word.to_owned()),
                }
                self.at += 1;
            }
            if !self.is_separator(0) {
                break;
            }
            self.at += 1;
        }
        let mut name = path.last().cloned();
        if self.word(0) == "as" {
            name = Some(self.word(1).to_owned());
            self.at += 2;
        }
        self.import(module, path, name);
    }

    /// Reads a path outside of an import.
    fn path(&mut self, module: &Module) {
        let mut path = vec![self.word(0).to_owned()];
        self.at += 1;
        while self.is_separator(0) && !self.word(1).is_empty() {
            path.push(self.word(1).to_owned());
            self.at += 2;
        }
        self.import(module, path, None);
    }

    fn import(&mut self, module: &Module, path: Vec<String>, name: Option<String>) {
        self.package.imports.push(Import { module: module.clone(), path, name });
    }
}

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
