//! What a server sends over WebSocket (RFC 6455, 5.2): frames. A message is searched as one text,
//! wherever frames cut it; what announces a frame is never touched.

use super::stream::{Found, Stream};
use super::{Masker, head};
use crate::headers;
use arrayvec::ArrayVec;
use std::ops::Range;

/// The longest head of a frame that nobody has masked: two bytes and a length of eight.
const LONGEST_HEAD: usize = 10;

/// These frames cannot be searched: an extension changed them, or they are none that a server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no frame that a server sends without extensions")]
pub struct Unreadable;

/// What is known of one tunnel.
#[derive(Default)]
pub struct Frames {
    /// The head of the frame that begins, as far as it has come.
    head: ArrayVec<u8, LONGEST_HEAD>,
    frame: Frame,
    data: Message,
    control: Message,
    held: usize,
}

/// A frame whose head is read.
#[derive(Clone, Copy, Default)]
struct Frame {
    /// How much of its payload is still to come.
    left: u64,
    /// Whether a message ends with it.
    is_last: bool,
    /// Whether it may stand between the frames of a message: ping, pong, close.
    is_control: bool,
}

/// A message as it comes, and where in the tunnel the stretches of it stand that are held.
#[derive(Default)]
struct Message {
    stream: Stream,
    places: Vec<Range<usize>>,
}

/// Whether an answer begins a WebSocket without extensions.
pub fn begins(map: &[u8]) -> bool {
    let is_word = |value: &[u8]| value.eq_ignore_ascii_case(b"websocket");
    let says = |name: &[u8]| headers::lines(map).find(|line| line.name.of(map) == name);
    headers::is_whole(map)
        && head::status(map) == head::SWITCHED
        && says(b"upgrade").is_some_and(|line| is_word(line.value.of(map)))
        && says(b"sec-websocket-extensions").is_none()
}

impl Frames {
    /// How many bytes were held after the last chunk.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Looks at a chunk of the tunnel. As [`Stream::feed`] does: places are counted from the first byte
    /// that was held.
    pub fn feed(&mut self, masker: &Masker, chunk: &[u8], last: bool) -> Result<Found, Unreadable> {
        let mut found = Found::default();
        let mut rest = chunk;
        let end = self.held + chunk.len();
        while let Some((byte, behind)) = rest.split_first() {
            if self.frame.left > 0 {
                let size = usize::try_from(self.frame.left).unwrap_or(usize::MAX).min(rest.len());
                let (payload, behind) = rest.split_at(size);
                self.frame.left -= size as u64;
                self.payload(masker, payload, end - rest.len(), &mut found);
                rest = behind;
                continue;
            }
            rest = behind;
            self.head.try_push(*byte).map_err(|_| Unreadable)?;
            if let Some(frame) = Frame::read(&self.head)? {
                self.head.clear();
                self.frame = frame;
                if frame.left == 0 {
                    self.payload(masker, &[], end, &mut found);
                }
            }
        }
        if last {
            for message in [&mut self.data, &mut self.control] {
                message.feed(masker, &[], end, true, &mut found);
            }
        }
        let from = self.data.begins().into_iter().chain(self.control.begins()).min().unwrap_or(end);
        self.data.count_from(from);
        self.control.count_from(from);
        self.held = end - from;
        found.held = self.held;
        Ok(found)
    }

    fn payload(&mut self, masker: &Masker, payload: &[u8], at: usize, found: &mut Found) {
        let ends = self.frame.is_last && self.frame.left == 0;
        let message = if self.frame.is_control { &mut self.control } else { &mut self.data };
        message.feed(masker, payload, at, ends, found);
    }
}

impl Frame {
    /// `None`: more of the head is to come.
    fn read(head: &[u8]) -> Result<Option<Self>, Unreadable> {
        let [first, second, length @ ..] = head else { return Ok(None) };
        let (is_control, is_last, short) = (first & 0x08 != 0, first & 0x80 != 0, second & 0x7f);
        // Only clients mask what they send; what is reserved nobody has agreed upon.
        let is_odd = first & 0x70 != 0 || second & 0x80 != 0 || (is_control && (!is_last || short > 125));
        if is_odd {
            return Err(Unreadable);
        }
        let size = match short {
            126 => 2,
            127 => 8,
            _ => return Ok(Some(Self { left: short.into(), is_last, is_control })),
        };
        let left = length.iter().fold(0, |left, byte| left << 8 | u64::from(*byte));
        Ok((length.len() == size).then_some(Self { left, is_last, is_control }))
    }
}

impl Message {
    // Called from two places, and large where it is copied into both.
    #[inline(never)]
    fn feed(&mut self, masker: &Masker, payload: &[u8], at: usize, last: bool, found: &mut Found) {
        if !payload.is_empty() {
            self.places.push(at..at + payload.len());
        }
        let seen = self.stream.feed(masker, payload, last);
        found.new += seen.new;
        found.wide |= seen.wide;
        for echo in seen.echoes {
            let mut before = 0;
            for place in &self.places {
                let start = place.start + echo.start.saturating_sub(before);
                let end = (place.start + echo.end.saturating_sub(before)).min(place.end);
                if start < end {
                    found.echoes.push(start..end);
                }
                before += place.len();
            }
        }
        // What is not held any more has gone.
        let mut gone = self.places.iter().map(ExactSizeIterator::len).sum::<usize>() - seen.held;
        self.places.retain_mut(|place| {
            let now = gone.min(place.len());
            place.start += now;
            gone -= now;
            place.start < place.end
        });
    }

    /// Where what is held of it begins.
    fn begins(&self) -> Option<usize> {
        self.places.first().map(|place| place.start)
    }

    fn count_from(&mut self, origin: usize) {
        self.places.iter_mut().for_each(|place| *place = place.start - origin..place.end - origin);
    }
}
