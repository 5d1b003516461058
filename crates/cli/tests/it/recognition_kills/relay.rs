//! A relay in front of a gateway process, which kills the gateway right after a final result has passed.
//!
//! The relay reads the frames of the WebSocket by itself, so that the client has all results up to the chosen
//! final and none after it.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use crate::support::serving::Serving;

/// Opcode of a text frame that is a whole message (RFC 6455, 5.2).
const TEXT: u8 = 0x81;

/// Finals after which the gateway is killed, counted from 0 over all of its lives.
#[derive(Clone)]
pub(super) enum Kills {
    Each,
    After(BTreeSet<usize>),
}

/// A relay to a gateway, for one connection after the other.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    kills: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The part of the relay that its thread owns.
struct Gateway {
    start: Box<dyn Fn() -> Serving + Send>,
    running: Serving,
    schedule: Kills,
    /// `true` to take the context out of each final.
    strips_context: bool,
    /// Number of finals that have passed.
    finals: usize,
}

/// Reason for the end of a connection.
#[derive(PartialEq)]
enum End {
    Closed,
    Killed,
}

impl Relay {
    /// Starts a gateway, and a relay to it that starts another one after each kill.
    pub(super) fn start(
        start: impl Fn() -> Serving + Send + 'static,
        schedule: Kills,
        strips_context: bool,
    ) -> Relay {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (kills, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (running, count, is_over) = (start(), Arc::clone(&kills), Arc::clone(&over));
        let mut gateway = Gateway { start: Box::new(start), running, schedule, strips_context, finals: 0 };
        let thread = thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                if gateway.serve(client) == End::Killed {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Relay { address, kills, over, thread: Some(thread) }
    }

    /// Returns the number of kills so far.
    pub(super) fn kills(&self) -> usize {
        self.kills.load(Ordering::SeqCst)
    }
}

/// Ends the relay, and the gateway with it.
impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let woken = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take().filter(|_| woken.is_ok()) {
            let _ = thread.join();
        }
    }
}

impl Gateway {
    /// Carries a connection until it ends, or until the gateway is killed and started anew.
    fn serve(&mut self, client: TcpStream) -> End {
        let server = TcpStream::connect(self.running.address()).expect("the gateway listens");
        let (up, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let sending = thread::spawn(move || carry_up(up, to));
        let end = self.carry_down(&server, &client).unwrap_or(End::Closed);
        if end == End::Killed {
            let killed = std::mem::replace(&mut self.running, (self.start)());
            drop(killed);
        }
        // The client reads all that was sent, which a reset would take from it.
        let _ = (client.shutdown(Shutdown::Write), server.shutdown(Shutdown::Both));
        sending.join().unwrap();
        end
    }

    /// Carries what the gateway says, up to the final after which it is killed.
    fn carry_down(&mut self, mut server: &TcpStream, mut client: &TcpStream) -> io::Result<End> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            server.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        client.write_all(&head)?;
        loop {
            let (opcode, payload) = read_frame(&mut server)?;
            let message: Value = match opcode {
                TEXT => serde_json::from_slice(&payload).expect("a message is JSON"),
                _ => Value::Null,
            };
            if message["type"] != "final" {
                write_frame(&mut client, opcode, &payload)?;
                continue;
            }
            let payload = if self.strips_context { without_context(message) } else { payload };
            write_frame(&mut client, opcode, &payload)?;
            self.finals += 1;
            let is_due = match &self.schedule {
                Kills::Each => true,
                Kills::After(finals) => finals.contains(&(self.finals - 1)),
            };
            if is_due {
                self.running.kill();
                return Ok(End::Killed);
            }
        }
    }
}

/// Returns a final without its context.
fn without_context(mut message: Value) -> Vec<u8> {
    message.as_object_mut().expect("a message is an object").remove("context");
    message.to_string().into_bytes()
}

/// Carries what the client says, until it ends. A gateway that was killed hears nothing.
fn carry_up(mut client: TcpStream, mut server: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        let _ = server.write_all(&buffer[..count]);
    }
    let _ = server.shutdown(Shutdown::Both);
}

/// Reads a frame of a server, which has no mask. Returns its first byte and its payload.
fn read_frame(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            usize::from(u16::from_be_bytes(length))
        }
        127 => panic!("a message of 64 KiB or more"),
        length => usize::from(length),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    Ok((head[0], payload))
}

fn write_frame(stream: &mut impl Write, opcode: u8, payload: &[u8]) -> io::Result<()> {
    let length = u16::try_from(payload.len()).expect("a frame is as long as it was read");
    let mut frame = vec![opcode];
    if length < 126 {
        frame.push(payload.len() as u8);
    } else {
        frame.push(126);
        frame.extend(length.to_be_bytes());
    }
    frame.extend(payload);
    stream.write_all(&frame)
}
