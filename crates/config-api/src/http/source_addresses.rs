//! `/v1/source-addresses`

use std::sync::Arc;

use axum::extract::State;
use common::http::{Json, Problem};
use common::token::Scope;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::Caller;
use crate::api::Api;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Where requests to webhooks come from.
#[derive(Debug, Serialize, ToSchema)]
struct SourceAddresses {
    /// Addresses and networks; none where the operator has not said.
    #[schema(example = json!(["192.0.2.7", "2001:db8::/64"]))]
    addresses: Vec<String>,
}

/// Say where requests to webhooks come from
///
/// For receivers that let only known addresses in. The operator sets them; where there are none, they are not known.
#[utoipa::path(
    get,
    path = "/v1/source-addresses",
    operation_id = "list_source_addresses",
    tag = "Webhooks",
    responses((status = 200, description = "The addresses", body = SourceAddresses))
)]
async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<SourceAddresses>, Problem> {
    caller.require(Scope::Read)?;
    let text = |network: &ipnet::IpNet| match network.prefix_len() == network.max_prefix_len() {
        true => network.addr().to_string(),
        false => network.to_string(),
    };
    Ok(Json(SourceAddresses {
        addresses: api.source_addresses.iter().map(text).collect(),
    }))
}
