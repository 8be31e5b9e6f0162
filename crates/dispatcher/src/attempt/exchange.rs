//! One request: an access token first, where the receiver wants one, and then the request itself, under one deadline.

use std::time::Duration;

use bytes::Bytes;
use common::egress;
use http::{HeaderMap, Method, StatusCode, header};
use jiff::Timestamp;
use proto_schemas::ledger::{ErrorClass, Exchange, Outcome};
use tokio::time::Instant;

use crate::classify;
use crate::echo::Echo;
use crate::requests::Ready;

/// A request, but for what its webhook has for all.
pub(super) struct Unsent<'a> {
    pub(super) method: Method,
    pub(super) target: &'a egress::Target,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What one request came to.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) started_at: Timestamp,
    pub(super) duration: Duration,
    pub(super) outcome: Outcome,
    pub(super) status: Option<u16>,
    pub(super) error_class: Option<ErrorClass>,
    pub(super) error: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    pub(super) truncated: bool,
    pub(super) retry_after: Option<Duration>,
    pub(super) exchange: Exchange,
}

/// Makes a request that lacks nothing but the access token, if it is to have one. The webhook's timeout is for both, and so
/// is the time that the record shows.
pub(super) async fn exchange(
    client: &egress::Client,
    ready: &Ready,
    mut request: Unsent<'_>,
    started_at: Timestamp,
    redirect_is_success: bool,
) -> Made {
    let begun = Instant::now();
    let access_token = match ready.access_token(client, begun).await {
        Ok(access_token) => access_token,
        Err(missing) => {
            return Made {
                duration: begun.elapsed(),
                ..Made::failed(started_at, Outcome::Failed, missing.class, missing.text)
            };
        }
    };
    if let Some(value) = &access_token {
        request.headers.insert(header::AUTHORIZATION, value.clone());
    }
    let made = send(client, ready, request, begun, started_at, redirect_is_success).await;
    if let Some(value) = access_token
        && made.status == Some(StatusCode::UNAUTHORIZED.as_u16())
    {
        ready.refused(&value);
    }
    made
}

/// Makes a request that is ready.
async fn send(
    client: &egress::Client,
    ready: &Ready,
    request: Unsent<'_>,
    begun: Instant,
    started_at: Timestamp,
    redirect_is_success: bool,
) -> Made {
    let request_head = egress::head_checksum(&request.method, request.target.as_str(), &request.headers);
    let prepared = &ready.prepared;
    let echo = Echo::of(
        &request.headers,
        prepared.signature_headers(),
        prepared.protected_variables(),
    );
    let request = egress::Request {
        method: request.method,
        target: request.target,
        tls: prepared.tls.as_ref(),
        headers: request.headers,
        body: request.body,
        timeout: prepared.webhook.timeout,
    };
    let egress::Exchange { outcome, timings, peer } = client.send_since(begun, request).await;
    let exchange = Exchange {
        timings,
        peer,
        tls_fault: outcome.as_ref().err().and_then(|error| error.tls_fault),
        request_head: Some(request_head),
    };
    let made = match outcome {
        Ok(response) => Made::answered(started_at, response, redirect_is_success).masked(&echo),
        Err(error) => Made {
            status: error.status.map(|status| status.as_u16()),
            ..Made::failed(started_at, Outcome::Failed, error.class, error.text.into_owned())
        },
    };
    Made {
        duration: begun.elapsed(),
        exchange,
        ..made
    }
}

impl Made {
    pub(super) fn failed(started_at: Timestamp, outcome: Outcome, class: ErrorClass, error: String) -> Self {
        Self {
            started_at,
            duration: Duration::ZERO,
            outcome,
            status: None,
            error_class: Some(class),
            error,
            headers: Vec::new(),
            body: Bytes::new(),
            truncated: false,
            retry_after: None,
            exchange: Exchange::default(),
        }
    }

    /// Without what the receiver has sent back of the request's secrets.
    fn masked(mut self, echo: &Echo) -> Self {
        echo.mask(&mut self.headers, &mut self.body, self.truncated);
        self
    }

    fn answered(started_at: Timestamp, response: egress::Response, redirect_is_success: bool) -> Self {
        let status = response.status.as_u16();
        let (outcome, error_class) = classify::status(status, redirect_is_success);
        let retry_after = match outcome {
            Outcome::Failed => response
                .headers
                .get(header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| classify::retry_after(value, started_at)),
            Outcome::Delivered | Outcome::FailedForGood => None,
        };
        Self {
            started_at,
            duration: Duration::ZERO,
            outcome,
            status: Some(status),
            error: error_class.map_or_else(String::new, |_| format!("the receiver answered {}", response.status)),
            error_class,
            headers: response.header_lines(),
            body: response.body,
            truncated: response.truncated,
            retry_after,
            exchange: Exchange::default(),
        }
    }
}

#[cfg(test)]
mod tests;
