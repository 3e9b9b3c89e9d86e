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

/// From 0 to less than 1, by chance.
pub fn share() -> f64 {
    // To spread what would come at once: without randomness all come at the same time, which is no reason not to come.
    bytes::<1>().map_or(0.0, |[byte]| f64::from(byte) / 256.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_from_0_to_less_than_1_and_differ() {
        let shares: Vec<_> = (0..256).map(|_| share()).collect();
        assert!(shares.iter().all(|share| (0.0..1.0).contains(share)));
        assert!(shares.iter().any(|share| *share < 0.5) && shares.iter().any(|share| *share >= 0.5));
    }
}
