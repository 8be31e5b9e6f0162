//! Pure values and rules that more than one service works by.

pub mod filter;
pub mod limits;
pub mod pattern;
pub mod standing;

pub use filter::Filter;
pub use pattern::Pattern;
pub use standing::Standing;
