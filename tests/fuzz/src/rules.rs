//! What users write to have events changed, chosen and checked: a rule, a zero byte, and the payload it is for.

use common::model::filter::{self, Filter};
use common::render::{Expressions, OUTPUT_MAX, Placeholders, Subject, Template};
use common::schema::{FAULTS_MAX, Schema};
use proto_schemas::definition::Expression;
use serde_json::{Value, json};

use super::{event, parts};

/// How long a text in an event is made, in characters.
const LONG: usize = 16 * 1024;

/// A template: what it makes is JSON within its bounds, and the same every time. Its text as a placeholder's expression
/// leads no request to another host.
pub(crate) fn template(data: &[u8]) {
    let Some((text, payload)) = parts(data) else { return };
    let event = event::with_payload(payload);
    let subject = Subject::new(&event, "shop", &[]);
    if let Ok(template) = Template::compile(text) {
        let _ = (template.unknown_names(), template.options());
        if let Ok(body) = template.render(&subject) {
            assert!(body.len() <= OUTPUT_MAX);
            assert!(serde_json::from_slice::<Value>(&body).is_ok());
            let preview = template.preview(&subject).map(|(body, _)| body);
            assert_eq!(preview.ok(), Some(body), "a preview is what goes out");
        }
    }
    let definition = [Expression {
        name: "{x}".to_owned(),
        expression: text.to_owned(),
    }];
    if let Ok(expressions) = Expressions::compile(&definition) {
        let mut event = event.clone();
        let _ = expressions.add_to(&mut event, "shop");
    }
    let Ok(placeholders) = Placeholders::compile(&definition) else {
        return;
    };
    let Ok(values) = placeholders.values(&subject) else {
        return;
    };
    if let Ok(url) = values.url("https://hooks.example/a/{x}/b?c={x}") {
        let url: url::Url = url.parse().expect("it is still a URL");
        assert_eq!(url.host_str(), Some("hooks.example"));
        assert_eq!(url.path_segments().map(Iterator::count), Some(3), "{url}");
    }
    if let Ok(value) = values.header("Bearer {x}") {
        assert!(http::HeaderValue::from_str(&value).is_ok(), "{value:?}");
    }
}

/// A filter: it is read again as itself and answers the same.
pub(crate) fn filter(data: &[u8]) {
    let Some((text, payload)) = parts(data) else { return };
    let Ok(filter) = Filter::parse(text) else { return };
    let event = event::with_payload(payload);
    for data in [serde_json::from_slice::<Value>(payload).ok(), None] {
        let subject = filter::Subject::new(&event, data);
        assert_eq!(filter.matches(&subject), filter.matches(&subject));
    }
}

/// A schema: it is compiled or refused, and so is what it is asked of.
pub(crate) fn schema(data: &[u8]) {
    let Some((text, payload)) = parts(data) else { return };
    let Ok(schema) = Schema::compile(text) else { return };
    let faults = schema.check_text(payload);
    assert!(faults.len() <= FAULTS_MAX);
    for fault in &faults {
        assert!(fault.to_string().len() <= 4096, "{} bytes", fault.to_string().len());
    }
    let _ = schema.takes_bytes();
    // How long any of this takes is seen by who runs it; a long text shows what a short one hides.
    let long: String = String::from_utf8_lossy(payload).chars().cycle().take(LONG).collect();
    for value in [json!({ &long: [&long] }), Value::String(long)] {
        assert!(schema.check(&value, 2 * LONG).len() <= FAULTS_MAX);
    }
}
