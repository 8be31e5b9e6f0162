//! What holds of a lane whatever happens: never more under way than allowed, one probe and no other, no request before a
//! `Retry-After` has passed, and nobody who waits for ever.

use proptest::prelude::*;
use tokio::task::JoinHandle;

use super::*;
use crate::breaker::{Rules, Sign};

const LIMITS: Limits = Limits {
    per_lane: 4,
    total: 100,
    patience: Duration::from_secs(1),
    waiting: 6,
    breaker: Rules {
        failures: 3,
        wait: Duration::from_secs(2),
        wait_max: Duration::from_secs(10),
    },
};

#[derive(Debug, Clone)]
enum Step {
    /// A delivery comes.
    Come,
    /// One that waits is given up.
    GiveUp(usize),
    /// A request ends.
    End(usize, Sign, Option<u64>),
    /// Time passes, in milliseconds.
    Wait(u64),
    /// Somebody looks after the lanes.
    Tend,
    /// The webhook is changed.
    Change,
}

fn any_step() -> impl Strategy<Value = Step> {
    let sign = prop_oneof![3 => Just(Sign::Well), 4 => Just(Sign::Ill), 1 => Just(Sign::Nothing)];
    let throttled = prop_oneof![5 => Just(None), 1 => (0..5_000_u64).prop_map(Some)];
    prop_oneof![
        8 => Just(Step::Come),
        1 => any::<usize>().prop_map(Step::GiveUp),
        6 => (any::<usize>(), sign, throttled).prop_map(|(which, sign, wait)| Step::End(which, sign, wait)),
        3 => (0..4_000_u64).prop_map(Step::Wait),
        1 => Just(Step::Tend),
        1 => Just(Step::Change),
    ]
}

struct World {
    lanes: Arc<Lanes>,
    own: Own,
    waiting: Vec<JoinHandle<Admission>>,
    under_way: Vec<Turn>,
    not_before: Instant,
}

fn webhook() -> WebhookId {
    WebhookId::from_uuid(uuid::Uuid::from_u128(1))
}

impl World {
    fn new(rate: Option<RateLimit>) -> Self {
        Self {
            lanes: Arc::new(Lanes::new(LIMITS)),
            own: Own { rate, ..Own::default() },
            waiting: Vec::new(),
            under_way: Vec::new(),
            not_before: Instant::now(),
        }
    }

    fn probing(&self) -> bool {
        let lanes = self.lanes.lanes.pin();
        lanes
            .get(&webhook())
            .is_some_and(|lane| lane.view(&lane.lock()).probing)
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Come => {
                let (lanes, own) = (Arc::clone(&self.lanes), self.own);
                self.waiting
                    .push(tokio::spawn(async move { lanes.enter(webhook(), own).await }));
            }
            Step::GiveUp(which) if !self.waiting.is_empty() => {
                let which = which % self.waiting.len();
                self.waiting.swap_remove(which).abort();
            }
            Step::End(which, sign, throttled) if !self.under_way.is_empty() => {
                let which = which % self.under_way.len();
                let mut turn = self.under_way.swap_remove(which);
                let throttled = throttled.map(Duration::from_millis);
                let counts = turn.revision() == self.own.revision;
                turn.report(sign, throttled);
                if let (Some(wait), true) = (throttled, counts) {
                    self.not_before = self.not_before.max(Instant::now() + wait);
                }
            }
            Step::GiveUp(_) | Step::End(..) => {}
            Step::Wait(millis) => tokio::time::advance(Duration::from_millis(millis)).await,
            Step::Tend => self.lanes.tend(),
            Step::Change => {
                self.own.revision += 1;
                self.not_before = Instant::now();
            }
        }
    }

    /// Takes in what has been decided; checks it.
    async fn settle(&mut self) {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        let (done, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(JoinHandle::is_finished);
        self.waiting = waiting;
        for admission in done {
            match admission.await.expect("no panic") {
                Admission::Turn(turn) => {
                    assert!(
                        turn.revision() < self.own.revision || Instant::now() >= self.not_before,
                        "a request before the Retry-After has passed"
                    );
                    self.under_way.push(turn);
                }
                Admission::Parked(_, wait) => assert!(wait <= Duration::from_secs(3600), "{wait:?}"),
            }
        }
        assert!(self.under_way.len() <= LIMITS.per_lane, "more under way than allowed");
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_a_lane_keeps_its_bounds_and_forgets_nobody(
        steps in proptest::collection::vec(any_step(), 1..120), rate in proptest::option::of(1..4_u32),
    ) {
        run(async {
            let rate = rate.map(|requests| RateLimit { requests, window: Duration::from_secs(1) });
            let mut world = World::new(rate);
            for step in steps {
                let probing = world.probing();
                let before = world.under_way.len();
                let comes = matches!(step, Step::Come);
                world.step(step).await;
                world.settle().await;
                if probing && comes && world.probing() {
                    assert_eq!(world.under_way.len(), before, "somebody beside the probe");
                }
            }
            // With nobody under way and some time gone, nobody waits.
            while !world.under_way.is_empty() || !world.waiting.is_empty() {
                world.under_way.clear();
                tokio::time::advance(Duration::from_millis(100)).await;
                world.settle().await;
                assert!(Instant::now() < world.not_before + Duration::from_secs(600), "{} wait for ever", world.waiting.len());
            }
            assert_eq!(world.lanes.in_flight(), 0);
        });
    }
}
