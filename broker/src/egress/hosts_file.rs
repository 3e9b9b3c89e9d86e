//! `/etc/hosts`, read as the system's own resolver reads it: what it names is not looked for elsewhere.

use hickory_resolver::Hosts;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// The file, read anew when it changes.
pub(super) struct HostsFile {
    path: PathBuf,
    read: Mutex<Option<(Stamp, Arc<Hosts>)>>,
}

/// What a file changes with its content.
type Stamp = (SystemTime, u64);

impl HostsFile {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), read: Mutex::default() }
    }

    /// The addresses of a name; none if the file does not say, or cannot be read.
    pub async fn addresses(&self, name: &Name) -> Vec<IpAddr> {
        let Some(hosts) = self.content().await else { return Vec::new() };
        let of = |kind| hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(of);
        let address = |lookup: hickory_resolver::lookup::Lookup| {
            lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>()
        };
        found.flat_map(address).collect()
    }

    async fn content(&self) -> Option<Arc<Hosts>> {
        let meta = tokio::fs::metadata(&self.path).await.ok()?;
        let stamp = (meta.modified().ok()?, meta.len());
        if let Some((known, hosts)) = &*self.read.lock().unwrap_or_else(PoisonError::into_inner)
            && *known == stamp
        {
            return Some(hosts.clone());
        }
        let text = tokio::fs::read(&self.path).await.ok()?;
        let mut hosts = Hosts::default();
        if let Err(error) = hosts.read_hosts_conf(text.as_slice()) {
            tracing::warn!(path = %self.path.display(), %error, "cannot be understood");
            return None;
        }
        let hosts = Arc::new(hosts);
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some((stamp, hosts.clone()));
        Some(hosts)
    }
}
