//! What is lawful in a config, and unwise: said, never refused.

use super::{Bind, Config, Endpoint, Rotator, SealedBy};
use crate::rotation::vet::vet;
use std::path::PathBuf;

impl Config {
    /// What is unwise about it, in words for the operator.
    pub fn cautions(&self) -> Vec<String> {
        let token = matches!(self.listen.data_plane, Endpoint::Tcp(_)).then(|| {
            "listen.data_plane is a TCP port: while the broker is away, whoever on this machine binds it is sent the \
             data plane's token by Envoy, and can ask for grants with it; remove the line, or write unix:data-plane.sock"
                .to_owned()
        });
        token
            .into_iter()
            .chain(self.reachable())
            .chain(self.peers())
            .chain(self.peers_files())
            .chain(self.beside_its_key())
            .chain(self.missing())
            .chain(self.unread())
            .chain(self.rotators())
            .chain(self.organisations())
            .collect()
    }

    /// Peers that serve sessions which nobody has declared.
    fn peers(&self) -> impl Iterator<Item = String> {
        let door = match &self.listen.data_plane {
            Endpoint::Tls(door) => Some(door),
            _ => None,
        };
        let served = door.into_iter().flat_map(|door| &door.peers);
        let named =
            served.flat_map(|peer| peer.sessions.iter().flat_map(move |all| all.iter().map(move |one| (peer, one))));
        let unknown = named.filter(|(_, name)| !self.sessions.iter().any(|session| session.name == **name));
        unknown.map(|(peer, name)| {
            format!(
                "listen.data_plane.peers: {} may ask for session {name}, which the config does not declare: it is for one \
                 that `attache session create` makes under this name",
                peer.id
            )
        })
    }

    /// What the data plane's TLS is made of, and is not there yet: without it the broker does not start.
    fn peers_files(&self) -> impl Iterator<Item = String> {
        let door = match &self.listen.data_plane {
            Endpoint::Tls(door) => Some(door),
            _ => None,
        };
        let files = door
            .into_iter()
            .flat_map(|door| [("certificate", &door.certificate), ("key", &door.key), ("client_ca", &door.client_ca)]);
        files.filter(|(_, file)| !file.exists()).map(|(name, file)| {
            format!(
                "listen.data_plane.tls.{name} is not there: {}; the broker does not start without it",
                file.display()
            )
        })
    }

    /// A key in the directory that it seals, or in the one with all instances: a copy of that is a copy of both.
    fn beside_its_key(&self) -> Option<String> {
        let Some(SealedBy::File(file)) = &self.seal else { return None };
        let all = self.state_dir.parent().unwrap_or(&self.state_dir);
        file.starts_with(all).then(|| {
            format!(
                "state.seal.file is {}, within {}: whoever copies the state directory has its key, too; keep the key \
                 elsewhere",
                file.display(),
                all.display()
            )
        })
    }

    /// Files that Envoy will look for: without them it does not start.
    fn missing(&self) -> impl Iterator<Item = String> {
        let upstreams = self.credentials.iter().flat_map(|credential| {
            credential
                .destinations
                .iter()
                .filter_map(move |to| Some((credential, to, to.upstream.as_ref()?.ca_file.as_ref()?)))
        });
        upstreams.filter(|(.., file)| !file.exists()).map(|(credential, to, file)| {
            format!(
                "credentials.{}: upstream.ca_file of {} is not there: {}; Envoy does not start without it",
                credential.name,
                to.host,
                file.display()
            )
        })
    }

    /// Files of sources, and the key of the seal, without which somebody is not asked, or nothing starts.
    fn unread(&self) -> impl Iterator<Item = String> {
        let sources = &self.sources;
        let of = |at: &'static str, file: &Option<PathBuf>| Some((at, file.clone()?));
        let openbao = sources.openbao.iter().flat_map(move |bao| {
            let identity = bao.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
            let identity = identity.map(|file| ("sources.openbao.client_certificate_file", file.clone()));
            of("sources.openbao.ca_file", &bao.ca_file).into_iter().chain(identity)
        });
        let infisical = sources.infisical.iter().filter_map(move |one| of("sources.infisical.ca_file", &one.ca_file));
        let connect = sources.onepassword.iter().filter_map(|one| one.connect.as_ref());
        let connect = connect.filter_map(move |one| of("sources.onepassword.connect.ca_file", &one.ca_file));
        let app = sources.github_app.iter().filter_map(move |app| of("sources.github_app.ca_file", &app.ca_file));
        let seal = self.seal.as_ref().and_then(SealedBy::file).map(|file| ("state.seal.file", file.to_owned()));
        let all = openbao.chain(infisical).chain(connect).chain(app).chain(seal);
        all.filter(|(_, file)| !file.exists()).map(|(at, file)| format!("{at} is not there: {}", file.display()))
    }

    /// Commands that will not be run.
    fn rotators(&self) -> impl Iterator<Item = String> {
        let rotations =
            self.credentials.iter().filter_map(|credential| Some((credential, credential.rotation.as_ref()?)));
        rotations.filter_map(|(credential, rotation)| {
            let Rotator::Command { argv, .. } = &rotation.by else { return None };
            let why = vet(argv).err()?;
            Some(format!("credentials.{}.rotation.command is not run: {why}", credential.name))
        })
    }

    /// Sessions that are narrowed to repositories, where permissions reach beyond those.
    fn organisations(&self) -> impl Iterator<Item = String> {
        let narrowed = self.sessions.iter().flat_map(|session| session.scopes.iter().map(move |one| (session, one)));
        narrowed.filter_map(|(session, (name, scope))| {
            let by_repository = scope.repositories.is_some() || scope.repository_ids.is_some();
            let most = self.credentials.iter().find(|credential| credential.name == *name)?.scope()?;
            let beyond = most.permissions.iter().flatten().map(|(permission, _)| permission.as_str());
            let beyond: Vec<_> =
                beyond.filter(|name| *name == "members" || name.starts_with("organization_")).collect();
            (by_repository && scope.permissions.is_none() && !beyond.is_empty()).then(|| {
                format!(
                    "sessions.{}: its scope of {name} names repositories alone, and {} of the credential are the \
                     organisation's: they stay as they are; name its permissions, too",
                    session.name,
                    beyond.join(", ")
                )
            })
        })
    }

    /// A listener that other machines reach, and the sessions that a placeholder alone opens there.
    fn reachable(&self) -> Option<String> {
        let at = self.listen.proxy;
        if at.ip().to_canonical().is_loopback() {
            return None;
        }
        let open = self.sessions.iter().filter(|session| !holds_strangers_off(&session.bind));
        let open: Vec<_> = open.map(|session| session.name.as_str()).collect();
        let whose = match open.as_slice() {
            [] if !self.sessions.is_empty() => return None,
            [] => "any session".to_owned(),
            names => names.join(", "),
        };
        Some(format!(
            "listen.proxy is {at}: other machines reach it, in plain HTTP, and a placeholder of {whose} is all that it \
             takes there; listen on 127.0.0.1, or bind each session to a network or a certificate (bind: {{source: CIDR}}, {{peer: \
             spiffe://…}})"
        ))
    }
}

/// A session token does not: it crosses the same network as the placeholder. Nor does a listener.
fn holds_strangers_off(bind: &Bind) -> bool {
    bind.peer.is_some() || bind.source.is_some()
}
