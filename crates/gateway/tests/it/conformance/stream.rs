//! The numbered chunks, with the documented requests. The recognition of chunks is tested in `tasks`.

use voxline_gateway::Options;

use super::{CLIENTS, ask, get, is_hex, is_qid, post, server, token};
use voxline_fixtures::gateway::audio::wav;

/// 0.08 s at 16 kHz, as the documentation recommends.
const FRAMES: u32 = 1_280;

#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_as_documented() {
    let server = server(Options::default()).await;
    let token = token(&server);
    for (client, (first, other, content_type)) in
        CLIENTS.into_iter().zip([(0, "&last=0", "audio/wave"), (1, "", "audio/wav")])
    {
        // With an empty body, and with no body.
        let creating = match first {
            0 => post("/asr_stream/create_task", ""),
            _ => super::Request { body: None, ..post("/asr_stream/create_task", "") },
        };
        let created = ask(client, &server, &creating.under(&token)).ok();
        assert!(is_qid(&created["qid"]));
        let [id, task_token] =
            ["task_id", "task_token"].map(|name| created["result"][name].as_str().unwrap().to_owned());
        assert!(
            id.len() == 36 && is_hex(&id.replace('-', "")) && task_token.len() == 64 && is_hex(&task_token)
        );
        let mut text = String::new();
        for number in first..first + 5 {
            let is_last = number == first + 4;
            let last = if is_last { "&last=1" } else { other };
            let target = format!("/asr_stream/add_chunk?task_id={id}&chunk_num={number}{last}");
            let chunk = post(target, wav(1, 16_000, FRAMES)).under(&task_token).typed(content_type);
            let added = ask(client, &server, &chunk).ok();
            assert!(is_qid(&added["qid"]));
            text = added["result"]["text"].as_str().unwrap().to_owned();
            assert!(added["result"]["status"].is_null());

            let result = get(format!("/asr_stream/get_result?task_id={id}")).under(&task_token);
            let result = ask(client, &server, &result).ok();
            assert!(result["result"]["text"].is_string());
            assert_eq!(result["result"]["status"] == "done", is_last, "{result}");
        }
        assert!(!text.is_empty());
        let more = format!("/asr_stream/add_chunk?task_id={id}&chunk_num={}", first + 5);
        let more = ask(client, &server, &post(more, wav(1, 16_000, FRAMES)).under(&task_token));
        assert_eq!(more.refusal(), (400, 4102));
    }
    server.stop().await;
}
