//! `voxline token`, and the sources of the program's secrets.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use humantime::parse_rfc3339;
use secrecy::ExposeSecret;
use serde_json::Value;
use voxline_gateway::authority::Terms;
use voxline_testing::DigestRecognizer;

use crate::cli::{Place, assert_fails, text};
use voxline_fixtures::gateway::server::Server;

/// A gateway, and a directory from which the program uses it.
struct Setting {
    server: Server,
    place: Place,
    configuration: String,
}

impl Setting {
    fn command(&self, arguments: &[&str]) -> Command {
        self.place.command(&[arguments, &["--config", "voxline.toml"]].concat())
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&succeeded(self.run(&["token", "status", "--json"]))).unwrap()
    }

    /// Asserts that the printed text is a token that the gateway accepts, and returns the token.
    fn assert_is_token(&self, printed: &[u8]) -> String {
        let token = text(printed).strip_suffix('\n').unwrap();
        assert!(self.server.gateway.authority().check(token).is_ok());
        token.to_owned()
    }
}

/// Asserts that the program succeeded, and returns its standard output.
#[track_caller]
fn succeeded(output: Output) -> Vec<u8> {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    output.stdout
}

/// Runs `test` beside a gateway, on a thread that may block.
async fn with_gateway(test: impl FnOnce(&Setting) + Send + 'static) {
    let server = Server::start(Arc::new(DigestRecognizer::new(16_000))).await;
    let place = Place::new();
    let configuration = format!(
        "endpoint = \"{}\"\nclient_id = \"{}\"\nclient_secret_file = \"secret\"\n",
        server.endpoint(),
        server.credentials.client_id
    );
    place.file("voxline.toml", &configuration);
    place.secret("secret", server.credentials.client_secret.expose_secret());
    let setting = Setting { server, place, configuration };
    let setting = tokio::task::spawn_blocking(move || {
        test(&setting);
        setting
    });
    setting.await.unwrap().server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_got_shown_renewed_and_given_up() {
    with_gateway(|setting| {
        let none = setting.status();
        assert_eq!((&none["access_token"], &none["refresh_token"]), (&Value::Null, &Value::Bool(false)));

        let login = succeeded(setting.run(&["token", "login"]));
        for part in
            ["valid for 59m", "scope asr_short asr_stream tts", "token  held", "1 of 25 taken", "Z held"]
        {
            assert!(text(&login).contains(part), "{} doesn't say {part}", text(&login));
        }
        let first = setting.assert_is_token(&succeeded(setting.run(&["token", "print"])));
        // Another run finds the token that the first one stored.
        assert_eq!(setting.assert_is_token(&succeeded(setting.run(&["token", "print"]))), first);
        succeeded(setting.run(&["token", "refresh"]));
        let second = setting.assert_is_token(&succeeded(setting.run(&["token", "print"])));
        assert_ne!(first, second);

        let status = setting.status();
        let expires_in = status["access_token"]["expires_in"].as_u64().unwrap();
        assert!((3_500..=3_600).contains(&expires_in), "{status}");
        assert_eq!(status["slots"].as_array().unwrap().len(), 1);
        assert_eq!(status["slots"][0]["state"], "held");
        for time in [&status["access_token"]["expires"], &status["slots"][0]["asked"]] {
            let time = time.as_str().unwrap();
            assert!(parse_rfc3339(time).is_ok() && time.ends_with('Z'), "{status}");
        }
        let shown = format!("{status}{}", text(&login));
        assert!(!shown.contains(&second) && !shown.contains(&first), "{shown}");

        let logout = succeeded(setting.run(&["token", "logout"]));
        assert_eq!(text(&logout), "tokens revoked at the service and deleted here\n");
        for token in [first, second] {
            assert!(setting.server.gateway.authority().check(&token).is_err());
        }
        assert_eq!(text(&succeeded(setting.run(&["token", "revoke"]))), "no tokens are stored\n");

        succeeded(setting.run(&["token", "login"]));
        let logout = succeeded(setting.run(&["token", "logout", "--local"]));
        assert!(text(&logout).contains("the service was not told"));
        assert_eq!(setting.status()["slots"][0]["state"], "abandoned");
        assert_eq!(text(&succeeded(setting.run(&["token", "logout", "--forget"]))), "no tokens are stored\n");
        assert_eq!(setting.status()["slots"].as_array().unwrap().len(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_vault_is_of_no_use_without_its_key() {
    with_gateway(|setting| {
        let key = setting.place.file("key", [7; 32]);
        let private = |mode| fs::set_permissions(&key, PermissionsExt::from_mode(mode)).unwrap();
        private(0o644);
        let by_key = ["token", "print", "--vault-key-file", "key"];
        assert_fails(&setting.run(&by_key), 2, &["key: can be read by others", "chmod 600"]);
        private(0o600);
        let token = setting.assert_is_token(&succeeded(setting.run(&by_key)));
        assert_fails(&setting.run(&["token", "print"]), 2, &["encrypted", "vault_key_file"]);
        // A session reports the same error.
        setting.place.file("silence", [0; 3200]);
        let transcribe = setting.run(&["transcribe", "silence", "--raw", "s16le:16000:1"]);
        assert_fails(&transcribe, 2, &["encrypted", "vault_key_file"]);
        let file = setting.run(&["token", "status", "--json", "--vault-key-file", "key"]);
        let status: Value = serde_json::from_slice(&succeeded(file)).unwrap();
        assert_eq!(status["encrypted"], true);
        let kept = fs::read(status["file"].as_str().unwrap()).unwrap();
        assert!(!kept.windows(token.len()).any(|bytes| bytes == token.as_bytes()));
        // systemd passes credentials to a service in such a directory.
        fs::create_dir(setting.place.path("credentials")).unwrap();
        setting.place.file("credentials/voxline-vault-key", [7; 32]);
        let mut service = setting.command(&["token", "print"]);
        service.env("CREDENTIALS_DIRECTORY", setting.place.path("credentials"));
        assert_eq!(setting.assert_is_token(&succeeded(service.output().unwrap())), token);

        setting.place.file("key", "no key");
        assert_fails(&setting.run(&by_key), 2, &["key: is not a key of 32 bytes"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_come_by_file_environment_or_standard_input() {
    with_gateway(|setting| {
        let token =
            setting.server.gateway.authority().create_service_token("test", Terms::default()).unwrap().token;
        let token = token.expose_secret();
        let endpoint = setting.server.endpoint().to_string();
        let print = ["token", "print", "--endpoint", endpoint.as_str()];

        let mut given = setting.place.command(&print);
        assert_eq!(
            succeeded(given.env("VOXLINE_TOKEN", token).output().unwrap()),
            format!("{token}\n").into_bytes()
        );
        let mut piped = setting.place.command(&[&print[..], &["--token-file", "-"]].concat());
        let mut child = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{token}").unwrap();
        assert_eq!(succeeded(child.wait_with_output().unwrap()), format!("{token}\n").into_bytes());
        // A named pipe keeps no secret, so its mode doesn't matter. The test opens it for reading as well,
        // so as not to wait for the program.
        let pipe = setting.place.path("pipe");
        assert!(Command::new("mkfifo").args(["-m", "644"]).arg(&pipe).status().unwrap().success());
        let mut writer = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        writeln!(writer, "{token}").unwrap();
        let piped = setting.place.run(&[&print[..], &["--token-file", "pipe"]].concat());
        assert_eq!(succeeded(piped), format!("{token}\n").into_bytes());
        assert_fails(
            &setting.place.run(&["transcribe", "-", "--endpoint", &endpoint, "--token-file", "-"]),
            2,
            &["standard input can't be both"],
        );

        let id = setting.server.credentials.client_id.as_str();
        let mut given = setting.place.command(&[&print[..], &["--client-id", id]].concat());
        given.env("VOXLINE_CLIENT_SECRET", setting.server.credentials.client_secret.expose_secret());
        setting.assert_is_token(&succeeded(given.output().unwrap()));

        let mut status = setting.place.command(&["token", "status", "--endpoint", &endpoint]);
        let status = succeeded(status.env("VOXLINE_TOKEN", token).output().unwrap());
        assert!(text(&status).contains("service token") && !text(&status).contains(token));
        let mut refresh = setting.place.command(&["token", "refresh", "--endpoint", &endpoint]);
        assert_fails(&refresh.env("VOXLINE_TOKEN", token).output().unwrap(), 2, &["service token"]);
        assert_fails(&setting.place.run(&["token", "status"]), 2, &["name an --endpoint"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_others_can_read_is_refused() {
    with_gateway(|setting| {
        let token =
            setting.server.gateway.authority().create_service_token("test", Terms::default()).unwrap();
        let token = token.token.expose_secret();
        let endpoint = setting.server.endpoint().to_string();
        fs::create_dir(setting.place.path("credentials")).unwrap();
        setting.place.secret("token", token);
        setting.place.secret("credentials/token", token);
        let print = |file: &str| {
            let mut print =
                setting.place.command(&["token", "print", "--endpoint", &endpoint, "--token-file", file]);
            print.env("CREDENTIALS_DIRECTORY", setting.place.path("credentials")).output().unwrap()
        };
        let open_to = |file: &str, mode| {
            fs::set_permissions(setting.place.path(file), PermissionsExt::from_mode(mode)).unwrap();
        };
        for mode in [0o644, 0o640, 0o604] {
            open_to("token", mode);
            let refused = print("token");
            assert_fails(&refused, 2, &["voxline: token: can be read by others: run chmod 600 on it"]);
            open_to("secret", mode);
            assert_fails(&setting.run(&["token", "print"]), 2, &["secret: can be read by others"]);
        }
        open_to("token", 0o400);
        assert_eq!(text(&succeeded(print("token"))).trim(), token);
        open_to("secret", 0o600);
        setting.assert_is_token(&succeeded(setting.run(&["token", "print"])));
        // systemd keeps others from its credentials by the directory (systemd.exec(5), `LoadCredential=`).
        open_to("credentials/token", 0o444);
        let credential = setting.place.path("credentials/token");
        assert_eq!(text(&succeeded(print(credential.to_str().unwrap()))).trim(), token);
    })
    .await;
}

#[test]
#[expect(clippy::print_stderr, reason = "what was not checked should be known")]
fn a_secret_of_roots_may_be_read_by_the_group_of_a_program() {
    const NOBODY: u32 = 65_534;
    const OTHER: u32 = 1_001;
    let place = Place::new();
    let token = place.file("token", "token");
    if let Err(error) = chown(&token, Some(0), Some(NOBODY)) {
        return eprintln!("not verified: only root can give a file to root: {error}");
    }
    fs::set_permissions(place.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    let check = |mode: u32, user: u32| {
        fs::set_permissions(&token, fs::Permissions::from_mode(mode)).unwrap();
        let flags = ["--endpoint", "https://speech.example", "--token-file", "token"];
        place.command(&[&["config", "check"], &flags[..]].concat()).uid(user).gid(NOBODY).output()
    };
    // A container's runtime gives a program that doesn't run as root its secrets like this.
    let checked = match check(0o640, NOBODY) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return eprintln!("not verified: the user nobody can't run the program: {error}");
        }
        checked => checked.unwrap(),
    };
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    let refusal = "token_file: token: can be read by others: ";
    for (mode, user, remedy) in [
        (0o644, NOBODY, "run chmod 640 on it as root"),
        (0o660, NOBODY, "run chmod 640 on it as root"),
        (0o640, 0, "run chmod 600 on it"),
    ] {
        assert_fails(&check(mode, user).unwrap(), 2, &[&format!("{refusal}{remedy}\n")]);
    }
    // Mode 600 or 640 would keep the program from a file of another owner, or of a group that isn't its own.
    for (owner, group) in [(OTHER, NOBODY), (0, OTHER)] {
        chown(&token, Some(owner), Some(group)).unwrap();
        let remedy = "as root, make this user its owner (chown) and run chmod 600 on it";
        assert_fails(&check(0o644, NOBODY).unwrap(), 2, &[&format!("{refusal}{remedy}\n")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_keep_services_apart() {
    with_gateway(|setting| {
        let endpoint = setting.server.endpoint();
        let profiles = format!(
            "{}[profiles.tokens]\nendpoint = \"{endpoint}\"\ntoken_file = \"token\"\n[profiles.away]\nendpoint = \
             \"http://127.0.0.1:1\"\nclient_id = \"x\"\nclient_secret_file = \"secret\"\n",
            setting.configuration
        );
        setting.place.file("voxline.toml", profiles);
        let token = setting.server.gateway.authority().create_service_token("test", Terms::default()).unwrap().token;
        setting.place.secret("token", token.expose_secret());

        setting.assert_is_token(&succeeded(setting.run(&["token", "print"])));
        let printed = succeeded(setting.run(&["token", "print", "--profile", "tokens"]));
        assert_eq!(text(&printed).trim(), token.expose_secret());
        assert_fails(&setting.run(&["token", "print", "--profile", "away"]), 5, &["http://127.0.0.1:1"]);
        let unknown = setting.run(&["token", "print", "--profile", "tests"]);
        assert_fails(&unknown, 2, &["no profile 'tests'", "away, tokens"]);
    })
    .await;
}
