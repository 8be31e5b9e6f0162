//! Secrets that must be kept nowhere: what a test gave away or was given is remembered, and looked for in all that its
//! services and servers have written, in every form that it could have got there in.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// The secrets of one cluster. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Canaries(Arc<Mutex<BTreeMap<String, String>>>);

/// Shorter ones would be found where they are not: a test's `secret` is a word.
const SHORTEST: usize = 16;

impl Canaries {
    /// Remembers a secret; `what` says which it is.
    pub fn add(&self, what: &str, secret: &str) {
        if secret.len() >= SHORTEST {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(secret.to_owned()).or_insert_with(|| what.to_owned());
        }
    }

    /// Remembers what is secret in a request or an answer: secrets, tokens, and values that are protected.
    pub fn add_all(&self, place: &str, body: &Value) {
        match body {
            Value::Object(members) => {
                for name in ["secret", "token", "password", "client_secret"] {
                    // An id that is called so names a secret, and is none.
                    if let Some(secret) = members.get(name).and_then(Value::as_str)
                        && uuid::Uuid::parse_str(secret).is_err()
                    {
                        self.add(&format!("{name} of {place}"), secret);
                    }
                }
                if let Some(key) = members.get("client_key").and_then(Value::as_str) {
                    // Each line, since the ends of lines may be written in many ways.
                    let lines = key.lines().filter(|line| !line.starts_with('-'));
                    lines.for_each(|line| self.add(&format!("client key of {place}"), line));
                }
                if members.get("protected") == Some(&Value::Bool(true))
                    && let Some(secret) = members.get("value").and_then(Value::as_str)
                {
                    self.add(&format!("protected value of {place}"), secret);
                }
                members.values().for_each(|value| self.add_all(place, value));
            }
            Value::Array(values) => values.iter().for_each(|value| self.add_all(place, value)),
            _ => {}
        }
    }

    /// Which secrets stand in a text as they are.
    #[must_use]
    pub fn plain(&self, text: &str) -> Vec<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().filter(|(secret, _)| text.contains(secret.as_str()));
        found.map(|(_, what)| what.clone()).collect()
    }

    /// Looks for every secret in a text; which were found, and in what form.
    #[must_use]
    pub fn find(&self, text: &[u8]) -> Vec<String> {
        self.search().map_or_else(Vec::new, |search| search.find(text))
    }

    /// Looks for every secret in all files below a folder; which were found, in what form, and where.
    #[must_use]
    pub fn find_below(&self, folder: &Path) -> Vec<String> {
        let Some(search) = self.search() else { return Vec::new() };
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                // What is deleted while it is looked at is gone.
                let Ok(metadata) = entry.metadata() else { continue };
                if metadata.is_dir() {
                    folders.push(path);
                } else if metadata.is_file()
                    && let Ok(bytes) = std::fs::read(&path)
                {
                    let told = search.find(&bytes).into_iter();
                    found.extend(told.map(|told| format!("{told} in {}", path.display())));
                }
            }
        }
        found
    }

    fn search(&self) -> Option<Search> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut names, mut patterns) = (Vec::new(), Vec::new());
        for (secret, what) in known.iter() {
            for (form, bytes) in forms(secret) {
                names.push(format!("the {what} {form}"));
                patterns.push(bytes);
            }
        }
        drop(known);
        let built = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::DFA))
            .build(&patterns)
            .ok()?;
        (!names.is_empty()).then_some(Search { names, built })
    }
}

struct Search {
    names: Vec<String>,
    built: AhoCorasick,
}

impl Search {
    fn find(&self, bytes: &[u8]) -> Vec<String> {
        let mut found: Vec<usize> = self
            .built
            .find_iter(bytes)
            .map(|hit| hit.pattern().as_usize())
            .collect();
        found.sort_unstable();
        found.dedup();
        found
            .into_iter()
            .filter_map(|hit| self.names.get(hit).cloned())
            .collect()
    }
}

/// The forms of a secret: as it is and encoded, and the same of the key that it stands for, where it is one in base64.
fn forms(secret: &str) -> Vec<(String, Vec<u8>)> {
    let mut forms = forms_of("", secret.as_bytes());
    let key = ["whsec_", "whsk_"]
        .iter()
        .find_map(|prefix| secret.strip_prefix(prefix));
    if let Some(key) = key.and_then(|text| STANDARD.decode(text).ok()) {
        forms.extend(forms_of("(its key) ", &key));
    }
    forms
}

fn forms_of(of: &str, secret: &[u8]) -> Vec<(String, Vec<u8>)> {
    let hex = |upper: bool| -> String {
        let digit = |byte: &u8| match upper {
            true => format!("{byte:02X}"),
            false => format!("{byte:02x}"),
        };
        secret.iter().map(digit).collect()
    };
    let percent: String = secret
        .iter()
        .map(|byte| match byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            true => char::from(*byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect();
    let mut forms = vec![
        ("as it is".to_owned(), secret.to_vec()),
        ("backwards".to_owned(), secret.iter().rev().copied().collect()),
        ("in hexadecimal".to_owned(), hex(false).into_bytes()),
        ("in hexadecimal".to_owned(), hex(true).into_bytes()),
        ("percent-encoded".to_owned(), percent.into_bytes()),
    ];
    for before in 0..3 {
        // What stands around it in what was encoded decides on the digits at both ends, and on no other.
        let around = [vec![0; before], secret.to_vec()].concat();
        let (first, last) = ((before * 8).div_ceil(6), around.len() * 8 / 6);
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let digits = engine.encode(&around);
            forms.push((
                format!("in base64 from digit {first}"),
                digits.as_bytes()[first..last].to_vec(),
            ));
        }
    }
    forms
        .into_iter()
        .map(|(form, bytes)| (format!("{of}{form}"), bytes))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX+/8=";

    #[test]
    fn a_secret_is_found_in_every_form_and_wherever_it_stands() {
        let canaries = Canaries::default();
        canaries.add("secret", SECRET);
        let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        for text in [
            format!("x{SECRET}y"),
            SECRET.chars().rev().collect(),
            STANDARD.encode(SECRET),
            STANDARD.encode(format!("a{SECRET}b")),
            URL_SAFE_NO_PAD.encode(format!("ab{SECRET}c")),
            SECRET.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D"),
            hex.to_uppercase(),
            hex,
        ] {
            assert!(!canaries.find(text.as_bytes()).is_empty(), "{text}");
        }
        assert!(!canaries.find(&key).is_empty());
        assert_eq!(
            canaries.find(b"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYY+/8="),
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_is_secret_in_a_body_is_known_and_nothing_else() {
        let canaries = Canaries::default();
        canaries.add_all(
            "a webhook",
            &serde_json::json!({
                "secret": "a-secret-of-some-length",
                "token": "01a21451-207c-76af-80e8-39cfc90e99f0",
                "headers": [
                    { "key": "x-api-key", "value": "protected-value-of-some-length", "protected": true },
                    { "key": "x-team", "value": "open-value-of-some-length", "protected": false },
                ],
            }),
        );
        let found = |text: &str| canaries.find(text.as_bytes()).len();
        assert_eq!(found("a-secret-of-some-length, protected-value-of-some-length"), 2);
        assert_eq!(
            found("open-value-of-some-length 01a21451-207c-76af-80e8-39cfc90e99f0"),
            0
        );
    }
}
