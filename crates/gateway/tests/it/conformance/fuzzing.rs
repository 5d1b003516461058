//! The gateway that `./dev fuzz-api` tests: complete, except that its recogniser and voice cost nothing.

use std::io::{self, Read};

use secrecy::ExposeSecret;
use voxline_gateway::Options;
use voxline_gateway::authority::Terms;

use super::server;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "serves ./dev fuzz-api until that is done"]
#[expect(clippy::print_stdout, reason = "who started it waits for the address")]
async fn gateway() {
    // A fuzzer, which fails on purpose, must not be locked out.
    let options = Options { demo: true, max_failures: 0, max_sessions: 10_000, ..Options::default() };
    let server = server(options).await;
    let token = server.gateway.authority().create_service_token("test", Terms::default()).unwrap().token;
    let credentials = &server.credentials;
    let secret = credentials.client_secret.expose_secret();
    println!(
        "\nserving http://{} {} {} {secret}",
        server.address,
        token.expose_secret(),
        credentials.client_id
    );
    tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    server.stop().await;
}
