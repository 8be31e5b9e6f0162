//! Compiles the `.proto` text with protox, so that no protoc has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "proto/posthaste/v1/event.proto",
        "proto/posthaste/v1/delivery.proto",
        "proto/posthaste/v1/ledger.proto",
        "proto/posthaste/v1/definition.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
