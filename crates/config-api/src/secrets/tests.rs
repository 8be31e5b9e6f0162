use common::clock::{Clock, Manual};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn start() -> Manual {
    Manual::at("2026-01-02T03:04:05Z".parse().unwrap())
}

fn secret(number: u128, now: Timestamp) -> Secret {
    Secret {
        sealed: definition::Secret {
            id: SecretId::from_uuid(Uuid::from_u128(number)),
            kind: SecretKind::V1,
            sealed: format!("v1|k|n|{number}"),
            created_at: now,
            expires_at: None,
        },
        public_key: None,
    }
}

/// The numbers of those that sign at `now`.
fn live(secrets: &[Secret], now: Timestamp) -> Vec<u128> {
    secrets
        .iter()
        .filter(|secret| secret.is_live(now))
        .map(|secret| secret.sealed.id.as_uuid().as_u128())
        .collect()
}

#[test]
fn an_earlier_secret_signs_until_its_overlap_is_over_and_not_a_microsecond_longer() {
    let (moved, clock) = (start(), |moved: &Manual| Clock::from(moved.clone()).now());
    let first = vec![secret(1, clock(&moved))];
    let secrets = rotate(&first, secret(2, clock(&moved)), DAY, clock(&moved));
    assert_eq!(live(&secrets, clock(&moved)), [2, 1]);
    moved.advance(DAY - Duration::from_micros(1));
    assert_eq!(live(&secrets, clock(&moved)), [2, 1]);
    moved.advance(Duration::from_micros(1));
    assert_eq!(live(&secrets, clock(&moved)), [2]);
    moved.advance(DAY * 1000);
    assert_eq!(live(&secrets, clock(&moved)), [2], "the current one has no end");
}

#[test]
fn without_an_overlap_the_earlier_ones_are_gone_at_once() {
    let now = Clock::from(start()).now();
    let two = rotate(&[secret(1, now)], secret(2, now), DAY, now);
    let secrets = rotate(&two, secret(3, now), Duration::ZERO, now);
    assert_eq!(secrets, [secret(3, now)]);
}

#[test]
fn rotated_four_times_quickly_the_newest_three_sign() {
    let moved = start();
    let now = || Clock::from(moved.clone()).now();
    let mut secrets = vec![secret(0, now())];
    for number in 1..=4 {
        moved.advance(Duration::from_millis(10));
        secrets = rotate(&secrets, secret(number, now()), DAY, now());
    }
    assert_eq!(live(&secrets, now()), [4, 3, 2]);
    assert_eq!(secrets.len(), 3, "the others are not kept either");
}

#[test]
fn a_later_rotation_never_prolongs_an_earlier_secret() {
    let moved = start();
    let now = || Clock::from(moved.clone()).now();
    let secrets = rotate(&[secret(1, now())], secret(2, now()), Duration::from_secs(60), now());
    moved.advance(Duration::from_secs(30));
    let secrets = rotate(&secrets, secret(3, now()), DAY, now());
    moved.advance(Duration::from_secs(30));
    assert_eq!(live(&secrets, now()), [3, 2]);
}

#[test]
fn a_shorter_overlap_shortens_what_was_left() {
    let moved = start();
    let now = || Clock::from(moved.clone()).now();
    let secrets = rotate(&[secret(1, now())], secret(2, now()), DAY, now());
    let secrets = rotate(&secrets, secret(3, now()), Duration::from_secs(1), now());
    assert_eq!(live(&secrets, now()), [3, 2, 1]);
    moved.advance(Duration::from_secs(1));
    assert_eq!(live(&secrets, now()), [3]);
}

proptest! {
    /// However rotations follow each other: at least one and at most three sign at any time, the newest always and first,
    /// and what has ended does not come back.
    #[test]
    fn there_is_always_a_current_secret_and_never_more_than_three(
        rotations in prop::collection::vec((0_u64..200_000, 0_u64..200_000), 1..12),
    ) {
        let moved = start();
        let now = || Clock::from(moved.clone()).now();
        let mut secrets = vec![secret(0, now())];
        let mut ended: Vec<u128> = Vec::new();
        for (number, (wait, overlap)) in (1..).zip(rotations) {
            moved.advance(Duration::from_secs(wait));
            let before = live(&secrets, now());
            secrets = rotate(&secrets, secret(number, now()), Duration::from_secs(overlap), now());
            let after = live(&secrets, now());
            prop_assert!((1..=LIVE_MAX).contains(&after.len()));
            prop_assert_eq!(after[0], number);
            prop_assert!(after.is_sorted_by(|a, b| a > b));
            prop_assert_eq!(after.len(), secrets.len(), "nothing that has ended is kept");
            prop_assert!(after.iter().all(|live| !ended.contains(live)));
            ended.extend(before.iter().filter(|one| !after.contains(one)));
            // The order of age is the order of ends, so what is left of a kind is always its first.
            let ends: Vec<Timestamp> =
                secrets.iter().map(|one| one.sealed.expires_at.unwrap_or(Timestamp::MAX)).collect();
            prop_assert!(ends.is_sorted_by(|a, b| a >= b));
        }
    }
}
