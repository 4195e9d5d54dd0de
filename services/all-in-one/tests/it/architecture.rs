//! What always holds of the workspace (`proto-docs/architecture.md`).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Every package of the workspace: its folder, and the packages of the workspace that it depends on.
fn packages() -> BTreeMap<String, (String, Vec<String>)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(testkit::workspace())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let root = testkit::workspace();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str().unwrap());
            let folder = manifest.parent().unwrap().strip_prefix(&root).unwrap().display().to_string();
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let ours = dependencies
                // A test may start what the program must not know.
                .filter(|dependency| dependency["path"].is_string() && dependency["kind"] != "dev")
                .map(|dependency| dependency["name"].as_str().unwrap().to_owned());
            (package["name"].as_str().unwrap().to_owned(), (folder, ours.collect()))
        })
        .collect()
}

#[test]
fn no_service_depends_on_a_service_and_no_crate_on_a_service() {
    let packages = packages();
    let is_service = |name: &str| packages[name].0.starts_with("services/");
    assert!(packages.len() >= 10, "the packages were read: {packages:?}");
    for (name, (_, dependencies)) in packages.iter().filter(|(name, _)| *name != "all-in-one") {
        for dependency in dependencies {
            assert!(!is_service(dependency), "{name} must not depend on the service {dependency}");
        }
    }
}

#[test]
fn the_test_kit_is_in_no_program() {
    for (name, (_, dependencies)) in packages().into_iter().filter(|(name, _)| name != "bench") {
        assert!(!dependencies.iter().any(|dependency| dependency == "testkit"), "{name}");
    }
}

#[test]
fn no_two_migrations_share_a_version() {
    let mut versions = BTreeMap::new();
    for schema in std::fs::read_dir(testkit::workspace().join("migrations")).unwrap().flatten() {
        for migration in std::fs::read_dir(schema.path()).unwrap().flatten() {
            let name = migration.file_name().into_string().unwrap();
            let version = name.split('_').next().unwrap().replace('-', "");
            if let Some(other) = versions.insert(version, migration.path()) {
                panic!(
                    "{} and {} share a version: the second would be skipped",
                    migration.path().display(),
                    other.display()
                );
            }
        }
    }
    assert!(!versions.is_empty());
}

#[test]
fn every_invariant_names_a_test_that_exists() {
    let root = testkit::workspace();
    let architecture = std::fs::read_to_string(root.join("proto-docs/architecture.md")).unwrap();
    let names: Vec<_> = architecture
        .lines()
        .filter(|line| line.trim_start().starts_with("held by "))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    assert!(names.len() >= 9, "{names:?}");
    let sources = Command::new("grep")
        .args(["-rhoE", r"fn [a-z0-9_]+\(", "crates", "services"])
        .current_dir(&root)
        .output()
        .unwrap();
    let sources = String::from_utf8(sources.stdout).unwrap();
    for name in names {
        assert!(sources.lines().any(|line| line == format!("fn {name}(")), "there is no test `{name}`");
    }
}
