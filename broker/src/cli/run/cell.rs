//! A cell: a child in user, mount, process, network and IPC namespaces of its own.
//!
//! Three processes make it. [`mod@outside`] leaves our namespaces and waits; [`mod@inside`] is the first process
//! of the new ones: it hides what is to be hidden, gives up every capability, and starts the command; and
//! ours, which is told over a socket of its own how that went. In there is no way to anywhere. What
//! listens on its loopback is a socket that was handed out to us: we accept, and carry to the proxy.
//!
//! The parts speak over the standard input of the first two, for that is a descriptor that is theirs
//! without unsafe code. The command gets the real one, which is handed in.

mod devices;
mod find;
mod hide;
mod inside;
mod kernel;
mod line;
mod loopback;
mod mounts;
mod outside;

pub use inside::inside;
pub use outside::outside;

use super::child::End;
use super::outfit::CaFile;
use crate::api::view::Outfit;
use find::{Directory, Found};
use line::Line;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Why a command is not isolated.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// What must be hidden holds what is needed.
    #[error("{} would be hidden, and {} lies in it: {what} must be elsewhere", hidden.display(), needed.display())]
    Needed {
        /// What is hidden.
        hidden: PathBuf,
        /// What lies in it.
        needed: PathBuf,
        /// What that is.
        what: &'static str,
    },
    /// Another directory than the broker's stands at its path.
    #[error(
        "{} is not the directory that the broker started with: something has taken its place. Look what it is, and \
         start the broker again",
        .0.display()
    )]
    Replaced(PathBuf),
    /// What it reaches depends on a link that the command could replace.
    #[error(
        "{} is reached by the link {}, which the command could replace: name it in the config, or in --hide, by the path \
         it has without links",
        hidden.display(), link.display()
    )]
    Link {
        /// What is to be hidden.
        hidden: PathBuf,
        /// The link on its way.
        link: PathBuf,
    },
    /// It cannot be looked at, and the command could open it again.
    #[error("{} cannot be hidden, for your user has shut a directory above it: open that (chmod u+rx)", .0.display())]
    Shut(PathBuf),
    /// Something that the kernel did not let us do.
    #[error("{step}: {cause}")]
    Refused {
        /// What.
        step: String,
        /// In the system's words.
        cause: String,
    },
    /// One of the parts has ended, or makes no sense.
    #[error("{0}")]
    Broken(#[from] io::Error),
}

/// What the first process is told before anything else.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Directories to hide.
    directories: Vec<Directory>,
    /// Those above them that could be moved away, those above others first.
    above: Vec<PathBuf>,
    /// Sockets and other files to hide.
    files: Vec<PathBuf>,
    /// Where the file of certificates is to be, alone in its directory.
    certificates: Option<PathBuf>,
    /// Where the proxy is to be found in there.
    proxy: SocketAddr,
}

impl Plan {
    /// What to hide from a child that finds the proxy at this address of its own loopback.
    pub fn new(
        outfit: &Outfit,
        more: &[PathBuf],
        ca_file: Option<&CaFile>,
        proxy: SocketAddr,
    ) -> Result<Self, CellError> {
        let of_broker = outfit.hidden_directories.iter().map(|directory| (&directory.path, directory.identity));
        let found = Found::look(of_broker.chain(more.iter().map(|path| (path, None))))?;
        let directories = found.directories();
        let needed = [
            ("the working directory", std::env::current_dir().ok()),
            ("your home directory", std::env::home_dir()),
            ("the directory for temporary files", Some(std::env::temp_dir())),
            ("the file of certificates", ca_file.map(|file| file.path().to_owned())),
        ];
        let hidden =
            || directories.iter().map(|directory| directory.path.as_path()).chain([devices::DIRECTORY.as_ref()]);
        for (what, needed) in needed {
            let Some(needed) = needed.and_then(|path| path.canonicalize().ok()) else { continue };
            if let Some(hidden) = hidden().find(|hidden| needed.starts_with(hidden)) {
                return Err(CellError::Needed { hidden: hidden.to_owned(), needed, what });
            }
        }
        let files = find::sockets().into_iter().chain(found.files);
        let files = files.filter(|file| !hidden().any(|hidden| file.starts_with(hidden)));
        Ok(Self {
            files: files.collect(),
            above: find::above(&directories),
            certificates: ca_file.map(|file| file.dir().to_owned()),
            directories,
            proxy,
        })
    }
}

/// What a cell is told.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// To begin; the command's standard input comes with it, and then the certificates.
    Begin(Plan),
    /// To pass a signal on to the command.
    Signal(i32),
    /// To say whether the command stands.
    Ask,
}

/// What a cell tells.
#[derive(Debug, Serialize, Deserialize)]
pub enum Told {
    /// All is hidden; the socket on the loopback comes with it.
    Ready,
    /// It could not be made.
    Failed {
        /// What could not be done.
        step: String,
        /// Why.
        cause: String,
    },
    /// The command has stopped.
    Stopped,
    /// Whether it stands now.
    Stands(bool),
    /// It has ended.
    Ended(End),
}

/// What comes over the line.
type Message = io::Result<(Told, Vec<OwnedFd>)>;

/// A child in a cell.
pub struct Confined {
    line: Arc<Line>,
    told: mpsc::UnboundedReceiver<Message>,
    outside: std::process::Child,
}

/// Makes a cell, and starts the command in it. Answers with what listens on the cell's loopback.
pub async fn start(
    mut command: Command,
    plan: Plan,
    ca_file: Option<&CaFile>,
) -> Result<(Confined, TcpListener), CellError> {
    let (ours, theirs) = line::pair()?;
    let outside = command.stdin(theirs).spawn()?;
    // The command holds the other end of the line, too.
    drop(command);
    let line = Arc::new(ours);
    let mut confined = Confined { told: listen(line.clone()), line, outside };
    let stdin = io::stdin();
    // Whoever does not hear it any more has said why.
    let with: Vec<_> = [stdin.as_fd()].into_iter().chain(ca_file.map(CaFile::nameless)).collect();
    let begun = confined.line.send(&Order::Begin(plan), &with);
    let (told, with) = confined.told_with().await?;
    match (told, with.into_iter().next()) {
        (Told::Ready, Some(listener)) => {
            begun?;
            let listener = std::net::TcpListener::from(listener);
            listener.set_nonblocking(true)?;
            Ok((confined, TcpListener::from_std(listener)?))
        }
        (Told::Failed { step, cause }, _) => Err(CellError::Refused { step, cause }),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
    }
}

/// A thread that waits for messages: a socket of this kind is nothing that the executor knows.
fn listen(line: Arc<Line>) -> mpsc::UnboundedReceiver<Message> {
    let (tell, told) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        loop {
            let message = line.receive();
            let over = message.is_err();
            if tell.send(message).is_err() || over {
                return;
            }
        }
    });
    told
}

impl Confined {
    /// What it tells next.
    pub async fn told(&mut self) -> io::Result<Told> {
        self.told_with().await.map(|(told, _)| told)
    }

    async fn told_with(&mut self) -> Message {
        self.told.recv().await.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
    }

    /// Passes a signal on to the command. One that is gone needs none.
    pub fn signal(&self, number: i32) {
        let _ = self.line.send(&Order::Signal(number), &[]);
    }

    /// Asks whether the command stands.
    pub fn ask(&self) {
        let _ = self.line.send(&Order::Ask, &[]);
    }
}

impl Drop for Confined {
    /// With its parent ends the first process in there, and with that one all.
    fn drop(&mut self) {
        let _ = self.outside.kill();
        let _ = self.outside.wait();
    }
}
