//! What a child finds in its environment.

use attache_tests::stack::Plan;

use crate::{output, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_child_finds_placeholders_and_the_proxy_and_no_secret() {
    let stack = Plan::default().start().await;
    let mut command = run(&stack, &["--session", "writer", "--isolate", "never"], "env");
    command.env("GITHUB_TOKEN", "ghp_realOfTheOperator").env("OPENAI_API_KEY", "sk-real").env("EDITOR", "ed");
    let (code, out, err) = output(command);
    assert_eq!(code, Some(0), "{err}");
    let found = |name: &str| out.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).map(str::to_owned);
    assert_eq!(found("GITHUB_TOKEN"), Some(stack.broker.exported("writer", "GITHUB_TOKEN")));
    assert_eq!(found("CUSTOM_KEY"), Some(stack.broker.exported("writer", "CUSTOM_KEY")));
    let token = stack.broker.exported("writer", "ATTACHE_SESSION_TOKEN");
    let url = format!("http://attache:{token}@{}", stack.proxy);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        assert_eq!(found(name).as_ref(), Some(&url), "{name}");
    }
    assert!(found("NO_PROXY").is_some_and(|hosts| hosts.contains("127.0.0.1")), "{out}");
    assert_eq!(found("EDITOR").as_deref(), Some("ed"), "the rest is the operator's");
    for gone in ["OPENAI_API_KEY", "ATTACHE_CONFIG", "ANTHROPIC_BASE_URL"] {
        assert_eq!(found(gone), None, "{gone}");
    }
    assert!(!out.contains("ghp_realOfTheOperator"), "{out}");
    stack.site.oracle.text("a child's environment", out);
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_in_arguments() {
    let stack = Plan::default().start().await;
    let token = stack.broker.exported("writer", "ATTACHE_SESSION_TOKEN");
    let all = "cat /proc/$PPID/cmdline /proc/$$/cmdline | tr '\\0' ' '";
    let (code, out, err) = output(run(&stack, &["--session", "writer", "--isolate", "never"], all));
    assert!(out.contains("--session writer"), "{code:?} {out} {err}");
    assert!(!out.contains(&token) && !out.contains("ghp_ATTACHE"), "{out}");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn git_logs_in_with_the_placeholder_and_asks_nobody_else() {
    let stack = Plan::default().start().await;
    let ask = "printf 'protocol=https\\nhost=github.com\\n\\n' | git -c credential.helper='!echo password=real' credential fill";
    let (code, out, err) = output(run(&stack, &["--session", "writer", "--isolate", "never"], ask));
    assert_eq!(code, Some(0), "{err}");
    let placeholder = stack.broker.exported("writer", "GITHUB_TOKEN");
    assert!(out.contains("username=x-access-token") && out.contains(&format!("password={placeholder}")), "{out}");
    stack.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_a_session_or_credentials_and_a_broker_that_runs() {
    let stack = Plan::default().start().await;
    for (flags, code, words) in [
        (&[][..], 2, "--session"),
        (&["--session", "writer", "--credential", "github"], 2, "cannot be used with"),
        (&["--session", "nobody"], 1, "no live session is called nobody"),
        (&["--credential", "nobody"], 1, "no credential is called nobody"),
        (&["--session", "writer", "--runtime", "unix:/nonexistent/control.sock"], 1, "no broker answers"),
    ] {
        let (found, out, err) = output(run(&stack, flags, "echo ran"));
        assert_eq!((found, out.as_str()), (Some(code), ""), "{flags:?}: {err}");
        assert!(err.contains(words), "{flags:?}: {err}");
    }
    stack.reconcile().await;
}
