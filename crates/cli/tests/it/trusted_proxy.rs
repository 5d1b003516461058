//! `voxline serve` behind a proxy: how it is configured, and the client addresses in its audit log.

use serde_json::{Value, json};

use crate::cli::{Place, assert_fails, text};
use crate::support::serving::Serving;
use voxline_fixtures::gateway::http::http_client_from;
use voxline_fixtures::synthetic_whisper::{Shape, write};

/// The proxy's address.
const PROXY: [u8; 4] = [127, 0, 0, 1];
/// A model that loads quickly, for a program that needs one.
const SMALLEST: Shape =
    Shape { width: 64, bands: 80, decoder_layers: 1, third: false, hears: ("en", "hello") };

/// Returns the lines of the program's audit log, as JSON.
fn audited(lines: &[String]) -> Vec<Value> {
    let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
    lines.filter(|line| line["target"] == "voxline::audit").collect()
}

/// The program learns of its proxy by flag, environment or file. Its audit log then has the client's
/// address, and no address for changes by the operator.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_is_told_of_its_proxy_in_three_ways_and_audits_the_client() {
    let place = Place::new();
    place.file("voxline.toml", "[gateway]\ntrusted_proxy = [\"10.0.0.0/8\", \"127.0.0.1\"]\n");
    std::fs::create_dir(place.path("model")).unwrap();
    write(&place.path("model"), &SMALLEST);
    let client_address = Some("192.0.2.7");
    let ways: [(&[&str], Option<&str>, Option<&str>); 5] = [
        (&["--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "127.0.0.1/32"], None, client_address),
        (&[], Some("10.0.0.0/8,127.0.0.1/32"), client_address),
        (&["--config", "voxline.toml"], None, client_address),
        // The trusted proxy is not ours.
        (&["--trusted-proxy", "10.0.0.0/8"], Some("127.0.0.1/32"), Some("127.0.0.1")),
        // The operator wants no addresses.
        (&["--audit-addresses=false"], Some("127.0.0.1/32"), None),
    ];
    for (number, (flags, variable, peer)) in ways.into_iter().enumerate() {
        let state = format!("state{number}");
        let operate = |command: &[&str]| {
            let done = place.run(&[&["gateway"], command, &["--state", &state, "--json"]].concat());
            assert_eq!(done.status.code(), Some(0), "{done:?}");
            serde_json::from_slice::<Value>(&done.stdout).unwrap()
        };
        let project = operate(&["project", "create", "calls"]);
        let serve = ["serve", "--listen", "127.0.0.1:0", "--state", &state, "--log-format", "json"];
        // Nothing is recognised or spoken here, so that little is loaded and nothing is measured.
        let engine = ["--models", ".", "--model", "./model", "--max-sessions", "1"];
        let mut serve = place.command(&[&serve[..], &engine, flags].concat());
        serve.envs(variable.map(|networks| ("VOXLINE_GATEWAY_TRUSTED_PROXY", networks)));
        let serving = Serving::start(serve);

        let ask = async |path: &str, body: Value| {
            let request = http_client_from(PROXY).post(format!("{}{path}", serving.endpoint)).json(&body);
            request.bearer_auth("wrong").header("x-forwarded-for", "192.0.2.7").send().await.unwrap()
        };
        let id = &project["client_id"];
        let grant = "client_credentials";
        let credentials =
            |secret: &Value| json!({ "client_id": id, "client_secret": secret, "grant_type": grant });
        assert_eq!(ask("/auth/oauth/v1/token", credentials(&json!("wrong"))).await.status(), 401);
        let minted = ask("/auth/oauth/v1/token", credentials(&project["client_secret"])).await;
        let minted: Value = minted.json().await.unwrap();
        let refresh_token = &minted["refresh_token"];
        let refresh =
            json!({ "client_id": id, "refresh_token": refresh_token, "grant_type": "refresh_token" });
        assert_eq!(ask("/auth/oauth/v1/token", refresh).await.status(), 200);
        assert_eq!(ask("/tts", json!({ "text": "Hello" })).await.status(), 401);
        assert_eq!(ask("/asr_stream/add_chunk?task_id=a", json!({})).await.status(), 401);
        let revoke = json!({ "client_id": id, "token": refresh_token });
        assert_eq!(ask("/auth/oauth/v1/revoke", revoke).await.status(), 200);
        operate(&["client", "create", "calls"]);

        let (status, lines) = serving.stop();
        assert_eq!(status.code(), Some(0));
        let told: Vec<_> =
            audited(&lines).iter().map(|line| (line["message"].clone(), line["peer"].clone())).collect();
        let by_client = ["refused", "minted", "minted", "minted", "refused", "refused", "revoked"]
            .map(|it| (json!(it), json!(peer)));
        let by_operator = (json!("minted"), Value::Null);
        let expected: Vec<_> = by_client.into_iter().chain([by_operator]).collect();
        assert_eq!(told, expected, "{flags:?} {variable:?}");
    }
}

#[test]
fn the_configuration_tells_of_trusted_proxies() {
    let place = Place::new();
    place.file(
        "voxline.toml",
        "[gateway]\nstate = \"state\"\ntrusted_proxy = [\"10.0.0.0/8\", \"127.0.0.1\"]\n",
    );
    place.file("bad.toml", "[gateway]\nstate = \"state\"\ntrusted_proxy = [\"10.0.0.0/33\"]\n");
    let shown = |arguments: &[&str], variable: Option<&str>| {
        let mut show = place.command(&[&["config", "show"], arguments].concat());
        let done = show.envs(variable.map(|it| ("VOXLINE_GATEWAY_TRUSTED_PROXY", it))).output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        let line = text(&done.stdout).lines().find(|line| line.starts_with("trusted_proxy"));
        line.expect("it is told").to_owned()
    };
    assert_eq!(shown(&[], None), "trusted_proxy = []  # default");
    let both = r#"trusted_proxy = ["10.0.0.0/8", "127.0.0.1/32"]"#;
    assert_eq!(shown(&["--config", "voxline.toml"], None), format!("{both}  # file"));
    assert_eq!(shown(&["--config", "voxline.toml"], Some("::1")), r#"trusted_proxy = ["::1/128"]  # env"#);
    let flag = ["--config", "voxline.toml", "--trusted-proxy", "192.0.2.0/24"];
    assert_eq!(shown(&flag, Some("::1")), r#"trusted_proxy = ["192.0.2.0/24"]  # flag"#);

    let checked = place.run(&["config", "check", "--config", "bad.toml"]);
    assert_fails(
        &checked,
        2,
        &["bad.toml", "line 3", "gateway.trusted_proxy: \"10.0.0.0/33\"", "10.0.0.0/8"],
    );
    let checked = place.run(&["config", "check", "--trusted-proxy", "proxy.example"]);
    assert_eq!(checked.status.code(), Some(2));
    let complaint = text(&checked.stderr).lines().next().unwrap();
    assert!(complaint.contains("'proxy.example' for '--trusted-proxy <CIDR>'"), "{complaint}");
    assert!(complaint.contains("10.0.0.0/8"), "{complaint}");
}
