//! A stand-in for any server over HTTP: it answers what it is told, in turn, and the last of that from then on.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// One that answers as long as the runtime lives.
pub struct StandIn {
    pub addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

/// An answer with a length: `status` and more lines of its head, each with its end.
pub fn says(status: &str, head: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{head}\r\n{body}", body.len())
}

/// An answer in chunks, whose length nobody says.
pub fn in_chunks(status: &str, chunks: &[&str]) -> String {
    let chunks: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
}

impl StandIn {
    pub async fn start(mut answers: Vec<String>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (addr, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let hears = asked.clone();
        answers.reverse();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = if answers.len() > 1 { answers.pop().unwrap() } else { answers[0].clone() };
                let _ = exchange(stream, &hears, &answer).await;
            }
        });
        Self { addr, asked }
    }

    /// The first line of each question, without its version.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn exchange(stream: TcpStream, asked: &Mutex<Vec<String>>, answer: &str) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    asked.lock().unwrap().push(line.trim_end().trim_end_matches(" HTTP/1.1").to_owned());
    let mut length = 0;
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await?;
        if let Some(said) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = said.trim().parse().unwrap();
        }
    }
    stream.read_exact(&mut vec![0; length]).await?;
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
