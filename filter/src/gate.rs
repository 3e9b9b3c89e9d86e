//! The gate, and the door of a forward proxy: one request's callbacks. Until the verdict, headers, body and trailers all hold.

use crate::echoes::Piece;
use crate::host::{self, Map};
use crate::shared::{Shared, Step};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use std::rc::Rc;

/// One request at the gate.
pub struct Gate {
    id: u32,
    shared: Rc<Shared>,
}

impl Gate {
    pub fn new(id: u32, shared: Rc<Shared>) -> Self {
        Self { id, shared }
    }

    /// Whether body and trailers may follow: only where the verdict said so. Everything else holds,
    /// a request that was answered and one that nobody looked at included.
    fn action(&self) -> Action {
        if self.shared.has_released(self.id) { Action::Continue } else { Action::Pause }
    }
}

impl Context for Gate {}

impl HttpContext for Gate {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        #[cfg(feature = "trap")]
        crate::trap::spring(if self.shared.is_door() { "door_headers" } else { "request_headers" });
        match self.shared.begin(self.id, host::header_pairs(Map::Request)) {
            Step::Go => Action::Continue,
            Step::Answered => Action::Pause,
            Step::Hold => {
                self.shared.schedule();
                Action::Pause
            }
        }
    }

    fn on_http_request_body(&mut self, _: usize, _: bool) -> Action {
        #[cfg(feature = "trap")]
        crate::trap::spring("request_body");
        self.action()
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        #[cfg(feature = "trap")]
        crate::trap::spring("request_trailers");
        self.action()
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        #[cfg(feature = "trap")]
        crate::trap::spring_later("response_headers");
        self.shared.answered(self.id, Piece::Head(end_of_stream))
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        #[cfg(feature = "trap")]
        crate::trap::spring_later("response_body");
        self.shared.answered(self.id, Piece::Body(size, end_of_stream))
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        #[cfg(feature = "trap")]
        crate::trap::spring_later("response_trailers");
        self.shared.answered(self.id, Piece::Trailers)
    }
}

/// Envoy deletes the context when the request is over, whatever became of it: that is when it is recorded. A callback for
/// its log would be one more entry into the VM.
impl Drop for Gate {
    fn drop(&mut self) {
        #[cfg(feature = "trap")]
        crate::trap::spring_later("delete");
        // A request that never reached this filter has no flow: Envoy's own log is its witness.
        if let Some(flow) = self.shared.take(self.id) {
            self.shared.finish(self.id, &flow);
        }
    }
}
