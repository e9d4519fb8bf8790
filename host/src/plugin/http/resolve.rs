//! From a name to the addresses that may be connected to. The client asks here once for each new connection and connects to
//! what it gets, so that there is no second look-up between the check and the use.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address::{Place, place};

/// Looks a name up. [`system_lookup`] asks the system.
pub type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// The system's resolver.
pub fn system_lookup() -> Lookup {
    Arc::new(|name| {
        Box::pin(
            async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|found| found.ip()).collect()) },
        )
    })
}

/// All addresses of a name are of a kind that is not for plugins.
#[derive(Debug, thiserror::Error)]
#[error("{name} leads to {kind}, which is not for plugins{hint}")]
pub(super) struct NotForPlugins {
    name: String,
    kind: &'static str,
    hint: &'static str,
}

pub(super) struct Resolver {
    lookup: Lookup,
    private: bool,
}

impl Resolver {
    pub(super) fn new(lookup: Lookup, private: bool) -> Self {
        Self { lookup, private }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, private) = (Arc::clone(&self.lookup), self.private);
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let found = lookup(name.clone()).await?;
            let checked = check(&name, &found, private)?;
            let addresses: Addrs = Box::new(checked.into_iter().map(|ip| SocketAddr::new(ip, 0)));
            Ok(addresses)
        })
    }
}

/// The addresses that may be connected to. `localhost` is asked for only if an origin names it, and leads to this machine
/// and nowhere else.
fn check(name: &str, found: &[IpAddr], private: bool) -> Result<Vec<IpAddr>, Box<dyn Error + Send + Sync>> {
    let wanted = |ip: &IpAddr| match place(*ip) {
        Place::Public => name != "localhost",
        Place::Private => private && name != "localhost",
        Place::Loopback => name == "localhost",
        Place::Other => false,
    };
    let allowed: Vec<IpAddr> = found.iter().copied().filter(|ip| wanted(ip)).collect();
    if !allowed.is_empty() || found.is_empty() {
        return Ok(allowed);
    }
    let (kind, hint) = match found.first().map(|ip| place(*ip)) {
        Some(Place::Private) => ("a private network", "; set `http.private = true` to allow it"),
        Some(Place::Loopback) => ("this machine", "; list its address itself to allow it"),
        _ => ("a reserved address", ""),
    };
    Err(Box::new(NotForPlugins { name: name.to_owned(), kind, hint }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, found: &[&str], private: bool) -> Result<Vec<String>, String> {
        let found: Vec<IpAddr> =
            found.iter().map(|ip| ip.parse().unwrap_or_else(|e| panic!("{ip}: {e}"))).collect();
        let checked = check(name, &found, private).map_err(|error| error.to_string())?;
        Ok(checked.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn only_addresses_for_plugins_are_left() {
        let mixed = ["127.0.0.1", "1.1.1.1", "10.0.0.1", "169.254.169.254"];
        assert_eq!(checked("a.example", &mixed, false), Ok(vec!["1.1.1.1".to_owned()]));
        assert_eq!(checked("a.example", &mixed, true).map(|left| left.len()), Ok(2));
        assert_eq!(checked("localhost", &["127.0.0.1", "1.1.1.1"], false), Ok(vec!["127.0.0.1".to_owned()]));
        assert_eq!(checked("gone.example", &[], false), Ok(vec![]));
    }

    #[test]
    fn a_refusal_says_what_would_allow_it() {
        let error = |found, private| checked("in.example", &[found], private).unwrap_err();
        assert!(error("10.0.0.1", false).contains("http.private = true"));
        assert!(error("::1", true).contains("this machine"));
        assert!(error("169.254.169.254", true).contains("reserved"));
        assert!(checked("localhost", &["10.0.0.1"], true).is_err());
    }
}
