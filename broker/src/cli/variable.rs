//! The variables that a broker answers with. What is answered is what a shell evaluates or a program wears,
//! whoever answered.

use crate::api::view::Variable;
use std::fmt;

/// Something that is no variable: it would be read as more than that by a shell, or a reader of lines.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoVariable {
    /// No name, or no value.
    #[error("the broker answers with {0:?}, which is no variable of an environment: is it a broker of yours?")]
    NoName(String),
    /// It makes programs load or run something.
    #[error(
        "the broker answers with the variable {0}, which tells programs what to load or to run, and is none for a \
         placeholder: choose another in agent_env, if it is a broker of yours"
    )]
    Commands(String),
}

/// What programs load or run before or in place of what they were started for: those of the loader, of shells,
/// interpreters and git. No list of them is whole; these need no more than to be set.
const COMMANDS: [&str; 45] = [
    "BASHOPTS",
    "BASH_ENV",
    "BROWSER",
    "EDITOR",
    "ENV",
    "GCONV_PATH",
    "GETCONF_DIR",
    "GIT_ASKPASS",
    "GIT_CONFIG",
    "GIT_EDITOR",
    "GIT_EXEC_PATH",
    "GIT_EXTERNAL_DIFF",
    "GIT_PAGER",
    "GIT_PROXY_COMMAND",
    "GIT_SEQUENCE_EDITOR",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_TEMPLATE_DIR",
    "GLIBC_TUNABLES",
    "HOME",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "LOCPATH",
    "NLSPATH",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PAGER",
    "PATH",
    "PERL5DB",
    "PERL5LIB",
    "PERL5OPT",
    "PROMPT_COMMAND",
    "PS4",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "RUBYLIB",
    "RUBYOPT",
    "RUSTC_WRAPPER",
    "SHELL",
    "SHELLOPTS",
    "SSH_ASKPASS",
    "VISUAL",
    "_JAVA_OPTIONS",
];

/// The same, with any ending.
const COMMANDING: [&str; 5] = ["DYLD_", "GIT_CONFIG_", "LD_", "MALLOC_", "RESOLV_"];

/// A name that a shell's text can hold without quotes, and that commands no program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VariableName<'a>(&'a str);

impl<'a> VariableName<'a> {
    /// Reads one.
    pub fn parse(name: &'a str) -> Result<Self, NoVariable> {
        let is_name = !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name {
            return Err(NoVariable::NoName(name.to_owned()));
        }
        if COMMANDS.contains(&name) || COMMANDING.iter().any(|prefix| name.starts_with(prefix)) {
            return Err(NoVariable::Commands(name.to_owned()));
        }
        Ok(Self(name))
    }
}

impl fmt::Display for VariableName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Whether all of a broker's names are names, and all values stay in their line.
pub fn check(variables: &[Variable]) -> Result<(), NoVariable> {
    variables.iter().try_for_each(|variable| VariableName::parse(&variable.name).map(drop))?;
    stay_in_line(variables)
}

/// Whether all values stay in their line.
pub fn stay_in_line(variables: &[Variable]) -> Result<(), NoVariable> {
    let bad = variables.iter().find(|variable| variable.value.contains(char::is_control));
    bad.map_or(Ok(()), |bad| Err(NoVariable::NoName(bad.name.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, value: &str) -> Variable {
        Variable { name: name.into(), value: value.into() }
    }

    #[test]
    fn what_would_be_more_than_a_variable_is_refused() {
        for name in ["A", "_", "a1_B", "GIT_TOKEN", "OLD_ENV"] {
            assert_eq!(check(&[variable("OK", ""), variable(name, "a b'$(c)")]), Ok(()), "{name}");
        }
        for name in ["", "1A", "A-B", "A;touch x", "A=B", "A\nB", "Ä", "A B", "A:B"] {
            let refused = Err(NoVariable::NoName(name.into()));
            assert_eq!(check(&[variable("OK", ""), variable(name, "v")]), refused, "{name:?}");
        }
        for value in ["a\nLD_PRELOAD=x", "a\0", "a\r"] {
            assert!(check(&[variable("A", value)]).is_err(), "{value:?}");
        }
    }

    #[test]
    fn what_commands_a_program_is_refused() {
        for name in ["LD_PRELOAD", "LD_AUDIT", "GCONV_PATH", "BASH_ENV", "ENV", "PATH", "GIT_CONFIG_COUNT"] {
            let refused = Err(NoVariable::Commands(name.into()));
            assert_eq!(check(&[variable("OK", ""), variable(name, "v")]), refused, "{name}");
        }
        assert!(COMMANDS.is_sorted() && COMMANDING.is_sorted());
    }
}
