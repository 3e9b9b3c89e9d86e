//! `attache serve --envoy-dir`: an Envoy that has this one directory has all that it needs, and nothing else.

use crate::{CONFIG, Place, accepts, errors};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A broker that ends with its test.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn place(data_plane: &str, more: &str) -> Place {
    let listen = format!("'127.0.0.1:0', data_plane: 'unix:{data_plane}'{more}}}");
    let place = Place::new(&CONFIG.replace("'127.0.0.1:0'}", &listen));
    let config = std::fs::read_to_string(place.path("attache.yaml")).unwrap();
    let dir = place.path("");
    let config = config.replace("DIR", dir.to_str().unwrap().trim_end_matches('/'));
    std::fs::write(place.path("attache.yaml"), config).unwrap();
    place
}

fn serve(place: &Place, dir: &Path) -> Serving {
    let mut command = place.command(&["serve", "--envoy-dir", dir.to_str().unwrap()]);
    let serving = Serving(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(20);
    while !dir.join("forward-proxy.yaml").exists() {
        assert!(Instant::now() < deadline, "handed over in time");
        std::thread::sleep(Duration::from_millis(10));
    }
    serving
}

#[test]
fn all_that_envoy_needs_and_no_secret_but_the_token() {
    let place = place("DIR/envoy/data-plane.sock", "");
    let dir = place.path("envoy");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(dir.join("gateway.yaml"), "of another life").unwrap();
    std::fs::set_permissions(dir.join("gateway.yaml"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let _serving = serve(&place, &dir);
    for entry in std::fs::read_dir(&dir).unwrap().map(Result::unwrap) {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{entry:?}");
        let content = std::fs::read(entry.path()).unwrap_or_default();
        assert!(!content.windows(8).any(|window| window == b"ghp_real"), "{entry:?}");
    }
    for shape in ["gateway", "forward-proxy"] {
        let file = dir.join(format!("{shape}.yaml"));
        let text = std::fs::read_to_string(&file).unwrap();
        let here = place.path("");
        let here = here.to_str().unwrap();
        let elsewhere: Vec<_> = text.lines().filter(|line| line.contains(here) && !line.contains("/envoy/")).collect();
        assert!(elsewhere.is_empty(), "{elsewhere:?}");
        assert!(!text.contains("/etc/ssl") && !text.contains("tests/doctor"), "authorities are in there, too");
        accepts::validate(&file);
    }
}

#[test]
fn what_envoy_would_not_find_or_should_not_have_is_refused() {
    let cases = [
        ("data.sock", "", "listen.data_plane is unix:"),
        ("DIR/envoy/data.sock", ", control: 'unix:DIR/envoy/control.sock'", "the control socket"),
    ];
    for (data_plane, more, said) in cases {
        let place = place(data_plane, more);
        let dir = place.path("envoy");
        let output = place.run(&["serve", "--envoy-dir", dir.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
        assert!(errors(&output).contains(said), "{}", errors(&output));
        assert!(!dir.join("gateway.yaml").exists());
    }
    let place = place("data.sock", "");
    assert_eq!(place.run(&["serve", "--envoy-version", "1.40.0"]).status.code(), Some(2), "it is of no use alone");
}
