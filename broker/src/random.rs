//! Randomness from the operating system.

use attache_core::digest::hex;

/// The operating system gave no randomness. Nothing that needs it can go on.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system gave no randomness ({0})")]
pub struct NoRandomness(#[from] getrandom::Error);

/// `N` random bytes.
pub fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// 64 random bits as 16 hex digits: enough for ids that only have to differ.
pub fn id() -> Result<String, NoRandomness> {
    Ok(hex(&bytes::<8>()?))
}
