//! What a stage grants its plugin, beyond the log: names, and for `http` the origins and bounds.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// One import that a stage may grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Grant {
    /// The time of the batch.
    Clock,
    /// Requests to the origins in `http.allow`.
    Http,
    /// Numbers of its own in `/metrics`.
    Metrics,
    /// Random numbers that a replay draws again.
    Random,
    /// Keys and values, committed with the batch.
    State,
}

impl Grant {
    /// In the order of their names.
    pub const ALL: [Self; 5] = [Self::Clock, Self::Http, Self::Metrics, Self::Random, Self::State];

    /// As in `grants = [...]`, and in the name of the interface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Http => "http",
            Self::Metrics => "metrics",
            Self::Random => "random",
            Self::State => "state",
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Methods that may be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}

/// What `http` lets a plugin do.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpPlan {
    pub allow: Vec<Origin>,
    pub methods: Vec<Method>,
    /// Whether names in `allow` may lead to private addresses.
    pub private: bool,
    /// Added by the host, by the origin they go to. The plugin does not see them.
    pub headers: Vec<(Origin, BTreeMap<String, Secret>)>,
    /// For one exchange, 1 ms..=10 min; default 10 s.
    pub timeout: Duration,
    /// Body of a request, 1 KiB..=64 MiB; default 8 MiB.
    pub request_bytes: u64,
    /// Body of a response, 1 KiB..=64 MiB; default 1 MiB.
    pub response_bytes: u64,
    /// Exchanges of the stage at a time in one host, 1..=64; default 4.
    pub concurrent: u32,
    /// Requests in one call of the plugin, 1..=10,000; default 100.
    pub requests: u32,
}

impl Default for HttpPlan {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            methods: vec![Method::Get, Method::Head, Method::Post],
            private: false,
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
            request_bytes: 8 << 20,
            response_bytes: 1 << 20,
            concurrent: 4,
            requests: 100,
        }
    }
}

/// Scheme, host and port, exactly; and what the path begins with.
///
/// Parsed as browsers parse (WHATWG URL), so that every way to write a host or an address has become one: `0x7f.1` and
/// `2130706433` are 127.0.0.1, names are in lower case and Punycode.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    https: bool,
    host: String,
    port: u16,
    /// Begins and ends with a slash.
    prefix: String,
}

/// Why a text is not an origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an origin: {problem}")]
pub struct OriginError {
    text: String,
    problem: String,
}

impl Origin {
    /// The host of an IPv6 address is in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether a request to `url` goes to this origin and below its path. A path that hides a slash or a backslash in an
    /// escape is below no path but `/`: servers differ in what they make of it.
    pub fn covers(&self, url: &Url) -> bool {
        let path = url.path();
        let hidden = ["%2f", "%5c"].iter().any(|hidden| path.to_ascii_lowercase().contains(hidden));
        let below = match self.prefix.as_str() {
            "/" => true,
            prefix => !hidden && (path.starts_with(prefix) || format!("{path}/") == prefix),
        };
        url.scheme() == self.scheme()
            && url.host_str() == Some(&self.host)
            && url.port_or_known_default() == Some(self.port)
            && below
    }

    fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let wrong = |problem: String| OriginError { text: text.chars().take(200).collect(), problem };
        let url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(wrong("it must begin with https:// or http://".to_string())),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it must not carry a user or a password; set `headers`".to_string()));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it must end with its path".to_string()));
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(wrong("it has no host".to_string()));
        };
        if host.contains('*') {
            return Err(wrong("hosts are listed one by one, without wildcards".to_string()));
        }
        let slash = if url.path().ends_with('/') { "" } else { "/" };
        Ok(Self { https, host: host.to_string(), port, prefix: format!("{}{slash}", url.path()) })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.host)?;
        if self.port != if self.https { 443 } else { 80 } {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(if self.prefix == "/" { "" } else { &self.prefix })
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn covers(origin_text: &str, url: &str) -> bool {
        origin(origin_text).covers(&Url::parse(url).unwrap_or_else(|error| panic!("{url}: {error}")))
    }

    #[test]
    fn an_origin_is_one_whatever_way_it_is_written() {
        assert_eq!(origin("HTTPS://Hooks.Example.com:443"), origin("https://hooks.example.com/"));
        assert_eq!(origin("http://0x7f.1:9000"), origin("http://2130706433:9000"));
        assert_eq!(origin("http://0177.0.0.1:9000").to_string(), "http://127.0.0.1:9000");
        assert_eq!(origin("https://bücher.example").to_string(), "https://xn--bcher-kva.example");
        assert_eq!(origin("http://[0:0::1]:8080/a").to_string(), "http://[::1]:8080/a/");
    }

    #[test]
    fn what_is_no_origin_is_told_why() {
        for (text, why) in [
            ("hooks.example.com", "relative URL"),
            ("ftp://example.com", "https://"),
            ("https://me:secret@example.com", "password"),
            ("https://example.com/?a=1", "end with its path"),
            ("https://*.example.com", "one by one"),
            ("https://exa mple.com", "invalid"),
        ] {
            let error = text.parse::<Origin>().map(|origin| origin.to_string()).unwrap_err().to_string();
            assert!(error.contains(why), "{error} should have {why}");
        }
    }

    #[test]
    fn scheme_host_port_and_path_must_all_fit() {
        let allowed = "https://hooks.example.com/in";
        for url in [
            "https://hooks.example.com/in",
            "https://hooks.example.com/in/",
            "https://HOOKS.example.com:443/in/a?b#c",
            "https://hooks.example.com/out/../in/a",
        ] {
            assert!(covers(allowed, url), "{url}");
        }
        for url in [
            "http://hooks.example.com/in",
            "https://hooks.example.com:8443/in",
            "https://hooks.example.com./in",
            "https://evil.hooks.example.com/in",
            "https://hooks.example.com.evil.org/in",
            "https://hooks.example.com@evil.org/in",
            "https://evil.org\\@hooks.example.com/in",
            "https://hooks.example.com/inner",
            "https://hooks.example.com/in/../out",
            "https://hooks.example.com/in/%2e%2e/out",
            "https://hooks.example.com/in/..%2fout",
            "https://hooks.example.com/in/..%5Cout",
        ] {
            assert!(!covers(allowed, url), "{url}");
        }
        assert!(covers("https://hooks.example.com", "https://hooks.example.com/a%2fb"));
    }
}
