//! Keys and values that outlive the instance, by the grant `state`. They belong to the consumer group and the partition of
//! the batch, are read back at once, and are stored in the commit of the batch or not at all.
//!
//! ```
//! use tidemill_plugin::{Failure, state};
//!
//! fn count(word: &str) -> Result<u64, Failure> {
//!     let count = match state::get(word)? {
//!         Some(bytes) => u64::from_be_bytes(bytes.try_into().map_err(|_| Failure::fatal("not a count"))?),
//!         None => 0,
//!     };
//!     state::set(word, (count + 1).to_be_bytes())?;
//!     Ok(count + 1)
//! }
//! # assert_eq!((count("a").unwrap(), count("a").unwrap(), count("b").unwrap()), (1, 2, 1));
//! ```
//!
//! Each function is one call into the host: read and write many at once where a batch has many. An [`Error`] becomes a
//! [`Failure`] with `?`: the batch comes again if the state could not be read, and the stage stops if a limit was reached.
//!
//! In a native build the state is a map of the thread, without limits and times to live, which [`clear`] empties.

use crate::Failure;

pub use crate::bindings::imports::tidemill::plugin::state::{Entry, Error, Write};

#[cfg(target_family = "wasm")]
use crate::bindings::imports::tidemill::plugin::state as host;

#[cfg(not(target_family = "wasm"))]
use stand_in as host;
#[cfg(not(target_family = "wasm"))]
pub use stand_in::clear;

/// The value of a key.
///
/// # Errors
/// As [`get_many`].
pub fn get(key: impl Into<Vec<u8>>) -> Result<Option<Vec<u8>>, Error> {
    Ok(host::get(&[key.into()])?.pop().flatten())
}

/// One value for each key, in their order. At most 10,000 keys and 16 MiB of values.
///
/// # Errors
/// If that is exceeded, or the state cannot be read now.
pub fn get_many(keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Error> {
    host::get(keys)
}

/// Keeps a value until it is deleted.
///
/// # Errors
/// As [`set_many`].
pub fn set(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Result<(), Error> {
    host::set(&[Write::new(key, value)])
}

/// Writes all or nothing.
///
/// # Errors
/// If a limit of the stage is exceeded: `limits.state`, `limits.state_value`, or the output limits, which count what a
/// call writes here.
pub fn set_many(writes: &[Write]) -> Result<(), Error> {
    host::set(writes)
}

/// Forgets a key, which need not be there.
///
/// # Errors
/// As [`get_many`].
pub fn delete(key: impl Into<Vec<u8>>) -> Result<(), Error> {
    host::delete(&[key.into()])
}

/// Forgets keys, which need not be there.
///
/// # Errors
/// As [`get_many`].
pub fn delete_many(keys: &[Vec<u8>]) -> Result<(), Error> {
    host::delete(keys)
}

/// Up to `limit` entries whose keys begin with `prefix` and come after `after`, in the order of their keys. Fewer mean that
/// there are no more.
///
/// # Errors
/// As [`get_many`].
pub fn scan(prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Result<Vec<Entry>, Error> {
    host::scan(prefix, after, limit)
}

impl Write {
    /// A write that is kept until it is deleted.
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Write { key: key.into(), value: value.into(), ttl: None }
    }

    /// Lets the entry go after so many microseconds, on the time of appends.
    #[must_use]
    pub fn for_micros(mut self, ttl: u64) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(reason) => Failure::retry(reason, None),
            Error::TooLarge(reason) | Error::Quota(reason) => Failure::fatal(reason),
        }
    }
}

#[cfg(not(target_family = "wasm"))]
mod stand_in {
    use std::{cell::RefCell, collections::BTreeMap};

    use super::{Entry, Error, Write};

    thread_local! {
        static ENTRIES: RefCell<BTreeMap<Vec<u8>, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Empties the state of this thread. Only in native builds.
    pub fn clear() {
        ENTRIES.with_borrow_mut(BTreeMap::clear);
    }

    pub(super) fn get(keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        Ok(ENTRIES.with_borrow(|entries| keys.iter().map(|key| entries.get(key).cloned()).collect()))
    }

    pub(super) fn set(writes: &[Write]) -> Result<(), Error> {
        let writes = writes.iter().map(|write| (write.key.clone(), write.value.clone()));
        ENTRIES.with_borrow_mut(|entries| entries.extend(writes));
        Ok(())
    }

    pub(super) fn delete(keys: &[Vec<u8>]) -> Result<(), Error> {
        ENTRIES.with_borrow_mut(|entries| keys.iter().for_each(|key| drop(entries.remove(key))));
        Ok(())
    }

    pub(super) fn scan(prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Result<Vec<Entry>, Error> {
        Ok(ENTRIES.with_borrow(|entries| {
            let within = entries.iter().filter(|(key, _)| key.starts_with(prefix));
            let later = within.filter(|(key, _)| after.is_none_or(|after| key.as_slice() > after));
            let found = later.take(limit as usize);
            found.map(|(key, value)| Entry { key: key.clone(), value: value.clone() }).collect()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_deleted_and_scanned_in_order() {
        clear();
        set_many(&[Write::new("a/2", "x"), Write::new("a/1", "y").for_micros(5), Write::new("b", "z")])
            .unwrap();
        let keys = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>();
        assert_eq!(keys(scan(b"a/", None, 10).unwrap()), [b"a/1", b"a/2"]);
        assert_eq!(keys(scan(b"a/", Some(b"a/1"), 10).unwrap()), [b"a/2"]);
        assert_eq!(keys(scan(b"", None, 1).unwrap()), [b"a/1"]);
        delete("b").unwrap();
        assert_eq!(get_many(&[b"b".to_vec(), b"a/2".to_vec()]).unwrap(), [None, Some(b"x".to_vec())]);
    }

    #[test]
    fn an_error_of_the_state_is_a_failure_of_the_batch() {
        assert!(matches!(Failure::from(Error::Unavailable("x".into())), Failure::Retry(_)));
        assert!(matches!(Failure::from(Error::Quota("x".into())), Failure::Fatal(_)));
    }
}
