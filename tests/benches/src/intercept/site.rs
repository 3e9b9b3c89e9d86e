//! What all ways share: the upstreams, who vouches for them, and the hosts that lead there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::trust::{Authority, HTTP1, HTTP2};
use super::upstream::Upstream;

/// What the upstream must receive, and no client holds.
pub const SECRET: &str = "ghp_secret0of0the0bench0and0nobody0else0";
/// For everything that is not a first handshake.
pub const KNOWN: &str = "known.bench.test";
/// Its credential is not masked in answers.
pub const UNMASKED: &str = "unmasked.bench.test";
/// Leads to the upstream that speaks HTTP/2.
pub const OVER_HTTP2: &str = "h2.bench.test";
/// Leads to somebody else, for whom another authority vouches.
pub const IMPOSTOR: &str = "impostor.bench.test";

/// The upstreams.
#[derive(Debug)]
pub struct Site {
    /// Speaks HTTP/1.1.
    pub upstream: Upstream,
    /// Speaks HTTP/2.
    pub http2: Upstream,
    /// Shows a certificate of an authority that nobody trusts.
    pub impostor: Upstream,
    /// The authority of the other two.
    pub pem: String,
    /// The same in a file.
    pub ca_file: PathBuf,
    /// Names that nobody has asked for: each is for one first handshake.
    pub unheard: Vec<String>,
}

impl Site {
    /// Starts them.
    pub fn start(dir: &Path, names: usize) -> Result<Self> {
        let (authority, other) = (Authority::new()?, Authority::new()?);
        let ca_file = dir.join("upstream-ca.pem");
        fs::write(&ca_file, &authority.pem)?;
        let any = "*.bench.test";
        Ok(Self {
            upstream: Upstream::start(authority.server(any, HTTP1)?)?,
            http2: Upstream::start(authority.server(any, HTTP2)?)?,
            impostor: Upstream::start(other.server(any, HTTP1)?)?,
            pem: authority.pem,
            ca_file,
            unheard: (0..names).map(|n| format!("h{n:04}.bench.test")).collect(),
        })
    }

    /// The hosts of the masked credential, and the port that each leads to.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, u16)> {
        let unheard = self.unheard.iter().map(|host| (host.as_str(), self.upstream.port));
        let others = [(KNOWN, self.upstream.port), (OVER_HTTP2, self.http2.port), (IMPOSTOR, self.impostor.port)];
        unheard.chain(others)
    }
}
