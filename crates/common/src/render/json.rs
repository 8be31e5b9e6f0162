//! Values of expressions → JSON and text, counted while they are written.

use std::io::Write as _;

use minijinja::value::{Value, ValueKind};

use super::expression::{Failure, is_omit};

/// Longest body a template may make, in bytes. Payloads are at most as large by default, and a receiver of chat messages
/// or tickets takes far less.
pub const OUTPUT_MAX: usize = 256 * 1024;
/// Deepest value a template may give. What is parsed is at most 128 deep.
pub(super) const DEPTH_MAX: usize = 192;

/// Bytes up to [`OUTPUT_MAX`].
#[derive(Debug, Default)]
pub(super) struct Out(Vec<u8>);

impl Out {
    pub(super) fn put(&mut self, text: &[u8]) -> Result<(), Failure> {
        if self.0.len() + text.len() > OUTPUT_MAX {
            return Err(Failure::Size);
        }
        self.0.extend_from_slice(text);
        Ok(())
    }

    pub(super) fn put_string(&mut self, text: &str) -> Result<(), Failure> {
        // Quotes and escapes only add to it, so this is no more than an early end.
        if self.0.len() + text.len() > OUTPUT_MAX {
            return Err(Failure::Size);
        }
        serde_json::to_writer(&mut *self, text).map_err(|_| Failure::Size)
    }

    /// Writes a value as JSON; undefined is null.
    pub(super) fn put_value(&mut self, value: &Value) -> Result<(), Failure> {
        self.put_nested(value, 0)
    }

    fn put_nested(&mut self, value: &Value, depth: usize) -> Result<(), Failure> {
        if depth > DEPTH_MAX {
            return Err(Failure::Depth);
        }
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => self.put(b"null"),
            ValueKind::Bool => self.put(if value.is_true() { b"true" } else { b"false" }),
            ValueKind::Number => serde_json::to_writer(&mut *self, value).map_err(|_| Failure::Size),
            ValueKind::String => self.put_string(value.as_str().unwrap_or_default()),
            ValueKind::Bytes => self.put_string(&String::from_utf8_lossy(value.as_bytes().unwrap_or_default())),
            ValueKind::Seq | ValueKind::Iterable => {
                self.put(b"[")?;
                let mut first = true;
                for element in value.try_iter().into_iter().flatten().filter(|it| !is_omit(it)) {
                    self.comma(&mut first)?;
                    self.put_nested(&element, depth + 1)?;
                }
                self.put(b"]")
            }
            ValueKind::Map => {
                self.put(b"{")?;
                let mut first = true;
                let pairs = value.as_object().and_then(|object| object.try_iter_pairs());
                for (key, element) in pairs.into_iter().flatten().filter(|(_, it)| !is_omit(it)) {
                    self.comma(&mut first)?;
                    match key.as_str() {
                        Some(key) => self.put_string(key)?,
                        None => self.put_string(&text(&key)?)?,
                    }
                    self.put(b":")?;
                    self.put_nested(&element, depth + 1)?;
                }
                self.put(b"}")
            }
            // An iterator that has failed, most likely for lack of fuel.
            ValueKind::Invalid => Err(Failure::Fuel),
            // A function, say.
            _ => self.put(b"null"),
        }
    }

    pub(super) fn comma(&mut self, first: &mut bool) -> Result<(), Failure> {
        match std::mem::take(first) {
            true => Ok(()),
            false => self.put(b","),
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl std::io::Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.put(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(std::io::ErrorKind::StorageFull.into()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A value within a text: nothing for what is missing or null, JSON for objects and arrays.
pub(super) fn text(value: &Value) -> Result<String, Failure> {
    Ok(match value.kind() {
        ValueKind::Undefined | ValueKind::None | ValueKind::Plain => String::new(),
        ValueKind::String => value.as_str().unwrap_or_default().to_owned(),
        _ => {
            let mut out = Out::default();
            out.put_value(value)?;
            out.flush().map_err(|_| Failure::Size)?;
            String::from_utf8_lossy(&out.into_bytes()).into_owned()
        }
    })
}
