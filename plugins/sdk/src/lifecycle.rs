//! What every plugin has: a description, a configuration, and one instance that lives as long as the component's.
//!
//! A component instance holds one plugin value, made by `configure` and kept in a thread-local (a component has one
//! thread). Work before `configure` is a fatal failure, not a panic.

use std::{cell::RefCell, marker::PhantomData, thread::LocalKey};

use serde::{Deserialize, de::DeserializeOwned};

use crate::{Descriptor, Failure};

/// What the host knows about a plugin before it gives it work.
pub trait Plugin: Sized + 'static {
    /// What the stage's `config` is parsed into. [`NoConfig`] takes none.
    type Config: DeserializeOwned;

    /// Name, version, ports, tables and the schema of the configuration. Pure, and cheap: `tidemill check` calls it.
    fn describe() -> Descriptor;

    /// Makes the plugin from its configuration.
    ///
    /// # Errors
    /// A sentence for the person who wrote the pipeline file: which value is wrong and what is allowed.
    fn new(config: Self::Config) -> Result<Self, String>;
}

/// The configuration of a plugin that has none: any key is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// Where the export macros keep the plugin of this component instance.
pub trait Instance: Plugin {
    /// The one place, still empty before `configure`.
    fn slot() -> &'static LocalKey<RefCell<Option<Self>>>;
}

/// Carries a plugin into the generated traits.
pub struct Exported<T>(PhantomData<T>);

/// Stands for [`Instance::slot`], which the export macros write.
#[doc(hidden)]
#[macro_export]
macro_rules! __instance {
    ($plugin:ty) => {
        impl $crate::Instance for $plugin {
            fn slot() -> &'static ::std::thread::LocalKey<::std::cell::RefCell<Option<Self>>> {
                ::std::thread_local! {
                    static PLUGIN: ::std::cell::RefCell<Option<$plugin>> =
                        const { ::std::cell::RefCell::new(None) };
                }
                &PLUGIN
            }
        }
    };
}

pub(crate) fn describe<T: Instance>() -> Descriptor {
    log_panics();
    T::describe()
}

pub(crate) fn configure<T: Instance>(config: &str) -> Result<(), String> {
    log_panics();
    let config = serde_json::from_str(config).map_err(|error| format!("config: {error}"))?;
    let plugin = T::new(config)?;
    T::slot().set(Some(plugin));
    Ok(())
}

/// Calls `work` with the plugin that `configure` made.
pub(crate) fn with<T: Instance, R>(work: impl FnOnce(&mut T) -> Result<R, Failure>) -> Result<R, Failure> {
    T::slot().with_borrow_mut(|slot| match slot {
        Some(plugin) => work(plugin),
        None => Err(Failure::fatal("not configured: call `configure` before any work")),
    })
}

/// Sends panic messages to the host's log as errors; what goes to standard error becomes a warning there.
fn log_panics() {
    #[cfg(target_family = "wasm")]
    std::panic::set_hook(Box::new(|panic| crate::log::error(panic)));
}

/// The lifecycle is one interface in WIT and one generated trait for each world.
macro_rules! implement_lifecycle {
    ($world:ident, $kind:path) => {
        impl<T: $kind + Instance> crate::bindings::$world::exports::tidemill::plugin::lifecycle::Guest
            for Exported<T>
        {
            fn describe() -> Descriptor {
                describe::<T>()
            }

            fn configure(config: String) -> Result<(), String> {
                configure::<T>(&config)
            }
        }
    };
}

implement_lifecycle!(producer, crate::Producer);
implement_lifecycle!(transform, crate::Transform);
implement_lifecycle!(materializer, crate::Materializer);
implement_lifecycle!(sink, crate::Sink);
implement_lifecycle!(worker, crate::Worker);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Message, Outcome, Transform,
        bindings::transform::exports::tidemill::plugin::{lifecycle::Guest as _, transforming::Guest as _},
    };

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Limit {
        limit: usize,
    }

    struct AtMost(usize);

    impl Plugin for AtMost {
        type Config = Limit;

        fn describe() -> Descriptor {
            Descriptor::new("at-most", "1.2.3", "Fails batches above a limit")
        }

        fn new(config: Limit) -> Result<Self, String> {
            match config.limit {
                0 => Err("`limit` is 0, but must be 1 or more".to_owned()),
                limit => Ok(AtMost(limit)),
            }
        }
    }

    impl Transform for AtMost {
        fn process(&mut self, batch: Vec<Message>) -> Result<Outcome, Failure> {
            if batch.len() > self.0 {
                return Err(Failure::retry("too many", None));
            }
            Ok(Outcome::new())
        }
    }

    crate::export_transform!(AtMost);

    type Component = Exported<AtMost>;

    #[test]
    fn a_component_is_described_configured_and_then_works() {
        assert_eq!(Component::describe().version, "1.2.3");
        let early = Component::process(Vec::new()).unwrap_err();
        assert!(matches!(early, Failure::Fatal(reason) if reason.contains("configure")));

        assert_eq!(Component::configure(r#"{"limit":1}"#.to_owned()), Ok(()));
        assert_eq!(Component::process(vec![message()]), Ok(Outcome::new()));
        let failure = Component::process(vec![message(), message()]);
        assert!(matches!(failure, Err(Failure::Retry(_))));
    }

    #[test]
    fn a_wrong_configuration_is_told_and_leaves_the_plugin_as_it_was() {
        Component::configure(r#"{"limit":1}"#.to_owned()).unwrap();
        for (config, word) in [
            ("{}", "missing field `limit`"),
            (r#"{"limits":1}"#, "unknown field `limits`"),
            (r#"{"limit":0}"#, "must be 1 or more"),
        ] {
            let error = Component::configure(config.to_owned()).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(Component::process(vec![message()]), Ok(Outcome::new()));
    }

    #[test]
    fn no_config_takes_an_empty_object_only() {
        assert!(serde_json::from_str::<NoConfig>("{}").is_ok());
        assert!(serde_json::from_str::<NoConfig>(r#"{"a":1}"#).is_err());
    }

    fn message() -> Message {
        Message {
            partition: 0,
            offset: 0,
            timestamp: 0,
            attempt: 1,
            key: None,
            headers: Vec::new(),
            payload: Vec::new(),
        }
    }
}
