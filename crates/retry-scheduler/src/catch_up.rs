//! Waiting until what LEDGER holds is on record.

use std::time::Duration;

use common::bus::{Bus, Error};
use proto_schemas::stream::LEDGER;

/// How often to ask where the recorder is.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Waits until everything that LEDGER holds at this moment is on record, whoever records it.
pub(crate) async fn recorded(bus: &Bus) -> Result<(), Error> {
    let goal = bus.position(LEDGER).await?.last;
    loop {
        if bus.position(LEDGER).await?.acked >= goal {
            return Ok(());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
