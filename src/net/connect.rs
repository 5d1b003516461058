//! Connections to services, encrypted or on loopback.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::sleep;

use super::{ConnectError, Endpoint, InProcess, Stream, Trust};

/// Time that the connection to an address gets before the next address is tried as well: the recommendation
/// of RFC 8305, section 5.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The way to a service.
#[derive(Clone)]
pub(crate) enum Way {
    /// By TCP to the host of its endpoint, where its certificate is checked against these roots.
    Network(Trust),
    /// Within the process, whatever host its endpoint names.
    InProcess(InProcess),
}

/// Connects to the service at `endpoint`. The caller limits the time, usually to
/// [`CONNECT_TIMEOUT`](super::CONNECT_TIMEOUT).
pub(crate) async fn connect(endpoint: &Endpoint, way: &Way) -> Result<Box<dyn Stream>, ConnectError> {
    let trust = match way {
        Way::Network(trust) => trust,
        Way::InProcess(service) => return Ok(Box::new(service.connect().await?)),
    };
    let tcp = dial(lookup_host((endpoint.host(), endpoint.port())).await?.collect()).await?;
    // Audio is sent as soon as it is ready, in frames that are already as large as they will get.
    tcp.set_nodelay(true)?;
    if endpoint.is_tls() { Ok(trust.encrypt(endpoint.host(), tcp).await?) } else { Ok(Box::new(tcp)) }
}

/// Connects to the first of these addresses that answers. An address that is silent, as of a network without
/// a route for IPv6, delays the others by [`ATTEMPT_DELAY`] only ("happy eyeballs", RFC 8305).
async fn dial(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut addresses = alternating(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut refusal = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    loop {
        attempts.extend(addresses.next().map(TcpStream::connect));
        tokio::select! {
            attempt = attempts.next() => match attempt {
                Some(Ok(tcp)) => return Ok(tcp),
                Some(Err(error)) => refusal = error,
                None => return Err(refusal),
            },
            () = sleep(ATTEMPT_DELAY), if addresses.len() > 0 => {}
        }
    }
}

/// Returns the addresses in an order that alternates between the families, beginning with that of the first.
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_family = addresses.first().map(SocketAddr::is_ipv6);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for address in addresses {
        if Some(address.is_ipv6()) == first_family {
            first.push(address);
        } else {
            second.push(address);
        }
    }
    let mut second = second.into_iter();
    let mut all: Vec<SocketAddr> =
        first.into_iter().flat_map(|address| [Some(address), second.next()]).flatten().collect();
    all.extend(second);
    all
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn families_take_turns() {
        let addresses =
            |texts: &[&str]| -> Vec<SocketAddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let given = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1"]);
        assert_eq!(alternating(given), addresses(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"]));
        let given = addresses(&["10.0.0.1:1", "[::1]:1", "[::2]:1"]);
        assert_eq!(alternating(given), addresses(&["10.0.0.1:1", "[::1]:1", "[::2]:1"]));
    }

    /// An address that never answers: its listener's queue is full, and the kernel drops further handshakes.
    #[tokio::test]
    async fn a_silent_address_does_not_hide_another() {
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = silent.listen(1).unwrap();
        let address = silent.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(connected) = tokio::time::timeout(ATTEMPT_DELAY, TcpStream::connect(address)).await {
            queued.push(connected.unwrap());
        }
        let answering = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = answering.local_addr().unwrap();
        let connected = dial(vec![address, there]).await.unwrap();
        assert_eq!(connected.peer_addr().unwrap(), there);
        drop(queued);
    }

    #[tokio::test]
    async fn the_last_refusal_is_returned() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let refused = dial(vec![gone]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(dial(Vec::new()).await.unwrap_err().to_string(), "the host has no address");
    }
}
