//! Everything as a user who is nobody in particular: for root alone, who can become one.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use attache_tests::stack::SOON;
use attache_tests::{Attache, Stack, stack, util};

/// What becomes that user.
pub const BECOME: [&str; 6] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];

/// A broker of theirs.
pub struct Broker(Child);

impl Drop for Broker {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Makes a path theirs, with all that is in it.
pub fn is_given(path: &Path) {
    let mut all = vec![path.to_owned()];
    while let Some(path) = all.pop() {
        chown(&path, Some(65534), Some(65534)).expect("root");
        if path.is_dir() {
            all.extend(std::fs::read_dir(&path).expect("a directory").flatten().map(|entry| entry.path()));
        }
    }
}

/// Makes all of a stack theirs, and its broker.
pub async fn owns(stack: &Stack<Attache>) -> Broker {
    stack.broker.kill();
    is_given(stack.dir());
    let mut serve = Command::new(BECOME[0]);
    serve.args(&BECOME[1..]).arg(util::broker_bin()).args(["serve", "--config"]).arg(stack.site.config_path());
    serve.env("QUERY_KEY", stack::QUERY).stderr(Stdio::null());
    let broker = Broker(serve.spawn().expect("a broker"));
    let control = stack.config.listen.control.clone();
    util::eventually(SOON, || std::os::unix::net::UnixStream::connect(&control).is_ok()).await;
    broker
}
