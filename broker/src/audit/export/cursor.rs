//! How far an export came, in the state directory.

use crate::audit::Durable;
use crate::private_file::{PrivateDir, PrivateError};
use serde::{Deserialize, Serialize};

/// A place in the log, and what was lost on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The file: its device and inode.
    pub file: (u64, u64),
    /// What of it was delivered, in bytes.
    pub at: u64,
    /// How many records nobody took, ever.
    pub dropped: u64,
}

impl Cursor {
    /// Behind all that is durable.
    pub fn at(durable: Durable) -> Self {
        Self { file: durable.file, at: durable.len, dropped: 0 }
    }

    /// What was saved under this name. One that cannot be read is none: the export begins anew.
    pub fn load(dir: &PrivateDir, name: &str) -> Option<Self> {
        let text = dir.read(&file_name(name), 4096).ok()??;
        serde_json::from_slice(&text).ok()
    }

    /// Saves it.
    pub fn save(&self, dir: &PrivateDir, name: &str) -> Result<(), PrivateError> {
        dir.replace(&file_name(name), &serde_json::to_vec(self).unwrap_or_default())
    }
}

fn file_name(name: &str) -> String {
    format!("export-{name}.json")
}
