//! The modules of a package, and the imports in their sources.

use std::collections::{BTreeMap, BTreeSet};

use super::tokens::{Token, tokens};
use super::{Graph, Module};

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
pub(super) struct Package {
    modules: BTreeSet<Module>,
    imports: Vec<Import>,
    /// Modules that only tests have.
    tests: BTreeSet<Module>,
}

impl Package {
    /// Reads the source files of a package, given by their paths within its `src`.
    pub(super) fn read(files: &BTreeMap<String, String>) -> Package {
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
    pub(super) fn graphs(&self) -> BTreeMap<Module, Graph> {
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
