use proptest::prelude::*;
use serde_json::json;

use super::*;

fn schema(value: &Value) -> Schema {
    Schema::compile(&value.to_string()).unwrap()
}

fn refused(value: &Value) -> Fault {
    Schema::compile(&value.to_string()).unwrap_err()
}

fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let found = self::schema(schema).check(value, value.to_string().len());
    found.iter().map(Fault::to_string).collect()
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_nothing_of_the_value() {
    let order = json!({
        "type": "object",
        "required": ["id", "a/b"],
        "properties": {
            "id": { "type": "string", "pattern": "^ord_" },
            "state": { "enum": ["open", "closed"] },
            "mail": { "format": "email" },
            "lines": { "items": { "type": "object", "properties": { "count": { "minimum": 1 } } } }
        }
    });
    assert_eq!(
        faults(&order, &json!({ "id": "ord_1", "a/b": null })),
        Vec::<String>::new()
    );
    let wrong =
        json!({ "id": "canary", "state": "canary", "mail": "canary", "lines": [{ "count": 1 }, { "count": 0 }] });
    let mut found = faults(&order, &wrong);
    found.sort();
    assert_eq!(
        found,
        [
            "/a~1b: it is missing",
            "/id: it does not match \"^ord_\"",
            "/lines/1/count: it is less than the minimum of 1",
            "/mail: it is not a \"email\"",
            "/state: it is not one of \"open\" or \"closed\"",
        ]
    );
    let found = faults(
        &json!({ "oneOf": [{ "required": ["a"] }, { "required": ["b"] }] }),
        &json!({}),
    );
    assert_eq!(
        found,
        [
            "it is not valid under any of the schemas listed in the 'oneOf' keyword (/a: it is missing; or /b: it is missing)"
        ]
    );
}

#[test]
fn many_faults_are_told_briefly() {
    let item = json!({ "items": { "enum": ["x".repeat(1000), "y".repeat(1000)] } });
    let found = faults(&item, &json!(vec![1; 100]));
    assert_eq!(found.len(), FAULTS_MAX);
    assert!(found.iter().all(|fault| fault.chars().count() < 400), "{}", found[0]);
}

#[test]
fn what_is_no_schema_is_refused_at_the_place() {
    for (text, pointer, says) in [
        ("", "", "not JSON"),
        ("[]", "", "an object"),
        (r#"{"type":"text"}"#, "/type", "this"),
        (
            r#"{"properties":{"a":{"minimum":"1"}}}"#,
            "/properties/a/minimum",
            "number",
        ),
        (r#"{"$schema":"https://example.com/mine"}"#, "/$schema", "2020-12"),
        (r#"{"pattern":"(a"}"#, "/pattern", ""),
    ] {
        let fault = Schema::compile(text).unwrap_err();
        assert_eq!(fault.pointer, pointer, "{text}: {fault}");
        assert!(fault.detail.contains(says), "{text}: {fault}");
    }
}

#[test]
fn a_schema_refers_to_nothing_outside_itself() {
    for reference in [
        "https://example.com/other.json",
        "file:///etc/passwd",
        "other.json#/a",
        "//example.com/",
        "/etc/passwd",
        "urn:uuid:1",
    ] {
        let fault = refused(&json!({ "properties": { "a": { "$ref": reference } } }));
        assert_eq!(fault.pointer, "/properties/a/$ref", "{fault}");
        assert!(fault.detail.contains("nothing outside itself"), "{fault}");
    }
    let fault = refused(&json!({ "properties": { "a": { "$id": "https://example.com/a", "$ref": "#/b" } } }));
    assert!(fault.detail.contains("$id"), "{fault}");
    assert!(
        refused(&json!({ "$ref": "#/$defs/none" }))
            .detail
            .contains("nothing at")
    );
    assert!(refused(&json!({ "$dynamicRef": "#a" })).detail.contains("use $ref"));
    // A name is no keyword, and a value no schema.
    schema(&json!({ "properties": { "$ref": { "type": "string" }, "$id": {} }, "const": { "$ref": "x" } }));
}

#[test]
fn parts_are_referred_to_by_path_and_by_anchor() {
    let tree = json!({
        "$ref": "#/$defs/a%20node",
        "$defs": {
            "a node": { "required": ["name"], "properties": { "children": { "items": { "$ref": "#child" } } } },
            "child": { "$anchor": "child", "$ref": "#/$defs/a%20node" }
        }
    });
    let good = json!({ "name": 1, "children": [{ "name": 2, "children": [] }] });
    assert_eq!(faults(&tree, &good), Vec::<String>::new());
    let bad = json!({ "name": 1, "children": [{ "name": 2, "children": [{}] }] });
    assert_eq!(faults(&tree, &bad), ["/children/0/children/0/name: it is missing"]);
}

#[test]
fn size_and_depth_of_a_schema_are_bounded() {
    let large = json!({ "description": "x".repeat(SIZE_MAX) });
    assert!(refused(&large).detail.contains("65536 bytes"));
    let nested = |levels: usize| (0..levels).fold(json!({}), |within, _| json!({ "not": within }));
    schema(&nested(DEPTH_MAX - 1));
    assert!(refused(&nested(DEPTH_MAX)).detail.contains("32 levels"));
}

#[test]
fn patterns_that_need_backtracking_are_refused() {
    for pattern in ["(?=a)b", r"(a)\1", "(?<!a)b"] {
        refused(&json!({ "pattern": pattern }));
    }
    refused(&json!({ "pattern": "(((a{100}){100}){100}){100}" }));
    // Exponential for a backtracking engine.
    let slow = json!({ "pattern": "^(a|a)*$" });
    assert_eq!(faults(&slow, &json!(format!("{}b", "a".repeat(100_000)))).len(), 1);
}

#[test]
fn a_schema_that_would_never_end_is_refused() {
    for endless in [
        json!({ "$ref": "#" }),
        json!({ "allOf": [{ "not": { "$ref": "#" } }] }),
        json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "anyOf": [{ "$ref": "#/$defs/a" }] } } }),
        json!({ "items": { "$ref": "#/$defs/a" }, "$defs": { "a": { "items": { "$ref": "#/$defs/b" }, "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } } }),
    ] {
        let fault = refused(&endless);
        assert!(fault.detail.contains("never end"), "{endless}: {fault}");
    }
    let mut chain = json!({});
    for number in 0..1000 {
        chain[format!("d{number}")] = json!({ "$ref": format!("#/$defs/d{}", number + 1) });
    }
    chain["d1000"] = json!(true);
    assert!(
        refused(&json!({ "$ref": "#/$defs/d0", "$defs": chain }))
            .detail
            .contains("within one another")
    );
}

#[test]
fn a_check_that_would_take_ages_is_not_begun() {
    // Each level of the event is looked at twice as often as the one around it.
    let doubling = json!({ "items": { "allOf": [{ "$ref": "#" }, { "$ref": "#" }] } });
    let deep = (0..100).fold(json!([]), |within, _| json!([within]));
    assert!(faults(&doubling, &deep)[0].contains("too large or too deep"));
    assert_eq!(faults(&doubling, &json!([[[[]]]])), Vec::<String>::new());

    let mut defs = json!({ "d40": { "type": "object" } });
    for number in 0..40 {
        let next = json!({ "$ref": format!("#/$defs/d{}", number + 1) });
        defs[format!("d{number}")] = json!({ "anyOf": [next, next] });
    }
    let wide = json!({ "$ref": "#/$defs/d0", "$defs": defs });
    assert!(faults(&wide, &json!(1))[0].contains("too large or too deep"));

    // Many parts and many items.
    let parts: Vec<Value> = (0..1000)
        .map(|number| json!({ "items": { "minimum": number } }))
        .collect();
    let many = json!({ "allOf": parts });
    assert!(faults(&many, &json!(vec![1; 50_000]))[0].contains("too large or too deep"));
    assert_eq!(faults(&many, &json!([1000, 1000])), Vec::<String>::new());
}

#[test]
fn a_large_event_of_an_ordinary_type_is_checked() {
    let order =
        json!({ "items": { "type": "object", "required": ["id"], "properties": { "id": { "type": "string" } } } });
    let mut lines = vec![json!({ "id": "1" }); 20_000];
    assert_eq!(faults(&order, &json!(lines)), Vec::<String>::new());
    lines[19_999] = json!({ "id": 1 });
    assert_eq!(
        faults(&order, &json!(lines)),
        ["/19999/id: it is not of type \"string\""]
    );
}

proptest! {
    #[test]
    fn no_schema_and_no_value_end_the_process(schema in any_json(), value in any_json()) {
        if let Ok(schema) = Schema::compile(&schema.to_string()) {
            let _ = schema.check_text(value.to_string().as_bytes());
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let keyword = prop::sample::select(vec![
        "type",
        "properties",
        "items",
        "$ref",
        "allOf",
        "anyOf",
        "not",
        "$defs",
        "a",
        "required",
        "enum",
        "if",
        "then",
        "unevaluatedProperties",
        "prefixItems",
        "$anchor",
        "dependentSchemas",
        "contains",
    ]);
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        Just(json!(1.5)),
        prop::sample::select(vec!["#", "#/$defs/a", "#a", "object", "a", "%", "#%4"]).prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(6, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keyword.clone(), inner), 0..5).prop_map(|members| members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
        ]
    })
}
