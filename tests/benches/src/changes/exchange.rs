//! One HTTP/1.1 exchange on a connection that stays: as little of our own between a request and the
//! clock as possible.

use std::io::{Read, Write};

use anyhow::{Context, Result, bail};

/// Longest head.
const MOST: usize = 16 * 1024;

/// Sends a request, reads the answer: its status and its body.
pub fn exchange(stream: &mut (impl Read + Write), request: &[u8]) -> Result<(u16, Vec<u8>)> {
    stream.write_all(request)?;
    let mut bytes = Vec::with_capacity(1024);
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        more(stream, &mut bytes)?;
        if bytes.len() > MOST {
            bail!("an answer without an end of its head");
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).context("an answer without a status")?;
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.context("an answer without a length")?.trim().parse()?;
    while bytes.len() < head + length {
        more(stream, &mut bytes)?;
    }
    Ok((status, bytes.split_off(head)))
}

fn more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> Result<()> {
    let mut chunk = [0; 4096];
    match stream.read(&mut chunk)? {
        0 => bail!("the connection ended in the middle of an answer"),
        read => bytes.extend_from_slice(&chunk[..read]),
    }
    Ok(())
}
