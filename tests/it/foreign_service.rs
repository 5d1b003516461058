//! A session at a service with a protocol of its own, by an adapter that sees the public API alone.
//!
//! The service adds up: a client sends blocks of PCM, each with its length before it, and each block is
//! answered by a line with the sum of its samples. A length of zero ends the audio, and is answered by `end`.
//! The service knows no positions, no tokens and no resume.

use std::collections::VecDeque;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use voxline::audio::{AudioChunk, Feed, FramePos, FrameRange};
use voxline::auth::{AccessToken, TokenProvider};
use voxline::peer::{Acknowledgements, Capabilities, Connect, ConnectionLost, Peer, PeerEvent};
use voxline::protocol::{ClientMessage, Final, Ready, ServerMessage, Violation};
use voxline::recovery::{Failure, FailureKind, Recovery};
use voxline::session::{Session, SessionError, Settings};
use voxline::transcript::TranscriptEvent;

use voxline_fixtures::noise;

const RATE: u32 = 16_000;
/// Length of a block, in frames.
const BLOCK: usize = 1_600;

/// Adds up on one connection. Leaves it after `blocks` blocks, in the middle of the answer to the last one.
async fn serve(mut stream: TcpStream, blocks: usize) -> io::Result<()> {
    for number in 1.. {
        let length = stream.read_u32_le().await? as usize;
        if length == 0 {
            return stream.write_all(b"end\n").await;
        }
        let mut pcm = vec![0; length];
        stream.read_exact(&mut pcm).await?;
        let answer = sum(&pcm).to_string();
        if number == blocks {
            return stream.write_all(answer.as_bytes()).await;
        }
        stream.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

fn sum(pcm: &[u8]) -> i64 {
    pcm.chunks_exact(2).map(|sample| i64::from(i16::from_le_bytes([sample[0], sample[1]]))).sum()
}

struct AdderConnector(SocketAddr);

impl Connect for AdderConnector {
    type Peer = AdderPeer;

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::minimal();
        capabilities.acknowledgements = Acknowledgements::Replies;
        capabilities
    }

    async fn connect(&self, _: &AccessToken, _: Option<&str>) -> Result<AdderPeer, Failure> {
        let stream = TcpStream::connect(self.0).await.map_err(|error| {
            let reason = format!("cannot reach {}", self.0);
            Failure::new(Recovery::Retry, FailureKind::Unreachable, reason).caused_by(error)
        })?;
        Ok(AdderPeer {
            stream,
            outgoing: BytesMut::new(),
            incoming: BytesMut::new(),
            blocks: VecDeque::new(),
            events: VecDeque::new(),
            finals: 0,
            end: FramePos::ZERO,
        })
    }
}

struct AdderPeer {
    stream: TcpStream,
    outgoing: BytesMut,
    incoming: BytesMut,
    /// Blocks that the service has not answered.
    blocks: VecDeque<FrameRange>,
    /// Events that the session has not taken.
    events: VecDeque<PeerEvent>,
    finals: u64,
    /// End of the audio that the service has answered.
    end: FramePos,
}

impl AdderPeer {
    fn answer(&mut self, line: &str) {
        let message = |message| PeerEvent::Message(message);
        if line == "end" {
            let done = ServerMessage::Done { frames: self.end, finals: self.finals };
            self.events.push_back(message(done));
        } else if let Some(range) = self.blocks.pop_front() {
            let (received, final_) = (range.end, self.end);
            self.events.push_back(message(ServerMessage::Ack { received, final_ }));
            self.events.push_back(message(ServerMessage::Final(Final::new(self.finals, range, line))));
            (self.finals, self.end) = (self.finals + 1, range.end);
        } else {
            self.events.push_back(PeerEvent::Violation(Violation::UnexpectedReply));
        }
    }

    /// Writes what is queued, and waits for the next line.
    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<String>> {
        while !self.outgoing.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.outgoing)? {
                Poll::Ready(written) => self.outgoing.advance(written),
                Poll::Pending => break,
            }
        }
        loop {
            if let Some(length) = self.incoming.iter().position(|byte| *byte == b'\n') {
                let line = self.incoming.split_to(length + 1);
                return Poll::Ready(Ok(String::from_utf8_lossy(&line[..length]).into_owned()));
            }
            let mut piece = [0; 256];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
            if piece.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.incoming.put_slice(piece.filled());
        }
    }
}

impl Peer for AdderPeer {
    fn send(&mut self, message: ClientMessage) {
        match message {
            ClientMessage::Start(start) => {
                self.end = start.origin;
                let ready = Ready::new(start.origin, BLOCK, 4 * BLOCK as u64);
                self.events.push_back(PeerEvent::Message(ServerMessage::Ready(ready)));
            }
            ClientMessage::Finish { .. } => self.outgoing.put_u32_le(0),
            _ => {}
        }
    }

    fn send_audio(&mut self, chunk: AudioChunk) {
        self.outgoing.put_u32_le(chunk.payload().len() as u32);
        self.outgoing.put_slice(chunk.payload());
        self.blocks.push_back(chunk.range());
    }

    fn ping(&mut self) {}

    fn queued(&self) -> usize {
        usize::from(!self.outgoing.is_empty())
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(event);
            }
            match ready!(self.poll_line(cx)) {
                Ok(line) => self.answer(&line),
                Err(error) => return Poll::Ready(PeerEvent::Lost(ConnectionLost::Failed(error.into()))),
            }
        }
    }

    async fn close(mut self, _: u16) {
        if self.stream.write_all(&self.outgoing).await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
    }
}

/// The first two connections break, each within an answer. Every sample is added up once all the same.
#[tokio::test]
async fn a_session_adds_up_at_a_service_that_voxline_does_not_know() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connector = AdderConnector(listener.local_addr().unwrap());
    let tokens = TokenProvider::service(&"none".to_owned().into()).unwrap();
    let pcm = noise(20_011);
    let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let whole = FramePos::ZERO.to(FramePos(pcm.len() as u64));
    let (feed, audio) = mpsc::channel(2);
    feed.send(Feed::Audio(AudioChunk::new(whole, bytes.clone().into()))).await.unwrap();
    feed.send(Feed::End).await.unwrap();
    let (events, mut told) = mpsc::channel(64);
    let running = Session::new(&connector, &tokens, Settings::new(RATE).with_seed(1)).run(audio, events);
    let serving = async {
        for blocks in [3, 5, usize::MAX] {
            let (stream, _) = listener.accept().await.unwrap();
            // The client leaves the connections that break.
            let _ = serve(stream, blocks).await;
        }
    };
    let both = async { tokio::join!(running, serving).0 };
    let ended = timeout(Duration::from_secs(30), both).await.expect("the session ends");
    let ledger = ended.into_result().unwrap();
    assert_eq!((ledger.accepted, ledger.recognised, ledger.reconnects), (20_011, 20_011, 2), "{ledger}");
    let mut end = FramePos::ZERO;
    while let Some(event) = told.recv().await {
        let TranscriptEvent::Final(segment) = event else { continue };
        assert_eq!(segment.range.start, end);
        end = segment.range.end;
        let samples = &bytes[2 * segment.range.start.0 as usize..2 * end.0 as usize];
        assert_eq!(segment.text, sum(samples).to_string(), "{}", segment.range);
    }
    assert_eq!(end, whole.end);
}

/// A caller sees why the service was given up, by type.
#[tokio::test]
async fn the_error_of_a_session_has_the_error_of_its_adapter_behind_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connector = AdderConnector(listener.local_addr().unwrap());
    drop(listener);
    let tokens = TokenProvider::service(&"none".to_owned().into()).unwrap();
    let mut settings = Settings::new(RATE).with_seed(1);
    settings.timeouts.first_contact = Duration::ZERO;
    let ((_feed, audio), (events, _)) = (mpsc::channel(1), mpsc::channel(1));
    let ended = Session::new(&connector, &tokens, settings).run(audio, events).await;
    let error = ended.result.unwrap_err();
    assert!(matches!(&error, SessionError::Unreachable { .. }), "{error:?}");
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::ConnectionRefused), "{error:?}");
}
