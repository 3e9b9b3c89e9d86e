//! Turns the linked filter into the module we ship: `attache-filter-pack IN.wasm OUT.wasm`.
//!
//! The SDK exports every callback of the ABI, and Envoy enters the VM for each one that is there,
//! at 3–5 µs an entry. What the filter does not implement is taken out, with the code behind it.
//! Prints the module's size and SHA-256, which deployments pin.

use attache_core::digest::Digest;
use std::path::Path;
use std::process::ExitCode;

/// The callbacks the filter implements, and what the ABI needs besides. Golden: a test compares
/// the shipped module with it, and the no-op module of the bench is cut to the same list.
const EXPORTS: &[&str] = &[
    "memory",
    "_initialize",
    "proxy_abi_version_0_2_1",
    "proxy_on_memory_allocate",
    "proxy_on_context_create",
    "proxy_on_configure",
    "proxy_on_tick",
    "proxy_on_http_call_response",
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_request_trailers",
    "proxy_on_response_headers",
    "proxy_on_response_body",
    "proxy_on_response_trailers",
    "proxy_on_delete",
];

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let [input, output] = &args[..] else {
        eprintln!("usage: attache-filter-pack IN.wasm OUT.wasm");
        return ExitCode::from(2);
    };
    match pack(Path::new(input), Path::new(output)) {
        Ok((size, digest)) => {
            println!("{} {size} bytes sha256 {digest}", Path::new(output).display());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("attache-filter-pack: {why}");
            ExitCode::FAILURE
        }
    }
}

fn pack(input: &Path, output: &Path) -> Result<(usize, String), Box<dyn std::error::Error>> {
    let mut module = walrus::Module::from_file(input).map_err(|why| format!("{}: {why}", input.display()))?;
    let unwanted: Vec<_> =
        module.exports.iter().filter(|export| !EXPORTS.contains(&&*export.name)).map(walrus::Export::id).collect();
    unwanted.into_iter().for_each(|id| module.exports.delete(id));
    if let Some(missing) = EXPORTS.iter().find(|name| !module.exports.iter().any(|export| export.name == **name)) {
        return Err(format!("{} does not export {missing}", input.display()).into());
    }
    walrus::passes::gc::run(&mut module);
    let bytes = module.emit_wasm();
    // Written beside and moved, so that nobody ever loads half a module.
    let beside = output.with_extension("wasm.new");
    std::fs::write(&beside, &bytes)?;
    std::fs::rename(&beside, output)?;
    Ok((bytes.len(), Digest::of(&bytes).to_hex()))
}
