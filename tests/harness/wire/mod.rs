//! HTTP as bytes: passive readers that never refuse, and hand-made HTTP/2 frames.
//!
//! The readers only watch. They accept what a library would reject, because what a library
//! rejects is exactly what a test of a proxy must not lose sight of.

pub mod answers;
pub mod frames;
pub mod http1;
pub mod http2;
pub mod tap;

use bytes::Bytes;

use crate::fields::Fields;

/// What a reader saw. `stream` is the HTTP/2 stream, or the HTTP/1 message counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message begins. HTTP/2 pseudo-fields stand first; the HTTP/1 reader makes the same ones.
    Head { stream: u32, fields: Fields },
    /// Bytes of the body, transfer coding removed.
    Data { stream: u32, bytes: Bytes },
    /// Trailer lines.
    Trailers { stream: u32, fields: Fields },
    /// The message is complete.
    End { stream: u32 },
    /// The peer gave the stream up, with this HTTP/2 error code.
    Reset { stream: u32, code: u32 },
    /// The peer ends the connection, with this HTTP/2 error code.
    GoAway { code: u32 },
    /// What could not be read as HTTP.
    Garbage(Bytes),
}
