//! Prints the OpenAPI document of config-api, for `make openapi`.

fn main() {
    print!("{}", config_api::http::document());
}
