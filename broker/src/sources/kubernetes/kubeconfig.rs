//! A kubeconfig, and the files that it names, where nobody else could have written them: it says which file is sent to
//! which server.

use super::error::KubernetesError;
use kube_client::config::Kubeconfig;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// No kubeconfig is longer, in bytes.
const MOST: u64 = 1 << 20;

/// Why it cannot be used.
type Why = &'static str;

/// Reads a kubeconfig, by one opening of it.
pub fn read(file: &Path) -> Result<Kubeconfig, KubernetesError> {
    whole(file).map_err(|why| KubernetesError::Kubeconfig(file.to_owned(), why))
}

fn whole(file: &Path) -> Result<Kubeconfig, Why> {
    const ABSENT: Why = "there is none, or the broker's user may not read it";
    let (Some(parent), Some(name)) = (file.parent(), file.file_name()) else { return Err(ABSENT) };
    let dir = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let dir = File::from(dir.map_err(|_| ABSENT)?);
    // O_NONBLOCK: opening a FIFO must not wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = openat(&dir, name, flags, Mode::empty()).map_err(|why| match why {
        Errno::LOOP => "it is a symbolic link: name the file itself, so that its own directory is kept from agents",
        Errno::NXIO => "it is no regular file",
        _ => ABSENT,
    })?;
    let opened = File::from(opened);
    let found = opened.metadata().map_err(|_| ABSENT)?;
    if !found.is_file() {
        return Err("it is no regular file");
    }
    is_ours(&found, "others may write it: chmod go-w it")?;
    is_ours(&dir.metadata().map_err(|_| ABSENT)?, "others may write its directory: chmod go-w that")?;
    // All its room at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(found.len().min(MOST) as usize + 1));
    opened.take(MOST + 1).read_to_end(&mut bytes).map_err(|_| ABSENT)?;
    // Its own error may quote it.
    let text = std::str::from_utf8(&bytes).ok().filter(|_| bytes.len() as u64 <= MOST);
    text.and_then(|text| Kubeconfig::from_yaml(text).ok()).ok_or("it is no kubeconfig, or longer than 1 MiB")
}

/// Root's or our own, and writable by nobody else.
fn is_ours(found: &Metadata, writable: Why) -> Result<(), Why> {
    let us = rustix::process::geteuid().as_raw();
    if ![0, us].contains(&found.uid()) {
        return Err("it, or its directory, belongs neither to root nor to the broker's user: chown it");
    }
    if found.mode() & 0o022 == 0 { Ok(()) } else { Err(writable) }
}

/// Judges each file that one user and one cluster name, and names them by where they really are: a link may lead
/// elsewhere later.
pub fn settle(of: &Path, written: &mut Kubeconfig, cluster: &str, user: Option<&str>) -> Result<(), KubernetesError> {
    let dir = of.parent().unwrap_or(of);
    let settled = |named: &mut Option<String>, member: Why, is_secret: bool| {
        let Some(file) = named else { return Ok::<_, KubernetesError>(()) };
        let wrong = |why| KubernetesError::Named(of.to_owned(), member, why);
        let real = vetted(dir, Path::new(file), is_secret).map_err(wrong)?;
        *file = real.into_os_string().into_string().map_err(|_| wrong("is not named in UTF-8"))?;
        Ok(())
    };
    let clusters = written.clusters.iter_mut().filter(|one| one.name == cluster);
    for cluster in clusters.filter_map(|one| one.cluster.as_mut()) {
        settled(&mut cluster.certificate_authority, "certificate-authority", false)?;
    }
    let users = written.auth_infos.iter_mut().filter(|one| Some(one.name.as_str()) == user);
    for user in users.filter_map(|one| one.auth_info.as_mut()) {
        settled(&mut user.token_file, "tokenFile", true)?;
        settled(&mut user.client_key, "client-key", true)?;
        settled(&mut user.client_certificate, "client-certificate", true)?;
    }
    Ok(())
}

/// Where a file really is, if nobody else could have written it. What makes us somebody lies below the kubeconfig's
/// directory, which agents never see.
fn vetted(dir: &Path, file: &Path, is_secret: bool) -> Result<PathBuf, Why> {
    const ABSENT: Why = "is not there, or the broker's user may not read it";
    let dir = dir.canonicalize().map_err(|_| ABSENT)?;
    let real = dir.join(file).canonicalize().map_err(|_| ABSENT)?;
    let is_below = real.starts_with(&dir);
    if is_secret && !is_below {
        return Err(
            "lies outside of its directory: put it there (kubectl config view --raw --flatten --minify writes \
                    one file with all that it needs)",
        );
    }
    let found = real.metadata().map_err(|_| ABSENT)?;
    if !found.is_file() {
        return Err("is no regular file");
    }
    const WRITABLE: Why = "is a file, or in a directory, that others may write: chmod go-w it";
    const FOREIGN: Why = "is a file, or in a directory, that belongs neither to root nor to the broker's user";
    let judge = |found: &Metadata| is_ours(found, WRITABLE).map_err(|why| if why == WRITABLE { why } else { FOREIGN });
    judge(&found)?;
    let around = real.ancestors().skip(1).take_while(|one| !is_below || one.starts_with(&dir));
    for one in around.take(if is_below { usize::MAX } else { 1 }) {
        judge(&one.metadata().map_err(|_| ABSENT)?)?;
    }
    Ok(real)
}
