//! The administrator's token: the one that is not made over REST, because somebody has to make the first one.
//!
//! It is a setting. What is stored of it is its hash, as of any token. When the setting changes, the earlier token is
//! revoked by the first process that starts with the new one.

use common::config::required_secret;
use common::token::{self, Scope};
use jiff::Timestamp;
use proto_schemas::stream::config_key::Key;
use secrecy::{ExposeSecret as _, SecretString};
use store::tokens::{self, Token};
use store::{Store, outbox};

use crate::Config;
use crate::api::new_id;

/// Shortest token taken, in bytes. It may be the operator's own invention; what is shorter can be guessed.
const SHORTEST: usize = 20;

/// The setting.
///
/// # Errors
/// Not set, too short, not something that fits into a header, or a mistyped token.
pub fn read(config: &Config) -> anyhow::Result<SecretString> {
    let token = required_secret(
        "POSTHASTE_ADMIN_TOKEN",
        config.admin_token.as_ref(),
        config.admin_token_file.as_deref(),
    )?;
    let text = token.expose_secret();
    anyhow::ensure!(
        text.len() >= SHORTEST && text.bytes().all(|b| b.is_ascii_graphic()),
        "POSTHASTE_ADMIN_TOKEN has to be at least {SHORTEST} visible ASCII characters without spaces \
         (for instance the output of `openssl rand -hex 20`)"
    );
    // The API takes it for a typing error, and does not look it up.
    anyhow::ensure!(
        !token::is_mistyped(text),
        "POSTHASTE_ADMIN_TOKEN looks like a token that was made over REST, and its checksum is wrong; copy it again, or \
         take one of your own that does not begin with ph_"
    );
    Ok(token)
}

/// Makes the token good for everything, and every earlier one for nothing.
///
/// # Errors
/// Postgres fails, or the token is a project's.
pub async fn install(store: &Store, token: &SecretString, now: Timestamp) -> anyhow::Result<()> {
    let hash = token::hash(token.expose_secret());
    let row = Token {
        id: new_id(now, &mut rand::rng()),
        project: None,
        name: "administrator".to_owned(),
        hash,
        scopes: vec![Scope::Admin.as_str().to_owned()],
        created_at: now,
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
    };
    let mut transaction = store.begin().await?;
    anyhow::ensure!(
        tokens::upsert_global(&mut transaction, &row).await?,
        "POSTHASTE_ADMIN_TOKEN is the token of a project; set it to another"
    );
    let revoked = tokens::revoke_globals_except(&mut transaction, &hash, now).await?;
    let keys: Vec<String> = std::iter::once(hash.to_vec())
        .chain(revoked)
        .map(|hash| Key::Token(hex::encode(hash)).to_text())
        .collect();
    outbox::append(&mut transaction, &keys).await?;
    transaction.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn no_token_is_taken_that_is_short_or_mistyped() {
        let read = |token: &str| read(&Arguments::parse_from(["config-api", "--admin-token", token]).config);
        for good in ["twenty-characters-xx", "ph_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345_0QwfFq"] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in [
            "nineteen-characters",
            "twenty characters xx",
            "ph_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345_0QwfFr",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
