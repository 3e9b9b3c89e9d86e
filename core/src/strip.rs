//! Headers and parameters in which one service takes a credential, beside those that are known of all
//! ([`AUTH_HEADERS`](crate::evidence::AUTH_HEADERS), [`AUTH_PARAMETERS`](crate::evidence::AUTH_PARAMETERS)):
//! too plain to be taken out everywhere, as Gemini's `?key=` is.

use crate::companion::is_telling;
use crate::headers::{Line, is_same_variable};
use crate::injection::{header::may_be_set, query::is_name};
use crate::matching::query;
use crate::policy::StripSpec;
use crate::request::Snapshot;

/// What one destination takes out besides, checked.
#[derive(Clone, Debug, Default)]
pub struct Strip {
    headers: Vec<Vec<u8>>,
    parameters: Vec<Vec<u8>>,
}

/// Why something cannot be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StripError {
    /// No header, or one that is not the agent's, or by which the request would be another.
    #[error("`strip`: not a header in which an agent could send a credential")]
    Header,
    /// No parameter that has one spelling.
    #[error("`strip`: a parameter's name is made of letters, digits, `-`, `_` and `.`")]
    Parameter,
}

impl Strip {
    /// Checks what a config wrote.
    pub fn compile(spec: &StripSpec) -> Result<Self, StripError> {
        let header = |name: &String| {
            let name = name.to_ascii_lowercase();
            let fits = may_be_set(&name) && !is_telling(name.as_bytes());
            fits.then(|| name.into_bytes()).ok_or(StripError::Header)
        };
        let parameter = |name: &String| is_name(name).then(|| name.clone().into_bytes()).ok_or(StripError::Parameter);
        Ok(Self {
            headers: spec.headers.iter().map(header).collect::<Result<_, _>>()?,
            parameters: spec.query.iter().map(parameter).collect::<Result<_, _>>()?,
        })
    }

    /// Whether a header of this lower-case name is taken out, in any spelling that a server may take for it.
    pub fn takes_header(&self, name: &[u8]) -> bool {
        self.headers.iter().any(|known| is_same_variable(name, known))
    }

    /// Whether a parameter is taken out, in any spelling of its name.
    pub fn takes_parameter(&self, name: &[u8]) -> bool {
        self.parameters.iter().any(|known| query::resembles(name, known))
    }

    /// Whether a parameter is written exactly so: where a placeholder may stand.
    pub fn names_parameter(&self, name: &[u8]) -> bool {
        self.parameters.iter().any(|known| known == name)
    }

    /// The lines of a request that are taken out. Where there can be none, none is looked at.
    pub fn lines(&self, snapshot: &Snapshot) -> Vec<Line> {
        if self.headers.is_empty() {
            return Vec::new();
        }
        snapshot.lines().filter(|line| self.takes_header(line.name.of(snapshot.bytes()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::test;

    fn compile(headers: &[&str], query: &[&str]) -> Result<Strip, StripError> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Strip::compile(&StripSpec { headers: owned(headers), query: owned(query) })
    }

    #[test]
    fn what_makes_the_request_cannot_be_taken_out() {
        for header in ["", "a b", ":path", "Host", "content-type", "X-Request-Id", "x-attache-session", "range"] {
            assert_eq!(compile(&[header], &[]).unwrap_err(), StripError::Header, "{header}");
        }
        for header in ["x-http-method-override", "x-original-url", "transfer-encoding", "x-forwarded-for"] {
            assert_eq!(compile(&[header], &[]).unwrap_err(), StripError::Header, "{header}");
        }
        for parameter in ["", "a=b", "a&b", "%6bey", "a;b", "a b", "a[]"] {
            assert_eq!(compile(&[], &[parameter]).unwrap_err(), StripError::Parameter, "{parameter}");
        }
        assert!(compile(&["X-Own-Key"], &["key"]).unwrap().takes_header(b"x-own-key"));
    }
}
