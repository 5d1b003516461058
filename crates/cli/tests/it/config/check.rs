//! `config check`: each problem of a configuration in a line of its own, before anything is started.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

use super::{certify, private};
use crate::cli::{Place, assert_fails, text};
use voxline_fixtures::gateway::tls::{Authority, named};

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
    for flag in [
        "--max-sessions=0",
        "--header-timeout=0",
        "--cors-origin=a",
        "--drain=-1",
        "--listen=here",
        "--dialects=openai,wit",
    ] {
        assert_eq!(place.run(&["serve", "--state", "state", flag]).status.code(), Some(2), "{flag}");
    }
    assert_fails(&place.run(&["serve", "--listen", "127.0.0.1:0"]), 2, &["--state", "[gateway]"]);
    let half = place.run(&["serve", "--state", "state", "--tls-key", "key.pem"]);
    assert_fails(&half, 2, &["tls_cert and tls_key go together"]);
    let open = ["serve", "--state", "state", "--listen", "127.0.0.1:0", "--vosk-listen", "127.0.0.1:0"];
    assert_fails(&place.run(&open), 2, &["vosk_listen needs a project", "--open-project"]);
    let wyoming =
        ["serve", "--state", "state", "--listen", "127.0.0.1:0", "--wyoming-listen", "unix:wyoming"];
    assert_fails(&place.run(&wyoming), 2, &["wyoming_listen needs a project", "--open-project"]);
    let unknown = place.run(&[&open[..], &["--open-project", "nobody"]].concat());
    assert_fails(&unknown, 2, &["nobody"]);
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
    let bad = bad.replace(
        "[gateway]",
        "endpont = \"x\"\n[gateway]\ndrain = -1\nmax_sessions = 0\nvosk_listen = \"127.0.0.1:0\"\n\
         wyoming_listen = \"unix:w\"",
    );
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
        "voxline: gateway.vosk_listen: vosk_listen needs a project",
        "voxline: gateway.wyoming_listen: wyoming_listen needs a project",
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
