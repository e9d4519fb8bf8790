//! `grants` and `[….http]` of a stage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};

use super::stage::{SIZE, TIME};
use super::{Measure, Reader};
use crate::config::document::Mark;
use crate::config::file::{self, SecretRef, Stage};
use crate::config::grants::{Grant, HttpPlan, Origin};
use crate::config::key_path::KeyPath;
use crate::config::plan::StageKind;
use crate::config::secret::Secret;
use crate::config::units;

pub fn read(
    reader: &mut Reader<'_>,
    path: &KeyPath,
    kind: StageKind,
    stage: &Stage,
) -> (BTreeSet<Grant>, Option<HttpPlan>) {
    let mut grants = BTreeSet::new();
    for (i, grant) in stage.grants.iter().enumerate() {
        let place = path.key("grants").index(i);
        if !grants.insert(*grant) {
            reader.fail(&place, Mark::Value, format!("`{grant}` is granted twice"), None);
        }
        if *grant == Grant::State && kind == StageKind::Producer {
            let help = "what it returns as its position comes back after a restart".to_string();
            reader.fail(&place, Mark::Value, "a producer has its position, and no state", Some(help));
        }
        if *grant == Grant::State && kind == StageKind::Worker {
            let help = "remove it; what a job needs goes into its payload".to_string();
            reader.fail(&place, Mark::Value, "jobs have no partition that could have state", Some(help));
        }
    }
    let http = match (&stage.http, grants.contains(&Grant::Http)) {
        (None, false) => None,
        (None, true) => {
            let message = "`http` is granted, but nothing says to which origins";
            let help = "add `http = { allow = [\"https://hooks.example.com\"] }` to the stage".to_string();
            reader.fail(&path.key("grants"), Mark::Value, message, Some(help));
            None
        }
        (Some(_), false) => {
            let help = "add \"http\" to `grants`, or remove `http`".to_string();
            reader.fail(&path.key("http"), Mark::Key, "`http` is not granted", Some(help));
            None
        }
        (Some(written), true) => Some(http(reader, &path.key("http"), written)),
    };
    (grants, http)
}

fn http(reader: &mut Reader<'_>, path: &KeyPath, written: &file::Http) -> HttpPlan {
    let default = HttpPlan::default();
    if written.allow.is_empty() {
        let help = "list at least one, as \"https://hooks.example.com\"".to_string();
        reader.fail(&path.key("allow"), Mark::Value, "no origin is allowed", Some(help));
    }
    let origins = written.allow.iter().enumerate();
    let allow: Vec<Origin> = origins
        .filter_map(|(i, text)| {
            let origin = text.parse().map_err(|error| format!("{error}"));
            reader.take(&path.key("allow").index(i), origin)
        })
        .collect();
    let timeout = Measure {
        parse: TIME,
        show: units::show_duration,
        range: Duration::from_millis(1)..=Duration::from_secs(600),
    };
    let body = Measure { parse: SIZE, show: units::show_size, range: 1 << 10..=64 << 20 };
    let (request, response) = (written.request_bytes.as_deref(), written.response_bytes.as_deref());
    HttpPlan {
        headers: headers(reader, &path.key("headers"), written, &allow),
        allow,
        methods: written.methods.clone().unwrap_or(default.methods),
        private: written.private,
        timeout: reader.measure(&path.key("timeout"), written.timeout.as_deref(), &timeout, default.timeout),
        request_bytes: reader.measure(&path.key("request_bytes"), request, &body, default.request_bytes),
        response_bytes: reader.measure(&path.key("response_bytes"), response, &body, default.response_bytes),
        concurrent: written.concurrent.unwrap_or(default.concurrent),
        requests: written.requests.unwrap_or(default.requests),
    }
}

/// Headers of the host's own, by origin. An origin must be one of those that are allowed, written alike.
fn headers(
    reader: &mut Reader<'_>,
    path: &KeyPath,
    written: &file::Http,
    allow: &[Origin],
) -> Vec<(Origin, BTreeMap<String, Secret>)> {
    let mut headers = Vec::new();
    for (text, values) in &written.headers {
        let place = path.key(text);
        let Some(origin) = reader.take(&place, text.parse::<Origin>().map_err(|error| error.to_string()))
        else {
            continue;
        };
        if !allow.contains(&origin) {
            let help = "name it as it stands in `allow`".to_string();
            reader.fail(&place, Mark::Key, format!("{origin} is not allowed"), Some(help));
        }
        let mut read = BTreeMap::new();
        for (name, value) in values {
            if let Some(secret) = header(reader, &place.key(name), name, value) {
                read.insert(name.to_ascii_lowercase(), secret);
            }
        }
        headers.push((origin, read));
    }
    headers
}

fn header(reader: &mut Reader<'_>, path: &KeyPath, name: &str, value: &file::HeaderValue) -> Option<Secret> {
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        reader.fail(path, Mark::Key, format!("{name:?} is not the name of a header"), None);
        return None;
    }
    let folder = reader.doc.file.parent().unwrap_or(Path::new("")).to_path_buf();
    let secret = match value {
        file::HeaderValue::Text(text) => Ok(Secret::plain(text)),
        file::HeaderValue::Secret(SecretRef { env: Some(env), file: None }) => reader.vault.from_env(env),
        file::HeaderValue::Secret(SecretRef { env: None, file: Some(file) }) => {
            reader.vault.from_file(&folder, file)
        }
        file::HeaderValue::Secret(_) => {
            let message = "a secret is either { env = \"NAME\" } or { file = \"PATH\" }";
            reader.fail(path, Mark::Value, message, None);
            return None;
        }
    };
    let secret = reader.take(path, secret.map_err(|error| error.to_string()))?;
    if HeaderValue::from_str(secret.reveal()).is_err() {
        reader.fail(
            path,
            Mark::Value,
            "this cannot be the value of a header: it has control characters",
            None,
        );
        return None;
    }
    Some(secret)
}
