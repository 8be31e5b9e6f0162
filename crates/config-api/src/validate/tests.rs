use proptest::prelude::*;

use super::*;

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn names_are_short_printable_and_no_ids() {
    for good in ["slack", "Slack #alerts", "a/b", "é", &"x".repeat(64)] {
        assert_eq!(name(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        " a",
        "a ",
        "a\nb",
        ".",
        "..",
        &"x".repeat(65),
        "0190163d-8694-739b-aea5-966c26f8ad91",
        "0190163d8694739baea5966c26f8ad91",
        "{0190163d-8694-739b-aea5-966c26f8ad91}",
    ] {
        assert!(name(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_project_name_fits_into_a_subject() {
    for good in ["shop", "a", "shop-2", "0shop"] {
        assert_eq!(project_name(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "Shop",
        "a.b",
        "a>",
        "*",
        "-a",
        "a-",
        "a b",
        "0190163d-8694-739b-aea5-966c26f8ad91",
    ] {
        assert!(project_name(bad).is_err(), "{bad}");
    }
}

#[test]
fn patterns_are_checked_each_in_its_place() {
    assert_eq!(patterns(&texts(&["*"])), Ok(()));
    assert_eq!(patterns(&texts(&["a.b", "a.*"])), Ok(()));
    assert_eq!(patterns(&[]).unwrap_err().0, None);
    assert_eq!(patterns(&texts(&["a", "a.*.b"])).unwrap_err().0, Some(1));
    assert_eq!(patterns(&texts(&["a", "b", "a"])).unwrap_err().0, Some(2));
    assert_eq!(patterns(&vec!["a".to_owned(); 101]).unwrap_err().0, None);
}

#[test]
fn headers_of_the_connection_and_the_signature_are_reserved() {
    for good in ["Content-Type", "Authorization", "X-Team", "User-Agent", "x-api-key"] {
        assert_eq!(header_name(good, Some("X-Sig")), Ok(()), "{good}");
    }
    for bad in [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "CONNECTION",
        "te",
        "Proxy-Authorization",
        "X-Forwarded-For",
        "Sec-Fetch-Mode",
        "webhook-id",
        "Webhook-Signature",
        "x-sig",
        "X-SIG",
        "",
        "a b",
        ":method",
        "a:",
        "a\r\nb",
        "é",
        "X-Posthaste-Anything",
        "Content-Encoding",
        "Keep-Alive",
        "Trailer",
        "Upgrade",
        "Expect",
        "Date",
        "Via",
        "Forwarded",
        "traceparent",
        "tracestate",
        "X-Real-IP",
        "HTTP2-Settings",
        "posthaste-test",
        "Posthaste-Replay",
    ] {
        assert!(header_name(bad, Some("X-Sig")).is_err(), "{bad}");
    }
}

#[test]
fn a_value_cannot_begin_another_header() {
    for good in ["", "Bearer abc", "a\tb", "~!@#$%^&*()"] {
        assert_eq!(header_value(good), Ok(()), "{good}");
    }
    for bad in [
        "a\r\nX-Other: b",
        "a\nb",
        "a\0b",
        "a\u{7f}",
        "é",
        " a",
        "a ",
        "a\t",
        &"x".repeat(4097),
    ] {
        assert!(header_value(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_variable_has_a_name_that_expressions_can_hold() {
    for good in ["routing_key", "_", "Team2", &"x".repeat(64)] {
        assert_eq!(variable_name(good), Ok(()), "{good}");
    }
    for bad in ["", "2nd", "a-b", "a.b", "a b", "é", "a}}", &"x".repeat(65)] {
        assert!(variable_name(bad).is_err(), "{bad}");
    }
    for good in ["", " a\nb ", "é", &"x".repeat(4096)] {
        assert_eq!(variable_value(good), Ok(()), "{good:?}");
    }
    for bad in ["a\0", &"x".repeat(4097)] {
        assert!(variable_value(bad).is_err(), "{bad:?}");
    }
}

fn pairs_of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn a_description_has_at_most_400_characters_on_any_number_of_lines() {
    for good in ["", "a\nb\tc", &"é".repeat(400)] {
        assert_eq!(description(good), Ok(()), "{good}");
    }
    for bad in ["a\0", "\u{1b}[31m", &"é".repeat(401)] {
        assert!(description(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn labels_and_attributes_are_bounded() {
    let (key, value) = ("k".repeat(64), "é".repeat(256));
    assert_eq!(labels(&pairs_of(&[(&key, &value), ("app/name", "")])), Ok(()));
    let many = |count: usize| (0..count).map(|n| (n.to_string(), String::new())).collect();
    assert_eq!(labels(&many(32)), Ok(()));
    assert_eq!(labels(&many(33)).unwrap_err().0, None);
    let (key, value) = ("k".repeat(65), "é".repeat(257));
    for (key, value) in [
        ("", ""),
        (&*key, ""),
        ("a", &*value),
        ("a\0", ""),
        ("a", "b\n"),
        ("a:b", ""),
        ("a,b", ""),
    ] {
        assert_eq!(
            labels(&pairs_of(&[(key, value)])).unwrap_err().0.as_deref(),
            Some(key),
            "{key}"
        );
    }
    // Attributes are the producer's: only how lists of webhooks are filtered forbids these characters.
    assert_eq!(attributes(&pairs_of(&[("a:b", "1")])), Ok(()));
}

#[test]
fn a_transform_is_json_of_limited_size_and_depth_that_postgres_can_hold() {
    let nested = |depth: usize| (1..depth).fold(serde_json::json!({}), |inner, _| serde_json::json!({ "a": inner }));
    assert_eq!(transform(&nested(JSON_DEPTH_MAX)), Ok(()));
    assert!(transform(&nested(JSON_DEPTH_MAX + 1)).is_err());
    let long = |length: usize| serde_json::json!({ "a": "x".repeat(length - 8) });
    assert_eq!(transform(&long(JSON_BYTES_MAX)), Ok(()));
    assert!(transform(&long(JSON_BYTES_MAX + 1)).is_err());
    for bad in [
        serde_json::json!("text"),
        serde_json::json!({ "a": ["\0"] }),
        serde_json::json!({ "\0": 1 }),
    ] {
        assert!(transform(&bad).is_err(), "{bad}");
    }
    assert!(filter(&serde_json::json!([])).is_err());
}

#[test]
fn a_signature_stands_in_a_header_that_means_nothing_else() {
    assert_eq!(signature_header("X-Hub-Signature-256"), Ok(()));
    for bad in ["Content-Type", "authorization", "host", "webhook-signature", "", "a b"] {
        assert!(signature_header(bad).is_err(), "{bad}");
    }
}

#[test]
fn credentials_are_what_their_headers_can_hold() {
    for (good, checked) in [
        ("user", username as fn(&str) -> Result<(), String>),
        ("J\u{fc}rgen @ home", username),
        ("client 1:x", client_id),
        ("", credential),
        ("p\u{e4}ss:word", credential),
        ("a", scope),
        ("hooks:write openid", scope),
    ] {
        assert_eq!(checked(good), Ok(()), "{good}");
    }
    let long = "x".repeat(1025);
    for (bad, checked) in [
        ("", username as fn(&str) -> Result<(), String>),
        ("a:b", username),
        ("a\n", username),
        (&long[..257], username),
        ("", client_id),
        ("\u{e4}", client_id),
        ("a\r\nb", credential),
        (&long, credential),
        ("", scope),
        ("a  b", scope),
        ("a\"b", scope),
        ("-----BEGIN\0", pem),
    ] {
        assert!(checked(bad).is_err(), "{bad:?}");
    }
    assert!(pem(&"x".repeat(PEM_MAX + 1)).is_err());
}

#[test]
fn telling_names_are_protected() {
    for telling in [
        "Authorization",
        "COOKIE",
        "X-Api-Key",
        "x-auth-token",
        "Client-Secret",
        "x-password",
    ] {
        assert!(is_protected_by_name(telling), "{telling}");
    }
    for plain in ["Content-Type", "X-Team", "Accept"] {
        assert!(!is_protected_by_name(plain), "{plain}");
    }
}

proptest! {
    #[test]
    fn what_is_taken_can_be_sent(name in ".{0,40}", value in ".{0,40}") {
        if header_name(&name, None).is_ok() {
            prop_assert!(HeaderName::from_bytes(name.as_bytes()).is_ok());
        }
        if header_value(&value).is_ok() {
            prop_assert!(HeaderValue::from_str(&value).is_ok_and(|sent| sent.to_str().is_ok_and(|it| it == value)));
        }
    }
}

#[test]
fn an_email_is_an_address_and_nothing_more() {
    for good in ["ops@example.com", "a.b+c@x-y.example.org", "o'neil@example.co"] {
        assert_eq!(emails(&[good.to_owned()]), Ok(()), "{good}");
    }
    for bad in [
        "",
        "ops",
        "ops@",
        "@example.com",
        "ops@localhost",
        "a b@example.com",
        "a@b@example.com",
        "Ops <ops@example.com>",
        "ops@example.com\r\nBcc: x@example.com",
        "a..b@example.com",
        "a@-x.com",
        "\"a\"@example.com",
        "é@example.com",
    ] {
        assert_eq!(
            emails(&["a@b.cd".to_owned(), bad.to_owned()]).unwrap_err().0,
            Some(1),
            "{bad}"
        );
    }
    assert!(emails(&vec!["a@b.cd".to_owned(); 11]).is_err());
}
