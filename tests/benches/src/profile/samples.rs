//! What `perf script` prints, counted.

/// Where a sample is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Compiled at run time: the VM's code, or LuaJIT's.
    Compiled,
    /// Envoy's or its libraries', called by that: host calls, and the entries for memory in them.
    Called,
    /// The kernel's, unless compiled code has asked for it.
    Kernel,
    /// Envoy's or its libraries', with no compiled code in the chain.
    Envoy,
}

impl Part {
    /// All, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Compiled, Self::Called, Self::Kernel, Self::Envoy];

    /// In the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compiled => "wasm itself",
            Self::Called => "what wasm calls",
            Self::Kernel => "the kernel",
            Self::Envoy => "Envoy elsewhere",
        }
    }

    /// Of one call chain, the innermost frame first, each ending with the file in brackets that its code is from.
    fn of<'a>(mut chain: impl Iterator<Item = &'a str>) -> Option<Self> {
        let innermost = chain.next()?;
        Some(if is_compiled(innermost) {
            Self::Compiled
        } else if chain.any(is_compiled) {
            Self::Called
        } else if innermost.ends_with("([kernel.kallsyms])") {
            Self::Kernel
        } else {
            Self::Envoy
        })
    }
}

/// Code in memory of no file: perf looks for a map of it that whoever compiled it could have written.
fn is_compiled(frame: &str) -> bool {
    frame.rsplit_once('(').is_some_and(|(_, file)| file.starts_with("/tmp/perf-") && file.ends_with(".map)"))
}

/// How many samples there are of each part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([usize; Part::ALL.len()]);

impl Counts {
    /// Counts the chains of `perf script --fields ip,sym,dso`: a line for each frame, an empty one between two chains.
    pub fn of(script: &str) -> Self {
        let mut counts = Self::default();
        for chain in script.split("\n\n") {
            let frames = chain.lines().map(str::trim).filter(|line| !line.is_empty());
            if let Some(part) = Part::of(frames) {
                counts.0[part as usize] += 1;
            }
        }
        counts
    }

    /// All samples.
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    /// How much of them one part has; of no samples there is no share.
    pub fn share(&self, part: Part) -> f64 {
        self.0[part as usize] as f64 / self.total() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_counted_by_what_ran_and_by_who_had_called_it() {
        let counts = Counts::of(
            "\n\t   5570e92 [unknown] (/usr/bin/envoy)\n\t   891f5 start_thread (/usr/lib/libc.so.6)\n\n\n\
             \tffffffff82 tcp_sendmsg ([kernel.kallsyms])\n\t   10aba4 __send (/usr/lib/libc.so.6)\n\n\n\
             \t   7f01 [unknown] (/tmp/perf-77.map)\n\t   5570e92 [unknown] (/usr/bin/envoy)\n\n\n\
             \t   1055 __memmove (/usr/lib/libc.so.6)\n\t   7f01 [unknown] (/tmp/perf-77.map)\n\t   55 [unknown] (/usr/bin/envoy)\n\n\n\
             \tffffffff81 asm_exc_page_fault ([kernel.kallsyms])\n\t   7f01 [unknown] (/tmp/perf-77.map)\n\n\n\
             \t   7f0 (/tmp/perf-77.map) of another name (/opt/envoy)\n\n",
        );
        let of = |part| counts.0[part as usize];
        assert_eq!(Part::ALL.map(of), [1, 2, 1, 2]);
        assert_eq!((counts.total(), counts.share(Part::Called)), (6, 2.0 / 6.0));
        assert_eq!(Counts::of("\n\n\n").total(), 0);
    }
}
