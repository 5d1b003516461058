//! The server of a schedule: the protocol as docs/protocol.md specifies it, with a recogniser whose texts
//! are digests.

use std::time::Duration;

use bytes::Bytes;

use super::dice::Dice;
use super::plan::{ServerPlan, in_context, sample};
use voxline::audio::{AudioChunk, FramePos, FrameRange, sample::read_s16le};
use voxline::protocol::close;
use voxline::protocol::vosk::Frame;
use voxline::protocol::{ClientMessage, Final, Ready, Secret, ServerMessage, Start};

/// A message from a client.
#[derive(Clone, Debug)]
pub(super) enum Up {
    Message(ClientMessage),
    Audio(AudioChunk),
    /// Messages to a Vosk server.
    Text(String),
    Binary(Bytes),
    Ping,
}

impl From<Frame> for Up {
    fn from(frame: Frame) -> Up {
        match frame {
            Frame::Text(text) => Up::Text(text),
            Frame::Binary(pcm) => Up::Binary(pcm),
        }
    }
}

/// A server that holds one session.
#[derive(Debug)]
pub(super) struct Server {
    /// Index of the server among those to which a session is sent.
    number: usize,
    plan: ServerPlan,
    session: Option<Session>,
    sessions_started: u64,
}

#[derive(Debug)]
struct Session {
    /// Index of the server, and number of the session on that server.
    server: usize,
    number: u64,
    origin: FramePos,
    /// Samples received, with zeros in the gaps.
    samples: Vec<i16>,
    gaps: Vec<FrameRange>,
    final_: FramePos,
    finals: Vec<Final>,
    /// Recogniser context after the last final.
    context: String,
    flush: FramePos,
    finish: Option<FramePos>,
    /// End of the utterance that is being recognised.
    working: Option<FramePos>,
    /// Length of the next utterance, unless a flush, a gap or the end cuts it short.
    utterance: u64,
    /// Connection that has the session, and the state of what was sent on it.
    connection: usize,
    acknowledged: FramePos,
    finals_said: usize,
    partials_said: u64,
    done_said: bool,
}

impl Session {
    fn received(&self) -> FramePos {
        self.origin + self.samples.len() as u64
    }

    /// Moves the final position past gaps that it has reached.
    fn pass_gaps(&mut self) {
        while let Some(gap) = self.gaps.iter().find(|gap| gap.start <= self.final_ && self.final_ < gap.end) {
            self.final_ = gap.end;
        }
    }

    fn done(&self) -> bool {
        self.finish == Some(self.final_)
    }

    fn name(&self) -> String {
        format!("session-{}-{}", self.server, self.number)
    }

    /// Continues the session on another connection.
    fn resume(&mut self, connection: usize, key: &Secret, finals_seen: u64) -> Result<(), String> {
        if key.expose() != self.name() {
            return Err("resume with another session's key".to_owned());
        }
        if finals_seen > self.finals.len() as u64 {
            let said = self.finals.len();
            return Err(format!("resume says finals_seen {finals_seen}, but there are {said}"));
        }
        self.connection = connection;
        self.finals_said = finals_seen as usize;
        self.done_said = false;
        Ok(())
    }

    fn hear_audio(&mut self, chunk: &AudioChunk, acknowledged: FramePos, window: u64) -> Result<(), String> {
        let range = chunk.range();
        if range.start > self.received() {
            return Err(format!("audio {range} leaves a hole after {}", self.received()));
        }
        let truth = (range.start.0..range.end.0).map(|frame| f32::from(sample(frame)) / 32_768.0);
        if !read_s16le(chunk.payload()).eq(truth) {
            return Err(format!("audio {range} has other samples than the source"));
        }
        if range.end <= self.received() {
            return Ok(());
        }
        if self.finish.is_some() {
            return Err(format!("audio {range} came after finish"));
        }
        if range.end - acknowledged > window {
            return Err(format!("audio {range} is over the window from {acknowledged}"));
        }
        self.samples.extend((self.received().0..range.end.0).map(sample));
        Ok(())
    }

    fn hear_gap(&mut self, from: FramePos, to: FramePos) -> Result<(), String> {
        if from > self.received() {
            return Err(format!("gap from {from}, received {}", self.received()));
        }
        if to <= self.received() {
            return Ok(());
        }
        if self.finish.is_some() {
            return Err(format!("gap {from}..{to} came after finish"));
        }
        let gap = self.received().to(to);
        self.samples.resize((to - self.origin) as usize, 0);
        self.gaps.push(gap);
        self.pass_gaps();
        Ok(())
    }
}

/// Answer of the server to the first message of a connection.
pub(super) enum Opening {
    Ready(ServerMessage),
    Close(u16),
}

impl Server {
    pub(super) fn new(number: usize, plan: ServerPlan) -> Server {
        Server { number, plan, session: None, sessions_started: 0 }
    }

    /// Loses the session.
    pub(super) fn forget(&mut self) {
        self.session = None;
    }

    /// Handles `start` or `resume` on a new connection. An error is a breach of the protocol by the client.
    pub(super) fn open(
        &mut self,
        connection: usize,
        up: &Up,
        token_expires_in: Option<Duration>,
        dice: &mut Dice,
    ) -> Result<Opening, String> {
        match up {
            Up::Message(ClientMessage::Start(start)) => self.start(connection, start, dice),
            Up::Message(ClientMessage::Resume { session: name, resume_key, finals_seen }) => {
                let found = self.session.as_mut().filter(|session| session.name() == *name);
                let Some(session) = found else { return Ok(Opening::Close(close::SESSION_UNKNOWN)) };
                session.resume(connection, resume_key, *finals_seen)?;
            }
            up => return Err(format!("the first message is {up:?}")),
        }
        let acknowledged = self.acknowledged();
        let session = self.session.as_mut().expect("opened above");
        session.acknowledged = acknowledged;
        let mut ready = Ready::new(session.final_, 0, self.plan.window)
            .resumable(session.name(), Secret::from(session.name()), Duration::from_secs(60))
            .resumed_at(acknowledged, session.final_, session.finals.len() as u64);
        ready.token_expires_in_ms = token_expires_in.map(|left| left.as_millis() as u64);
        ready.max_audio_bytes = self.plan.max_audio_bytes;
        ready.auth = self.plan.auth;
        ready.max_unfinal_frames = Some(self.plan.longest);
        Ok(Opening::Ready(ServerMessage::Ready(ready)))
    }

    /// Starts a session, in place of one that there may be.
    fn start(&mut self, connection: usize, start: &Start, dice: &mut Dice) {
        self.sessions_started += 1;
        self.session = Some(Session {
            server: self.number,
            number: self.sessions_started,
            origin: start.origin,
            samples: Vec::new(),
            gaps: Vec::new(),
            final_: start.origin,
            finals: Vec::new(),
            context: start.context.clone().unwrap_or_default(),
            flush: start.origin,
            finish: None,
            working: None,
            utterance: dice.between(self.plan.longest / 4, self.plan.longest),
            connection,
            acknowledged: start.origin,
            finals_said: 0,
            partials_said: 0,
            done_said: false,
        });
    }

    /// Returns the position up to which audio is acknowledged to the client.
    fn acknowledged(&self) -> FramePos {
        let session = self.session.as_ref().expect("only asked of a session");
        session.received().min(session.final_ + self.plan.hold)
    }

    /// Returns whether this connection has the session.
    pub(super) fn serves(&self, connection: usize) -> bool {
        self.session.as_ref().is_some_and(|session| session.connection == connection)
    }

    /// Handles a message after the opening. An error is a breach of the protocol by the client.
    pub(super) fn hear(&mut self, up: &Up) -> Result<(), String> {
        let acknowledged = self.acknowledged();
        let session = self.session.as_mut().expect("the connection has it");
        match up {
            Up::Audio(chunk) => {
                if chunk.payload().len() + 8 > self.plan.max_audio_bytes {
                    return Err(format!("audio {} is longer than allowed", chunk.range()));
                }
                session.hear_audio(chunk, acknowledged, self.plan.window)?;
            }
            Up::Message(ClientMessage::Gap { from, to }) => session.hear_gap(*from, *to)?,
            Up::Message(ClientMessage::Flush { at }) => {
                if at.is_none_or(|at| at >= session.received()) {
                    session.flush = session.received();
                }
            }
            Up::Message(ClientMessage::Finish { through }) => {
                if *through != session.received() {
                    return Err(format!("finish through {through}, received {}", session.received()));
                }
                session.finish = Some(*through);
            }
            up => return Err(format!("{up:?} on an open session")),
        }
        Ok(())
    }

    /// Begins the next utterance, if there is one. Returns the session's number and the time that
    /// recognition will take.
    pub(super) fn begin_work(&mut self) -> Option<(u64, Duration)> {
        let session = self.session.as_mut().filter(|session| session.working.is_none())?;
        let mut end = session.final_ + session.utterance;
        let gap = session.gaps.iter().map(|gap| gap.start).find(|start| *start > session.final_);
        for cut in [Some(session.flush), session.finish, gap].into_iter().flatten() {
            if cut > session.final_ {
                end = end.min(cut);
            }
        }
        if end > session.received() || end == session.final_ {
            return None;
        }
        session.working = Some(end);
        let nanos = (end - session.final_) * 1_000_000_000 / self.plan.rate;
        Some((session.number, Duration::from_nanos(nanos)))
    }

    /// Completes the recognition of the current utterance in the session with this number.
    pub(super) fn finish_work(&mut self, number: u64, dice: &mut Dice) {
        let Some(session) = self.session.as_mut().filter(|session| session.number == number) else { return };
        let Some(end) = session.working.take() else { return };
        // Rounding between two sample rates may leave a segment without a frame.
        let ends = match dice.between(0, 99) {
            0..3 => vec![session.final_, end],
            3..6 => vec![end, end],
            _ => vec![end],
        };
        for end in ends {
            let first = (session.final_ - session.origin) as usize;
            let last = (end - session.origin) as usize;
            let text = in_context(&session.context, session.samples[first..last].iter().copied());
            session.context.clone_from(&text);
            let index = session.finals.len() as u64;
            let mut segment = Final::new(index, session.final_.to(end), text.as_str());
            segment.context = Some(text);
            session.finals.push(segment);
            session.final_ = end;
        }
        session.pass_gaps();
        session.partials_said = 0;
        session.utterance = dice.between(self.plan.longest / 4, self.plan.longest).max(1);
    }

    /// Returns the connection that has the session.
    pub(super) fn connection(&self) -> Option<usize> {
        self.session.as_ref().map(|session| session.connection)
    }

    /// Returns the messages that the client lacks: finals, the end, and the acknowledgement if it is `due`.
    pub(super) fn news(&mut self, due: bool, dice: &mut Dice) -> Vec<ServerMessage> {
        let mut news = Vec::new();
        let Some(acknowledged) = self.session.as_ref().map(|_| self.acknowledged()) else { return news };
        let session = self.session.as_mut().expect("asked above");
        let ack = ServerMessage::Ack { received: acknowledged, final_: session.final_ };
        // Now and then an acknowledgement is sent twice, or late so that finals overtake it.
        let acks = due && acknowledged > session.acknowledged || dice.chance(3);
        let late = dice.chance(30);
        if acks {
            session.acknowledged = acknowledged;
        }
        if acks && !late {
            news.push(ack.clone());
        }
        if session.finals_said > 0 && dice.chance(2) {
            news.push(ServerMessage::Final(session.finals[session.finals_said - 1].clone()));
        }
        if session.finals_said < session.finals.len() {
            news.extend(session.finals[session.finals_said..].iter().cloned().map(ServerMessage::Final));
            session.finals_said = session.finals.len();
        }
        if news.is_empty() && session.received() > session.final_ && dice.chance(20) {
            news.push(ServerMessage::Partial {
                segment: session.finals.len() as u64,
                revision: session.partials_said,
                start: session.final_,
                end: session.received(),
                text: "a partial".to_owned(),
            });
            session.partials_said += 1;
        }
        if acks && late {
            news.push(ack);
        }
        if session.done() && !session.done_said {
            session.done_said = true;
            news.push(ServerMessage::Done { frames: session.final_, finals: session.finals.len() as u64 });
        }
        news
    }

    /// Returns whether an acknowledgement is owed to the client.
    pub(super) fn owes_ack(&self) -> bool {
        self.session.as_ref().is_some_and(|session| self.acknowledged() > session.acknowledged)
    }

    /// Returns whether audio is acknowledged at once this time.
    pub(super) fn acks_promptly(&self, dice: &mut Dice) -> bool {
        dice.chance(self.plan.prompt_acks)
    }
}
