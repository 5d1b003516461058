//! Events that are posted: in order, signed, and again until they are taken, by a later process if need be.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::SinkExt;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use super::Calls;
use crate::cli::{Place, path, signal};
use voxline_fixtures::deadline::within;

const PATIENCE: Duration = Duration::from_secs(60);

/// A request that the receiver got.
struct Post {
    headers: BTreeMap<String, String>,
    event: Value,
    was_taken: bool,
}

/// A receiver that takes requests as long as it has room.
struct Receiver {
    address: SocketAddr,
    /// Number of requests that it still takes.
    room: Arc<AtomicUsize>,
    posts: mpsc::UnboundedReceiver<Post>,
}

impl Receiver {
    fn start(room: usize) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (posted, posts) = mpsc::unbounded_channel();
        let room = Arc::new(AtomicUsize::new(room));
        let left = room.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (left, posted) = (left.clone(), posted.clone());
                std::thread::spawn(move || answer(connection.unwrap(), &left, &posted));
            }
        });
        Receiver { address, room, posts }
    }

    /// Returns the posts up to one that `is_last`.
    async fn until(&mut self, is_last: impl Fn(&Post) -> bool) -> Vec<Post> {
        let mut posts = Vec::new();
        while posts.last().is_none_or(|post| !is_last(post)) {
            posts.push(within(PATIENCE, "a post", self.posts.recv()).await.unwrap());
        }
        posts
    }
}

/// Answers the requests of a connection.
fn answer(mut connection: TcpStream, room: &AtomicUsize, posted: &mpsc::UnboundedSender<Post>) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            head.push(line);
        }
        assert_eq!(head[0], "POST /events HTTP/1.1\r\n");
        let headers: BTreeMap<String, String> = head[1..]
            .iter()
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.trim_end().to_owned()))
            .collect();
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let was_taken =
            room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| room.checked_sub(1)).is_ok();
        let status = if was_taken { "200 OK" } else { "503 Service Unavailable" };
        let _ = connection.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes());
        let event = serde_json::from_slice(&body).expect("an event is JSON");
        let _ = posted.send(Post { headers, event, was_taken });
    }
}

/// A call on which keys are pressed, and nothing is said.
async fn press(door: SocketAddr, call: &str, keys: &str) {
    let stream = tokio::net::TcpStream::connect(door).await.unwrap();
    let (mut socket, _) = client_async(format!("ws://{door}/calls/twilio"), stream).await.unwrap();
    let start = format!(
        r#"{{"event":"start","streamSid":"MZ1","start":{{"streamSid":"MZ1","callSid":"{call}","tracks":["inbound"],
        "mediaFormat":{{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}}}}"#
    );
    socket.send(Message::text(start)).await.unwrap();
    for key in keys.chars() {
        let dtmf = format!(
            r#"{{"event":"dtmf","streamSid":"MZ1","dtmf":{{"track":"inbound_track","digit":"{key}"}}}}"#
        );
        socket.send(Message::text(dtmf)).await.unwrap();
    }
    socket.send(Message::text(r#"{"event":"stop","streamSid":"MZ1"}"#)).await.unwrap();
    socket.close(None).await.unwrap();
}

/// Returns the name of the only file of the events beside that of what is posted.
fn only_event_file(place: &Place) -> String {
    let files = std::fs::read_dir(place.path("events")).unwrap().map(|file| file.unwrap().file_name());
    let names: Vec<String> = files.map(|name| name.into_string().unwrap()).collect();
    let [name] = names.iter().filter(|name| name.ends_with(".jsonl")).collect::<Vec<_>>()[..] else {
        panic!("{names:?}");
    };
    name.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_posted_in_order_until_they_are_taken() {
    let place = Place::new();
    let secret = place.secret("secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    // It takes the start and one key, and is away then.
    let mut receiver = Receiver::start(2);
    let address = format!("http://{}/events", receiver.address);
    let arguments = ["--events", "events", "--webhook", &address, "--webhook-secret-file", path(&secret)];
    let mut calls = Calls::start(&place, &arguments).await;
    press(calls.websocket, "CA1", "123").await;
    let mut posts = receiver.until(|post| !post.was_taken).await;
    let file = place.path("events").join(only_event_file(&place));
    let written = async {
        while !std::fs::read_to_string(&file).unwrap().contains("ended") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(PATIENCE, "the end of the call in its file", written).await;
    calls.child.kill().unwrap();
    calls.child.wait().unwrap();

    receiver.room.store(usize::MAX, Ordering::SeqCst);
    let mut calls = Calls::start(&place, &arguments).await;
    posts.extend(receiver.until(|post| post.was_taken && post.event["event"] == "ended").await);
    signal(&calls.child, "TERM");
    assert!(calls.ends().await.success());

    let mut taken: Vec<&Post> = posts.iter().filter(|post| post.was_taken).collect();
    // A request of the killed process may have been under way: then its event comes twice.
    taken.dedup_by_key(|post| post.headers["webhook-id"].clone());
    let told = |post: &&Post| (post.event["event"].as_str().unwrap().to_owned(), post.event["digit"].clone());
    let kinds: Vec<(String, Value)> = taken.iter().map(told).collect();
    let key = |digit: &str| ("dtmf".to_owned(), Value::from(digit));
    let (started, ended) = (("started".to_owned(), Value::Null), ("ended".to_owned(), Value::Null));
    assert_eq!(kinds, [started, key("1"), key("2"), key("3"), ended]);
    let mut ids: Vec<&str> = taken.iter().map(|post| &*post.headers["webhook-id"]).collect();
    ids.dedup();
    assert_eq!(ids.len(), taken.len(), "each event has an id of its own: {ids:?}");
    for refused in posts.iter().filter(|post| !post.was_taken) {
        let again = taken.iter().find(|post| post.event == refused.event).expect("it is posted again");
        assert_eq!(again.headers["webhook-id"], refused.headers["webhook-id"]);
    }
    assert!(taken.iter().all(|post| post.headers["webhook-signature"].starts_with("v1,")));
    assert!(only_event_file(&place).contains("_CA1_"));
    let files = std::fs::read_dir(place.path("events")).unwrap().count();
    assert_eq!(files, 1, "nothing is left to be posted");
}
