//! Items of a conversation: translation of results and commits to events of the server, without sockets.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::deltas::Agreement;
use super::settings::Generation;
use crate::authority::new_id;
use crate::sessions::live::Partial;
use voxline::audio::FramePos;
use voxline::protocol::Final;

/// Time of the positions of a session, on the clock of the connection, which counts all audio appended.
#[derive(Clone, Copy, Debug)]
pub(super) struct AudioClock {
    /// Time at which the session began, in milliseconds.
    origin: u64,
    sample_rate: u32,
}

impl AudioClock {
    /// Creates the clock of a session that begins after `origin` milliseconds of audio.
    pub(super) fn new(origin: u64, sample_rate: u32) -> AudioClock {
        AudioClock { origin, sample_rate }
    }

    /// Returns the time of a position, in milliseconds.
    pub(super) fn milliseconds(&self, position: FramePos) -> u64 {
        self.origin + position.0 * 1_000 / u64::from(self.sample_rate)
    }

    fn seconds(&self, frames: u64) -> f64 {
        frames as f64 / f64::from(self.sample_rate)
    }
}

/// A piece of the audio, and its transcript so far.
struct Item {
    id: String,
    /// Id of the item that was committed before this one; `None` before the commit, too.
    previous: Option<String>,
    /// Texts of its utterances that are final.
    texts: Vec<String>,
    deltas: Agreement,
    has_delta: bool,
    /// True once the client knows that speech has started.
    speaks: bool,
    /// Seconds of audio, once it is committed.
    seconds: f64,
}

impl Item {
    fn new() -> Item {
        Item {
            id: format!("item_{}", new_id()),
            previous: None,
            texts: Vec::new(),
            deltas: Agreement::default(),
            has_delta: false,
            speaks: false,
            seconds: 0.0,
        }
    }

    /// Takes a hypothesis of the utterance after the final ones.
    fn guess(&mut self, text: &str) -> Option<Value> {
        let words = self.deltas.hypothesis(text)?;
        Some(self.delta(&words))
    }

    /// Takes the final text of an utterance.
    fn hear(&mut self, text: &str) -> Option<Value> {
        let text = text.trim();
        let words = self.deltas.end(text);
        if !text.is_empty() {
            self.texts.push(text.to_owned());
        }
        words.map(|words| self.delta(&words))
    }

    fn delta(&mut self, words: &str) -> Value {
        let space = if std::mem::replace(&mut self.has_delta, true) { " " } else { "" };
        json!({
            "type": "conversation.item.input_audio_transcription.delta",
            "item_id": self.id,
            "content_index": 0,
            "delta": format!("{space}{words}"),
        })
    }

    fn event(&self, kind: &str, transcript: Option<&str>) -> Value {
        json!({
            "type": kind,
            "previous_item_id": self.previous,
            "item": {
                "id": self.id,
                "object": "realtime.item",
                "type": "message",
                "role": "user",
                "status": "completed",
                "content": [{ "type": "input_audio", "transcript": transcript }],
            },
        })
    }
}

/// Audio that the client has committed, and whose text is not final.
enum Pending {
    /// The audio is this item.
    Item(Item),
    /// Utterances are found in it, each of which is an item. What is left up to this position is the last
    /// one.
    Detected(FramePos),
}

/// The items of a connection.
pub(super) struct Items {
    pub(super) generation: Generation,
    clock: AudioClock,
    /// Id of the last committed item.
    previous: Option<String>,
    /// Item whose audio is not committed.
    open: Option<Item>,
    pending: VecDeque<Pending>,
    /// End of the last item, or of the audio that was cleared since.
    boundary: FramePos,
    /// End of the audio that is committed or cleared.
    taken: FramePos,
}

impl Items {
    pub(super) fn new() -> Items {
        Items {
            generation: Generation::Current,
            clock: AudioClock::new(0, 1),
            previous: None,
            open: None,
            pending: VecDeque::new(),
            boundary: FramePos::ZERO,
            taken: FramePos::ZERO,
        }
    }

    /// Begins a session with this clock. The items of the last one are complete.
    pub(super) fn begin(&mut self, clock: AudioClock) {
        self.clock = clock;
        self.open = None;
        (self.boundary, self.taken) = (FramePos::ZERO, FramePos::ZERO);
    }

    /// Returns whether there is committed audio whose text is not final.
    pub(super) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Returns whether there is audio up to `end` that is not committed.
    pub(super) fn has_audio(&self, end: FramePos) -> bool {
        end > self.taken
    }

    /// Takes a partial result. With `detects`, speech that has started is told.
    pub(super) fn partial(&mut self, partial: &Partial, detects: bool) -> Vec<Value> {
        if partial.text.trim().is_empty() {
            return Vec::new();
        }
        let is_detected = match self.pending.front_mut() {
            Some(Pending::Item(item)) => return item.guess(&partial.text).into_iter().collect(),
            Some(Pending::Detected(_)) => true,
            None => detects,
        };
        let mut events = Vec::new();
        let (clock, item) = (self.clock, self.open.get_or_insert_with(Item::new));
        if is_detected {
            events.extend(started(item, clock, partial.range.start));
        }
        events.extend(item.guess(&partial.text));
        events
    }

    /// Takes a final. With `detects`, an utterance is an item of its own; otherwise it belongs to the audio
    /// up to the next commit.
    pub(super) fn heard(&mut self, segment: &Final, ends_flush: bool, detects: bool) -> Vec<Value> {
        let end = match self.pending.front_mut() {
            Some(Pending::Item(item)) => {
                let mut events: Vec<Value> = item.hear(&segment.text).into_iter().collect();
                if ends_flush {
                    events.extend(self.flushed());
                }
                return events;
            }
            Some(Pending::Detected(end)) if ends_flush => *end,
            Some(Pending::Detected(_)) => segment.end,
            None if detects => segment.end,
            None => return self.joined(segment),
        };
        if segment.text.trim().is_empty() && self.open.is_none() {
            return if ends_flush { self.flushed() } else { Vec::new() };
        }
        if ends_flush {
            self.pending.pop_front();
        }
        let mut item = self.open.take().unwrap_or_else(Item::new);
        let start = segment.words.first().map_or(segment.start, |word| word.range.start);
        let mut events: Vec<Value> = started(&mut item, self.clock, start).into_iter().collect();
        let delta = item.hear(&segment.text);
        events.extend(self.committed(&mut item, end));
        events.extend(delta);
        events.extend(self.completed(&item));
        events
    }

    /// Takes a final that belongs to the audio up to the next commit.
    fn joined(&mut self, segment: &Final) -> Vec<Value> {
        if segment.text.trim().is_empty() && self.open.is_none() {
            return Vec::new();
        }
        let delta = self.open.get_or_insert_with(Item::new).hear(&segment.text);
        delta.into_iter().collect()
    }

    /// Takes the end of a flush, with which the audio of the oldest commit is complete.
    pub(super) fn flushed(&mut self) -> Vec<Value> {
        match self.pending.pop_front() {
            None => Vec::new(),
            Some(Pending::Item(item)) => self.completed(&item),
            Some(Pending::Detected(end)) => {
                let mut item = self.open.take().unwrap_or_else(Item::new);
                let mut events = self.committed(&mut item, end);
                events.extend(self.completed(&item));
                events
            }
        }
    }

    /// Commits the audio up to `end`. Its text is complete with the next flush. With `detects`, the
    /// utterances before come first, as items of their own.
    pub(super) fn commit(&mut self, end: FramePos, detects: bool) -> Vec<Value> {
        self.taken = end;
        if detects {
            self.pending.push_back(Pending::Detected(end));
            return Vec::new();
        }
        let mut item = self.open.take().unwrap_or_else(Item::new);
        let events = self.committed(&mut item, end);
        self.pending.push_back(Pending::Item(item));
        events
    }

    /// Discards the audio up to `end` that is not committed.
    pub(super) fn clear(&mut self, end: FramePos) -> Value {
        self.open = None;
        (self.boundary, self.taken) = (end, end);
        json!({ "type": "input_audio_buffer.cleared" })
    }

    /// Returns the failures of all items that the client knows of and waits for.
    pub(super) fn failed(&mut self, kind: &str, code: Option<&str>, message: &str) -> Vec<Value> {
        let pending = self.pending.drain(..).filter_map(|pending| match pending {
            Pending::Item(item) => Some(item),
            Pending::Detected(_) => None,
        });
        let items = pending.chain(self.open.take());
        let failed = items.map(|item| {
            json!({
                "type": "conversation.item.input_audio_transcription.failed",
                "item_id": item.id,
                "content_index": 0,
                "error": { "type": kind, "code": code, "message": message, "param": null },
            })
        });
        failed.collect()
    }

    /// Returns the events of a commit.
    fn committed(&mut self, item: &mut Item, end: FramePos) -> Vec<Value> {
        let mut events = Vec::new();
        if item.speaks {
            let at = self.clock.milliseconds(end);
            let kind = "input_audio_buffer.speech_stopped";
            events.push(json!({ "type": kind, "item_id": item.id, "audio_end_ms": at }));
        }
        item.seconds = self.clock.seconds(end.0.saturating_sub(self.boundary.0));
        self.boundary = self.boundary.max(end);
        self.taken = self.taken.max(end);
        item.previous = self.previous.replace(item.id.clone());
        events.push(json!({
            "type": "input_audio_buffer.committed", "item_id": item.id, "previous_item_id": item.previous,
        }));
        let kind = match self.generation {
            Generation::Beta => "conversation.item.created",
            Generation::Current => "conversation.item.added",
        };
        events.push(item.event(kind, None));
        events
    }

    /// Returns the events of a transcript that is complete.
    fn completed(&self, item: &Item) -> Vec<Value> {
        let transcript = item.texts.join(" ");
        let mut events = vec![json!({
            "type": "conversation.item.input_audio_transcription.completed",
            "item_id": item.id,
            "content_index": 0,
            "transcript": transcript,
            "usage": { "type": "duration", "seconds": item.seconds },
        })];
        if self.generation == Generation::Current {
            events.push(item.event("conversation.item.done", Some(&transcript)));
        }
        events
    }
}

/// Returns the event of speech that has started, once.
fn started(item: &mut Item, clock: AudioClock, at: FramePos) -> Option<Value> {
    if std::mem::replace(&mut item.speaks, true) {
        return None;
    }
    let at = clock.milliseconds(at);
    Some(json!({ "type": "input_audio_buffer.speech_started", "item_id": item.id, "audio_start_ms": at }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(text: &str, start: u64, end: u64) -> Final {
        Final::new(0, FramePos(start).to(FramePos(end)), text)
    }

    fn partial(text: &str, start: u64, end: u64) -> Partial {
        Partial {
            revision: 0,
            range: FramePos(start).to(FramePos(end)),
            text: text.to_owned(),
            confidence: None,
        }
    }

    fn items() -> Items {
        let mut items = Items::new();
        items.begin(AudioClock::new(500, 1_000));
        items
    }

    /// Returns the types of events, without what all transcriptions have in common.
    fn kinds(events: &[Value]) -> Vec<&str> {
        let kind = |event| Value::as_str(event).unwrap().rsplit('.').next().unwrap();
        events.iter().map(|event| kind(&event["type"])).collect()
    }

    #[test]
    fn an_utterance_that_is_detected_is_an_item_of_its_own() {
        let mut items = items();
        let mut events = items.partial(&partial("Good", 200, 600), true);
        events.extend(items.partial(&partial("Good day", 200, 900), true));
        events.extend(items.heard(&segment("Good day.", 100, 1_000), false, true));
        let expected =
            ["speech_started", "delta", "speech_stopped", "committed", "added", "delta", "completed", "done"];
        assert_eq!(kinds(&events), expected);
        let id = events[0]["item_id"].as_str().unwrap();
        assert!(id.starts_with("item_"), "{id}");
        for event in &events {
            assert!(event["item_id"] == id || event["item"]["id"] == id, "{event}");
        }
        assert_eq!((&events[0]["audio_start_ms"], &events[2]["audio_end_ms"]), (&json!(700), &json!(1_500)));
        assert_eq!([&events[1]["delta"], &events[5]["delta"]], ["Good", " day."]);
        assert_eq!((&events[6]["transcript"], &events[6]["content_index"]), (&json!("Good day."), &json!(0)));
        assert_eq!(events[6]["usage"], json!({ "type": "duration", "seconds": 1.0 }));
        assert_eq!(events[4]["item"]["content"][0]["transcript"], Value::Null);
        assert_eq!(events[7]["item"]["content"][0]["transcript"], "Good day.");
        assert_eq!(events[3]["previous_item_id"], Value::Null);
        // Silence is no item. Speech that was not guessed before is one.
        assert!(items.heard(&segment(" ", 1_000, 2_000), false, true).is_empty());
        let next = items.heard(&segment("Bye.", 2_000, 2_500), false, true);
        assert_eq!(kinds(&next)[..3], ["speech_started", "speech_stopped", "committed"]);
        assert_eq!(next[2]["previous_item_id"], id);
        assert_eq!(next[5]["usage"]["seconds"], 1.5);
    }

    #[test]
    fn a_commit_joins_the_utterances_before_it() {
        let mut items = items();
        assert!(!items.has_audio(FramePos(0)));
        assert_eq!(kinds(&items.heard(&segment("One.", 0, 400), false, false)), ["delta"]);
        assert!(items.partial(&partial("two", 400, 600), false).is_empty());
        assert!(items.has_audio(FramePos(1_000)));
        let events = items.commit(FramePos(1_000), false);
        assert_eq!(kinds(&events), ["committed", "added"]);
        assert!(items.is_pending() && !items.has_audio(FramePos(1_000)));
        // The next item is committed before the text of this one is complete.
        items.commit(FramePos(1_500), false);
        let delta = items.partial(&partial("two three", 400, 900), false);
        assert_eq!((&delta[0]["delta"], &delta[0]["item_id"]), (&json!(" two"), &events[0]["item_id"]));
        let done = items.heard(&segment("Two three.", 400, 1_000), true, false);
        assert_eq!(kinds(&done), ["delta", "completed", "done"]);
        assert_eq!(
            (&done[0]["delta"], &done[1]["transcript"]),
            (&json!(" three."), &json!("One. Two three."))
        );
        // Nothing was said in the second one.
        let empty = items.flushed();
        assert_eq!((&empty[0]["transcript"], &empty[0]["usage"]["seconds"]), (&json!(""), &json!(0.5)));
        assert_eq!(empty[1]["previous_item_id"], events[0]["item_id"]);
        assert!(items.flushed().is_empty() && !items.is_pending());
    }

    #[test]
    fn a_commit_ends_the_last_of_the_detected_utterances() {
        let mut items = items();
        assert!(items.commit(FramePos(3_000), true).is_empty() && items.is_pending());
        assert!(!items.has_audio(FramePos(3_000)));
        let all = ["speech_started", "speech_stopped", "committed", "added", "delta", "completed", "done"];
        let first = items.heard(&segment("One.", 0, 1_000), false, true);
        assert_eq!(kinds(&first), all);
        let last = items.heard(&segment("Two.", 1_000, 2_900), true, true);
        assert_eq!(kinds(&last), all);
        assert_eq!((&last[1]["audio_end_ms"], &last[5]["usage"]["seconds"]), (&json!(3_500), &json!(2.0)));
        assert!(!items.is_pending());
        // Without speech, the commit is an item all the same.
        items.commit(FramePos(4_000), true);
        let empty = items.heard(&segment("", 2_900, 4_000), true, true);
        assert_eq!(kinds(&empty), ["committed", "added", "completed", "done"]);
        items.commit(FramePos(4_100), true);
        assert_eq!(kinds(&items.flushed()), ["committed", "added", "completed", "done"]);
    }

    #[test]
    fn the_beta_knows_created_items_only() {
        let mut items = items();
        items.generation = Generation::Beta;
        let mut events = items.commit(FramePos(1_000), false);
        events.extend(items.heard(&segment("One.", 0, 1_000), true, true));
        assert_eq!(kinds(&events), ["committed", "created", "delta", "completed"]);
    }

    #[test]
    fn audio_that_is_cleared_leaves_no_item_and_a_failure_ends_all() {
        let mut items = items();
        items.heard(&segment("One.", 0, 400), false, false);
        assert_eq!(items.clear(FramePos(600))["type"], "input_audio_buffer.cleared");
        assert!(!items.has_audio(FramePos(600)) && items.failed("server_error", None, "x").is_empty());
        items.commit(FramePos(700), false);
        items.heard(&segment("Two.", 600, 700), false, false);
        items.partial(&partial("three", 700, 800), true);
        let failed = items.failed("server_error", None, "the recogniser failed");
        assert_eq!(kinds(&failed), ["failed"]);
        assert_eq!(failed[0]["error"]["message"], "the recogniser failed");
    }
}
