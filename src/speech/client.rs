//! Client of the synthesis service.

use std::sync::Arc;

use futures::Stream;
use futures::stream;

use super::options::{Codec, SpeechOptions};
use super::request::Service;
use super::script::Script;
use super::speaking::Speaking;
use super::stream::{EncodedStream, PcmStream};
use crate::auth::TokenProvider;
use crate::net::{Endpoint, HttpClient};

/// Client that synthesises speech by the voices of a service. Clones share its state.
///
/// ```no_run
/// use futures::StreamExt;
/// use voxline::{auth, net, speech};
///
/// # async fn example(play: impl Fn(bytes::Bytes)) -> Result<(), Box<dyn std::error::Error>> {
/// let tokens = auth::TokenProvider::service(&"TOKEN".to_owned().into())?;
/// let service = "https://speech.example".parse()?;
/// let client = speech::SpeechClient::new(net::HttpClient::new()?, service, &tokens);
/// let mut speech = client.speak("The train leaves at seven.", &speech::SpeechOptions::default());
/// let handle = speech.handle(); // to interrupt the playback: `handle.cancel()`
/// while let Some(pcm) = speech.next().await {
///     play(pcm?); // 16-bit little-endian, mono, `speech.sample_rate()` frames a second
/// }
/// println!("{} frames", handle.handed_out());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SpeechClient {
    service: Arc<Service>,
}

impl SpeechClient {
    /// Creates a client of the service at `endpoint`. Each request gets an unexpired token from `tokens`.
    #[must_use]
    pub fn new(http: HttpClient, endpoint: Endpoint, tokens: &TokenProvider) -> SpeechClient {
        SpeechClient { service: Arc::new(Service { http, endpoint, tokens: tokens.clone() }) }
    }

    /// Synthesises `text`, of any length. No request is sent before the stream is polled, which requires
    /// a tokio runtime.
    #[must_use]
    pub fn speak(&self, text: &str, options: &SpeechOptions) -> PcmStream {
        let text = text.to_owned();
        self.speak_stream(stream::once(async { text }), options)
    }

    /// Synthesises a text while it is being written, for example by a language model. Each item continues
    /// the text of the one before. A sentence is requested once it is complete; a clause is enough if no
    /// other audio is left to play.
    ///
    /// The text is read only as far as needed: the part being played, the next part, and some 16 kB that
    /// are searched for its end.
    pub fn speak_stream(
        &self,
        text: impl Stream<Item = String> + Send + 'static,
        options: &SpeechOptions,
    ) -> PcmStream {
        PcmStream::new(Speaking::new(self.service.clone(), Script::spoken(), text, None, options.clone()))
    }

    /// Synthesises a text for a file by the service's encoder. The parts are as long as the service
    /// accepts, and each part is delivered once it is complete. MP3 frames of the parts are concatenated.
    /// Opus parts are chained Ogg streams (RFC 7845, section 3), so a text of more than 2,000 characters
    /// needs a player that supports chaining.
    pub fn encode_stream(
        &self,
        text: impl Stream<Item = String> + Send + 'static,
        codec: Codec,
        options: &SpeechOptions,
    ) -> EncodedStream {
        let script = Script::filed();
        EncodedStream::new(Speaking::new(self.service.clone(), script, text, Some(codec), options.clone()))
    }
}
