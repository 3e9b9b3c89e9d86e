//! The judge: reads a bounded body and says what it found; it decides nothing.
//!
//! It stands before the gate and holds headers, body and trailers until the body is whole (or too
//! large), writes what it read into filter state, and lets the request on to the gate, which alone
//! knows what the session may do. A request that reaches the gate without the judge's word is one
//! whose body nobody read, and is refused where a rule needs it.
//!
//! Its entry in Envoy's chain has `allow_on_headers_stop_iteration: true`: any callback that
//! returns `Continue` releases the request, so all three are implemented here.

use crate::flow::{BODY, BODY_TOO_LARGE, BODY_WHOLE};
use crate::host::{self, Buffer, Map};
use attache_core::refusal::{REASON_HEADER, Reason};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

/// One request before the judge.
pub struct Judge {
    limit: usize,
    size: usize,
    state: State,
}

enum State {
    Reading,
    Said,
    Answered,
}

impl Judge {
    pub fn new(limit: usize) -> Self {
        Self { limit, size: 0, state: State::Reading }
    }

    /// Whether the head says that the body will be too long to read. Envoy holds agents to it.
    fn announces_too_much(&self) -> bool {
        let length = host::header(Map::Request, "content-length").ok().flatten();
        let length = length.and_then(|digits| std::str::from_utf8(&digits).ok()?.parse::<u64>().ok());
        length.is_some_and(|length| length > self.limit as u64)
    }

    /// Says what was read and lets the request on, or answers it if that cannot be said.
    fn say(&mut self, word: &[u8]) -> Action {
        if host::set_property(BODY, word).is_ok() {
            self.state = State::Said;
            return Action::Continue;
        }
        self.state = State::Answered;
        let reason = Reason::Internal;
        let lines: [(&str, &[u8]); 2] =
            [("content-type", b"application/json"), (REASON_HEADER, reason.as_str().as_bytes())];
        if host::respond(reason.status(), reason.as_str(), &lines, reason.body(b"").as_bytes()).is_err() {
            log::error!("envoy refused a local response");
        }
        Action::Pause
    }

    fn say_whole(&mut self) -> Action {
        let mut word = vec![BODY_WHOLE];
        if self.size > 0 {
            match host::buffer(Buffer::RequestBody, self.size) {
                Ok(body) if body.len() == self.size => word.extend_from_slice(&body),
                // Nothing said: the gate takes the body for unread.
                _ => word.clear(),
            }
        }
        self.say(&word)
    }
}

impl Context for Judge {}

impl HttpContext for Judge {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        #[cfg(feature = "trap")]
        crate::trap::spring("judge_request_headers");
        if end_of_stream {
            self.say_whole()
        } else if matches!(host::header(Map::Request, "upgrade"), Ok(Some(_))) {
            // No body follows, but another protocol, once somebody has agreed to it.
            self.say(&[])
        } else if self.announces_too_much() {
            // Before Envoy buffers any of it: what comes in one burst on top of that would be a 413.
            self.say(&[BODY_TOO_LARGE])
        } else {
            Action::Pause
        }
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        #[cfg(feature = "trap")]
        crate::trap::spring_later("judge_request_body");
        match self.state {
            State::Said => return Action::Continue,
            State::Answered => return Action::Pause,
            State::Reading => self.size = size,
        }
        if size > self.limit {
            self.say(&[BODY_TOO_LARGE])
        } else if end_of_stream {
            self.say_whole()
        } else {
            Action::Pause
        }
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        #[cfg(feature = "trap")]
        crate::trap::spring_later("judge_request_trailers");
        match self.state {
            State::Said => Action::Continue,
            State::Answered => Action::Pause,
            // Trailers end the body.
            State::Reading => self.say_whole(),
        }
    }
}
