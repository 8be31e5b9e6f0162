//! Prints the OpenAPI document of ingest, for `make openapi`.

fn main() {
    print!("{}", ingest::http::document());
}
