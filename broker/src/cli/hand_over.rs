//! What an Envoy elsewhere needs of this broker, in one directory that both have: bootstraps, filter, token and
//! certificates, beside the data plane's socket. Nothing else of the broker is in it.
//!
//! It is written anew at every start, from the config that the broker runs on: the two cannot drift.

use crate::config::{Config, Endpoint};
use crate::doctor::{EnvoyConfig, Unsafe, vet};
use crate::envoy::find::{self, NotFound};
use crate::envoy::{self, ADMIN_SOCKET, Admin, Machine, Shape, TOKEN_FILE, Version};
use crate::private_file::{PrivateDir, PrivateError};
use clap::ValueEnum as _;
use std::io;
use std::path::{Path, PathBuf};

/// What the names of kept filters begin with.
pub const KEPT: &str = "attache_filter.";
/// What the names of kept files of certificates begin with.
const AUTHORITIES: &str = "authorities.";
/// A token's file is far smaller.
const TOKEN_BYTES: usize = 4096;

/// Why the filter cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It cannot be read.
    #[error("the filter {}: {cause}. --filter or ATTACHE_FILTER names another", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is another one.
    #[error(
        "the filter {} is not the one with this --filter-sha256: name that one with --filter, or leave the digest out",
        .0.display()
    )]
    Other(PathBuf),
    /// Where it is kept.
    #[error(transparent)]
    Private(#[from] PrivateError),
}

/// Why nothing is handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// Envoy would not find the broker.
    #[error("listen.data_plane is unix:{}, which Envoy does not have: write unix:{}/data-plane.sock", path.display(), dir.display())]
    DataPlane {
        /// The socket.
        path: PathBuf,
        /// The directory that Envoy has.
        dir: PathBuf,
    },
    /// Envoy would show no certificate, and believe anybody.
    #[error("{}", super::envoy_config::NO_CERTIFICATE)]
    NoEnvoy,
    /// Envoy would have what is the operator's.
    #[error("{what} {} is in --envoy-dir, which Envoy has: it is for the broker and its operator alone", path.display())]
    Exposed {
        /// What is there.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// A file of certificates.
    #[error("{}: {cause}", path.display())]
    Authorities {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The broker has written no token.
    #[error("there is no {TOKEN_FILE} in {}", .0.display())]
    NoToken(PathBuf),
    /// A bootstrap that cannot be written.
    #[error("the bootstrap cannot be written")]
    Unwritable,
    /// The filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The filter, or the system's certificates.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// A file that is not ours alone.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// A bootstrap that breaks a promise.
    #[error("the generated bootstrap is unsafe, and was not written:\n{0}")]
    Unsafe(#[from] Unsafe),
}

/// The directory, before the broker starts: without a bootstrap, so that no Envoy starts on an old one.
pub struct HandOver {
    dir: PrivateDir,
    envoy: Version,
}

impl HandOver {
    /// Prepares the directory.
    pub fn prepare(path: &Path, envoy: Version, config: &Config) -> Result<Self, HandOverError> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        match &config.listen.data_plane {
            Endpoint::Unix(socket) if socket.parent() != Some(&path) => {
                return Err(HandOverError::DataPlane { path: socket.clone(), dir: path });
            }
            Endpoint::Tls(door) if door.envoy.is_none() => return Err(HandOverError::NoEnvoy),
            _ => {}
        }
        let operators = [
            ("the control socket", &config.listen.control),
            ("the state directory", &config.state_dir),
            ("the audit log", &config.audit.path),
        ];
        if let Some((what, at)) = operators.into_iter().find(|(_, at)| at.starts_with(&path)) {
            return Err(HandOverError::Exposed { what, path: at.clone() });
        }
        let dir = PrivateDir::open_or_create(&path)?;
        for shape in Shape::value_variants() {
            dir.remove(&bootstrap_file(*shape))?;
        }
        Ok(Self { dir, envoy })
    }

    /// Writes all of it, now that the broker is there: the bootstraps last, for Envoy starts on them.
    pub fn complete(&self, config: &Config, warn: impl FnMut(&str)) -> Result<(), HandOverError> {
        let mut warn = warn;
        let mut config = config.clone();
        let system_roots = self.keep_authorities(&find::system_roots()?)?;
        for credential in &mut config.credentials {
            let upstreams = credential.destinations.iter_mut().filter_map(|one| one.upstream.as_mut());
            for file in upstreams.filter_map(|upstream| upstream.ca_file.as_mut()) {
                *file = self.keep_authorities(file)?;
            }
        }
        let (filter, filter_sha256) = keep_filter(&find::filter()?, None, &self.dir)?;
        let token = self.keep_token(&config.state_dir)?;
        let admin = Admin::Unix(self.dir.path().join(ADMIN_SOCKET));
        let machine = Machine { filter, filter_sha256, system_roots, token, admin, envoy: self.envoy, listener: None };
        let policy = config.policy();
        for shape in Shape::value_variants() {
            // One that this Envoy cannot serve is no reason to keep the other back.
            if let Err(error) = self.envoy.check(*shape) {
                warn(&error.to_string());
                continue;
            }
            let bootstrap = envoy::bootstrap(*shape, &config, &policy, &machine);
            vet(&EnvoyConfig::from_bootstrap(&bootstrap), |finding| warn(&finding.to_string()))?;
            let lacks = self.envoy.lacks(*shape, &config.sessions);
            lacks.iter().for_each(|lacks| warn(lacks));
            let text = envoy::to_yaml(&bootstrap, &lacks).ok_or(HandOverError::Unwritable)?;
            self.dir.replace(&bootstrap_file(*shape), text.as_bytes())?;
        }
        Ok(())
    }

    /// A copy under a name that holds its digest. What an Envoy that runs may still read is left there.
    fn keep_authorities(&self, path: &Path) -> Result<PathBuf, HandOverError> {
        let read = std::fs::read(path);
        let pem = read.map_err(|cause| HandOverError::Authorities { path: path.to_owned(), cause })?;
        let name = format!("{AUTHORITIES}{}.pem", find::sha256(&pem));
        self.dir.replace(&name, &pem)?;
        Ok(self.dir.path().join(name))
    }

    /// The token as Envoy reads it. It looks again whenever the file is replaced: only when it has to be.
    fn keep_token(&self, state_dir: &Path) -> Result<PathBuf, HandOverError> {
        let none = || HandOverError::NoToken(state_dir.to_owned());
        let ours = PrivateDir::open(state_dir)?.ok_or_else(none)?;
        let token = ours.read(TOKEN_FILE, TOKEN_BYTES)?.ok_or_else(none)?;
        let unchanged = self.dir.read(TOKEN_FILE, TOKEN_BYTES)?.is_some_and(|found| *found == *token);
        if !unchanged {
            self.dir.replace(TOKEN_FILE, &token)?;
        }
        Ok(self.dir.path().join(TOKEN_FILE))
    }
}

/// `gateway.yaml`, `forward-proxy.yaml`.
fn bootstrap_file(shape: Shape) -> String {
    let name = shape.to_possible_value();
    format!("{}.yaml", name.as_ref().map_or("envoy", |value| value.get_name()))
}

/// Copies the filter into a directory of ours, under a name that holds its digest: what was digested is what
/// runs, whatever becomes of the file. Its path there, and its digest.
pub fn keep_filter(
    path: &Path,
    wanted: Option<String>,
    dir: &PrivateDir,
) -> Result<(PathBuf, Option<String>), FilterError> {
    let module = std::fs::read(path).map_err(|cause| FilterError::Unreadable { path: path.to_owned(), cause })?;
    let sha256 = find::sha256(&module);
    if wanted.is_some_and(|wanted| wanted != sha256) {
        return Err(FilterError::Other(path.to_owned()));
    }
    let name = format!("{KEPT}{sha256}.wasm");
    let listed = std::fs::read_dir(dir.path()).into_iter().flatten().flatten();
    for other in listed.filter_map(|entry| entry.file_name().into_string().ok()) {
        if other.starts_with(KEPT) && other != name {
            dir.remove(&other)?;
        }
    }
    dir.replace(&name, &module)?;
    Ok((dir.path().join(name), Some(sha256)))
}
