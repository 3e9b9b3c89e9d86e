//! The proxy's host calls: bytes in, bytes out, every status handed back.
//!
//! The SDK's wrappers panic on a status they do not expect, and one panic ends a worker's VM for
//! everyone; these return it. The one SDK call used is [`dispatch`], because the SDK must know the
//! token to route the answer; the two failures that Envoy gives there it returns as errors.
#![allow(unsafe_code)]

use attache_core::{headers, words};
use proxy_wasm::hostcalls;
use std::ptr::null_mut;
use std::time::Duration;

/// A host call that did not succeed, by its status.
#[derive(Debug, Clone, Copy)]
pub struct Status(pub u32);

/// Result of a host call.
pub type Result<T> = std::result::Result<T, Status>;

/// Which headers are meant.
#[derive(Clone, Copy)]
pub enum Map {
    /// The request's.
    Request = 0,
    /// The response's.
    Response = 2,
    /// The response's trailers.
    ResponseTrailers = 3,
    /// A callout's answer.
    Callout = 6,
}

/// Which bytes are meant.
#[derive(Clone, Copy)]
pub enum Buffer {
    /// What is buffered of the request's body.
    RequestBody = 0,
    /// What is buffered of the response's body, and what has just come of it.
    ResponseBody = 1,
    /// A callout's answer.
    Callout = 4,
    /// The plugin's configuration.
    Configuration = 7,
}

/// Statuses this filter tells apart (proxy-wasm ABI 0.2.1).
const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
/// Less was handed over than was asked for (`INTERNAL_FAILURE`).
pub const SHORT: Status = Status(10);

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_header_map_pairs(map: u32, data: *const u8, size: usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_get_buffer_bytes(buffer: u32, start: usize, max: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_buffer_bytes(buffer: u32, start: usize, size: usize, data: *const u8, data_size: usize) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_close_stream(stream: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
}

/// All headers of a map, serialised as [`headers::lines`] reads them.
pub fn header_pairs(map: Map) -> Result<Vec<u8>> {
    // SAFETY: see `returned`.
    returned(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) })
}

/// Sets a whole map, serialised likewise.
pub fn set_header_pairs(map: Map, pairs: &[u8]) -> Result<()> {
    // SAFETY: the slice outlives the call, which copies it.
    check(unsafe { proxy_set_header_map_pairs(map as u32, pairs.as_ptr(), pairs.len()) })
}

/// One header's value, all its lines joined by commas; `None` if it is absent.
pub fn header(map: Map, name: &str) -> Result<Option<Vec<u8>>> {
    // SAFETY: the name outlives the call; see `returned` for the rest.
    optional(returned(|data, size| unsafe {
        proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size)
    }))
}

/// Sets a request header: every line of that name is replaced by one.
pub fn set_header(name: &[u8], value: &[u8]) -> Result<()> {
    // SAFETY: both slices outlive the call, which copies them.
    check(unsafe {
        proxy_replace_header_map_value(Map::Request as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

/// Takes every line of a request header out.
pub fn remove_header(name: &[u8]) -> Result<()> {
    remove_from(Map::Request, name)
}

/// Takes every line of a header out of a map, if there is one.
pub fn remove_from(map: Map, name: &[u8]) -> Result<()> {
    // SAFETY: the slice outlives the call.
    check(unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// A property of the stream; path segments are separated by zero bytes.
pub fn property(path: &str) -> Result<Option<Vec<u8>>> {
    // SAFETY: the path outlives the call; see `returned` for the rest.
    optional(returned(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) }))
}

/// Sets filter state `wasm.PATH`, which the agent cannot.
pub fn set_property(path: &str, value: &[u8]) -> Result<()> {
    // SAFETY: both slices outlive the call, which copies them.
    check(unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) })
}

/// Up to `max` bytes of a buffer.
pub fn buffer(buffer: Buffer, max: usize) -> Result<Vec<u8>> {
    optional(part(buffer, 0, max)).map(Option::unwrap_or_default)
}

/// Up to `max` bytes of a buffer, from `start` on.
pub fn part(buffer: Buffer, start: usize, max: usize) -> Result<Vec<u8>> {
    // SAFETY: see `returned`.
    returned(|data, size| unsafe { proxy_get_buffer_bytes(buffer as u32, start, max, data, size) })
}

/// Replaces the first `size` bytes of a buffer: all of them, or none, which puts `data` before them.
pub fn set_buffer(buffer: Buffer, size: usize, data: &[u8]) -> Result<()> {
    // SAFETY: the slice outlives the call, which copies it.
    check(unsafe { proxy_set_buffer_bytes(buffer as u32, 0, size, data.as_ptr(), data.len()) })
}

/// Answers the request in the upstream's stead.
pub fn respond(status: u16, details: &str, lines: &[(&str, &[u8])], body: &[u8]) -> Result<()> {
    let lines = headers::serialize(lines.iter().copied());
    // SAFETY: all slices outlive the call, which copies them. -1: not a gRPC status.
    check(unsafe {
        proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            lines.as_ptr(),
            lines.len(),
            -1,
        )
    })
}

/// Lets a held request go on.
pub fn resume() -> Result<()> {
    // SAFETY: takes a number; 0 is the request's direction.
    check(unsafe { proxy_continue_stream(0) })
}

/// Resets a stream, both ways. Envoy does so when the callback that asked has returned, and twice
/// is once too often: it must not be asked again, nor to resume or answer what it is to reset.
pub fn reset() -> Result<()> {
    // SAFETY: takes a number; 0 is the request's direction, whose end is the whole stream's.
    check(unsafe { proxy_close_stream(0) })
}

/// Makes another context the one that host calls are about. Fails if it is gone.
pub fn act_for(context: u32) -> Result<()> {
    // SAFETY: takes a number.
    check(unsafe { proxy_set_effective_context(context) })
}

/// How often the root is called.
pub fn set_tick(period: u32) -> Result<()> {
    // SAFETY: takes a number.
    check(unsafe { proxy_set_tick_period_milliseconds(period) })
}

/// Defines a counter.
pub fn define_counter(name: &str) -> Result<u32> {
    define_metric(0, name)
}

/// Defines a histogram.
pub fn define_histogram(name: &str) -> Result<u32> {
    define_metric(2, name)
}

fn define_metric(kind: u32, name: &str) -> Result<u32> {
    let mut id = 0;
    // SAFETY: the name and the place for the id outlive the call.
    check(unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &mut id) }).map(|()| id)
}

/// Adds a value to a histogram.
pub fn record(id: u32, value: u64) -> Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { proxy_record_metric(id, value) })
}

/// Adds to a counter.
pub fn count(id: u32, by: u64) -> Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { proxy_increment_metric(id, i64::try_from(by).unwrap_or(i64::MAX)) })
}

/// Sends a callout; its answer carries the token. Call it from a root context only: the answer
/// goes to the context that asked, and a request may be gone by then.
pub fn dispatch(cluster: &str, lines: Vec<(&str, &str)>, body: &[u8], timeout: Duration) -> Result<u32> {
    let body = (!body.is_empty()).then_some(body);
    hostcalls::dispatch_http_call(cluster, lines, body, vec![], timeout).map_err(|status| Status(status as u32))
}

fn check(status: u32) -> Result<()> {
    if status == OK { Ok(()) } else { Err(Status(status)) }
}

fn optional(result: Result<Vec<u8>>) -> Result<Option<Vec<u8>>> {
    match result {
        Err(Status(NOT_FOUND)) => Ok(None),
        other => other.map(Some),
    }
}

/// What compares memory everywhere in this module: hashed keys, names, credentials. WASI's own goes byte by byte, which was an
/// eighth of all that a warm request executes.
///
/// # Safety
///
/// As C has it (C17, 7.24.4.1): both stretches are readable for `size` bytes.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, size: usize) -> i32 {
    if size == 0 {
        return 0;
    }
    // SAFETY: whoever compares memory vouches for both stretches; of none at all the pointers may be null.
    let (one, other) = unsafe { (std::slice::from_raw_parts(one, size), std::slice::from_raw_parts(other, size)) };
    words::first_difference(one, other).map_or(0, |(a, b)| i32::from(a) - i32::from(b))
}

/// Takes over the memory that a host call returns.
fn returned(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>> {
    let (mut data, mut size) = (null_mut(), 0);
    check(call(&mut data, &mut size))?;
    if data.is_null() || size == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the host allocates what it returns through the module's `proxy_on_memory_allocate`,
    // which the SDK implements as a boxed slice of exactly `size` bytes from this allocator, and
    // gives it up: this is its only owner.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}
