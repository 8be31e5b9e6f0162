//! Where the keys come from.

use std::path::PathBuf;

use secrecy::SecretString;

use crate::config;

const KEYS: &str = "POSTHASTE_ENCRYPTION_KEYS";

/// The encryption keys' source. There is no default: nothing is ever stored unencrypted.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
pub struct Config {
    /// Keys that secrets are encrypted with: `id:base64 of 32 bytes`, separated by commas or newlines. The first encrypts;
    /// all decrypt
    #[arg(
        long = "encryption-keys",
        env = "POSTHASTE_ENCRYPTION_KEYS",
        hide_env_values = true,
        value_parser = config::secret_text,
        value_name = "ID:BASE64,…"
    )]
    pub encryption_keys: Option<SecretString>,

    /// File that holds the encryption keys
    #[arg(
        long = "encryption-keys-file",
        env = "POSTHASTE_ENCRYPTION_KEYS_FILE",
        value_name = "PATH"
    )]
    pub encryption_keys_file: Option<PathBuf>,
}

impl Config {
    /// The text of the keys, if they are set.
    pub(super) fn keys(&self) -> Result<Option<SecretString>, config::Error> {
        config::secret(
            KEYS,
            self.encryption_keys.as_ref(),
            self.encryption_keys_file.as_deref(),
        )
    }
}
