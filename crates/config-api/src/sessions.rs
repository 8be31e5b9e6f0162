//! Who is logged in with a browser.
//!
//! ```text
//! log in ── a token, once ── a session: what the cookie holds is random, and kept as its SHA-256 alone
//! request ── the cookie ── from a page of this site? ── the session's token ── what that token may
//! ```
//!
//! A page of another site can have a browser send the cookie along; it can neither read an answer nor know the session's
//! CSRF token, without which nothing is changed. A session ends when it is ended, with its token, after [`IDLE`] without
//! a request, and after [`LONGEST`] in any case; following something live is no request in this sense, or a page that
//! somebody has left open would keep its session. There is no password: tokens are random (`common::token`), and who
//! guesses too often is not told any more whether a guess is right.

use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use common::http::rate_limit::Proof;
use common::http::{Code, Problem};
use common::token;
use jiff::Timestamp;
use rand::Rng as _;
use sha2::{Digest as _, Sha256};
use store::sessions::{self, Session};
use store::tokens::{self, Token};
use store::{Connection, Error};
use uuid::Uuid;

use crate::api::failed;

/// The cookie. A browser takes one of this name over HTTPS alone (or from this machine), from this host alone, and for
/// all of its paths (draft-ietf-httpbis-rfc6265bis, section 4.1.3.2).
pub(crate) const COOKIE: &str = "__Host-posthaste";

/// Where a request that changes something says the session's CSRF token.
pub(crate) const CSRF: HeaderName = HeaderName::from_static("x-csrf-token");

/// Who has not asked for anything for so long is logged out.
pub(crate) const IDLE: Duration = Duration::from_secs(30 * 60);

/// No session is longer.
pub(crate) const LONGEST: Duration = Duration::from_secs(12 * 3600);

/// Requests within so long of each other leave one mark.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// What a cookie holds, in hexadecimal.
const RANDOM_BYTES: usize = 32;

/// Sessions of one token; who logs in once more ends the oldest.
const MOST: u32 = 50;

/// A session, as its browser bears it.
pub(crate) struct Begun {
    /// The session's CSRF token.
    pub(crate) csrf: String,
    /// `set-cookie`
    pub(crate) cookie: String,
}

/// What a cookie holds.
#[derive(Clone, Copy)]
pub(crate) struct Secret<'a>(&'a str);

impl<'a> Secret<'a> {
    /// That of the request's cookie; `None` where there is none, or where it is not clear which.
    pub(crate) fn of(headers: &'a HeaderMap) -> Option<Self> {
        let values = headers.get_all(header::COOKIE).iter();
        let pairs = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'));
        let mut ours = pairs.filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='));
        match (ours.next(), ours.next()) {
            (Some(secret), None) => Some(Self(secret)),
            _ => None,
        }
    }

    /// What is kept of it.
    fn hash(self) -> [u8; 32] {
        token::hash(self.0)
    }

    /// What a request that has it shows.
    pub(crate) fn proof(self) -> Proof {
        Proof {
            hash: self.hash(),
            is_random: self.0.len() == 2 * RANDOM_BYTES && self.0.bytes().all(|byte| byte.is_ascii_hexdigit()),
        }
    }

    /// The CSRF token: known to whoever may read an answer of the session's, and to nobody else.
    pub(crate) fn csrf(self) -> String {
        let mut digest = Sha256::new();
        digest.update("csrf\0");
        digest.update(self.0);
        hex::encode(digest.finalize())
    }
}

/// Begins a session with a good token.
///
/// # Errors
/// Any [`Error`] of the store's.
pub(crate) async fn begin(connection: &mut Connection, token: Uuid, now: Timestamp) -> Result<Begun, Error> {
    let mut random = [0_u8; RANDOM_BYTES];
    rand::rng().fill_bytes(&mut random);
    let text = hex::encode(random);
    let secret = Secret(&text);
    let session = Session {
        hash: secret.hash(),
        token,
        created_at: now,
        seen_at: now,
    };
    sessions::insert(connection, &session, MOST).await?;
    Ok(Begun {
        csrf: secret.csrf(),
        cookie: cookie(&text, LONGEST.as_secs()),
    })
}

/// Refuses what a page of another site may have had the browser ask.
///
/// # Errors
/// 403
pub(crate) fn may_ask(parts: &Parts, secret: Secret<'_>) -> Result<(), Problem> {
    is_of_this_site(
        &parts.headers,
        parts.uri.authority().map(|authority| authority.as_str()),
    )?;
    if ![Method::GET, Method::HEAD].contains(&parts.method) {
        let given = parts.headers.get(CSRF).map(HeaderValue::as_bytes).unwrap_or_default();
        // Hashes are compared, so that the time it takes says nothing.
        if Sha256::digest(given) != Sha256::digest(secret.csrf()) {
            return Err(Problem::new(
                Code::CrossSite,
                "a request of a session's that may change something says the session's `csrf` in the header X-CSRF-Token",
            ));
        }
    }
    Ok(())
}

/// The session of the cookie with that SHA-256, and its token, whatever that is still good for.
///
/// # Errors
/// What the store says.
pub(crate) async fn find(
    connection: &mut Connection,
    hash: &[u8; 32],
    now: Timestamp,
) -> Result<Option<(Session, Token)>, Problem> {
    let ago = |duration| now.checked_sub(duration).unwrap_or(Timestamp::MIN);
    let session = sessions::find(connection, hash, ago(LONGEST), ago(IDLE)).await;
    let Some(session) = session.map_err(failed)? else {
        return Ok(None);
    };
    let token = tokens::by_id(connection, session.token).await.map_err(failed)?;
    Ok(token.map(|token| (session, token)))
}

/// Notes that the session is used.
///
/// # Errors
/// Any [`Error`] of the store's.
pub(crate) async fn touch(connection: &mut Connection, session: &Session, now: Timestamp) -> Result<(), Error> {
    match session.seen_at.checked_add(TOUCH_EVERY).is_ok_and(|again| again <= now) {
        true => sessions::touch(connection, &session.hash, now).await,
        false => Ok(()),
    }
}

/// Ends the session that the request's cookie stands for; false where there was none.
///
/// # Errors
/// Any [`Error`] of the store's.
pub(crate) async fn end(connection: &mut Connection, headers: &HeaderMap) -> Result<bool, Error> {
    match Secret::of(headers) {
        Some(secret) => sessions::delete(connection, &secret.hash()).await,
        None => Ok(false),
    }
}

/// `set-cookie` of somebody who is not logged in any more.
pub(crate) fn no_cookie() -> String {
    cookie("", 0)
}

fn cookie(secret: &str, seconds: u64) -> String {
    format!("{COOKIE}={secret}; Path=/; Max-Age={seconds}; HttpOnly; Secure; SameSite=Lax")
}

/// Refuses what a page of another site has a browser ask. A browser says whose page it is: in `Sec-Fetch-Site`, or, an
/// older one, in `Origin`. Who says neither is no browser.
///
/// # Errors
/// 403
pub(crate) fn is_of_this_site(headers: &HeaderMap, authority: Option<&str>) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let is_ours = match (
        text(HeaderName::from_static("sec-fetch-site")),
        headers.get(header::ORIGIN),
    ) {
        // `none`: the address was typed, or a bookmark.
        (Some(site), _) => ["same-origin", "none"].contains(&site),
        (None, None) => true,
        (None, Some(origin)) => {
            let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            origin.is_some_and(|(_, host)| text(header::HOST).or(authority) == Some(host))
        }
    };
    match is_ours {
        true => Ok(()),
        false => Err(Problem::new(
            Code::CrossSite,
            "the request was made by a page of another site, which may not use the session",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let value = HeaderValue::from_static(value);
            (HeaderName::from_static(name), value)
        });
        pairs.collect()
    }

    #[test]
    fn the_cookie_is_found_among_others_and_two_are_none() {
        let secret = |value| Secret::of(&headers(&[("cookie", value)])).map(|secret| secret.0.to_owned());
        assert_eq!(secret("a=b; __Host-posthaste=abc;c=d").as_deref(), Some("abc"));
        assert_eq!(
            secret("posthaste=abc; x__Host-posthaste=abc; __Host-posthaste2=abc"),
            None
        );
        assert_eq!(secret("__Host-posthaste=abc; __Host-posthaste=def"), None);
        assert_eq!(secret(""), None);
    }

    #[test]
    fn only_pages_of_this_site_are_of_this_site() {
        let is_ours = |pairs: &[_]| is_of_this_site(&headers(pairs), None).is_ok();
        let host = ("host", "hooks.example:8080");
        assert!(is_ours(&[host]));
        for site in ["same-origin", "none"] {
            assert!(is_ours(&[
                ("sec-fetch-site", site),
                ("origin", "https://elsewhere.example")
            ]));
        }
        for site in ["same-site", "cross-site", "", "SAME-ORIGIN"] {
            assert!(
                !is_ours(&[host, ("sec-fetch-site", site), ("origin", "https://hooks.example:8080")]),
                "{site}"
            );
        }
        assert!(is_ours(&[host, ("origin", "https://hooks.example:8080")]));
        for origin in [
            "null",
            "https://hooks.example",
            "https://elsewhere.example",
            "hooks.example:8080",
            "",
        ] {
            assert!(!is_ours(&[host, ("origin", origin)]), "{origin}");
        }
        assert!(is_of_this_site(&headers(&[("origin", "https://a.example")]), Some("a.example")).is_ok());
    }

    #[test]
    fn a_csrf_token_is_its_sessions_and_does_not_tell_what_the_cookie_holds() {
        let (one, other) = (Secret("one"), Secret("other"));
        assert_ne!(one.csrf(), other.csrf());
        assert_eq!(one.csrf(), one.csrf());
        assert_ne!(one.csrf(), hex::encode(one.hash()));
    }
}
