//! What guests print: labelled, escaped, cut, and counted when there is too much of it.
//!
//! A guest writes through the `log` import and to standard output and error; all of them end in one [`GuestLog`] per
//! instance, which passes at most [`Limits::log_lines`](super::Limits::log_lines) a second on and reports how many it
//! dropped.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::bindings::shared::tidemill::plugin::log::Level;

/// A line is cut past this many characters.
const MAX_LINE: usize = 2_000;
/// Lines of standard error, and of the log at level error, kept to explain a trap.
const LAST_WORDS: usize = 4;
/// What a guest may write to a stream in one go.
const STREAM_PERMIT: usize = 64 << 10;

/// The log of one instance, shared by its import and its streams.
#[derive(Clone)]
pub(super) struct GuestLog(Arc<Mutex<State>>);

struct State {
    label: String,
    window: Window,
    last_words: VecDeque<String>,
}

impl GuestLog {
    pub(super) fn new(label: &str, lines_per_second: u32, now: Instant) -> Self {
        Self(Arc::new(Mutex::new(State {
            label: printable(label, MAX_LINE),
            window: Window::new(lines_per_second, now),
            last_words: VecDeque::new(),
        })))
    }

    /// A line about the guest.
    pub(super) fn remark(&self, line: &str) {
        self.lock().pass_on(Level::Warn, line);
    }

    /// One line from the `log` import.
    pub(super) fn write(&self, level: Level, message: &str) {
        let mut state = self.lock();
        if level == Level::Error {
            state.remember(message);
        }
        state.pass_on(level, message);
    }

    /// Forgets the last words of an earlier call.
    pub(super) fn begin_call(&self) {
        self.lock().last_words.clear();
    }

    /// What the guest last wrote to standard error or logged as an error, on one line.
    pub(super) fn last_words(&self) -> String {
        let state = self.lock();
        Vec::from_iter(state.last_words.iter().map(String::as_str)).join(" / ")
    }

    /// Lines dropped since the instance began.
    pub(super) fn dropped_ever(&self) -> u64 {
        self.lock().window.dropped_ever
    }

    fn write_stream(&self, stream: Stream, line: &str) {
        let mut state = self.lock();
        if line.trim().is_empty() {
            return;
        }
        if stream == Stream::Stderr && !line.starts_with("note: run with `RUST_BACKTRACE") {
            state.remember(line);
        }
        let level = match stream {
            Stream::Stdout => Level::Info,
            Stream::Stderr => Level::Warn,
        };
        state.pass_on(level, line);
    }

    /// A panic while the lock was held leaves counters and text behind, both of which are still good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remember(&mut self, line: &str) {
        if self.last_words.len() == LAST_WORDS {
            self.last_words.pop_front();
        }
        self.last_words.push_back(printable(line, MAX_LINE));
    }

    fn pass_on(&mut self, level: Level, line: &str) {
        let Some(dropped) = self.window.admit(Instant::now()) else {
            return;
        };
        let stage = self.label.as_str();
        if dropped > 0 {
            tracing::warn!(target: "tidemill::guest", stage, "{dropped} lines of this plugin were dropped");
        }
        let line = printable(line, MAX_LINE);
        match level {
            Level::Trace => tracing::trace!(target: "tidemill::guest", stage, "{line}"),
            Level::Debug => tracing::debug!(target: "tidemill::guest", stage, "{line}"),
            Level::Info => tracing::info!(target: "tidemill::guest", stage, "{line}"),
            Level::Warn => tracing::warn!(target: "tidemill::guest", stage, "{line}"),
            Level::Error => tracing::error!(target: "tidemill::guest", stage, "{line}"),
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let dropped = self.window.dropped;
        if dropped > 0 {
            let stage = self.label.as_str();
            tracing::warn!(target: "tidemill::guest", stage, "{dropped} lines of this plugin were dropped");
        }
    }
}

/// Counts lines in windows of one second.
struct Window {
    began: Instant,
    limit: u32,
    passed: u32,
    /// Since the last line that passed.
    dropped: u64,
    dropped_ever: u64,
}

impl Window {
    fn new(limit: u32, now: Instant) -> Self {
        Self { began: now, limit, passed: 0, dropped: 0, dropped_ever: 0 }
    }

    /// None drops the line; else the number dropped since the last one that passed.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.began) >= Duration::from_secs(1) {
            self.began = now;
            self.passed = 0;
        }
        if self.passed >= self.limit {
            self.dropped += 1;
            self.dropped_ever += 1;
            return None;
        }
        self.passed += 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

/// `text` on one line, without anything that a terminal or a log reader would act on: control characters, line
/// separators and direction overrides are written as escapes, and what goes past `limit` characters is cut.
pub(super) fn printable(text: &str, limit: usize) -> String {
    let text = text.trim_end_matches(['\n', '\r']);
    let mut out = String::with_capacity(text.len().min(limit));
    for (taken, (position, character)) in text.char_indices().enumerate() {
        if taken == limit {
            out.push_str(&format!("… ({} bytes cut)", text.len() - position));
            break;
        }
        let hidden = character.is_control()
            || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}')
            || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if hidden {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

/// Standard output or error of a guest. Every stream that the guest opens on it is a writer of its own.
pub(super) struct GuestStream {
    log: GuestLog,
    stream: Stream,
}

impl GuestStream {
    pub(super) fn stdout(log: &GuestLog) -> Self {
        Self { log: log.clone(), stream: Stream::Stdout }
    }

    pub(super) fn stderr(log: &GuestLog) -> Self {
        Self { log: log.clone(), stream: Stream::Stderr }
    }

    fn lines(&self) -> Lines {
        Lines { log: self.log.clone(), stream: self.stream, open: Vec::new() }
    }
}

impl IsTerminal for GuestStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.lines())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.lines())
    }
}

/// Cuts a stream of bytes into lines. A line without an end is held up to [`MAX_LINE`] times four bytes, then passed
/// on as it is.
struct Lines {
    log: GuestLog,
    stream: Stream,
    open: Vec<u8>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let room = (MAX_LINE * 4).saturating_sub(self.open.len());
            self.open.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") || piece.len() >= room {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        if !self.open.is_empty() {
            let line = String::from_utf8_lossy(&self.open);
            self.log.write_stream(self.stream, &line);
            self.open.clear();
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.end_line();
    }
}

#[async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

impl OutputStream for Lines {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(STREAM_PERMIT)
    }
}

impl AsyncWrite for Lines {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_long_lines_cut() {
        assert_eq!(printable("a\u{1b}[31mb\nc\n", 100), "a\\u{1b}[31mb\\nc");
        assert_eq!(printable("x\u{202e}y", 100), "x\\u{202e}y");
        assert_eq!(printable("äöüß", 2), "äö… (4 bytes cut)");
        assert_eq!(printable("äö", 2), "äö");
    }

    #[test]
    fn a_flood_is_counted_and_the_next_second_starts_afresh() {
        let now = Instant::now();
        let mut window = Window::new(100, now);
        for _ in 0..100 {
            assert_eq!(window.admit(now), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(window.admit(now), None);
        }
        assert_eq!(window.admit(now + Duration::from_secs(1)), Some(7));
        assert_eq!(window.admit(now + Duration::from_secs(1)), Some(0));
        assert_eq!(window.dropped_ever, 7);
    }

    #[test]
    fn the_last_words_are_the_last_lines_of_standard_error() {
        let log = GuestLog::new("test", 100, Instant::now());
        let mut stderr = GuestStream::stderr(&log).lines();
        stderr.take(b"one\ntwo\n\nthr");
        stderr.take(b"ee\nfour\nfive\nnote: run with `RUST_BACKTRACE=1`\n");
        GuestStream::stdout(&log).lines().take(b"not this\n");
        log.write(Level::Warn, "nor this");
        assert_eq!(log.last_words(), "two / three / four / five");
        log.write(Level::Error, "six\u{7}");
        assert_eq!(log.last_words(), "three / four / five / six\\u{7}");
        log.begin_call();
        assert_eq!(log.last_words(), "");
    }

    #[test]
    fn a_line_without_end_is_not_held_for_ever() {
        let log = GuestLog::new("test", 100, Instant::now());
        let mut stderr = GuestStream::stderr(&log).lines();
        for _ in 0..100 {
            stderr.take(&[b'x'; 1_000]);
        }
        assert!(stderr.open.capacity() <= MAX_LINE * 8);
    }
}
