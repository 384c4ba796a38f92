//! Secrets of embedded mode: made once, kept in the data directory, readable by their owner only.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use figment::Figment;
use figment::providers::{Format, Toml};

use super::StartError;
use crate::adapters::crypto::generate_master_key;
use crate::core::model::secret::Secret;
use crate::settings::Settings;

const FILE: &str = "secrets.toml";

/// What has to stay the same from start to start.
pub(super) struct Secrets {
    /// Seals upstream keys.
    pub(super) master_key: Secret,
    /// Signs cookies and links.
    pub(super) auth_secret: Secret,
}

/// The configured secrets; in embedded mode missing ones are read from the data directory, where the first start
/// writes them.
pub(super) fn of(settings: &Settings) -> Result<Secrets, StartError> {
    if let (Some(master_key), Some(auth_secret)) = (&settings.llm.master_key, &settings.auth_secret) {
        return Ok(Secrets { master_key: master_key.clone(), auth_secret: auth_secret.clone() });
    }
    let path = settings.data_dir.join(FILE);
    let kept = match read(&path)? {
        Some(kept) => kept,
        None => {
            write(&path)?;
            // Two first starts at once: the file that exists is the one that counts.
            read(&path)?.unwrap_or_default()
        }
    };
    let kept_one = |name: &str| {
        let missing = || StartError::Secrets(format!("{} has no {name}; restore the file", path.display()));
        kept.get(name).map(Secret::new).ok_or_else(missing)
    };
    let or_kept = |configured: &Option<Secret>, name| configured.clone().map_or_else(|| kept_one(name), Ok);
    Ok(Secrets {
        master_key: or_kept(&settings.llm.master_key, "master_key")?,
        auth_secret: or_kept(&settings.auth_secret, "auth_secret")?,
    })
}

fn read(path: &Path) -> Result<Option<BTreeMap<String, String>>, StartError> {
    match fs::read_to_string(path) {
        // The parser's text would quote the file.
        Ok(text) => Figment::from(Toml::string(&text))
            .extract()
            .map(Some)
            .map_err(|_| StartError::Secrets(format!("{} is not valid TOML", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StartError::Secrets(format!("{} cannot be read: {error}", path.display()))),
    }
}

fn write(path: &Path) -> Result<(), StartError> {
    let unwritable = |error| StartError::Secrets(format!("{} cannot be written: {error}", path.display()));
    let text = format!(
        "# Made at the first start. Whoever has this file can read the stored upstream keys; without it nobody can.\n\
         master_key = \"{}\"\nauth_secret = \"{}\"\n",
        generate_master_key().expose(),
        generate_master_key().expose(),
    );
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(unwritable),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(unwritable(error)),
    }
}
