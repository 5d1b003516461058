//! Files of the console page: complete, restricted by a content security policy, and absent if the console
//! is disabled.

use std::sync::Arc;

use reqwest::StatusCode;
use reqwest::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use voxline_gateway::Options;
use voxline_testing::DigestRecognizer;

use voxline_fixtures::gateway::http::http_client;
use voxline_fixtures::gateway::server::{Server, Setup};

async fn server(options: Options) -> Server {
    Server::with(Arc::new(DigestRecognizer::new(8_000)), Setup { options, ..Setup::default() }).await
}

/// Returns the names that a file refers to in `src`, `href`, `from`, `addModule` and `fetch`.
fn named(content: &str) -> Vec<String> {
    let mut names = Vec::new();
    let places =
        [("src=\"", '"'), ("href=\"", '"'), ("from './", '\''), ("addModule('", '\''), ("fetch('", '\'')];
    for (before, quote) in places {
        for found in content.split(before).skip(1) {
            let (name, _) = found.split_once(quote).expect("what is quoted ends");
            names.push(if name.starts_with('/') { name.to_owned() } else { format!("/console/{name}") });
        }
    }
    names
}

#[tokio::test]
async fn the_page_is_whole_and_asks_nobody_else() {
    let server = server(Options::default()).await;
    let client = http_client().unwrap();
    let mut seen = vec!["/".to_owned()];
    let mut at = 0;
    while let Some(path) = seen.get(at).cloned() {
        at += 1;
        let address = format!("http://{}{path}", server.address);
        let answer = client.get(&address).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let headers = answer.headers().clone();
        let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none';"), "{path}: {policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers[CACHE_CONTROL], "no-cache");
        let kind = match path.rsplit_once('.') {
            None => "text/html; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            Some((_, "json")) => "application/json",
            Some(_) => "text/javascript; charset=utf-8",
        };
        assert_eq!(headers[CONTENT_TYPE], kind, "{path}");

        let content = answer.text().await.unwrap();
        let elsewhere = content.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("://") && !elsewhere.contains("url("), "{path} names another place");
        for name in named(&content) {
            if !seen.contains(&name) {
                seen.push(name);
            }
        }

        let again = client.get(&address).header(IF_NONE_MATCH, &headers[ETAG]).send().await.unwrap();
        assert_eq!((again.status(), &again.headers()[ETAG]), (StatusCode::NOT_MODIFIED, &headers[ETAG]));
        assert_eq!(again.text().await.unwrap(), "");
        let changed = client.get(&address).header(IF_NONE_MATCH, "\"another\"").send().await.unwrap();
        assert_eq!(changed.status(), StatusCode::OK);
    }
    assert!(seen.len() >= 10, "the page should name its parts: {seen:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_gateway_without_a_console_has_none() {
    let server = server(Options { console: false, ..Options::default() }).await;
    let client = http_client().unwrap();
    for path in ["/", "/console/app.js", "/console/status", "/console/voices"] {
        let answer = client.get(format!("http://{}{path}", server.address)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
    }
    server.stop().await;
}
