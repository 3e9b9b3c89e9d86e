//! The messages of Envoy's delta xDS that carry certificates, as far as they are used here
//! (`envoy/service/discovery/v3/discovery.proto`, `envoy/extensions/transport_sockets/tls/v3/secret.proto`).
//!
//! What clients spell is bytes here: Envoy hands on what it got, whether or not that is UTF-8, as strings
//! would have to be.

use std::fmt;
use zeroize::Zeroize as _;

/// The only kind of resource.
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// The call.
pub const DELTA_PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// What Envoy asks for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaDiscoveryRequest {
    /// Of which kind.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// What it asks for from now on.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub resource_names_subscribe: Vec<Vec<u8>>,
    /// What it no longer asks for.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<Vec<u8>>,
    /// What it has from an earlier stream.
    #[prost(message, repeated, tag = "5")]
    pub initial_resource_versions: Vec<Known>,
    /// Why it did not take an answer.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<Status>,
}

/// A resource that Envoy has.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Known {
    /// Its name.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
}

/// `google.rpc.Status`, without its text: that may quote what was sent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// The code.
    #[prost(int32, tag = "1")]
    pub code: i32,
}

/// What Envoy is told.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaDiscoveryResponse {
    /// What there is.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    /// Of which kind.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// Tells answers apart.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// What there is not.
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub removed_resources: Vec<Vec<u8>>,
}

/// One resource. Without `resource` it says that Envoy may keep the one of this version for another `ttl`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resource {
    /// Which of its versions.
    #[prost(string, tag = "1")]
    pub version: String,
    /// The resource.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// Its name.
    #[prost(bytes = "vec", tag = "3")]
    pub name: Vec<u8>,
    /// How long Envoy may keep it.
    #[prost(message, optional, tag = "6")]
    pub ttl: Option<Period>,
}

/// `google.protobuf.Any`; cleared from memory when dropped. It may hold a key, so no `Debug` prints it.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Any {
    /// What it is.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// Its bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

impl fmt::Debug for Any {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Any").field("type_url", &self.type_url).finish_non_exhaustive()
    }
}

impl Drop for Any {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Period {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// And nanoseconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// A certificate and its key, by name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Secret {
    /// The name.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// The certificate.
    #[prost(message, optional, tag = "2")]
    pub tls_certificate: Option<TlsCertificate>,
}

/// A certificate and its key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TlsCertificate {
    /// PEM.
    #[prost(message, optional, tag = "1")]
    pub certificate_chain: Option<DataSource>,
    /// PEM.
    #[prost(message, optional, tag = "2")]
    pub private_key: Option<DataSource>,
}

/// Something that stands here; cleared from memory when dropped. It may be a key, so no `Debug` prints it.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct DataSource {
    /// The bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub inline_bytes: Vec<u8>,
}

impl fmt::Debug for DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataSource").finish_non_exhaustive()
    }
}

impl Drop for DataSource {
    fn drop(&mut self) {
        self.inline_bytes.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_ever_printed() {
        let source = || Some(DataSource { inline_bytes: b"-----BEGIN PRIVATE KEY".to_vec() });
        let secret = Secret {
            name: b"api.github.com".to_vec(),
            tls_certificate: Some(TlsCertificate { certificate_chain: source(), private_key: source() }),
        };
        let any = Any { type_url: SECRET.into(), value: prost::Message::encode_to_vec(&secret) };
        let told = format!("{secret:?} {any:?}");
        assert!(told.contains("DataSource") && told.contains(SECRET), "{told}");
        // As text, and as a list of numbers.
        assert!(!told.contains("PRIVATE") && !told.contains("45, 45"), "{told}");
    }
}
