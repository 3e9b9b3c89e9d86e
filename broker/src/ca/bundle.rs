//! What a client's CA variable points to: the system's authorities and ours. With ours alone, hosts that are
//! not decrypted could not be verified.

use std::path::{Path, PathBuf};

/// The system's authorities cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the system's certificates cannot be read: {path}: {cause}. Install ca-certificates anew")]
pub struct BundleError {
    path: PathBuf,
    cause: std::io::Error,
}

/// The certificates in `roots` and ours, PEM.
pub fn bundle(roots: &Path, ours: &str) -> Result<String, BundleError> {
    let mut all = std::fs::read_to_string(roots).map_err(|cause| BundleError { path: roots.to_owned(), cause })?;
    if !all.is_empty() && !all.ends_with('\n') {
        all.push('\n');
    }
    all.push_str(ours);
    Ok(all)
}
