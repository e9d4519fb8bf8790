//! One `tidemill up` as a child process: started, killed, paused, stopped in order, started again on the same data.
//!
//! What it says goes to `host-N.log` in the run's folder, over all of its lives.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use rustix::process::{Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::reaper;
use super::server::pid;

/// A start compiles components and waits for Postgres, on a machine that does much else.
const START: Duration = Duration::from_secs(90);
/// A stop in order; longer is a failure of the host.
const STOP: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// How a host is started, each time.
#[derive(Clone, Debug)]
pub struct HostOptions {
    pub tidemill: PathBuf,
    pub run: PathBuf,
    pub plugins: PathBuf,
    /// From 0 on.
    pub number: usize,
    pub database_url: String,
    pub bucket: String,
    /// Pipeline files.
    pub pipelines: Vec<PathBuf>,
    /// Further arguments, and variables.
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
}

/// One of the hosts that serve; None when none does.
pub fn live<'a>(hosts: &'a [Arc<Host>], rng: &mut Rng) -> Option<&'a Arc<Host>> {
    let live: Vec<_> = hosts.iter().filter(|host| host.is_up()).collect();
    rng.choice(live)
}

/// In Postgres, where each host has its own.
pub fn role(number: usize) -> String {
    format!("host_{}", number + 1)
}

/// A host, running or not.
pub struct Host {
    options: HostOptions,
    process: Mutex<Option<Child>>,
    /// Where it serves, while it does.
    url: RwLock<Option<String>>,
    paused: RwLock<bool>,
    /// Variables of the next start, beside those of the options.
    variables: RwLock<Vec<(String, String)>>,
}

impl Host {
    pub fn new(options: HostOptions) -> Self {
        Self {
            options,
            process: Mutex::default(),
            url: RwLock::default(),
            paused: RwLock::default(),
            variables: RwLock::default(),
        }
    }

    /// Sets variables for every start from now on, in place of those that were set so before.
    pub fn set_variables(&self, variables: Vec<(String, String)>) {
        *self.variables.write().unwrap_or_else(PoisonError::into_inner) = variables;
    }

    /// From 1 on, as in the names of its files.
    pub fn name(&self) -> String {
        format!("host-{}", self.options.number + 1)
    }

    /// Its own role in Postgres, where the layout gives it one.
    pub fn role(&self) -> String {
        role(self.options.number)
    }

    /// Where it serves; None while it is down. A paused host still has its address.
    pub fn url(&self) -> Option<String> {
        self.url.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves and is not paused, as far as is known here.
    pub fn is_up(&self) -> bool {
        self.url().is_some() && !*self.paused.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn log(&self) -> PathBuf {
        self.options.run.join(format!("{}.log", self.name()))
    }

    /// Its identity in leases, once it has started.
    pub fn id(&self) -> Result<String> {
        let file = self.data_dir().join("host-id");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(text.trim().to_owned())
    }

    /// Where it keeps its files.
    pub fn data_dir(&self) -> PathBuf {
        self.options.run.join(self.name())
    }

    /// Starts it and waits until it serves. While Postgres is away a host may give up: then it is started again, as
    /// whatever runs it in earnest would.
    pub async fn start(&self) -> Result<()> {
        let mut process = self.process.lock().await;
        ensure!(process.is_none(), "{} runs already", self.name());
        let deadline = Instant::now() + START;
        loop {
            let mut child = self.spawn(&[])?;
            match self.served(&mut child, deadline).await? {
                Some(url) => {
                    *process = Some(child);
                    self.set(Some(url));
                    return Ok(());
                }
                None if Instant::now() < deadline => sleep(POLL * 10).await,
                None => bail!("{} does not start; see {}", self.name(), self.log().display()),
            }
        }
    }

    fn spawn(&self, variables: &[(&str, &str)]) -> Result<Child> {
        let options = &self.options;
        let mut command = std::process::Command::new(&options.tidemill);
        for name in ["DATABASE_URL", "TIDEMILL_URL", "TIDEMILL_TOKEN", "TIDEMILL_PLUGINS", "TIDEMILL_BUCKET"]
        {
            command.env_remove(name);
        }
        command.arg("up").args(&options.pipelines);
        command.args(["--database-url", &options.database_url, "--bucket", &options.bucket]);
        command.args(["--listen", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(self.data_dir()).arg("--plugins").arg(&options.plugins);
        command.args(&options.arguments);
        command.envs(options.environment.iter().map(|(name, value)| (name, value)));
        command.envs(self.variables.read().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        command.envs(variables.iter().copied());
        let log = File::options().create(true).append(true).open(self.log())?;
        command.stdin(Stdio::null()).stdout(File::create(self.said())?).stderr(log);
        command.process_group(0);
        let child = Command::from(command).spawn().context(options.tidemill.display().to_string())?;
        reaper::note(&options.run, child.id().context("the host ended at once")?, "KILL")?;
        Ok(child)
    }

    /// The file of what it announces on standard output.
    fn said(&self) -> PathBuf {
        self.options.run.join(format!("{}.out", self.name()))
    }

    /// Its URL once it serves; None if it ended instead.
    async fn served(&self, child: &mut Child, deadline: Instant) -> Result<Option<String>> {
        let id = child.id();
        loop {
            let said = std::fs::read_to_string(self.said()).unwrap_or_default();
            if said.lines().any(|line| line.trim_start().starts_with("stop ")) {
                let url = said.lines().find_map(|line| line.trim().strip_prefix("map and API"));
                let url = url.context("the host does not say where it serves")?;
                return Ok(Some(url.trim().to_owned()));
            }
            if child.try_wait()?.is_some() {
                id.inspect(|id| reaper::forget(&self.options.run, *id));
                return Ok(None);
            }
            if Instant::now() > deadline {
                child.kill().await?;
                bail!("{} does not serve; see {}", self.name(), self.log().display());
            }
            sleep(POLL).await;
        }
    }

    /// SIGKILL, running or paused.
    pub async fn kill(&self) -> Result<()> {
        let mut process = self.process.lock().await;
        let Some(mut child) = process.take() else { return Ok(()) };
        self.set(None);
        let id = child.id();
        child.kill().await.with_context(|| self.name())?;
        id.inspect(|id| reaper::forget(&self.options.run, *id));
        Ok(())
    }

    /// Starts it so that it kills itself when it comes to this place in its code, e.g. `archive.put` or, for the second time
    /// there, `archive.put:2`, and waits for that. None: it has not come there, and runs on.
    pub async fn crash_at(&self, place: &str, patience: Duration) -> Result<Option<ExitStatus>> {
        {
            let mut process = self.process.lock().await;
            ensure!(process.is_none(), "{} runs already", self.name());
            let mut child = self.spawn(&[("TIDEMILL_CRASH_AT", place)])?;
            let Some(url) = self.served(&mut child, Instant::now() + START).await? else {
                return Ok(child.try_wait()?);
            };
            *process = Some(child);
            self.set(Some(url));
        }
        self.ended(patience).await
    }

    /// Waits until it ends by itself, which some faults make it do. None: it did not.
    pub async fn ended(&self, patience: Duration) -> Result<Option<ExitStatus>> {
        let mut process = self.process.lock().await;
        let child = process.as_mut().with_context(|| format!("{} does not run", self.name()))?;
        let id = child.id();
        let Ok(status) = timeout(patience, child.wait()).await else { return Ok(None) };
        *process = None;
        self.set(None);
        id.inspect(|id| reaper::forget(&self.options.run, *id));
        Ok(Some(status?))
    }

    /// SIGTERM, and how it ended.
    pub async fn stop(&self) -> Result<ExitStatus> {
        let mut process = self.process.lock().await;
        let mut child = process.take().with_context(|| format!("{} does not run", self.name()))?;
        self.set(None);
        let id = child.id().with_context(|| format!("{} has ended by itself", self.name()))?;
        kill_process(pid(id)?, Signal::TERM)?;
        let status = timeout(STOP, child.wait()).await;
        let status = status.with_context(|| format!("{} does not stop", self.name()))??;
        reaper::forget(&self.options.run, id);
        Ok(status)
    }

    /// SIGSTOP: it holds its connections and its leases and does nothing.
    pub async fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP).await?;
        *self.paused.write().unwrap_or_else(PoisonError::into_inner) = true;
        Ok(())
    }

    /// SIGCONT.
    pub async fn resume(&self) -> Result<()> {
        *self.paused.write().unwrap_or_else(PoisonError::into_inner) = false;
        self.signal(Signal::CONT).await
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.lock().await;
        let id =
            process.as_ref().and_then(Child::id).with_context(|| format!("{} does not run", self.name()))?;
        Ok(kill_process(pid(id)?, signal)?)
    }

    /// Whether it ended without having been asked to, which no fault here excuses.
    pub async fn has_died(&self) -> Result<bool> {
        let mut process = self.process.lock().await;
        let Some(child) = process.as_mut() else { return Ok(false) };
        Ok(child.try_wait()?.is_some())
    }

    fn set(&self, url: Option<String>) {
        *self.url.write().unwrap_or_else(PoisonError::into_inner) = url;
        *self.paused.write().unwrap_or_else(PoisonError::into_inner) = false;
    }
}
