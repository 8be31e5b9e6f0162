//! What is known of a request and its connection, beside the response.

use super::*;

/// What is known of a request to this url beside its outcome.
pub(super) async fn exchange(client: &Client, url: &str) -> Exchange {
    to(client, &client.guard().check(url).unwrap()).await
}

/// The same of a request to this target.
pub(super) async fn to(client: &Client, target: &Target) -> Exchange {
    let request = Request {
        method: Method::POST,
        target,
        tls: None,
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"{}"),
        timeout: TIMEOUT,
    };
    client.send(request).await
}

#[tokio::test]
async fn a_connection_has_its_timings_for_the_request_it_was_made_for_and_none_for_later_ones() {
    let authority = Authority::new();
    let receiver = authority.receiver("localhost", false).await;
    let (client, url) = (authority.client(), format!("https://localhost:{}/", receiver.port));
    let first = exchange(&client, &url).await;
    assert!(first.outcome.is_ok(), "{first:?}");
    let Timings {
        dns: Some(dns),
        connect: Some(connect),
        tls: Some(tls),
        first_byte: Some(first_byte),
    } = first.timings
    else {
        panic!("{first:?}")
    };
    assert!(tls > Duration::ZERO && dns + connect + tls <= first_byte, "{first:?}");
    assert_eq!(first.peer.unwrap().port(), receiver.port);

    let second = exchange(&client, &url).await;
    let Timings {
        dns: None,
        connect: None,
        tls: None,
        first_byte: Some(_),
    } = second.timings
    else {
        panic!("{second:?}")
    };
    assert_eq!(second.peer, first.peer);
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_fails_tells_how_far_it_got() {
    let authority = Authority::new();
    let receiver = authority.receiver("localhost", true).await;
    let failed = exchange(&authority.client(), &format!("https://127.0.0.1:{}/", receiver.port)).await;
    assert_eq!(failed.outcome.as_ref().unwrap_err().class, ErrorClass::Tls);
    assert_eq!(failed.peer.unwrap().port(), receiver.port);
    let timings = failed.timings;
    assert!(timings.dns.is_none(), "an address needs no look-up: {timings:?}");
    assert!(timings.connect.is_some() && timings.tls.is_some() && timings.first_byte.is_none());

    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://localhost:{}/", listener.local_addr().unwrap().port())
    };
    let failed = exchange(&client(), &refused).await;
    assert!(failed.timings.dns.is_some() && failed.peer.is_none(), "{failed:?}");

    let nowhere = exchange(&client(), "http://nonexistent.localhost.invalid/").await;
    assert!(
        nowhere.timings.dns.is_some() && nowhere.timings.connect.is_none(),
        "{nowhere:?}"
    );
}

#[test]
fn the_checksum_of_a_head_knows_no_order_and_no_secret() {
    let value = |text: &'static str, sensitive| {
        let mut value = HeaderValue::from_static(text);
        value.set_sensitive(sensitive);
        value
    };
    let of = |lines: [(&'static str, HeaderValue); 2]| {
        let headers = lines
            .into_iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value))
            .collect();
        head_checksum(&Method::POST, "https://example.com/", &headers)
    };
    let expected = of([("a", value("1", false)), ("b", value("hush", true))]);
    assert_eq!(of([("b", value("other", true)), ("a", value("1", false))]), expected);
    assert_ne!(of([("b", value("hush", true)), ("a", value("2", false))]), expected);
    assert_ne!(of([("b", value("hush", false)), ("a", value("1", false))]), expected);
}
