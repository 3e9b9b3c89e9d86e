//! Another key for what is sealed, or none. Whatever interrupts it, every file opens, and it goes on where it was.
//!
//! First every data key is sealed under the new means beside the old, then every file is moved, then, and only then, what
//! is not needed any more is given up.

use super::files::{self, Kind};
use super::keyring::{FILE, Kept, Keyring};
use super::unlock::{bound, lost};
use super::{Key, Means, MeansError, SealError, Sealer, UnlockError};
use crate::clock::Now;
use crate::config::Config;
use crate::private_file::PrivateDir;
use std::path::{Path, PathBuf};

/// What is to become of it.
pub struct Change<'a> {
    /// The instance.
    pub config: &'a Config,
    /// Its directory. Whoever calls holds its lock, and that of sealing.
    pub dir: &'a PrivateDir,
    /// By what it is sealed when this is over; `None`: by nothing.
    pub to: Option<&'a Means>,
    /// By what it may be sealed now, besides.
    pub from: &'a [Means],
    /// Whether there is to be another data key, and every file sealed anew.
    pub data_key: bool,
}

/// What has been done, as it is done: after each of these the disk has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Every data key opens by what is to be, and by what was.
    Wrapped,
    /// A file is what it is to be.
    Moved(PathBuf),
    /// What is not needed any more is given up.
    Ended,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// By what it is sealed now; `None`: by nothing.
    pub by: Option<String>,
    /// The data key.
    pub data_key: Option<String>,
    /// Files that were made anew.
    pub moved: usize,
    /// Plain files beside the config's: nobody said what they are.
    pub left: Vec<PathBuf>,
}

/// Changes it.
pub async fn rekey(change: &Change<'_>, step: &mut (dyn FnMut(Step) + Send)) -> Result<Done, UnlockError> {
    let Change { config, dir, to, .. } = *change;
    let keyring = Keyring::load(dir, &config.instance)?;
    let is_old = keyring.is_some();
    let Some((mut keyring, keys)) = (match (keyring, to) {
        (Some(keyring), _) => {
            let keys = open(change, &keyring).await?;
            Some((keyring, keys))
        }
        (None, None) => {
            lost(config)?;
            None
        }
        (None, Some(to)) => {
            lost(config)?;
            let data = Key::make()?;
            let wrap = to.wrap(&config.instance, &data).await?;
            Some((Keyring::begin(&config.instance, &data, wrap, Now::read().wall_ms), vec![data]))
        }
    }) else {
        return Ok(Done::default());
    };
    check_all(config, &sealer(config, &keyring.current, &keys)?)?;
    let before = keyring.clone();
    let keys = match to {
        Some(to) => {
            // Where two are there already, the newer was begun with, and not ended.
            let another = change.data_key && is_old && keyring.keys.len() == 1;
            let keys = wrapped(change, (&mut keyring, keys), to, another).await?;
            keyring.store(dir)?;
            step(Step::Wrapped);
            keys
        }
        None => keys,
    };
    let opens = sealer(config, &keyring.current, &keys)?;
    let seals = if to.is_some() { opens.clone() } else { Sealer::plain() };
    let (moved, left) = move_files(config, &seals, &opens, step)?;
    let done = Done { moved, left, ..Done::default() };
    let Some(to) = to else {
        dir.remove(FILE)?;
        step(Step::Ended);
        return Ok(done);
    };
    let id = keyring.current.clone();
    keyring.keys.retain(|kept| kept.id == id);
    keyring.keys.iter_mut().for_each(|kept| kept.wraps.retain(|wrap| wrap.by() == to.name()));
    if keyring != before {
        keyring.since_ms = Now::read().wall_ms;
        keyring.store(dir)?;
    }
    step(Step::Ended);
    Ok(Done { by: Some(to.name()), data_key: Some(id), ..done })
}

/// How files are read now, where keys that are at hand open them: nobody is asked.
pub async fn by_keys(config: &Config, keyring: &Keyring, means: &[&Means]) -> Result<Option<Sealer>, UnlockError> {
    let (mut current, mut others) = (None, Vec::new());
    for kept in &keyring.keys {
        for means in means.iter().filter(|means| matches!(means, Means::Key(..))) {
            match means.unwrap(&config.instance, kept).await? {
                Some(key) if kept.id == keyring.current => current = Some(key),
                Some(key) => others.push(key),
                None => continue,
            }
            break;
        }
    }
    Ok(current.map(|current| Sealer::new(bound(config), current, others)))
}

/// Every data key, by whatever opens it. One that nothing opens might have files.
async fn open(change: &Change<'_>, keyring: &Keyring) -> Result<Vec<Key>, UnlockError> {
    // What is asked over a network, last.
    let mut means: Vec<_> = change.to.into_iter().chain(change.from).collect();
    means.sort_by_key(|means| matches!(means, Means::Transit(_)));
    let mut keys = Vec::new();
    for kept in &keyring.keys {
        let mut found = None;
        for means in &means {
            found = means.unwrap(&change.config.instance, kept).await?;
            if found.is_some() {
                break;
            }
        }
        keys.push(found.ok_or_else(|| UnlockError::WrongKey {
            path: change.dir.path().join(FILE),
            by: kept.by(),
            configured: means.iter().map(|means| means.describe()).collect::<Vec<_>>().join(", "),
        })?);
    }
    Ok(keys)
}

/// Every data key sealed by what is to be, beside what it was sealed by; and another data key, if there is to be one.
async fn wrapped(
    change: &Change<'_>,
    (keyring, mut keys): (&mut Keyring, Vec<Key>),
    to: &Means,
    another: bool,
) -> Result<Vec<Key>, UnlockError> {
    let instance = &change.config.instance;
    if another {
        let (data, was) = (Key::make()?, keyring.by());
        let mut kept = Kept { id: data.id().to_owned(), wraps: Vec::new() };
        // It opens by the old key, too, until all is over: whoever goes back to that has every file.
        let old = |means: &&Means| matches!(means, Means::Key(..)) && was.contains(&means.name());
        for means in change.from.iter().filter(old).filter(|means| means.name() != to.name()) {
            kept.wraps.push(means.wrap(instance, &data).await?);
        }
        keyring.current = kept.id.clone();
        keyring.keys.push(kept);
        keys.push(data);
    }
    for (kept, key) in keyring.keys.iter_mut().zip(&keys) {
        let has = kept.wraps.iter().any(|wrap| wrap.by() == to.name());
        if has && matches!(to, Means::Key(..)) {
            continue;
        }
        let wrap = to.wrap(instance, key).await?;
        kept.wraps.retain(|old| !old.is_by_same(&wrap));
        kept.wraps.push(wrap);
    }
    Ok(keys)
}

/// Seals under one of these keys, and opens by each.
fn sealer(config: &Config, current: &str, keys: &[Key]) -> Result<Sealer, MeansError> {
    let damaged = || MeansError::Damaged(current.to_owned());
    let copy = |key: &Key| Key::of_slice(key.bytes()).map_err(|_| damaged());
    let (first, others): (Vec<_>, Vec<_>) = keys.iter().partition(|key| key.id() == current);
    let first = copy(first.first().ok_or_else(damaged)?)?;
    let others = others.into_iter().map(copy).collect::<Result<_, _>>()?;
    Ok(Sealer::new(bound(config), first, others))
}

/// Whether every file can be moved: found out before anything is changed.
fn check_all(config: &Config, opens: &Sealer) -> Result<(), UnlockError> {
    let mut strays = Vec::new();
    for file in files::all(config)? {
        match file.check(opens) {
            Ok(()) => {}
            Err(SealError::UnknownKey { .. }) if file.kind == Kind::Other => {}
            Err(SealError::Damaged { .. } | SealError::Newer(_)) if file.kind == Kind::Other => strays.push(file.path),
            Err(error) => return Err(error.into()),
        }
    }
    if strays.is_empty() { Ok(()) } else { Err(UnlockError::Strays(strays)) }
}

fn move_files(
    config: &Config,
    seals: &Sealer,
    opens: &Sealer,
    step: &mut (dyn FnMut(Step) + Send),
) -> Result<(usize, Vec<PathBuf>), UnlockError> {
    let (mut moved, mut left) = (0, Vec::new());
    files::leftovers(config)?.iter().try_for_each(|path| erase(path))?;
    for file in files::all(config)? {
        match file.settle(seals, opens) {
            Ok(true) => {
                moved += 1;
                step(Step::Moved(file.path.clone()));
            }
            Ok(false) => {}
            // Somebody else's: nothing of ours opens it, and nothing of ours is lost with it.
            Err(SealError::UnknownKey { .. }) if file.kind == Kind::Other => continue,
            Err(error) => return Err(error.into()),
        }
        file.check(seals)?;
        if file.kind == Kind::Other && file.form()? == Some(super::Form::Plain) {
            left.push(file.path);
        }
    }
    Ok((moved, left))
}

/// What a kill has left of a file that was being written.
fn erase(path: &Path) -> Result<(), UnlockError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    if let Some(dir) = PrivateDir::open(parent)? {
        dir.erase(name)?;
    }
    Ok(())
}
