//! A headless Chromium with a microphone that plays a file, driven over the DevTools protocol.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Longest wait for anything from the browser. Test machines run many things at once, including speech
/// recognition.
const PATIENCE: Duration = Duration::from_secs(120);
/// Environment variable that skips the browser tests, for machines without Chromium. `./dev` sets it.
const LEFT_OUT: &str = "VOXLINE_NO_BROWSER";

/// Returns whether tests with a browser are skipped on this machine.
#[expect(clippy::disallowed_methods, reason = "whether there can be a browser is not the tests' to decide")]
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
pub(crate) fn is_left_out() -> bool {
    let left_out = std::env::var_os(LEFT_OUT).is_some_and(|value| !value.is_empty());
    if left_out {
        eprintln!("LEFT OUT: {LEFT_OUT} is set, so nothing is tested in a browser");
    }
    left_out
}

/// A browser with one page, in a profile of its own.
pub(crate) struct Browser {
    child: Child,
    socket: WebSocketStream<TcpStream>,
    /// DevTools session of the page.
    session: Option<String>,
    calls: u64,
    /// Events received so far.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser whose microphone plays `recording` once, followed by silence.
    pub(crate) async fn start(recording: &Path) -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("chromium")
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            // The browser contacts only the server under test.
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg("--host-resolver-rules=MAP console.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
            .args(["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"])
            .arg(format!("--use-file-for-fake-audio-capture={}%noloop", recording.display()))
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--remote-debugging-port=0", "about:blank"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // One process group, so that all processes of the browser end together.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("chromium: {error}; run `apt-get install chromium`"));
        let address = devtools(&mut child).await;
        let (_, rest) = address.split_once("://").expect("an address has a scheme");
        let (host, _) = rest.split_once('/').expect("an address has a path");
        let stream = TcpStream::connect(host).await.unwrap();
        let (socket, _) = client_async(address.as_str(), stream).await.unwrap();
        let mut browser =
            Browser { child, socket, session: None, calls: 0, events: Vec::new(), _profile: profile };
        let targets = browser.call("Target.getTargets", json!({})).await;
        let page = targets["targetInfos"].as_array().unwrap().iter().find(|target| target["type"] == "page");
        let attach = json!({ "targetId": page.expect("there is a page")["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "DOM", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    /// Calls a method of the DevTools protocol and returns its result.
    pub(crate) async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut call = json!({ "id": self.calls, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            call["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(call.to_string())).await.unwrap();
        loop {
            let mut message = self.hear().await;
            if message["id"] == self.calls {
                assert_eq!(message["error"], Value::Null, "{method}");
                return message["result"].take();
            }
            if message["method"].is_string() {
                self.events.push(message);
            }
        }
    }

    async fn hear(&mut self) -> Value {
        loop {
            match self.socket.next().await.expect("the browser runs").unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Close(_) => panic!("the browser has ended"),
                _ => {}
            }
        }
    }

    /// Opens an address and waits until the page has loaded.
    pub(crate) async fn open(&mut self, address: &str) {
        self.events.retain(|event| event["method"] != "Page.loadEventFired");
        let opened = self.call("Page.navigate", json!({ "url": address })).await;
        assert_eq!(opened["errorText"], Value::Null, "{address}");
        let loaded = async {
            while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
                let event = self.hear().await;
                self.events.push(event);
            }
        };
        timeout(PATIENCE, loaded).await.unwrap_or_else(|_| panic!("{address} does not load"));
    }

    /// Evaluates an expression on the page and returns its value.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut evaluated = self.call("Runtime.evaluate", parameters).await;
        assert_eq!(evaluated["exceptionDetails"], Value::Null, "{expression}");
        evaluated["result"]["value"].take()
    }

    /// Waits until a condition on the page is true, and returns its value. The condition is evaluated after
    /// each change of the page.
    pub(crate) async fn until(&mut self, condition: &str) -> Value {
        self.wait(&promise(condition), condition).await
    }

    /// Watches for a condition on the page from now on: for one that the next action makes true for a moment.
    /// [`Browser::until_watched`] waits for it.
    pub(crate) async fn watch(&mut self, condition: &str) {
        self.evaluate(&format!("void (window.watched = {})", promise(condition))).await;
    }

    /// Waits until the condition given to [`Browser::watch`] is or was true.
    pub(crate) async fn until_watched(&mut self, condition: &str) {
        self.wait("window.watched", condition).await;
    }

    async fn wait(&mut self, promise: &str, condition: &str) -> Value {
        if let Ok(value) = timeout(PATIENCE, self.evaluate(promise)).await {
            return value;
        }
        let page = self.evaluate("document.body.innerText").await;
        panic!("never: {condition}\n{}\n{:?}", page.as_str().unwrap_or_default(), self.complaints());
    }

    /// Returns the visible text of an element.
    pub(crate) async fn text(&mut self, id: &str) -> String {
        let text = self.evaluate(&format!("document.getElementById({}).innerText", json!(id))).await;
        text.as_str().expect("the element is there").to_owned()
    }

    /// Clicks in the middle of an element, as a user does.
    pub(crate) async fn click(&mut self, id: &str) {
        let script = format!(
            "(() => {{
                const element = document.getElementById({});
                element.scrollIntoView({{ block: 'center', behavior: 'instant' }});
                const box = element.getBoundingClientRect();
                const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
                const hit = document.elementFromPoint(x, y);
                return {{ x, y, hit: element.contains(hit) || hit?.contains(element) === true }};
            }})()",
            json!(id)
        );
        let at = self.evaluate(&script).await;
        assert_eq!(at["hit"], true, "{id} is covered or not there");
        for kind in ["mousePressed", "mouseReleased"] {
            let event =
                json!({ "type": kind, "x": at["x"], "y": at["y"], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Replaces the text of a field by typing.
    pub(crate) async fn fill(&mut self, id: &str, text: &str) {
        self.click(id).await;
        self.evaluate("document.activeElement.select()").await;
        self.call("Input.insertText", json!({ "text": text })).await;
    }

    /// Chooses a file in an `<input type=file>`.
    pub(crate) async fn choose_file(&mut self, id: &str, file: &Path) {
        let root = self.call("DOM.getDocument", json!({})).await["root"]["nodeId"].take();
        let query = json!({ "nodeId": root, "selector": format!("#{id}") });
        let node = self.call("DOM.querySelector", query).await["nodeId"].take();
        self.call("DOM.setFileInputFiles", json!({ "nodeId": node, "files": [file] })).await;
    }

    /// Drops a file in the middle of the page.
    pub(crate) async fn drop_file(&mut self, file: &Path) {
        let data = json!({ "items": [], "files": [file], "dragOperationsMask": 1 });
        for kind in ["dragEnter", "dragOver", "drop"] {
            let event = json!({ "type": kind, "x": 300, "y": 300, "data": data });
            self.call("Input.dispatchDragEvent", event).await;
        }
    }

    /// Returns the complaints so far: errors and warnings on the page's console, violations of its policy,
    /// exceptions, and error responses.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let is_complaint = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
            Some("Runtime.consoleAPICalled") => {
                ["error", "warning", "assert"].iter().any(|kind| event["params"]["type"] == *kind)
            }
            _ => false,
        };
        self.events.iter().filter(is_complaint).map(|event| event["params"].to_string()).collect()
    }

    /// Returns every address that the page has requested.
    pub(crate) fn asked(&self) -> Vec<String> {
        let address = |event: &Value| match event["method"].as_str()? {
            "Network.requestWillBeSent" => Some(event["params"]["request"]["url"].as_str()?.to_owned()),
            "Network.webSocketCreated" => Some(event["params"]["url"].as_str()?.to_owned()),
            _ => None,
        };
        self.events.iter().filter_map(address).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Returns the expression of a promise that is kept once a condition on the page is true.
fn promise(condition: &str) -> String {
    format!(
        "new Promise((resolve) => {{
            const look = () => {{
                const value = {condition};
                if (value) {{ watcher.disconnect(); resolve(value); }}
            }};
            const watcher = new MutationObserver(look);
            watcher.observe(document, {{ subtree: true, childList: true, attributes: true, characterData: true }});
            look();
        }})"
    )
}

/// Returns the DevTools address of a browser that starts. Its output is read to the end, because the
/// browser would block without a reader.
async fn devtools(child: &mut Child) -> String {
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (found, address) = oneshot::channel();
    std::thread::spawn(move || {
        let mut found = Some(found);
        for line in lines.map_while(Result::ok) {
            if let Some((_, address)) = line.split_once("DevTools listening on ")
                && let Some(found) = found.take()
            {
                let _ = found.send(address.to_owned());
            }
        }
    });
    timeout(PATIENCE, address).await.expect("chromium starts").expect("chromium listens before it ends")
}
