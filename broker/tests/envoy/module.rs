//! The smallest module Envoy takes for a filter.

/// ```wat
/// (module
///   (func (export "proxy_abi_version_0_2_1"))
///   (func (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 0)
///   (memory (export "memory") 1))
/// ```
pub const EMPTY: &[u8] = b"\0asm\x01\0\0\0\
    \x01\x09\x02\x60\0\0\x60\x01\x7f\x01\x7f\
    \x03\x03\x02\0\x01\
    \x05\x03\x01\0\x01\
    \x07\x3f\x03\
        \x06memory\x02\0\
        \x17proxy_abi_version_0_2_1\0\0\
        \x18proxy_on_memory_allocate\0\x01\
    \x0a\x09\x02\x02\0\x0b\x04\0\x41\0\x0b";
