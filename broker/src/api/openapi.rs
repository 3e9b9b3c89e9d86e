//! What both doors say and hear, as OpenAPI 3.1: made from the handlers and their types.

mod numbers;

use super::answer::Failure;
use super::{authority, control, data_plane, feed, health, rotation, run};
use axum::http::StatusCode;
use numbers::Numbers;
use std::str::FromStr as _;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::Required;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

/// A door of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Door {
    /// Operators: a UNIX socket, `control.sock`, which only its owner may use.
    Control,
    /// Filters: a UNIX socket or a loopback port, with a token; or mutual TLS.
    DataPlane,
}

impl Door {
    /// Everything that may be asked at this door.
    pub fn document(self) -> Document {
        match self {
            Door::Control => Control::openapi(),
            Door::DataPlane => DataPlane::openapi(),
        }
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Attaché, control",
        description = "The operators' door: HTTP/1.1 on the UNIX socket control.sock in the state directory, for its \
                       owner and root. No answer holds a secret."
    ),
    paths(
        control::list,
        control::create,
        control::show,
        control::env,
        control::set_access_mode,
        control::revoke,
        run::outfit,
        run::hold,
        control::credentials,
        control::reload,
        rotation::rotate,
        control::test,
        authority::show,
        authority::trusted,
        authority::rotate,
        feed::workers,
        feed::changes,
        health::healthz,
        control::readyz,
        control::metrics,
    ),
    components(schemas(Failure)),
    modifiers(&Numbers, &Described)
)]
struct Control;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Attaché, data plane",
        description = "The filters' door: HTTP/1.1 on a UNIX socket in the state directory, or on a loopback port; \
                       with mutual TLS also HTTP/2. Every call asks for the token, or where there is TLS for a \
                       certificate of a peer, whatever the path; what a peer may not ask for is 403. The answer to a grant holds a secret."
    ),
    paths(
        data_plane::policy, data_plane::grants, data_plane::tunnels,
        data_plane::intents, data_plane::changes, data_plane::audit,
        data_plane::access_log, data_plane::healthz,
        data_plane::readyz, data_plane::metrics,
    ),
    components(schemas(Failure)),
    modifiers(&Token, &Empty, &Numbers, &Described)
)]
struct DataPlane;

/// The token in `data-plane.token`, or a certificate.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut Document) {
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", scheme);
        let certificate = SecurityScheme::MutualTls { description: None, deprecated: None, extensions: None };
        components.add_security_scheme("certificate", certificate);
        for operation in document.paths.paths.values_mut().flat_map(operations) {
            let none: [&str; 0] = [];
            operation.security.get_or_insert_default().push(SecurityRequirement::new("certificate", none));
        }
    }
}

/// Whoever has no record to deliver may ask how far the log is.
struct Empty;

impl Modify for Empty {
    fn modify(&self, document: &mut Document) {
        let audit = document.paths.paths.get_mut(attache_core::wire::AUDIT_PATH).and_then(|path| path.post.as_mut());
        if let Some(RefOr::T(body)) = audit.and_then(|audit| audit.request_body.as_mut()) {
            body.required = Some(Required::False);
        }
    }
}

/// Says of each answer what its status means, and that any other answer is an error like the others.
struct Described;

impl Modify for Described {
    fn modify(&self, document: &mut Document) {
        let failure = ContentBuilder::new().schema(Some(Ref::from_schema_name("Failure"))).build();
        let other = ResponseBuilder::new().description("Any other error").content(attache_core::wire::JSON, failure);
        let other = other.build();
        for operation in document.paths.paths.values_mut().flat_map(operations) {
            for (status, response) in &mut operation.responses.responses {
                let meant = StatusCode::from_str(status).ok().and_then(|status| status.canonical_reason());
                if let (RefOr::T(response), Some(meant)) = (response, meant) {
                    response.description = meant.to_owned();
                }
            }
            operation.responses.responses.insert("default".into(), RefOr::T(other.clone()));
        }
    }
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.put, &mut path.post].into_iter().flatten()
}
