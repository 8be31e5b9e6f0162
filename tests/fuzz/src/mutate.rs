//! Inputs made of other inputs.

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// Longest input that is made, in bytes.
const LENGTH_MAX: usize = 8 * 1024;

/// Makes inputs, the same ones for the same seed.
#[derive(Debug)]
pub struct Mutator<'a> {
    rng: SmallRng,
    inputs: &'a [Vec<u8>],
    words: &'a [&'a str],
}

impl<'a> Mutator<'a> {
    /// One that makes them of `inputs`, of which there is at least one, and `words`.
    #[must_use]
    pub fn new(seed: u64, inputs: &'a [Vec<u8>], words: &'a [&'a str]) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            inputs,
            words,
        }
    }

    /// Another one: some input, changed in a few places.
    pub fn another(&mut self) -> Vec<u8> {
        let mut input = self.pick();
        for _ in 0..self.rng.random_range(1..=6) {
            self.change(&mut input);
        }
        input.truncate(LENGTH_MAX);
        input
    }

    fn pick(&mut self) -> Vec<u8> {
        self.inputs[self.rng.random_range(0..self.inputs.len())].clone()
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.rng.random_range(0..=input.len());
        let to = (at + self.rng.random_range(0..=16)).min(input.len());
        match self.rng.random_range(0..8) {
            0 => drop(input.drain(at..to)),
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.rng.random_range(0..8);
                }
            }
            2 => input.insert(at, self.rng.random()),
            3 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'0'][self.rng.random_range(0..8)];
                }
            }
            // Once more, or many times: what is nested, or long.
            4 => {
                let piece = input[at..to].repeat(self.rng.random_range(1..=64));
                drop(input.splice(at..at, piece));
            }
            5 => {
                let other = self.pick();
                let from = self.rng.random_range(0..=other.len());
                drop(input.splice(at.., other[from..].iter().copied()));
            }
            _ if self.words.is_empty() => {}
            6 => {
                let word = self.words[self.rng.random_range(0..self.words.len())];
                drop(input.splice(at..at, word.bytes()));
            }
            _ => {
                let word = self.words[self.rng.random_range(0..self.words.len())];
                drop(input.splice(at..to, word.bytes()));
            }
        }
    }
}
