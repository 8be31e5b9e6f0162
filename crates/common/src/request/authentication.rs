//! How a request says who it comes from: the header `authorization`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use secrecy::zeroize::Zeroizing;
use url::form_urlencoded;

use super::Error;
use crate::egress::Target;

/// What an access token is asked for with (RFC 6749 §4.4.2). It is had where requests are sent.
pub struct ClientCredentials {
    /// Where it is asked for.
    pub target: Target,
    /// The headers of the request for it.
    pub headers: HeaderMap,
    /// The body of the request for it.
    pub body: Bytes,
}

impl ClientCredentials {
    /// The client names itself by HTTP Basic, as every server has to take it (RFC 6749 §2.3.1).
    pub(super) fn new(target: Target, id: &str, secret: &[u8], scope: Option<&str>) -> Result<Self, Error> {
        let encoded = |bytes: &[u8]| form_urlencoded::byte_serialize(bytes).collect::<String>();
        let secret = Zeroizing::new(encoded(secret));
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(
            header::AUTHORIZATION,
            basic(&encoded(id.as_bytes()), secret.as_bytes())?,
        );
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.append_pair("grant_type", "client_credentials");
        if let Some(scope) = scope {
            body.append_pair("scope", scope);
        }
        Ok(Self {
            target,
            headers,
            body: body.finish().into(),
        })
    }
}

/// The header's value by HTTP Basic (RFC 7617 §2), to be shown nowhere.
pub(super) fn basic(username: &str, password: &[u8]) -> Result<HeaderValue, Error> {
    let pair = Zeroizing::new([username.as_bytes(), b":", password].concat());
    secret("Basic ", &STANDARD.encode(&*pair))
}

/// The header's value with an access token (RFC 6750 §2.1), to be shown nowhere.
///
/// # Errors
/// [`Error::Header`] where no header can hold it.
pub fn bearer(access_token: &str) -> Result<HeaderValue, Error> {
    secret("Bearer ", access_token)
}

/// Stands where an access token will, in what is shown of a request that is not sent.
#[must_use]
pub fn hidden() -> HeaderValue {
    let mut value = HeaderValue::from_static("hidden");
    value.set_sensitive(true);
    value
}

fn secret(scheme: &str, credentials: &str) -> Result<HeaderValue, Error> {
    let text = Zeroizing::new(format!("{scheme}{credentials}"));
    let mut value =
        HeaderValue::from_str(&text).map_err(|_| Error::Header(header::AUTHORIZATION.as_str().to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::{Config, Guard};

    #[test]
    fn a_client_is_named_as_the_specification_encodes_it() {
        let guard = Guard::new(&Config::default()).unwrap();
        let target = guard.check("https://id.example.com/token").unwrap();
        let credentials = ClientCredentials::new(target, "a:b c", "p%ü/=".as_bytes(), Some("x y")).unwrap();
        let authorization = &credentials.headers[header::AUTHORIZATION];
        assert!(authorization.is_sensitive());
        let encoded = authorization.to_str().unwrap().strip_prefix("Basic ").unwrap();
        assert_eq!(STANDARD.decode(encoded).unwrap(), b"a%3Ab+c:p%25%C3%BC%2F%3D");
        assert_eq!(credentials.body, "grant_type=client_credentials&scope=x+y");
    }

    #[test]
    fn basic_is_as_in_its_specification() {
        // RFC 7617 §2
        let value = basic("Aladdin", b"open sesame").unwrap();
        assert_eq!(value, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(value.is_sensitive() && !format!("{value:?}").contains("QWx"));
        // RFC 7617 §2.1
        assert_eq!(basic("test", "123\u{a3}".as_bytes()).unwrap(), "Basic dGVzdDoxMjPCow==");
        assert!(bearer("a\nb").is_err());
    }
}
