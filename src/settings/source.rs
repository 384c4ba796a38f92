//! Where settings come from: a file, `.env`, the environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Problem;

/// The raw material, collected once before anything starts.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Text of the TOML file, if there is one.
    pub toml: Option<String>,
    /// Variables, `.env` already merged below the environment.
    pub variables: BTreeMap<String, String>,
}

impl Source {
    /// Reads `config`, else `./airi.toml` when present; then `./.env`; then the environment.
    pub fn of_process(config: Option<&Path>) -> Result<Self, Vec<Problem>> {
        let toml = match config {
            Some(path) => Some(read(path)?),
            None => {
                let path = PathBuf::from("airi.toml");
                if path.exists() { Some(read(&path)?) } else { None }
            }
        };
        let mut variables = dotenv()?;
        variables.extend(std::env::vars_os().filter_map(|(name, value)| {
            // A variable that is not text cannot be one of ours.
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }));
        Ok(Self { toml, variables })
    }
}

fn read(path: &Path) -> Result<String, Vec<Problem>> {
    std::fs::read_to_string(path)
        .map_err(|error| vec![Problem::new(path.display().to_string(), format!("cannot be read: {error}"))])
}

fn dotenv() -> Result<BTreeMap<String, String>, Vec<Problem>> {
    let Ok(lines) = dotenvy::from_filename_iter(".env") else { return Ok(BTreeMap::new()) };
    lines
        .collect::<Result<_, _>>()
        // The library's text quotes the offending line, which may hold a secret.
        .map_err(|_| vec![Problem::new(".env", "has a line that is not NAME=value")])
}
