//! That no request is sent to whom none may go to, whatever target it has; and that the guard's checks hold without one
//! another.

use super::exchange::to;
use super::*;
use crate::egress::counted::Counted;

/// A client under the strict rules, and a target that should not exist under them.
fn strict_client_and_open_target(url: &str) -> (Client, Target) {
    let config = Config {
        allow_http: true,
        ..Config::default()
    };
    (Client::new(&config).unwrap(), client().guard().check(url).unwrap())
}

#[tokio::test]
async fn a_name_that_leads_to_a_refused_address_is_never_dialled() {
    let receiver = Receiver::answering(OK, false).await;
    let (strict, target) = strict_client_and_open_target(&format!("http://localhost:{}/", receiver.port));
    let exchange = to(&strict, &target).await;
    let error = exchange.outcome.unwrap_err();
    assert_eq!(
        (error.class, error.to_string().as_str()),
        (ErrorClass::RefusedAddress, "target address not allowed")
    );
    assert_eq!((exchange.peer, receiver.connections()), (None, 0));
    assert!(strict.guard().vet(&target).await.is_err());
    assert!(client().guard().vet(&target).await.is_ok());
}

#[tokio::test]
async fn an_address_is_vetted_again_before_it_is_dialled() {
    let receiver = Receiver::answering(OK, false).await;
    let (strict, target) = strict_client_and_open_target(&receiver.url());
    let exchange = to(&strict, &target).await;
    assert_eq!(exchange.outcome.unwrap_err(), Error::refused_address());
    assert_eq!((exchange.peer, receiver.connections()), (None, 0));
}

#[tokio::test]
async fn without_http_not_even_a_target_gets_it_through() {
    let receiver = Receiver::answering(OK, false).await;
    let target = client().guard().check(&receiver.url()).unwrap();
    let https_only = Client::new(&Config {
        allow_http: false,
        ..development()
    });
    assert!(to(&https_only.unwrap(), &target).await.outcome.is_err());
    assert_eq!(receiver.connections(), 0);
}

/// What cannot be: a client whose connections are under other rules than its guard is, so that they get past every check
/// but the last.
fn led_astray(connections: &Client, guard: &Client, counted: &Counted) -> Client {
    Client {
        pools: Arc::clone(&connections.pools),
        guard: guard.guard.clone(),
        violations: counted.counter("ssrf_invariant_violation"),
    }
}

#[tokio::test]
async fn an_answer_from_a_refused_address_is_not_passed_on() {
    let receiver = Receiver::answering(OK, false).await;
    let (strict, target) = strict_client_and_open_target(&receiver.url());
    let proxied = Client::new(&Config {
        proxy: Some("http://proxy.example:3128".parse().unwrap()),
        ..Config::default()
    });
    let counted = Counted::new();
    for (guard, violations) in [(&client(), 0), (&strict, 1), (&proxied.unwrap(), 2)] {
        let astray = led_astray(&client(), guard, &counted);
        let exchange = to(&astray, &target).await;
        match violations {
            0 => {
                assert_eq!(exchange.outcome.unwrap().status, 200);
                assert!(exchange.peer.is_some() && exchange.timings.first_byte.is_some());
            }
            _ => {
                assert_eq!(exchange.outcome.unwrap_err(), Error::refused_address());
                assert_eq!((exchange.peer, exchange.timings), (None, Timings::default()));
            }
        }
        assert_eq!(counted.of("ssrf_invariant_violation", &[]), violations);
    }
    assert_eq!(receiver.connections(), 3);
}

#[tokio::test]
async fn of_a_refused_address_that_breaks_off_is_told_no_more_than_of_one_that_answers() {
    let mute = Receiver::answering("", true).await;
    let (strict, target) = strict_client_and_open_target(&mute.url());
    let counted = Counted::new();
    let exchange = to(&led_astray(&client(), &strict, &counted), &target).await;
    assert_eq!(exchange.outcome.unwrap_err(), Error::refused_address());
    assert_eq!((exchange.peer, exchange.timings), (None, Timings::default()));
    assert_eq!(
        (counted.of("ssrf_invariant_violation", &[]), mute.connections()),
        (1, 1)
    );
}

#[tokio::test]
async fn an_answer_of_which_nobody_knows_from_where_is_passed_on_with_a_proxy_alone() {
    let counted = Counted::new();
    for (proxy, violations) in [(Some("http://proxy.example:3128"), 0), (None, 1)] {
        let config = Config {
            proxy: proxy.map(|proxy| proxy.parse().unwrap()),
            ..Config::default()
        };
        let client = Client {
            violations: counted.counter("ssrf_invariant_violation"),
            ..Client::new(&config).unwrap()
        };
        let target = client.guard().check("https://example.com/").unwrap();
        let mut unknown = Exchange {
            outcome: Err(Error::refused_address()),
            timings: Timings::default(),
            peer: None,
        };
        assert_eq!(client.assert_allowed(&target, &mut unknown).is_err(), violations > 0);
        assert_eq!(counted.of("ssrf_invariant_violation", &[]), violations);
    }
}
