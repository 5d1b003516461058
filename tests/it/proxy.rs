//! The faults of the fault proxy, one by one, over loopback.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use voxline_testing::{Cut, Fault, FaultProxy};

/// Time for which silence is checked.
const SILENCE: Duration = Duration::from_millis(50);
/// Longest wait for any event, which is more than loopback takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that the test plays itself, behind a proxy.
struct Line {
    proxy: FaultProxy,
    listener: TcpListener,
}

impl Line {
    async fn new(faults: impl IntoIterator<Item = Fault, IntoIter: Send + 'static>) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = listener.local_addr().unwrap();
        Line { proxy: FaultProxy::with_faults(upstream, faults).await.unwrap(), listener }
    }

    /// Opens a connection through the proxy. Returns its client end and its server end.
    async fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.proxy.address()).await.unwrap();
        let (server, _) = timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        (client, server)
    }
}

/// Reads the next `count` bytes.
async fn hear(socket: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    timeout(PATIENCE, socket.read_exact(&mut bytes)).await.expect("bytes come").unwrap();
    bytes
}

/// Reads until the end. Returns the bytes, and how the connection ended.
async fn hear_out(socket: &mut TcpStream) -> (Vec<u8>, Result<(), ErrorKind>) {
    let mut bytes = Vec::new();
    let end = timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.expect("an end comes");
    (bytes, end.map(drop).map_err(|error| error.kind()))
}

async fn assert_silent(socket: &mut TcpStream) {
    let heard = timeout(SILENCE, socket.read_u8()).await;
    assert!(heard.is_err(), "{heard:?}");
}

/// Checks that bytes pass both ways.
async fn assert_open(client: &mut TcpStream, server: &mut TcpStream) {
    client.write_all(b"ask").await.unwrap();
    assert_eq!(hear(server, 3).await, b"ask");
    server.write_all(b"answer").await.unwrap();
    assert_eq!(hear(client, 6).await, b"answer");
}

#[tokio::test]
async fn without_a_fault_ends_and_resets_pass_too() {
    let line = Line::new([]).await;
    let (mut client, mut server) = line.connect().await;
    assert_open(&mut client, &mut server).await;
    // One side may end before the other.
    client.shutdown().await.unwrap();
    assert_eq!(hear_out(&mut server).await, (Vec::new(), Ok(())));
    server.write_all(b"late answer").await.unwrap();
    drop(server);
    assert_eq!(hear_out(&mut client).await, (b"late answer".to_vec(), Ok(())));

    let (client, mut server) = line.connect().await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(hear_out(&mut server).await.1, Err(ErrorKind::ConnectionReset));
    assert_eq!((line.proxy.connections(), line.proxy.cuts()), (2, 0));
}

#[tokio::test]
async fn a_cut_lets_what_the_client_said_before_arrive() {
    for (cut, end) in [(Cut::Close, Ok(())), (Cut::Reset, Err(ErrorKind::ConnectionReset))] {
        let line = Line::new([Fault::CutClient { after: 10, cut }]).await;
        let (mut client, mut server) = line.connect().await;
        assert_open(&mut client, &mut server).await;
        client.write_all(b"0123456789").await.unwrap();
        assert_eq!(hear_out(&mut server).await, (b"0123456".to_vec(), end));
        assert_eq!(hear_out(&mut client).await, (Vec::new(), end));
        assert_eq!(line.proxy.cuts(), 1);
        // After a clean close the client may still write, and no peer receives that.
        assert_eq!(client.write_all(b"more").await.is_ok(), cut == Cut::Close);
        // The next connection is left alone.
        let (mut client, mut server) = line.connect().await;
        assert_open(&mut client, &mut server).await;
        assert_eq!((line.proxy.connections(), line.proxy.cuts()), (2, 1));
    }
}

#[tokio::test]
async fn a_cut_lets_what_the_server_said_before_arrive() {
    for (cut, end) in [(Cut::Close, Ok(())), (Cut::Reset, Err(ErrorKind::ConnectionReset))] {
        let line = Line::new([Fault::CutServer { after: 10, cut }]).await;
        let (mut client, mut server) = line.connect().await;
        assert_open(&mut client, &mut server).await;
        server.write_all(b"0123456789").await.unwrap();
        assert_eq!(hear_out(&mut client).await, (b"0123".to_vec(), end));
        assert_eq!(hear_out(&mut server).await, (Vec::new(), end));
        assert_eq!(line.proxy.cuts(), 1);
    }
}

#[tokio::test]
async fn a_cut_after_the_last_byte_needs_no_other() {
    let line = Line::new([Fault::CutClient { after: 3, cut: Cut::Close }]).await;
    let (mut client, mut server) = line.connect().await;
    client.write_all(b"ask").await.unwrap();
    assert_eq!(hear_out(&mut server).await, (b"ask".to_vec(), Ok(())));
    // A connection that ended before the limit is not cut.
    let line = Line::new([Fault::CutClient { after: 4, cut: Cut::Close }]).await;
    let (mut client, mut server) = line.connect().await;
    client.write_all(b"ask").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(hear_out(&mut server).await, (b"ask".to_vec(), Ok(())));
    assert_eq!(line.proxy.cuts(), 0);
}

#[tokio::test]
async fn who_talks_to_a_stalled_connection_is_stopped_at_last() {
    let line = Line::new([Fault::Stall { after: 5 }]).await;
    let (mut client, mut server) = line.connect().await;
    assert_open(&mut client, &mut server).await;
    client.write_all(b"more").await.unwrap();
    assert_eq!(hear(&mut server, 2).await, b"mo");
    server.write_all(b"answer").await.unwrap();
    assert_silent(&mut client).await;
    assert_silent(&mut server).await;
    // The bytes are not read, so that the buffers fill.
    let flood = vec![0; 1 << 26];
    assert!(timeout(SILENCE * 10, client.write_all(&flood)).await.is_err());
    assert_eq!(line.proxy.cuts(), 0);
}

#[tokio::test]
async fn who_talks_to_a_vanished_peer_is_taken_and_not_heard() {
    let line = Line::new([Fault::HalfOpen { after: 5 }]).await;
    let (mut client, mut server) = line.connect().await;
    assert_open(&mut client, &mut server).await;
    client.write_all(b"more").await.unwrap();
    assert_eq!(hear(&mut server, 2).await, b"mo");
    server.write_all(b"answer").await.unwrap();
    let flood = vec![0; 1 << 26];
    timeout(PATIENCE, client.write_all(&flood)).await.expect("all is taken").unwrap();
    assert_silent(&mut client).await;
    // The end does not arrive either.
    drop(client);
    assert_silent(&mut server).await;
}

#[tokio::test]
async fn a_refused_connection_never_reaches_the_server() {
    let line = Line::new([Fault::Refuse]).await;
    let mut refused = TcpStream::connect(line.proxy.address()).await.unwrap();
    assert_eq!(hear_out(&mut refused).await, (Vec::new(), Ok(())));
    // The first connection that arrives is the second that was made.
    let (mut client, mut server) = line.connect().await;
    assert_open(&mut client, &mut server).await;
    assert_eq!((line.proxy.connections(), line.proxy.cuts()), (2, 0));
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "how long it takes is what is asserted")]
async fn a_trickle_passes_a_little_at_a_time() {
    let every = Duration::from_millis(10);
    let line = Line::new([Fault::Trickle { bytes: 4, every }]).await;
    let (mut client, mut server) = line.connect().await;
    let start = Instant::now();
    client.write_all(&[7; 40]).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(hear_out(&mut server).await, (vec![7; 40], Ok(())));
    // Ten pieces, of which the first does not wait.
    assert!(start.elapsed() >= every * 8, "{:?}", start.elapsed());
    server.write_all(&[8; 6]).await.unwrap();
    drop(server);
    assert_eq!(hear_out(&mut client).await, (vec![8; 6], Ok(())));
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "how long it takes is what is asserted")]
async fn a_delay_makes_all_late_and_nothing_slower() {
    let delay = Duration::from_millis(100);
    let line = Line::new(std::iter::repeat(Fault::Delay(delay))).await;
    for _ in 0..2 {
        let (mut client, mut server) = line.connect().await;
        let start = Instant::now();
        assert_open(&mut client, &mut server).await;
        assert!(start.elapsed() >= delay * 2, "{:?}", start.elapsed());
        // Many reads are in flight at once: one after the other they would take minutes.
        let start = Instant::now();
        let flood: Vec<u8> = (0..1 << 24).map(|byte: u32| ((byte * 31) >> 3) as u8).collect();
        let saying = async {
            client.write_all(&flood).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let (heard, ()) = tokio::join!(hear_out(&mut server), saying);
        assert!(heard == (flood, Ok(())), "{} bytes, {:?}", heard.0.len(), heard.1);
        assert!(start.elapsed() >= delay && start.elapsed() < delay * 200, "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_proxy_that_is_dropped_closes_what_it_carried() {
    let line = Line::new([Fault::None, Fault::Stall { after: 0 }]).await;
    let (mut client, _server) = line.connect().await;
    let (mut stalled, _other) = line.connect().await;
    let Line { proxy, listener: _listener } = line;
    drop(proxy);
    assert_eq!(hear_out(&mut client).await, (Vec::new(), Ok(())));
    assert_eq!(hear_out(&mut stalled).await, (Vec::new(), Ok(())));
}
