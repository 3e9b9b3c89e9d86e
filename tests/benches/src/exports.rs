//! What a module exports, and a module with fewer exports. Each `proxy_on_*`
//! export is an entry into the VM per request, so a floor is only a floor for
//! a filter with the same ones.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{ExportSection, Module, RawSection};
use wasmparser::{Parser, Payload};

/// The exports of the measured filter by its callback contract: until the
/// verdict headers, body and trailers hold; responses are scanned; one record
/// a request. Used only where the filter's own module is not there to be read.
pub const CONTRACT: [&str; 17] = [
    "_initialize",
    "memory",
    "proxy_abi_version_0_2_1",
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_delete",
    "proxy_on_done",
    "proxy_on_http_call_response",
    "proxy_on_memory_allocate",
    "proxy_on_request_body",
    "proxy_on_request_headers",
    "proxy_on_request_trailers",
    "proxy_on_response_body",
    "proxy_on_response_headers",
    "proxy_on_response_trailers",
    "proxy_on_tick",
    "proxy_on_vm_start",
];

/// The names a module exports.
pub fn names(wasm: &[u8]) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::ExportSection(section) = payload.context("not a wasm module")? {
            for export in section {
                names.insert(export?.name.to_owned());
            }
        }
    }
    Ok(names)
}

/// The same module, exporting only those of its names that are in `wanted`.
pub fn keep(wasm: &[u8], wanted: &BTreeSet<String>) -> Result<Vec<u8>> {
    let mut module = Module::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.context("not a wasm module")? {
            Payload::ExportSection(section) => {
                let mut kept = ExportSection::new();
                for export in section {
                    let export = export?;
                    if wanted.contains(export.name) {
                        let kind = RoundtripReencoder.export_kind(export.kind)?;
                        kept.export(export.name, kind, export.index);
                    }
                }
                module.section(&kept);
            }
            other => {
                if let Some((id, range)) = other.as_section() {
                    let range = usize::try_from(range.start)?..usize::try_from(range.end)?;
                    let data = wasm.get(range).context("a section beyond the end")?;
                    module.section(&RawSection { id, data });
                }
            }
        }
    }
    Ok(module.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_encoder::{CodeSection, ExportKind, Function, FunctionSection, TypeSection};

    #[test]
    fn keeping_drops_the_others_and_leaves_a_valid_module() {
        let module = two_exports();
        let wanted = BTreeSet::from(["one".to_owned(), "never_there".to_owned()]);
        let kept = keep(&module, &wanted).unwrap();
        assert_eq!(names(&kept).unwrap(), BTreeSet::from(["one".to_owned()]));
        assert_eq!(names(&module).unwrap().len(), 2);
        let all = names(&module).unwrap();
        assert_eq!(keep(&module, &all).unwrap(), module, "keeping everything changes nothing");
    }

    fn two_exports() -> Vec<u8> {
        let mut types = TypeSection::new();
        types.ty().function([], []);
        let mut functions = FunctionSection::new();
        functions.function(0);
        let mut exports = ExportSection::new();
        exports.export("one", ExportKind::Func, 0);
        exports.export("two", ExportKind::Func, 0);
        let mut body = Function::new([]);
        body.instructions().end();
        let mut code = CodeSection::new();
        code.function(&body);
        let mut module = Module::new();
        module.section(&types).section(&functions).section(&exports).section(&code);
        module.finish()
    }
}
