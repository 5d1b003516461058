//! Calls the methods of the clients `async-openai` and `deepgram` that the gateway serves. Prints their
//! results as one JSON object.
//!
//! Arguments: `openai` or `deepgram`, and the arguments of the script for that client in Python.

mod deepgram;
// OpenAI is about to end some of what the gateway serves.
#[allow(deprecated)]
mod openai;

use std::error::Error;

use serde_json::Value;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (client, arguments) = arguments.split_first().ok_or("no client is named")?;
    let results: Value = match client.as_str() {
        "openai" => openai::results(arguments).await?,
        "deepgram" => deepgram::results(arguments).await?,
        other => return Err(format!("no client: {other}").into()),
    };
    println!("{results}");
    Ok(())
}
