//! What some tokens end with, so that a typing error, or a scanner, can be told from the token alone.

use super::DIGITS;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// How a token's end is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Checksum {
    /// GitHub's and npm's: six base62 digits, the CRC-32 of what follows the prefix
    /// (<https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/>).
    Github,
    /// Grafana's: `_` and eight hex digits, the CRC-32 of the whole before, lowest byte first
    /// (`satokengen` in Grafana's sources).
    Grafana,
}

/// Digits that hold any 32 bits: 62⁶ > 2³².
const GITHUB_LEN: usize = 6;

impl Checksum {
    /// How many characters it takes.
    pub(super) fn len(self) -> usize {
        match self {
            Checksum::Github => GITHUB_LEN,
            Checksum::Grafana => 9,
        }
    }

    /// Ends a token with it.
    pub(super) fn append(self, token: &mut String, prefix_len: usize) {
        match self {
            Checksum::Github => {
                let mut rest = crc32fast::hash(token.as_bytes().get(prefix_len..).unwrap_or_default()) as usize;
                let mut digits = ['0'; GITHUB_LEN];
                for digit in digits.iter_mut().rev() {
                    *digit = DIGITS.get(rest % DIGITS.len()).map_or('0', |digit| char::from(*digit));
                    rest /= DIGITS.len();
                }
                token.extend(digits);
            }
            Checksum::Grafana => {
                let sum = crc32fast::hash(token.as_bytes());
                token.push('_');
                for byte in sum.to_le_bytes() {
                    // Writing to a String cannot fail.
                    let _ = write!(token, "{byte:02x}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    fn ended(checksum: Checksum, token: &str, prefix_len: usize) -> String {
        let mut token = token.to_owned();
        checksum.append(&mut token, prefix_len);
        token
    }

    #[test]
    fn it_is_what_the_vendors_compute() {
        // The example of GitHub's own page on the format.
        let github = "ghp_zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ";
        assert_eq!(ended(Checksum::Github, github, 4), format!("{github}0mLq17"));
        // CRC-32 ("IEEE") of these 37 bytes is 0x26900d95, computed by zlib.
        let grafana = "glsa_0123456789abcdefghijklmnopqrstuv";
        assert_eq!(ended(Checksum::Grafana, grafana, 5), format!("{grafana}_950d9026"));
        for (checksum, token) in [(Checksum::Github, github), (Checksum::Grafana, grafana)] {
            assert_eq!(ended(checksum, token, 4).len(), token.len() + checksum.len());
        }
    }
}
