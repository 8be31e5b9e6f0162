//! Finding the token of a request. Whether it is a good one, its service knows.

use axum::http::{HeaderMap, header};

use super::problem::{Code, Problem};

/// The token of `Authorization: Bearer <token>`, or `Token <token>` as some clients write it.
///
/// # Errors
/// [`Code::Unauthenticated`] where there is none, or more than one.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let refused = || Problem::new(Code::Unauthenticated, "send `Authorization: Bearer <token>`");
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(refused());
    };
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|value| value.trim().split_once(' '))
        .ok_or_else(refused)?;
    let token = token.trim_start();
    let known = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token");
    if known && !token.is_empty() && !token.contains(char::is_whitespace) {
        Ok(token)
    } else {
        Err(refused())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (header::AUTHORIZATION, HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn both_schemes_are_understood_in_any_case() {
        for value in ["Bearer ph_abc", "bearer ph_abc", "TOKEN ph_abc", "Token   ph_abc "] {
            assert_eq!(bearer(&headers(&[value])).unwrap(), "ph_abc", "{value}");
        }
    }

    #[test]
    fn anything_else_is_unauthenticated() {
        let values: [&[&'static str]; 8] = [
            &[],
            &[""],
            &["ph_abc"],
            &["Bearer"],
            &["Bearer "],
            &["Basic cGg6"],
            &["Bearer a b"],
            &["Bearer a", "Bearer b"],
        ];
        for values in values {
            assert_eq!(
                bearer(&headers(values)).unwrap_err().code(),
                Code::Unauthenticated,
                "{values:?}"
            );
        }
    }
}
