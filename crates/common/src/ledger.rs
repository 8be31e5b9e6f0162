//! Telling the ledger: facts → entries of stream LEDGER.
//!
//! Many facts are told at once. While entries are on their way, further facts come together and go out as one entry, so
//! the busier a process is, the fewer messages a fact costs; an idle one sends each fact at once.
//!
//! No fact holds another up: one that fits no message is refused to whoever tells it, and never put together with others.

use std::sync::Arc;

use proto_schemas::ledger::Fact;
use proto_schemas::subject;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::bus::{self, Bus};

/// Entries on their way at once: enough that one waiting for its ack holds nothing up, few enough that facts gather.
const UNDER_WAY: usize = 4;
/// Most facts of one entry.
const FACTS: usize = 128;
/// Size beyond which an entry gets no further fact, in bytes.
const BYTES: usize = 128 * 1024;
/// Facts waiting to be sent; beyond it, telling waits.
const QUEUE: usize = 4096;

/// The ledger, as those who tell it see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    bus: Bus,
    facts: mpsc::Sender<Told>,
}

/// A fact as it is told.
#[derive(Debug)]
pub struct Entry(Vec<u8>);

impl Entry {
    /// Its size, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.len()
    }
}

/// Why a fact is not in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It may not be: tell it again. Telling twice is harmless, because the recorder writes once.
    #[error("the ledger did not take the fact")]
    NotStored,
    /// No message is as large. It will not get smaller.
    #[error("the fact is larger than the max_payload of NATS")]
    TooLarge,
}

#[derive(Debug)]
struct Told {
    entry: Vec<u8>,
    stored: oneshot::Sender<Result<(), Error>>,
}

impl Ledger {
    /// A ledger over `bus`, for as long as somebody holds it.
    #[must_use]
    pub fn new(bus: Bus) -> Self {
        let (facts, told) = mpsc::channel(QUEUE);
        tokio::spawn(send(bus.clone(), told));
        Self { bus, facts }
    }

    /// A fact as it will be told.
    ///
    /// # Errors
    /// [`Error::TooLarge`]
    pub fn entry(&self, fact: &Fact) -> Result<Entry, Error> {
        let entry = fact.encode();
        match entry.len() <= self.bus.max_payload() {
            true => Ok(Entry(entry)),
            false => Err(Error::TooLarge),
        }
    }

    /// Tells a fact; returns once JetStream has stored it.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn tell(&self, fact: &Fact) -> Result<(), Error> {
        self.tell_entry(self.entry(fact)?).await
    }

    /// [`Self::tell`] of a fact that was made ready before.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn tell_entry(&self, entry: Entry) -> Result<(), Error> {
        let (stored, outcome) = oneshot::channel();
        let told = Told { entry: entry.0, stored };
        self.facts.send(told).await.map_err(|_| Error::NotStored)?;
        outcome.await.unwrap_or(Err(Error::NotStored))
    }
}

async fn send(bus: Bus, mut told: mpsc::Receiver<Told>) {
    let under_way = Arc::new(Semaphore::new(UNDER_WAY));
    let mut left = None;
    loop {
        let first = match left.take() {
            Some(first) => first,
            None => match told.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        // While this waits, facts gather.
        let Ok(permit) = Arc::clone(&under_way).acquire_owned().await else {
            return;
        };
        let gathered = gather(first, &mut told, bus.max_payload());
        left = gathered.left;
        let waiting = gathered.waiting;
        let storing = bus
            .publish(subject::LEDGER, async_nats::HeaderMap::new(), gathered.entry)
            .await;
        tokio::spawn(async move {
            let stored = match storing {
                Ok(storing) => storing.stored().await.map(drop),
                Err(error) => Err(error),
            };
            drop(permit);
            let outcome = stored.map_err(|error: bus::Error| {
                tracing::debug!(%error, facts = waiting.len(), "the ledger did not take an entry");
                Error::NotStored
            });
            for waiter in waiting {
                let _ = waiter.send(outcome);
            }
        });
    }
}

/// What goes out as one entry.
struct Gathered {
    entry: Vec<u8>,
    waiting: Vec<oneshot::Sender<Result<(), Error>>>,
    /// What has no room in it, and begins the next.
    left: Option<Told>,
}

/// Puts what is waiting into one entry of at most `max` bytes; a larger fact is an entry alone.
fn gather(first: Told, told: &mut mpsc::Receiver<Told>, max: usize) -> Gathered {
    let mut gathered = Gathered {
        entry: first.entry,
        waiting: vec![first.stored],
        left: None,
    };
    while gathered.waiting.len() < FACTS && gathered.entry.len() < BYTES {
        let Ok(next) = told.try_recv() else { break };
        if gathered.entry.len() + next.entry.len() > max {
            gathered.left = Some(next);
            break;
        }
        gathered.entry.extend_from_slice(&next.entry);
        gathered.waiting.push(next.stored);
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of the entries that facts of these sizes come to.
    fn entries(facts: &[usize], max: usize) -> Vec<usize> {
        let (tell, mut told) = mpsc::channel(QUEUE);
        for size in facts {
            let (stored, _) = oneshot::channel();
            let entry = vec![0; *size];
            tell.try_send(Told { entry, stored }).unwrap();
        }
        drop(tell);
        let (mut sizes, mut left) = (Vec::new(), None);
        while let Some(first) = left.take().or_else(|| told.try_recv().ok()) {
            let gathered = gather(first, &mut told, max);
            sizes.push(gathered.entry.len());
            left = gathered.left;
        }
        sizes
    }

    #[test]
    fn facts_go_out_together_and_none_beyond_what_a_message_holds() {
        let max = 1024 * 1024;
        assert_eq!(entries(&[1000; 3], max), [3000]);
        assert_eq!(entries(&vec![1; FACTS + 1], max), [FACTS, 1]);
        assert_eq!(entries(&[BYTES, 1], max), [BYTES, 1], "it is large enough");
        // A giant one among others: each of them is in a message that can be stored.
        assert_eq!(entries(&[1000, max, 1000, 1000], max), [1000, max, 2000]);
        assert_eq!(entries(&[1000, max - 1000, 1], max), [max, 1]);
        assert_eq!(entries(&[1000, max - 999, 1], max), [1000, max - 999, 1]);
        assert_eq!(
            entries(&[7, max + 1, 7], max),
            [7, max + 1, 7],
            "what fits nowhere takes no other with it"
        );
    }
}
