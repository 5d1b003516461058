//! The dependencies: allowed licences, a documented reason for each direct dependency, and how much the
//! library brings along.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

const MANIFEST: &str = include_str!("../../../../Cargo.toml");
const ARCHITECTURE: &str = include_str!("../../../../ARCHITECTURE.md");
const DENY: &str = include_str!("../../../../deny.toml");

fn cargo(arguments: &[&str]) -> String {
    let cargo =
        Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    String::from_utf8(cargo.stdout).unwrap()
}

/// Returns the metadata of the packages in this build. Packages for other platforms are left out, because
/// they were never fetched.
fn metadata() -> Value {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo names its host");
    let arguments =
        ["metadata", "--format-version", "1", "--offline", "--all-features", "--filter-platform", host];
    serde_json::from_str(&cargo(&arguments)).unwrap()
}

/// Returns whether the allowed licences satisfy a licence expression: all parts of an AND, one part of an
/// OR.
fn allowed(expression: &str, licences: &BTreeSet<String>) -> bool {
    // Some packages still use the syntax that Cargo accepted before SPDX.
    let expression = expression.replace('/', " OR ").replace(" or ", " OR ").replace(['(', ')'], " ");
    // In every expression so far, AND joins alternatives in brackets, or plain names.
    expression.split(" AND ").all(|part| part.split(" OR ").any(|name| licences.contains(name.trim())))
}

#[test]
fn every_licence_is_allowed() {
    let deny: toml::Table = DENY.parse().unwrap();
    let names = |value: &toml::Value| {
        let names = value.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
        names.collect::<BTreeSet<_>>()
    };
    let licences = names(&deny["licenses"]["allow"]);
    let metadata = metadata();
    let mut refused = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let exceptions = deny["licenses"]["exceptions"].as_array().unwrap();
        let mut here = licences.clone();
        for exception in exceptions.iter().filter(|exception| exception["crate"].as_str() == Some(name)) {
            here.extend(names(&exception["allow"]));
        }
        let licence = package["license"].as_str().unwrap_or("none");
        if !allowed(licence, &here) {
            refused.push(format!("{name}: {licence}"));
        }
    }
    assert_eq!(refused, [""; 0]);
}

#[test]
fn every_direct_dependency_has_its_reason() {
    let manifest: toml::Table = MANIFEST.parse().unwrap();
    let dependencies = manifest["workspace"]["dependencies"].as_table().unwrap();
    for name in dependencies.keys().filter(|name| !name.starts_with("voxline")) {
        assert!(ARCHITECTURE.contains(&format!("`{name}`")), "ARCHITECTURE.md doesn't explain {name}");
    }
}

/// Most packages that a program gets with the library's default features, the library itself among them.
const DEFAULT_PACKAGES_MAX: usize = 120;

/// Packages that build scripts compile or look for foreign code with.
const BUILDERS: [&str; 5] = ["bindgen", "cc", "cmake", "nasm-rs", "pkg-config"];

/// Returns the packages that the library with these features is built from, by name and version, with what
/// only their build scripts need if `edges` say so.
fn tree(features: &[&str], edges: &str) -> BTreeSet<String> {
    let wanted =
        ["tree", "-p", "voxline", "-e", edges, "--prefix", "none", "--no-dedupe", "--offline", "--locked"];
    let told = cargo(&[&wanted[..], features].concat());
    // After the version come the path of a package of this workspace, and marks.
    let package = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    told.lines().map(package).collect()
}

/// Returns the names of [`BUILDERS`] in the library with these features, each with the package that uses it.
fn builders(features: &[&str]) -> Vec<String> {
    let names = tree(features, "normal,build")
        .into_iter()
        .map(|package| package.split(' ').next().unwrap().to_owned());
    let mut used = Vec::new();
    for builder in names.filter(|name| BUILDERS.contains(&name.as_str())) {
        let inverted =
            ["tree", "-p", "voxline", "-e", "normal,build", "--prefix", "depth", "--depth", "1", "--offline"];
        let told = cargo(&[&inverted[..], &["--locked", "-i", &builder], features].concat());
        let users = told.lines().filter_map(|line| line.strip_prefix('1'));
        used.extend(users.map(|user| format!("{builder} of {}", user.split(' ').next().unwrap())));
    }
    used
}

#[test]
fn the_library_is_slim_by_default() {
    let packages = tree(&[], "normal");
    assert!(packages.len() > 50, "what is counted is not the library: {packages:?}");
    assert!(packages.len() <= DEFAULT_PACKAGES_MAX, "{} packages: {packages:#?}", packages.len());
}

#[test]
fn the_library_has_no_c_but_that_of_ring() {
    assert_eq!(builders(&[]), ["cc of ring"]);
    assert_eq!(builders(&["--no-default-features", "--features", "decode,oauth,speech,vad"]), [""; 0]);
    // This test finds what it looks for.
    assert!(builders(&["--features", "opus"]).contains(&"cmake of opusic-sys".to_owned()));
}
