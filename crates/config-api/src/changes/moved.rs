//! What is protected stays with the host that it was given for: whoever may write a webhook need not know what is stored
//! in it, and could otherwise have it sent to a host of theirs.

use common::egress::is_same_origin;
use common::http::FieldError;
use store::webhooks::{Authentication, MaybeSealed, NamedValue, Webhook};

/// Refuses protected values of `before` that `after` has its requests take to another scheme, host or port. A value that
/// was given anew is sealed anew, so the same sealed text is the stored one.
pub(super) fn check(before: &Webhook, after: &Webhook, errors: &mut Vec<FieldError>) {
    if is_same_origin(&before.url, &after.url) {
        return;
    }
    let lists = [
        ("headers", &before.headers, &after.headers),
        ("variables", &before.variables, &after.variables),
    ];
    for (field, before, after) in lists {
        for (index, value) in after.iter().enumerate().filter(|(_, value)| is_kept(value, before)) {
            let pointer = format!("/{field}/{index}/value");
            errors.push(FieldError::new(&pointer, reason(&format!("`{}`", value.key))));
        }
    }
    match (&before.authentication, &after.authentication) {
        (
            Some(Authentication::Basic {
                sealed_password: before,
                ..
            }),
            Some(Authentication::Basic {
                sealed_password: after, ..
            }),
        ) if before == after => errors.push(FieldError::new("/authentication/password", reason("the password"))),
        (
            Some(Authentication::ClientCredentials {
                sealed_client_secret: before,
                ..
            }),
            Some(Authentication::ClientCredentials {
                sealed_client_secret: after,
                ..
            }),
        ) if before == after => {
            errors.push(FieldError::new(
                "/authentication/client_secret",
                reason("the client's secret"),
            ));
        }
        _ => {}
    }
}

fn is_kept(value: &NamedValue, before: &[NamedValue]) -> bool {
    matches!(value.value, MaybeSealed::Sealed(_)) && before.iter().any(|stored| stored.value == value.value)
}

fn reason(what: &str) -> String {
    format!("give {what} anew: the stored value is for the host that `url` named before")
}
