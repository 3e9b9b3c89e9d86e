//! Which files are secret: the broker's own in its state directory, and those below `sources.file.dir`.

use super::envelope::{Form, form};
use super::{SealError, Sealer, own};
use crate::config::handed::SecretAt;
use crate::config::rotation::{ANSWER, SIDES, beside};
use crate::config::{Config, Lookup, SealedBy};
use crate::private_file::{PrivateDir, PrivateError};
use rustix::fs::OFlags;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The broker's own. What Envoy reads itself, the data plane's token, cannot be among them.
pub const OWN: [&str; 3] = ["instance.key", "audit.key", "ca.key"];
/// No secret file is longer, in bytes, sealed or not: the authorities, for many names.
pub const LONGEST: usize = 8 << 20;
/// By so many bytes it shows what a file is.
const HEAD: usize = 64;
/// Directories below `sources.file.dir` are so deep at most.
const DEEPEST: usize = 8;

/// One secret file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is bound to.
    place: String,
    /// What becomes of it.
    pub kind: Kind,
}

/// What becomes of a file where there is a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The broker's own: it seals it when it starts.
    Own,
    /// An operator's, which the config names: sealed when he says so.
    Named,
    /// Another one beside them: left as it is, but never left behind under a key that is given up.
    Other,
    /// What opens everything else is reached with it: it stays plain.
    Plain,
}

impl SecretFile {
    /// What it is; `None`: it is not there.
    pub fn form(&self) -> Result<Option<Form>, PrivateError> {
        let Some((dir, name)) = self.split()? else { return Ok(None) };
        let Some(file) = dir.open_file(&name, OFlags::RDONLY)? else { return Ok(None) };
        let mut head = Zeroizing::new(Vec::with_capacity(HEAD));
        let read = file.take(HEAD as u64).read_to_end(&mut head);
        read.map_err(|cause| PrivateError::Io { path: self.path.clone(), cause })?;
        Ok(Some(form(&head)))
    }

    /// Makes it what `sealer` would have made of it. Whether it had to be.
    pub fn settle(&self, sealer: &Sealer, opens: &Sealer) -> Result<bool, SealError> {
        let Some((dir, name)) = self.split()? else { return Ok(false) };
        let plain = Sealer::plain();
        let sealer = match self.kind {
            Kind::Own | Kind::Named => sealer,
            Kind::Other if matches!(self.form()?, Some(Form::Plain) | None) => return Ok(false),
            Kind::Other => sealer,
            Kind::Plain => &plain,
        };
        sealer.settle(&dir, &name, &self.place, opens)
    }

    /// Whether it opens, if it is sealed.
    pub fn check(&self, opens: &Sealer) -> Result<(), SealError> {
        let Some((dir, name)) = self.split()? else { return Ok(()) };
        let is_plain = matches!(self.form()?, Some(Form::Plain) | None);
        if is_plain { Ok(()) } else { opens.check(&dir, &name, &self.place) }
    }

    fn split(&self) -> Result<Option<(PrivateDir, String)>, PrivateError> {
        let name = self.path.file_name().and_then(|name| name.to_str());
        let (Some(parent), Some(name)) = (self.path.parent(), name) else {
            return Err(PrivateError::NotAFile(self.path.clone()));
        };
        Ok(PrivateDir::open(parent)?.map(|dir| (dir, name.to_owned())))
    }
}

/// Under which name a file is written before it is in place.
pub fn leftover(name: &str) -> String {
    format!(".{name}.new")
}

/// The broker's own files.
pub fn of_broker(config: &Config) -> Vec<SecretFile> {
    let file = |name: &&str| SecretFile { path: config.state_dir.join(name), place: own(name), kind: Kind::Own };
    OWN.iter().map(file).collect()
}

/// All secret files of an instance that are there.
pub fn all(config: &Config) -> Result<Vec<SecretFile>, PrivateError> {
    let mut found: Vec<_> = of_broker(config).into_iter().filter(|file| file.path.symlink_metadata().is_ok()).collect();
    // `sources.file.dir` may be the state directory itself.
    let mut taken: BTreeSet<_> = found.iter().filter_map(|file| file.path.canonicalize().ok()).collect();
    let mut below = Vec::new();
    list(&config.sources.file_dir, DEEPEST, &mut below)?;
    below.retain(|path| !is_leftover(path));
    let plain = plain(config);
    let named: BTreeSet<_> = named(config).collect();
    // By path as well: what is sealed and read there is to be found there, however it lies.
    below.extend(named.iter().filter(|path| path.symlink_metadata().is_ok_and(|found| found.is_file())).cloned());
    for path in below.into_iter().filter(|path| path.canonicalize().is_ok_and(|path| taken.insert(path))) {
        let kind = match &plain {
            Some(plain) if *plain == path => Kind::Plain,
            _ if named.contains(&path) => Kind::Named,
            _ => Kind::Other,
        };
        // As `Sealer` has it.
        let below = path.strip_prefix(&config.sources.file_dir).ok().and_then(Path::to_str);
        let Some(name) = below.or_else(|| path.file_name()?.to_str()) else { continue };
        found.push(SecretFile { place: format!("secrets/{name}"), path, kind });
    }
    Ok(found)
}

/// The secret files that the config names, and what a rotation keeps beside them.
fn named(config: &Config) -> impl Iterator<Item = PathBuf> {
    let lookups = config.credentials.iter().flat_map(|credential| &credential.lookup).filter_map(Lookup::file);
    let own = config.own_secrets().filter_map(private);
    let files = lookups.chain(own).map(Path::to_owned);
    // What a command prints there it writes itself.
    let kept = SIDES.into_iter().filter(|side| *side != ANSWER);
    files.flat_map(move |file| kept.clone().map(|side| beside(&file, side)).chain([file.clone()]).collect::<Vec<_>>())
}

fn private(at: &SecretAt) -> Option<&Path> {
    if let SecretAt::Private(path) = at { Some(path) } else { None }
}

/// What logs in to the OpenBao that opens everything else.
fn plain(config: &Config) -> Option<PathBuf> {
    config.seal.as_ref().and_then(SealedBy::own_secret).and_then(private).map(Path::to_owned)
}

/// What kills have left of files that were being written: whole secrets, perhaps, of files that are no more.
pub fn leftovers(config: &Config) -> Result<Vec<PathBuf>, PrivateError> {
    let mut found = Vec::new();
    list(&config.sources.file_dir, DEEPEST, &mut found)?;
    let io = |cause| PrivateError::Io { path: config.state_dir.clone(), cause };
    if let Some(dir) = PrivateDir::open(&config.state_dir)? {
        for entry in std::fs::read_dir(dir.path()).map_err(io)? {
            let entry = entry.map_err(io)?;
            if entry.file_type().map_err(io)?.is_file() {
                found.push(entry.path());
            }
        }
    }
    let named: BTreeSet<_> = named(config).collect();
    let found: BTreeSet<_> = found.into_iter().filter(|path| is_leftover(path) && !named.contains(path)).collect();
    Ok(found.into_iter().collect())
}

fn is_leftover(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.len() > ".new".len() + 1 && name.starts_with('.') && name.ends_with(".new"))
}

/// Regular files, in order. What is not looked through is an error: a key might be given up that a file there needs.
fn list(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), PrivateError> {
    let io = |cause| PrivateError::Io { path: path.to_owned(), cause };
    let Some(dir) = PrivateDir::open(path)? else { return Ok(()) };
    let mut entries: Vec<_> = std::fs::read_dir(dir.path()).map_err(io)?.collect::<Result<_, _>>().map_err(io)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type().map_err(io)?;
        let path = entry.path();
        if kind.is_file() {
            found.push(path);
        } else if kind.is_symlink() && path.is_dir() {
            return Err(PrivateError::Symlink(path));
        } else if kind.is_dir() {
            let deeper = depth.checked_sub(1).ok_or_else(|| too_deep(path.clone()))?;
            list(&path, deeper, found)?;
        }
    }
    Ok(())
}

fn too_deep(path: PathBuf) -> PrivateError {
    let words = format!("directories of secrets are {DEEPEST} deep at most: move this one further up, or away");
    PrivateError::Io { path, cause: std::io::Error::other(words) }
}
