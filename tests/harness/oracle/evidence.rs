//! Who is who: which session each placeholder and session token belongs to, as the operator's
//! commands told the test, and which the JWTs and connections that the test itself has made; and which
//! of them a request showed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// In every placeholder and every session token.
const MARKER: &[u8] = b"ATTACHE";

/// Everything that the test knows about who is who.
#[derive(Clone, Default)]
pub struct Evidence(Arc<Mutex<Vec<Known>>>);

/// Something that names a session.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) text: String,
    pub(super) kind: Kind,
    /// The session's name.
    pub(super) session: String,
    /// When the command that ended the session had returned.
    pub(super) over: Option<Instant>,
}

/// What the text of a [`Known`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A placeholder or session token, under this variable: says which credential it stands for.
    Given(String),
    /// A JWT. It stands for no credential.
    Jwt,
    /// Part of the label of connections whose peer or listener names the session, where a request
    /// shows nothing by itself.
    Connection,
}

impl Evidence {
    /// This session's agent has this, in this variable.
    pub fn add(&self, session: &str, variable: &str, text: &str) {
        self.know(session, Kind::Given(variable.to_owned()), text);
    }

    /// This JWT names this session.
    pub fn jwt(&self, session: &str, token: &str) {
        self.know(session, Kind::Jwt, token);
    }

    /// Connections whose label has this part are of this session's agent.
    pub fn connection(&self, session: &str, label: &str) {
        self.know(session, Kind::Connection, label);
    }

    fn know(&self, session: &str, kind: Kind, text: &str) {
        let mut all = self.all();
        if !all.iter().any(|known| known.text == text) {
            let [text, session] = [text, session].map(str::to_owned);
            all.push(Known { text, kind, session, over: None });
        }
    }

    /// The session is over, and its end acknowledged: whoever of this name comes later is another.
    pub fn ended(&self, session: &str) {
        let now = Instant::now();
        for known in self.all().iter_mut().filter(|known| known.session == session) {
            known.over.get_or_insert(now);
        }
    }

    pub(super) fn known(&self) -> Vec<Known> {
        self.all().clone()
    }

    fn all(&self) -> MutexGuard<'_, Vec<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything in a request that looks like a placeholder or a session token, in base64 too.
pub(super) fn shown(sent: &[u8]) -> BTreeSet<String> {
    let words = sent.split(|byte| byte.is_ascii_whitespace() || *byte == b',');
    let decoded = words.filter_map(|word| STANDARD.decode(word).ok());
    std::iter::once(sent.to_vec()).chain(decoded).flat_map(|text| marked(&text)).collect()
}

/// The runs of token characters around each marker.
fn marked(text: &[u8]) -> Vec<String> {
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
    let runs = text.split(|byte| !inside(byte)).filter(|run| memchr::memmem::find(run, MARKER).is_some());
    runs.map(|run| String::from_utf8_lossy(run).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_shows_is_found_wherever_it_stands() {
        let basic = STANDARD.encode("me:ghp_ATTACHEb");
        let head = format!(
            "GET /?key=ATTACHEa HTTP/1.1\r\nAuthorization: Basic {basic}\r\nCookie: x=1;y=ATTACHEc\r\n\
             X-Attache-Session: attache-session_ATTACHEd\r\n\r\n"
        );
        let expected = ["ATTACHEa", "ATTACHEc", "attache-session_ATTACHEd", "ghp_ATTACHEb"];
        assert_eq!(shown(head.as_bytes()).into_iter().collect::<Vec<_>>(), expected);
        assert!(shown(b"GET / HTTP/1.1\r\n\r\n").is_empty());
    }
}
