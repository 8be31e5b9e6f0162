//! Points at which a test has a process die: the boundaries between the steps of a stage, where a crash leaves the most
//! to be put right.
//!
//! `POSTHASTE_FAILPOINT=dispatcher::sent@3` ends the process, by SIGKILL, the third time it comes to that point. The test
//! of the fault matrix (`tests/tests/e2e/faults.rs`) has a process die at every one, and checks afterwards that nothing
//! was lost. A point that no run comes to is a defect: with `POSTHASTE_FAILPOINTS_REACHED` naming a folder, each point
//! leaves a file there when it is reached.
//!
//! None of this is in a release build, where [`reach`] does nothing.

#[cfg(debug_assertions)]
mod config;

macro_rules! points {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Every point there is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Point {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Point {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name it is armed by.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

points! {
    /// An event posted over HTTP has been checked, and is not published yet.
    PostChecked = "ingest::post::checked",
    /// It is with JetStream, and its producer does not know.
    PostStored = "ingest::post::stored",
    /// It is decided who gets an event; nothing is published yet.
    FanOutDecided = "ingest::fan_out::decided",
    /// One delivery of an event is published, others are not.
    FanOutBetween = "ingest::fan_out::between",
    /// Every delivery of an event is published, its ledger entry is not.
    FanOutPublished = "ingest::fan_out::published",
    /// All that an event causes is with JetStream; the event is not acked.
    FanOutStored = "ingest::fan_out::stored",
    /// A message that is no event has its ledger entry; it is not acked.
    FanOutRejected = "ingest::fan_out::rejected",
    /// A delivery has its turn; no request is made yet.
    AttemptBegun = "dispatcher::begun",
    /// The request is over; nobody has been told.
    AttemptMade = "dispatcher::made",
    /// The ledger has been told what a duty came to; the duty is not acked.
    AttemptTold = "dispatcher::told",
    /// A delivery is to wait in Postgres; nobody has been told.
    AttemptDeferred = "dispatcher::deferred",
    /// The request of a test is over; nobody has been told.
    TrialMade = "dispatcher::trial_made",
    /// A batch of ledger entries is read; its transaction is not begun.
    RecordRead = "recorder::read",
    /// Within the transaction: events are written.
    RecordEvents = "recorder::events",
    /// Within the transaction: rejected events are written.
    RecordRejected = "recorder::rejected",
    /// Within the transaction: attempts are written.
    RecordAttempts = "recorder::attempts",
    /// Within the transaction: deliveries that arrived are settled.
    RecordSettled = "recorder::settled",
    /// Within the transaction: deliveries that failed have their next step.
    RecordStepped = "recorder::stepped",
    /// Within the transaction: what later runs have made void is away.
    RecordSuperseded = "recorder::superseded",
    /// Within the transaction: deferred deliveries are parked.
    RecordParked = "recorder::parked",
    /// Within the transaction: what has to wait for its turn or for a paused webhook is kept back.
    RecordKept = "recorder::kept",
    /// Within the transaction: webhooks' health is noted.
    RecordHealth = "recorder::health",
    /// Within the transaction, at its end: what is to be told of it is noted.
    RecordRaised = "recorder::raised",
    /// The transaction is committed; the entries are not acked.
    RecordCommitted = "recorder::committed",
    /// Deliveries that are due are locked.
    ReleaseClaimed = "release::claimed",
    /// Their duties are with JetStream; the rows do not say so.
    ReleasePublished = "release::published",
    /// The rows say so; the transaction is not committed.
    ReleaseMarked = "release::marked",
    /// The transaction is committed.
    ReleaseCommitted = "release::committed",
    /// Deliveries of which nothing was heard are found, and it is known where they are.
    RescueLooked = "rescue::looked",
    /// They are written; the transaction is not committed.
    RescueWritten = "rescue::written",
    /// The transaction is committed.
    RescueCommitted = "rescue::committed",
    /// An order to make deliveries again is locked.
    ReplayClaimed = "replay::claimed",
    /// Its next deliveries are made; the transaction is not committed.
    ReplayMade = "replay::made",
    /// The transaction is committed.
    ReplayCommitted = "replay::committed",
    /// A look whether deliveries are missing is claimed.
    ReconcileClaimed = "reconcile::claimed",
    /// What it came to is written; the transaction is not committed.
    ReconcileNoted = "reconcile::noted",
    /// The transaction is committed.
    ReconcileCommitted = "reconcile::committed",
    /// What there is to be told has been published as events; the rows that say so are still there.
    AnnouncePublished = "announce::published",
    /// They are gone; the transaction is not committed.
    AnnounceDeleted = "announce::deleted",
    /// Changed definitions are read from the outbox; nothing is published yet.
    RelayRead = "relay::read",
    /// They are published; the outbox still has them.
    RelayPublished = "relay::published",
    /// Tests are handed out; the outbox still has them.
    RelayHandedOut = "relay::handed_out",
    /// They are gone from the outbox; the transaction is not committed.
    RelayDeleted = "relay::deleted",
    /// The transaction is committed; nobody who waits for it knows.
    RelayCommitted = "relay::committed",
}

impl Point {
    /// The point of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|point| point.name() == name)
    }
}

/// The process is at this point; if it is armed, that is the end of it.
#[cfg(debug_assertions)]
pub fn reach(point: Point) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    static ARMED: OnceLock<config::Armed> = OnceLock::new();
    static TIMES: AtomicU32 = AtomicU32::new(0);

    let armed = ARMED.get_or_init(config::Armed::from_environment);
    armed.leave_a_trace(point);
    let Some((_, time)) = armed.at.filter(|(at, _)| *at == point) else {
        return;
    };
    if TIMES.fetch_add(1, Ordering::SeqCst) + 1 == time {
        // No unwinding, no destructors, no handlers: what a power cut leaves of a process.
        while kill_process(getpid(), Signal::KILL).is_ok() {
            std::thread::park();
        }
    }
}

/// Nothing: this is a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn reach(_: Point) {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_point_has_a_name_of_its_own() {
        let names: HashSet<&str> = Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
        for point in Point::ALL {
            assert_eq!(Point::parse(point.name()), Some(*point));
        }
        assert_eq!(Point::parse("dispatcher::nowhere"), None);
    }
}
