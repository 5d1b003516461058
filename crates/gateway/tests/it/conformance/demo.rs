//! `/tts_demo` and `/asr_demo`, with the requests of the public page's clients.

use voxline_gateway::Options;

use super::{CLIENTS, ask, get, post, server};
use voxline_fixtures::gateway::audio::wav;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_a_demo_unasked() {
    let server = server(Options::default()).await;
    for client in CLIENTS {
        for path in ["/tts_demo", "/asr_demo"] {
            assert_eq!(ask(client, &server, &post(path, "Hello.")).refusal(), (404, 404));
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anybody_is_answered_within_the_demos_limits() {
    let server = server(Options { demo: true, ..Options::default() }).await;
    for client in CLIENTS {
        let speak = |query: &str, text: &str| ask(client, &server, &post(format!("/tts_demo{query}"), text));
        let bare = speak("?encoder=mp3&tempo=1&model_name=pavel-hifigan", "Hello.");
        assert_eq!((bare.status, bare.header("content-type")), (200, Some("audio/mpeg")));
        // An MPEG-2 frame of layer III.
        assert!(bare.body.starts_with(&[0xff, 0xf3]));
        assert_eq!(speak("", "\"Hello.\"").body, bare.body);
        let pcm = speak("?encoder=pcm&tempo=0.5", "\"Hello.\"");
        assert_eq!(pcm.body.len(), 2 * 100 * "Hello.".len());
        assert_eq!(speak("?tempo=2.0", &"é".repeat(1_024)).status, 200);
        for (query, text) in [
            ("", "é".repeat(1_025)),
            ("", "\"\"".to_owned()),
            ("?tempo=2.1", "a".to_owned()),
            ("?tempo=0.4", "a".to_owned()),
        ] {
            assert_eq!(speak(query, &text).refusal(), (400, 4051), "{query}");
        }

        let hear = |file: Vec<u8>| ask(client, &server, &post("/asr_demo", file).typed("audio/wav"));
        let heard = hear(wav(1, 8_000, 8_000 * 120)).ok();
        assert!(heard["result"]["texts"][0]["text"].is_string() && heard["result"]["phrase_id"].is_string());
        assert_eq!(hear(wav(1, 8_000, 8_000 * 120 + 1)).refusal(), (400, 4043));
        assert_eq!(hear(vec![0; 20 * 1024 * 1024 + 1]).refusal(), (400, 4009));
        assert_eq!(ask(client, &server, &get("/tts_demo")).refusal(), (405, 405));
    }
    // No usage was charged.
    assert!(server.gateway.authority().usage(None).unwrap().iter().all(|usage| usage.total.characters == 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_is_limited_like_everybody_else() {
    let full = server(Options { demo: true, max_requests: 0, ..Options::default() }).await;
    let guessed = server(Options { demo: true, max_failures: 1, ..Options::default() }).await;
    for client in CLIENTS {
        for request in [post("/tts_demo", "Hello."), post("/asr_demo", wav(1, 16_000, 100))] {
            let refused = ask(client, &full, &request);
            assert!(refused.header("retry-after").is_some());
            assert_eq!(refused.refusal(), (429, 429));
            ask(client, &guessed, &get("/tts?text=a").under("bad"));
            assert_eq!(ask(client, &guessed, &request).refusal(), (429, 429));
        }
    }
    full.stop().await;
    guessed.stop().await;
}
