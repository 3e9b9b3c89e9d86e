//! `Authorization: Basic base64(USERNAME:SECRET)` (RFC 7617).

use super::InjectionError;
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

pub(super) fn render(username: &str, secret: &Secret) -> Result<Secret, InjectionError> {
    if username.contains(':') || !username.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Err(InjectionError::BadUsername);
    }
    // Exposed to become the header's value.
    let pair = Zeroizing::new(format!("{username}:{}", secret.expose()));
    Ok(Secret::new(format!("Basic {}", STANDARD.encode(pair.as_bytes()))))
}
