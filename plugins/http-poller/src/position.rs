//! Where polling stands, as the host keeps it.

use serde::{Deserialize, Serialize};
use tidemill_plugin::Failure;

/// Kept as JSON, so that a person can read it in Postgres.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Of the last document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<u64>,
    /// Of the last item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Position {
    /// # Errors
    /// If the position was not written by [`Position::to_bytes`].
    pub fn read(stored: Option<&[u8]>) -> Result<Self, Failure> {
        let Some(stored) = stored else {
            return Ok(Position::default());
        };
        serde_json::from_slice(stored)
            .map_err(|error| Failure::fatal(format!("the stored position is not of this plugin: {error}")))
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// FNV-1a of 64 bits (Fowler, Noll, Vo): tells whether a document is another one; nobody gains by a collision.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
