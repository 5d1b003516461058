//! A model hub on loopback: real HTTP over a real socket, with every way in which a transfer can fail.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A fault of the hub's next response. The responses after it are good again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Closes the connection after this many bytes of the body.
    CutAfter(usize),
    /// Responds 200 with the whole file, whatever range was requested.
    IgnoreRange,
    /// Responds 206 with the range moved by one byte.
    ShiftRange,
    /// Sends one byte more than the file has.
    OneByteTooMany,
    /// Responds 503.
    Unavailable,
}

/// A request that the hub received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Requested path.
    pub(crate) path: String,
    /// First requested byte, or `None` without a range.
    pub(crate) from: Option<usize>,
    /// Number of bytes of the body that were sent.
    pub(crate) sent: usize,
}

/// A model hub. It serves until the test ends.
pub(crate) struct ModelHub {
    /// Address, `http://127.0.0.1:port`.
    pub(crate) address: String,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    files: HashMap<String, Vec<u8>>,
    faults: Vec<Fault>,
    requests: Vec<Request>,
}

impl ModelHub {
    /// Starts a hub that serves `files`, by path.
    pub(crate) fn start(files: &[(&str, &[u8])]) -> ModelHub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let files = files.iter().map(|&(path, bytes)| (path.to_owned(), bytes.to_vec())).collect();
        let shared = Arc::new(Mutex::new(Shared { files, ..Shared::default() }));
        let server = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is part of what is tested.
                let _ = answer(stream, &server);
            }
        });
        ModelHub { address, shared }
    }

    /// Applies a fault to the next response.
    pub(crate) fn fault(&self, fault: Fault) {
        self.shared.lock().unwrap().faults.push(fault);
    }

    /// Returns the requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.lock().unwrap().requests.clone()
    }
}

fn answer(mut stream: TcpStream, shared: &Mutex<Shared>) -> std::io::Result<()> {
    let (path, from) = read_request(&stream)?;
    let mut shared = shared.lock().unwrap();
    let fault = shared.faults.pop();
    let Some(file) = shared.files.get(&path).filter(|_| fault != Some(Fault::Unavailable)) else {
        let status = if fault.is_some() { "503 Service Unavailable" } else { "404 Not Found" };
        shared.requests.push(Request { path, from, sent: 0 });
        return write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    };
    let whole = from.is_none() || fault == Some(Fault::IgnoreRange);
    let start = if whole { 0 } else { from.unwrap_or(0).min(file.len()) };
    let mut body = file[start..].to_vec();
    let mut head = if whole {
        "HTTP/1.1 200 OK\r\n".to_owned()
    } else {
        let shown = start + usize::from(fault == Some(Fault::ShiftRange));
        let (last, size) = (file.len() - 1, file.len());
        format!("HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {shown}-{last}/{size}\r\n")
    };
    if fault == Some(Fault::OneByteTooMany) {
        body.push(0);
    }
    head.push_str(&format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()));
    if let Some(Fault::CutAfter(length)) = fault {
        body.truncate(length);
    }
    shared.requests.push(Request { path, from, sent: body.len() });
    drop(shared);
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}

/// Reads a request. Returns its path and the start of its range.
fn read_request(stream: &TcpStream) -> std::io::Result<(String, Option<usize>)> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut from = None;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().ok();
        }
    }
    Ok((path, from))
}
