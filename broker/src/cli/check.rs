//! `attache check`: all errors of a config at once; what it means when there are none.

use super::common::{Common, say};
use super::config;
use crate::config::{Bundle, Config, Credential, Endpoint, Lookup, destination_id};
use attache_core::names::Name;
use attache_core::policy::AccessMode;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::ExitCode;

/// Check the config: all errors at once, or what it means
#[derive(Debug, clap::Args)]
pub struct CheckArgs {}

/// Checks the config. Exit code 64 when it has errors.
pub async fn run(_: CheckArgs, common: &Common) -> ExitCode {
    let config = match config::load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if common.json {
        say(describe(&config));
    } else {
        say(summary(&config).trim_end());
    }
    ExitCode::SUCCESS
}

fn describe(config: &Config) -> Value {
    let destination = |credential: &Credential| -> Vec<Value> {
        let each = credential.destinations.iter();
        let each = each.map(
            |d| json!({"id": destination_id(d), "paths": d.paths, "plaintext": d.plaintext, "private": d.private, "access_mode": d.access_mode, "mask": d.mask, "websocket": d.websocket, "inject": d.injection, "with": d.with, "strip": d.strip}),
        );
        each.collect()
    };
    let credentials = config.credentials.iter().map(|credential| {
        json!({
            "name": credential.name,
            "service": credential.service,
            "sources": credential.lookup.iter().map(Lookup::place).collect::<Vec<_>>(),
            "scope": credential.scope(),
            "bundle": credential.bundle.as_ref().map(fields),
            "rotation": credential.rotation.as_ref().map(ToString::to_string),
            "destinations": destination(credential),
            "placeholder": credential.placeholder,
            "missing_placeholder": credential.missing_placeholder,
            "agent_env": credential.agent_env.iter().map(|variable| &variable.name).collect::<Vec<_>>(),
        })
    });
    let sessions = config.sessions.iter().map(|session| {
        json!({
            "name": session.name,
            "credentials": session.credentials,
            "access_mode": session.access_mode,
            "ttl_s": session.ttl.map(|ttl| ttl.as_secs()),
            "bind": session.bind,
            "scopes": session.scopes,
        })
    });
    json!({
        "ok": true,
        "instance": config.instance,
        "state_dir": config.state_dir,
        "proxy": config.listen.proxy,
        "proxy_socket": config.listen.proxy_socket,
        "data_plane": config.listen.data_plane.to_string(),
        "peers": peers(&config.listen.data_plane),
        "health": config.listen.health,
        "policy": config.policy().version,
        "sealed_by": config.seal.as_ref().map(crate::config::SealedBy::place),
        "unmatched": config.unmatched,
        "hosts": config.hosts.iter().map(|host| json!({"id": host.id(), "private": host.private})).collect::<Vec<_>>(),
        "dns": config.dns_servers,
        "credentials": credentials.collect::<Vec<_>>(),
        "sessions": sessions.collect::<Vec<_>>(),
        "warnings": config.cautions(),
    })
}

/// Who may ask over a network, and for which sessions: `null` is all of them.
fn peers(door: &Endpoint) -> Value {
    match door {
        Endpoint::Tls(door) => door
            .peers
            .iter()
            .map(|peer| json!({"id": peer.id.as_str(), "sessions": peer.sessions.as_deref()}))
            .collect(),
        Endpoint::Tcp(_) | Endpoint::Unix(_) => Value::Null,
    }
}

/// Which fields a credential has, and what becomes of each.
fn fields(bundle: &Bundle) -> Value {
    let headers = bundle.headers.iter().map(|header| (header.name.clone(), header.field.to_string().into()));
    let public = bundle.fields.iter().map(|(name, field)| (name.clone(), field.to_string().into()));
    json!({
        "secret": bundle.secret.to_string(),
        "headers": headers.collect::<serde_json::Map<_, _>>(),
        "expires": bundle.expires.as_ref().map(ToString::to_string),
        "fields": public.collect::<serde_json::Map<_, _>>(),
        "destinations": bundle.destinations.as_ref().map(ToString::to_string),
    })
}

fn summary(config: &Config) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(out, "The config is good. Instance {}, state in {}", config.instance, config.state_dir.display());
    if let Some(health) = config.listen.health {
        let _ = writeln!(out, "probes and Prometheus ask at http://{health}, without a token");
    }
    if let Endpoint::Tls(door) = &config.listen.data_plane {
        let ids = if door.peers.len() == 1 { "one SPIFFE ID" } else { "SPIFFE IDs" };
        let _ =
            writeln!(out, "the data plane is asked at {} by mutual TLS, by {} {ids}", door.address, door.peers.len());
        for peer in &door.peers {
            let sessions = peer.sessions.as_ref().map(|names| names.iter().map(Name::as_str).collect::<Vec<_>>());
            let sessions =
                sessions.map_or("every session".to_owned(), |names| format!("for {} alone", names.join(", ")));
            let _ = writeln!(out, "  {}  {sessions}", peer.id);
        }
    }
    if let Some(seal) = &config.seal {
        let _ = writeln!(out, "sealed by {}", seal.place());
    }
    for credential in &config.credentials {
        let _ = writeln!(out, "\ncredential {}", credential.name);
        let _ = writeln!(
            out,
            "  from    {}",
            credential.lookup.iter().map(Lookup::place).collect::<Vec<_>>().join(", else ")
        );
        if let Some(rotation) = &credential.rotation {
            let _ = writeln!(out, "  rotates {rotation}");
        }
        if let Some(scope) = credential.scope() {
            let _ = writeln!(out, "  gives   each session a token of its own: {scope}, at most");
        }
        for destination in &credential.destinations {
            let tls = if destination.plaintext { " (without TLS)" } else { "" };
            let paths =
                if destination.paths.is_empty() { String::new() } else { format!(" {}", destination.paths.join(" ")) };
            let private = if destination.private { " (may be private)" } else { "" };
            let cap = if destination.access_mode == AccessMode::ReadOnly { " (read-only)" } else { "" };
            let websocket = if destination.websocket { " (WebSocket, too)" } else { "" };
            let mask = if destination.mask { "" } else { " (echoes of the secret are NOT masked)" };
            let _ =
                writeln!(out, "  to      {}{paths}{tls}{private}{cap}{websocket}{mask}", destination_id(destination));
            let with = destination.with.iter().map(|it| {
                let how = if it.merge { " (joined to the agent's)" } else { "" };
                format!("{}: {}{how}", it.header, it.value)
            });
            let fields = credential.bundle.iter().flat_map(|bundle| &bundle.headers);
            let fields = fields.map(|header| format!("{}: {{{}}}", header.name, header.field));
            let all: Vec<_> = [destination.injection.outline()].into_iter().chain(fields).chain(with).collect();
            let _ = writeln!(out, "    as    {}", all.join(", and "));
            let parameters = destination.strip.query.iter().map(|name| format!("?{name}="));
            let stripped: Vec<_> = destination.strip.headers.iter().cloned().chain(parameters).collect();
            if !stripped.is_empty() {
                let _ = writeln!(out, "    not   {} (the agent's own are taken out)", stripped.join(", "));
            }
        }
        let variables: Vec<_> = credential.agent_env.iter().map(|variable| variable.name.as_str()).collect();
        let _ = writeln!(out, "  agents  {}", variables.join(", "));
    }
    for host in &config.hosts {
        let private = if host.private { " (may be private)" } else { "" };
        let _ = writeln!(out, "\nhost {}{private}: never decrypted, no credential", host.id());
    }
    for session in &config.sessions {
        let ttl = session.ttl.map(|ttl| format!(", for {}", humantime::format_duration(ttl))).unwrap_or_default();
        let names: Vec<_> = session.credentials.iter().map(|name| name.as_str()).collect();
        let _ =
            writeln!(out, "\nsession {}: {}{ttl}: {}", session.name, session.access_mode.as_str(), names.join(", "));
        if !session.bind.is_empty() {
            let _ = writeln!(out, "  demands {}", session.bind);
        }
        for (credential, scope) in &session.scopes {
            let _ = writeln!(out, "  has     of {credential}: {scope}");
        }
        for provider in &config.oidc {
            if provider.rules.iter().any(|rule| rule.session == session.name) {
                let _ = writeln!(out, "  named   by JWTs of {} in {}", provider.issuer, provider.header);
            }
        }
    }
    if config.credentials.is_empty() {
        let presets = crate::config::presets::NAMES.join(", ");
        let _ = writeln!(
            out,
            "\nno credential: name some under `credentials`, e.g. `github: {{preset: github}}` ({presets})"
        );
    }
    for caution in config.cautions() {
        let _ = writeln!(out, "\nwarning: {caution}");
    }
    out
}
