//! Where a request goes, when the next one goes, and how it is signed.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;
use std::time::Duration;

use common::egress::{Config, Guard, URL_MAX};
use common::sign::{Key, PublicKey, body_hmac, standard_webhooks};
use dispatcher::classify::{RETRY_AFTER_MAX, retry_after as wait};
use http::{HeaderValue, Uri};
use jiff::Timestamp;
use url::Host;

use super::parts;

/// As in production, and with http.
static GUARDS: LazyLock<[Guard; 2]> = LazyLock::new(|| {
    [false, true].map(|allow_http| {
        let config = Config {
            allow_http,
            ..Config::default()
        };
        Guard::new(&config).expect("this machine has addresses")
    })
});

/// A webhook's URL: what is let through means one thing to every reader, and is no address that is not public.
pub(crate) fn url(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for guard in &*GUARDS {
        let Ok(target) = guard.check(&text) else { continue };
        let (url, text) = (target.url(), target.as_str());
        assert!(text.len() <= URL_MAX && text.is_ascii());
        assert_eq!(guard.check(text).as_ref(), Ok(&target), "its normal form is stable");
        assert!(matches!(url.scheme(), "https" | "http"));
        assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());

        // The client reads it as a URI, by other code.
        let uri: Uri = text.parse().expect("a target is a URI");
        assert_eq!(uri.host(), url.host_str(), "one host");
        assert_eq!(uri.port_u16(), url.port(), "one port");
        assert_eq!(uri.path(), url.path());
        match url.host() {
            Some(Host::Domain(name)) => assert!(name.contains('.') && name.parse::<IpAddr>().is_err(), "{name}"),
            Some(Host::Ipv4(address)) => assert!(is_public(address), "{address}"),
            Some(Host::Ipv6(address)) => {
                let [first, second, ..] = address.segments();
                assert_eq!(first >> 13, 1, "{address}");
                // 6to4 and documentation; protocols, Teredo among them, and documentation.
                assert!(first != 0x2002 && !(0x3fff == first && second < 0x1000), "{address}");
                assert!(first != 0x2001 || (second >= 0x200 && second != 0xdb8), "{address}");
            }
            None => panic!("a target without a host"),
        }
    }
}

/// By other rules than the guard's: those of the standard library, and what it has not made public yet, by comparison of
/// octets.
fn is_public(address: Ipv4Addr) -> bool {
    let is_set_aside = match address.octets() {
        // Shared between networks (RFC 6598), protocols (RFC 6890), measurements (RFC 2544), reserved (RFC 1112).
        [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18..=19, ..] | [240..=255, ..] => true,
        // Where Azure's machines find their metadata.
        octets => octets == [168, 63, 129, 16],
    };
    !(is_set_aside
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || address.octets()[0] == 0)
}

/// A receiver's `Retry-After`: a wait of at most a day, or none, whatever the time is.
pub(crate) fn retry_after(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let micros = data.iter().take(8).fold(0_i64, |n, byte| n << 7 ^ i64::from(*byte));
    for now in [
        Timestamp::MIN,
        Timestamp::UNIX_EPOCH,
        Timestamp::from_microsecond(micros).unwrap_or_default(),
        Timestamp::MAX,
    ] {
        let Some(wait) = wait(&text, now) else { continue };
        assert!(wait <= RETRY_AFTER_MAX);
        if let Ok(seconds) = text.trim().parse::<u32>() {
            assert_eq!(wait, Duration::from_secs(seconds.into()).min(RETRY_AFTER_MAX));
        }
    }
}

/// A key as its owner gives it, and what is signed with it: always a header, and what the official library signs.
pub(crate) fn signature(data: &[u8]) {
    let Some((text, body)) = parts(data) else { return };
    if let Some(public) = PublicKey::parse(text) {
        assert_eq!(public.text(), text);
    }
    let Ok(key) = Key::parse(text) else { return };
    let signature = standard_webhooks("evt_1", 1_700_000_000, body, [&key, &key]);
    assert!(HeaderValue::from_str(&signature).is_ok(), "{signature}");
    let one = standard_webhooks("evt_1", 1_700_000_000, body, [&key]);
    assert_eq!(signature, format!("{one} {one}"));
    let Key::V1(secret) = &key else { return };
    let sum = body_hmac(body, secret);
    assert!(sum.len() == 71 && HeaderValue::from_str(&sum).is_ok());
    if let Ok(official) = standardwebhooks::Webhook::new(text)
        && text.starts_with("whsec_")
        // It signs text alone.
        && let Ok(signed) = official.sign("evt_1", 1_700_000_000, body)
    {
        assert_eq!(signed, one);
    }
}
