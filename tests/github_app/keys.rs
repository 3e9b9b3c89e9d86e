//! Private keys of an App, made by `openssl`, in the forms that there are.

use std::process::Command;

use attache_tests::util;

/// An RSA key.
pub struct Key {
    /// As GitHub gives it: PKCS#1, PEM.
    pub pem: String,
}

/// What this prints; `None`: `openssl` is not here, which is told.
pub fn openssl(args: &[&str], input: &str) -> Option<Vec<u8>> {
    use std::io::Write as _;
    use std::process::Stdio;
    let child =
        Command::new("openssl").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = child else {
        util::skipped("openssl is not here, and makes the keys of an App: scripts/need openssl");
        return None;
    };
    // It may read nothing at all.
    child.stdin.take().expect("piped").write_all(input.as_bytes()).ok();
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "openssl {args:?}");
    Some(output.stdout)
}

fn text(args: &[&str], input: &str) -> Option<String> {
    Some(String::from_utf8(openssl(args, input)?).expect("PEM is text"))
}

impl Key {
    /// One of so many bits.
    pub fn of(bits: &str) -> Option<Self> {
        Some(Self { pem: text(&["genrsa", "-traditional", bits], "")? })
    }

    /// One as GitHub makes them.
    pub fn new() -> Option<Self> {
        Self::of("2048")
    }

    /// The same in the other form: PKCS#8.
    pub fn pkcs8(&self) -> String {
        text(&["pkcs8", "-topk8", "-nocrypt"], &self.pem).expect("openssl was here")
    }

    /// The same behind a password.
    pub fn encrypted(&self) -> String {
        text(&["pkcs8", "-topk8", "-passout", "pass:secret"], &self.pem).expect("openssl was here")
    }

    /// Its public half, DER.
    pub fn public(&self) -> Vec<u8> {
        openssl(&["rsa", "-RSAPublicKey_out", "-outform", "DER"], &self.pem).expect("openssl was here")
    }
}
