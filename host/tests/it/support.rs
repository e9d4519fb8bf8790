//! Starting, killing and asking a host process.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{PgPool, postgres::PgPoolOptions};

/// A start includes `initdb` the first time; a busy machine needs patience.
const START: Duration = Duration::from_secs(90);

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace").to_path_buf()
}

/// The command under test, as a user would call it.
pub fn tidemill() -> Command {
    command(&program())
}

pub fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_tidemill").into()
}

fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for name in ["DATABASE_URL", "TIDEMILL_URL", "TIDEMILL_TOKEN", "RUST_LOG", "TIDEMILL_PLUGINS"] {
        command.env_remove(name);
    }
    command
}

/// Runs a verb to its end.
pub fn run(arguments: &[&str]) -> Output {
    tidemill().args(arguments).stdin(Stdio::null()).output().expect("the tidemill binary runs")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A folder for one test that the embedded server's user can enter, removed with the test.
pub fn scratch() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("tidemill-it-").tempdir().expect("a temporary folder");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))
            .expect("its mode can be set");
    }
    folder
}

/// A running `tidemill up`. Dropping it stops the host and its Postgres.
pub struct Host {
    child: Child,
    pub url: String,
    pub postgres_url: String,
    pub data_dir: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Host {
    /// Starts a host on a data directory and waits until it serves.
    pub fn start(data_dir: &Path, arguments: &[&str]) -> Self {
        Self::start_with(data_dir, arguments, &[])
    }

    /// The same with further environment variables.
    pub fn start_with(data_dir: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_by(&program(), data_dir, arguments, environment)
    }

    /// The same through a program that ends by becoming `tidemill`.
    pub fn start_by(
        program: &Path,
        data_dir: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let environment: Vec<(String, String)> =
            environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let (child, url, postgres_url) =
            launch(program, data_dir, &arguments, &environment).unwrap_or_else(|said| panic!("{said}"));
        let (program, data_dir) = (program.to_path_buf(), data_dir.to_path_buf());
        Self { child, url, postgres_url, data_dir, program, arguments, environment }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, as the kernel does it when memory runs out.
    pub fn kill(&mut self) {
        self.child.kill().expect("the host can be killed");
        self.child.wait().expect("the host ends");
    }

    /// Whether the process has ended by itself.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().expect("the host can be waited for").is_some()
    }

    /// Starts it again on the same data.
    pub fn restart(&mut self) {
        let (child, url, postgres_url) =
            launch(&self.program, &self.data_dir, &self.arguments, &self.environment)
                .unwrap_or_else(|said| panic!("{said}"));
        self.child = child;
        self.url = url;
        self.postgres_url = postgres_url;
    }

    /// The same through a program that ends by becoming `tidemill`.
    pub fn restart_by(&mut self, program: &Path) {
        self.program = program.to_path_buf();
        self.restart();
    }

    /// SIGTERM, and the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        terminate(&self.child);
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("the host can be waited for") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the host did not stop within 30 s of SIGTERM");
    }

    pub async fn pool(&self) -> PgPool {
        let options =
            tidemill::pg::pool::parse_url(&self.postgres_url).expect("the host prints a usable URL");
        // Right after a crash the server refuses connections until it has recovered.
        let deadline = Instant::now() + START;
        loop {
            match PgPoolOptions::new().max_connections(4).connect_with(options.clone()).await {
                Ok(pool) => return pool,
                Err(error) => {
                    assert!(Instant::now() < deadline, "the host's Postgres does not answer: {error}")
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = client().get(format!("{}{path}", self.url)).send().await.expect("the host answers");
        assert!(answer.status().is_success(), "GET {path}: {}", answer.status());
        answer.json().await.expect("the answer is JSON")
    }

    /// Runs a client verb against this host.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        tidemill()
            .args(arguments)
            .args(["--url", &self.url])
            .stdin(Stdio::null())
            .output()
            .expect("the tidemill binary runs")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_some() {
            // Killed: its Postgres still runs. A host without pipelines takes it over and stops it in order.
            match launch(&self.program, &self.data_dir, &[], &[]) {
                Ok((child, ..)) => self.child = child,
                Err(said) => {
                    return eprintln!("the Postgres in {} is left running: {said}", self.data_dir.display());
                }
            }
        }
        terminate(&self.child);
        let _ = self.child.wait();
    }
}

pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

fn terminate(child: &Child) {
    let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a child has a pid");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
}

/// The process, its address and its Postgres; or what it said instead of serving.
fn launch(
    program: &Path,
    data_dir: &Path,
    arguments: &[String],
    environment: &[(String, String)],
) -> Result<(Child, String, String), String> {
    let mut child = command(program)
        .arg("up")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .args(arguments)
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--listen", "127.0.0.1:0", "--plugins"])
        .arg(root().join("plugins/dist"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tidemill binary starts");
    let out = child.stdout.take().expect("its output is piped");
    let mut err = child.stderr.take().expect("its errors are piped");
    let (said, heard) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let _ = said.send(line);
        }
    });
    let log = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = err.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let deadline = Instant::now() + START;
    let (mut url, mut postgres_url) = (String::new(), String::new());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match heard.recv_timeout(left) {
            Ok(line) => {
                let words: Vec<&str> = line.split_whitespace().collect();
                match words.as_slice() {
                    ["map", "and", "API", address] => url = address.to_string(),
                    ["Postgres", address] => postgres_url = address.to_string(),
                    ["stop", ..] => return Ok((child, url, postgres_url)),
                    _ => {}
                }
            }
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("the host did not serve; it said:\n{}", log.join().unwrap_or_default()));
            }
        }
    }
}

/// Asks again until the answer is yes. Panics with `what` after `patience`.
pub async fn eventually<F, Fut>(what: &str, patience: Duration, mut ask: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = Instant::now() + patience;
    while !ask().await {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
