use proptest::prelude::*;
use serde_json::json;

use super::*;

fn holds(filter: &Value, value: &Value) -> bool {
    Filter::compile(filter).unwrap().accepts(value)
}

fn refused(filter: &Value) -> (String, String) {
    let error = Filter::compile(filter).unwrap_err();
    (error.pointer, error.reason)
}

#[test]
fn it_answers_as_the_library_does() {
    let cases: Vec<(Value, Value, bool)> = serde_json::from_str(include_str!("oracle.json")).unwrap();
    assert!(cases.len() > 500);
    let wrong: Vec<_> = cases
        .iter()
        .filter(|(value, filter, answer)| holds(filter, value) != *answer)
        .map(|(value, filter, answer)| format!("{value} {filter} is {answer}"))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn where_the_library_contradicts_its_manual_the_manual_is_followed() {
    for (value, filter, answer) in [
        (json!({"a": 2}), json!({"a": {"$not": {"$eq": 1}}}), true),
        (json!({"a": 1}), json!({"a": {"$not": {"$eq": 1}}}), false),
        (json!({"a": 2}), json!({"a": {"$not": 1}}), true),
        (json!({"a": 3}), json!({"a": {"$and": [{"$gt": 1}, {"$lt": 5}]}}), true),
        (json!({"a": 7}), json!({"a": {"$and": [{"$gt": 1}, {"$lt": 5}]}}), false),
        (json!({"a": 3}), json!({"a": {"$or": [{"$gt": 1}], "$lt": 2}}), false),
        (
            json!({"o": {"a": 1, "b": 2}}),
            json!({"o": {"$or": [{"a": 1}], "b": 3}}),
            false,
        ),
        (json!({"a": null}), json!({"a": {"$or": [null, 1]}}), true),
        (json!({"a": 3}), json!({"a": {"$gt": 1, "$not": {"$eq": 3}}}), false),
        (json!({"a": {"b": 1}}), json!({"a": {"$or": [{"$eq": {"b": 1}}]}}), true),
    ] {
        assert_eq!(holds(&filter, &value), answer, "{value} {filter}");
    }
}

#[test]
fn integers_are_not_rounded() {
    let filter = json!({"id": 9_007_199_254_740_993_u64});
    assert!(holds(&filter, &json!({"id": 9_007_199_254_740_993_u64})));
    assert!(!holds(&filter, &json!({"id": 9_007_199_254_740_992_u64})));
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_place() {
    for (filter, pointer, says) in [
        (json!([]), "", "a filter is an object"),
        (json!("x"), "", "a filter is an object"),
        (json!({"data": {"a": {"$like": "x"}}}), "/data/a/$like", "$startsWith"),
        (
            json!({"data": {"a": {"$ref": "b"}}}),
            "/data/a/$ref",
            "no operator `$ref`",
        ),
        (json!({"$or": {"a": 1}}), "/$or", "array of conditions"),
        (json!({"$or": []}), "/$or", "array of conditions"),
        (json!({"data": {"$and": 1}}), "/data/$and", "array of conditions"),
        (json!({"a": {"$gt": true}}), "/a/$gt", "a string or a number"),
        (json!({"a": {"$in": [true]}}), "/a/$in", "array of strings and numbers"),
        (json!({"a": {"$startsWith": 1}}), "/a/$startsWith", "array of strings"),
        (json!({"a": {"$exist": "yes"}}), "/a/$exist", "true or false"),
        (json!({"a/b": {"x~y": {"$no": 1}}}), "/a~1b/x~0y/$no", "no operator"),
        (json!({"a": [{"$gt": 1, "b": 2}]}), "/a/0", "do not mix"),
    ] {
        let (at, reason) = refused(&filter);
        assert_eq!(at, pointer, "{filter}: {reason}");
        assert!(reason.contains(says), "{filter}: {reason}");
    }
    assert!(Filter::parse("{").unwrap_err().reason.contains("not JSON"));
}

#[test]
fn a_filter_is_bounded() {
    let long = json!({"a": "x".repeat(FILTER_MAX)});
    assert!(refused(&long).1.contains("bytes"));
    assert!(Filter::parse(&long.to_string()).unwrap_err().reason.contains("bytes"));
    let deep = (0..=DEPTH_MAX).fold(json!(1), |inner, _| json!({"a": inner}));
    assert!(refused(&deep).1.contains("32 deep"));
    let many = json!({"a": {"$or": vec![1; CONDITIONS_MAX]}});
    assert!(refused(&many).1.contains("512 conditions"));
    let many = json!({"a": {"$in": vec![1; CONDITIONS_MAX]}});
    assert!(refused(&many).1.contains("512 conditions"));
}

#[test]
fn an_event_that_would_take_too_long_to_judge_is_not_wanted() {
    let filter = json!({"l": {"$or": (0..250).map(|n| json!({"x": n})).collect::<Vec<_>>()}});
    let event = json!({"l": (0..10_000).map(|_| json!({"x": -1})).collect::<Vec<_>>()});
    assert!(!holds(&json!({"$not": filter}), &event));
}

#[test]
fn an_event_is_what_the_manual_says() {
    let at: jiff::Timestamp = "2024-01-15T10:30:00Z".parse().unwrap();
    let event = proto_schemas::event::Event {
        key: proto_schemas::id::EventKey::of_message(at, 7),
        id: "evt_1".into(),
        project: proto_schemas::id::ProjectId::from_uuid(uuid::Uuid::nil()),
        event_type: "a.b".into(),
        occurred_at: at,
        accepted_at: at,
        attributes: [("region".to_owned(), "eu".to_owned())].into(),
        content_type: String::new(),
        payload: bytes::Bytes::new(),
        traceparent: String::new(),
    };
    let with = Subject::new(&event, Some(json!({"n": 1})));
    let without = Subject::new(&event, None);
    for (filter, answers) in [
        (json!({"id": "evt_1", "type": {"$startsWith": "a."}}), (true, true)),
        (json!({"timestamp": {"$lt": "2024-01-15T10:30:01Z"}}), (true, true)),
        (json!({"attributes": {"region": "eu"}}), (true, true)),
        (json!({"data": {"n": 1}}), (true, false)),
        (json!({"data": {"$exist": false}}), (false, true)),
    ] {
        let filter = Filter::compile(&filter).unwrap();
        assert_eq!((filter.matches(&with), filter.matches(&without)), answers);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9 .+xeInfy-]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        let name = prop_oneof![
            "[a-d]",
            proptest::sample::select(vec![
                "$eq",
                "$neq",
                "$gt",
                "$lte",
                "$in",
                "$nin",
                "$startsWith",
                "$endsWith",
                "$exist",
                "$or",
                "$and",
                "$not"
            ])
            .prop_map(str::to_owned),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(name, inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_makes_it_panic_and_not_is_the_opposite(filter in any_json(), value in any_json()) {
        if let Ok(compiled) = Filter::compile(&filter) {
            let answer = compiled.accepts(&value);
            prop_assert_eq!(compiled.accepts(&value), answer);
            if value.is_object() {
                prop_assert_ne!(holds(&json!({"$not": filter}), &value), answer);
            }
        }
    }

    #[test]
    fn every_object_is_like_itself(value in prop::collection::hash_map("[a-d]", -9..9_i64, 0..4)) {
        let value = Value::Object(value.into_iter().map(|(k, v)| (k, v.into())).collect());
        prop_assert!(holds(&value, &value));
        let exactly = json!({"x": {"$eq": value}});
        let holder = json!({"x": value});
        prop_assert!(holds(&exactly, &holder));
    }
}
