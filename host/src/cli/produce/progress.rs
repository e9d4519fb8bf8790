//! A progress line on a terminal; nothing elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::client::ClientError;
use crate::cli::output::{count, plain};

#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    records: Arc<AtomicU64>,
    started: Instant,
}

impl Progress {
    /// With a length the bar shows how far it is; without one it shows how much went through.
    pub fn new(length: Option<u64>) -> Self {
        let (bar, template) = match length {
            Some(length) => {
                (ProgressBar::new(length), "{bar:30} {percent}% of {total_bytes}  {msg}  {eta} left")
            }
            None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {msg}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, records: Arc::default(), started: Instant::now() }
    }

    /// Records the host has stored.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    pub fn stored(&self, records: u64) {
        let total = self.records.fetch_add(records, Ordering::Relaxed) + records;
        let rate = total as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        self.bar.set_message(format!("{} records  {}/s", count(total), count(rate as u64)));
    }

    pub fn advanced(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// The host is away or busy; the run goes on trying.
    pub fn waiting(&self, error: &ClientError) {
        self.bar.set_message(format!("waiting: {}", plain(&error.to_string())));
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
