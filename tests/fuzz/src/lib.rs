//! What strangers send is read here with anything at all instead.
//!
//! A target is a function that reads bytes as if a stranger had sent them, and panics where something comes of it that
//! must not. `make test` runs each over its corpus and for a second over what can be made of it, the same every time;
//! `make fuzz` has libFuzzer look for more, led by the code that each input reaches.
//!
//! An input that was once a fault stays: a file in `corpus/<target>`, named for what it was.

#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "a target tells what it found by panicking"
)]

mod authentication;
mod event;
pub mod mutate;
mod published;
mod requests;
mod rules;
mod stored;

/// Something that reads what strangers send.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Also the folder of its corpus.
    pub name: &'static str,
    /// Reads these bytes.
    pub run: fn(&[u8]),
    /// Words that mean something there, for what is made of the corpus.
    pub words: &'static [&'static str],
}

/// All of them.
pub const TARGETS: [Target; 11] = [
    Target {
        name: "url",
        run: requests::url,
        words: &[
            "https://",
            "http://",
            "@",
            "\\",
            "127.0.0.1",
            "0x7f",
            "[::ffff:",
            "%2e",
            "。",
            ":8080",
            "#",
            "xn--",
            "⓪",
        ],
    },
    Target {
        name: "retry-after",
        run: requests::retry_after,
        words: &[
            "GMT",
            "Sun, ",
            "Nov",
            "1994",
            "18446744073709551616",
            "1e300",
            "-",
            ":60",
            "9999",
            "inf",
        ],
    },
    Target {
        name: "signature",
        run: requests::signature,
        words: &["whsec_", "whsk_", "whpk_", "=", "+", "/", ".", "\0", "v1,"],
    },
    Target {
        name: "access-token",
        run: authentication::access_token,
        words: &[
            "200\0",
            "\"access_token\":",
            "\"token_type\":",
            "\"expires_in\":",
            "\"error\":",
            "\"Bearer\"",
            "\"invalid_client\"",
            "1e300",
            "-1",
            "\"nan\"",
            "\\n",
            "\\u0000",
            "é",
            ",",
            "{",
        ],
    },
    Target {
        name: "pem",
        run: authentication::pem,
        words: &[
            "-----BEGIN CERTIFICATE-----\n",
            "-----END CERTIFICATE-----\n",
            "-----BEGIN PRIVATE KEY-----\n",
            "-----END PRIVATE KEY-----\n",
            "-----BEGIN EC PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\n",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN X509 CRL-----\n",
            "-----",
            "MII",
            "=",
            "\r\n",
            "\n\n",
            "\0",
        ],
    },
    Target {
        name: "cursor",
        run: stored::cursor,
        words: &["WyI", "bnVsbA", "e30", "=", "-", "_", "LDdd"],
    },
    Target {
        name: "published",
        run: published::published,
        words: &[
            "\nContent-Type: ",
            "\nNats-Msg-Id: acme:",
            "\nPosthaste-Id: ",
            "\nPosthaste-Time: ",
            "\nPosthaste-Attributes: {",
            "\nce-specversion: 1.0",
            "\nce-id: ",
            "\ntraceparent: 00-",
            "application/cloudevents+json",
            "\"specversion\":\"1.0\"",
            "\"datacontenttype\":",
            "\"data_base64\":",
            "events.acme.",
            "posthaste.",
            "\u{7f}",
            "\0",
        ],
    },
    Target {
        name: "wire",
        run: stored::wire,
        words: &["\u{8}\u{1}", "\u{12}\u{10}", "\u{a}", "\u{7f}\u{7f}\u{7f}\u{7f}"],
    },
    Target {
        name: "template",
        run: rules::template,
        words: &[
            "{{",
            "}}",
            "{%",
            "%}",
            "data.",
            "attributes",
            "|",
            "default",
            "[0]",
            "range(9999)",
            "~",
            " if ",
            "\\n",
            "\0",
        ],
    },
    Target {
        name: "filter",
        run: rules::filter,
        words: &[
            "\"$or\":",
            "\"$and\":[",
            "\"$not\":",
            "\"$regex\":",
            "\"$exist\":",
            "\"$ref\":",
            "{}",
            "[",
            "null",
            "1e999",
            "\0",
        ],
    },
    Target {
        name: "schema",
        run: rules::schema,
        words: &[
            "\"$ref\":",
            "\"#\"",
            "\"#/$defs/a\"",
            "\"$dynamicRef\":",
            "\"$id\":",
            "\"pattern\":",
            "\"patternProperties\":",
            "\"propertyNames\":",
            "\"format\":\"regex\"",
            "\"uniqueItems\":true",
            "(a+)+",
            "[ab]{99}",
            "\\\\p{L}{9}",
            "\"allOf\":[",
            "\"anyOf\":[",
            "\"not\":",
            "\"items\":",
            "\"multipleOf\":1e-300",
            "\"unevaluatedProperties\":false",
            "true",
            "\0",
        ],
    },
];

/// The two parts of an input of two.
fn parts(data: &[u8]) -> Option<(&str, &[u8])> {
    let at = data.iter().position(|byte| *byte == 0)?;
    Some((str::from_utf8(&data[..at]).ok()?, &data[at + 1..]))
}
