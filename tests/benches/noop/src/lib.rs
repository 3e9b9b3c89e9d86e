//! A proxy-wasm filter that does nothing: what it costs is what the ABI costs.
//!
//! It overrides no callback, so every export the module keeps is an entry into
//! the VM that returns at once. Which exports those are is decided after
//! linking (`exports.rs` of the benchmark), so that they equal the measured
//! filter's. It never calls the host.

#![expect(missing_docs, reason = "the SDK's macro exports an undocumented _initialize")]

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root));
}}

struct Root;

impl Context for Root {}

impl RootContext for Root {
    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Http))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Http;

impl Context for Http {}
impl HttpContext for Http {}
