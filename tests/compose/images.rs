//! The images: ours, as `make images` builds them, and stand-ins for those that would be pulled.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use attache_tests::util;

use crate::engine::{Engine, stand_in};

/// What a small Debian has, as far as the tests and the shipped files need it, and a client.
const PROGRAMS: [&str; 18] = [
    "bash", "dash", "cat", "chmod", "cp", "curl", "env", "getent", "grep", "head", "id", "ip", "ls", "mkdir", "rm",
    "sleep", "timeout", "touch",
];

/// What the entry of Envoy's image does for a user that is not root.
const ENTRY: &str = "#!/bin/sh\nset -e\nif [ \"${1#-}\" != \"$1\" ]; then set -- envoy \"$@\"; fi\nexec \"$@\"\n";

/// Builds all of them.
pub async fn build(engine: &Engine) {
    let root = engine.dir().join("rootfs");
    let stand_in_binary = PathBuf::from(stand_in());
    small_debian(&root, &[util::broker_bin(), envoy(), stand_in_binary]);
    let tar = engine.dir().join("rootfs.tar");
    let (root, tar) = (root.to_str().expect("text"), tar.to_str().expect("text"));
    run(engine, "tar", &["-C", root, "-cf", tar, "."], &[]).await;
    run(engine, "docker", &["import", tar, "debian:bookworm-slim"], &[]).await;

    let context = engine.dir().join("envoy");
    std::fs::create_dir(&context).expect("a directory of ours");
    std::fs::copy(envoy(), context.join("envoy")).expect("Envoy's binary");
    executable(&context.join("docker-entrypoint.sh"), ENTRY);
    let version = std::fs::read_to_string(util::workspace_root().join(".envoy-version")).expect("a version");
    let tag = format!("envoyproxy/envoy:v{}", version.trim());
    let context = context.to_str().expect("text");
    let file = "tests/compose/envoy.Dockerfile";
    run(engine, "docker", &["build", "--quiet", "--tag", &tag, "--file", file, context], &[]).await;

    let (broker, filter) = (util::broker_bin(), util::filter_wasm());
    let built = [broker.to_str().expect("text"), filter.to_str().expect("text")];
    run(engine, "scripts/images", &built, &[]).await;
}

async fn run(engine: &Engine, program: &str, arguments: &[&str], env: &[(&str, &str)]) {
    let program = if program.contains('/') { util::workspace_root().join(program) } else { program.into() };
    let said = engine.run(&program, arguments, env).await;
    assert!(said.status.success(), "{}: {said:?}", program.display());
}

/// Envoy, as `make setup` has installed it.
fn envoy() -> PathBuf {
    attache_broker::envoy::find::envoy().expect("Envoy; `make setup` gets it")
}

fn executable(path: &Path, content: &str) {
    std::fs::write(path, content).expect("a directory of ours");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a file of ours");
}

/// A root filesystem out of this machine's own programs and libraries, and the libraries of these.
fn small_debian(root: &Path, guests: &[PathBuf]) {
    let at = |path: &Path| root.join(path.strip_prefix("/").expect("an absolute path"));
    for dir in ["bin", "dev", "etc/ssl/certs", "proc", "root", "run", "sys", "tmp", "usr/local/bin", "var/lib"] {
        std::fs::create_dir_all(root.join(dir)).expect("a directory of ours");
    }
    std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).expect("a directory of ours");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let programs = PROGRAMS.map(|name| {
        let mut found = std::env::split_paths(&path).map(|dir| dir.join(name)).filter(|file| file.is_file());
        let file = found.next().unwrap_or_else(|| panic!("{name} is not on this machine"));
        std::fs::copy(&file, root.join("bin").join(name)).expect("a program");
        file
    });
    symlink("dash", root.join("bin/sh")).expect("a directory of ours");
    let linked: BTreeSet<_> = programs.iter().chain(guests).flat_map(|program| libraries(program)).collect();
    // What the resolver loads by itself.
    let dirs: BTreeSet<_> = linked.iter().filter_map(|file| file.parent()).collect();
    let resolver = ["libnss_files.so.2", "libnss_dns.so.2"];
    let resolver = dirs.iter().flat_map(|dir| resolver.map(|name| dir.join(name))).filter(|file| file.is_file());
    for file in linked.iter().cloned().chain(resolver) {
        std::fs::create_dir_all(at(&file).parent().expect("a parent")).expect("a directory of ours");
        std::fs::copy(&file, at(&file)).expect("a library");
    }
    let roots = attache_broker::envoy::find::system_roots().expect("the system's certificates");
    std::fs::copy(roots, root.join("etc/ssl/certs/ca-certificates.crt")).expect("a copy");
    let etc = [
        ("passwd", "root:x:0:0::/root:/bin/sh\nenvoy:x:101:101::/:/bin/false\n"),
        ("group", "root:x:0:\nenvoy:x:101:\n"),
        ("nsswitch.conf", "hosts: files dns\n"),
    ];
    etc.iter().for_each(|(name, text)| std::fs::write(root.join("etc").join(name), text).expect("a directory of ours"));
}

/// What a program is linked with, the loader included.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().expect("ldd");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    text.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':')).map(PathBuf::from).collect()
}
