//! The filters' door over a network: mutual TLS, and who may ask there. Written, and resolved.

use super::bind::PeerId;
use super::values::{DialAddress, ListenAddress};
use super::{Endpoint, values};
use attache_core::names::Name;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// The broker's listener for filters: on this machine, or over a network.
#[derive(Clone, Debug)]
pub enum DataPlaneSpec {
    /// `unix:PATH`, or a loopback address: whoever asks shows a token.
    Near(values::DataPlane),
    /// Mutual TLS: whoever asks is who its certificate says.
    Far(Box<MutualTlsSpec>),
}

/// Mutual TLS at an address that other machines reach.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MutualTlsSpec {
    /// `IP:PORT` to listen on, e.g. `0.0.0.0:3031`.
    pub address: ListenAddress,
    /// The broker's certificate, and who signs for its peers.
    pub tls: TlsFilesSpec,
    /// Who may ask; nobody else gets in.
    pub peers: Vec<PeerSpec>,
    /// How the Envoy of `attache envoy-config` reaches it.
    pub envoy: Option<TowardsBrokerSpec>,
}

/// PEM files, read anew when they change. A relative path is read from the directory of this file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFilesSpec {
    /// The broker's certificate, and those between it and its authority.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The authorities that sign for peers.
    pub client_ca: String,
}

/// One peer, or all replicas of one workload.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerSpec {
    /// The SPIFFE ID in its certificate, exactly this one.
    pub id: PeerId,
    /// The sessions that it may ask for; without this line all of them.
    #[serde(default, deserialize_with = "written")]
    pub sessions: Option<Vec<Name>>,
}

/// How an Envoy reaches the broker.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TowardsBrokerSpec {
    /// `HOST:PORT` that Envoy dials (default: `address`, where that is one address).
    pub address: Option<DialAddress>,
    /// The broker's own SPIFFE ID: no other server is told anything.
    pub broker_id: PeerId,
    /// Envoy's certificate, its key and who signs for the broker: PEM, as Envoy sees them, read when it starts.
    pub files: Option<EnvoyFilesSpec>,
    /// The same as secrets in files (SDS), of which Envoy takes the next version while it runs.
    pub sds: Option<EnvoySdsSpec>,
}

/// Files of secrets, one in each (`envoy.extensions.transport_sockets.tls.v3.Secret`).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvoySdsSpec {
    /// The one with Envoy's certificate and key, `attache_client`.
    pub certificate: String,
    /// The one with who signs for the broker, `attache_broker_ca`.
    pub ca: String,
}

/// PEM files that Envoy reads.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvoyFilesSpec {
    /// Envoy's certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The authorities that sign for the broker.
    pub ca: String,
}

/// A list that is there: one without a value has no entries. It is never taken for one that is not there.
fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Name>>, D::Error> {
    Vec::deserialize(deserializer).map(Some)
}

const EXPECTED: &str = "unix:PATH, a loopback IP:PORT, or a mapping with address, tls and peers";

impl<'de> Deserialize<'de> for DataPlaneSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataPlaneVisitor)
    }
}

struct DataPlaneVisitor;

impl<'de> Visitor<'de> for DataPlaneVisitor {
    type Value = DataPlaneSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<DataPlaneSpec, E> {
        values::DataPlane::try_from(text.to_owned()).map(DataPlaneSpec::Near).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DataPlaneSpec, A::Error> {
        MutualTlsSpec::deserialize(MapAccessDeserializer::new(map)).map(Box::new).map(DataPlaneSpec::Far)
    }
}

impl JsonSchema for DataPlaneSpec {
    fn schema_name() -> Cow<'static, str> {
        "DataPlaneSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let far = generator.subschema_for::<MutualTlsSpec>();
        json_schema!({
            "description": format!("The broker's listener for filters: {EXPECTED}."),
            "oneOf": [{"type": "string"}, far],
        })
    }
}

/// Mutual TLS, ready to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MutualTls {
    /// Where it listens.
    pub address: SocketAddr,
    /// The broker's certificate, absolute.
    pub certificate: PathBuf,
    /// Its key, absolute.
    pub key: PathBuf,
    /// Who signs for peers, absolute.
    pub client_ca: PathBuf,
    /// Who may ask; never empty, and no id twice.
    pub peers: Vec<Peer>,
    /// How a generated Envoy reaches it.
    pub envoy: Option<TowardsBroker>,
}

/// Who may ask, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub id: PeerId,
    /// The sessions it may ask for; `None`: all.
    pub sessions: Option<Arc<BTreeSet<Name>>>,
}

/// How an Envoy reaches the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TowardsBroker {
    /// `HOST:PORT`.
    pub address: String,
    /// The broker's SPIFFE ID.
    pub broker_id: PeerId,
    /// What Envoy shows, and whom it trusts.
    pub identity: EnvoyIdentity,
}

/// Where an Envoy has its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvoyIdentity {
    /// In PEM files.
    Files {
        /// Its certificate.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
        /// Who signs for the broker.
        ca: PathBuf,
    },
    /// In files of secrets.
    Sds {
        /// Its certificate and key.
        certificate: PathBuf,
        /// Who signs for the broker.
        ca: PathBuf,
    },
}

impl Endpoint {
    /// The address and port, where it is not a socket of this machine's file system.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Endpoint::Tcp(address) => Some(*address),
            Endpoint::Tls(door) => Some(door.address),
            Endpoint::Unix(_) => None,
        }
    }

    /// The same at another address: where the system has chosen the port.
    pub fn bound(&self, address: SocketAddr) -> Self {
        match self {
            Endpoint::Tls(door) => {
                let mut door = (**door).clone();
                let before = std::mem::replace(&mut door.address, address).to_string();
                let dialled = door.envoy.as_mut().map(|envoy| &mut envoy.address);
                dialled
                    .into_iter()
                    .filter(|dialled| **dialled == before)
                    .for_each(|dialled| *dialled = address.to_string());
                Endpoint::Tls(Arc::new(door))
            }
            _ => Endpoint::Tcp(address),
        }
    }
}
