//! The dependencies: allowed licences, and a documented reason for each direct dependency.

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
