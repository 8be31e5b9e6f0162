//! Has the crate built anew when there is another bundle.

use std::path::Path;

fn main() {
    // Watching what is not there would build the crate each time; its folder tells as well when there is a bundle.
    let watched = if Path::new("dist").exists() { "dist" } else { "." };
    println!("cargo::rerun-if-changed={watched}");
}
