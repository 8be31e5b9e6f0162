//! What a schema's patterns cost, known before a text is matched.
//!
//! Patterns are matched by the crate regex, whose time is linear in the text, but per byte it may be as much as the pattern
//! has positions: `[ab]{2000}` has two thousand, and a text can be written that keeps all of them alive. So a pattern is
//! read here as the validator reads it, and its positions are counted once; what a match may take follows from these and
//! from the text's length. What patterns take in memory has a bound for all of one schema together.

use std::collections::HashMap;

use jsonschema_regex::{Search, analyze_pattern, search_form, to_rust_regex};
use regex_automata::meta;
use regex_automata::nfa::thompson::NFA;
use regex_syntax::hir::{Class, Hir, HirKind};

/// Longest pattern, in bytes of its text: translating one may take time that is quadratic in that.
const LENGTH_MAX: usize = 2048;

/// Most different patterns of a schema: whatever they are, each has its caches when it is matched.
const NUMBER_MAX: usize = 100;

/// Most of a pattern when it is compiled, in bytes.
pub(super) const COMPILED_MAX: usize = 256 * 1024;

/// Most of all patterns of a schema when they are compiled, and matched without a DFA, in bytes.
const SIZE_MAX: usize = 1024 * 1024;

/// Most of a DFA that is made of a pattern as texts need it, in bytes. Where it does not suffice the pattern is matched
/// without one, and no pattern is thought to be matched faster than that.
pub(super) const DFA_MAX: usize = 16 * 1024;

/// Threads that match a schema's patterns at the same time, as a rule.
const THREADS: usize = 2;

/// What is kept of a pattern that only counts characters of one class, in bytes.
const CLASS_SIZE: usize = 8 * 1024;

/// How many positions are gone through in the time of one step.
const POSITIONS_A_STEP: u64 = 20;

/// How many bytes are gone through in the time of one step where next to nothing is done with each.
const BYTES_A_STEP: u64 = 64;

/// A schema's patterns.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    /// By their texts, how many positions they have.
    positions: HashMap<String, u64>,
    /// What they take, in bytes.
    size: usize,
}

impl Patterns {
    /// Takes one more. What is no pattern is left to the validator to refuse.
    ///
    /// # Errors
    /// Why the schema cannot have it.
    pub(super) fn add(&mut self, pattern: &str) -> Result<(), String> {
        if self.positions.contains_key(pattern) {
            return Ok(());
        }
        if pattern.len() > LENGTH_MAX {
            let length = pattern.len();
            return Err(format!(
                "a pattern has at most {LENGTH_MAX} bytes; this one has {length}"
            ));
        }
        if self.positions.len() == NUMBER_MAX {
            return Err(format!("a schema has at most {NUMBER_MAX} different patterns"));
        }
        let Some((positions, size)) = measured(pattern)? else {
            return Ok(());
        };
        self.size += size;
        if self.size > SIZE_MAX {
            return Err(format!(
                "the patterns of a schema take at most {SIZE_MAX} bytes together when they are compiled; with this one, \
                 they take {}",
                self.size
            ));
        }
        self.positions.insert(pattern.to_owned(), positions);
        Ok(())
    }

    /// What they take at most, in bytes: compiled, and for matching.
    pub(super) fn size(&self) -> usize {
        // One DFA goes forward, one backward.
        self.size + self.positions.len() * THREADS * 2 * DFA_MAX
    }

    /// What matching one of them costs. One that was never taken costs more than anything may.
    pub(super) fn cost(&self, pattern: &str) -> Cost {
        Cost {
            positions: self.positions.get(pattern).copied().unwrap_or(u64::MAX),
        }
    }
}

/// What matching a pattern costs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    positions: u64,
}

impl Cost {
    /// Most steps that a text takes.
    pub(super) fn steps(self, text: &str) -> u64 {
        let length = text.len() as u64;
        let passed = self.positions.saturating_mul(length + 1);
        1 + (passed / POSITIONS_A_STEP).max(length / BYTES_A_STEP)
    }

    /// Most steps for each value of an event that all its texts take together: a value has two bytes or more.
    pub(super) fn weight(self) -> u64 {
        2 + self.positions.saturating_mul(3) / POSITIONS_A_STEP
    }
}

/// How many positions a pattern has, and what it takes, in bytes; `None` where it is no pattern.
fn measured(pattern: &str) -> Result<Option<(u64, usize)>, String> {
    let Ok(translated) = to_rust_regex(pattern) else {
        return Ok(None);
    };
    let searched = match search_form(pattern, &translated) {
        Some(Search::RepeatedClass(_)) => return Ok(Some((1, CLASS_SIZE))),
        Some(Search::Collapsed(collapsed)) => collapsed.into(),
        None => translated,
    };
    let Ok(hir) = regex_syntax::parse(&searched) else {
        return Ok(None);
    };
    match size(&hir) {
        Some(size) => Ok(Some((positions(&hir), size))),
        // Of a mere list of words nothing is compiled.
        None if analyze_pattern(pattern).is_some() => Ok(Some((positions(&hir), pattern.len()))),
        None => Err(format!(
            "it has more than {COMPILED_MAX} bytes when it is compiled; repeat less, or smaller classes"
        )),
    }
}

/// What regex makes of a pattern, and keeps for threads that match it without a DFA; `None` where it makes nothing.
fn size(hir: &Hir) -> Option<usize> {
    let config = meta::Config::new().nfa_size_limit(Some(COMPILED_MAX));
    let regex = meta::Builder::new().configure(config).build_from_hir(hir).ok()?;
    let nfa = NFA::compiler().build_from_hir(hir).ok()?;
    // Two sets of states, and for each state in each set the bounds of every group; a bit per state for each byte of a
    // short text.
    let per_state = 2 * (8 + 8 * nfa.group_info().slot_len()) + 128 / 8;
    Some(regex.memory_usage() + THREADS * per_state * nfa.states().len())
}

/// How much of a pattern can be alive at once: whatever may be matched next, and whatever leads there.
fn positions(hir: &Hir) -> u64 {
    let all = |parts: &[Hir]| parts.iter().map(positions).fold(0, u64::saturating_add);
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(class) => {
            let ranges = match class {
                Class::Unicode(class) => class.ranges().len(),
                Class::Bytes(class) => class.ranges().len(),
            };
            // They are gone through in order until the byte is found; no more of them begin with different bytes.
            1 + ranges.min(64) as u64 / 8
        }
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1);
            u64::from(times).saturating_mul(positions(&repetition.sub).saturating_add(1))
        }
        HirKind::Capture(capture) => positions(&capture.sub).saturating_add(2),
        HirKind::Concat(parts) => all(parts),
        HirKind::Alternation(parts) => all(parts).saturating_add(parts.len() as u64),
    }
}
