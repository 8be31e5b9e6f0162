//! `posthaste profiles check FILE`: says whether a file is a profile, before a service is started with it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};
use common::profile::{self, Profile};
use proto_schemas::definition::{Body, SchemaCheck};

/// The subcommand.
pub const NAME: &str = "profiles";

/// Its arguments.
#[must_use]
pub fn command() -> Command {
    Command::new(NAME)
        .about("Looks at profiles: the files that say how a project's webhooks behave")
        .arg_required_else_help(true)
        .subcommand_required(true)
        .subcommand(
            Command::new("check")
                .about("Says whether a file is a profile, and what it says")
                .arg(
                    Arg::new("file")
                        .value_name("FILE")
                        .value_parser(value_parser!(PathBuf))
                        .required(true)
                        .help("The file; its name without .toml is the profile's"),
                ),
        )
}

/// Runs it.
#[must_use]
pub fn run(matches: &ArgMatches) -> ExitCode {
    let Some(file) = matches
        .subcommand_matches("check")
        .and_then(|matches| matches.get_one::<PathBuf>("file"))
    else {
        return ExitCode::FAILURE;
    };
    match profile::check(file) {
        Ok(profile) => {
            print!("{}", summary(&profile));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                eprintln!("  because: {error}");
                source = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// What a profile says, a line each.
fn summary(profile: &Profile) -> String {
    let seconds = |duration: &Duration| format!("{}s", duration.as_secs_f64());
    let names = |names: Vec<&str>| match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    };
    let mut signature = Vec::new();
    if profile.signature.standard_webhooks {
        signature.push("Standard Webhooks");
    }
    signature.extend(profile.signature.body_hmac_header.as_deref());
    let lines = [
        ("profile", profile.name.clone()),
        ("description", profile.description.clone()),
        ("body", body(&profile.body).to_owned()),
        ("signature", names(signature)),
        (
            "attempts",
            profile.ladder.iter().map(seconds).collect::<Vec<_>>().join(", "),
        ),
        (
            "timeout",
            format!(
                "{}, at most {}",
                seconds(&profile.timeout),
                seconds(&profile.timeout_max)
            ),
        ),
        (
            "success",
            if profile.redirect_is_success { "2xx, 3xx" } else { "2xx" }.to_owned(),
        ),
        ("event types", events(profile)),
        (
            "attributes",
            names(profile.event_attributes.iter().map(|it| it.name.as_str()).collect()),
        ),
        (
            "options",
            names(profile.options.iter().map(|it| it.name.as_str()).collect()),
        ),
        (
            "placeholders",
            names(profile.placeholders.iter().map(|it| it.name.as_str()).collect()),
        ),
        (
            "while paused",
            if profile.hold_while_paused { "hold" } else { "drop" }.to_owned(),
        ),
        (
            "failed after",
            profile
                .fail_after
                .map_or("never".to_owned(), |it| format!("{it} attempts in a row")),
        ),
        ("url", url(profile)),
    ];
    lines
        .iter()
        .map(|(what, value)| format!("{what:<14}{value}\n"))
        .collect()
}

const fn body(body: &Body) -> &'static str {
    match body {
        Body::Envelope(_) => "envelope",
        Body::Flat => "flat",
        Body::Raw => "raw",
        Body::Template(_) => "template",
        Body::Base64 => "base64",
        Body::CloudEvents => "cloudevents",
    }
}

fn events(profile: &Profile) -> String {
    let catalogue = profile
        .catalogue
        .as_ref()
        .map_or("the project's own".to_owned(), |name| format!("catalogue {name}"));
    match profile.schema_check {
        SchemaCheck::Off => catalogue,
        check => format!("{catalogue}; schemas: {}", check.as_str()),
    }
}

fn url(profile: &Profile) -> String {
    let mut rules = Vec::new();
    if profile.endpoint_check {
        rules.push("checked first");
    }
    if profile.unique_url {
        rules.push("unique in a project");
    }
    if profile.protected_values_follow_url {
        rules.push("protected values follow it");
    }
    match rules.is_empty() {
        true => "any".to_owned(),
        false => rules.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use common::profile::{Config, Profiles};

    #[test]
    fn a_profile_is_told_in_a_short_table() {
        let profiles = Profiles::load(&Config::default()).unwrap();
        let summary = super::summary(profiles.get("once").unwrap());
        for line in [
            "profile       once\n",
            "body          template\n",
            "attempts      0s, 150s, 180s, 420s, 1020s\n",
            "timeout       20s, at most 20s\n",
            "event types   catalogue once; schemas: reject\n",
            "options       json_payload\n",
            "placeholders  :iccid:, :imsi:, :ip:\n",
            "failed after  5 attempts in a row\n",
            "url           unique in a project, protected values follow it\n",
        ] {
            assert!(summary.contains(line), "{line} is not in\n{summary}");
        }
    }
}
