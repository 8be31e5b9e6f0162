//! What Posthaste tells of itself: events of types that begin with `posthaste.`, which a project's own webhooks can
//! subscribe to like any other. The catalogue `posthaste` describes each.

/// What their types begin with. Nobody else's may.
pub const PREFIX: &str = "posthaste.";

/// A delivery has no attempt left.
pub const DELIVERY_DEAD: &str = "posthaste.delivery.dead";
/// A receiver said that it is gone.
pub const WEBHOOK_DISABLED: &str = "posthaste.webhook.disabled";
/// Too many attempts in a row failed.
pub const WEBHOOK_FAILED: &str = "posthaste.webhook.failed";
/// A webhook that was stopped and restarted has delivered.
pub const WEBHOOK_RECOVERED: &str = "posthaste.webhook.recovered";
/// A message on NATS could not become an event.
pub const EVENT_REJECTED: &str = "posthaste.event.rejected";
/// An earlier secret's overlap is about to be over.
pub const SECRET_EXPIRING: &str = "posthaste.secret.expiring";

/// All of them.
pub const TYPES: [&str; 6] = [
    DELIVERY_DEAD,
    EVENT_REJECTED,
    SECRET_EXPIRING,
    WEBHOOK_DISABLED,
    WEBHOOK_FAILED,
    WEBHOOK_RECOVERED,
];

/// Whether an event of this type is Posthaste's own.
#[must_use]
pub fn is_operational(event_type: &str) -> bool {
    event_type.starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_in_the_catalogue_and_is_nobody_elses() {
        let catalogue = crate::catalogue::get("posthaste").unwrap();
        let names: Vec<&str> = catalogue.types.iter().map(|found| found.name).collect();
        assert_eq!(names, TYPES);
        assert!(TYPES.iter().all(|name| is_operational(name)));
        assert!(!is_operational("posthaste") && !is_operational("posthastes.a") && !is_operational("a.posthaste.b"));
    }
}
