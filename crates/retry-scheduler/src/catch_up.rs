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
        let ledger = bus.position(LEDGER).await?;
        // Where it ends before the goal, it was made anew or has lost its end: what was meant is on record or gone.
        if ledger.acked >= goal || ledger.last < goal {
            return Ok(());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
