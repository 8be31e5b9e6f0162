//! Access tokens for receivers (OAuth 2.0 client credentials, RFC 6749 §4.4): had once for many requests.
//!
//! A webhook's token is kept for as long as it is had in the same way and is good for, less a margin. Of requests that
//! find none, one asks for it and the others wait; they share what comes of that, well or not, and be it a token that is good
//! for no other. Nobody waits for longer than the request's own timeout, which began with the attempt.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::egress::{self, Client, Response};
use common::request::{ClientCredentials, Prepared, bearer};
use http::{HeaderValue, Method, StatusCode};
use proto_schemas::ledger::ErrorClass;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

/// Longest a token is waited for, of the time that the attempt has; a webhook's own timeout may be shorter.
const TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// How long a token is kept of which is not said how long it is good for. The specification leaves that to be found out
/// otherwise; whoever refuses it sooner has another asked for.
const LIFETIME_UNSAID: Duration = Duration::from_secs(300);
/// How long a token is kept at most.
pub const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long before its end a token is not used any more, at most; of a short life, a tenth.
const MARGIN_MAX: Duration = Duration::from_secs(30);

/// What an authorization server may have against a request (RFC 6749 §5.2). Other words are not repeated: they are a
/// stranger's.
const REFUSALS: [&str; 6] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
];

/// The access token of one webhook.
#[derive(Default)]
pub struct AccessToken {
    last: Mutex<Option<Had>>,
    /// Held by who is asking.
    asking: tokio::sync::Mutex<()>,
}

/// What came of asking the last time.
struct Had {
    at: Instant,
    outcome: Result<Held, Missing>,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    value: HeaderValue,
    until: Instant,
}

/// Why there is no token. The text is for the webhook's owner; nothing secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Missing {
    /// One word of the closed list.
    pub class: ErrorClass,
    /// One line.
    pub text: String,
}

impl Missing {
    fn because(reason: impl std::fmt::Display) -> Self {
        Self {
            class: ErrorClass::Authentication,
            text: format!("no access token: {reason}"),
        }
    }

    fn of_request(error: &egress::Error) -> Self {
        match error.class {
            // One class and one text for every address that is refused.
            ErrorClass::RefusedAddress => Self {
                class: error.class,
                text: error.to_string(),
            },
            _ => Self::because(error),
        }
    }
}

impl AccessToken {
    /// The value of the header `authorization`, for a request of this webhook whose attempt began at `begun`.
    ///
    /// # Errors
    /// [`Missing`]
    pub async fn get(
        &self,
        credentials: &ClientCredentials,
        prepared: &Prepared,
        client: &Client,
        begun: Instant,
    ) -> Result<HeaderValue, Missing> {
        if let Some(known) = self.known(begun) {
            return known;
        }
        let timeout = prepared.webhook.timeout.min(TIMEOUT_MAX);
        let _asking = timeout_at(begun + timeout, self.asking.lock())
            .await
            .map_err(|_| Missing::of_request(&egress::Error::timeout(timeout, None)))?;
        if let Some(known) = self.known(begun) {
            return known;
        }
        let outcome = ask(credentials, prepared, client, begun, timeout).await;
        let answer = outcome.as_ref().map(|held| held.value.clone()).map_err(Missing::clone);
        *self.last() = Some(Had {
            at: Instant::now(),
            outcome,
        });
        answer
    }

    /// What need not be asked for: a token that is good, or what came of asking after `begun`. Asking again for the latter
    /// would have everybody wait for everybody.
    fn known(&self, begun: Instant) -> Option<Result<HeaderValue, Missing>> {
        let last = self.last();
        let Had { at, outcome } = last.as_ref()?;
        let is_good = outcome.as_ref().is_ok_and(|held| Instant::now() < held.until);
        (is_good || *at >= begun).then(|| outcome.as_ref().map(|held| held.value.clone()).map_err(Missing::clone))
    }

    /// The receiver has refused this one: the next request is to have another.
    pub fn refused(&self, value: &HeaderValue) {
        let mut last = self.last();
        if matches!(&*last, Some(Had { outcome: Ok(held), .. }) if held.value == *value) {
            *last = None;
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<Had>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(
    credentials: &ClientCredentials,
    prepared: &Prepared,
    client: &Client,
    begun: Instant,
    timeout: Duration,
) -> Result<Held, Missing> {
    let asked_at = Instant::now();
    let request = egress::Request {
        method: Method::POST,
        target: &credentials.target,
        tls: prepared.tls.as_ref(),
        headers: credentials.headers.clone(),
        body: credentials.body.clone(),
        timeout,
    };
    let response = client
        .send_since(begun, request)
        .await
        .outcome
        .map_err(|error| Missing::of_request(&error))?;
    let granted = read(&response)?;
    Ok(Held {
        value: granted.value,
        until: asked_at + granted.kept_for,
    })
}

/// A token that was given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The value of the header `authorization`.
    pub value: HeaderValue,
    /// For how long it is used, counted from when it was asked for.
    pub kept_for: Duration,
}

/// An answer (RFC 6749 §5.1).
#[derive(Deserialize)]
struct Grant {
    access_token: String,
    token_type: String,
    expires_in: Option<Value>,
}

/// A refusal (RFC 6749 §5.2).
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// What the token endpoint's answer comes to. Pure.
///
/// # Errors
/// [`Missing`], which repeats nothing of the answer but its status and a refusal that the specification knows.
pub fn read(response: &Response) -> Result<Granted, Missing> {
    if response.status != StatusCode::OK {
        let refusal = object::<Refusal>(&response.body);
        let word = refusal.and_then(|refusal| REFUSALS.into_iter().find(|word| *word == refusal.error));
        let word = word.map_or_else(String::new, |word| format!(" ({word})"));
        return Err(Missing::because(format_args!(
            "the token endpoint answered {}{word}",
            response.status
        )));
    }
    if response.truncated {
        return Err(Missing::because("the token endpoint's answer is too long"));
    }
    let granted = object::<Grant>(&response.body)
        .ok_or_else(|| Missing::because("the token endpoint's answer holds no access_token and token_type in JSON"))?;
    if !granted.token_type.eq_ignore_ascii_case("bearer") {
        return Err(Missing::because(
            "the token endpoint gives tokens that are no bearer tokens",
        ));
    }
    let lifetime = match granted.expires_in {
        Some(Value::Number(seconds)) => seconds.as_f64(),
        // Some write it as text.
        Some(Value::String(seconds)) => seconds.parse().ok(),
        _ => None,
    };
    let lifetime = lifetime.map_or(LIFETIME_UNSAID, |seconds| {
        Duration::try_from_secs_f64(seconds)
            .unwrap_or_default()
            .min(LIFETIME_MAX)
    });
    let value = match granted.access_token.is_empty() {
        true => None,
        false => bearer(&granted.access_token).ok(),
    };
    Ok(Granted {
        value: value.ok_or_else(|| Missing::because("the token endpoint's access_token fits into no header"))?,
        kept_for: lifetime - MARGIN_MAX.min(lifetime / 10),
    })
}

/// A JSON object. For a struct, serde would take a list of its members' values as well.
fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    let is_object = body.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(body).ok()).flatten()
}

#[cfg(test)]
mod tests;
