//! A module that counts what it executes: each of its functions adds to a counter of its own how many instructions
//! each straight piece of it has, as it goes through it.
//!
//! So a count is one of WebAssembly's own instructions, whatever executes them, and the same in every run.

use std::collections::BTreeMap;

use anyhow::Result;
use walrus::ir::{BinaryOp, Binop, Const, GlobalGet, GlobalSet, Instr, InstrSeqId, Value};
use walrus::{ConstExpr, FunctionId, GlobalId, LocalFunction, Module, ValType};

/// The module, and the name of the function behind each counter.
pub struct Metered {
    /// The bytes of the module.
    pub wasm: Vec<u8>,
    /// Names of functions by those of their counters, which the module exports. A module without names has numbers.
    pub counters: BTreeMap<String, String>,
}

impl Metered {
    /// Has a module count.
    pub fn new(wasm: &[u8]) -> Result<Self> {
        let mut module = Module::from_buffer(wasm)?;
        let functions: Vec<FunctionId> = module.funcs.iter_local().map(|(id, _)| id).collect();
        let mut counters = BTreeMap::new();
        for (number, id) in functions.into_iter().enumerate() {
            let zero = ConstExpr::Value(Value::I64(0));
            let counter = module.globals.add_local(ValType::I64, true, false, zero);
            let function = module.funcs.get_mut(id);
            let name = function.name.clone().unwrap_or_else(|| number.to_string());
            count(function.kind.unwrap_local_mut(), counter);
            let export = format!("counted_{number}");
            module.exports.add(&export, counter);
            counters.insert(export, name);
        }
        Ok(Self { wasm: module.emit_wasm(), counters })
    }
}

/// Has a function count into this global.
fn count(function: &mut LocalFunction, counter: GlobalId) {
    let mut sequences = vec![function.entry_block()];
    while let Some(sequence) = sequences.pop() {
        let written = std::mem::take(&mut function.block_mut(sequence).instrs);
        sequences.extend(written.iter().flat_map(|(instruction, _)| nested(instruction)));
        let mut counted = Vec::with_capacity(written.len() * 2);
        let mut rest = written.as_slice();
        while let Some((_, at)) = rest.first() {
            let end = rest.iter().position(|(instruction, _)| leaves(instruction)).map_or(rest.len(), |at| at + 1);
            let (straight, more) = rest.split_at(end);
            let executed = straight.iter().filter(|(instruction, _)| is_executed(instruction)).count();
            if executed > 0 {
                let added = Const { value: Value::I64(i64::try_from(executed).unwrap_or(i64::MAX)) };
                let add = [
                    GlobalGet { global: counter }.into(),
                    added.into(),
                    Binop { op: BinaryOp::I64Add }.into(),
                    GlobalSet { global: counter }.into(),
                ];
                counted.extend(add.map(|instruction: Instr| (instruction, *at)));
            }
            counted.extend_from_slice(straight);
            rest = more;
        }
        function.block_mut(sequence).instrs = counted;
    }
}

/// The sequences within an instruction.
fn nested(instruction: &Instr) -> Vec<InstrSeqId> {
    match instruction {
        Instr::Block(block) => vec![block.seq],
        Instr::Loop(block) => vec![block.seq],
        Instr::IfElse(either) => vec![either.consequent, either.alternative],
        _ => Vec::new(),
    }
}

/// Whether what comes after it may not be executed, or may be when it was not.
fn leaves(instruction: &Instr) -> bool {
    let jumps = matches!(instruction, Instr::Br(_) | Instr::BrIf(_) | Instr::BrTable(_));
    jumps || matches!(instruction, Instr::Return(_) | Instr::Unreachable(_)) || !nested(instruction).is_empty()
}

/// Where a block or a loop begins, nothing happens.
fn is_executed(instruction: &Instr) -> bool {
    !matches!(instruction, Instr::Block(_) | Instr::Loop(_))
}
