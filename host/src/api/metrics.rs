//! `/metrics`: what the process counts, as Prometheus reads it.

use std::sync::OnceLock;

use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::error::ApiError;
use super::params::Params;
use crate::queue::remote::QueueInfo;

/// The recorder of this process. It is global, as the macros of `metrics` are, and made once, before anything counts.
fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let handle = RECORDER.get_or_init(|| match PrometheusBuilder::new().install_recorder() {
        Ok(handle) => {
            describe();
            Some(handle)
        }
        Err(error) => {
            tracing::warn!(%error, "metrics are not recorded");
            None
        }
    });
    handle.as_ref()
}

/// Starts recording.
pub fn start() {
    recorder();
}

fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_gauge!(
        "tidemill_topic_next_offsets",
        Unit::Count,
        "Sum of the next offsets of a topic's partitions"
    );
    describe_gauge!("tidemill_group_lag", Unit::Count, "Records a consumer group is behind");
    describe_gauge!(
        "tidemill_archive_waiting_segments",
        Unit::Count,
        "Segments whose time is over and that are not in the bucket yet"
    );
    describe_gauge!(
        "tidemill_archive_lag_seconds",
        Unit::Seconds,
        "How long the oldest of them has been over"
    );
    describe_gauge!("tidemill_http_streams", Unit::Count, "Open streams");
    describe_gauge!("tidemill_process_resident_bytes", Unit::Bytes, "Memory of the process");
    describe_counter!("tidemill_http_records_in_total", Unit::Count, "Records appended through HTTP");
    describe_gauge!(
        "tidemill_queue_jobs",
        Unit::Count,
        "Jobs of a queue: waiting, scheduled, blocked, running, dead; all but the first and running up to 100,000"
    );
    describe_gauge!(
        "tidemill_queue_oldest_waiting_seconds",
        Unit::Seconds,
        "How long the job of a queue that is next has been waiting"
    );
    describe_gauge!("tidemill_queue_paused", Unit::Count, "1 while a queue is paused");
    describe_counter!("tidemill_jobs_total", Unit::Count, "Runs of jobs that a worker has ended, by verdict");
    describe_counter!(
        "tidemill_jobs_refused_total",
        Unit::Count,
        "Runs whose end came after the job was lost"
    );
    describe_gauge!("tidemill_jobs_running", Unit::Count, "Jobs in calls of a worker in this host");
    describe_histogram!(
        "tidemill_job_wait_seconds",
        Unit::Seconds,
        "From when a job could run until its call began"
    );
    describe_histogram!("tidemill_job_run_seconds", Unit::Seconds, "Time of one call of a worker");
    describe_counter!("tidemill_http_jobs_in_total", Unit::Count, "Jobs put through HTTP");
    describe_counter!("tidemill_stage_records_in_total", Unit::Count, "Records a stage has read");
    describe_counter!("tidemill_stage_records_out_total", Unit::Count, "Records a stage has put out");
    describe_counter!("tidemill_stage_refused_total", Unit::Count, "Records a stage has refused");
    describe_counter!("tidemill_stage_commits_total", Unit::Count, "Commits of a stage");
    describe_counter!("tidemill_stage_failures_total", Unit::Count, "Calls of a plugin that failed, by kind");
    describe_counter!(
        "tidemill_stage_dropped_log_lines_total",
        Unit::Count,
        "Log lines of a plugin over its limit"
    );
    describe_gauge!(
        "tidemill_stage_breakers_open",
        Unit::Count,
        "Partitions of a stage that take no batch, since its plugin fails on most messages"
    );
    describe_counter!(
        "tidemill_stage_breaker_opened_total",
        Unit::Count,
        "Times that such a breaker has opened"
    );
    describe_gauge!("tidemill_dead_letters", Unit::Count, "Dead letters of a consumer group, up to 100,000");
    describe_gauge!("tidemill_dead_letters_queued", Unit::Count, "Those of them that wait for a redrive");
    describe_counter!(
        "tidemill_dead_letters_redriven_total",
        Unit::Count,
        "Dead letters that were run again: done, failed, or again (to come later)"
    );
    describe_counter!(
        "tidemill_dead_letters_expired_total",
        Unit::Count,
        "Dead letters that were kept long enough"
    );
    describe_gauge!("tidemill_stage_instances", Unit::Count, "Live instances of a stage's plugin");
    describe_gauge!("tidemill_stage_memory_bytes", Unit::Bytes, "Memory and tables of those instances");
    describe_counter!("tidemill_plugin_counter_total", Unit::Count, "Counters of plugins, by name");
    describe_gauge!("tidemill_plugin_gauge", Unit::Count, "Gauges of plugins, by name");
}

pub async fn render(uri: Uri) -> Result<Response, ApiError> {
    Params::read(&uri, &[])?;
    let Some(recorder) = recorder() else {
        return Err(ApiError::unavailable(
            "no_metrics",
            "another recorder of metrics is installed in this process",
        ));
    };
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], recorder.render()).into_response())
}

pub fn topic_end(topic: &str, end: u64) {
    metrics::gauge!("tidemill_topic_next_offsets", "topic" => topic.to_string()).set(end as f64);
}

pub fn group_lag(group: &str, topic: &str, lag: u64) {
    metrics::gauge!("tidemill_group_lag", "group" => group.to_string(), "topic" => topic.to_string())
        .set(lag as f64);
}

pub fn archive_lag(segments: i64, seconds: f64) {
    metrics::gauge!("tidemill_archive_waiting_segments").set(segments as f64);
    metrics::gauge!("tidemill_archive_lag_seconds").set(seconds);
}

pub fn queue(info: &QueueInfo) {
    let (count, queue) = (&info.count, &info.count.queue);
    let jobs = [
        ("waiting", count.waiting),
        ("scheduled", count.scheduled),
        ("blocked", count.blocked),
        ("running", count.running),
        ("dead", count.dead),
    ];
    for (state, jobs) in jobs {
        metrics::gauge!("tidemill_queue_jobs", "queue" => queue.clone(), "state" => state).set(jobs as f64);
    }
    metrics::gauge!("tidemill_queue_oldest_waiting_seconds", "queue" => queue.clone())
        .set(info.oldest_waiting.unwrap_or(0.0));
    metrics::gauge!("tidemill_queue_paused", "queue" => queue.clone()).set(f64::from(u8::from(count.paused)));
}

/// Called once a second: gauges of the process, and room for old samples.
pub fn upkeep(streams: usize) {
    metrics::gauge!("tidemill_http_streams").set(streams as f64);
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!("tidemill_process_resident_bytes").set(bytes as f64);
    }
    if let Some(recorder) = recorder() {
        recorder.run_upkeep();
    }
}

/// Memory of this process, where the system tells.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}
