//! What a token may reach at most: which repositories, with which permissions. One form for configs, commands, API and
//! store: a scope that cannot be read in full is refused everywhere, never taken for less than it says.

use attache_core::object::{members_once, object};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// GitHub takes no more of them (<https://docs.github.com/en/rest/apps/apps>).
const MOST_REPOSITORIES: usize = 500;
/// More than there are.
const MOST_PERMISSIONS: usize = 200;
/// What a repository may be called. GitHub has no name of dots alone.
const REPOSITORY: &str = "^(?!\\.{1,2}$)[A-Za-z0-9._-]{1,100}$";
const PERMISSION: &str = "^[a-z][a-z_]{0,63}$";

/// Which repositories, and what may be done there. Without a field: whatever there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TokenScope {
    /// Repositories by their names, without the owner's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repositories: Option<BTreeSet<String>>,
    /// Repositories by their numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository_ids: Option<BTreeSet<u64>>,
    /// Permissions by their names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<BTreeMap<String, Level>>,
}

/// How far a permission goes: each level has what the one before has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Reading.
    Read,
    /// Writing, too.
    Write,
    /// And administering.
    Admin,
}

/// Why a scope is none. Quotes no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// An empty list: whoever issues tokens takes it for everything.
    #[error("an empty list would mean all there is: name something, or leave the field out")]
    Empty,
    /// Too many.
    #[error("at most 500 repositories and 200 permissions")]
    TooMany,
    /// The same thing twice.
    #[error("a repository stands here twice; remove one")]
    Twice,
    /// Two ways to name repositories.
    #[error("name repositories by `repositories` or by `repository_ids`, not by both")]
    NamedTwice,
    /// Not the name of a repository.
    #[error("a repository is named without its owner: letters, digits, '.', '-' and '_', e.g. my-repo")]
    Repository,
    /// Not the name of a permission.
    #[error("a permission is named by small letters and '_', e.g. pull_requests")]
    Permission,
}

/// Why a scope is not within another. Names what is too much, which is no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWithin {
    /// A repository that the credential has not.
    #[error("repository {0} is not among the credential's")]
    Repository(String),
    /// One by its number.
    #[error("repository number {0} is not among the credential's")]
    RepositoryId(u64),
    /// Names against numbers.
    #[error("the credential names its repositories by {0}, and so must the session: nothing else can be compared")]
    OtherNames(&'static str),
    /// A permission that the credential has not, or not so far.
    #[error("permission {permission}: {level} is more than the credential has ({has})")]
    Permission {
        /// Its name.
        permission: String,
        /// How far it should go.
        level: Level,
        /// What the credential has: a level, or `none`.
        has: Cow<'static, str>,
    },
}

impl TokenScope {
    /// Whether it narrows nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is left of this scope for somebody who is to have no more than `by`. Never more than this scope has: what
    /// is not within it is an error.
    pub fn narrowed(&self, by: &Self) -> Result<Self, NotWithin> {
        self.has_repositories(by)?;
        for (permission, level) in by.permissions.iter().flatten() {
            self.has_permission(permission, *level)?;
        }
        let names_some = by.repositories.is_some() || by.repository_ids.is_some();
        let of = if names_some { by } else { self };
        Ok(Self {
            repositories: of.repositories.clone(),
            repository_ids: of.repository_ids.clone(),
            permissions: by.permissions.clone().or_else(|| self.permissions.clone()),
        })
    }

    fn has_repositories(&self, by: &Self) -> Result<(), NotWithin> {
        match (&self.repositories, &self.repository_ids) {
            (None, None) => Ok(()),
            (Some(_), _) if by.repository_ids.is_some() => Err(NotWithin::OtherNames("repositories")),
            (_, Some(_)) if by.repositories.is_some() => Err(NotWithin::OtherNames("repository_ids")),
            (Some(names), _) => {
                // As GitHub compares them.
                let has = |wanted: &&String| !names.iter().any(|name| name.eq_ignore_ascii_case(wanted));
                let more = by.repositories.iter().flatten().find(has);
                more.map_or(Ok(()), |name| Err(NotWithin::Repository(name.clone())))
            }
            (None, Some(ids)) => {
                let more = by.repository_ids.iter().flatten().find(|id| !ids.contains(id));
                more.map_or(Ok(()), |id| Err(NotWithin::RepositoryId(*id)))
            }
        }
    }

    fn has_permission(&self, permission: &str, level: Level) -> Result<(), NotWithin> {
        let Some(permissions) = &self.permissions else { return Ok(()) };
        let has = permissions.get(permission);
        if has.is_some_and(|has| *has >= level) {
            return Ok(());
        }
        let has = has.map_or("none", |has| has.as_str()).into();
        Err(NotWithin::Permission { permission: permission.to_owned(), level, has })
    }
}

impl Level {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Read => "read",
            Level::Write => "write",
            Level::Admin => "admin",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for TokenScope {
    /// For people: `one, two (contents: read)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.repositories, &self.repository_ids) {
            (Some(names), _) => f.write_str(&names.iter().map(String::as_str).collect::<Vec<_>>().join(", "))?,
            (None, Some(ids)) => {
                f.write_str(&ids.iter().map(|id| format!("repository {id}")).collect::<Vec<_>>().join(", "))?;
            }
            (None, None) => f.write_str("all repositories")?,
        }
        let Some(permissions) = &self.permissions else { return Ok(()) };
        let permissions: Vec<_> = permissions.iter().map(|(name, level)| format!("{name}: {level}")).collect();
        write!(f, " ({})", permissions.join(", "))
    }
}

/// As it is written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    #[serde(deserialize_with = "there")]
    repositories: Option<Vec<String>>,
    #[serde(deserialize_with = "there")]
    repository_ids: Option<Vec<u64>>,
    #[serde(deserialize_with = "there_once")]
    permissions: Option<BTreeMap<String, Level>>,
}

/// What is written has to say something: nothing, too, would mean everything.
fn there<'de, T: Deserialize<'de>, D: Deserializer<'de>>(input: D) -> Result<Option<T>, D::Error> {
    T::deserialize(input).map(Some)
}

/// The same of a map, in which nothing stands twice.
fn there_once<'de, D: Deserializer<'de>>(input: D) -> Result<Option<BTreeMap<String, Level>>, D::Error> {
    members_once(input).map(Some)
}

impl<'de> Deserialize<'de> for TokenScope {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        object::<Written, D>(input)?.try_into().map_err(serde::de::Error::custom)
    }
}

impl TryFrom<Written> for TokenScope {
    type Error = ScopeError;

    fn try_from(written: Written) -> Result<Self, ScopeError> {
        let Written { repositories, repository_ids, permissions } = written;
        if repositories.is_some() && repository_ids.is_some() {
            return Err(ScopeError::NamedTwice);
        }
        if repositories.iter().flatten().any(|name| !is_repository(name)) {
            return Err(ScopeError::Repository);
        }
        if let Some(permissions) = &permissions {
            bounded(permissions.len(), MOST_PERMISSIONS)?;
            if !permissions.keys().all(|name| is_permission(name)) {
                return Err(ScopeError::Permission);
            }
        }
        let repositories = repositories.map(once).transpose()?;
        Ok(Self { repositories, repository_ids: repository_ids.map(once).transpose()?, permissions })
    }
}

fn once<T: Ord>(written: Vec<T>) -> Result<BTreeSet<T>, ScopeError> {
    bounded(written.len(), MOST_REPOSITORIES)?;
    let length = written.len();
    let set: BTreeSet<T> = written.into_iter().collect();
    if set.len() == length { Ok(set) } else { Err(ScopeError::Twice) }
}

fn bounded(length: usize, most: usize) -> Result<(), ScopeError> {
    match length {
        0 => Err(ScopeError::Empty),
        length if length > most => Err(ScopeError::TooMany),
        _ => Ok(()),
    }
}

fn is_repository(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=100).contains(&name.len()) && name.bytes().all(plain) && !matches!(name, "." | "..")
}

fn is_permission(name: &str) -> bool {
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    begins && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

impl JsonSchema for TokenScope {
    fn schema_name() -> Cow<'static, str> {
        "TokenScope".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let list = |items: serde_json::Value| {
            let most = MOST_REPOSITORIES;
            serde_json::json!({"type": "array", "items": items, "minItems": 1, "maxItems": most, "uniqueItems": true})
        };
        schemars::json_schema!({
            "description": "Which repositories a token reaches, by name or by number, and with which permissions. \
                            Without a field: whatever there is.",
            "type": "object",
            "properties": {
                "repositories": list(serde_json::json!({"type": "string", "pattern": REPOSITORY})),
                "repository_ids": list(serde_json::json!({"type": "integer", "minimum": 0})),
                "permissions": {
                    "type": "object",
                    "propertyNames": {"pattern": PERMISSION},
                    "additionalProperties": {"enum": ["read", "write", "admin"]},
                    "minProperties": 1,
                    "maxProperties": MOST_PERMISSIONS,
                },
            },
            "not": {"required": ["repositories", "repository_ids"]},
            "additionalProperties": false,
        })
    }
}

/// Not what a derive says: names or numbers, never both, and no empty list.
impl PartialSchema for TokenScope {
    fn schema() -> RefOr<Schema> {
        let list = |items: ObjectBuilder| {
            let list = ArrayBuilder::new().items(items).min_items(Some(1)).max_items(Some(MOST_REPOSITORIES));
            list.unique_items(true)
        };
        let permissions = || {
            let each = AdditionalProperties::RefOr(Level::schema());
            let names = ObjectBuilder::new().schema_type(Type::String).pattern(Some(PERMISSION));
            let permissions = ObjectBuilder::new().additional_properties(Some(each)).property_names(Some(names));
            permissions.min_properties(Some(1)).max_properties(Some(MOST_PERMISSIONS))
        };
        let scope = |title: &str| {
            let scope = ObjectBuilder::new().description(Some(title)).property("permissions", permissions());
            scope.additional_properties(Some(AdditionalProperties::FreeForm(false)))
        };
        let name = ObjectBuilder::new().schema_type(Type::String).pattern(Some(REPOSITORY));
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(u64::MAX));
        let kinds = OneOfBuilder::new().description(Some("What a token may reach at most."));
        let kinds = kinds.item(scope("All the repositories that there are."));
        let named = scope("Repositories by their names.").property("repositories", list(name));
        let kinds = kinds.item(named.required("repositories"));
        let counted = scope("Repositories by their numbers.").property("repository_ids", list(number));
        kinds.item(counted.required("repository_ids")).into()
    }
}

impl ToSchema for TokenScope {}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(json: &str) -> TokenScope {
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
    }

    #[test]
    fn a_session_has_what_it_names_and_the_credentials_where_it_names_nothing() {
        let credential = scope(r#"{"repositories":["one","two"],"permissions":{"contents":"write","issues":"read"}}"#);
        assert_eq!(credential.narrowed(&scope("{}")).unwrap(), credential);
        let one = scope(r#"{"repositories":["one"]}"#);
        let narrowed = credential.narrowed(&one).unwrap();
        assert_eq!((&narrowed.repositories, &narrowed.permissions), (&one.repositories, &credential.permissions));
        let reading = scope(r#"{"permissions":{"contents":"read"}}"#);
        let narrowed = credential.narrowed(&reading).unwrap();
        assert_eq!(
            (narrowed.repositories, narrowed.permissions),
            (credential.repositories.clone(), reading.permissions)
        );
        let all = scope("{}");
        assert_eq!(all.narrowed(&scope(r#"{"repository_ids":[7]}"#)).unwrap(), scope(r#"{"repository_ids":[7]}"#));
        assert!(credential.narrowed(&scope(r#"{"repositories":["ONE"]}"#)).is_ok(), "names are compared without case");
    }

    /// Of every scope by every other: what is left reaches nothing that either of them does not.
    #[test]
    fn narrowing_never_widens() {
        let reached = [
            "{}",
            r#"{"repositories":["one"]}"#,
            r#"{"repositories":["one","two"]}"#,
            r#"{"repositories":["TWO"]}"#,
            r#"{"repository_ids":[1]}"#,
            r#"{"repository_ids":[1,2]}"#,
        ];
        let permitted = [
            "{}",
            r#"{"permissions":{"a":"read"}}"#,
            r#"{"permissions":{"a":"admin"}}"#,
            r#"{"permissions":{"b":"write"}}"#,
            r#"{"permissions":{"a":"write","b":"read"}}"#,
        ];
        let both = |one: &str, other: &str| TokenScope { permissions: scope(other).permissions, ..scope(one) };
        let all: Vec<_> = reached.iter().flat_map(|one| permitted.map(|other| both(one, other))).collect();
        let level = |scope: &TokenScope, (name, id): (&str, u64), permission: &str| {
            let names =
                scope.repositories.as_ref().is_none_or(|all| all.iter().any(|one| one.eq_ignore_ascii_case(name)));
            let ids = scope.repository_ids.as_ref().is_none_or(|all| all.contains(&id));
            let has = |all: &BTreeMap<String, Level>| all.get(permission).copied();
            if names && ids { scope.permissions.as_ref().map_or(Some(Level::Admin), has) } else { None }
        };
        let mut narrowed = 0;
        for (whole, by) in all.iter().flat_map(|whole| all.iter().map(move |by| (whole, by))) {
            let Ok(left) = whole.narrowed(by) else { continue };
            narrowed += 1;
            for (repository, permission) in
                [("one", 1), ("two", 2), ("three", 3)].into_iter().flat_map(|r| ["a", "b", "c"].map(|p| (r, p)))
            {
                let has = level(&left, repository, permission);
                assert!(has <= level(whole, repository, permission), "{whole:?} by {by:?}");
                assert!(has <= level(by, repository, permission), "{whole:?} by {by:?}");
            }
        }
        assert!((100..all.len() * all.len()).contains(&narrowed), "{narrowed}");
    }

    #[test]
    fn what_is_not_within_is_refused_and_named_and_write_has_read_and_admin_has_both() {
        let credential = scope(
            r#"{"repositories":["one","two"],"permissions":{"contents":"write","issues":"read","administration":"admin"}}"#,
        );
        for (by, why) in [
            (r#"{"repositories":["one","three"]}"#, "repository three is not among the credential's"),
            (r#"{"repository_ids":[1]}"#, "names its repositories by repositories"),
            (r#"{"permissions":{"contents":"admin"}}"#, "contents: admin is more than the credential has (write)"),
            (r#"{"permissions":{"issues":"write"}}"#, "issues: write is more than the credential has (read)"),
            (r#"{"permissions":{"pages":"read"}}"#, "pages: read is more than the credential has (none)"),
        ] {
            let said = credential.narrowed(&scope(by)).expect_err(by).to_string();
            assert!(said.contains(why), "{by}: {said}");
        }
        let numbers = scope(r#"{"repository_ids":[1,2]}"#);
        assert_eq!(numbers.narrowed(&scope(r#"{"repository_ids":[3]}"#)), Err(NotWithin::RepositoryId(3)));
        assert!(numbers.narrowed(&scope(r#"{"repositories":["one"]}"#)).is_err());
        for by in ["read", "write", "admin"] {
            assert!(credential.narrowed(&scope(&format!(r#"{{"permissions":{{"administration":"{by}"}}}}"#))).is_ok());
        }
        assert!(credential.narrowed(&scope(r#"{"permissions":{"contents":"read"}}"#)).is_ok());
    }

    #[test]
    fn narrowing_twice_never_gives_more_than_once() {
        let levels = [None, Some(Level::Read), Some(Level::Write), Some(Level::Admin)];
        let of = |level: Option<Level>| {
            let permissions = level.map(|level| BTreeMap::from([("contents".to_owned(), level)]));
            TokenScope { permissions, ..TokenScope::default() }
        };
        let height = |scope: &TokenScope| scope.permissions.as_ref().map_or(Level::Admin, |of| of["contents"]);
        for (has, by) in levels.iter().flat_map(|has| levels.iter().map(move |by| (of(*has), of(*by)))) {
            match has.narrowed(&by) {
                Ok(left) => assert!(height(&left) <= height(&has), "{has:?} by {by:?}"),
                Err(_) => assert!(height(&by) > height(&has), "{has:?} by {by:?}"),
            }
        }
    }

    #[test]
    fn what_cannot_be_read_in_full_is_refused() {
        let read = serde_json::from_str::<TokenScope>;
        for whole in [
            r#"{"repositories":["a.b-c_D","one"],"permissions":{"contents":"read","pull_requests":"write"}}"#,
            r#"{"repository_ids":[1,2]}"#,
            "{}",
        ] {
            assert_eq!(serde_json::to_string(&read(whole).unwrap()).unwrap(), whole, "what is stored reads back");
        }
        let many =
            format!(r#"{{"repository_ids":[{}]}}"#, (0..501).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
        for bad in [
            r#"{"repository":["a"]}"#,
            r#"{"repositories":null}"#,
            r#"{"permissions":null}"#,
            r#"{"repositories":[]}"#,
            r#"{"repository_ids":[]}"#,
            r#"{"permissions":{}}"#,
            r#"{"repositories":["a"],"repository_ids":[1]}"#,
            r#"{"repositories":["owner/a"]}"#,
            r#"{"repositories":[".."]}"#,
            r#"{"repositories":[""]}"#,
            r#"{"repositories":["a","a"]}"#,
            r#"{"repository_ids":[1,1]}"#,
            r#"{"repository_ids":[-1]}"#,
            r#"{"permissions":{"contents":"all"}}"#,
            r#"{"permissions":{"Contents":"read"}}"#,
            r#"{"permissions":["contents"]}"#,
            r#"{"permissions":{"contents":"write","contents":"read"}}"#,
            r#"{"permissions":{"contents":"read"},"permissions":{"contents":"read"}}"#,
            r#"[["a"]]"#,
            &many,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
