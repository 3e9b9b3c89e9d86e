//! What needs no DNS server: `broker/tests/broker/guards.rs` has one.

use super::guard::{Refused, choose, vet};
use super::hosts_file::HostsFile;
use super::*;
use crate::config::{Endpoint, Overrides};
use hickory_resolver::proto::rr::Name;
use std::path::Path;

fn config(text: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("attache.yaml");
    std::fs::write(&file, text).unwrap();
    let overrides = Overrides { state_dir: Some(Path::new("/s").into()), ..Overrides::default() };
    Config::load(Some(&file), &overrides, &|_| None).unwrap_or_else(|errors| panic!("{errors}"))
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn an_address_that_the_config_does_not_write_is_vetted_like_any_other() {
    let config = config(
        "credentials: {a: {source: {env: A}, inject: bearer, destinations: [{host: 10.0.0.1}, {host: '[::1]'}]}}\n",
    );
    let egress = Egress::new(&config, OwnListeners::new(&config, [None; 2])).unwrap();
    let way = async |host: &str, port| {
        let way = egress.way(&Host::parse(host.as_bytes()).unwrap(), port).await;
        way.map(|way| way.address.to_string())
    };
    assert_eq!(way("10.0.0.1", 443).await.as_deref(), Ok("10.0.0.1:443"));
    assert_eq!(way("[::1]", 443).await.as_deref(), Ok("[::1]:443"));
    for (host, port) in [("10.0.0.1", 80), ("10.0.0.2", 443), ("169.254.169.254", 443), ("[::1]", 80)] {
        assert_eq!(way(host, port).await, Err(Reason::AddressNotAllowed), "{host}:{port}");
    }
}

#[test]
fn all_addresses_are_looked_at_before_one_is_chosen() {
    let own = OwnListeners::default();
    let public = addresses(&["93.184.215.14", "2606:2800::1"]);
    assert_eq!(vet(&public, 443, false, &own).map(|vetted| vetted.len()), Ok(2));
    for at in 0..3 {
        let mut mixed = public.clone();
        mixed.insert(at, "10.0.0.1".parse().unwrap());
        assert!(matches!(vet(&mixed, 443, false, &own), Err(Refused::NotPublic(..))), "{mixed:?}");
        assert_eq!(vet(&mixed, 443, true, &own).map(|vetted| vetted.len()), Ok(3));
    }
    for nobodys in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "::ffff:0.0.0.0"] {
        let refused = vet(&addresses(&[nobodys]), 443, true, &own);
        assert!(matches!(refused, Err(Refused::Nobodys(_))), "{nobodys}: {refused:?}");
    }
}

/// In a network of its own, which is this thread's alone.
#[test]
#[ignore = "makes a network namespace: root can"]
fn a_public_address_of_this_machine_or_beside_it_is_not_public() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let own = OwnListeners::default();
    let refused = |ip: &str| vet(&addresses(&[ip]), 443, false, &own).is_err();
    assert!(!refused("93.184.215.14") && !refused("93.184.215.99") && !refused("2606:2800::1"));
    for address in ["93.184.215.14/24", "2606:2800::1/64"] {
        let added = std::process::Command::new("ip").args(["addr", "add", address, "dev", "lo"]).status().unwrap();
        assert!(added.success());
    }
    assert!(refused("93.184.215.14") && refused("93.184.215.99") && refused("2606:2800::1") && refused("2606:2800::2"));
    assert!(refused("::ffff:93.184.215.14") && !refused("93.184.216.14") && !refused("2606:2800:0:1::1"));
    assert!(vet(&addresses(&["93.184.215.14"]), 443, true, &own).is_ok(), "the config names it");
}

#[test]
fn what_has_a_route_goes_before_what_has_none_and_then_each_has_its_turn() {
    // Loopback always has a route. A link-local address without its link never has.
    let vetted: Vec<SocketAddr> =
        ["127.0.0.1:1", "[fe80::1]:1", "127.0.0.2:1"].map(|text| text.parse().unwrap()).into();
    let chosen: Vec<_> = (0..4).filter_map(|turn| choose(&vetted, turn)).collect();
    assert_eq!(chosen, [vetted[0], vetted[2], vetted[0], vetted[2]]);
    assert_eq!(choose(&vetted[1..2], 7), Some(vetted[1]), "where nothing has a route, something is answered");
    assert_eq!(choose(&[], 0), None);
}

#[test]
fn a_listener_is_known_by_where_it_is_bound() {
    let mut config = config("listen: {proxy: '0.0.0.0:3030', data_plane: '127.0.0.1:0'}\n");
    config.listen.admin = Some("127.0.0.1:9901".parse().unwrap());
    let own = OwnListeners::new(
        &config,
        [Some("127.0.0.1:40000".parse().unwrap()), Some("127.0.0.1:40033".parse().unwrap())],
    );
    let refuses = |ip: &str, port| matches!(vet(&addresses(&[ip]), port, true, &own), Err(Refused::Own(_)));
    assert!(refuses("127.0.0.1", 40_000) && refuses("127.0.0.1", 9901) && refuses("127.0.0.9", 3030));
    assert!(refuses("127.0.0.1", 40_033), "the door of probes");
    assert!(!refuses("127.0.0.2", 40_000) && !refuses("127.0.0.1", 40_001) && !refuses("10.9.8.7", 3030));
    config.listen.data_plane = Endpoint::Unix("/s/data.sock".into());
    let own = OwnListeners::new(&config, [None; 2]);
    assert!(vet(&addresses(&["127.0.0.1"]), 40_000, true, &own).is_ok());
}

#[tokio::test]
async fn the_hosts_file_is_read_as_it_is_now() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosts");
    let file = HostsFile::new(&path);
    let of = async |name: &str| file.addresses(&Name::from_ascii(name).unwrap()).await;
    assert_eq!(of("a.test.").await, addresses(&[]), "there is none");
    std::fs::write(&path, "# b\n10.0.0.1 a.test alias.test # c\n::1 a.test\n").unwrap();
    assert_eq!(of("a.test.").await, addresses(&["10.0.0.1", "::1"]));
    assert_eq!(of("ALIAS.test.").await, addresses(&["10.0.0.1"]));
    assert_eq!(of("b.test.").await, addresses(&[]));
    std::fs::write(&path, "10.0.0.22 a.test\n").unwrap();
    assert_eq!(of("a.test.").await, addresses(&["10.0.0.22"]));
}
