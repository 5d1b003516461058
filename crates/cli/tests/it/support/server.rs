//! A gateway on a free loopback port, and a client of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use voxline::auth::{Credentials, OAuthClient, TokenProvider, Vault};
use voxline::clock::{Clock, SystemClock};
use voxline::engine::{Recognizer, Voices};
use voxline::net::{Endpoint, http_client};
use voxline_gateway::authority::{Authority, NewClient, Policy};
use voxline_gateway::{Engines, Gateway, Listener, Options, Tls, serve};

use super::log;

/// A running gateway with one project.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) credentials: Credentials,
    pub(crate) vault: TempDir,
    pub(crate) gateway: Arc<Gateway>,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

/// Settings of a server that tests vary.
pub(crate) struct Setup {
    pub(crate) options: Options,
    pub(crate) token_lifetime: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) voices: Voices,
    pub(crate) policy: Policy,
    /// State directory; in memory if `None`.
    pub(crate) state: Option<PathBuf>,
    pub(crate) tls: Option<Arc<Tls>>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            options: Options::default(),
            token_lifetime: Duration::from_secs(3600),
            clock: Arc::new(SystemClock::new()),
            voices: Voices::default(),
            policy: Policy::default(),
            state: None,
            tls: None,
        }
    }
}

impl Server {
    pub(crate) async fn start(recognizer: Arc<dyn Recognizer>) -> Server {
        Server::with(recognizer, Setup::default()).await
    }

    pub(crate) async fn with(recognizer: Arc<dyn Recognizer>, setup: Setup) -> Server {
        Server::launch(Some(recognizer), setup).await
    }

    pub(crate) async fn without_recognizer() -> Server {
        Server::launch(None, Setup::default()).await
    }

    #[expect(clippy::disallowed_methods, reason = "joined in stop")]
    async fn launch(recognizer: Option<Arc<dyn Recognizer>>, setup: Setup) -> Server {
        log::as_told();
        let authority = match &setup.state {
            Some(directory) => Authority::open(directory, setup.token_lifetime, setup.clock),
            None => Authority::in_memory(setup.token_lifetime, setup.clock),
        };
        let authority = authority.unwrap().with_policy(setup.policy);
        // An earlier gateway may have registered the project already.
        let client = match authority.projects().unwrap().is_empty() {
            true => authority.create_project("test"),
            false => authority.create_client("test"),
        };
        let NewClient { client_id, client_secret } = client.unwrap();
        let engines = Engines { recognizer, voices: setup.voices };
        let gateway = Arc::new(Gateway::new(authority, engines, setup.options));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = match setup.tls {
            Some(tls) => Listener::with_tls(listener, tls),
            None => Listener::from(listener),
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, gateway.clone(), stop.clone()));
        Server {
            address,
            credentials: Credentials { client_id, client_secret },
            vault: tempfile::tempdir().unwrap(),
            gateway,
            stop,
            task,
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        endpoint(self.address)
    }

    /// Creates a client with tokens of its own.
    pub(crate) fn tokens(&self) -> TokenProvider {
        let endpoint = self.endpoint();
        let vault = Vault::new(self.vault.path(), &endpoint, &self.credentials.client_id);
        let clock = Arc::new(SystemClock::new());
        let client = OAuthClient::new(http_client().unwrap(), endpoint, self.credentials.clone(), clock);
        TokenProvider::oauth(client, vault)
    }

    /// Tells the gateway to stop.
    pub(crate) fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Tells the gateway to stop and waits until it has stopped.
    pub(crate) async fn stop(self) {
        self.begin_stop();
        self.task.await.unwrap().unwrap();
    }
}

/// Returns the endpoint at a loopback address.
pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    format!("http://{address}").parse().unwrap()
}
