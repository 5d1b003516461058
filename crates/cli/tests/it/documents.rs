//! Consistency of the documents: the Russian README matches the English one, and links lead to files.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns the commands in a document's fenced blocks, without their comments.
fn commands(document: &str) -> Vec<&str> {
    let fenced =
        document.split("```").skip(1).step_by(2).flat_map(str::lines).skip_while(|line| *line == "sh");
    let commands = fenced.map(|line| line.split(" # ").next().unwrap().trim_end());
    commands.filter(|line| !line.is_empty() && *line != "sh").collect()
}

/// Returns the figures of a document: each run of digits, with the dots and commas inside it.
fn figures(document: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',');
    let runs = document.split(|c| !is_part(c)).map(|run| run.trim_matches(['.', ',']));
    runs.filter(|run| !run.is_empty()).collect()
}

/// Returns the targets of a document's links.
fn links(document: &str) -> Vec<&str> {
    document.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect()
}

/// Returns the number of column separators in each line of a document's tables.
fn tables(document: &str) -> Vec<usize> {
    document.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count()).collect()
}

#[test]
fn the_russian_readme_says_the_same_as_the_english_one() {
    let (english, russian) = (read("README.md"), read("README.ru.md"));
    assert_eq!(commands(&english), commands(&russian));
    assert_eq!(tables(&english), tables(&russian));
    let links = |document, other: &str| {
        let links = links(document).into_iter().filter(|link| *link != other);
        links.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(links(&english, "README.ru.md"), links(&russian, "README.md"));
    let sorted = |document| {
        let mut figures = figures(document);
        figures.sort_unstable();
        figures.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(sorted(&english), sorted(&russian));
}

#[test]
fn links_lead_to_files() {
    let names =
        ["README.md", "README.ru.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"].map(PathBuf::from);
    let docs = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| Path::new("docs").join(entry.unwrap().file_name()));
    let docs = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut count = 0;
    for name in names.into_iter().chain(docs) {
        let document = read(name.to_str().unwrap());
        let base = root().join(name.parent().unwrap());
        for link in
            links(&document).into_iter().filter(|link| !link.contains("://") && !link.starts_with('#'))
        {
            let target = base.join(link.split('#').next().unwrap());
            assert!(target.exists(), "{} links to {link}", name.display());
            count += 1;
        }
    }
    assert!(count > 20, "only {count} links were found");
}
