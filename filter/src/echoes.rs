//! What comes back: headers, body and trailers, each masked before it goes on.
//!
//! Envoy keeps what is held back: a chunk that may end within a secret waits in its buffer, masked as
//! far as is known, until the next one or the end. So trailers, which end a body without a last
//! chunk, have nothing to wait for. Where chunk after chunk ends so, more would wait than the buffer takes:
//! then all goes on but what may be a secret's beginning, which the VM keeps for the next chunk.

use crate::host::{self, Buffer, Map};
use crate::record::details;
use crate::shared::Shared;
use attache_core::masking::websocket::{self, Frames};
use attache_core::masking::{self, Masker, Stream};
use attache_core::refusal::{REASON_HEADER, Reason};
use attache_core::request::Upgrade;
use proxy_wasm::types::Action;

/// Envoy's details of an answer that an upstream gave (`ResponseCodeDetails::ViaUpstream`).
const VIA_UPSTREAM: &[u8] = b"via_upstream";

/// So much of what waits in Envoy's buffer may be copied for one answer: eight times what the buffer holds.
const MOST_COPIED: usize = 8 << 20;

/// More than this does not wait in Envoy's buffer, which takes 256 KiB over HTTP/2 in a bootstrap of ours, and cuts what
/// is longer.
const MOST_WAITING: usize = 64 << 10;

/// Nor does more than this wait at all: half of what that buffer takes, for a chunk comes on top of it.
const MOST_HELD: usize = 128 << 10;

/// What is known of one answer.
#[derive(Default)]
pub struct Echoes {
    /// How often the credential came back.
    pub masked: u64,
    /// Its status, if it went on as it came: the record need not ask for it again.
    pub status: Option<u16>,
    stream: Stream,
    /// What comes instead of a body once WebSocket is spoken.
    frames: Option<Frames>,
    /// How much of the body waits in Envoy's buffer.
    waiting: usize,
    /// The end of what went on, which may begin a secret: it comes before the next chunk.
    kept: Vec<u8>,
    /// How much of what waits was copied to mask a piece of it.
    copied: usize,
    /// Whether nothing more of it may go on.
    stopped: bool,
}

/// A piece of an answer.
pub enum Piece {
    /// Its head, and whether that is all.
    Head(bool),
    /// How much of the body is there, what waits included, and whether that is all.
    Body(usize, bool),
    /// Its trailers.
    Trailers,
}

/// What a piece may do next.
enum Onward {
    Go,
    Wait,
    /// Never: it cannot be searched.
    Unreadable,
}

impl Shared {
    /// Masks a piece of an answer. What cannot be masked goes no further: the answer is replaced
    /// while its head is here, and cut after that.
    pub fn answered(&self, context: u32, piece: Piece) -> Action {
        self.with_flow(context, |flow| {
            let is_head = matches!(piece, Piece::Head(_));
            if self.ends_here(flow, is_head) {
                return Action::Pause;
            }
            let Some(masker) = flow.grant().and_then(|grant| grant.masker.clone()) else {
                let taken = match piece {
                    Piece::Head(_) if flow.is_released() => take_reason_if_any(Map::Response),
                    Piece::Trailers if flow.is_released() => take_reason_if_any(Map::ResponseTrailers),
                    _ => Ok(()),
                };
                if taken.is_ok() {
                    return Action::Continue;
                }
                self.stop(flow, Reason::Internal, is_head);
                return Action::Pause;
            };
            if flow.echoes.stopped {
                return Action::Pause;
            }
            let onward = match piece {
                Piece::Head(last) => {
                    let bodiless = last || flow.snapshot.method() == b"HEAD";
                    let may_switch = flow.snapshot.upgrade() == Upgrade::WebSocket;
                    flow.echoes.head(&masker, bodiless, may_switch)
                }
                Piece::Body(size, last) => flow.echoes.body(&masker, size, last),
                Piece::Trailers => flow.echoes.trailers(&masker),
            };
            let reason = match onward {
                Ok(Onward::Go) => return Action::Continue,
                Ok(Onward::Wait) => return Action::Pause,
                Ok(Onward::Unreadable) => Reason::ResponseUnreadable,
                Err(_) => Reason::Internal,
            };
            flow.echoes.stopped = true;
            self.stop(flow, reason, is_head);
            Action::Pause
        })
    }
}

/// Takes out what an upstream says in the words in which we say why a request was refused. Envoy says it by the
/// bootstrap: where it has no way to the upstream, or where the assertion behind this filter lets nothing pass.
fn take_reason(map: Map) -> host::Result<()> {
    if details() == VIA_UPSTREAM { host::remove_from(map, REASON_HEADER.as_bytes()) } else { Ok(()) }
}

/// The same, where nobody has looked yet whether it says so.
fn take_reason_if_any(map: Map) -> host::Result<()> {
    if host::header(map, REASON_HEADER)?.is_some() { take_reason(map) } else { Ok(()) }
}

/// A piece of the body, all of it: what Envoy does not hand over was not searched.
fn whole(start: usize, size: usize) -> host::Result<Vec<u8>> {
    let piece = host::part(Buffer::ResponseBody, start, size)?;
    if piece.len() == size { Ok(piece) } else { Err(host::SHORT) }
}

impl Echoes {
    fn head(&mut self, masker: &Masker, bodiless: bool, may_switch: bool) -> host::Result<Onward> {
        let pairs = host::header_pairs(Map::Response)?;
        self.frames = (may_switch && websocket::begins(&pairs)).then(Frames::default);
        let head = masking::read_head(&pairs, bodiless);
        let is_readable = self.frames.is_some() || head.is_readable;
        let onward = self.mask(masker, Map::Response, pairs, is_readable)?;
        if matches!(onward, Onward::Go) {
            self.status = head.status;
            if head.claims_a_reason {
                take_reason(Map::Response)?;
            }
        }
        Ok(onward)
    }

    fn trailers(&mut self, masker: &Masker) -> host::Result<Onward> {
        // No body can be put before trailers. Better cut than short of some bytes.
        if !self.kept.is_empty() {
            return Ok(Onward::Unreadable);
        }
        let pairs = host::header_pairs(Map::ResponseTrailers)?;
        let said = masking::read_head(&pairs, true);
        let onward = self.mask(masker, Map::ResponseTrailers, pairs, said.is_readable)?;
        if said.claims_a_reason {
            take_reason(Map::ResponseTrailers)?;
        }
        Ok(onward)
    }

    fn mask(&mut self, masker: &Masker, map: Map, mut pairs: Vec<u8>, is_readable: bool) -> host::Result<Onward> {
        if !is_readable {
            return Ok(Onward::Unreadable);
        }
        let found = masking::mask_headers(masker, &mut pairs);
        if found > 0 {
            self.masked += found as u64;
            host::set_header_pairs(map, &pairs)?;
        }
        Ok(Onward::Go)
    }

    fn body(&mut self, masker: &Masker, size: usize, last: bool) -> host::Result<Onward> {
        let size = self.put_back(size)?;
        let fresh = size.saturating_sub(self.waiting);
        let chunk = if fresh == 0 { Vec::new() } else { whole(self.waiting, fresh)? };
        let (held_before, found) = match &mut self.frames {
            None => (self.stream.held(), self.stream.feed(masker, &chunk, last)),
            Some(frames) => match (frames.held(), frames.feed(masker, &chunk, last)) {
                (held_before, Ok(found)) => (held_before, found),
                _ => return Ok(Onward::Unreadable),
            },
        };
        if found.wide {
            return Ok(Onward::Unreadable);
        }
        if !found.echoes.is_empty() {
            if self.waiting > 0 {
                // What waits is copied each time: an upstream that has it done again and again is stopped.
                self.copied = self.copied.saturating_add(size);
                if self.copied > MOST_COPIED {
                    return Ok(Onward::Unreadable);
                }
            }
            let mut text = whole(0, size)?;
            let base = self.waiting.saturating_sub(held_before);
            for echo in &found.echoes {
                masking::cover(&mut text, base + echo.start..base + echo.end);
            }
            host::set_buffer(Buffer::ResponseBody, size, &text)?;
        }
        self.masked += found.new as u64;
        self.waiting = if found.held == 0 { 0 } else { size };
        // At least as much goes on as is kept: copying stays in proportion, and what is kept is no more than half of what
        // Envoy's buffer takes, whatever an upstream sends.
        if self.waiting > MOST_WAITING && found.held <= size / 2 {
            return self.keep(size, found.held);
        }
        // Before Envoy cuts it, for its buffer is full, and nobody is told why.
        if self.waiting > MOST_HELD {
            return Ok(Onward::Unreadable);
        }
        Ok(if found.held == 0 { Onward::Go } else { Onward::Wait })
    }

    /// Lets everything in Envoy's buffer go on but its last `held` bytes.
    fn keep(&mut self, size: usize, held: usize) -> host::Result<Onward> {
        let mut text = whole(0, size)?;
        self.kept = text.split_off(size.saturating_sub(held));
        host::set_buffer(Buffer::ResponseBody, size, &text)?;
        self.waiting = 0;
        Ok(Onward::Go)
    }

    /// Puts what was kept before a chunk, where it waits as if it had never left. Answers with the size of both.
    fn put_back(&mut self, size: usize) -> host::Result<usize> {
        if self.kept.is_empty() {
            return Ok(size);
        }
        // None of it is replaced: it comes before.
        host::set_buffer(Buffer::ResponseBody, 0, &self.kept)?;
        self.waiting = self.kept.len();
        self.kept = Vec::new();
        Ok(self.waiting + size)
    }
}
