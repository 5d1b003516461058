//! TLS of `voxline serve`: the files of its certificate, and their replacement at run time.

use std::path::Path;

use rcgen::KeyPair;
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::pki_types::CertificateDer;
use voxline::auth::TokenProvider;
use voxline::transport::{Connect, WebSocketConnector};
use voxline_support::hex;

use crate::cli::{Place, assert_fails, path, text};
use crate::support::serving::Serving;
use voxline_fixtures::gateway::socket::Socket;
use voxline_fixtures::gateway::tls::{CertificateFiles, localhost};

#[test]
fn the_program_refuses_bad_files_before_it_listens() {
    let place = Place::new();
    let files = CertificateFiles::create(&place.path(""));
    let with = |more: &[&str]| {
        place.run(&[&["serve", "--listen", "127.0.0.1:0", "--state", "state"], more].concat())
    };
    assert_fails(&with(&["--tls-cert", "missing", "--tls-key", "key.pem"]), 2, &["missing: No such file"]);
    files.write_key(&KeyPair::generate().unwrap().serialize_pem());
    let strange = with(&["--tls-cert", "cert.pem", "--tls-key", "key.pem"]);
    assert_fails(&strange, 2, &["key.pem: is not the key of the certificate cert.pem"]);
    assert_eq!(with(&["--tls-cert", "cert.pem"]).status.code(), Some(2));
    assert!(!place.path("state").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_under_a_live_session() {
    let place = Place::new();
    let files = CertificateFiles::create(&place.path(""));
    let project = ["gateway", "project", "create", "calls", "--state", "state"];
    assert_eq!(place.run(&project).status.code(), Some(0));
    let minted = place.run(&["gateway", "service-token", "create", "calls", "--state", "state"]);
    let token = text(&minted.stdout).trim().to_owned();
    let serving = {
        let (cert, key) = (place.path("cert.pem"), place.path("key.pem"));
        // The events of operation are logged by default.
        let serve = ["serve", "--listen", "127.0.0.1:0", "--state", "state"];
        Serving::start(place.command(&[&serve[..], &tls_flags(&cert, &key)].concat()))
    };
    assert!(serving.endpoint.starts_with("https://127.0.0.1:"), "{}", serving.endpoint);
    let address = serving.address();

    let tokens = TokenProvider::service(&token.into()).unwrap();
    let connector = WebSocketConnector::trusting(localhost(address), &files.trust());
    let mut live = Socket::on(connector.connect(&tokens.token().await.unwrap(), None).await.unwrap());
    live.say(&serde_json::json!({ "type": "start", "sample_rate": 16_000, "partials": false }));
    live.hear("ready").await;
    let silence = vec![0; 64_000];
    live.audio(&silence, 0, 32_000);
    live.acknowledged(32_000).await;

    let (_, before) = files.shake_hands(address).await;
    let renewed = files.renew();
    assert_ne!(before, renewed);
    serving.signal("HUP");
    let line = serving.logged("certificate and key reloaded");
    let sha256 = |certificate: &CertificateDer<'_>| hex(&Sha256::digest(certificate));
    assert!(line.contains(&format!("sha256=\"{}\"", sha256(&renewed))), "{line}");
    assert!(line.contains(&format!("replaced=\"{}\"", sha256(&before))), "{line}");
    assert_eq!(files.shake_hands(address).await.1, renewed);
    serving.signal("HUP");
    serving.logged("certificate and key reloaded, the certificate is unchanged");
    // Unusable files change nothing but the log.
    files.write_key(&KeyPair::generate().unwrap().serialize_pem());
    serving.signal("HUP");
    let line = serving.logged("certificate and key not reloaded, keeping the previous ones");
    assert!(line.contains("ERROR") && line.contains("is not the key of the certificate"), "{line}");
    assert_eq!(files.shake_hands(address).await.1, renewed);

    live.audio(&silence, 32_000, 64_000);
    live.acknowledged(64_000).await;
    live.end(64_000).await;
    let (status, log) = serving.stop();
    assert_eq!(status.code(), Some(0));
    let told = |words: &str| log.iter().filter(|line| line.contains(words)).count();
    assert_eq!((told("drain started"), told("drain finished")), (1, 1), "{log:#?}");
}

fn tls_flags<'a>(cert: &'a Path, key: &'a Path) -> [&'a str; 4] {
    ["--tls-cert", path(cert), "--tls-key", path(key)]
}
