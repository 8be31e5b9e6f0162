//! NATS as the user that an address names; the client alone does not look for one there.

use async_nats::{Client, ConnectOptions, ServerAddr};

/// Options with user and password of an address.
///
/// # Errors
/// Where it is no address.
pub fn nats_options(url: &str) -> anyhow::Result<ConnectOptions> {
    let address: ServerAddr = url.parse()?;
    let login = address.username().zip(address.password());
    Ok(match login {
        Some((user, password)) => ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned()),
        None => ConnectOptions::new(),
    })
}

/// A client with user and password of an address.
///
/// # Errors
/// Where there is no NATS, or it does not let the user in.
pub async fn nats_client(url: &str) -> anyhow::Result<Client> {
    Ok(nats_options(url)?.connect(url).await?)
}
