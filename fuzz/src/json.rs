//! What must hold of every message.

use serde::{Serialize, de::DeserializeOwned};

/// The message in `bytes`, when it is one. What was read is written so that it is read the same.
pub(crate) fn read<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let message: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&message).expect("what was read is written");
    let again: T = serde_json::from_slice(&written).expect("what was written is read");
    let rewritten = serde_json::to_vec(&again).expect("it is written again");
    assert_eq!(String::from_utf8(rewritten), String::from_utf8(written));
    Some(message)
}
