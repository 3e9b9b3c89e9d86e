//! A secret from standard input.

use super::SetError;
use crate::sources::MOST;
use attache_core::names::Name;
use std::fs::File;
use std::io::{IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;
use zeroize::Zeroizing;

/// As the file source will read it: text, without the line break at its end.
pub fn secret(name: &Name) -> Result<Zeroizing<Vec<u8>>, SetError> {
    let input = std::io::stdin();
    if input.is_terminal() {
        return Err(SetError::Terminal(name.clone()));
    }
    // All its room at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST + 3));
    // Its own reader has a buffer that nobody clears.
    let input = File::from(input.as_fd().try_clone_to_owned().map_err(SetError::Input)?);
    input.take(MOST as u64 + 3).read_to_end(&mut bytes).map_err(SetError::Input)?;
    if bytes.ends_with(b"\n") {
        let length = bytes.len() - if bytes.ends_with(b"\r\n") { 2 } else { 1 };
        bytes.truncate(length);
    }
    let is_secret = !bytes.is_empty() && bytes.len() <= MOST && std::str::from_utf8(&bytes).is_ok();
    if is_secret { Ok(bytes) } else { Err(SetError::NoSecret) }
}
