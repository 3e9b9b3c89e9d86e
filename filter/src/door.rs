//! The door of a forward proxy: one request to the proxy itself. Until it opens, all of it holds.

use crate::host::{self, Map};
use crate::shared::{Shared, Step};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use std::rc::Rc;

/// One request at the door.
pub struct Door {
    id: u32,
    shared: Rc<Shared>,
}

impl Door {
    pub fn new(id: u32, shared: Rc<Shared>) -> Self {
        Self { id, shared }
    }

    /// Whether what follows the head may follow: only where the door has opened.
    fn action(&self) -> Action {
        if self.shared.has_released(self.id) { Action::Continue } else { Action::Pause }
    }
}

impl Context for Door {}

impl HttpContext for Door {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        #[cfg(feature = "trap")]
        crate::trap::spring("door_headers");
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
        self.action()
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.action()
    }

    fn on_log(&mut self) {
        if let Some(flow) = self.shared.take(self.id) {
            self.shared.finish(self.id, &flow);
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shared.forget(self.id);
    }
}
