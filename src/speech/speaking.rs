//! The parts of a text in order: one is heard, and the next is under way.

use std::iter;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::part::{PIECES, Part, Piece};
use super::request::Service;
use super::script::Script;
use super::{Codec, SpeechError, SpeechHandle, SpeechOptions};

/// How long a text that is being written pauses before a sentence that looks whole counts as whole: longer than a language
/// model takes for a word.
const PAUSE: Duration = Duration::from_millis(300);

/// How much of a text is taken at once: what is at hand is looked through for each part, and a book may come in one piece.
const SLICE: usize = 4_096;

/// A text on its way to be heard. Dropped, or cancelled by its handle, it drops its requests.
///
/// At most two parts are asked for and not heard: the one that is being heard, and the one behind it, which is asked for
/// when the first audio of the other has come. So a listener who stops pays for no more, and what is in memory is bounded.
pub(super) struct Speaking {
    service: Arc<Service>,
    options: Arc<SpeechOptions>,
    codec: Option<Codec>,
    /// The text that is still to come.
    text: Option<BoxStream<'static, String>>,
    script: Script,
    /// Until the text has paused.
    pause: Option<Pin<Box<Sleep>>>,
    heard: Option<Incoming>,
    next: Option<Incoming>,
    requests: JoinSet<Option<()>>,
    handle: SpeechHandle,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
}

/// A part that was asked for.
struct Incoming {
    pieces: mpsc::Receiver<Result<Piece, SpeechError>>,
    /// Audio of it has come.
    begun: bool,
}

impl Speaking {
    pub(super) fn new(
        service: Arc<Service>,
        script: Script,
        text: impl Stream<Item = String> + Send + 'static,
        codec: Option<Codec>,
        options: SpeechOptions,
    ) -> Speaking {
        let handle = SpeechHandle::default();
        Speaking {
            service,
            options: Arc::new(options),
            codec,
            text: Some(text.flat_map(|text| stream::iter(slices(text))).boxed()),
            script,
            pause: None,
            heard: None,
            next: None,
            requests: JoinSet::new(),
            cancelled: Box::pin(handle.cancelled().clone().cancelled_owned()),
            handle,
            ended: false,
        }
    }

    pub(super) fn handle(&self) -> &SpeechHandle {
        &self.handle
    }

    /// The next audio; `None` at the end. After an error nothing follows.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, SpeechError>>> {
        if !self.ended && self.cancelled.as_mut().poll(cx).is_ready() {
            self.end();
        }
        // Those that have ended are forgotten.
        while let Poll::Ready(Some(_)) = self.requests.poll_join_next(cx) {}
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            self.look_ahead(cx);
            let Some(heard) = &mut self.heard else {
                if self.text.is_some() {
                    return Poll::Pending;
                }
                self.end();
                continue;
            };
            match heard.pieces.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(Piece::Audio(audio)))) => {
                    if !std::mem::replace(&mut heard.begun, true) {
                        self.look_ahead(cx);
                    }
                    return Poll::Ready(Some(Ok(audio)));
                }
                Poll::Ready(Some(Ok(Piece::End))) => self.heard = self.next.take(),
                Poll::Ready(Some(Err(error))) => {
                    self.end();
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => {
                    self.end();
                    return Poll::Ready(Some(Err(self.service.lost("the request died"))));
                }
            }
        }
    }

    /// Asks for what there is a place for, as far as the text has come.
    fn look_ahead(&mut self, cx: &mut Context<'_>) {
        while self.next.is_none() && self.heard.as_ref().is_none_or(|heard| heard.begun) {
            let waits = self.heard.is_none();
            // What is at hand is cut as the whole that it is.
            while !self.script.is_full() && self.read_on(cx) {}
            if let Some(part) = self.script.next(waits) {
                let incoming = self.ask(part);
                *(if waits { &mut self.heard } else { &mut self.next }) = Some(incoming);
            } else if !self.read_on(cx) {
                return;
            }
        }
    }

    /// Takes more of the text. False where there is none now, or none at all.
    fn read_on(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(text) = &mut self.text else { return false };
        match text.as_mut().poll_next(cx) {
            Poll::Ready(Some(more)) => {
                self.script.push(&more);
                self.pause = None;
            }
            Poll::Ready(None) => {
                self.script.end();
                (self.text, self.pause) = (None, None);
            }
            Poll::Pending if self.script.is_unsettled() => {
                let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(PAUSE)));
                if pause.as_mut().poll(cx).is_pending() {
                    return false;
                }
                self.script.settle();
            }
            Poll::Pending => return false,
        }
        true
    }

    /// Begins to ask for a part. Its pieces gather by themselves until there is no more room.
    fn ask(&mut self, text: String) -> Incoming {
        let (sender, pieces) = mpsc::channel(PIECES);
        let (service, options, codec) = (self.service.clone(), self.options.clone(), self.codec);
        let part = Part { service, text, codec, options, pieces: sender };
        // Not left to whoever polls: who cancels may not.
        self.requests.spawn(self.handle.cancelled().clone().run_until_cancelled_owned(part.run()));
        Incoming { pieces, begun: false }
    }

    fn end(&mut self) {
        self.ended = true;
        self.requests.abort_all();
        (self.text, self.pause, self.heard, self.next) = (None, None, None, None);
    }
}

/// A text in pieces of whole characters.
fn slices(text: String) -> impl Iterator<Item = String> {
    let mut from = 0;
    iter::from_fn(move || {
        let slice = &text[from..text.floor_char_boundary(from + SLICE)];
        from += slice.len();
        (!slice.is_empty()).then(|| slice.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures::channel::mpsc::{UnboundedSender, unbounded};
    use tokio::time::advance;

    use super::*;
    use crate::auth::TokenProvider;
    use crate::net::http_client;

    /// Speech whose text comes by hand. Nobody answers at its service's address, and its requests have no
    /// turn to find out while a test doesn't wait.
    fn speaking() -> (Speaking, UnboundedSender<String>) {
        let endpoint = "http://127.0.0.1:9".parse().unwrap();
        let tokens = TokenProvider::service(&"token".to_owned().into()).unwrap();
        let service = Arc::new(Service { http: http_client().unwrap(), endpoint, tokens });
        let (writer, text) = unbounded();
        (Speaking::new(service, Script::spoken(), text, None, SpeechOptions::default()), writer)
    }

    fn poll(speaking: &mut Speaking) -> Poll<Option<Result<Bytes, SpeechError>>> {
        speaking.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    /// Which parts are asked for: the one that is heard, and the next.
    fn asked(speaking: &Speaking) -> (bool, bool) {
        (speaking.heard.is_some(), speaking.next.is_some())
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_part_is_asked_for_with_the_first_audio_of_the_one_before_and_no_sooner() {
        let (mut speaking, writer) = speaking();
        // Enough for three parts.
        writer.unbounded_send("The train to the coast leaves at seven. ".repeat(20)).unwrap();
        assert!(poll(&mut speaking).is_pending());
        assert_eq!(asked(&speaking), (true, false));
        // However often it is polled before.
        assert!(poll(&mut speaking).is_pending());
        assert_eq!(asked(&speaking), (true, false));

        let (sender, pieces) = mpsc::channel(PIECES);
        speaking.heard.as_mut().unwrap().pieces = pieces;
        for piece in ["first", "second"] {
            sender.try_send(Ok(Piece::Audio(Bytes::from(piece)))).unwrap();
        }
        assert!(matches!(poll(&mut speaking), Poll::Ready(Some(Ok(audio))) if audio == "first"));
        assert_eq!(asked(&speaking), (true, true));
        assert!(matches!(poll(&mut speaking), Poll::Ready(Some(Ok(audio))) if audio == "second"));

        // The third waits for the audio of the second.
        sender.try_send(Ok(Piece::End)).unwrap();
        assert!(poll(&mut speaking).is_pending());
        assert_eq!(asked(&speaking), (true, false));
    }

    #[tokio::test(start_paused = true)]
    async fn new_text_restarts_the_pause_after_which_a_sentence_counts_as_whole() {
        let (mut speaking, writer) = speaking();
        let tick = Duration::from_millis(1);
        // Each looks whole until the next comes: a number that is written digit by digit.
        for text in ["It costs 3.", "5.", "7."] {
            writer.unbounded_send(text.to_owned()).unwrap();
            assert!(poll(&mut speaking).is_pending());
            advance(PAUSE - tick).await;
            assert!(poll(&mut speaking).is_pending());
            assert_eq!(asked(&speaking), (false, false), "{text}: asked for within the pause");
        }
        // The clock of tokio counts whole milliseconds, and rounds up.
        advance(2 * tick).await;
        assert!(poll(&mut speaking).is_pending());
        assert_eq!(asked(&speaking), (true, false), "not asked for after the pause");
    }
}
