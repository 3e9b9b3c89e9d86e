//! A large body that takes no memory: the same piece of text over and over.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::upstream;

/// Bytes of a piece, at least.
const PIECE: usize = 64 << 10;

/// What is left to be sent.
#[derive(Clone, Debug)]
pub struct Text {
    piece: Bytes,
    left: u64,
}

impl Text {
    /// JSON as APIs answer it, without a secret.
    pub fn new() -> Self {
        // Whole items: what is read at once ends anywhere in one, as it does in real answers.
        Self { piece: upstream::text(PIECE), left: 0 }
    }

    /// So many bytes of it.
    pub fn of(&self, bytes: u64) -> Self {
        Self { piece: self.piece.clone(), left: bytes }
    }
}

impl Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let now = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.piece.len());
        if now == 0 {
            return Poll::Ready(None);
        }
        self.left -= now as u64;
        Poll::Ready(Some(Ok(Frame::data(self.piece.slice(..now)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[test]
    fn a_body_has_the_length_that_it_says() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for bytes in [0, 1, PIECE as u64, 3 * PIECE as u64 + 7] {
            let body = Text::new().of(bytes);
            assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(bytes), bytes == 0));
            let whole = runtime.block_on(body.collect()).unwrap().to_bytes();
            assert_eq!(whole.len() as u64, bytes);
        }
    }
}
