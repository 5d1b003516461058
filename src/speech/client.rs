//! Who asks for speech.

use std::sync::Arc;

use futures::Stream;
use futures::stream;

use super::options::{Codec, SpeechOptions};
use super::request::Service;
use super::script::Script;
use super::speaking::Speaking;
use super::stream::{EncodedStream, PcmStream};
use crate::auth::TokenProvider;
use crate::net::Endpoint;

/// Speaks by a service's voice. Clones share it.
///
/// ```no_run
/// use futures::StreamExt;
/// use voxline::{auth, net, speech};
///
/// # async fn example(play: impl Fn(bytes::Bytes)) -> Result<(), Box<dyn std::error::Error>> {
/// let tokens = auth::TokenProvider::service(&"TOKEN".to_owned().into())?;
/// let client = speech::SpeechClient::new(net::http_client()?, "https://speech.example".parse()?, &tokens);
/// let mut speech = client.speak("The train leaves at seven.", &speech::SpeechOptions::default());
/// let handle = speech.handle(); // for who hears the listener: `handle.cancel()`
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
    /// A client of the service at `endpoint`, with tokens from `tokens`: one that lives is asked for at every request.
    #[must_use]
    pub fn new(http: reqwest::Client, endpoint: Endpoint, tokens: &TokenProvider) -> SpeechClient {
        SpeechClient { service: Arc::new(Service { http, endpoint, tokens: tokens.clone() }) }
    }

    /// Has `text` spoken, of any length. Nothing is asked for before the stream is polled, which needs tokio's runtime.
    #[must_use]
    pub fn speak(&self, text: &str, options: &SpeechOptions) -> PcmStream {
        let text = text.to_owned();
        self.speak_stream(stream::once(async { text }), options)
    }

    /// Has a text spoken while it is being written, such as by a language model: each item goes on where the one before
    /// ended. A sentence is asked for once it is whole; where nothing else is left to be heard, so is a clause.
    ///
    /// No more of the text is taken than what is heard, what follows, and some 16 kB that are looked through for its end.
    pub fn speak_stream(
        &self,
        text: impl Stream<Item = String> + Send + 'static,
        options: &SpeechOptions,
    ) -> PcmStream {
        PcmStream::new(Speaking::new(self.service.clone(), Script::spoken(), text, None, options.clone()))
    }

    /// Has a text spoken for a file, by the service's encoder: the parts are as long as it takes them, and each is handed
    /// out once it is whole. MP3 frames of parts stand one after the other; those of Opus are chained Ogg streams
    /// (RFC 7845, section 3), which have to be played by who knows them where a text has more than 2,000 characters.
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
