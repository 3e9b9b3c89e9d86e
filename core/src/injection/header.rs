//! `NAME: FORMAT` with the secret in place of `{}`.

use super::InjectionError;
use crate::secret::Secret;

/// Headers that frame the message, choose its way or belong to the proxy: never a credential's place.
const NOT_OURS: &[&str] = &[
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "x-request-id",
    "expect",
];

pub(super) fn bare() -> String {
    "{}".into()
}

pub(super) fn render(name: &str, format: &str, secret: &Secret) -> Result<Secret, InjectionError> {
    let lower = name.to_ascii_lowercase();
    let is_token =
        !lower.is_empty() && lower.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    let reserved = ["x-attache-", "x-envoy-", "x-forwarded-"].iter().any(|prefix| lower.starts_with(prefix));
    if !is_token || reserved || NOT_OURS.contains(&&*lower) {
        return Err(InjectionError::BadHeader);
    }
    let (before, after) = format.split_once("{}").ok_or(InjectionError::BadFormat)?;
    let printable = |text: &str| text.bytes().all(|b| (0x20..0x7f).contains(&b));
    if after.contains("{}") || !printable(before) || !printable(after) {
        return Err(InjectionError::BadFormat);
    }
    // Exposed to become the header's value.
    Ok(Secret::new(format!("{before}{}{after}", secret.expose())))
}
