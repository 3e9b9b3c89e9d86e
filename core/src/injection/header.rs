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

/// Whether a header of this lower-case name may be set in a request.
pub(crate) fn may_be_set(name: &str) -> bool {
    let is_token =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    let reserved = ["x-attache-", "x-envoy-", "x-forwarded-"].iter().any(|prefix| name.starts_with(prefix));
    is_token && !reserved && !NOT_OURS.contains(&name)
}

pub(super) fn bare() -> String {
    "{}".into()
}

pub(super) fn render(name: &str, format: &str, secret: &Secret) -> Result<Secret, InjectionError> {
    if !may_be_set(&name.to_ascii_lowercase()) {
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
