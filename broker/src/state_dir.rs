//! The instance's own directory: its key, its token, its lock, and what it tells other commands.
//!
//! One process at a time holds it. Nothing in it is followed, read or written unless it is ours
//! alone ([`crate::private_file`]).

use crate::config::Config;
use crate::private_file::{PrivateDir, PrivateError};
use crate::random::{self, NoRandomness};
use crate::seal::unlock::{First, UnlockError, Unlocked, settle, unlock};
use crate::seal::{Safe, SealError, Sealer};
use crate::sources::Environment;
use attache_core::Secret;
use attache_core::digest::{self, hex};
use attache_core::names::Name;
use attache_core::placeholder::Shape;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

const KEY: &str = "instance.key";
const TOKEN: &str = "data-plane.token";
const TOKEN_SDS: &str = "data-plane-token.sds.json";
const LOCK: &str = "lock";
const RUNTIME: &str = "runtime.json";
/// Where things are kept that can be made anew, in the state directory.
pub const CACHE: &str = "cache";
/// What a broker makes after its key: where one of these is, the key has been, too. Not `seal.json`, which `attache
/// credential set` makes before a first start.
const LATER: [&str; 6] = ["attache.db", TOKEN, "audit.key", "audit.pub", "ca.key", "ca.pem"];
/// The name under which Envoy asks for the token.
pub const TOKEN_SECRET_NAME: &str = "attache_data_plane";

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Something in it is not ours alone, or cannot be read or written.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// Another process holds it.
    #[error("{path} is in use by process {pid}: stop it, or choose another --instance-id")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who holds it, as far as it said.
        pid: String,
    },
    /// The lock can be neither taken nor found taken.
    #[error("{path}: {cause}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A key or token that is not what we wrote.
    #[error(
        "{0} is damaged: restore it from a backup (a token may be removed for a new one, and then Envoy has to start anew)"
    )]
    Damaged(PathBuf),
    /// A key that was there, and is not.
    #[error(
        "{path} is not there, and {beside} is: restore it from a backup of the same instance; to begin anew, with other \
         placeholders, move the whole directory aside"
    )]
    Missing {
        /// The key.
        path: PathBuf,
        /// What shows that it was there.
        beside: &'static str,
    },
    /// A file is sealed, and is not opened.
    #[error(transparent)]
    Seal(SealError),
    /// What is sealed does not open.
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    /// Another directory, or none, where this one was.
    #[error("{0} is no longer the directory that this broker has locked")]
    Gone(PathBuf),
    /// No new key.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl From<SealError> for StateDirError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Private(error) => Self::Private(error),
            error => Self::Seal(error),
        }
    }
}

/// The key under which this instance mints placeholders and fingerprints secrets.
pub struct InstanceKey(Zeroizing<[u8; 32]>);

impl InstanceKey {
    /// A key from its bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The placeholder of (session, credential).
    pub fn mint(&self, shape: &Shape, session_id: &str, credential: &str) -> String {
        shape.mint(&self.0, session_id, credential)
    }

    /// The fingerprint of a secret.
    pub fn fingerprint(&self, secret: &Secret) -> String {
        digest::fingerprint(&self.0, secret)
    }
}

/// What a running broker tells operators, in `runtime.json`. No command goes looking for it: it is
/// read where `--runtime` names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// The instance.
    pub instance: Name,
    /// The broker's process.
    pub pid: u32,
    /// The data plane's URL: `http://ADDRESS:PORT`, or `unix:PATH`.
    pub url: String,
    /// The same, as filters' Envoys dial it: `ADDRESS:PORT`, or `unix:PATH`.
    pub data_plane: String,
    /// Where probes and Prometheus ask, if they may: `ADDRESS:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<SocketAddr>,
    /// The operator's socket.
    pub control: PathBuf,
    /// The audit log.
    pub audit: PathBuf,
    /// What can be made anew.
    pub cache_dir: PathBuf,
}

/// The directory, locked, before anything in it is opened.
pub struct Locked {
    dir: PrivateDir,
    lock: Lock,
}

/// The directory, locked for as long as this lives.
pub struct StateDir {
    safe: Safe,
    _lock: Lock,
    key: Arc<InstanceKey>,
    token: Secret,
    lived: bool,
}

impl Locked {
    /// Opens (or begins) an instance's directory and takes its lock.
    pub fn take(path: &Path) -> Result<Self, StateDirError> {
        let dir = PrivateDir::open_or_create(path)?;
        let lock = lock(&dir)?;
        Ok(Self { dir, lock })
    }

    /// The directory itself.
    pub fn dir(&self) -> &PrivateDir {
        &self.dir
    }

    /// Opens what is in it, and seals of its own what is plain.
    pub fn open(self, config: &Config, sealer: Sealer) -> Result<StateDir, StateDirError> {
        settle(config, &self.dir, &sealer)?;
        self.open_as(sealer)
    }

    fn open_as(self, sealer: Sealer) -> Result<StateDir, StateDirError> {
        let Self { dir, lock } = self;
        let safe = Safe::new(dir, sealer);
        let key = Arc::new(InstanceKey(instance_key(&safe)?));
        let dir = safe.dir();
        let lived = dir.path().join(TOKEN).exists();
        let token = token(dir)?;
        dir.create_dir("secrets")?;
        dir.create_dir(CACHE)?;
        Ok(StateDir { safe, _lock: lock, key, token, lived })
    }
}

impl StateDir {
    /// Opens (or begins) the directory of an instance that is not sealed.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        Locked::take(path)?.open_as(Sealer::plain())
    }

    /// Opens (or begins) the directory of an instance, by whatever seals it. Waits for an OpenBao that is away.
    pub async fn unlock(config: &Config, environment: &Environment) -> Result<(Self, Unlocked), StateDirError> {
        let locked = Locked::take(&config.state_dir)?;
        let unlocked = unlock(locked.dir(), config, environment, First::Make).await?;
        environment.seal(unlocked.sealer.clone());
        let state_dir = locked.open(config, unlocked.sealer.clone())?;
        Ok((state_dir, unlocked))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir().path()
    }

    /// The directory itself, for what is not secret.
    pub fn dir(&self) -> &PrivateDir {
        self.safe.dir()
    }

    /// The directory, for what is.
    pub fn safe(&self) -> &Safe {
        &self.safe
    }

    /// Where things are kept that can be made anew.
    pub fn cache_dir(&self) -> PathBuf {
        self.path().join(CACHE)
    }

    /// The instance's key.
    pub fn key(&self) -> Arc<InstanceKey> {
        self.key.clone()
    }

    /// What every call on the data plane must present.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// Whether a broker has lived here before: only then can a filter know the token already.
    pub fn has_lived(&self) -> bool {
        self.lived
    }

    /// Whether the path still leads to this directory, ours alone, with the token that Envoy shows.
    pub fn check(&self) -> Result<(), StateDirError> {
        let path = self.path();
        let found = PrivateDir::open(path)?.filter(|found| found.is_same(self.dir()));
        let found = found.ok_or_else(|| StateDirError::Gone(path.to_owned()))?;
        // Exposed to the comparison with its own file.
        let kept = found.read(TOKEN, 64)?.is_some_and(|kept| kept.as_slice() == self.token.expose().as_bytes());
        if kept { Ok(()) } else { Err(StateDirError::Damaged(path.join(TOKEN))) }
    }

    /// Tells other commands where the broker listens.
    pub fn announce(&self, runtime: &Runtime) -> Result<(), PrivateError> {
        self.dir().replace(RUNTIME, &json(runtime))
    }

    /// Takes the announcement back.
    pub fn withdraw(&self) -> Result<(), PrivateError> {
        self.dir().remove(RUNTIME)
    }
}

struct Lock(File);

impl Drop for Lock {
    /// Unlocks, rather than closes: a child that is being spawned at this moment still has the
    /// descriptor, and closing ours alone would leave the directory locked until it has its program.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// What the broker of this state directory announced; `Ok(None)` when none runs.
pub fn announced(path: &Path) -> Result<Option<Runtime>, PrivateError> {
    let Some(dir) = PrivateDir::open(path)? else { return Ok(None) };
    let text = dir.read(RUNTIME, 64 * 1024)?;
    Ok(text.and_then(|text| parse_runtime(&text)))
}

/// An announcement as it was written, by this version.
pub fn parse_runtime(text: &[u8]) -> Option<Runtime> {
    serde_json::from_slice(text).ok()
}

fn lock(dir: &PrivateDir) -> Result<Lock, StateDirError> {
    let path = dir.path().join(LOCK);
    let failed = |cause| StateDirError::Lock { path: path.clone(), cause };
    let file = dir.open_file(LOCK, OFlags::RDWR | OFlags::CREATE)?;
    let mut file = file.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = (&file).take(20).read_to_string(&mut pid);
            let pid = if pid.is_empty() { "(unknown)".to_owned() } else { pid };
            return Err(StateDirError::InUse { path: dir.path().to_owned(), pid });
        }
        Err(TryLockError::Error(cause)) => return Err(failed(cause)),
    }
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    written.map_err(failed)?;
    Ok(Lock(file))
}

fn instance_key(safe: &Safe) -> Result<Zeroizing<[u8; 32]>, StateDirError> {
    if let Some(bytes) = safe.read(KEY, 32)? {
        let key = <[u8; 32]>::try_from(bytes.as_slice());
        return key.map(Zeroizing::new).map_err(|_| StateDirError::Damaged(safe.dir().path().join(KEY)));
    }
    let is_there = |name: &&str| safe.dir().path().join(name).symlink_metadata().is_ok();
    if let Some(beside) = LATER.into_iter().find(|name| is_there(name)) {
        return Err(StateDirError::Missing { path: safe.dir().path().join(KEY), beside });
    }
    let key = Zeroizing::new(random::bytes::<32>()?);
    safe.replace(KEY, key.as_slice())?;
    Ok(key)
}

fn token(dir: &PrivateDir) -> Result<Secret, StateDirError> {
    let damaged = || StateDirError::Damaged(dir.path().join(TOKEN));
    let token = match dir.read(TOKEN, 64)? {
        Some(bytes) => {
            let text = std::str::from_utf8(&bytes).ok().filter(|t| t.len() == 64 && is_hex(t));
            Secret::new(text.ok_or_else(damaged)?)
        }
        None => {
            let token = Secret::new(hex(&*Zeroizing::new(random::bytes::<32>()?)));
            // Exposed to the file that is its home.
            dir.replace(TOKEN, token.expose().as_bytes())?;
            token
        }
    };
    let sds = sds(&token);
    // Envoy reads the file again whenever it is replaced: only when it has to be.
    let unchanged = dir.read(TOKEN_SDS, 4096)?.is_some_and(|found| found.as_slice() == sds.as_slice());
    if !unchanged {
        dir.replace(TOKEN_SDS, &sds)?;
    }
    Ok(token)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The token as Envoy's `credential_injector` reads it: an SDS answer with one generic secret.
fn sds(token: &Secret) -> Zeroizing<Vec<u8>> {
    // Exposed to Envoy, which adds it to the filter's calls.
    let value = Zeroizing::new(format!("Bearer {}", token.expose()));
    Zeroizing::new(json(&serde_json::json!({"resources": [{
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": TOKEN_SECRET_NAME,
        "generic_secret": {"secret": {"inline_string": *value}},
    }]})))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Plain structs and maps with text keys cannot fail to serialise.
    serde_json::to_vec_pretty(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn key_and_token_are_made_once_and_private() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("deep/er");
        let first = StateDir::open(&path).unwrap();
        let shape = Shape::new("", 40);
        let minted = first.key().mint(&shape, "s", "c");
        let token = first.token().clone();
        drop(first);
        let second = StateDir::open(&path).unwrap();
        assert_eq!(second.key().mint(&shape, "s", "c"), minted);
        assert_eq!(second.token().expose(), token.expose());
        assert_eq!(mode(&path), 0o700);
        for name in [KEY, TOKEN, TOKEN_SDS, LOCK] {
            assert_eq!(mode(&path.join(name)), 0o600, "{name}");
        }
        assert_eq!((mode(&path.join("secrets")), mode(&path.join(CACHE))), (0o700, 0o700));
    }

    #[test]
    fn envoy_finds_the_token_in_its_file() {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::open(&temp.path().join("i")).unwrap();
        let text = std::fs::read(temp.path().join("i").join(TOKEN_SDS)).unwrap();
        let sds: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let secret = &sds["resources"][0];
        assert_eq!(secret["name"], "attache_data_plane");
        assert_eq!(
            secret["generic_secret"]["secret"]["inline_string"].as_str(),
            Some(format!("Bearer {}", state.token().expose()).as_str())
        );
    }

    #[test]
    fn a_second_holder_is_refused_and_told_who_is_first() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("i");
        let first = StateDir::open(&path).unwrap();
        let error = StateDir::open(&path).err().unwrap().to_string();
        assert!(error.contains(&format!("process {}:", std::process::id())), "{error}");
        drop(first);
        assert!(StateDir::open(&path).is_ok());
    }

    #[test]
    fn a_descriptor_that_a_child_still_has_holds_no_lock() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("i");
        let state = StateDir::open(&path).unwrap();
        let inherited = state._lock.0.try_clone().unwrap();
        drop(state);
        assert!(StateDir::open(&path).is_ok());
        drop(inherited);
    }

    #[test]
    fn damaged_and_foreign_keys_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("i");
        drop(StateDir::open(&path).unwrap());
        for (name, content) in [(KEY, "short"), (TOKEN, "not hex")] {
            let before = std::fs::read(path.join(name)).unwrap();
            std::fs::write(path.join(name), content).unwrap();
            assert!(matches!(StateDir::open(&path), Err(StateDirError::Damaged(_))), "{name}");
            std::fs::write(path.join(name), before).unwrap();
        }
        let elsewhere = temp.path().join("elsewhere");
        std::fs::rename(path.join(KEY), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, path.join(KEY)).unwrap();
        assert!(matches!(StateDir::open(&path), Err(StateDirError::Private(PrivateError::Symlink(_)))));
    }

    #[test]
    fn a_key_that_is_gone_from_a_directory_that_has_lived_is_never_made_anew() {
        for beside in LATER {
            let temp = tempfile::tempdir().unwrap();
            let path = temp.path().join("i");
            PrivateDir::open_or_create(&path).unwrap().replace(beside, b"it has lived").unwrap();
            let error = StateDir::open(&path).err().unwrap().to_string();
            for words in ["instance.key is not there", beside, "restore it from a backup", "move the whole directory"] {
                assert!(error.contains(words), "{words}: {error}");
            }
            assert!(!path.join(KEY).exists());
        }
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("i");
        drop(StateDir::open(&path).unwrap());
        std::fs::remove_file(path.join(TOKEN)).unwrap();
        assert!(StateDir::open(&path).is_ok(), "a token is made anew");
    }

    #[test]
    fn an_announcement_lasts_until_it_is_withdrawn() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("i");
        let state = StateDir::open(&path).unwrap();
        let runtime = Runtime {
            instance: Name::parse("i").unwrap(),
            pid: 1,
            url: "http://127.0.0.1:1".into(),
            data_plane: "127.0.0.1:1".into(),
            health: None,
            control: "c".into(),
            audit: "a".into(),
            cache_dir: state.cache_dir(),
        };
        state.announce(&runtime).unwrap();
        assert_eq!(announced(&path).unwrap(), Some(runtime));
        state.withdraw().unwrap();
        assert_eq!(announced(&path).unwrap(), None);
    }
}
