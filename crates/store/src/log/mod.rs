//! What people read of the record that retry-scheduler writes: events, attempts, deliveries and rejected events of one
//! project, newest first, a page at a time. Nothing is written in here.

mod attempts;
mod dead_letters;
mod deliveries;
mod events;
mod rejected_events;

pub use attempts::{Attempt, AttemptCursor, AttemptFilter, Response, StatusFilter, attempt, attempts};
pub use dead_letters::{DeadLetterGroup, GroupCursor, Grouping, dead_letter_groups};
pub use deliveries::{Delivery, DeliveryCursor, DeliveryFilter, DeliveryPage, State, deliveries, deliveries_of_run};
pub use events::{Event, EventFilter, event, event_keys, events, payload};
pub use rejected_events::{RejectedEvent, rejected_events};
