//! What the operator's door says and hears: one set of types for the broker and for its command line.

use crate::changes::Applied;
use crate::clock::{Now, millis};
use crate::config::{Bind, TokenScope};
use crate::envoy::Shape;
use crate::leases::Standing;
use crate::rotation::Rotated;
use crate::sessions::{ELEVATION, Session};
use crate::store::ChangeRow;
use attache_core::names::Name;
use attache_core::object::{members_once, object};
use attache_core::policy::AccessMode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

/// A session, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionView {
    /// Its name.
    pub name: Name,
    /// Its id, as in audit records.
    pub id: String,
    /// `live`, `expired` or `revoked`.
    pub state: String,
    /// What it may do now.
    pub access_mode: AccessMode,
    /// How long it is elevated yet, in milliseconds: then it is read-only again; `null`: it is not.
    pub elevated_ms: Option<u64>,
    /// What it may use.
    pub credentials: Vec<Name>,
    /// What it demands besides its placeholder.
    #[serde(default)]
    pub bind: Bind,
    /// By credential: what its token may reach, where that is less than the credential's may.
    #[serde(default, deserialize_with = "members_once")]
    pub scopes: BTreeMap<Name, TokenScope>,
    /// Whether the config declares it.
    pub declared: bool,
    /// When it was made, in Unix milliseconds.
    pub created_ms: u64,
    /// When it expires, in Unix milliseconds; `null`: it does not.
    pub expires_ms: Option<u64>,
    /// How long it lives yet, in milliseconds; `null`: it does not expire.
    pub remaining_ms: Option<u64>,
}

impl SessionView {
    /// A session as it is now.
    pub fn of(session: &Session, now: Now) -> Self {
        Self {
            name: session.name.clone(),
            id: session.id.clone(),
            state: session.state(now).into(),
            access_mode: session.mode(now),
            elevated_ms: Some(millis(session.elevation(now))).filter(|left| *left > 0),
            credentials: session.credentials.clone(),
            bind: session.bind.clone(),
            scopes: session.scopes.clone(),
            declared: session.declaration.is_some(),
            created_ms: session.created_ms,
            expires_ms: session.expires.map(|expires| expires.wall_ms),
            remaining_ms: session.expires.map(|_| millis(session.remaining(now))),
        }
    }
}

/// Asks for the next certificate authority.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateAuthority {
    /// How long the one before signs yet, in milliseconds; `null`: a day.
    #[serde(default)]
    #[schema(maximum = 2_592_000_000_u64)]
    pub overlap_ms: Option<u64>,
}

/// Asks for a new session.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    /// Its name.
    pub name: Name,
    /// What it may use.
    #[schema(min_items = 1)]
    pub credentials: Vec<Name>,
    /// What it may do.
    #[serde(default)]
    pub access_mode: AccessMode,
    /// How long it lives, in milliseconds; `null`: until it is revoked.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub ttl_ms: Option<u64>,
    /// What it demands besides its placeholder.
    #[serde(default, deserialize_with = "object")]
    pub bind: Bind,
    /// By credential: what its token may reach; what is not named has all that the credential's may.
    #[serde(default, deserialize_with = "members_once")]
    pub scopes: BTreeMap<Name, TokenScope>,
}

/// Asks for another access mode.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetAccessMode {
    /// The new one.
    pub access_mode: AccessMode,
    /// For how long, in milliseconds: then it is what it was before; `null`: until it is set anew.
    #[serde(default)]
    pub for_ms: Option<u64>,
}

/// Not what a derive says: there is a time to read and write, and none to read only.
impl PartialSchema for SetAccessMode {
    fn schema() -> RefOr<Schema> {
        let text = |word: AccessMode| ObjectBuilder::new().schema_type(Type::String).enum_values(Some([word.as_str()]));
        let time = [Type::Integer, Type::Null].into_iter().collect::<SchemaType>();
        let time = ObjectBuilder::new().schema_type(time).minimum(Some(1)).maximum(Some(millis(ELEVATION)));
        let null = ObjectBuilder::new().schema_type(Type::Null);
        let wish = |mode, for_ms: ObjectBuilder, words: &str| {
            let for_ms = for_ms.description(Some(words));
            let members = ObjectBuilder::new().property("access_mode", text(mode)).property("for_ms", for_ms);
            members.required("access_mode").additional_properties(Some(AdditionalProperties::FreeForm(false)))
        };
        let raised = "For how long, in milliseconds: then it is what it was before; `null`: until it is set anew.";
        let lowered = "What is taken away stays away until it is set anew.";
        let kinds = OneOfBuilder::new().description(Some("Asks for another access mode."));
        let kinds = kinds.item(wish(AccessMode::ReadOnly, null, lowered));
        kinds.item(wish(AccessMode::ReadWrite, time, raised)).into()
    }
}

impl ToSchema for SetAccessMode {}

/// What a change has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    /// The session as it is now.
    pub session: SessionView,
    /// Where the change is in force.
    pub applied: Applied,
    /// Whether it is in the audit log.
    pub recorded: bool,
}

/// What looking at a credential's source once more has come to.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reloaded {
    /// How it stands now.
    pub credential: Standing,
    /// Where grants of before are void.
    pub applied: Applied,
}

/// Asks for another secret.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// Whether to retire the secret of before now, instead: no new one is made then.
    #[serde(default)]
    pub retire_now: bool,
}

/// What has become of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rotating {
    /// There is another secret.
    Rotated,
    /// The secret of before is retired.
    Retired,
    /// No secret waits to be retired.
    Nothing,
    /// The config has no rotation: the source was looked at once more.
    Reloaded,
}

impl Rotating {
    /// What was done, where the config has a rotation.
    pub fn of(rotated: &Rotated) -> Self {
        match rotated {
            Rotated { applied: Some(_), .. } => Self::Rotated,
            Rotated { old: Some(_), .. } => Self::Retired,
            _ => Self::Nothing,
        }
    }
}

/// What asking for another secret has come to.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotatedView {
    /// What was done.
    pub what: Rotating,
    /// How the credential stands now.
    pub credential: Standing,
    /// Where grants of before are void; `null`: there is no other secret than before.
    pub applied: Option<Applied>,
    /// The fingerprint of the secret of before.
    pub old: Option<String>,
    /// Until when that is good, in Unix milliseconds; `null`: it is not, or there is none.
    pub retire_ms: Option<u64>,
}

/// A worker: one VM of an Envoy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkerView {
    /// Its id, as in audit records.
    pub id: String,
    /// Whether it follows the feed.
    pub live: bool,
    /// Unix milliseconds.
    pub first_seen_ms: u64,
    /// Unix milliseconds; of one that is gone a few seconds late.
    pub last_seen_ms: u64,
    /// How many changes it has not applied yet; `null`: it is gone.
    pub behind: Option<u64>,
}

/// Something that the change feed has told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeView {
    /// The life of the broker that told it.
    pub epoch: String,
    /// Its number in that life.
    pub cursor: u64,
    /// `session`, `credential` or `all`.
    pub kind: String,
    /// The session's id or the credential's name.
    pub scope: String,
    /// Unix milliseconds.
    pub told_ms: u64,
}

impl From<ChangeRow> for ChangeView {
    fn from(row: ChangeRow) -> Self {
        let ChangeRow { epoch, cursor, kind, scope, told_ms } = row;
        Self { epoch, cursor, kind, scope, told_ms }
    }
}

/// One variable for an agent's environment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value: a placeholder, a session token or a URL, never a secret.
    pub value: String,
}

/// The name alone: a token of a session is the session to whoever has it.
impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Variable").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a child of `attache run` needs, and what is kept from it.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Outfit {
    /// Where agents reach Envoy: `ADDRESS:PORT`.
    #[schema(value_type = String)]
    pub proxy: SocketAddr,
    /// What listens there, where the broker knows: `null` where it did not start that Envoy.
    #[serde(default)]
    pub shape: Option<Shape>,
    /// Names the session to the proxy.
    pub session_token: String,
    /// Placeholders, under the names that tools read.
    pub placeholders: Vec<Variable>,
    /// Where git logs in with one of them.
    pub logins: Vec<Login>,
    /// Directories that no agent needs.
    pub hidden_directories: Vec<HiddenDirectory>,
    /// Variables that may hold secrets.
    pub hidden_variables: Vec<String>,
}

/// A directory that no agent needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HiddenDirectory {
    /// Its path, absolute.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// Which one the broker means, whatever stands at its path by now; `null`: it was not there when the broker
    /// started.
    pub identity: Option<Identity>,
}

/// What tells one directory from another on the same machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The number of its file system.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

impl Identity {
    /// That of what was found.
    #[expect(clippy::useless_conversion, reason = "the widths differ between machines")]
    pub fn of(found: &rustix::fs::Stat) -> Self {
        Self { device: found.st_dev.into(), inode: found.st_ino.into() }
    }
}

/// A place where a client is challenged for a name and a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// `https://HOST[:PORT]`.
    pub origin: String,
    /// The name.
    pub username: String,
    /// The variable that holds what stands for the password.
    pub variable: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_scope_stands_twice() {
        let wish = |scopes: &str| {
            serde_json::from_str::<CreateSession>(&format!(r#"{{"name":"s","credentials":["g"],"scopes":{scopes}}}"#))
        };
        assert!(wish(r#"{"g":{"repositories":["a"]}}"#).is_ok() && wish("{}").is_ok());
        for twice in [
            r#"{"g":{"repositories":["a"]},"g":{}}"#,
            r#"{"g":{"permissions":{"contents":"write","contents":"read"}}}"#,
            r#"{"g":{"permissions":{"contents":"read"},"permissions":{"contents":"write"}}}"#,
        ] {
            assert!(wish(twice).is_err(), "{twice}");
        }
    }
}
