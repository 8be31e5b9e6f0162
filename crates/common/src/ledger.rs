//! Telling the ledger: facts → entries of stream LEDGER.
//!
//! Many facts are told at once. While entries are on their way, further facts come together and go out as one entry, so
//! the busier a process is, the fewer messages a fact costs; an idle one sends each fact at once.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proto_schemas::ledger::Fact;
use proto_schemas::subject;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::bus::{self, Bus};

/// Entries on their way at once: enough that one waiting for its ack holds nothing up, few enough that facts gather.
const UNDER_WAY: usize = 4;
/// Most facts of one entry.
const FACTS: usize = 128;
/// Size beyond which an entry gets no further fact, in bytes. With one more event it stays far below NATS' limit.
const BYTES: usize = 128 * 1024;
/// Facts waiting to be sent; beyond it, telling waits.
const QUEUE: usize = 4096;

/// The ledger, as those who tell it see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    facts: mpsc::Sender<Told>,
}

/// The fact may not be in the ledger: tell it again. Telling twice is harmless, because the recorder writes once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ledger did not take the fact")]
pub struct NotStored;

#[derive(Debug)]
struct Told {
    entry: Vec<u8>,
    stored: oneshot::Sender<Result<(), NotStored>>,
}

impl Ledger {
    /// A ledger over `bus`, for as long as somebody holds it.
    #[must_use]
    pub fn new(bus: Bus) -> Self {
        let (facts, told) = mpsc::channel(QUEUE);
        tokio::spawn(send(bus, told));
        Self { facts }
    }

    /// Tells a fact; returns once JetStream has stored it.
    ///
    /// # Errors
    /// [`NotStored`]
    pub async fn tell(&self, fact: &Fact) -> Result<(), NotStored> {
        let (stored, outcome) = oneshot::channel();
        let told = Told {
            entry: fact.encode(),
            stored,
        };
        self.facts.send(told).await.map_err(|_| NotStored)?;
        outcome.await.unwrap_or(Err(NotStored))
    }
}

async fn send(bus: Bus, mut told: mpsc::Receiver<Told>) {
    let under_way = Arc::new(Semaphore::new(UNDER_WAY));
    while let Some(first) = told.recv().await {
        // While this waits, facts gather.
        let Ok(permit) = Arc::clone(&under_way).acquire_owned().await else {
            return;
        };
        let (entry, waiting) = gather(first, &mut told);
        let storing = bus.publish(subject::LEDGER, async_nats::HeaderMap::new(), entry).await;
        tokio::spawn(async move {
            let stored = match storing {
                Ok(storing) => storing.stored().await.map(drop),
                Err(error) => Err(error),
            };
            drop(permit);
            let outcome = stored.map_err(|error: bus::Error| {
                tracing::debug!(%error, facts = waiting.len(), "the ledger did not take an entry");
                NotStored
            });
            for waiter in waiting {
                let _ = waiter.send(outcome);
            }
        });
    }
}

/// Puts what is waiting into one entry.
fn gather(first: Told, told: &mut mpsc::Receiver<Told>) -> (Bytes, Vec<oneshot::Sender<Result<(), NotStored>>>) {
    let (mut entry, mut waiting) = (first.entry, vec![first.stored]);
    let Ok(second) = told.try_recv() else {
        return (entry.into(), waiting);
    };
    let mut all = BytesMut::with_capacity(2 * (entry.len() + second.entry.len()));
    all.extend_from_slice(&std::mem::take(&mut entry));
    let mut next = Some(second);
    while let Some(fact) = next.take() {
        all.extend_from_slice(&fact.entry);
        waiting.push(fact.stored);
        if waiting.len() < FACTS && all.len() < BYTES {
            next = told.try_recv().ok();
        }
    }
    (all.freeze(), waiting)
}
