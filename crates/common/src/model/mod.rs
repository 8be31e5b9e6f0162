//! Pure values and rules that more than one service works by.

pub mod limits;
pub mod pattern;

pub use pattern::Pattern;
