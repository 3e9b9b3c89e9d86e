//! From the text of a configuration file to a value: YAML or JSON, by the file's extension.
//!
//! An error names file, line and column, and never quotes the text: it may hold a secret.

use std::path::Path;

use serde_json::Value;
use thiserror::Error;

/// Why a configuration could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file cannot be opened or is not UTF-8.
    #[error("{file}: cannot be read: {cause}")]
    Unreadable {
        /// The file, as it was named.
        file: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The text is not the YAML or JSON its name says.
    #[error("{file}:{line}:{column}: not valid {format}")]
    Malformed {
        /// The file, as it was named.
        file: String,
        /// Line, from 1; 0 when the parser names none.
        line: u64,
        /// Column, from 1; 0 when the parser names none.
        column: u64,
        /// The format its extension promises.
        format: Format,
    },
    /// Neither `.yaml`, `.yml` nor `.json`.
    #[error("{file}: name it .yaml, .yml or .json, so that its format is known")]
    UnknownFormat {
        /// The file, as it was named.
        file: String,
    },
}

/// The two formats Envoy and its admin speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A bootstrap, usually.
    Yaml,
    /// A bootstrap or a dump.
    Json,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Yaml => "YAML",
            Self::Json => "JSON",
        })
    }
}

/// Reads and parses one file.
///
/// # Errors
/// When it cannot be opened, or does not parse as its extension says.
pub fn read(file: &Path) -> Result<Value, ReadError> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|cause| ReadError::Unreadable { file: name.clone(), cause })?;
    parse(&name, &text)
}

/// Parses the text of the file called `name`.
///
/// # Errors
/// When it does not parse as its extension says.
pub fn parse(name: &str, text: &str) -> Result<Value, ReadError> {
    let malformed = |line, column, format| ReadError::Malformed { file: name.to_owned(), line, column, format };
    match Path::new(name).extension().and_then(|extension| extension.to_str()) {
        Some("yaml" | "yml") => serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location();
            let (line, column) = place.map_or((0, 0), |place| (place.line(), place.column()));
            malformed(line, column, Format::Yaml)
        }),
        Some("json") => serde_json::from_str(text)
            .map_err(|error| malformed(error.line() as u64, error.column() as u64, Format::Json)),
        _ => Err(ReadError::UnknownFormat { file: name.to_owned() }),
    }
}
