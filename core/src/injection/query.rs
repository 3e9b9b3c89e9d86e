//! `?NAME=SECRET`: everything but RFC 3986's unreserved characters is percent-encoded.

use super::InjectionError;
use crate::secret::Secret;
use std::fmt::Write;

/// Whether a parameter of this name has one spelling.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

pub(super) fn render(name: &str, secret: &Secret) -> Result<Secret, InjectionError> {
    if !is_name(name) {
        return Err(InjectionError::BadParameter);
    }
    let mut encoded = String::new();
    // Exposed to become the parameter's value.
    for byte in secret.expose().bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    Ok(Secret::new(encoded))
}
