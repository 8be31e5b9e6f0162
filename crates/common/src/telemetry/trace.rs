//! Traces: how one event's way shows across services.
//!
//! Spans meant for export are made with [`TARGET`] at level TRACE, the context travels as W3C `traceparent` text:
//!
//! ```
//! # use common::telemetry::trace;
//! # let incoming = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
//! let span = tracing::trace_span!(target: trace::TARGET, "deliver");
//! trace::follow(&span, incoming);
//! span.in_scope(|| {
//!     let outgoing = trace::traceparent();
//! });
//! ```
//!
//! Where nothing is exported all of this is free: such a span is disabled and `traceparent` is `None`.

use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Layer, Registry};

use super::Error;

/// The target of every span meant for export. Nothing else is exported.
pub const TARGET: &str = "otel::tracing";

const TRACEPARENT: &str = "traceparent";

static EXPORTING: AtomicBool = AtomicBool::new(false);

/// Makes `span` a child of the one `traceparent` names. Text that is not a traceparent is as none.
pub fn follow(span: &Span, traceparent: Option<&str>) {
    if span.is_disabled() {
        return;
    }
    if let Some(traceparent) = traceparent {
        let parent = TraceContextPropagator::new().extract(&Only(traceparent));
        if parent.span().span_context().is_valid() {
            // It fails only for a span of another subscriber, which is not exported anyway.
            let _ = span.set_parent(parent);
        }
    }
}

/// The span of one HTTP request, as a child of its caller's.
pub(crate) fn request<B>(request: &http::Request<B>, method: &'static str) -> Span {
    let span = tracing::trace_span!(
        target: TARGET,
        "request",
        otel.kind = "server",
        otel.name = method,
        http.request.method = method,
        url.path = request.uri().path(),
        http.response.status_code = tracing::field::Empty,
    );
    follow(
        &span,
        request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok()),
    );
    span
}

/// The current span as text for whoever is called next; `None` where nothing is exported.
#[must_use]
pub fn traceparent() -> Option<String> {
    if !EXPORTING.load(Ordering::Relaxed) {
        return None;
    }
    let mut text = Text(None);
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut text);
    text.0
}

/// What sends spans to `endpoint` in batches, on the current tokio runtime.
pub(super) fn exporter(service: &'static str, endpoint: &str) -> Result<SdkTracerProvider, Error> {
    // As the specification has it, the variable holds the base and the signal's path is added.
    let endpoint = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .build()
        .map_err(Error::Otlp)?;
    let provider = SdkTracerProvider::builder()
        .with_resource(super::resource(service))
        .with_span_processor(BatchSpanProcessor::builder(exporter, Tokio).build())
        .build();
    EXPORTING.store(true, Ordering::Relaxed);
    Ok(provider)
}

/// Hands the spans of [`TARGET`] to `provider`.
pub(super) fn layer(provider: &SdkTracerProvider) -> Box<dyn Layer<Registry> + Send + Sync> {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("posthaste"))
        .with_filter(Targets::new().with_target(TARGET, Level::TRACE))
        .boxed()
}

/// A carrier that holds nothing but a traceparent.
struct Only<'a>(&'a str);

impl Extractor for Only<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

/// A carrier that keeps nothing but a traceparent.
struct Text(Option<String>);

impl Injector for Text {
    fn set(&mut self, key: &str, value: String) {
        if key == TRACEPARENT {
            self.0 = Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SpanData, SpanExporter};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Exported(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Exported {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    const INCOMING: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn without_an_exporter_a_span_is_disabled() {
        let quiet = tracing_subscriber::registry()
            .with(tracing_subscriber::fmt::layer().with_filter(tracing_subscriber::filter::LevelFilter::INFO));
        tracing::subscriber::with_default(quiet, || {
            let span = tracing::trace_span!(target: TARGET, "deliver");
            assert!(span.is_disabled());
            follow(&span, Some(INCOMING));
        });
    }

    #[test]
    fn a_span_follows_its_traceparent_and_only_our_target_is_exported() {
        let exported = Exported::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exported.clone())
            .build();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer(&provider)), || {
            let _other = tracing::error_span!("other").entered();
            let span = tracing::trace_span!(target: TARGET, "deliver");
            follow(&span, Some(INCOMING));
            follow(&span, Some("nonsense"));
            follow(&span, None);
        });
        let spans = exported.0.lock().unwrap();
        assert_eq!(spans.len(), 1);
        assert_eq!(spans[0].name, "deliver");
        assert_eq!(
            spans[0].span_context.trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(spans[0].parent_span_id.to_string(), "b7ad6b7169203331");
    }
}
