//! Ordered synthesis of the parts of a text, with one part of look-ahead.

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
use super::{Codec, Interruption, SpeechError, SpeechHandle, SpeechOptions};

/// Pause in an incoming text after which a sentence that looks complete counts as complete: longer than a
/// language model takes for a word.
const PAUSE: Duration = Duration::from_millis(300);

/// Amount of text that is taken at once, in bytes. The text at hand is searched for each part, and a
/// whole book may come in one piece.
const SLICE: usize = 4_096;

/// Synthesis of one text. Its requests are dropped when it is dropped, or cancelled by its handle.
///
/// At most two parts are requested and not yet played: the current part, and the next one, which is
/// requested when the first audio of the current part has arrived. This bounds memory, and the cost of
/// speech that a listener cancels.
pub(super) struct Speaking {
    service: Arc<Service>,
    options: Arc<SpeechOptions>,
    codec: Option<Codec>,
    /// Rest of the text; `None` after its end.
    text: Option<BoxStream<'static, String>>,
    script: Script,
    /// Timer that expires after a pause in the text.
    pause: Option<Pin<Box<Sleep>>>,
    current: Option<RequestedPart>,
    next: Option<RequestedPart>,
    requests: JoinSet<Option<()>>,
    handle: SpeechHandle,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
}

/// A part that was requested.
struct RequestedPart {
    pieces: mpsc::Receiver<Result<Piece, SpeechError>>,
    /// True once audio of the part has arrived.
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
            current: None,
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

    /// Returns the next audio, or `None` at the end. Nothing follows an error.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, SpeechError>>> {
        if !self.ended && self.cancelled.as_mut().poll(cx).is_ready() {
            self.end();
        }
        // Reap the requests that have ended.
        while let Poll::Ready(Some(_)) = self.requests.poll_join_next(cx) {}
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            self.look_ahead(cx);
            let Some(current) = &mut self.current else {
                if self.text.is_some() {
                    return Poll::Pending;
                }
                self.end();
                continue;
            };
            match current.pieces.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(Piece::Audio(audio)))) => {
                    if !std::mem::replace(&mut current.begun, true) {
                        self.look_ahead(cx);
                    }
                    return Poll::Ready(Some(Ok(audio)));
                }
                Poll::Ready(Some(Ok(Piece::End))) => self.current = self.next.take(),
                Poll::Ready(Some(Err(error))) => {
                    self.end();
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => {
                    self.end();
                    // A cancellation after the check above ends the requests, too.
                    if self.handle.is_cancelled() {
                        return Poll::Ready(None);
                    }
                    return Poll::Ready(Some(Err(self.service.interrupted(Interruption::Abandoned))));
                }
            }
        }
    }

    /// Requests the parts that there is room for, as far as the text has come.
    fn look_ahead(&mut self, cx: &mut Context<'_>) {
        while self.next.is_none() && self.current.as_ref().is_none_or(|current| current.begun) {
            let waits = self.current.is_none();
            // Read all text at hand first, so that it is cut as a whole.
            while !self.script.is_full() && self.read_on(cx) {}
            if let Some(part) = self.script.next(waits) {
                let requested = self.request_part(part);
                *(if waits { &mut self.current } else { &mut self.next }) = Some(requested);
            } else if !self.read_on(cx) {
                return;
            }
        }
    }

    /// Reads more of the text. Returns false if there is none now, or none left.
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

    /// Starts the request for a part. Its pieces are buffered until the channel is full.
    fn request_part(&mut self, text: String) -> RequestedPart {
        let (sender, pieces) = mpsc::channel(PIECES);
        let (service, options, codec) = (self.service.clone(), self.options.clone(), self.codec);
        let part = Part { service, text, codec, options, pieces: sender };
        // The task ends itself on cancellation, since a caller that cancels may not poll the stream
        // again.
        self.requests.spawn(self.handle.cancelled().clone().run_until_cancelled_owned(part.run()));
        RequestedPart { pieces, begun: false }
    }

    fn end(&mut self) {
        self.ended = true;
        self.requests.abort_all();
        (self.text, self.pause, self.current, self.next) = (None, None, None, None);
    }
}

/// Splits a text into pieces of whole characters.
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
    use crate::net::HttpClient;

    /// Creates speech whose text is written by hand. Nothing listens at the address of its service, and
    /// its requests do not run while a test does not wait.
    fn speaking() -> (Speaking, UnboundedSender<String>) {
        let endpoint = "http://127.0.0.1:9".parse().unwrap();
        let tokens = TokenProvider::service(&"token".to_owned().into()).unwrap();
        let service = Arc::new(Service { http: HttpClient::new().unwrap(), endpoint, tokens });
        let (writer, text) = unbounded();
        (Speaking::new(service, Script::spoken(), text, None, SpeechOptions::default()), writer)
    }

    fn poll(speaking: &mut Speaking) -> Poll<Option<Result<Bytes, SpeechError>>> {
        speaking.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    /// Returns which parts are requested: the current one, and the next.
    fn asked(speaking: &Speaking) -> (bool, bool) {
        (speaking.current.is_some(), speaking.next.is_some())
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_part_is_asked_for_with_the_first_audio_of_the_one_before_and_no_sooner() {
        let (mut speaking, writer) = speaking();
        // Enough text for three parts.
        writer.unbounded_send("The train to the coast leaves at seven. ".repeat(20)).unwrap();
        assert!(poll(&mut speaking).is_pending());
        assert_eq!(asked(&speaking), (true, false));
        // Polling again before the first audio requests nothing more.
        assert!(poll(&mut speaking).is_pending());
        assert_eq!(asked(&speaking), (true, false));

        let (sender, pieces) = mpsc::channel(PIECES);
        speaking.current.as_mut().unwrap().pieces = pieces;
        for piece in ["first", "second"] {
            sender.try_send(Ok(Piece::Audio(Bytes::from(piece)))).unwrap();
        }
        assert!(matches!(poll(&mut speaking), Poll::Ready(Some(Ok(audio))) if audio == "first"));
        assert_eq!(asked(&speaking), (true, true));
        assert!(matches!(poll(&mut speaking), Poll::Ready(Some(Ok(audio))) if audio == "second"));

        // The third part waits for the audio of the second.
        sender.try_send(Ok(Piece::End)).unwrap();
        assert!(poll(&mut speaking).is_pending());
        assert_eq!(asked(&speaking), (true, false));
    }

    #[tokio::test(start_paused = true)]
    async fn new_text_restarts_the_pause_after_which_a_sentence_counts_as_whole() {
        let (mut speaking, writer) = speaking();
        let tick = Duration::from_millis(1);
        // Each sentence looks complete until the next digit comes: a number that is written digit by
        // digit.
        for text in ["It costs 3.", "5.", "7."] {
            writer.unbounded_send(text.to_owned()).unwrap();
            assert!(poll(&mut speaking).is_pending());
            advance(PAUSE - tick).await;
            assert!(poll(&mut speaking).is_pending());
            assert_eq!(asked(&speaking), (false, false), "{text}: asked for within the pause");
        }
        // The timers of tokio have a resolution of a millisecond, and round up.
        advance(2 * tick).await;
        assert!(poll(&mut speaking).is_pending());
        assert_eq!(asked(&speaking), (true, false), "not asked for after the pause");
    }
}
