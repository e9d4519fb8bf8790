//! A transform that tries to reach what each message names, and emits what came of it, for the host's tests of its walls.
//!
//! | payload | tries |
//! | --- | --- |
//! | `{"try":"read","path":"/etc/passwd"}` | to read a file |
//! | `{"try":"list","path":"/"}` | to list a folder |
//! | `{"try":"write","path":"/tmp/x"}` | to write a file |
//! | `{"try":"env"}` | to see environment, arguments and working directory |
//! | `{"try":"wall"}`, `{"try":"monotonic"}` | to tell the time through WASI, and how long a sleep of 1 ms takes |
//! | `{"try":"clock"}`, `{"try":"random"}` | the imports of these names |
//! | `{"try":"fetch","url":"…","headers":[["a","b"]]}` | to get a URL; `method` and `body` may be there |
//! | `{"try":"fetch-many","urls":["…"]}` | to get several at once |
//! | `{"try":"set","key":"k","value":"v"}`, `get`, `delete`, `scan` | state; `set` may have `ttl` in microseconds, `size` for a value of so many bytes |
//! | `{"try":"count"}` | to raise a metric |
//! | `{"try":"panic"}` | the patience of the host |

use std::{env, fs, io, time::Duration};

use serde::Deserialize;
use tidemill_plugin::http::{self, Request};
use tidemill_plugin::state::{self, Write};
use tidemill_plugin::{
    Descriptor, Emission, Failure, Message, NoConfig, Outcome, Plugin, Transform, clock, metrics, random,
};

/// What to try.
#[derive(Debug, Deserialize)]
#[serde(tag = "try", rename_all = "kebab-case", deny_unknown_fields)]
enum Attempt {
    Read {
        path: String,
    },
    List {
        path: String,
    },
    Write {
        path: String,
    },
    Env,
    Wall,
    Monotonic,
    Clock,
    Random,
    Fetch {
        url: String,
        #[serde(default = "get")]
        method: String,
        #[serde(default)]
        headers: Vec<(String, String)>,
        body: Option<String>,
        timeout: Option<u64>,
    },
    FetchMany {
        urls: Vec<String>,
    },
    Set {
        key: String,
        #[serde(default)]
        value: String,
        ttl: Option<u64>,
        size: Option<usize>,
    },
    Get {
        key: String,
    },
    Delete {
        key: String,
    },
    Scan {
        prefix: String,
    },
    Count,
    Panic,
}

fn get() -> String {
    "GET".to_owned()
}

/// The plugin.
pub struct Reach;

impl Plugin for Reach {
    type Config = NoConfig;

    fn describe() -> Descriptor {
        Descriptor::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Tries to reach what each message names",
        )
    }

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Reach)
    }
}

impl Transform for Reach {
    fn process(&mut self, batch: Vec<Message>) -> Result<Outcome, Failure> {
        Ok(Outcome::each(&batch, |message, outcome| {
            let result = match attempt(message.json()?) {
                Ok(found) => format!("ok: {found}"),
                Err(reason) => format!("refused: {reason}"),
            };
            outcome.emit(Emission::new(result));
            Ok(())
        }))
    }
}

fn attempt(attempt: Attempt) -> Result<String, String> {
    let in_file = |error: io::Error| error.to_string();
    let in_state = |error: state::Error| format!("{error:?}");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    match attempt {
        Attempt::Read { path } => fs::read_to_string(path).map_err(in_file),
        Attempt::List { path } => {
            fs::read_dir(path).map(|entries| entries.count().to_string()).map_err(in_file)
        }
        Attempt::Write { path } => fs::write(path, "reached").map(|()| String::new()).map_err(in_file),
        Attempt::Env => environment(),
        Attempt::Wall => Ok(seconds_of_the_system()),
        Attempt::Monotonic => Ok(slept()),
        Attempt::Clock => Ok(clock::now().to_string()),
        Attempt::Random => Ok(format!("{:x} {:02x?}", random::number(), random::bytes(4))),
        Attempt::Fetch { url, method, headers, body, timeout } => {
            let mut request = Request::new(&method, &url);
            request.body = body.map(String::into_bytes);
            request.timeout = timeout;
            let request =
                headers.into_iter().fold(request, |request, (name, value)| request.header(&name, value));
            answer(http::send(&request))
        }
        Attempt::FetchMany { urls } => {
            let requests: Vec<Request> = urls.iter().map(|url| Request::get(url)).collect();
            let answers = http::send_many(&requests).into_iter().map(answer);
            Ok(answers.map(|answer| answer.unwrap_or_else(|error| error)).collect::<Vec<_>>().join(" | "))
        }
        Attempt::Set { key, value, ttl, size } => {
            let value = size.map_or_else(|| value.into_bytes(), |size| vec![b'x'; size]);
            let written = state::set_many(&[Write { key: key.into_bytes(), value, ttl }]);
            written.map(|()| String::new()).map_err(in_state)
        }
        Attempt::Get { key } => {
            state::get(key).map(|value| value.map_or_else(|| "nothing".to_owned(), text)).map_err(in_state)
        }
        Attempt::Delete { key } => state::delete(key).map(|()| String::new()).map_err(in_state),
        Attempt::Scan { prefix } => {
            let entries = state::scan(prefix.as_bytes(), None, 1_000).map_err(in_state)?;
            Ok(entries.into_iter().map(|entry| text(entry.key)).collect::<Vec<_>>().join(","))
        }
        Attempt::Count => {
            metrics::add("reached", 2);
            metrics::set("level", 0.5);
            Ok(String::new())
        }
        Attempt::Panic => panic!("asked to panic"),
    }
}

fn answer(answer: Result<http::Response, http::Error>) -> Result<String, String> {
    let response = answer.map_err(|error| format!("{error:?}"))?;
    Ok(format!("{} {}", response.status, String::from_utf8_lossy(&response.body)))
}

fn environment() -> Result<String, String> {
    let (variables, arguments) = (env::vars_os().count(), env::args_os().count());
    let place = env::current_dir().map(|place| place.display().to_string()).unwrap_or_default();
    if variables + arguments == 0 {
        Err(format!("nothing, at {place:?}"))
    } else {
        Ok(format!("{variables} {arguments}"))
    }
}

#[allow(clippy::disallowed_methods, reason = "the clock of WASI is what is asked about")]
fn seconds_of_the_system() -> String {
    use std::time::{SystemTime, UNIX_EPOCH};
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros().to_string()
}

/// Whether a sleep is seen by the clock, by as much as it should: other clocks would not say 1 ms to the microsecond.
fn slept() -> String {
    let before = std::time::Instant::now();
    std::thread::sleep(Duration::from_millis(1));
    before.elapsed().as_millis().to_string()
}

tidemill_plugin::export_transform!(Reach);
