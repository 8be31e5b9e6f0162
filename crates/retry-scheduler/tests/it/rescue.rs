//! Which released deliveries are taken for lost.

use std::time::Duration;

use common::bus::{Bus, Options, Verdict};
use proto_schemas::id::AttemptRef;
use proto_schemas::stream::{DELIVERIES, LEDGER, Stream};
use store::pending_deliveries::DeliveryKey;
use tokio_util::sync::CancellationToken;

use crate::support::*;

/// Takes what a stream holds and loses it.
async fn lose(bus: &Bus, stream: Stream) {
    let stop = CancellationToken::new();
    let options = Options {
        max_held: 10,
        drain: Duration::from_secs(5),
    };
    let last = stop.clone();
    let losing = bus.work_off(stream, options, stop, move |_| {
        last.cancel();
        async { Verdict::Done }
    });
    tokio::time::timeout(Duration::from_secs(10), losing)
        .await
        .expect("there was something to lose")
        .unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while bus.position(stream).await.unwrap().held > 0 {
        assert!(tokio::time::Instant::now() < deadline, "the ack is processed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn released_once() -> (Ledger, OwnNats, Bus, AttemptRef) {
    let (ledger, nats) = (Ledger::start().await, OwnNats::start().await);
    let bus = nats.bus().await;
    let attempt = first(1, webhook(1));
    ledger.record(&[accepted(key(1), &[webhook(1)]), failed(attempt)]).await;
    ledger.clock.advance(Duration::from_secs(70));
    ledger.releaser(&bus, 20).look().await.unwrap();
    (
        ledger,
        nats,
        bus,
        AttemptRef {
            attempt: 2,
            release: 1,
            ..attempt
        },
    )
}

#[tokio::test]
async fn a_lost_delivery_is_due_again_after_a_while_and_not_before() {
    let (ledger, _nats, bus, released) = released_once().await;
    let rescuer = ledger.rescuer(&bus);
    lose(&bus, DELIVERIES).await;

    assert_eq!(rescuer.look().await.unwrap(), 0, "nothing is in doubt yet");
    ledger.clock.advance(RESCUE_AFTER);
    assert_eq!(rescuer.look().await.unwrap(), 1);
    assert_eq!(
        ledger.pending().await[&DeliveryKey::from(&released)],
        ("scheduled", 2, 1)
    );

    ledger.releaser(&bus, 20).look().await.unwrap();
    assert_eq!(
        ledger.pending().await[&DeliveryKey::from(&released)],
        ("released", 2, 2)
    );
    assert_eq!(
        bus.count(DELIVERIES, "deliveries.>").await.unwrap(),
        1,
        "a new release is not taken for a repetition"
    );
}

#[tokio::test]
async fn a_delivery_still_in_the_pipe_is_waited_for() {
    let (ledger, _nats, bus, released) = released_once().await;
    let rescuer = ledger.rescuer(&bus);
    ledger.clock.advance(RESCUE_AFTER);
    assert_eq!(rescuer.look().await.unwrap(), 0);
    assert_eq!(
        ledger.pending().await[&DeliveryKey::from(&released)],
        ("released", 2, 1)
    );

    // It is asked about again only after another while.
    lose(&bus, DELIVERIES).await;
    assert_eq!(rescuer.look().await.unwrap(), 0);
    ledger.clock.advance(RESCUE_AFTER);
    assert_eq!(rescuer.look().await.unwrap(), 1);
}

#[tokio::test]
async fn a_delivery_whose_news_waits_in_the_ledger_is_not_lost() {
    let (ledger, _nats, bus, released) = released_once().await;
    lose(&bus, DELIVERIES).await;
    ledger.clock.advance(RESCUE_AFTER);
    let news = delivered(released);
    bus.publish(proto_schemas::subject::LEDGER, Default::default(), news.encode())
        .await
        .unwrap()
        .stored()
        .await
        .unwrap();

    // The recorder comes to it while rescue waits.
    let rescuer = ledger.rescuer(&bus);
    let rescuing = tokio::spawn(async move { rescuer.look().await.unwrap() });
    let stop = CancellationToken::new();
    let options = Options {
        max_held: 10,
        drain: Duration::from_secs(5),
    };
    let (recorder, all) = (ledger.recorder.clone(), stop.clone());
    let recording = tokio::spawn(async move {
        let record = |messages| recorder.record(messages);
        bus.work_off_batches(LEDGER, options, 10, Duration::ZERO, all, record)
            .await
            .unwrap();
    });
    assert_eq!(rescuing.await.unwrap(), 0);
    assert_eq!(ledger.pending().await.len(), 0);
    stop.cancel();
    recording.await.unwrap();
}

#[tokio::test]
async fn a_release_that_moved_on_meanwhile_is_left_as_it_is() {
    let (ledger, _nats, _bus, released) = released_once().await;
    ledger.record(&[deferred(released)]).await;
    let mut connection = ledger.store.connection().await.unwrap();
    let rescued = store::pending_deliveries::rescue(&mut connection, &[released], START)
        .await
        .unwrap();
    assert_eq!(rescued, 0);
    assert_eq!(ledger.pending().await[&DeliveryKey::from(&released)], ("parked", 2, 1));
}
