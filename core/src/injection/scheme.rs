//! `Authorization: SCHEME SECRET` (RFC 9110, 11.6.2).

use crate::secret::Secret;

pub(super) fn render(scheme: &str, secret: &Secret) -> Secret {
    // Exposed to become the header's value.
    Secret::new(format!("{scheme} {}", secret.expose()))
}
