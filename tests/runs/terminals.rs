//! Terminals: a child has its own, and those that it makes; not the ones that its user has open beside it.

use std::process::Command;

use attache_tests::stack::Plan;

use crate::{ALWAYS, has_cells, output, run, ways};

/// A user at two terminals, by Python: at the first a program waits for a password, at the second a command runs.
/// What is shown at the second is said.
const TERMINALS: &str = r#"
import os, pty, sys, tty
beside, other = pty.openpty()
os.environ["OTHER"] = os.ttyname(other)
pid, screen = pty.fork()
if pid == 0:
    os.environ["OWN"] = os.ttyname(0)
    os.execvp(sys.argv[1], sys.argv[1:])
seen = b""
try:
    while True: seen += os.read(screen, 4096)
except OSError: pass
_, status = os.waitpid(pid, 0)
os.set_blocking(beside, False)
try: seen += b"beside: " + os.read(beside, 4096)
except BlockingIOError: pass
sys.stdout.write(seen.decode().replace("\r\n", "\n"))
sys.exit(os.waitstatus_to_exitcode(status))
"#;

/// What a command says at the second terminal.
fn at_terminals(command: &Command) -> (Option<i32>, String, String) {
    let mut terminals = Command::new("timeout");
    terminals.args(["30", "python3", "-c", TERMINALS]).arg(command.get_program()).args(command.get_args());
    let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    terminals.env_clear().envs(set).env("TERM", "dumb");
    output(terminals)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_other_terminals_are_not_there() {
    if !has_cells() {
        return;
    }
    let stack = Plan::default().start().await;
    let tries = "echo typed 2>/dev/null > \"$OTHER\" && echo wrote; test -e \"$OTHER\" && test ! \"$OTHER\" -ef /dev/pts/0 && echo there; \
                 ls -1 /dev; for name in /dev/pts/*; do test $name = /dev/pts/ptmx || test $name = \"$OWN\" || echo $name; done; echo end";
    let (code, out, err) = at_terminals(&run(&stack, &ALWAYS, tries));
    let devices = "fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n";
    assert!(out.ends_with(&format!("{devices}end\n")), "{code:?} {out} {err}");
    assert!(!out.contains("wrote") && !out.contains("there") && !out.contains("beside"), "{out}");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_terminal_is_one_and_has_its_name() {
    let stack = Plan::default().start().await;
    for way in ways() {
        let tries = "test \"$(tty)\" = \"$OWN\" && test -t 0 && test -t 1 && test -t 2 && echo named; \
                     test \"$(tty < /dev/tty)\" = /dev/tty && echo controlled; stty size > /dev/null && echo sized; \
                     python3 -c 'import os; print(os.ttyname(1) == os.environ[\"OWN\"])'; \
                     script -qec 'tty' /dev/null | grep -q '^/dev/pts/[0-9]' && echo another; \
                     script -qec 'tty < /dev/tty > /dev/null && stty sane && echo within' /dev/null; echo > /dev/tty";
        let (code, out, err) = at_terminals(&run(&stack, &["--session", "writer", "--isolate", way], tries));
        let shown = out.split_once("named\n").map(|(_, shown)| shown);
        assert_eq!(shown, Some("controlled\nsized\nTrue\nanother\nwithin\n\n"), "{way}: {code:?} {out} {err}");
    }
    stack.reconcile().await;
}

/// A terminal, by Python, with something at it. `until` reads on from where it was; `all` is everything that was read.
const TERMINAL: &str = r#"
import os, pty, sys
pid, screen = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
seen = all = b""
def until(word):
    global seen, all
    while word not in seen:
        piece = os.read(screen, 4096)
        seen, all = seen + piece, all + piece
    seen = seen.split(word, 1)[1]
def type(text): os.write(screen, text)
"#;

/// A command at a terminal of its own, at which somebody does this.
pub fn at_a_terminal(command: &Command, does: &str) -> Command {
    let mut outer = Command::new("timeout");
    outer.args(["30", "python3", "-c", &format!("{TERMINAL}{does}")]).arg(command.get_program());
    outer.args(command.get_args());
    outer
}

/// Starts a job, stops it, sees it, goes on with it, and ends.
const JOBS: &str = r#"
until(b"prompt> ")
type(b"sh -c 'echo run''ning; read x; echo got $x'\n")
until(b"running")
type(b"\x1a")
until(b"topped")
until(b"prompt> ")
type(b"jobs\n")
until(b"topped")
until(b"prompt> ")
type(b"fg\n")
until(b"sh -c")
type(b"word\n")
until(b"got word")
until(b"prompt> ")
type(b"exit 9\n")
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_in_it_controls_its_jobs() {
    let stack = Plan::default().start().await;
    for way in ways() {
        let shell = "export PS1='prompt> '; exec bash --norc --noprofile -i";
        let inner = run(&stack, &["--session", "writer", "--isolate", way], shell);
        let mut command = at_a_terminal(&inner, JOBS);
        command.env("ATTACHE_CONFIG", stack.site.config_path()).env("TERM", "dumb");
        let (code, out, err) = output(command);
        assert_eq!(code, Some(9), "{way}: {out}{err}");
    }
    stack.reconcile().await;
}
