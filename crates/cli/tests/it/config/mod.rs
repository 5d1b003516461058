//! The configuration of a gateway by file, environment and flags: the resolved values, and the errors of
//! an invalid configuration.

mod check;
mod systemd;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use voxline_cli::config::gateway::GatewayConfig;
use voxline_gateway::WyomingAddress;

use crate::cli::{Place, assert_fails, path, text};
use crate::support::serving::Serving;
use voxline_fixtures::gateway::tls::{Authority, named};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/gateway.toml");
/// Writes a certificate for localhost and its key to `cert.pem` and `key.pem`.
fn certify(place: &Place) {
    let (certificate, key) = Authority::new("ours").certify(named("localhost"));
    place.file("cert.pem", certificate);
    private(&place.file("key.pem", key));
}

/// Makes a file readable for its owner only.
fn private(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Returns the value and the source of `key` in the output of `config show`, whose lines have the form
/// `key = value  # source`.
fn shown<'a>(text: &'a str, key: &str) -> (&'a str, &'a str) {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).rsplit_once("  # ").unwrap()
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let place = Place::new();
    place.file(
        "voxline.toml",
        "models = \"m\"\nclient_id = \"top\"\n[gateway]\nstate = \"file\"\nlisten = \"127.0.0.1:1\"\n\
         max_sessions = 7\ncors_origin = [\"https://a\"]\ndocumented_status = true\n[profiles.p]\nclient_id = \"id\"\n",
    );
    let flags = [
        "config",
        "show",
        "--config",
        "voxline.toml",
        "--profile",
        "p",
        "--listen",
        "127.0.0.1:3",
        "--drain=5",
    ];
    let mut show = place.command(&flags);
    show.env("VOXLINE_GATEWAY_LISTEN", "127.0.0.1:2").env("VOXLINE_GATEWAY_STATE", "env");
    // A variable that is set to the empty string counts as not set.
    show.env("VOXLINE_GATEWAY_MAX_SESSIONS", "").env("VOXLINE_TOKEN", "canary").env("VOXLINE_LOG_FORMAT", "");
    show.env("VOXLINE_GATEWAY_CORS_ORIGIN", "https://b,https://c").env_remove("VOXLINE_MODELS");
    let output = show.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    for (key, value, source) in [
        ("listen", "\"127.0.0.1:3\"", "flag"),
        ("drain", "5", "flag"),
        ("state", "\"env\"", "env"),
        ("cors_origin", "[\"https://b\", \"https://c\"]", "env"),
        ("max_sessions", "7", "file"),
        ("documented_status", "true", "file"),
        ("models", "\"m\"", "file"),
        ("max_requests", "16", "default"),
        ("token_limit", "\"refuse\"", "default"),
    ] {
        assert_eq!(shown(told, key), (value, source), "{key}");
    }
    // Only the source of a secret is shown, never its value.
    assert!(told.contains("# VOXLINE_TOKEN is set\n") && !told.contains("canary"), "{told}");
    // The printed configuration gives the same values when it is read as a file.
    place.file("again.toml", told);
    let mut again = place.command(&["config", "show", "--config", "again.toml"]);
    let again = again.env_remove("VOXLINE_MODELS").output().unwrap();
    assert_eq!(shown(text(&again.stdout), "cors_origin"), ("[\"https://b\", \"https://c\"]", "file"));
    assert_eq!(shown(text(&again.stdout), "drain"), ("5", "file"));
}

#[test]
fn help_tells_the_defaults_as_they_are() {
    let place = Place::new();
    let help = place.run(&["serve", "--help"]);
    let help = text(&help.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    let defaults = toml::Table::try_from(GatewayConfig::default()).unwrap();
    for (key, value) in &defaults {
        let flag = format!("--{} ", key.replace('_', "-"));
        let flag = if value.is_bool() { flag.trim_end().to_owned() + "[=" } else { flag };
        let (_, about) = help.split_once(&flag).unwrap_or_else(|| panic!("serve has no {flag}"));
        let value = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Array(_) => continue,
            value => value.to_string(),
        };
        let (told, _) = about.split_once("[default: ").unwrap().1.split_once(']').unwrap();
        assert_eq!(told, value, "{key}");
    }
}

/// Returns each flag of the table in docs/operating.md, with its default.
fn documented() -> BTreeMap<String, String> {
    let document =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operating.md")).unwrap();
    let (_, table) = document.split_once("| flag | default | meaning |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut defaults = BTreeMap::new();
    for row in rows {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        let flags = columns[1].split('`').filter_map(|part| part.strip_prefix("--"));
        let flags: Vec<&str> = flags.map(|flag| flag.split([' ', '=']).next().unwrap()).collect();
        // A row of several flags has as many defaults, or one for all.
        let values: Vec<&str> = columns[2].split(", ").map(|value| value.trim_matches('`')).collect();
        for (index, flag) in flags.iter().enumerate() {
            let value =
                if values.len() == flags.len() { values[index] } else { columns[2].trim_matches('`') };
            assert!(
                defaults.insert((*flag).to_owned(), value.to_owned()).is_none(),
                "--{flag} is told twice"
            );
        }
    }
    defaults
}

#[test]
fn a_setting_is_a_key_a_flag_and_a_variable_and_is_documented() {
    let program = voxline_cli::command();
    let serve = program.find_subcommand("serve").unwrap();
    // The flags that belong to no gateway are keys outside of its table.
    let mut elsewhere = BTreeSet::from(["help", "language", "model", "models"]);
    let mut documented = documented();
    assert_eq!(documented.remove("language").unwrap(), "auto");
    let known = toml::Table::try_from(GatewayConfig::default()).unwrap();
    let mut count = 0;
    for arg in serve.get_arguments().filter(|arg| !elsewhere.remove(arg.get_id().as_str())) {
        let (key, flag) = (arg.get_id().as_str(), arg.get_long().unwrap());
        assert_eq!(flag, key.replace('_', "-"));
        assert_eq!(arg.get_env().unwrap(), format!("VOXLINE_GATEWAY_{}", key.to_uppercase()).as_str());
        // An unknown key would be refused, and any known one refuses a table.
        let error =
            format!("{key} = {{}}").parse::<toml::Table>().unwrap().try_into::<GatewayConfig>().unwrap_err();
        assert!(!error.message().contains("unknown field"), "{key} is no key of the file: {error}");
        let default = documented.remove(flag).unwrap_or_else(|| panic!("--{flag} is not documented"));
        match known.get(key) {
            Some(toml::Value::Boolean(on)) => assert_eq!(default, if *on { "on" } else { "off" }, "{flag}"),
            Some(toml::Value::String(text)) => assert_eq!(default, *text, "{flag}"),
            Some(toml::Value::Array(values)) => {
                let values: Vec<&str> = values.iter().map(|value| value.as_str().unwrap()).collect();
                let told = if values.is_empty() { "none".to_owned() } else { values.join(", ") };
                assert_eq!(default, told, "{flag}");
            }
            Some(value) => assert_eq!(default, value.to_string(), "{flag}"),
            None => assert!(default.parse::<u64>().is_err(), "--{flag} has no default"),
        }
        count += 1;
    }
    assert_eq!(documented, BTreeMap::new(), "documented, but no flags");
    assert!(count >= known.len(), "{count} flags, but {} keys", known.len());
}

#[test]
fn a_gateway_is_run_by_its_file_alone() {
    let place = Place::new();
    certify(&place);
    place.file(
        "gateway.toml",
        "[gateway]\nlisten = \"127.0.0.1:0\"\nstate = \"state\"\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n",
    );
    let serving = Serving::start(place.command(&["serve", "--config", "gateway.toml"]));
    assert!(serving.endpoint.starts_with("https://127.0.0.1:"), "{}", serving.endpoint);
    assert!(place.path("state").is_dir());
    assert_eq!(serving.stop().0.code(), Some(0));
}

#[test]
fn the_operators_commands_use_the_state_of_the_file() {
    let place = Place::new();
    place.file("gateway.toml", "[gateway]\nstate = \"of-file\"\n");
    let run = |arguments: &[&str], state: Option<&str>| {
        let mut command = place.command(&[&["gateway"], arguments, &["--config", "gateway.toml"]].concat());
        state.map(|state| command.env("VOXLINE_GATEWAY_STATE", state));
        command.output().unwrap()
    };
    let names = |output: Output| {
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let projects: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        projects.iter().map(|project| project["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // A flag overrides the variable, and the variable the file.
    run(&["project", "create", "a"], None);
    run(&["project", "create", "b"], Some("of-env"));
    run(&["project", "create", "c", "--state", "of-flag"], Some("of-env"));
    let list = ["project", "list", "--json"];
    assert_eq!(names(run(&list, None)), ["a"]);
    assert_eq!(names(run(&list, Some(""))), ["a"]);
    assert_eq!(names(run(&list, Some("of-env"))), ["b"]);
    assert_eq!(names(run(&[&list[..], &["--state", "of-flag"]].concat(), None)), ["c"]);
    assert_eq!(run(&["backup", "copy"], None).status.code(), Some(0));
    assert!(place.path("copy").exists());
    // Without the file there is no directory.
    assert_fails(&place.run(&["gateway", "usage"]), 2, &["--state", "[gateway]"]);
}

#[test]
fn a_state_directory_that_does_not_exist_is_not_created() {
    let place = Place::new();
    for command in [
        "project list",
        "project revoke calls",
        "client list",
        "client create calls",
        "service-token list",
        "token list",
        "usage",
        "backup copy",
    ] {
        let arguments: Vec<&str> = ["gateway"].into_iter().chain(command.split(' ')).collect();
        let refused = place.run(&[&arguments[..], &["--state", "typo"]].concat());
        assert_fails(&refused, 2, &["no gateway state in typo"]);
        assert!(!place.path("typo").exists(), "{command}");
    }
}

#[test]
fn the_sample_has_every_key_and_passes_the_check() {
    let sample = fs::read_to_string(SAMPLE).unwrap();
    let place = Place::new();
    certify(&place);
    let all = place.file(
        "all.toml",
        sample
            .replace("# tls_", "tls_")
            .replace("# threads", "threads")
            .replace("# max_sessions", "max_sessions")
            .replace("# upload_dir", "upload_dir")
            .replace("# vosk_listen", "vosk_listen")
            .replace("# wyoming_listen", "wyoming_listen")
            .replace("# open_project", "open_project"),
    );
    let written: toml::Table = fs::read_to_string(&all).unwrap().parse().unwrap();
    let written = written["gateway"].as_table().unwrap();
    let known = GatewayConfig {
        state: Some("a".into()),
        threads: Some("4".parse().unwrap()),
        max_sessions: Some("64".parse().unwrap()),
        upload_dir: Some("a".into()),
        vosk_listen: Some("127.0.0.1:2700".parse().unwrap()),
        wyoming_listen: Some(WyomingAddress::Unix("a".into())),
        open_project: Some("a".into()),
        tls_cert: Some("a".into()),
        tls_key: Some("a".into()),
        ..GatewayConfig::default()
    };
    let known = toml::Table::try_from(known).unwrap();
    assert_eq!(written.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>());
    for (key, value) in toml::Table::try_from(GatewayConfig::default()).unwrap() {
        assert_eq!(written[&key], value, "{key} is told with another default");
    }
    // The certificate is in another place here, and the port of the sample may be in use.
    let here = ["--listen", "127.0.0.1:0", "--tls-cert", "cert.pem", "--tls-key", "key.pem"];
    let checked = place.run(&[&["config", "check", "--config", path(&all)], &here[..]].concat());
    assert_eq!((checked.status.code(), text(&checked.stderr)), (Some(0), ""));
    assert_eq!(text(&checked.stdout), format!("{}: no problems\n", all.display()));
}

#[test]
fn a_language_is_taken_or_refused_before_anything_starts() {
    let place = Place::new();
    let language = |given: &[&str]| {
        let shown = place.run(&[&["config", "show", "--config", "voxline.toml"], given].concat());
        assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
        text(&shown.stdout).lines().find(|line| line.starts_with("language = ")).map(str::to_owned)
    };
    place.file("voxline.toml", "language = \"Russian\"\n");
    assert_eq!(language(&[]).unwrap(), "language = \"ru\"  # file");
    place.file("voxline.toml", "language = \"auto\"\n");
    assert_eq!(language(&[]), None);

    let refused = ["language 'englsh' is unknown", "did you mean english (en)?"];
    place.file("voxline.toml", "language = \"englsh\"\n");
    assert_fails(&place.run(&["config", "check", "--config", "voxline.toml"]), 2, &refused);
    // If anything were read before the language is checked, the missing recording would be reported
    // first.
    let transcribe = ["transcribe", "missing.wav", "--language"];
    assert_fails(&place.run(&[&transcribe[..], &["englsh"]].concat()), 2, &refused);
    assert_fails(&place.run(&[&transcribe[..], &["xx"]].concat()), 2, &["language 'xx'", "russian"]);
    for known in ["english", "en-GB", "auto"] {
        assert_fails(&place.run(&[&transcribe[..], &[known]].concat()), 3, &["missing.wav"]);
    }
}
