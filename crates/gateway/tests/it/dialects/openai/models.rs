//! The list of models, and the path of one.

use serde_json::{Value, json};

use super::{Stage, refusal};
use voxline_fixtures::gateway::http::url;

#[tokio::test(flavor = "multi_thread")]
async fn models_are_those_of_the_configuration_and_the_recogniser() {
    let stage = Stage::new().await;
    let get = |path: &str| stage.http.get(url(&stage.server, path)).bearer_auth(&stage.token).send();
    let list: Value = get("/v1/models").await.unwrap().json().await.unwrap();
    assert_eq!(list["object"], "list");
    let model = |id: &str| json!({ "id": id, "object": "model", "created": 0, "owned_by": "voxline" });
    let models = list["data"].as_array().unwrap();
    for id in ["whisper-1", "tts-1", "counting"] {
        assert!(models.contains(&model(id)), "{list}");
        for path in ["/v1/models", "/models"] {
            let one: Value = get(&format!("{path}/{id}")).await.unwrap().json().await.unwrap();
            assert_eq!(one, model(id));
        }
    }
    let unknown = refusal(get("/v1/models/org%2Fname").await.unwrap()).await;
    assert_eq!(unknown, (404, Some("model".to_owned()), Some("model_not_found".to_owned())));
    let bare = stage.http.get(url(&stage.server, "/v1/models")).send().await.unwrap();
    assert_eq!(refusal(bare).await.0, 401);
    stage.server.stop().await;
}
