//! Compiled schemas, as many as there is room for, of all projects together. What is large and was not asked for long makes
//! room first: a few that are made to take much do not drive all others out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::schema::Schema;

/// What compiled schemas take at most together, in bytes. An ordinary one takes a tenth of a mebibyte, one that is made to
/// take much some thirty.
const SIZE_MAX: usize = 128 * 1024 * 1024;

/// What is kept of a text that is no schema, in bytes.
const NONE_SIZE: usize = 256;

/// SHA-256 of a schema's text: the same schema is compiled once, whosever types it is of.
pub(super) type Digest = [u8; 32];

/// The schemas.
#[derive(Debug)]
pub(super) struct Compiled {
    room: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    kept: HashMap<Digest, Kept>,
    size: usize,
    /// Counts how often any of them was asked for.
    asked: u64,
}

#[derive(Debug)]
struct Kept {
    /// `None` where the text is no schema.
    schema: Option<Arc<Schema>>,
    size: usize,
    /// When it was asked for last, in terms of [`State::asked`].
    asked: u64,
}

impl Default for Compiled {
    fn default() -> Self {
        Self::with_room(SIZE_MAX)
    }
}

impl Compiled {
    fn with_room(room: usize) -> Self {
        Self {
            room,
            state: Mutex::default(),
        }
    }

    /// What was made of a text, if it is still there.
    pub(super) fn get(&self, digest: &Digest) -> Option<Option<Arc<Schema>>> {
        let mut state = self.lock();
        state.asked += 1;
        let asked = state.asked;
        let kept = state.kept.get_mut(digest)?;
        kept.asked = asked;
        Some(kept.schema.clone())
    }

    /// What was made of a text, or is made of it now. It may be made twice at the same time, and is the same.
    pub(super) fn get_or_compile(
        &self,
        digest: &Digest,
        compile: impl FnOnce() -> Option<Schema>,
    ) -> Option<Arc<Schema>> {
        if let Some(known) = self.get(digest) {
            return known;
        }
        let schema = compile().map(Arc::new);
        self.keep(*digest, schema.clone());
        schema
    }

    fn keep(&self, digest: Digest, schema: Option<Arc<Schema>>) {
        let mut state = self.lock();
        let size = schema.as_ref().map_or(NONE_SIZE, |schema| schema.size());
        let asked = state.asked;
        if let Some(before) = state.kept.insert(digest, Kept { schema, size, asked }) {
            state.size -= before.size;
        }
        state.size += size;
        while state.size > self.room
            && let Some(least_worth) = state.least_worth(&digest)
            && let Some(dropped) = state.kept.remove(&least_worth)
        {
            state.size -= dropped.size;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The one that has taken the most room for the longest since it was asked for, this one left out.
    fn least_worth(&self, but: &Digest) -> Option<Digest> {
        let others = self.kept.iter().filter(|(digest, _)| *digest != but);
        let taken = |kept: &Kept| kept.size as u64 * (self.asked - kept.asked);
        others.max_by_key(|(_, kept)| taken(kept)).map(|(digest, _)| *digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(of: u8) -> Option<Schema> {
        Schema::compile(&format!(r#"{{"minimum":1{of:02}}}"#)).ok()
    }

    #[test]
    fn what_was_not_asked_for_the_longest_makes_room() {
        let compiled = Compiled::with_room(2 * schema(1).unwrap().size());
        let ask = |of: u8| compiled.get_or_compile(&[of; 32], || schema(of)).unwrap();
        let first = ask(1);
        ask(2);
        assert!(Arc::ptr_eq(&first, &ask(1)), "it is compiled once");
        ask(3);
        assert!(compiled.get(&[2; 32]).is_none(), "it was not asked for the longest");
        assert!(Arc::ptr_eq(&first, &ask(1)));
        for of in 4..100 {
            ask(of);
            assert!(compiled.lock().size <= compiled.room);
        }
        assert_eq!(compiled.lock().kept.len(), 2);
    }

    #[test]
    fn a_large_one_makes_room_before_many_small_ones() {
        let large = || Schema::compile(&format!(r#"{{"enum":[1{}]}}"#, ",1".repeat(1000))).ok();
        let small = schema(1).unwrap().size();
        let compiled = Compiled::with_room(large().unwrap().size() + 10 * small);
        for of in 1..=10 {
            compiled.get_or_compile(&[of; 32], || schema(of));
        }
        for of in 100..120 {
            compiled.get_or_compile(&[of; 32], large);
        }
        assert!((1..=10).all(|of| compiled.get(&[of; 32]).is_some()));
    }

    #[test]
    fn one_that_is_larger_than_the_room_is_kept_alone() {
        let compiled = Compiled::with_room(1);
        for of in [1, 2] {
            assert!(compiled.get_or_compile(&[of; 32], || schema(of)).is_some());
            assert_eq!(compiled.lock().kept.keys().collect::<Vec<_>>(), [&[of; 32]]);
        }
        assert_eq!(compiled.get_or_compile(&[3; 32], || None).map(|_| ()), None);
        assert_eq!(compiled.get(&[3; 32]).map(|known| known.is_none()), Some(true));
    }
}
