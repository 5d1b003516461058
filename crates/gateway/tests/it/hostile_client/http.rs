//! Malformed requests, many on a connection.

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::answer::{Answer, End, Reader};
use super::mutation::{damage, extreme, renumber};
use super::request::{Request, form};
use super::{PATIENCE, Tally, World};
use voxline_fixtures::random::Random;

/// Numbers of headers and of bytes in a header, above the gateway's limits.
const TOO_MANY: usize = 300;
const TOO_LONG: usize = 100 * 1024;

/// Sends the requests generated from `seed` on one connection, all at once, and reads the answers until the
/// connection ends. The answered requests, all of them mutated, are the inputs in the tally.
pub(super) async fn converse(
    world: &World,
    seed: u64,
    request: fn(&World, &mut Random) -> Request,
) -> Result<Tally, String> {
    let mut dice = Random::seeded(seed);
    let mut requests: Vec<Request> = (0..1 + dice.below(24)).map(|_| request(world, &mut dice)).collect();
    for request in &mut requests {
        for _ in 0..1 + dice.below(8) / 6 {
            mutate(request, &mut dice);
        }
    }
    let mut sent: Vec<u8> = requests.iter().flat_map(|request| request.encode(&mut dice)).collect();
    // A request with wrong framing can only be the last one.
    let (last, is_whole) = match dice.below(2) {
        0 => wild(request(world, &mut dice), &mut dice),
        _ => (Vec::new(), false),
    };
    let is_wild = !last.is_empty();
    sent.extend(last);
    let expected = requests.len() + usize::from(is_whole);

    let stream = TcpStream::connect(world.server.address).await.map_err(|error| error.to_string())?;
    let (reader, mut writer) = stream.into_split();
    let answered = Notify::new();
    let writing = async {
        // A refusal may come before all requests are sent.
        let _ = writer.write_all(&sent).await;
        // A client that closes its side gets no answer, so it waits for the answers first.
        answered.notified().await;
        let _ = writer.shutdown().await;
    };
    let reading = async {
        let answers = answers(Reader::new(reader), &requests, expected, &answered).await;
        answered.notify_one();
        answers
    };
    let (answers, ()) = timeout(PATIENCE, async { tokio::join!(reading, writing) })
        .await
        .map_err(|_| format!("the connection did not end within {PATIENCE:?}"))?;
    let (answers, was_reset) = answers?;
    if answers.is_empty() && !was_reset {
        return Err("no answer at all".to_owned());
    }
    if answers.len() > requests.len() && !is_wild {
        return Err(format!("{} answers to {} requests", answers.len(), requests.len()));
    }
    let mut tally = Tally { inputs: answers.len() as u64, ..Tally::default() };
    for answer in &answers {
        answer.check_status()?;
        tally.note(format!("status {}", answer.status));
    }
    if was_reset {
        tally.note("reset".to_owned());
    }
    Ok(tally)
}

/// Returns all answers, and whether the connection was reset after them.
async fn answers(
    mut reader: Reader<impl tokio::io::AsyncRead + Unpin>,
    requests: &[Request],
    expected: usize,
    answered: &Notify,
) -> Result<(Vec<Answer>, bool), String> {
    let mut answers = Vec::new();
    loop {
        let to_head = requests.get(answers.len()).is_some_and(Request::is_head);
        match reader.answer(to_head).await {
            Ok(answer) if answer.status == 101 => {
                answers.push(answer);
                // The bytes that follow are WebSocket frames, which the other module of attacks covers.
                answered.notify_one();
                let rest = reader.rest().await;
                return Ok((answers, matches!(rest, Err(End::Reset))));
            }
            Ok(answer) => {
                answers.push(answer);
                if answers.len() == expected {
                    answered.notify_one();
                }
            }
            Err(End::Closed) => return Ok((answers, false)),
            Err(End::Reset) => return Ok((answers, true)),
            // The client closed its side after the expected answers: the gateway stops wherever it is.
            Err(End::Cut) if answers.len() >= expected => return Ok((answers, false)),
            Err(End::Cut) => return Err(format!("cut in the answer after {}", answers.len())),
            Err(End::Malformed(what)) => return Err(format!("after {} answers: {what}", answers.len())),
        }
    }
}

impl World {
    /// Returns a well-formed request. Most are answered with a success, if no limit is reached.
    pub(super) fn request(&self, dice: &mut Random) -> Request {
        let token = &self.tokens[0];
        let get = |target: &str| Request::new("GET", target);
        let post = |target: &str| Request::new("POST", target);
        let credentials = &self.spare;
        let (id, secret) = (&credentials.client_id, credentials.client_secret.expose_secret());
        match dice.below(28) {
            0 => {
                let paths = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/", "/console/app.js"];
                get(paths[dice.below(paths.len())])
            }
            1 => get(["/console/status", "/console/voices"][dice.below(2)]).under(token),
            2 | 3 => {
                let wanted =
                    json!({ "client_id": id, "client_secret": secret, "grant_type": "client_credentials" });
                post("/auth/oauth/v1/token").with("Content-Type", "application/json").body(wanted.to_string())
            }
            4 => {
                let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
                post("/auth/oauth/v1/token")
                    .with("Content-Type", "application/x-www-form-urlencoded")
                    .body(form)
            }
            5 => {
                let wanted =
                    json!({ "client_id": id, "refresh_token": "vxr_none", "grant_type": "refresh_token" });
                post("/auth/oauth/v1/token").with("Content-Type", "application/json").body(wanted.to_string())
            }
            6 => {
                let revoked = json!({ "client_id": id, "token": "vxa_none" });
                post("/auth/oauth/v1/revoke")
                    .with("Content-Type", "application/json")
                    .body(revoked.to_string())
            }
            7..=11 => {
                let recording = &self.recordings[dice.below(self.recordings.len())];
                post(["/asr", "/asr_demo", "/asr?language=en"][dice.below(3)])
                    .under(token)
                    .with("Content-Type", "audio/x-wav")
                    .body(recording.as_slice())
            }
            12 => post("/asr_stream/create_task").under(token),
            13..=15 => {
                let (id, token) = self.task();
                let number = dice.below(3);
                post(&format!(
                    "/asr_stream/add_chunk?task_id={id}&chunk_num={number}&last={}",
                    dice.below(20) / 19
                ))
                .under(&token)
                .with("Content-Type", "audio/x-wav")
                .body(self.recordings[0].as_slice())
            }
            16 => {
                let (id, token) = self.task();
                get(&format!("/asr_stream/get_result?task_id={id}")).under(&token)
            }
            17 | 18 => {
                let encoder = ["pcm", "mp3", "opus"][dice.below(3)];
                get(&format!(
                    "/tts?text=A+word.+{}&model_name=tone&encoder={encoder}&tempo=1.5",
                    dice.below(99)
                ))
                .under(token)
            }
            19 | 20 => post("/tts?model_name=pavel&encoder=pcm&tempo=0.75")
                .under(token)
                .body("Один, два. [three] <4>"),
            21 => post("/tts_demo?encoder=opus").body("A word."),
            22..=24 => {
                let recording = &self.recordings[dice.below(self.recordings.len())];
                let formats = ["json", "srt", "verbose_json", "diarized_json"];
                post("/v1/audio/transcriptions")
                    .under(token)
                    .with("Content-Type", "multipart/form-data; boundary=x")
                    .body(form(formats[dice.below(4)], ["true", "false"][dice.below(2)], recording))
            }
            25 => {
                let format = ["mp3", "opus", "flac", "wav", "pcm"][dice.below(5)];
                let body =
                    json!({ "input": "A word.", "voice": "nova", "speed": 1.5, "response_format": format });
                post("/v1/audio/speech").under(token).body(body.to_string())
            }
            26 => get(["/v1/models", "/v1/models/whisper-1"][dice.below(2)]).under(token),
            _ => get("/asr_stream/ws")
                .under(token)
                .with("Connection", "Upgrade")
                .with("Upgrade", "websocket")
                .with("Sec-WebSocket-Version", "13")
                .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
                .with("Sec-WebSocket-Protocol", "voxline.asr.v1"),
        }
    }
}

/// Makes one thing about the request wrong, but not its framing.
fn mutate(request: &mut Request, dice: &mut Random) {
    const METHODS: [&str; 12] =
        ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "CONNECT", "X", "PRI"];
    const PATHS: [&str; 8] = [
        "*",
        "//",
        "/asr/../healthz",
        "/asr/",
        "/%00",
        "/%",
        "http://other/asr",
        "/console/../../etc/passwd",
    ];
    let has_headers = !request.headers.is_empty();
    match dice.below(16) {
        0 => request.method = METHODS[dice.below(METHODS.len())].into(),
        1 => request.method = vec![b'M'; 1 + dice.below(300)],
        2 => request.target = PATHS[dice.below(PATHS.len())].into(),
        3 => damage_word(&mut request.target, dice),
        4 => renumber_word(&mut request.target, dice),
        5 => {
            let name =
                ["text", "tempo", "encoder", "task_id", "chunk_num", "last", "language"][dice.below(7)];
            request.target.extend(if request.target.contains(&b'?') { b"&" } else { b"?" });
            request.target.extend(format!("{name}={}", extreme(dice)).bytes());
        }
        6 => {
            request.target.extend(if request.target.contains(&b'?') { b"&" } else { b"?" });
            // Mostly short, because a long text takes long to speak.
            let longest = if dice.below(8) == 0 { 9_000 } else { 30 };
            let length = dice.below(longest);
            request.target.extend(b"text=".iter().chain(b"%D0%B6".repeat(length).iter()));
        }
        7 if has_headers => {
            let which = dice.below(request.headers.len());
            damage_word(&mut request.headers[which].1, dice);
        }
        8 if has_headers => {
            let which = dice.below(request.headers.len());
            let again = request.headers[which].clone();
            request.headers.push(again);
        }
        9 if has_headers => drop(request.headers.remove(dice.below(request.headers.len()))),
        10 => strange_header(request, dice),
        11 | 12 if request.body.is_some() => request.chunked = true,
        _ => match &mut request.body {
            Some(body) if dice.below(8) == 0 => renumber(body, dice),
            // Damage the first bytes, which hold most of what can be wrong.
            Some(body) if dice.below(2) == 0 => {
                let mut rest = body.split_off(body.len().min(64));
                damage(body, dice);
                body.append(&mut rest);
            }
            Some(body) => damage(body, dice),
            None => request.body = Some((0..dice.below(100)).map(|_| dice.next() as u8).collect()),
        },
    }
}

fn strange_header(request: &mut Request, dice: &mut Random) {
    const HEADERS: [(&str, &str); 14] = [
        ("Authorization", "Bearer"),
        ("Authorization", "Bearer \u{ff}\u{e9}"),
        ("Authorization", "Basic dXNlcjpwYXNz"),
        ("Expect", "100-continue"),
        ("Expect", "a miracle"),
        ("Origin", "null"),
        ("Origin", "http://[::1"),
        ("Host", "\u{ff}"),
        ("X-Request-Id", "a\tb"),
        ("Content-Type", "multipart/form-data"),
        ("Content-Encoding", "gzip"),
        ("Upgrade", "h2c"),
        ("Range", "bytes=0-18446744073709551615"),
        ("Accept-Encoding", "gzip;q=1e999"),
    ];
    let (name, value) = HEADERS[dice.below(HEADERS.len())];
    match dice.below(8) {
        0 => request.headers.push((b"Authorization".to_vec(), vec![b'x'; dice.below(TOO_LONG)])),
        1 => request.headers.extend(vec![(b"X".to_vec(), b"y".to_vec()); dice.below(TOO_MANY)]),
        2 => request.headers.push((b"Connection".to_vec(), b"close".to_vec())),
        3 => request.version = "HTTP/1.0",
        // Replaces the headers of that name.
        4 => {
            request.headers.retain(|(other, _)| other != name.as_bytes());
            request.headers.push((name.into(), value.into()));
        }
        _ => request.headers.push((name.into(), value.into())),
    }
}

/// Damages a word without moving the end of its line: [`wild`] is for that.
fn damage_word(word: &mut Vec<u8>, dice: &mut Random) {
    damage(word, dice);
    word.retain(|byte| !matches!(byte, b'\r' | b'\n' | b' '));
}

fn renumber_word(word: &mut Vec<u8>, dice: &mut Random) {
    renumber(word, dice);
    word.retain(|byte| !matches!(byte, b'\r' | b'\n' | b' '));
}

/// Returns a request after which the start of the next one is unknown, and whether it has enough bytes to
/// be answered.
fn wild(mut request: Request, dice: &mut Random) -> (Vec<u8>, bool) {
    const LENGTHS: [&str; 12] = [
        "-1",
        "+5",
        "0x10",
        "5, 5",
        "5, 6",
        "1e3",
        "",
        " ",
        "21000000",
        "18446744073709551615",
        "18446744073709551616",
        "9999999999999999999999",
    ];
    const CODINGS: [&str; 6] =
        ["chunked, chunked", "gzip", "gzip, chunked", "identity", "chunked;q=1", "xchunked"];
    const SIZES: [&str; 10] = [
        "-1",
        "ffffffffffffffff",
        "10000000000000000",
        "7fffffffffffffff",
        "0x5",
        "5 5",
        "",
        "g",
        "fffffff",
        "5;a=\"\r\n",
    ];
    const STRANGERS: [&[u8]; 5] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /healthz\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n\0",
    ];
    let body = request.body.clone().unwrap_or_default();
    let framed = |request: &Request, framing: &[(&str, &str)]| {
        let framing: Vec<(Vec<u8>, Vec<u8>)> =
            framing.iter().map(|(name, value)| (Vec::from(*name), Vec::from(*value))).collect();
        request.head(&framing)
    };
    let length = body.len().to_string();
    let kind = dice.below(12);
    let bytes = match kind {
        0 => {
            let claimed = LENGTHS[dice.below(LENGTHS.len())];
            [framed(&request, &[("Content-Length", claimed)]), body.clone()].concat()
        }
        1 => {
            let claimed = (body.len() + 1 + dice.below(100)).to_string();
            [framed(&request, &[("Content-Length", &claimed)]), body.clone()].concat()
        }
        2 => {
            let claimed = dice.below(body.len() + 1).to_string();
            [framed(&request, &[("Content-Length", &claimed)]), body.clone()].concat()
        }
        3 => {
            let both = [("Content-Length", length.as_str()), ("Transfer-Encoding", "chunked")];
            [framed(&request, &both), body.clone()].concat()
        }
        4 => {
            let twice = [("Content-Length", length.as_str()), ("Content-Length", extreme(dice))];
            [framed(&request, &twice), body.clone()].concat()
        }
        5 => {
            let coding = CODINGS[dice.below(CODINGS.len())];
            [framed(&request, &[("Transfer-Encoding", coding)]), body.clone()].concat()
        }
        6 => {
            let size = SIZES[dice.below(SIZES.len())];
            let start = framed(&request, &[("Transfer-Encoding", "chunked")]);
            [start, size.into(), b"\r\n".to_vec(), body.clone(), b"\r\n0\r\n\r\n".to_vec()].concat()
        }
        7 => {
            // A chunk extension and trailers that are longer than allowed.
            let start = framed(&request, &[("Transfer-Encoding", "chunked")]);
            [
                start,
                b"5;".to_vec(),
                vec![b'x'; 40_000],
                b"\r\nhello\r\n0\r\n".to_vec(),
                b"T: x\r\n".repeat(2_000),
            ]
            .concat()
        }
        8 => {
            request.headers.push((b"A\r\n b".to_vec(), b"c\r\nd: e\ne".to_vec()));
            request.encode(dice)
        }
        9 => STRANGERS[dice.below(STRANGERS.len())].to_vec(),
        10 => {
            let mut bytes = request.encode(dice);
            bytes.truncate(dice.below(bytes.len()));
            bytes
        }
        _ => {
            let mut bytes = request.encode(dice);
            damage(&mut bytes, dice);
            bytes
        }
    };
    (bytes, matches!(kind, 2 | 4 | 5 | 7 | 8) || kind == 3 && !body.is_empty())
}

/// Sends one correct request. Returns the JSON of its success.
pub(super) async fn ask(world: &World, request: Request) -> Result<Value, String> {
    let stream = TcpStream::connect(world.server.address).await.map_err(|error| error.to_string())?;
    let (reader, mut writer) = stream.into_split();
    let bytes = request.with("Connection", "close").encode(&mut Random::seeded(0));
    writer.write_all(&bytes).await.map_err(|error| error.to_string())?;
    let answer = timeout(PATIENCE, Reader::new(reader).answer(false)).await;
    let answer = answer.map_err(|_| "no answer".to_owned())?.map_err(|end| format!("{end:?}"))?;
    match answer.status {
        200 => serde_json::from_slice(&answer.body).map_err(|error| error.to_string()),
        status => Err(format!("status {status}: {}", String::from_utf8_lossy(&answer.body))),
    }
}
