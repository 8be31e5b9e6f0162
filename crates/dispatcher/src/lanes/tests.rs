use super::*;
use crate::breaker::{Rules, Sign};

const LIMITS: Limits = Limits {
    per_lane: 2,
    total: 100,
    patience: Duration::from_secs(1),
    waiting: 5000,
    breaker: Rules {
        failures: 3,
        wait: Duration::from_secs(2),
        wait_max: Duration::from_secs(60),
    },
};

fn webhook(n: u128) -> WebhookId {
    WebhookId::from_uuid(uuid::Uuid::from_u128(n))
}

fn view(in_flight: usize, waiting: usize, latency_ms: u64) -> View {
    View {
        in_flight,
        probing: false,
        waiting,
        latency: Duration::from_millis(latency_ms),
        total_in_flight: in_flight,
    }
}

#[test]
fn a_quick_lane_queues_and_a_slow_one_parks() {
    assert_eq!(decide(view(1, 0, 5000), LIMITS), Decision::Go);
    assert_eq!(decide(view(2, 1000, 1), LIMITS), Decision::Wait);
    assert_eq!(decide(view(2, 0, 2000), LIMITS), Decision::Wait);
    assert!(matches!(decide(view(2, 1, 2000), LIMITS), Decision::Park(_)));
    assert!(
        matches!(decide(view(2, 5000, 0), LIMITS), Decision::Park(_)),
        "too many wait already"
    );
}

#[test]
fn when_there_is_no_room_for_all_slow_lanes_are_held_to_one() {
    let crowded = |latency| View {
        total_in_flight: 100,
        ..view(1, 0, latency)
    };
    assert_eq!(decide(crowded(1), LIMITS), Decision::Go);
    assert!(matches!(decide(crowded(5000), LIMITS), Decision::Park(_)));
}

async fn turn(lanes: &Lanes, n: u128) -> Turn {
    match lanes.enter(webhook(n), Own::default()).await {
        Admission::Turn(turn) => turn,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_delivery_gets_the_turn_that_ends() {
    let lanes = Arc::new(Lanes::new(LIMITS));
    let (first, second) = (turn(&lanes, 1).await, turn(&lanes, 1).await);
    let waiting = tokio::spawn({
        let lanes = Arc::clone(&lanes);
        async move { turn(&lanes, 1).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(first);
    let third = waiting.await.unwrap();
    assert_eq!(lanes.in_flight(), 2);
    drop((second, third));
    assert_eq!(lanes.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_lane_parks_what_comes_and_leaves_the_others_alone() {
    let lanes = Arc::new(Lanes::new(LIMITS));
    let _hanging = (turn(&lanes, 1).await, turn(&lanes, 1).await);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(
        matches!(lanes.enter(webhook(1), Own::default()).await, Admission::Parked(Cause::Full, wait) if wait > Duration::from_secs(1))
    );
    let _quick = turn(&lanes, 2).await;
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_parked_once_their_lane_has_become_slow() {
    let lanes = Arc::new(Lanes::new(LIMITS));
    let _hanging = (turn(&lanes, 1).await, turn(&lanes, 1).await);
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let lanes = Arc::clone(&lanes);
            tokio::spawn(async move { lanes.enter(webhook(1), Own::default()).await })
        })
        .collect();
    tokio::task::yield_now().await;
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(matches!(
        lanes.enter(webhook(1), Own::default()).await,
        Admission::Parked(Cause::Full, _)
    ));
    for waiting in waiting {
        assert!(matches!(waiting.await.unwrap(), Admission::Parked(Cause::Full, _)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_whose_waiter_is_gone_goes_to_the_next() {
    let lanes = Arc::new(Lanes::new(LIMITS));
    let held = (turn(&lanes, 1).await, turn(&lanes, 1).await);
    let wait = || {
        let lanes = Arc::clone(&lanes);
        tokio::spawn(async move { turn(&lanes, 1).await })
    };
    let gone = wait();
    tokio::task::yield_now().await;
    let patient = wait();
    tokio::task::yield_now().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    drop(held);
    drop(patient.await.unwrap());
    assert_eq!(lanes.in_flight(), 0);
}

const TWO_A_SECOND: RateLimit = RateLimit {
    requests: 2,
    window: Duration::from_secs(1),
};

#[test]
fn the_rate_is_judged_by_the_last_so_many_starts() {
    let begin = Instant::now();
    let starts = |millis: &[u64]| millis.iter().map(|ms| begin + Duration::from_millis(*ms)).collect();
    let wait = |past: &[u64], now| pace(&starts(past), begin + Duration::from_millis(now), TWO_A_SECOND).as_millis();
    assert_eq!(wait(&[], 0), 0);
    assert_eq!(wait(&[0], 0), 0);
    assert_eq!(wait(&[0, 100], 100), 900);
    assert_eq!(wait(&[0, 100, 1000], 1050), 50);
    assert_eq!(wait(&[0, 100], 5000), 0);
}

#[tokio::test(start_paused = true)]
async fn in_no_stretch_of_time_do_more_requests_begin_than_the_webhook_allows() {
    let lanes = Lanes::new(LIMITS);
    let own = Own {
        rate: Some(TWO_A_SECOND),
        ..Own::default()
    };
    let mut begun = Vec::new();
    for _ in 0..9 {
        match lanes.enter(webhook(1), own).await {
            Admission::Turn(turn) => drop(turn),
            other => panic!("{other:?}"),
        }
        begun.push(Instant::now());
    }
    for three in begun.windows(3) {
        assert!(three[2] - three[0] >= TWO_A_SECOND.window, "{three:?}");
    }
    assert_eq!(begun[1], begun[0], "within the window they go as they come");
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_too_long_for_the_rate_waits_in_postgres() {
    let lanes = Lanes::new(LIMITS);
    let own = Own {
        rate: Some(RateLimit {
            requests: 1,
            window: Duration::from_secs(60),
        }),
        ..Own::default()
    };
    assert!(matches!(lanes.enter(webhook(1), own).await, Admission::Turn(_)));
    assert!(
        matches!(lanes.enter(webhook(1), own).await, Admission::Parked(Cause::Paced, wait) if wait == Duration::from_secs(60))
    );
    assert!(matches!(lanes.enter(webhook(2), own).await, Admission::Turn(_)));
    assert_eq!(lanes.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_webhooks_own_bound_holds_instead_of_the_usual_one() {
    let lanes = Arc::new(Lanes::new(LIMITS));
    let own = Own {
        max_in_flight: Some(1),
        ..Own::default()
    };
    let Admission::Turn(first) = lanes.enter(webhook(1), own).await else {
        panic!("no turn")
    };
    let second = tokio::spawn({
        let lanes = Arc::clone(&lanes);
        async move { lanes.enter(webhook(1), own).await }
    });
    tokio::task::yield_now().await;
    assert!(!second.is_finished());
    drop(first);
    assert!(matches!(second.await.unwrap(), Admission::Turn(_)));
}

#[tokio::test(start_paused = true)]
async fn a_turn_aside_is_had_at_once_and_counted() {
    let lanes = Arc::new(Lanes::new(LIMITS));
    let _hanging = (turn(&lanes, 1).await, turn(&lanes, 1).await);
    let aside = lanes.aside();
    assert_eq!(lanes.in_flight(), 3);
    drop(aside);
    assert_eq!(lanes.in_flight(), 2);
}

/// Makes one request that ends like this.
async fn request(lanes: &Lanes, sign: Sign, throttled: Option<Duration>) {
    let mut turn = turn(lanes, 1).await;
    turn.report(sign, throttled);
}

async fn parked(lanes: &Lanes) -> (Cause, Duration) {
    match lanes.enter(webhook(1), Own::default()).await {
        Admission::Parked(cause, wait) => (cause, wait),
        other => panic!("{other:?}"),
    }
}

async fn broken(lanes: &Lanes) {
    for _ in 0..3 {
        request(lanes, Sign::Ill, None).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_lane_of_a_receiver_that_fails_parks_whatever_comes_until_it_is_probed() {
    let lanes = Lanes::new(LIMITS);
    broken(&lanes).await;
    let (cause, wait) = parked(&lanes).await;
    assert_eq!(cause, Cause::Broken);
    assert!(wait >= Duration::from_secs(2), "{wait:?}");
    let _other = turn(&lanes, 2).await;

    tokio::time::advance(wait).await;
    request(&lanes, Sign::Ill, None).await;
    let (_, longer) = parked(&lanes).await;
    assert!(longer >= Duration::from_secs(4), "{longer:?}");
    tokio::time::advance(longer).await;
    request(&lanes, Sign::Well, None).await;
    let _both = (turn(&lanes, 1).await, turn(&lanes, 1).await);
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_a_receiver_is_probed_waits_for_what_comes_of_it() {
    for (sign, goes) in [(Sign::Well, true), (Sign::Ill, false)] {
        let lanes = Arc::new(Lanes::new(LIMITS));
        broken(&lanes).await;
        let (_, wait) = parked(&lanes).await;
        tokio::time::advance(wait).await;
        let mut probe = turn(&lanes, 1).await;
        let waiting = tokio::spawn({
            let lanes = Arc::clone(&lanes);
            async move { lanes.enter(webhook(1), Own::default()).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert_eq!(lanes.in_flight(), 1);
        probe.report(sign, None);
        drop(probe);
        match waiting.await.unwrap() {
            Admission::Turn(_) => assert!(goes),
            Admission::Parked(cause, _) => assert_eq!((cause, goes), (Cause::Broken, false)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_asks_to_be_left_alone_is_and_then_asked_by_one_at_a_time() {
    let lanes = Arc::new(Lanes::new(LIMITS));
    let held = turn(&lanes, 1).await;
    request(&lanes, Sign::Well, Some(Duration::from_secs(7))).await;
    assert_eq!(parked(&lanes).await, (Cause::Throttled, Duration::from_secs(7)));
    drop(held);
    tokio::time::advance(Duration::from_secs(7)).await;
    let one = turn(&lanes, 1).await;
    let second = tokio::spawn({
        let lanes = Arc::clone(&lanes);
        async move { lanes.enter(webhook(1), Own::default()).await }
    });
    tokio::task::yield_now().await;
    assert!(!second.is_finished());
    drop(one);
    assert!(matches!(second.await.unwrap(), Admission::Turn(_)));
    request(&lanes, Sign::Well, None).await;
    let _both = (turn(&lanes, 1).await, turn(&lanes, 1).await);
}

#[tokio::test(start_paused = true)]
async fn a_changed_webhook_begins_anew() {
    let lanes = Lanes::new(LIMITS);
    broken(&lanes).await;
    request_of_another_revision(&lanes).await;
    let _both = (turn(&lanes, 1).await, turn(&lanes, 1).await);
}

async fn request_of_another_revision(lanes: &Lanes) {
    let own = Own {
        revision: 1,
        ..Own::default()
    };
    assert!(matches!(lanes.enter(webhook(1), own).await, Admission::Turn(_)));
}

#[tokio::test(start_paused = true)]
async fn a_turn_aside_goes_through_an_open_breaker_and_changes_nothing() {
    let lanes = Lanes::new(LIMITS);
    broken(&lanes).await;
    let before = parked(&lanes).await;
    let mut aside = lanes.aside();
    aside.report(Sign::Well, None);
    drop(aside);
    assert_eq!(parked(&lanes).await, before);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_the_rate_is_not_made_if_the_breaker_opens_meanwhile() {
    let lanes = Arc::new(Lanes::new(Limits { per_lane: 10, ..LIMITS }));
    let own = Own {
        rate: Some(RateLimit {
            requests: 3,
            window: Duration::from_secs(1),
        }),
        ..Own::default()
    };
    let mut begun = Vec::new();
    for _ in 0..3 {
        match lanes.enter(webhook(1), own).await {
            Admission::Turn(turn) => begun.push(turn),
            other => panic!("{other:?}"),
        }
    }
    let fourth = tokio::spawn({
        let lanes = Arc::clone(&lanes);
        async move { lanes.enter(webhook(1), own).await }
    });
    tokio::task::yield_now().await;
    for turn in &mut begun {
        turn.report(Sign::Ill, None);
    }
    assert!(matches!(fourth.await.unwrap(), Admission::Parked(Cause::Broken, _)));
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_in_a_lane_that_stands_still_are_parked_without_anybody_coming() {
    let lanes = Arc::new(Lanes::new(LIMITS));
    let _hanging = (turn(&lanes, 1).await, turn(&lanes, 1).await);
    let waiting = tokio::spawn({
        let lanes = Arc::clone(&lanes);
        async move { lanes.enter(webhook(1), Own::default()).await }
    });
    tokio::task::yield_now().await;
    lanes.tend();
    assert!(!waiting.is_finished());
    tokio::time::advance(Duration::from_secs(5)).await;
    lanes.tend();
    assert!(matches!(waiting.await.unwrap(), Admission::Parked(Cause::Full, _)));
}

#[tokio::test(start_paused = true)]
async fn lanes_that_nobody_comes_to_are_forgotten_and_made_anew_for_who_does() {
    let lanes = Lanes::new(LIMITS);
    let there = || {
        lanes.forget_idle();
        lanes.lanes.len()
    };
    for number in 0..100 {
        drop(turn(&lanes, number).await);
    }
    assert_eq!(there(), 100, "they may be needed again at once");
    tokio::time::advance(KEPT / 2).await;
    drop(turn(&lanes, 1).await);
    tokio::time::advance(KEPT / 2).await;
    assert_eq!(there(), 1);
    // Found before it was forgotten, and asked afterwards.
    let found = lanes.lane(webhook(1));
    tokio::time::advance(KEPT / 2).await;
    assert_eq!(there(), 0);
    assert!(found.ask(Own::default()).is_none());
    drop(turn(&lanes, 1).await);
    assert_eq!(there(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lane_in_which_something_is_to_be_remembered_is_not_forgotten() {
    let lanes = Lanes::new(LIMITS);
    let there = || {
        lanes.forget_idle();
        lanes.lanes.len()
    };
    // A request under way.
    let held = turn(&lanes, 1).await;
    tokio::time::advance(KEPT).await;
    assert_eq!(there(), 1);
    drop(held);
    tokio::time::advance(KEPT).await;
    assert_eq!(there(), 0);
    // A receiver that wants to be left alone for longer.
    request(&lanes, Sign::Well, Some(KEPT * 3)).await;
    tokio::time::advance(KEPT * 2).await;
    assert_eq!(there(), 1);
    tokio::time::advance(KEPT).await;
    assert_eq!(there(), 0);
    // A rate.
    let own = Own {
        rate: Some(RateLimit {
            requests: 1,
            window: KEPT * 3,
        }),
        ..Own::default()
    };
    assert!(matches!(lanes.enter(webhook(1), own).await, Admission::Turn(_)));
    tokio::time::advance(KEPT * 2).await;
    assert_eq!(there(), 1);
    tokio::time::advance(KEPT).await;
    assert_eq!(there(), 0);
    // A breaker that is open goes once somebody could probe and nobody has come to.
    broken(&lanes).await;
    assert_eq!(there(), 1);
    tokio::time::advance(KEPT).await;
    assert_eq!(there(), 0);
    drop((turn(&lanes, 1).await, turn(&lanes, 1).await));
}
