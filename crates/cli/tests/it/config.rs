//! The configuration of a gateway by file, environment and flags: the resolved values, and the errors of
//! an invalid configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use voxline_cli::config::gateway::GatewayConfig;

use crate::cli::{Place, assert_fails, path, text};
use crate::support::serving::Serving;
use voxline_fixtures::gateway::tls::{Authority, named};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/gateway.toml");
const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/voxline.service");

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
            let value = if values.len() == flags.len() { values[index] } else { columns[2] };
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
            Some(toml::Value::Array(none)) => {
                assert_eq!((default.as_str(), none.len()), ("none", 0), "{flag}");
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
fn a_file_that_says_nonsense_is_refused_with_its_line() {
    let place = Place::new();
    for (contents, parts) in [
        ("[gateway]\n\nmax_session = 3\n", ["line 3", "unknown field `max_session`"]),
        ("[gateway]\nmax_sessions = 0\n", ["line 2", "0 is not a whole number from 1 to 65535"]),
        ("[gateway]\n\ntoken_limit = \"drop\"\n", ["line 3", "unknown variant `drop`"]),
        ("[gateway]\nlisten = \"here\"\n", ["line 2", "expected an address and a port"]),
        ("[gateway]\ncors_origin = [\"https://a/b\"]\n", ["line 2", "an origin is *"]),
        ("[gateway]\nheader_timeout = -1\n", ["line 2", "invalid value"]),
    ] {
        place.file("voxline.toml", contents);
        for command in [&["config", "show"][..], &["config", "check"], &["serve"]] {
            let run = place.run(&[command, &["--config", "voxline.toml"]].concat());
            assert_fails(&run, 2, &parts);
        }
    }
    // Of a file with a syntax error, the profiles are not known.
    place.file("voxline.toml", "[profiles.p]\nendpoint = http://127.0.0.1:1\n");
    for command in [&["config", "show"][..], &["config", "check"], &["token", "print"]] {
        let run = place.run(&[command, &["--config", "voxline.toml", "--profile", "p"]].concat());
        assert_fails(&run, 2, &["voxline.toml, line 2: "]);
    }
    // A profile that the file doesn't have is one of the problems that a check finds.
    place.file("voxline.toml", "endpont = \"x\"\n[profiles.q]\nendpoint = \"http://10.0.0.1\"\n");
    let checked = place.run(&["config", "check", "--config", "voxline.toml", "--profile", "p"]);
    assert_eq!(checked.status.code(), Some(2));
    let expected =
        ["voxline.toml, line 1, endpont: ", "no profile 'p' in the configuration file, which has: q"];
    let told: Vec<&str> = text(&checked.stderr).lines().collect();
    assert!(told[0].contains(expected[0]) && told[1].contains(expected[1]), "{told:#?}");
    assert!(told.iter().any(|line| line.contains("profiles.q.endpoint: ")), "{told:#?}");
    // What is missing because of a first problem is not a second one: the profile, or the key without its
    // typing error, would have named the endpoint.
    place.secret("secret", "secret");
    let credentials = ["--client-id", "id", "--client-secret-file", "secret"];
    for (contents, profile, expected) in [
        ("[profiles.q]\nendpoint = \"https://a\"\n", "--profile=typo", "no profile 'typo' in"),
        ("[profiles.q]\nendpont = \"https://a\"\n", "--profile=q", "line 2, profiles.q.endpont: "),
        ("endpont = \"https://a\"\n", "--profile=", "line 1, endpont: "),
        ("endpoint = https://a\n", "--profile=", "line 1: "),
    ] {
        place.file("voxline.toml", contents);
        let check = ["config", "check", "--config", "voxline.toml", profile];
        assert_fails(&place.run(&[&check[..], &credentials].concat()), 2, &[expected]);
    }
    // A problem elsewhere in the file hides no missing setting.
    place.file("voxline.toml", "[gateway]\ndrain = -1\n[profiles.q]\nendpont = \"https://a\"\n");
    let check = ["config", "check", "--config", "voxline.toml"];
    let checked = place.run(&[&check[..], &credentials].concat());
    let told: Vec<&str> = text(&checked.stderr).lines().collect();
    let expected = ["gateway.drain: ", "profiles.q.endpont: ", "without the --endpoint"];
    assert!(
        told.len() == 3 && told.iter().zip(expected).all(|(told, part)| told.contains(part)),
        "{told:#?}"
    );
    for flag in ["--max-sessions=0", "--header-timeout=0", "--cors-origin=a", "--drain=-1", "--listen=here"] {
        assert_eq!(place.run(&["serve", "--state", "state", flag]).status.code(), Some(2), "{flag}");
    }
    assert_fails(&place.run(&["serve", "--listen", "127.0.0.1:0"]), 2, &["--state", "[gateway]"]);
    let half = place.run(&["serve", "--state", "state", "--tls-key", "key.pem"]);
    assert_fails(&half, 2, &["tls_cert and tls_key go together"]);
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
fn a_check_finds_every_problem_and_tells_each_in_a_line() {
    let place = Place::new();
    certify(&place);
    place.secret("secret", "secret");
    private(&place.file("vault-key", "01".repeat(32)));
    place.file("ca.pem", Authority::new("ours").pem());
    let good = "endpoint = \"https://speech.example\"\nclient_id = \"id\"\nclient_secret_file = \"secret\"\nca_file = \
                \"ca.pem\"\nvault_key_file = \"vault-key\"\n[gateway]\nlisten = \"127.0.0.1:0\"\nstate = \"state\"\n\
                tls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n[profiles.test]\nendpoint = \"http://127.0.0.1:1\"\n\
                token_file = \"secret\"\n";
    place.file("voxline.toml", good);
    let check = || place.run(&["config", "check", "--config", "voxline.toml"]);
    let sound = check();
    assert_eq!((sound.status.code(), text(&sound.stderr)), (Some(0), ""));
    assert_eq!(text(&sound.stdout), "voxline.toml: no problems\n");
    assert!(!place.path("state").exists(), "a check changes nothing");

    private(&place.file("key.pem", KeyPair::generate().unwrap().serialize_pem()));
    fs::set_permissions(place.path("vault-key"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(place.path("secret")).unwrap();
    place.file("ca.pem", "none");
    place.file("state", "no directory");
    // An address that no machine has as its own (RFC 5737).
    let bad = good.replace("127.0.0.1:0", "192.0.2.1:8085").replace("http://127.0.0.1:1", "http://10.0.0.1");
    let bad = bad.replace("[gateway]", "endpont = \"x\"\n[gateway]\ndrain = -1\nmax_sessions = 0");
    place.file("voxline.toml", bad);
    let mut check = place.command(&["config", "check", "--config", "voxline.toml"]);
    let bad = check.env("VOXLINE_MODELS", place.path("nowhere")).output().unwrap();
    assert_eq!(bad.status.code(), Some(2));
    let told: Vec<&str> = text(&bad.stderr).lines().collect();
    assert_eq!(text(&bad.stdout), "");
    let expected = [
        "voxline: voxline.toml, line 6, endpont: unknown field `endpont`",
        "voxline: voxline.toml, line 8, gateway.drain: invalid value",
        "voxline: voxline.toml, line 9, gateway.max_sessions: 0 is not a whole number from 1 to 65535",
        "voxline: client_secret_file: secret: No such file",
        "voxline: ca_file: certificates ca.pem: holds no certificate",
        "voxline: vault_key_file: vault-key: can be read by others",
        "voxline: profiles.test.endpoint: ",
        "voxline: profiles.test.token_file: secret: No such file",
        "voxline: gateway.state: state: Not a directory",
        "voxline: gateway.tls_key: key.pem: is not the key of the certificate cert.pem",
        "voxline: gateway.listen: 192.0.2.1:8085: ",
        "voxline: model: ",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.contains(expected), "{told:?} instead of {expected:?}");
    }

    // Both files of a certificate are read, and so is a file with a syntax error, as far as it goes.
    fs::remove_file(place.path("cert.pem")).unwrap();
    fs::remove_file(place.path("key.pem")).unwrap();
    fs::remove_file(place.path("state")).unwrap();
    place.file("voxline.toml", "[gateway]\nlisten = 127.0.0.1:0\nstate = state\n");
    let files =
        ["--listen", "127.0.0.1:0", "--state", "state", "--tls-cert", "cert.pem", "--tls-key", "key.pem"];
    let checked = place.run(&[&["config", "check", "--config", "voxline.toml"], &files[..]].concat());
    let told = text(&checked.stderr);
    for expected in
        ["voxline.toml, line 2: ", "voxline.toml, line 3: ", "tls_cert: cert.pem: No", "tls_key: key.pem: No"]
    {
        assert!(told.lines().any(|line| line.contains(expected)), "{told} doesn't mention {expected}");
    }
}

#[test]
fn a_check_warns_of_a_certificate_that_clients_refuse() {
    let place = Place::new();
    let check = |params: &CertificateParams| {
        let key = KeyPair::generate().unwrap();
        place.file("cert.pem", params.self_signed(&key).unwrap().pem());
        place.secret("key.pem", key.serialize_pem());
        let files =
            ["--listen", "127.0.0.1:0", "--state", "state", "--tls-cert", "cert.pem", "--tls-key", "key.pem"];
        let checked = place.run(&[&["config", "check"], &files[..]].concat());
        assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
        (text(&checked.stdout).to_owned(), text(&checked.stderr).to_owned())
    };
    let mut params = named("localhost");
    assert_eq!(check(&params), ("no configuration file: no problems\n".to_owned(), String::new()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (summary, told) = check(&params);
    assert_eq!(summary, "no configuration file: no problems, 1 warning\n");
    let warning = "voxline: warning: gateway.tls_cert: clients refuse it: certificates cert.pem: is a certificate \
                   authority's own (CA:TRUE), not a server's";
    assert!(told.starts_with(warning) && told.lines().count() == 1, "{told}");
    params.is_ca = IsCa::ExplicitNoCa;
    params.not_after = date_time_ymd(2000, 1, 1);
    assert!(check(&params).1.ends_with("certificates cert.pem: has expired\n"));
}

#[test]
fn a_check_reads_each_file_once_so_that_it_may_come_by_a_pipe() {
    let place = Place::new();
    certify(&place);
    let check = |flags: &[&str], secret: &[u8]| {
        let mut check = place.command(&[&["config", "check"], flags].concat());
        check.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = check.spawn().unwrap();
        child.stdin.take().unwrap().write_all(secret).unwrap();
        let checked = child.wait_with_output().unwrap();
        assert_eq!((checked.status.code(), text(&checked.stderr)), (Some(0), ""), "{flags:?}");
    };
    let service = ["--endpoint", "https://speech.example"];
    check(&[&service[..], &["--token-file", "/dev/stdin"]].concat(), b"secret\n");
    let client = ["--client-id", "id", "--client-secret-file", "/dev/stdin"];
    check(&[&service[..], &client].concat(), b"secret\n");
    let gateway = ["--listen", "127.0.0.1:0", "--state", "state", "--tls-cert", "cert.pem"];
    let key = fs::read(place.path("key.pem")).unwrap();
    check(&[&gateway[..], &["--tls-key", "/dev/stdin"]].concat(), &key);
    let gateway = ["--listen", "127.0.0.1:0", "--state", "state", "--tls-key", "key.pem"];
    let certificate = fs::read(place.path("cert.pem")).unwrap();
    check(&[&gateway[..], &["--tls-cert", "/dev/stdin"]].concat(), &certificate);
    // Profiles share the configuration file, and the authorities of a flag.
    let profiles = "[profiles.a]\n[profiles.b]\n";
    check(&["--config", "/dev/stdin"], profiles.as_bytes());
    place.file("voxline.toml", profiles);
    check(&["--config", "voxline.toml", "--ca-file", "/dev/stdin"], Authority::new("ours").pem().as_bytes());
}

#[test]
fn a_check_finds_state_that_the_gateway_would_refuse() {
    let place = Place::new();
    fs::create_dir(place.path("state")).unwrap();
    let store = place.file("state/authority.redb", "");
    let mode = |name: &str, mode| {
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let tell = |expected: &str| {
        let mut check = place.command(&["config", "check", "--listen", "127.0.0.1:0", "--state", "state"]);
        // A missing recogniser is also reported, and at once.
        let checked = check.env("VOXLINE_MODELS", place.path("nowhere")).output().unwrap();
        let told = text(&checked.stderr);
        assert!(told.lines().any(|line| line.contains(expected)), "{told}");
    };
    mode("state", 0o777);
    tell("state directory state can be changed by others: run chmod 700 on it");
    mode("state", 0o700);
    mode("state/authority.redb", 0o644);
    tell("state/authority.redb can be read or written by others: run chmod 600 on it");
    mode("state/authority.redb", 0o600);
    tell("state/authority.redb is empty");
    assert_eq!(fs::read(store).unwrap(), b"", "a check changes nothing");
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
            .replace("# max_sessions", "max_sessions"),
    );
    let written: toml::Table = fs::read_to_string(&all).unwrap().parse().unwrap();
    let written = written["gateway"].as_table().unwrap();
    let known = GatewayConfig {
        state: Some("a".into()),
        threads: Some("4".parse().unwrap()),
        max_sessions: Some("64".parse().unwrap()),
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
#[expect(clippy::print_stderr, reason = "what was not checked should be known")]
fn the_sample_unit_is_one_that_systemd_takes() {
    let place = Place::new();
    let unit = fs::read_to_string(UNIT).unwrap();
    let drain = GatewayConfig::default().options().drain;
    let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    assert!(Duration::from_secs(stop.parse().unwrap()) > drain + Duration::from_secs(10));
    // The program of the unit is replaced by this build.
    let unit =
        place.file("voxline.service", unit.replace("/usr/local/bin/voxline", env!("CARGO_BIN_EXE_voxline")));
    match Command::new("systemd-analyze").args(["verify", "--man=no", path(&unit)]).output() {
        Ok(verified) => {
            assert!(verified.status.success(), "{}", text(&verified.stderr));
            let ours = text(&verified.stderr).lines().filter(|line| line.contains("voxline.service"));
            assert_eq!(ours.collect::<Vec<_>>(), [""; 0]);
        }
        Err(error) => eprintln!("not verified: systemd-analyze: {error}"),
    }
}

#[test]
fn systemd_is_told_when_it_serves_reads_again_and_stops() {
    let place = Place::new();
    let socket = UnixDatagram::bind(place.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let hear = || {
        let mut message = [0; 256];
        let length = socket.recv(&mut message).unwrap();
        text(&message[..length]).to_owned()
    };
    let mut serve = place.command(&["serve", "--listen", "127.0.0.1:0", "--state", "state"]);
    let serving = Serving::start({
        serve.env("NOTIFY_SOCKET", place.path("notify"));
        serve
    });
    assert_eq!(hear().trim(), "READY=1");
    serving.signal("HUP");
    let reloading = hear();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(hear().trim(), "READY=1");
    serving.logged("nothing to reload");
    assert_eq!(serving.stop().0.code(), Some(0));
    assert_eq!(hear().trim(), "STOPPING=1");
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
