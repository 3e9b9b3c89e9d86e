//! requests, pip and twine behind the forward proxy, on this machine's Python; packages are pypiserver's, which gives and takes nothing
//! without the real password.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use attache_core::refusal::Reason;
use attache_tests::stack::{GITHUB, Plan};
use attache_tests::util;
use tempfile::TempDir;

use crate::behind::Client;
use crate::scene::{PATIENCE, Scene, is_installed, program};

const HOST: &str = "packages.example.com";
const PASSWORD: &str = "pypi-TheRealTokenThatNoAgentEverSees0000000004";
const CREDENTIAL: &str = "{source: {file: packages}, inject: {basic: agent}, placeholder: {prefix: pypi-, length: 60}, \
     agent_env: {PACKAGES_TOKEN: placeholder}, destinations: [{host: packages.example.com, upstream: DIAL}]}";
/// The Python that they are installed beside.
const PYTHON: &str = "export PATH=$(dirname $(command -v pypi-server)):$PATH PIP_DISABLE_PIP_VERSION_CHECK=1\n";
/// A wheel of one file, `letter`.
const WHEEL: &str = r#"python - <<'END'
import zipfile
info = "letter-1.0.dist-info/"
with zipfile.ZipFile("letter-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("letter.py", "text = 'Good day'\n")
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: letter\nVersion: 1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "letter.py,,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info + "RECORD,,\n")
END
"#;

/// A running pypiserver. Ends when dropped.
struct Packages {
    child: Child,
    addr: SocketAddr,
    _dir: TempDir,
}

impl Packages {
    async fn start() -> Self {
        let (dir, addr) = (util::temp_dir(), SocketAddr::from(([127, 0, 0, 1], util::free_port())));
        let python = program("pypi-server").with_file_name("python");
        let hash = format!("from passlib.hash import apr_md5_crypt as h; print('agent:' + h.hash('{PASSWORD}'))");
        let users = Command::new(python).args(["-c", &hash]).output().expect("python runs").stdout;
        std::fs::write(dir.path().join("users"), users).expect("the users");
        std::fs::create_dir(dir.path().join("packages")).expect("a directory");
        let mut command = Command::new(program("pypi-server"));
        command.args(["run", "-i", "127.0.0.1", "-p", &addr.port().to_string(), "--disable-fallback", "-P"]);
        command.arg(dir.path().join("users")).args(["-a", "update,download,list"]).arg(dir.path().join("packages"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let packages = Self { child: command.spawn().expect("it starts"), addr, _dir: dir };
        util::eventually(PATIENCE, || std::net::TcpStream::connect(addr).is_ok()).await;
        packages
    }
}

impl Drop for Packages {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_reads_and_is_told_why_it_may_not_write() {
    if !is_installed("python-packages-") {
        return;
    }
    let scene = Scene::of(Plan::default().forward_proxy()).await;
    let script = r#"python - <<'END'
import os, requests
session = requests.Session()
session.headers["Authorization"] = "Bearer " + os.environ["GITHUB_TOKEN"]
print(session.get("https://api.github.com/user").text)
answer = session.post("https://api.github.com/user/repos", json={"name": "x"})
print(answer.status_code, answer.json()["hint"])
END"#;
    let said = scene.run_by("reader", "REQUESTS_CA_BUNDLE", &format!("{PYTHON}{script}")).await.ok();
    let said = said.shows(Reason::ReadOnly);
    let lines: Vec<_> = said.out.lines().filter(|line| !line.is_empty()).collect();
    let [read, refused] = lines[..] else { panic!("{}", said.out) };
    assert!(read == "ok" && refused.starts_with("403 "), "{}", said.out);
    let hits = scene.stack.upstream().hits();
    let [hit] = &hits[..] else { panic!("one request, not {hits:?}") };
    assert_eq!(hit.header("authorization"), Some(format!("Bearer {GITHUB}")));
    let tested = "a read; a reader's write is refused";
    let version = "import platform, requests as r; print(f'{r.__version__}, Python {platform.python_version()}')";
    let version = &format!("{PYTHON}python -c \"{version}\"");
    scene
        .row("reader", &Client { name: "requests", version, ca: "REQUESTS_CA_BUNDLE", host: "api.github.com", tested })
        .await;
    scene.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twine_publishes_pip_installs_and_a_reader_is_told_that_it_may_not_publish() {
    if !is_installed("python-packages-") {
        return;
    }
    let plan = Plan::default().credential("packages", PASSWORD, CREDENTIAL).forward_proxy();
    let plan = plan.session("{name: publisher, credentials: [packages]}");
    let plan = plan.session("{name: installer, credentials: [packages], access_mode: read-only}");
    let (scene, packages) = tokio::join!(Scene::of(plan), Packages::start());
    scene.stack.upstream().lead(HOST, packages.addr);

    let upload = "twine upload --disable-progress-bar -u agent -p $PACKAGES_TOKEN \
         --repository-url https://packages.example.com/ letter-1.0-py3-none-any.whl";
    let upload = format!("{PYTHON}{WHEEL}{upload}");
    let refused = scene.run_by("installer", "TWINE_CERT", &upload).await;
    assert!(!refused.succeeded && format!("{}{}", refused.out, refused.err).contains("403"), "{refused:?}");
    assert!(scene.stack.upstream().requests().is_empty(), "a publication of a reader arrived");
    scene.run_by("publisher", "TWINE_CERT", &upload).await.ok();

    let install = "pip install -q --no-cache-dir --target use letter \
         --index-url https://agent:$PACKAGES_TOKEN@packages.example.com/simple/ && \
         PYTHONPATH=use python -c 'import letter; print(letter.text)'";
    let said = scene.run_by("installer", "PIP_CERT", &format!("{PYTHON}{install}")).await.ok();
    assert_eq!(said.out, "Good day\n", "{}", said.err);
    let hits = scene.stack.upstream().hits();
    assert!(hits.iter().any(|hit| hit.path_text().ends_with(".whl")), "the wheel came another way");

    let version = &format!("{PYTHON}pip --version | cut -d' ' -f2");
    let pip = Client { name: "pip", version, ca: "PIP_CERT", host: HOST, tested: "install from pypiserver" };
    scene.row("installer", &pip).await;
    let version = &format!("{PYTHON}twine --version | head -1 | cut -d' ' -f3");
    let tested = "upload to pypiserver; a reader's upload is refused";
    scene.row("installer", &Client { name: "twine", version, ca: "TWINE_CERT", host: HOST, tested }).await;
    scene.reconcile().await;
}
