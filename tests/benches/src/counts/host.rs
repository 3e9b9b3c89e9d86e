//! The proxy's side of the ABI, as far as the filter uses it: one request at a time, and a clock that goes on when it
//! is told to. What it is asked for it counts.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail};
use wasmi::errors::LinkerError;
use wasmi::{Caller, Engine, Error, Linker, Memory, Module, Store, TypedFunc, Val};

/// Statuses of the ABI.
const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
/// WASI's word for success.
const SUCCESS: i32 = 0;
/// What the clock says at first, in nanoseconds.
const BEGIN: u64 = 1_700_000_000_000_000_000;

/// Header maps and buffers by the ABI's numbers.
pub const REQUEST: u32 = 0;
pub const RESPONSE: u32 = 2;
pub const CALLOUT: u32 = 6;
pub const RESPONSE_BODY: u32 = 1;
pub const CALLOUT_BODY: u32 = 4;
pub const CONFIGURATION: u32 = 7;

/// Lines of a header map.
pub type Lines = Vec<(Vec<u8>, Vec<u8>)>;

/// What has gone between the proxy and the VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Callbacks that the proxy has entered the VM for, by their exports.
    pub entries: BTreeMap<String, u64>,
    /// Calls of the VM, by their imports.
    pub calls: BTreeMap<String, u64>,
    /// How often such a call entered the VM again for memory.
    pub allocations: u64,
    /// Bytes that were copied into the VM.
    pub copied_in: u64,
    /// Bytes that were copied out of it.
    pub copied_out: u64,
}

/// A callout that the filter asked for.
pub struct Callout {
    /// By which it knows the answer.
    pub token: u32,
    /// Its `:path`.
    pub path: String,
    /// Its body.
    pub body: Vec<u8>,
}

/// What the proxy knows.
#[derive(Default)]
pub struct Host {
    /// Header maps by their numbers.
    pub maps: BTreeMap<u32, Lines>,
    /// Buffers by their numbers.
    pub buffers: BTreeMap<u32, Vec<u8>>,
    /// Callouts that are not answered.
    pub callouts: Vec<Callout>,
    /// Whether a held request was let go.
    pub resumed: bool,
    /// What was counted.
    pub traffic: Traffic,
    /// How long it runs, in milliseconds.
    pub elapsed: u64,
    /// What the filter has logged.
    pub logged: Vec<String>,
    last_token: u32,
    random: u8,
    memory: Option<Memory>,
    allocate: Option<TypedFunc<u32, u32>>,
}

type Vm<'a> = Caller<'a, Host>;

/// Takes what is needed of an instance to answer its calls.
pub fn attach(store: &mut Store<Host>, instance: wasmi::Instance) -> Result<()> {
    let memory = instance.get_memory(&*store, "memory").context("the module exports no memory")?;
    let allocate = instance.get_typed_func(&*store, "proxy_on_memory_allocate");
    let allocate = allocate.map_err(|error| anyhow!("proxy_on_memory_allocate: {error}"))?;
    (store.data_mut().memory, store.data_mut().allocate) = (Some(memory), Some(allocate));
    Ok(())
}

/// Everything that the module imports.
pub fn linker(engine: &Engine, module: &Module) -> Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    headers(&mut linker)?;
    data(&mut linker)?;
    streams(&mut linker)?;
    system(&mut linker)?;
    // What the SDK declares and the filter never calls.
    for import in module.imports() {
        let (space, name) = (import.module(), import.name());
        let Some(ty) = import.ty().func() else { bail!("{space}.{name} is no function") };
        let what = format!("{space}.{name}");
        let absent = move |_: Vm<'_>, _: &[Val], _: &mut [Val]| Err(Error::new(format!("{what} is not there")));
        match linker.func_new(space, name, ty.clone(), absent) {
            Ok(_) | Err(LinkerError::DuplicateDefinition { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(linker)
}

fn headers(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("env", "proxy_get_header_map_pairs", |mut vm: Vm<'_>, map: u32, at: u32, size: u32| {
        called(&mut vm, "proxy_get_header_map_pairs");
        let pairs = serialized(vm.data().maps.get(&map).map_or(&[][..], Vec::as_slice));
        give(&mut vm, &pairs, at, size)
    })?;
    linker.func_wrap("env", "proxy_set_header_map_pairs", |mut vm: Vm<'_>, map: u32, at: u32, size: u32| {
        called(&mut vm, "proxy_set_header_map_pairs");
        let pairs = take(&mut vm, at, size)?;
        vm.data_mut().maps.insert(map, parsed(&pairs).ok_or_else(|| Error::new("a map that contradicts itself"))?);
        Ok::<_, Error>(OK)
    })?;
    linker.func_wrap(
        "env",
        "proxy_get_header_map_value",
        |mut vm: Vm<'_>, map: u32, name: u32, name_size: u32, at: u32, size: u32| {
            called(&mut vm, "proxy_get_header_map_value");
            let name = take(&mut vm, name, name_size)?;
            let lines = vm.data().maps.get(&map).into_iter().flatten();
            let found: Vec<&[u8]> = lines.filter(|(own, _)| *own == name).map(|(_, value)| &**value).collect();
            match found.is_empty() {
                true => Ok(NOT_FOUND),
                false => {
                    let value = found.join(&b","[..]);
                    give(&mut vm, &value, at, size)
                }
            }
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_replace_header_map_value",
        |mut vm: Vm<'_>, map: u32, name: u32, name_size: u32, value: u32, value_size: u32| {
            called(&mut vm, "proxy_replace_header_map_value");
            let (name, value) = (take(&mut vm, name, name_size)?, take(&mut vm, value, value_size)?);
            let lines = vm.data_mut().maps.entry(map).or_default();
            lines.retain(|(own, _)| *own != name);
            lines.push((name, value));
            Ok::<_, Error>(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_remove_header_map_value",
        |mut vm: Vm<'_>, map: u32, name: u32, name_size: u32| {
            called(&mut vm, "proxy_remove_header_map_value");
            let name = take(&mut vm, name, name_size)?;
            vm.data_mut().maps.entry(map).or_default().retain(|(own, _)| *own != name);
            Ok::<_, Error>(OK)
        },
    )?;
    Ok(())
}

fn data(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_buffer_bytes",
        |mut vm: Vm<'_>, buffer: u32, start: u32, most: u32, at: u32, size: u32| {
            called(&mut vm, "proxy_get_buffer_bytes");
            let bytes = vm.data().buffers.get(&buffer).cloned().unwrap_or_default();
            let end = start.saturating_add(most).min(bytes.len() as u32);
            match bytes.get(start as usize..end as usize) {
                Some(part) => give(&mut vm, part, at, size),
                None => Ok(NOT_FOUND),
            }
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_buffer_bytes",
        |mut vm: Vm<'_>, buffer: u32, _: u32, _: u32, at: u32, size: u32| {
            called(&mut vm, "proxy_set_buffer_bytes");
            let bytes = take(&mut vm, at, size)?;
            vm.data_mut().buffers.insert(buffer, bytes);
            Ok::<_, Error>(OK)
        },
    )?;
    linker.func_wrap("env", "proxy_get_property", |mut vm: Vm<'_>, path: u32, path_size: u32, _: u32, _: u32| {
        called(&mut vm, "proxy_get_property");
        take(&mut vm, path, path_size).map(|_| NOT_FOUND)
    })?;
    linker.func_wrap(
        "env",
        "proxy_set_property",
        |mut vm: Vm<'_>, path: u32, path_size: u32, at: u32, size: u32| {
            called(&mut vm, "proxy_set_property");
            take(&mut vm, path, path_size)?;
            take(&mut vm, at, size).map(|_| OK)
        },
    )?;
    Ok(())
}

fn streams(linker: &mut Linker<Host>) -> Result<()> {
    linker.func_wrap("env", "proxy_continue_stream", |mut vm: Vm<'_>, _: u32| {
        called(&mut vm, "proxy_continue_stream");
        vm.data_mut().resumed = true;
        OK
    })?;
    for name in ["proxy_set_effective_context", "proxy_set_tick_period_milliseconds"] {
        linker.func_wrap("env", name, move |mut vm: Vm<'_>, _: u32| {
            called(&mut vm, name);
            OK
        })?;
    }
    linker.func_wrap("env", "proxy_define_metric", |mut vm: Vm<'_>, _: u32, _: u32, _: u32, id: u32| {
        called(&mut vm, "proxy_define_metric");
        put(&mut vm, id, &1u32.to_le_bytes()).map(|()| OK)
    })?;
    for name in ["proxy_record_metric", "proxy_increment_metric"] {
        linker.func_wrap("env", name, move |mut vm: Vm<'_>, _: u32, _: u64| {
            called(&mut vm, name);
            OK
        })?;
    }
    linker.func_wrap(
        "env",
        "proxy_http_call",
        |mut vm: Vm<'_>,
         _: u32,
         _: u32,
         lines: u32,
         lines_size: u32,
         body: u32,
         body_size: u32,
         _: u32,
         _: u32,
         _: u32,
         token: u32| {
            called(&mut vm, "proxy_http_call");
            let (lines, body) = (take(&mut vm, lines, lines_size)?, take(&mut vm, body, body_size)?);
            let lines = parsed(&lines).unwrap_or_default();
            let path = lines.iter().find(|(name, _)| name == b":path").map(|(_, path)| &**path).unwrap_or_default();
            let path = String::from_utf8_lossy(path).into_owned();
            let host = vm.data_mut();
            host.last_token += 1;
            let given = host.last_token;
            host.callouts.push(Callout { token: given, path, body });
            put(&mut vm, token, &given.to_le_bytes()).map(|()| OK)
        },
    )?;
    Ok(())
}

fn system(linker: &mut Linker<Host>) -> Result<()> {
    const WASI: &str = "wasi_snapshot_preview1";
    linker.func_wrap("env", "proxy_log", |mut vm: Vm<'_>, _: u32, at: u32, size: u32| {
        called(&mut vm, "proxy_log");
        let text = take(&mut vm, at, size)?;
        vm.data_mut().logged.push(String::from_utf8_lossy(&text).into_owned());
        Ok::<_, Error>(OK)
    })?;
    linker.func_wrap("env", "proxy_get_current_time_nanoseconds", |mut vm: Vm<'_>, at: u32| {
        called(&mut vm, "proxy_get_current_time_nanoseconds");
        let now = now(&vm);
        put(&mut vm, at, &now).map(|()| OK)
    })?;
    linker.func_wrap(WASI, "clock_time_get", |mut vm: Vm<'_>, _: i32, _: i64, at: u32| {
        called(&mut vm, "clock_time_get");
        let now = now(&vm);
        put(&mut vm, at, &now).map(|()| SUCCESS)
    })?;
    linker.func_wrap(WASI, "random_get", |mut vm: Vm<'_>, at: u32, size: u32| {
        called(&mut vm, "random_get");
        // Never the same twice, and the same in every run.
        let host = vm.data_mut();
        host.random = host.random.wrapping_add(1);
        let bytes: Vec<u8> = (0..size).map(|at| (at as u8).wrapping_mul(31) ^ host.random).collect();
        put(&mut vm, at, &bytes).map(|()| SUCCESS)
    })?;
    linker.func_wrap(WASI, "environ_sizes_get", |mut vm: Vm<'_>, count: u32, size: u32| {
        put(&mut vm, count, &[0; 4])?;
        put(&mut vm, size, &[0; 4]).map(|()| SUCCESS)
    })?;
    linker.func_wrap(WASI, "environ_get", |_: Vm<'_>, _: u32, _: u32| SUCCESS)?;
    Ok(())
}

fn called(vm: &mut Vm<'_>, name: &str) {
    *vm.data_mut().traffic.calls.entry(name.to_owned()).or_default() += 1;
}

fn now(vm: &Vm<'_>) -> [u8; 8] {
    (BEGIN + vm.data().elapsed * 1_000_000).to_le_bytes()
}

fn memory(vm: &Vm<'_>) -> Result<Memory, Error> {
    vm.data().memory.ok_or_else(|| Error::new("a call before there is memory"))
}

fn take(vm: &mut Vm<'_>, at: u32, size: u32) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; size as usize];
    memory(vm)?.read(&*vm, at as usize, &mut bytes).map_err(|error| Error::new(error.to_string()))?;
    vm.data_mut().traffic.copied_out += u64::from(size);
    Ok(bytes)
}

fn put(vm: &mut Vm<'_>, at: u32, bytes: &[u8]) -> Result<(), Error> {
    memory(vm)?.write(vm, at as usize, bytes).map_err(|error| Error::new(error.to_string()))
}

/// Hands bytes over as Envoy does: in memory that the VM gives.
fn give(vm: &mut Vm<'_>, bytes: &[u8], at: u32, size: u32) -> Result<u32, Error> {
    let allocate = vm.data().allocate.ok_or_else(|| Error::new("a call before there is memory"))?;
    let place = if bytes.is_empty() { 0 } else { allocate.call(&mut *vm, bytes.len() as u32)? };
    let traffic = &mut vm.data_mut().traffic;
    traffic.allocations += u64::from(!bytes.is_empty());
    traffic.copied_in += bytes.len() as u64;
    put(vm, place, bytes)?;
    put(vm, at, &place.to_le_bytes())?;
    put(vm, size, &(bytes.len() as u32).to_le_bytes())?;
    Ok(OK)
}

fn serialized(lines: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let size = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
    let sizes = lines.iter().flat_map(|(name, value)| [size(name), size(value)]).flatten();
    let mut map: Vec<u8> = (lines.len() as u32).to_le_bytes().into_iter().chain(sizes).collect();
    for text in lines.iter().flat_map(|(name, value)| [name, value]) {
        map.extend_from_slice(text);
        map.push(0);
    }
    map
}

fn parsed(map: &[u8]) -> Option<Lines> {
    let lines = attache_core::headers::lines(map);
    let owned = |line: attache_core::headers::Line| (line.name.of(map).to_vec(), line.value.of(map).to_vec());
    attache_core::headers::is_whole(map).then(|| lines.map(owned).collect())
}
