//! Clients behind the forward proxy, started by `attache run`: nothing is set for them but what that sets.
//! What each of them showed becomes a row of the table in `docs/clients.md`.

use std::process::Stdio;

use attache_tests::util;
use tokio::process::Command;

use crate::recorded::Api;
use crate::results;
use crate::scene::{Said, Scene, path};

/// One row of the table of clients.
pub struct Client<'a> {
    pub name: &'static str,
    /// Prints its version.
    pub version: &'a str,
    /// The one variable that this client needs for the certificates: the test leaves it no other.
    pub ca: &'static str,
    /// A host that it speaks to.
    pub host: &'static str,
    pub tested: &'static str,
}

impl Api {
    /// As [`Self::scene`], behind the forward proxy.
    pub async fn behind(&self) -> Scene {
        let scene = Scene::of(self.plan().forward_proxy()).await;
        scene.stack.site.oracle.exports(self.preset, self.variable);
        scene
    }
}

impl Scene {
    /// Runs a script as `attache run --session SESSION` starts it.
    pub async fn run(&self, session: &str, script: &str) -> Said {
        // For the oracle: whose the placeholders and the token are.
        self.stack.broker.json(&["session", "env", session]);
        let mut command = Command::new(util::broker_bin());
        command.args(["run", "--session", session, "--isolate", "never", "--proxy", &self.gateway(), "--"]);
        command.args(["bash", "-euo", "pipefail", "-c", script]);
        command.current_dir(self.home.path()).kill_on_drop(true).stdin(Stdio::null()).env_clear();
        command.env("PATH", path()).env("HOME", self.home.path()).env("LANG", "C.UTF-8");
        command.env("ATTACHE_CONFIG", self.stack.site.config_path());
        self.said(command, script).await
    }

    /// The same with one CA variable alone: that the client reads it is what the table says.
    pub async fn run_by(&self, session: &str, ca: &str, script: &str) -> Said {
        let others = format!(
            "bundle=$SSL_CERT_FILE\nfor name in $(compgen -e); do\n  \
             if [ \"$name\" != {ca} ] && [ \"${{!name}}\" = \"$bundle\" ]; then unset \"$name\"; fi\ndone"
        );
        self.run(session, &format!("{others}\n{script}")).await
    }

    /// Writes the client's row.
    pub async fn row(&self, session: &str, client: &Client<'_>) {
        let all = self.stack.upstream().requests();
        assert!(
            !all.iter().any(|request| request.fields.has("proxy-authorization")),
            "meant for the proxy alone: {all:?}"
        );
        let version = self.run(session, client.version).await.ok().out;
        results::keep(client, version.trim(), if self.tells_at_once(client.host) { "at once" } else { "after 407" });
    }

    /// Whether every CONNECT so far to this host came with what says who the client is. What else a client starts, git
    /// for one, is not meant.
    fn tells_at_once(&self, host: &str) -> bool {
        let transcripts = self.stack.agent().ledger().transcripts();
        let all = transcripts.iter().flat_map(|transcript| transcript.exchanges());
        let connects: Vec<_> = all.filter(|exchange| exchange.what.starts_with(&format!("CONNECT {host}"))).collect();
        assert!(!connects.is_empty(), "nobody came by the proxy to {host}");
        let tells = |sent: &[u8]| String::from_utf8_lossy(sent).to_ascii_lowercase().contains("proxy-authorization: ");
        connects.iter().all(|connect| tells(&connect.sent))
    }
}
