use std::time::Duration;

use proptest::prelude::*;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use super::effort::STEPS_MAX;
use super::*;

/// The largest event, as it is set to begin with.
const EVENT_MAX: usize = 256 * 1024;

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

    let long = "é".repeat(100_000);
    let found = faults(
        &json!({ "additionalProperties": { "type": "null" } }),
        &json!({ &long: 1 }),
    );
    assert!(found[0].chars().count() < 400, "{}", found[0]);
    let found = faults(
        &json!({ "maxProperties": 0, "propertyNames": { "maxLength": 3 } }),
        &json!({ &long: 1 }),
    );
    assert!(found.iter().all(|fault| fault.chars().count() < 700), "{found:?}");
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

/// As long as an event may be, made of these letters so that nothing can be foreseen.
fn noise(letters: &str) -> String {
    let letters: Vec<char> = letters.chars().collect();
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        letters[(state >> 16) as usize % letters.len()]
    };
    let length = EVENT_MAX - 1024;
    std::iter::repeat_with(&mut next)
        .take(length / letters[0].len_utf8())
        .collect()
}

/// The steps of a check, where it is begun.
fn steps(schema: &Schema, value: &Value) -> Option<u64> {
    let counted = schema.effort.count(&schema.document, value, STEPS_MAX);
    counted.map(|(steps, _)| steps)
}

/// How long this thread was working meanwhile, which nothing else on the machine prolongs.
fn work<T>(it: impl FnOnce() -> T) -> Duration {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let begun = now();
    std::hint::black_box(it());
    now() - begun
}

/// `number` patterns, each another one.
fn patterns(number: usize, pattern: impl Fn(usize) -> String) -> impl Iterator<Item = Value> {
    (0..number).map(move |it| json!({ "pattern": pattern(it) }))
}

#[test]
fn what_a_pattern_costs_with_a_text_is_known_before_it_is_matched() {
    let letters = noise("ab");
    for pattern in ["^[ab]*a[ab]{2000}c$", "a[ab]{100}c", "[^z]{90}foobar"] {
        let found = faults(&json!({ "pattern": pattern }), &json!(letters));
        assert!(found[0].contains("too large or too deep"), "{pattern}: {}", found[0]);
        assert_eq!(
            faults(&json!({ "pattern": pattern }), &json!("ab")).len(),
            1,
            "{pattern}"
        );
    }
    let found = faults(&json!({ "pattern": "^[ab]*a[ab]{2000}c$" }), &json!(letters[..20_000]));
    assert!(found[0].contains("too large or too deep"), "{}", found[0]);
    let short: Vec<&str> = letters
        .as_bytes()
        .chunks(1000)
        .map(|it| str::from_utf8(it).unwrap())
        .collect();
    let found = faults(&json!({ "items": { "pattern": "a[ab]{100}c" } }), &json!(short));
    assert!(found[0].contains("too large or too deep"), "{}", found[0]);
}

#[test]
fn the_names_of_members_are_counted_as_they_are_matched() {
    let named = json!({ noise("ab"): null });
    let all: serde_json::Map<String, Value> = (0..90).map(|it| (format!("[ab][^b]{it}"), json!({}))).collect();
    for schema in [
        json!({ "patternProperties": all }),
        json!({ "patternProperties": all, "additionalProperties": false }),
        json!({ "propertyNames": { "anyOf": patterns(90, |it| format!("[ab][^b]{it}")).collect::<Value>() } }),
        json!({ "propertyNames": { "allOf": patterns(90, |it| format!("[ab][^b]{it}")).collect::<Value>() } }),
    ] {
        let found = faults(&schema, &named);
        assert!(found[0].contains("too large or too deep"), "{}", found[0]);
        assert!(
            !faults(&schema, &json!({ "a": null }))[..]
                .iter()
                .any(|it| it.contains("too large"))
        );
    }
    assert_eq!(
        faults(&json!({ "propertyNames": { "maxLength": 2 } }), &json!({ "abc": 1 })).len(),
        1
    );
}

#[test]
fn the_patterns_of_a_schema_have_a_bound_together() {
    for (attack, pointer, says) in [
        (
            json!({ "allOf": patterns(2500, |_| r"\p{L}{9}a".into()).collect::<Value>() }),
            "/allOf/0/pattern",
            "262144",
        ),
        (
            json!({ "allOf": patterns(2000, |it| format!(r"\p{{L}}{{3}}{it}")).collect::<Value>() }),
            "/allOf/4/pattern",
            "1048576",
        ),
        (
            json!({ "allOf": patterns(101, |it| format!("^{it}x+$")).collect::<Value>() }),
            "/allOf/100/pattern",
            "100 different",
        ),
        (
            json!({ "properties": { "a/b": { "patternProperties": { "x".repeat(2049): {} } } } }),
            "/properties/a~1b/patternProperties/xxx",
            "2048",
        ),
        // Each state keeps where each group begins and ends.
        (json!({ "pattern": "(a)".repeat(300) }), "/pattern", "1048576"),
    ] {
        let fault = refused(&attack);
        assert!(
            fault.pointer.starts_with(pointer) && fault.detail.contains(says),
            "{pointer}, {says}: {fault}"
        );
    }
    // The same one is one.
    schema(&json!({ "allOf": patterns(1000, |_| "^[a-z]+[0-9]?x$".into()).collect::<Value>() }));
    // Neither is compiled.
    let words: Vec<String> = (0..400).map(|it| it.to_string()).collect();
    schema(&json!({ "pattern": format!("^({})$", words.join("|")) }));
    schema(&json!({ "pattern": r"^[\p{L}\p{M} .'-]{1,500}$" }));
}

#[test]
fn what_a_check_takes_is_in_proportion_to_its_steps() {
    let pattern = |pattern: &str| json!({ "pattern": pattern });
    let names: String = (0..5_000).map(|it| format!("(?<a{it:04}>)")).collect();
    let items: Vec<Vec<usize>> = (0..16).map(|first| (first..first + 2_000).collect()).collect();
    let few = json!(items.iter().map(|items| &items[..140]).collect::<Vec<_>>());
    let asked: serde_json::Map<String, Value> = (0..2_000).map(|it| (format!("{it}"), json!(["a"]))).collect();
    let mut beyond = Vec::new();
    let many: Value = asked.keys().map(|name| (name.clone(), json!({}))).collect();
    for (schema, value) in [
        (pattern("^[ab]*a[ab]{35}c$"), json!(noise("ab"))),
        (pattern("a[ab]{30}c"), json!(noise("ab"))),
        (pattern("a[ab]{30}c$"), json!(noise("ab"))),
        (pattern("[ab]{30}a[ab]*c$"), json!(noise("ab"))),
        (pattern("[ab]+[^z]{20}foobar"), json!("foobar".repeat(EVENT_MAX / 7))),
        (pattern("[ab]+x[ab]{20}y[ab]+z"), json!(noise("abxy"))),
        (pattern(r"\p{L}{3}1"), json!(noise("éжλbcd"))),
        (pattern("^[acegikmoqsuwy]*a[acegikmoqsuwy]{20}1$"), json!(noise("aceg"))),
        (pattern("^(|||||[ab])*(|||||a)[ab]{5}c$"), json!(noise("ab"))),
        (pattern(r"^[\p{L}\p{N} ]*$"), json!(noise("éa 1"))),
        (
            json!({ "items": pattern("^(a|b)?(a|b)?(a|b)?(a|b)?(a|b)?(a|b)?x$") }),
            json!(vec![""; 30_000]),
        ),
        (json!({ "format": "regex" }), json!(names)),
        (json!({ "format": "uri" }), json!(format!("http://a/{}", noise("a%")))),
        (
            json!({ "allOf": vec![json!({ "uniqueItems": true }); 400] }),
            json!(items),
        ),
        (
            json!({ "allOf": vec![json!({ "$ref": "#/$defs/it" }); 2300], "$defs": { "it": { "const": few } } }),
            json!(few),
        ),
        (
            json!({ "patternProperties": { "a[ab]{30}c": {} } }),
            json!({ noise("ab"): 1 }),
        ),
        (
            json!({ "propertyNames": { "anyOf": [{ "pattern": "a[ab]{12}c" }, {}] } }),
            json!({ noise("ab"): 1 }),
        ),
        (
            json!({ "items": { "dependentRequired": asked } }),
            json!(vec![json!({}); 3_000]),
        ),
        (
            json!({ "items": { "properties": many } }),
            json!(vec![json!({}); 3_000]),
        ),
        (
            json!({ "items": { "prefixItems": vec![json!({}); 2_000], "$defs": many } }),
            json!(vec![json!([]); 50_000]),
        ),
        (
            json!({ "items": { "properties": many } }),
            json!(vec![json!(1); 50_000]),
        ),
        (
            json!({ "items": { "type": "array", "maxItems": 1 } }),
            json!(vec![json!([]); 50_000]),
        ),
    ] {
        let schema = self::schema(&schema);
        let steps = steps(&schema, &value).unwrap_or_else(|| panic!("{} is refused", schema.document));
        // In a program that is not optimised, on whatever machine; what was not counted would take ten times as long.
        let bound = Duration::from_millis(10) + Duration::from_nanos(500) * u32::try_from(steps).unwrap();
        let taken = work(|| schema.validator.is_valid(&value));
        let counting = work(|| self::steps(&schema, &value));
        let document = schema.document.to_string();
        let told = format!("{steps} steps, {taken:?}, counted in {counting:?}: {document:.80}");
        if taken > bound || counting > bound {
            beyond.push(told);
        }
    }
    assert!(beyond.is_empty(), "{beyond:#?}");
}

#[test]
fn what_is_usual_is_matched_a_thousand_times_in_an_event() {
    let uuid = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$";
    let label = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?";
    let mail = format!(r"^[a-zA-Z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{label}(?:\.{label})*$");
    let date = r"^(\d{4})-(\d{2})-(\d{2})(T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2}))?$";
    let line = json!({
        "id": "123e4567-e89b-12d3-a456-426614174000",
        "mail": "somebody.with-a.name@mail.example.com",
        "at": "2024-02-29T12:30:00.123+02:00",
    });
    let of = |id: &str, mail: &str, at: &str| {
        json!({ "items": { "properties": {
            "id": { "pattern": id }, "mail": { "pattern": mail }, "at": { "pattern": at },
        } } })
    };
    let mut lines = vec![line; 1000];
    let all = of(uuid, &mail, date);
    assert_eq!(faults(&all, &json!(lines)), Vec::<String>::new());
    lines[999]["mail"] = json!("somebody");
    assert!(faults(&all, &json!(lines))[0].starts_with("/999/mail: it does not match"));
    // By some, as formats, and with alternatives.
    let formats = json!({ "items": { "oneOf": [
        { "properties": { "id": { "format": "uuid" }, "mail": { "format": "email" }, "at": { "format": "date-time" } } },
        { "type": "string", "pattern": uuid },
    ] } });
    lines[999]["mail"] = json!("a@example.com");
    assert_eq!(faults(&formats, &json!(lines)), Vec::<String>::new());
    let long = json!({ "pattern": "^[A-Za-z0-9+/]*={0,2}$" });
    assert_eq!(faults(&long, &json!(noise("abc/+1"))), Vec::<String>::new());
}

#[test]
fn no_more_is_copied_to_say_what_is_wrong_than_is_reasonable() {
    let value = json!([noise("ab")]);
    let alternatives = |number| json!({ "anyOf": vec![json!({ "type": "null" }); number] });
    assert!(faults(&alternatives(10), &value)[0].contains("listed in the 'anyOf' keyword"));
    for schema in [
        alternatives(1000),
        json!({ "oneOf": vec![json!({ "items": { "allOf": [{ "type": "null" }, { "const": 1 }] } }); 35] }),
        json!({ "allOf": vec![alternatives(5); 50] }),
    ] {
        let found = faults(&schema, &value);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("too large for more to be said"), "{}", found[0]);
    }
}

#[test]
fn what_a_compiled_schema_takes_grows_with_it() {
    let size = |value: &Value| schema(value).size();
    let small = size(&json!({ "type": "object", "properties": { "a": { "type": "string" } } }));
    assert!((1_000..20_000).contains(&small), "{small}");
    let nested = (0..25).fold(json!({}), |within, _| json!({ "not": within }));
    let many = size(&json!({ "allOf": vec![nested; 200] }));
    assert!(
        many > 20_000_000,
        "{many}: of what is negated the validator keeps a copy"
    );
    assert!(size(&json!({ "pattern": r"\p{L}{3}1" })) > 100_000);
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
