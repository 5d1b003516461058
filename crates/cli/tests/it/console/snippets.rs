//! Snippets of the console for clients of dialects: shown for those that are on, and run in a browser.

use std::sync::Arc;

use secrecy::ExposeSecret;
use voxline_gateway::authority::Terms;
use voxline_gateway::{Dialect, Options};
use voxline_testing::DigestRecognizer;

use super::page::{SAID, address, server, signed_in};
use crate::support::browser;
use voxline_engines::wer::normal;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::samples::sample;

/// JavaScript expression for each API, language and snippet that a user can choose.
const SNIPPETS: &str = "(() => {
    const [api, language] = ['connect-api', 'connect-language'].map((id) => document.getElementById(id));
    const choose = (list, value) => { list.value = value; list.dispatchEvent(new Event('change')); };
    const values = (list) => [...list.options].map(({ value }) => value);
    return values(api).flatMap((chosen) => {
        choose(api, chosen);
        return values(language).map((named) => {
            choose(language, named);
            return [chosen, named, document.getElementById('connect-code').textContent];
        });
    });
})()";

/// Snippets are shown with the gateway's own address. Those in JavaScript run here; `sdks` runs the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snippets_are_shown_and_run() {
    if browser::is_left_out() {
        return;
    }
    let server = server().await;
    let token = server.gateway.authority().create_service_token("test", Terms::default()).unwrap().token;
    let mut browser = signed_in(&server, &address(&server)).await;
    browser.until("document.getElementById('connect-code').textContent").await;
    let snippets = browser.evaluate(SNIPPETS).await;
    let mut ran = Vec::new();
    for snippet in snippets.as_array().unwrap() {
        let [api, language, code] = [0, 1, 2].map(|index| snippet[index].as_str().unwrap());
        assert!(code.contains(&format!("://{}/", server.address)) || language == "Python", "{code}");
        assert!(code.contains(&server.address.to_string()) && !code.contains("{http}"), "{code}");
        assert!(code.contains("YOUR_TOKEN") && !code.contains("{ws}"), "{code}");
        if language == "JavaScript" {
            let heard =
                browser.evaluate(&playground(&code.replace("YOUR_TOKEN", token.expose_secret()))).await;
            assert_eq!(normal(heard.as_str().unwrap()), normal(SAID), "{api}");
            ran.push(api);
        }
    }
    assert_eq!(ran, ["openai", "deepgram", "vosk"]);
    assert_eq!(browser.complaints(), [""; 0]);
    drop(browser);
    server.stop().await;

    // Nothing is shown of dialects that are off.
    for (dialects, expected) in [(vec![Dialect::Vosk], "vosk,vosk"), (Vec::new(), "")] {
        let setup = Setup { options: Options { dialects, ..Options::default() }, ..Setup::default() };
        let server = Server::with(Arc::new(DigestRecognizer::new(8_000)), setup).await;
        let mut browser = signed_in(&server, &address(&server)).await;
        browser.until("document.querySelector('#project-tokens .id')").await;
        if !expected.is_empty() {
            browser.until("!document.getElementById('connect').hidden").await;
        }
        let apis = browser.evaluate(&format!("{SNIPPETS}.map(([api]) => api).join()")).await;
        assert_eq!(apis, expected);
        let hidden = browser.evaluate("document.getElementById('connect').hidden").await;
        assert_eq!(hidden, expected.is_empty());
        drop(browser);
        server.stop().await;
    }
}

/// Returns an expression that runs a snippet on the sample, and gives what it logs.
fn playground(code: &str) -> String {
    let bytes = std::fs::read(sample("speech-16k-mono-s16.wav")).unwrap();
    let end = if code.contains("WebSocket") {
        "await new Promise((resolve) => { socket.onclose = resolve; });"
    } else {
        ""
    };
    format!(
        "(async () => {{
            const logged = [];
            const console = {{ log: (text) => logged.push(text) }};
            const bytes = new Uint8Array({bytes:?});
            const [recording, pcm] = [new Blob([bytes]), bytes.slice(44).buffer];
            {code}
            {end}
            return logged.join(' ');
        }})()"
    )
}
