//! `GET /`: what this is, for whoever opens the address.

use common::http::Json;
use serde_json::{Value, json};

pub(super) async fn show() -> Json<Value> {
    Json(json!({
        "name": "posthaste",
        "version": env!("CARGO_PKG_VERSION"),
        "links": {
            "projects": "/v1/projects",
            "openapi": "/openapi.json",
            "docs": "/docs/",
            "console": console::PATH,
            "health": "/readyz",
            "metrics": "/metrics",
        },
    }))
}
