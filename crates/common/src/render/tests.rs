//! Templates.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proto_schemas::definition::Body;
use proto_schemas::event::Event;
use proto_schemas::id::{EventKey, ProjectId};
use serde_json::{Value, json};

use super::*;

fn event(payload: impl Into<Bytes>) -> Event {
    let at = "2024-01-15T10:30:00Z".parse().unwrap();
    Event {
        key: EventKey::of_message(at, 7),
        id: "evt_abc123".into(),
        project: ProjectId::from_uuid(uuid::Uuid::nil()),
        event_type: "recommendation.created".into(),
        occurred_at: at,
        accepted_at: at,
        attributes: BTreeMap::from([("region".into(), "eu".into())]),
        content_type: String::new(),
        payload: payload.into(),
        traceparent: String::new(),
    }
}

fn compile(template: &Value) -> Result<Renderer, Error> {
    Renderer::compile(&Body::Template(template.to_string()))
}

fn text(template: &Value, data: &Value) -> String {
    let event = event(data.to_string());
    let options = ["on".to_owned()];
    let rendered = compile(template)
        .unwrap()
        .render(&Subject::new(&event, "ws_xyz789", &options))
        .unwrap();
    assert_eq!(rendered.content_type, "application/json");
    String::from_utf8(rendered.body.to_vec()).unwrap()
}

fn value(template: &Value, data: &Value) -> Value {
    serde_json::from_str(&text(template, data)).unwrap()
}

fn failure(template: &Value, data: &Value) -> Failure {
    let event = event(data.to_string());
    compile(template)
        .unwrap()
        .render(&Subject::new(&event, "p", &[]))
        .unwrap_err()
}

/// The CloudThinker document's own event and its own Slack template.
#[test]
fn the_documents_slack_template_gives_the_documents_text() {
    let data = json!({"title": "Right-size EC2 instance i-0abc123", "potential_savings": 150.00});
    assert_eq!(
        text(&json!({"text": "New {{type}}: {{data.title}}"}), &data),
        r#"{"text":"New recommendation.created: Right-size EC2 instance i-0abc123"}"#
    );
}

#[test]
fn what_an_event_holds_never_breaks_out_of_its_string() {
    for title in [
        "say \"hi\"",
        "two\nlines\tand\u{0}nul",
        "\\",
        "🚀 ünïcode \u{2028}",
        "{{data.secret}} {% for x in y %} {# c #}",
        "\"},{\"x\":\"",
    ] {
        let data = json!({"title": title, "secret": "s"});
        assert_eq!(value(&json!({"t": "{{data.title}}"}), &data), json!({"t": title}));
        assert_eq!(
            value(&json!({"t": "a {{data.title}} b"}), &data),
            json!({"t": format!("a {title} b")})
        );
        assert_eq!(
            value(&json!({"t": "{% if true %}{{data.title}}{% endif %}"}), &data),
            json!({"t": title})
        );
    }
}

#[test]
fn a_string_that_is_one_expression_keeps_its_type() {
    let data = json!({"i": 3, "f": 3.0, "big": 18_446_744_073_709_551_615_u64, "b": false, "n": null, "s": "3",
        "l": [1, 2.5, "x"], "o": {"z": 1, "a": [{"k": null}]}});
    for (expression, json) in [
        ("{{data.i}}", "3"),
        ("{{ data.f }}", "3.0"),
        ("{{data.big}}", "18446744073709551615"),
        ("{{data.b}}", "false"),
        ("{{data.n}}", "null"),
        ("{{data.s}}", "\"3\""),
        ("{{data.l}}", r#"[1,2.5,"x"]"#),
        ("{{data.o}}", r#"{"z":1,"a":[{"k":null}]}"#),
        ("{{-data.i-}}", "3"),
        ("{{data.i + 1}}", "4"),
        ("{{data.l|length}}", "3"),
        ("{{('a' ~ data.s ~ 'bcd')[:3]}}", "\"a3b\""),
        ("{{ ('**' ~ type ~ '** ' ~ (data.s or id))[:9] }}", "\"**recomme\""),
        ("{{ {'a': {'b': data.i}} }}", r#"{"a":{"b":3}}"#),
        ("{{ '}}' }}", "\"}}\""),
        ("{{attributes.region}}", "\"eu\""),
        ("{{options.on}}", "true"),
        ("{{options.off or false}}", "false"),
        ("{{project}}", "\"ws_xyz789\""),
        ("{{id}}", "\"evt_abc123\""),
        ("{{timestamp}}", "\"2024-01-15T10:30:00Z\""),
        (" {{data.i}}", "\" 3\""),
        ("{{data.o.a}}!", r#""[{\"k\":null}]!""#),
        ("{{data.b}}/{{data.f}}/{{data.n}}/{{data.s}}", "\"false/3.0//3\""),
        ("{{ data.l|tojson }} ", r#""[1, 2.5, \"x\"] ""#),
    ] {
        assert_eq!(text(&json!(expression), &data), json, "{expression}");
    }
}

#[test]
fn what_is_not_there_is_null_alone_and_nothing_within_text() {
    let data = json!({"n": null, "i": 5, "s": "x"});
    for path in [
        "data.a",
        "data.a.b.c",
        "data.n.b",
        "data.i.b.c",
        "data.s.b",
        "data['a']['b']",
        "nobody",
        "nobody.a",
        "data.a[3].b",
    ] {
        assert_eq!(value(&json!(format!("{{{{{path}}}}}")), &data), Value::Null, "{path}");
        assert_eq!(value(&json!(format!("a{{{{{path}}}}}b")), &data), json!("ab"), "{path}");
        let with_statement = format!("{{% if true %}}a{{{{{path}}}}}b{{% endif %}}");
        assert_eq!(value(&json!(with_statement), &data), json!("ab"), "{path}");
    }
    // Nor is what cannot be worked out.
    for expression in [
        "data.a + 1",
        "data.s * data.s",
        "data.i.foo()",
        "data.a|int + 'x'",
        "data.n|upper|length / 0",
    ] {
        assert_eq!(
            value(&json!(format!("{{{{{expression}}}}}")), &data),
            Value::Null,
            "{expression}"
        );
    }
}

#[test]
fn a_preview_tells_what_was_not_found_and_where() {
    let template = json!({"a": "{{data.title}}", "b": ["x {{data.no.way}} {{ data.nor|default('d') }} {{nobody}}"], "c": "{% if data.x + 1 %}{% endif %}"});
    let event = event(r#"{"title":"t"}"#);
    let (rendered, missing) = compile(&template)
        .unwrap()
        .preview(&Subject::new(&event, "p", &[]))
        .unwrap();
    assert_eq!(rendered.body, r#"{"a":"t","b":["x  d "],"c":""}"#);
    let missing: Vec<_> = missing
        .iter()
        .map(|it| (it.pointer.as_str(), it.expression.as_str()))
        .collect();
    assert_eq!(
        missing,
        [
            ("/b/0", "data.no.way"),
            ("/b/0", "nobody"),
            ("/c", "data.x"),
            ("/c", "{% if data.x + 1 %}{% endif %}")
        ]
    );
}

#[test]
fn a_preview_says_which_names_within_statements_found_nothing() {
    let template = json!({
        "a": "{% if data.titel %}{{data.title}}{% else %}{{data.nothing.here}}{% endif %}",
        "b": "{% for item in data.items %}{{item.name}} {{loop.index}} {{item.nmae}}{% endfor %}",
        "c": "{% set x = data.title %}{{x}}{{variables.key}}{% for i in range(2) %}{{nobody}}{% endfor %}",
        "d": "{% if data.none %}{% endif %}{{ dict(a=1).a }}",
    });
    let event = event(r#"{"title":"t","items":[{"name":"n"}],"none":null}"#);
    let (rendered, missing) = compile(&template)
        .unwrap()
        .preview(&Subject::new(&event, "p", &[]))
        .unwrap();
    assert_eq!(rendered.body, r#"{"a":"","b":"n 1 ","c":"t","d":"1"}"#);
    let missing: Vec<_> = missing
        .iter()
        .map(|it| (it.pointer.as_str(), it.expression.as_str()))
        .collect();
    assert_eq!(
        missing,
        [
            ("/a", "data.nothing.here"),
            ("/a", "data.titel"),
            ("/c", "nobody"),
            ("/c", "variables.key"),
        ]
    );
}

#[test]
fn omit_leaves_members_and_elements_out() {
    let template = json!({
        "a": "{{data.a if data.a is defined else omit}}",
        "b": {"c": "{{data.b or omit}}"},
        "l": ["{{omit}}", 1, "{{data.c|default(omit)}}", "{{ [1, omit] }}"],
        "z": "{{data.z|default(omit)}}",
        "t": "x{{omit}}"
    });
    assert_eq!(
        text(&template, &json!({"b": 0, "z": 1})),
        r#"{"b":{},"l":[1,[1]],"z":1,"t":"x"}"#
    );
    assert_eq!(text(&json!("{{omit}}"), &json!({})), "null");
}

#[test]
fn order_and_constants_stay_as_they_are_written() {
    let template: Value = serde_json::from_str(r#"{"z": 1, "a": [true, null, {"y": "plain", "b": 1.50}], "m": "{{type}}", "{{id}}": "{ not % an } expression"}"#).unwrap();
    assert_eq!(
        text(&template, &json!({})),
        r#"{"z":1,"a":[true,null,{"y":"plain","b":1.5}],"m":"recommendation.created","{{id}}":"{ not % an } expression"}"#
    );
}

#[test]
fn statements_work_within_a_string() {
    let data = json!({"l": [{"n": "a"}, {"n": "b"}], "high": true});
    for (template, expected) in [
        ("{% for x in data.l %}{{x.n}},{% endfor %}", "a,b,"),
        ("{% if data.high %}!{% else %}.{% endif %}\n", "!\n"),
        ("{# nothing #}x {{- data.l|length }}", "x2"),
        ("{% set a = 'q' %}{{a|upper}}", "Q"),
    ] {
        assert_eq!(value(&json!(template), &data), json!(expected), "{template}");
    }
}

#[test]
fn bytes_that_are_not_json_have_no_data() {
    let mut raw = event(&b"\x01{\"t\":1}"[..]);
    raw.content_type = "application/octet-stream".into();
    let template = json!(["{{data}}", "{{payload_base64}}", "{{payload_json}}"]);
    let body = |event: &Event| {
        compile(&template)
            .unwrap()
            .render(&Subject::new(event, "p", &[]))
            .unwrap()
            .body
    };
    assert_eq!(body(&raw), r#"[null,"AXsidCI6MX0=",null]"#);
    raw.payload = Bytes::from_static(br#"{"t":1}"#);
    assert_eq!(body(&raw), r#"[null,"eyJ0IjoxfQ==",{"t":1}]"#);
}

#[test]
fn a_mistake_is_told_with_its_place() {
    for (template, pointer, line, column, says) in [
        (json!({"a": {"b": "x {{ data. }}"}}), "/a/b", 1, 10, "expected"),
        (json!(["ok", "line\nx {{ data.title | }} "]), "/1", 2, 17, "expected"),
        (
            json!({"a/b": "{{ data.title|shout }}"}),
            "/a~1b",
            1,
            15,
            "no filter `shout`",
        ),
        (json!({"a": "{{ data.x is funny }}"}), "/a", 1, 14, "no test `funny`"),
        (json!("{{ type"), "", 1, 1, "not closed"),
        (json!({"a": "{% if data.x %}"}), "/a", 1, 0, ""),
        (json!({"a": "{{}}"}), "/a", 1, 3, "missing"),
        (json!({"a": "{% include 'x' %}"}), "/a", 1, 0, "include"),
        (json!({"a": "{% macro m() %}{% endmacro %}"}), "/a", 1, 0, "macro"),
    ] {
        let error = compile(&template).unwrap_err();
        let Error::Leaf { pointer: at, fault } = &error else {
            panic!("{template}: {error}")
        };
        assert_eq!(at, pointer, "{error}");
        assert!(fault.reason.contains(says), "{template}: {error}");
        assert_eq!(fault.line, line, "{template}: {error}");
        assert!(column == 0 || fault.column == column, "{template}: {error}");
    }
}

#[test]
fn a_template_is_bounded() {
    let long = json!("x".repeat(TEMPLATE_MAX));
    assert!(matches!(compile(&long), Err(Error::TooLong(_))));
    let deep = (0..=DEPTH_MAX).fold(json!("{{type}}"), |inner, _| json!([inner]));
    assert_eq!(compile(&deep).unwrap_err(), Error::TooDeep);
    assert!(matches!(
        Renderer::compile(&Body::Template("{".into())),
        Err(Error::Json(_))
    ));
}

/// Each of these would take minutes, gigabytes or the stack, were it let.
#[test]
fn a_template_that_asks_for_too_much_fails_soon() {
    let big = "y".repeat(100_000);
    let data = json!({"big": big, "deep": (0..120).fold(json!(1), |inner, _| json!([inner])), "l": [1, 2, 3, 4, 5, 6, 7, 8, 9]});
    let nest = format!(
        "{{% set a=1 %}}{}{{{{a}}}}",
        "{% set a=[[[[[[[[a]]]]]]]] %}".repeat(500)
    );
    let nested = |filter: &str| format!("{{{{[1]{}|list|tojson}}}}", filter.repeat(1_500));
    for template in [
        json!("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        json!("{{ 'x' * 100000000 }}"),
        json!("{{ [1] * 100000000 }}"),
        json!("{{ '%1000000000d'|format(1) }}"),
        json!("{{ 'a'|center(1000000000) }}{{ range(99999)|join('xxxxxxxxxxxxxxx') }}"),
        json!("{{ data.big|replace('y', data.big) }}"),
        json!("{{ data.big|indent(1000000) ~ data.big|list|join(data.big) }}"),
        json!(["{{data.big}}", "{{data.big}}", "{{data.big}}"]),
        json!("{{data.big}}{{data.big}}{{data.big}}"),
        json!("{% for a in data.l %}{{data.big}}{% endfor %}"),
        json!(vec!["{{ range(9000)|list|length }}"; 40]),
        json!(vec!["{{ range(1000)|list|length + 'a' }}"; 40]),
        json!("{% for a in data.l recursive %}{{ loop(data.l) }}{% endfor %}"),
        json!(nest),
        json!(nest.replace("{{a}}", "{{a|tojson}}")),
        json!(nest.replace("{{a}}", "{{a|string}}")),
        json!(nest.replace("{{a}}", "{{a == a}}{{a|sort}}")),
        json!(nested("|batch(1)")),
        json!(nested("|zip")),
        json!(nested("|chain")),
        json!(nested("|list")),
        json!(nested("|map('list')")),
        json!(nested("|slice(1)")),
        json!(nested("|reverse")),
        json!(nested("|select")),
        json!(nested("[:]")),
        json!(format!("{{{{ {}1{} }}}}", "[".repeat(7000), "]".repeat(7000))),
        json!(format!("{{{{ {}1 }}}}", "-".repeat(15_000))),
        json!(format!("{{{{ {}1 }}}}", "not ".repeat(4_000))),
        json!(format!("{{{{ 1{} }}}}", "+1".repeat(8_000))),
        json!(format!("{{{{ 1{} }}}}", "~1".repeat(8_000))),
        json!(format!("{{{{ data{} }}}}", ".a".repeat(8_000))),
        json!("{% for i in range(9999) %}{% set a = [a] %}{% endfor %}{{a}}"),
        json!(
            "{% set a = [1,1,1,1] %}{% set a = [a,a,a,a] %}{% set a = [a,a,a,a] %}{% set a = [a,a,a,a] %}{% set a = [a,a,a,a] %}{% set a = [a,a,a,a] %}{% set a = [a,a,a,a] %}{% set a = [a,a,a,a] %}{% set a = [a,a,a,a] %}{% set a = [a,a,a,a] %}{{a}}"
        ),
        json!("{{data.deep}}"),
    ] {
        let begun = std::time::Instant::now();
        if let Ok(renderer) = compile(&template) {
            let event = event(data.to_string());
            if let Ok(rendered) = renderer.render(&Subject::new(&event, "p", &[])) {
                assert!(rendered.body.len() <= OUTPUT_MAX);
                serde_json::from_slice::<Value>(&rendered.body).unwrap();
            }
        }
        let shown: String = template.to_string().chars().take(80).collect();
        assert!(begun.elapsed().as_secs() < 5, "{shown}");
    }
    assert_eq!(failure(&json!("{{ 'x' * 100000000 }}"), &data), Failure::Fuel);
    assert_eq!(
        failure(&json!(vec!["{{ range(9000)|list|length }}"; 40]), &data),
        Failure::Fuel
    );
    assert_eq!(
        failure(&json!(["{{data.big}}", "{{data.big}}", "{{data.big}}"]), &data),
        Failure::Size
    );
    let failing = failure(&json!(vec!["{{ 1 + 'a' }}"; 17]), &data);
    assert!(matches!(&failing, Failure::Failures(_)), "{failing}");
}

#[test]
fn names_that_neither_event_nor_webhook_has_are_known() {
    let template = |text: &str| Template::compile(&json!(text).to_string()).unwrap().unknown_names();
    assert_eq!(
        template("{{data.a}} {{title}} {% for x in list %}{{x}}{% endfor %}"),
        ["list", "title"]
    );
    assert!(template("{{id}}{{type}}{{omit}}{{range(3)}}{{payload_json}}{{variables.a}}").is_empty());
}

#[test]
fn base64_and_cloud_events_hold_the_payloads_own_bytes() {
    let mut event = event(r#" {"b": 1.50, "a":12345678901234567890123} "#);
    event.attributes = [
        ("region", "eu"),
        ("Bad_Name", "x"),
        ("id", "no"),
        ("subject", ""),
        ("n1", "line\n"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    let rendered = |event: &Event, body: &Body| {
        let rendered = Renderer::compile(body)
            .unwrap()
            .render(&Subject::new(event, "acme", &[]))
            .unwrap();
        (
            String::from_utf8(rendered.body.to_vec()).unwrap(),
            rendered.content_type,
        )
    };
    assert_eq!(
        rendered(&event, &Body::CloudEvents),
        (
            r#"{"specversion":"1.0","id":"evt_abc123","source":"/projects/acme","type":"recommendation.created","time":"2024-01-15T10:30:00Z","datacontenttype":"application/json","region":"eu","data":{"b": 1.50, "a":12345678901234567890123}}"#.to_owned(),
            "application/cloudevents+json".to_owned()
        )
    );
    event.content_type = "image/png".into();
    event.payload = Bytes::from_static(b"\x89PNG");
    event.attributes.clear();
    assert_eq!(
        rendered(&event, &Body::Base64),
        ("iVBORw==".to_owned(), "text/plain".to_owned())
    );
    assert_eq!(
        rendered(&event, &Body::CloudEvents).0,
        r#"{"specversion":"1.0","id":"evt_abc123","source":"/projects/acme","type":"recommendation.created","time":"2024-01-15T10:30:00Z","datacontenttype":"image/png","data_base64":"iVBORw=="}"#
    );
}

fn any_template() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i32>().prop_map(Value::from),
        Just(Value::Null),
        "\\PC{0,20}".prop_map(Value::from),
        "(\\{\\{|\\}\\}|\\{%|%\\}|data|\\.a|\\.b|type| |if|for|in|\\||upper|join|omit|\"|'|1|\\[|\\]|\\(|\\)|-|~){0,12}".prop_map(Value::from),
        "(x|\\{\\{(data\\.a|data\\.b\\.c|type|id|omit|data|data\\.a\\|default\\(1\\))\\}\\}){0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map("[a-z\"\\\\]{0,3}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_the_template_the_body_is_json_or_the_failure_is_told(template in any_template(), a in "\\PC{0,40}", b in any::<f64>()) {
        if let Ok(renderer) = compile(&template) {
            let event = event(json!({"a": a, "b": {"c": b}}).to_string());
            let subject = Subject::new(&event, "p", &[]);
            if let Ok(rendered) = renderer.render(&subject) {
                prop_assert!(rendered.body.len() <= OUTPUT_MAX);
                let parsed = serde_json::from_slice::<Value>(&rendered.body);
                prop_assert!(parsed.is_ok(), "{template}: {:?}", rendered.body);
                let (previewed, _) = renderer.preview(&subject).unwrap();
                prop_assert_eq!(previewed, rendered);
            }
        }
    }
}
