//! Standard output: the lines as they are.

use super::SinkError;
use tokio::io::AsyncWriteExt;

/// Writes the lines.
pub async fn send(lines: &[String]) -> Result<u64, SinkError> {
    let mut out = tokio::io::stdout();
    out.write_all((lines.join("\n") + "\n").as_bytes()).await?;
    out.flush().await?;
    Ok(0)
}
