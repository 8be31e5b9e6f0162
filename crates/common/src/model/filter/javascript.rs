//! JavaScript's ways with JSON values (ECMA-262 §7.1, §7.2), which the filter vocabulary is defined by.

use std::cmp::Ordering;

use serde_json::{Number, Value};

/// `a == b` of plain values.
pub(super) fn loosely_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::String(a), Value::String(b)) => a == b,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Number(a), Value::Number(b)) => number_order(a, b) == Some(Ordering::Equal),
        // NaN is equal to nothing.
        (a, b) => to_number(a) == to_number(b),
    }
}

/// `a === b` of plain values.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => number_order(a, b) == Some(Ordering::Equal),
        (a, b) => a == b,
    }
}

/// How two strings or numbers are ordered: texts by their UTF-16, everything else as numbers.
pub(super) fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.encode_utf16().cmp(b.encode_utf16())),
        (Value::Number(a), Value::Number(b)) => number_order(a, b),
        (a, b) => to_number(a).partial_cmp(&to_number(b)),
    }
}

/// Integers as such, everything else as doubles.
fn number_order(a: &Number, b: &Number) -> Option<Ordering> {
    let integer = |number: &Number| number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

/// ToNumber.
fn to_number(value: &Value) -> f64 {
    match value {
        Value::Null => 0.0,
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
        Value::String(text) => text_to_number(text),
        Value::Array(_) | Value::Object(_) => f64::NAN,
    }
}

/// StringToNumber.
fn text_to_number(text: &str) -> f64 {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let radix = |digits: &str, radix: u32| match digits.starts_with(['+', '-']) {
        true => f64::NAN,
        #[expect(clippy::cast_precision_loss, reason = "so does JavaScript")]
        false => u128::from_str_radix(digits, radix).map_or(f64::NAN, |value| value as f64),
    };
    match text.get(..2) {
        _ if text.is_empty() => return 0.0,
        Some("0x" | "0X") => return radix(&text[2..], 16),
        Some("0o" | "0O") => return radix(&text[2..], 8),
        Some("0b" | "0B") => return radix(&text[2..], 2),
        _ => {}
    }
    match text.trim_start_matches(['+', '-']) {
        "Infinity" if text.len() <= "Infinity".len() + 1 => match text.starts_with('-') {
            true => f64::NEG_INFINITY,
            false => f64::INFINITY,
        },
        // Rust would read `inf` and `nan` too.
        digits if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => text.parse().unwrap_or(f64::NAN),
        _ => f64::NAN,
    }
}

/// ToString of a string or number.
pub(super) fn to_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => stringify(value),
    }
}

/// JSON.stringify, but for the order of members that are called like array indices, which JavaScript puts first.
pub(super) fn stringify(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => float(number.as_f64().unwrap_or_default()),
        Value::Array(elements) => {
            let elements: Vec<String> = elements.iter().map(stringify).collect();
            format!("[{}]", elements.join(","))
        }
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), stringify(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        plain => plain.to_string(),
    }
}

/// Number::toString.
fn float(value: f64) -> String {
    let size = value.abs();
    match size {
        0.0 => "0".to_owned(),
        1e-6..1e21 => value.to_string(),
        _ => {
            let text = format!("{value:e}");
            match text.split_once('e') {
                Some((digits, power)) if !power.starts_with('-') => format!("{digits}e+{power}"),
                _ => text,
            }
        }
    }
}
