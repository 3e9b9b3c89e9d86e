//! A mesh's authority, and volumes as a kubelet mounts them: links to a directory that is swapped whole.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::ca::Leaf;
use crate::{Ca, util};
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use tempfile::TempDir;

/// The broker's SPIFFE ID.
pub const BROKER: &str = "spiffe://cluster.local/ns/attache/sa/attache-broker";
/// An egress gateway's: it may ask for every session.
pub const GATEWAY: &str = "spiffe://cluster.local/ns/attache-egress/sa/attache-egress";
/// A sidecar's, for the session `writer`, and for `pinned`, where a test has one.
pub const SIDECAR: &str = "spiffe://cluster.local/ns/agents/sa/writer";
/// A sidecar's, for the session `reader` alone.
pub const READER: &str = "spiffe://cluster.local/ns/agents/sa/reader";
/// The name that clients of these tests expect in a server's certificate.
pub const SERVER: &str = "attache-broker.attache.svc";

/// A certificate of the broker's.
pub fn broker_leaf(ca: &Ca) -> Leaf {
    ca.issue_with(&[SERVER], |params| {
        params.subject_alt_names.push(SanType::URI(BROKER.try_into().expect("a URI")));
    })
}

/// A client's certificate with these URIs.
pub fn client_leaf(ca: &Ca, uris: &[&str]) -> Leaf {
    ca.issue_with(&[], |params| {
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("a URI"))).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    })
}

/// A directory of files that change together: `tls.crt` is a link to `..data/tls.crt`, and `..data` one to a
/// directory, as with a Secret's volume.
pub struct Volume {
    dir: TempDir,
    times: AtomicUsize,
}

impl Volume {
    /// `tls.crt` and `tls.key` of a leaf, and `ca.crt`.
    pub fn of(leaf: &Leaf, ca: &str) -> Self {
        let volume = Self { dir: util::temp_dir(), times: AtomicUsize::new(0) };
        volume.swap(leaf, ca);
        volume
    }

    /// Other files from now on, all at once.
    pub fn swap(&self, leaf: &Leaf, ca: &str) {
        let (certificate, key) = leaf.pems();
        self.put(&[("tls.crt", certificate, 0o644), ("tls.key", key, 0o640), ("ca.crt", ca, 0o644)]);
    }

    /// The same with files of these contents and modes.
    pub fn put(&self, files: &[(&str, &str, u32)]) {
        let name = format!("..2026_{}", self.times.fetch_add(1, Ordering::Relaxed));
        let fresh = self.path().join(&name);
        std::fs::create_dir(&fresh).expect("a directory");
        std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o755)).expect("a mode");
        for (file, text, mode) in files {
            std::fs::write(fresh.join(file), text).expect("a file");
            std::fs::set_permissions(fresh.join(file), PermissionsExt::from_mode(*mode)).expect("a mode");
            let link = self.path().join(file);
            if !link.is_symlink() {
                symlink(Path::new("..data").join(file), link).expect("a link");
            }
        }
        let beside = self.path().join("..data_tmp");
        symlink(&name, &beside).expect("a link");
        std::fs::rename(beside, self.path().join("..data")).expect("swapped");
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// A file in it, for a config.
    pub fn file(&self, name: &str) -> String {
        format!("'{}'", self.path().join(name).display())
    }
}
