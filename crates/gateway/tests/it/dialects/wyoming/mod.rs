//! The Wyoming protocol, spoken by a client that is written from its contract.

mod hostile;
mod peer;
mod recognition;
mod speech;

use std::sync::Arc;

use voxline::engine::{Recognizer, Voices};
use voxline_gateway::{OpenAccess, Options, WyomingAddress};
use voxline_testing::DigestRecognizer;

use super::SEGMENT;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::voice::Tone;

/// Returns options under which clients on this machine use the project of the tests.
fn open() -> Options {
    open_to("127.0.0.0/8")
}

fn open_to(network: &str) -> Options {
    let open = OpenAccess { project: "test".to_owned(), networks: vec![network.parse().unwrap()] };
    Options { open: Some(open), ..Options::default() }
}

/// Starts a gateway that speaks Wyoming, too, with tones as its voices.
async fn served(recognizer: Arc<dyn Recognizer>, options: Options) -> Server {
    served_with(recognizer, options, Tone::voices()).await
}

async fn served_with(recognizer: Arc<dyn Recognizer>, options: Options, voices: Voices) -> Server {
    let wyoming = Some(WyomingAddress::Tcp("127.0.0.1:0".parse().unwrap()));
    Server::with(recognizer, Setup { options, wyoming, voices, ..Setup::default() }).await
}

/// Starts a gateway whose recogniser writes digests of its audio.
async fn digesting() -> (Server, Arc<DigestRecognizer>) {
    let recognizer = Arc::new(DigestRecognizer::new(SEGMENT));
    (served(recognizer.clone(), open()).await, recognizer)
}
