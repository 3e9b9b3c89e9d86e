//! What no agent needs, and no agent may have: where secrets, keys and the broker's sockets lie, and the
//! variables that hold secrets.

use super::handed::SecretAt;
use super::{Config, Endpoint, Lookup, Rotation, SealedBy, presets};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What opens a store of other secrets, whether or not this config reads from it: 1Password, by a service
/// account (<https://developer.1password.com/docs/service-accounts/>) or a Connect server; Infisical, by a machine
/// identity (<https://infisical.com/docs/cli/commands/login>).
const KEYS_OF_STORES: [&str; 4] =
    ["OP_SERVICE_ACCOUNT_TOKEN", "OP_CONNECT_HOST", "OP_CONNECT_TOKEN", "INFISICAL_UNIVERSAL_AUTH_CLIENT_SECRET"];

/// What is kept from agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfReach {
    /// Directories, absolute; none lies in another.
    pub directories: Vec<PathBuf>,
    /// Names of environment variables.
    pub variables: Vec<String>,
}

impl Config {
    /// What this config's agents are kept from.
    pub fn out_of_reach(&self) -> OutOfReach {
        // Whole directories: a file that is replaced would come out from under what hides it.
        let of = |path: &Path| path.parent().unwrap_or(path).to_owned();
        // Beside this instance's directory are those of the others.
        let mut directories = BTreeSet::from([of(&self.state_dir), self.sources.file_dir.clone()]);
        directories.extend([of(&self.listen.control), of(&self.audit.path)]);
        match &self.listen.data_plane {
            Endpoint::Unix(socket) => drop(directories.insert(of(socket))),
            Endpoint::Tls(door) => drop(directories.insert(of(&door.key))),
            Endpoint::Tcp(_) => {}
        }
        let lookups = || self.credentials.iter().flat_map(|credential| &credential.lookup);
        directories.extend(lookups().filter_map(Lookup::file).map(of));
        directories.extend(lookups().filter_map(Lookup::volume).map(Path::to_owned));
        directories.extend(self.own_secrets().filter_map(SecretAt::file).map(of));
        let cluster = self.sources.kubernetes.iter().filter_map(|cluster| cluster.kubeconfig.as_ref());
        // What it names lies below its own directory, wherever a link has led to that.
        directories.extend(cluster.filter_map(|(file, _)| Some(of(&file.canonicalize().ok()?))));
        let identity = self.sources.openbao.iter().filter_map(|openbao| openbao.identity.as_ref());
        directories.extend(identity.map(|(_, key)| of(key)));
        directories.extend(self.seal.as_ref().and_then(SealedBy::file).map(of));
        let rotations = || self.credentials.iter().filter_map(|credential| credential.rotation.as_ref());
        directories.extend(rotations().flat_map(Rotation::directories));
        let all = directories.clone();
        directories.retain(|one| !all.iter().any(|other| other != one && one.starts_with(other)));

        let mut variables: BTreeSet<String> = lookups().filter_map(Lookup::variable).map(str::to_owned).collect();
        variables.extend(self.own_secrets().filter_map(SecretAt::variable).map(str::to_owned));
        variables.extend(self.seal.as_ref().and_then(SealedBy::variable).map(str::to_owned));
        variables.extend(rotations().flat_map(|rotation| rotation.variables()).map(str::to_owned));
        variables.extend(self.credentials.iter().flat_map(|one| &one.agent_env).map(|variable| variable.name.clone()));
        variables.extend(KEYS_OF_STORES.map(str::to_owned));
        // Those of services that the config does not name: they are where people have real ones.
        for preset in presets::NAMES.into_iter().filter_map(presets::find) {
            variables.extend(preset.source.iter().filter_map(|source| source.env.as_ref()).map(|name| name.0.clone()));
            variables.extend(preset.agent_env.iter().flat_map(|all| all.keys()).map(|name| name.0.clone()));
        }
        OutOfReach { directories: directories.into_iter().collect(), variables: variables.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Overrides;
    use super::*;

    fn config(yaml: &str) -> Config {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("attache.yaml");
        std::fs::write(&file, yaml).unwrap();
        Config::load(Some(&file), &Overrides::default(), &|_| None).unwrap()
    }

    const CREDENTIALS: &str = "credentials:\n  a: {source: {env: A_KEY, file: a}, inject: bearer, destinations: \
                               [{host: a.test}], agent_env: {AGENTS_A: placeholder}}\n";

    #[test]
    fn all_instances_are_and_what_lies_elsewhere() {
        let all = config(&format!("state_dir: /var/lib/x\n{CREDENTIALS}")).out_of_reach();
        assert_eq!(all.directories, [Path::new("/var/lib/x")]);
        let apart = "state_dir: /var/lib/x\nlisten: {control: 'unix:/run/attache/c.sock', data_plane: 'unix:/run/a2/d.sock'}\n\
                     audit: {path: /var/log/attache/a.jsonl}\nsources: {file: {dir: /etc/attache/secrets}}\n";
        let all = config(&format!("{apart}{CREDENTIALS}")).out_of_reach();
        let expected = ["/etc/attache/secrets", "/run/a2", "/run/attache", "/var/lib/x", "/var/log/attache"];
        assert_eq!(all.directories, expected.map(Path::new));
    }

    #[test]
    fn a_clients_key_is_and_where_a_kubeconfig_really_lies() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        std::fs::create_dir(root.join("links")).unwrap();
        std::fs::write(root.join("real/config"), "").unwrap();
        std::os::unix::fs::symlink(root.join("real/config"), root.join("links/config")).unwrap();
        let of = format!(
            "state_dir: /var/lib/x\nsources:\n  kubernetes: {{kubeconfig: '{}/links/config'}}\n  openbao: {{address: \
             'https://b.test', auth: {{token: {{file: t}}}}, client_certificate_file: /etc/public/c.pem, client_key_file: \
             /etc/attache/keys/k.pem}}\n",
            root.display()
        );
        let all = config(&of).out_of_reach().directories;
        for expected in [root.join("real"), root.join("links"), "/etc/attache/keys".into()] {
            assert!(all.contains(&expected), "{}: {all:?}", expected.display());
        }
    }

    #[test]
    fn variables_that_hold_secrets_are_the_configs_and_the_presets() {
        let variables = config(&format!("state_dir: x\n{CREDENTIALS}")).out_of_reach().variables;
        for name in ["A_KEY", "AGENTS_A", "GITHUB_TOKEN", "GH_TOKEN", "ANTHROPIC_API_KEY", "OPENAI_API_KEY"]
            .into_iter()
            .chain(KEYS_OF_STORES)
        {
            assert!(variables.iter().any(|found| found == name), "{name}: {variables:?}");
        }
    }

    #[test]
    fn what_rotates_secrets_is_and_directories_that_everybody_needs_are_not() {
        let of = |rotation: &str| {
            let all = format!(
                "state_dir: /var/lib/x\ncredentials: {{a: {{source: {{file: a}}, inject: bearer, destinations: [{{host: \
                 a.test}}], rotation: {{{rotation}}}}}}}\n"
            );
            config(&all).out_of_reach()
        };
        let all = of("command: [/usr/bin/python3, /etc/attache/rotate/a.py, -x], env: [ADMIN, PATH]");
        assert_eq!(all.directories, ["/etc/attache/rotate", "/var/lib/x"].map(Path::new));
        assert!(all.variables.contains(&"ADMIN".to_owned()) && !all.variables.contains(&"PATH".to_owned()));
        let all = of("hook: {url: 'https://r.test', token: {env: ROTATOR}}");
        assert!(all.variables.contains(&"ROTATOR".to_owned()));
        // Files that anybody makes do not take everybody's directory away: they are not run.
        let all = of("command: [/opt/attache/rotate, /tmp/of-anybody]");
        assert_eq!(all.directories, ["/opt/attache", "/var/lib/x"].map(Path::new));
    }

    #[test]
    fn where_links_to_what_rotates_lead_is_and_so_is_where_they_lie() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        for dir in ["bin", "between", "real", "scripts"] {
            std::fs::create_dir(root.join(dir)).unwrap();
        }
        std::fs::write(root.join("real/rotate"), "").unwrap();
        std::fs::write(root.join("scripts/a.sh"), "").unwrap();
        std::os::unix::fs::symlink("../real/rotate", root.join("between/now")).unwrap();
        std::os::unix::fs::symlink("../between/now", root.join("bin/rotate")).unwrap();
        let at = |name: &str| root.join(name).display().to_string();
        // One that is relative is found in `/`, where commands run.
        let script = at("scripts/a.sh").trim_start_matches('/').to_owned();
        let rotation = format!("command: [{}, {script}, no/such]", at("bin/rotate"));
        let all = format!(
            "state_dir: /var/lib/x\ncredentials: {{a: {{source: {{file: a}}, inject: bearer, destinations: [{{host: \
             a.test}}], rotation: {{{rotation}}}}}}}\n"
        );
        let expected = ["between", "bin", "real", "scripts"].map(|dir| root.join(dir));
        let mut found = config(&all).out_of_reach().directories;
        found.retain(|dir| dir.starts_with(&root));
        assert_eq!(found, expected);
    }
}
