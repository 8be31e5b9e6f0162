//! Rows and profile → definitions as ingest and dispatcher work by them. Pure.

use std::time::Duration;

use common::profile::Profile;
use jiff::Timestamp;
use proto_schemas::definition::{self, Body, Ordering, RateLimit, SchemaCheck, Signature, WebhookState};
use proto_schemas::id::EventKey;
use store::event_types::EventTypeVersion;
use store::projects::Project;
use store::tokens::Token;
use store::webhook_health::{Check, Health, StoppedState};
use store::webhooks::{self, BodyKind, MaybeSealed, NamedValue, Retry, Webhook};

/// A project's definition.
#[must_use]
pub fn project(project: &Project, profile: &Profile) -> definition::Project {
    definition::Project {
        id: project.id,
        name: project.name.clone(),
        deleted: false,
        schema_check: match project.schema_check.as_deref() {
            Some("off") => SchemaCheck::Off,
            Some("warn") => SchemaCheck::Warn,
            Some("reject") => SchemaCheck::Reject,
            _ => profile.schema_check,
        },
        catalogue: profile.catalogue.clone(),
        event_attributes: profile.event_attributes.clone(),
    }
}

/// A token's definition.
#[must_use]
pub fn token(token: &Token) -> definition::Token {
    definition::Token {
        project: token.project,
        scopes: token.scopes.clone(),
        expires_at: token.expires_at,
        revoked: token.revoked_at.is_some(),
    }
}

/// The definition of a project's own event type; without a version it is gone.
#[must_use]
pub fn event_type(name: &str, versions: &[&EventTypeVersion]) -> definition::EventType {
    definition::EventType {
        name: name.to_owned(),
        versions: versions
            .iter()
            .map(|version| definition::EventTypeVersion {
                version: version.version.clone(),
                schema: version.schema.clone().unwrap_or_default(),
                deprecated: version.deprecated,
            })
            .collect(),
        deleted: versions.is_empty(),
    }
}

/// The definition of an event type that is gone.
#[must_use]
pub fn no_event_type(name: &str) -> definition::EventType {
    event_type(name, &[])
}

/// A webhook's definition: what the webhook says, and where it says nothing, what its project's profile says. A deleted
/// one stays a definition for a while, so that deliveries that come late end with the right reason; it says no more than
/// that.
#[must_use]
pub fn webhook(
    webhook: &Webhook,
    health: Option<&Health>,
    project: &Project,
    profile: &Profile,
) -> definition::Webhook {
    if webhook.deleted_at.is_some() {
        return definition::Webhook {
            project_name: project.name.clone(),
            revision: webhook.revision,
            deleted: true,
            events: Vec::new(),
            ..definition::Webhook::blank(webhook.id, webhook.project)
        };
    }
    let settings = &webhook.settings;
    definition::Webhook {
        id: webhook.id,
        project: webhook.project,
        project_name: project.name.clone(),
        name: webhook.name.clone(),
        revision: webhook.revision,
        deleted: false,
        state: standing(webhook, health).state,
        url: webhook.url.clone(),
        events: webhook.events.clone(),
        headers: webhook
            .headers
            .iter()
            .map(|header| named_value(header.key.to_ascii_lowercase(), header))
            .collect(),
        variables: webhook
            .variables
            .iter()
            .map(|variable| named_value(variable.key.clone(), variable))
            .collect(),
        sealed_secret: webhook.sealed_secret.clone(),
        secrets: webhook.secrets.iter().map(|secret| secret.sealed.clone()).collect(),
        timeout: webhook.timeout.unwrap_or(profile.timeout),
        ladder: match &webhook.retry {
            None => profile.ladder.clone(),
            Some(Retry::Never) => vec![Duration::ZERO],
            Some(Retry::Delays(delays)) => delays.clone(),
        },
        body: match (&settings.transform, settings.body) {
            (Some(transform), _) => Body::Template(transform.to_string()),
            (None, Some(BodyKind::Raw)) => Body::Raw,
            (None, Some(BodyKind::Flat)) => Body::Flat,
            (None, Some(BodyKind::Base64)) => Body::Base64,
            (None, Some(BodyKind::CloudEvents)) => Body::CloudEvents,
            (None, None) => profile.body.clone(),
        },
        signature: match &settings.signature {
            Some(signature) => Signature {
                standard_webhooks: signature.standard_webhooks,
                body_hmac_header: signature.body_hmac_header.clone(),
            },
            None => profile.signature.clone(),
        },
        redirect_is_success: settings.redirect_is_success.unwrap_or(profile.redirect_is_success),
        attributes: webhook.attributes.clone(),
        filter: settings.filter.as_ref().map(ToString::to_string),
        placeholders: profile.placeholders.clone(),
        options: profile
            .options
            .iter()
            .filter(|option| settings.options.get(&option.name).copied().unwrap_or(option.default))
            .map(|option| option.name.clone())
            .collect(),
        max_in_flight: settings.max_in_flight,
        rate_limit: settings.rate_limit.map(rate),
        hold_while_paused: settings.hold_while_paused.unwrap_or(profile.hold_while_paused),
        fail_after: match settings.fail_after {
            Some(0) => None,
            Some(failures) => Some(failures),
            None => profile.fail_after,
        },
        ordering: match &settings.ordering {
            None => Ordering::None,
            Some(webhooks::Ordering::Webhook) => Ordering::Webhook,
            Some(webhooks::Ordering::Key { key }) => Ordering::Key(key.clone()),
        },
        drain_rate: settings.drain_rate.map(rate),
        tls: webhook.tls.as_ref().map(tls),
        authentication: webhook.authentication.as_ref().map(authentication),
    }
}

fn tls(tls: &webhooks::Tls) -> definition::Tls {
    definition::Tls {
        ca: tls.ca.clone(),
        client_certificate: tls
            .client_certificate
            .as_ref()
            .map(|own| definition::ClientCertificate {
                chain: own.chain.clone(),
                sealed_key: own.sealed_key.clone(),
            }),
    }
}

fn authentication(authentication: &webhooks::Authentication) -> definition::Authentication {
    match authentication.clone() {
        webhooks::Authentication::Basic {
            username,
            sealed_password,
        } => definition::Authentication::Basic {
            username,
            sealed_password,
        },
        webhooks::Authentication::ClientCredentials {
            token_url,
            client_id,
            sealed_client_secret,
            scope,
        } => definition::Authentication::ClientCredentials {
            token_url,
            client_id,
            sealed_client_secret,
            scope,
        },
    }
}

fn named_value(name: String, stored: &NamedValue) -> definition::NamedValue {
    definition::NamedValue {
        name,
        value: match &stored.value {
            MaybeSealed::Plain(value) => definition::MaybeSealed::Plain(value.clone()),
            MaybeSealed::Sealed(sealed) => definition::MaybeSealed::Sealed(sealed.clone()),
        },
    }
}

fn rate(limit: webhooks::RateLimit) -> RateLimit {
    RateLimit {
        requests: limit.requests,
        window: Duration::from_millis(limit.window_ms.into()),
    }
}

/// Where a webhook stands, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Where it stands.
    pub state: WebhookState,
    /// Why it gets no events, in one line; `None` where it does.
    pub reason: Option<String>,
    /// Since when, where that is known.
    pub since: Option<Timestamp>,
}

/// Where a webhook stands: paused by its owner's switch; stopped by its deliveries, unless it was restarted since;
/// pending until the endpoint check that it has to pass is passed; else active.
#[must_use]
pub fn standing(webhook: &Webhook, health: Option<&Health>) -> Standing {
    if !webhook.active {
        return Standing {
            state: WebhookState::Paused,
            reason: Some("paused by its owner".to_owned()),
            since: None,
        };
    }
    let stopped = health
        .and_then(|health| health.stopped.as_ref())
        .filter(|stopped| webhook.restarted_at.is_none_or(|restart| stopped.at > restart));
    if let Some(stopped) = stopped {
        return Standing {
            state: match stopped.state {
                StoppedState::Failed => WebhookState::Failed,
                StoppedState::Disabled => WebhookState::Disabled,
            },
            reason: Some(stopped.reason.clone()),
            since: Some(stopped.at),
        };
    }
    let Some(wanted) = webhook.check.map(EventKey::from_uuid) else {
        return ACTIVE;
    };
    let made = health
        .and_then(|health| health.check.as_ref())
        .filter(|made| made.id == wanted);
    let reason = match made {
        Some(Check { error: None, .. }) => return ACTIVE,
        Some(Check { error: Some(error), .. }) => format!("the endpoint check failed: {error}"),
        None => "the endpoint check has not been made yet".to_owned(),
    };
    Standing {
        state: WebhookState::Pending,
        reason: Some(reason),
        // The check's id tells when it was asked for.
        since: Some(wanted.accepted_at()),
    }
}

const ACTIVE: Standing = Standing {
    state: WebhookState::Active,
    reason: None,
    since: None,
};

#[cfg(test)]
mod tests {
    use common::profile::Profiles;
    use proto_schemas::id::{ProjectId, WebhookId};
    use store::webhook_health::Stopped;
    use store::webhooks::Secret;
    use uuid::Uuid;

    use super::*;

    fn rows() -> (Webhook, Project) {
        let project = Project {
            id: ProjectId::from_uuid(Uuid::from_u128(1)),
            name: "shop".to_owned(),
            profile: "cloudthinker".to_owned(),
            schema_check: None,
            alert_emails: Vec::new(),
            created_at: Timestamp::UNIX_EPOCH,
        };
        let webhook = Webhook {
            name: "slack".to_owned(),
            url: "https://example.com/".to_owned(),
            events: vec!["a.*".to_owned()],
            headers: vec![
                NamedValue {
                    key: "X-Team".to_owned(),
                    value: MaybeSealed::Plain("blue".to_owned()),
                },
                NamedValue {
                    key: "Authorization".to_owned(),
                    value: MaybeSealed::Sealed("v1|…".to_owned()),
                },
            ],
            variables: vec![NamedValue {
                key: "routing_key".to_owned(),
                value: MaybeSealed::Sealed("v1|r".to_owned()),
            }],
            secrets: vec![Secret {
                sealed: definition::Secret::before("v1|secret".to_owned(), Timestamp::UNIX_EPOCH),
                public_key: None,
            }],
            sealed_secret: Some("v1|secret".to_owned()),
            tls: Some(webhooks::Tls {
                ca: Some("-----BEGIN…".to_owned()),
                client_certificate: Some(webhooks::ClientCertificate {
                    chain: "-----BEGIN…".to_owned(),
                    sealed_key: "v1|key".to_owned(),
                }),
            }),
            authentication: Some(webhooks::Authentication::Basic {
                username: "posthaste".to_owned(),
                sealed_password: "v1|password".to_owned(),
            }),
            revision: 3,
            ..Webhook::blank(
                WebhookId::from_uuid(Uuid::from_u128(2)),
                project.id,
                Timestamp::UNIX_EPOCH,
            )
        };
        (webhook, project)
    }

    fn resolved(webhook: &Webhook, project: &Project) -> definition::Webhook {
        let profiles = Profiles::load(&common::profile::Config::default()).unwrap();
        super::webhook(webhook, None, project, profiles.get(&project.profile).unwrap())
    }

    #[test]
    fn what_a_webhook_leaves_open_is_the_profiles() {
        let (webhook, project) = rows();
        let definition = resolved(&webhook, &project);
        assert_eq!(definition.ladder.len(), 6);
        assert_eq!(definition.timeout, Duration::from_secs(30));
        assert_eq!(
            definition.signature.body_hmac_header.as_deref(),
            Some("X-CloudThinker-Signature")
        );
        assert_eq!((definition.project_name.as_str(), definition.revision), ("shop", 3));
        assert_eq!(definition.state, WebhookState::Active);
        assert!(!definition.deleted);
    }

    #[test]
    fn what_a_webhook_says_itself_wins() {
        let (mut webhook, project) = rows();
        webhook.retry = Some(Retry::Delays(vec![Duration::ZERO, Duration::from_secs(1)]));
        webhook.timeout = Some(Duration::from_secs(5));
        let definition = resolved(&webhook, &project);
        assert_eq!(definition.ladder, [Duration::ZERO, Duration::from_secs(1)]);
        assert_eq!(definition.timeout, Duration::from_secs(5));
    }

    #[test]
    fn no_retry_is_one_attempt() {
        let (mut webhook, project) = rows();
        webhook.retry = Some(Retry::Never);
        assert_eq!(resolved(&webhook, &project).ladder, [Duration::ZERO]);
    }

    #[test]
    fn headers_go_out_in_lower_case_and_sealed_ones_stay_sealed() {
        let (webhook, project) = rows();
        let headers = resolved(&webhook, &project).headers;
        assert_eq!(headers[0].name, "x-team");
        assert_eq!(headers[1].name, "authorization");
        assert!(matches!(&headers[1].value, definition::MaybeSealed::Sealed(_)));
    }

    #[test]
    fn variables_go_out_under_their_own_names_and_sealed_ones_stay_sealed() {
        let (webhook, project) = rows();
        let variable = definition::NamedValue {
            name: "routing_key".to_owned(),
            value: definition::MaybeSealed::Sealed("v1|r".to_owned()),
        };
        assert_eq!(resolved(&webhook, &project).variables, [variable]);
    }

    #[test]
    fn a_paused_webhook_says_so() {
        let (mut webhook, project) = rows();
        webhook.active = false;
        assert_eq!(resolved(&webhook, &project).state, WebhookState::Paused);
    }

    #[test]
    fn of_a_deleted_webhook_nothing_is_said_but_that_it_is() {
        let (mut webhook, project) = rows();
        let large = "x".repeat(16 << 10);
        webhook.name = large.clone();
        webhook.url = format!("https://example.com/{large}");
        webhook.events = vec![large.clone()];
        webhook.attributes = [(large.clone(), large.clone())].into();
        webhook.settings.transform = Some(large.as_str().into());
        webhook.settings.filter = Some(large.as_str().into());
        webhook.retry = Some(Retry::Delays(vec![Duration::MAX; 50]));
        webhook.deleted_at = Some(Timestamp::UNIX_EPOCH);
        let definition = resolved(&webhook, &project);
        assert!(definition.deleted);
        assert_eq!((definition.id, definition.project), (webhook.id, project.id));
        assert_eq!((definition.project_name.as_str(), definition.revision), ("shop", 3));
        let size = definition.encode().len();
        assert!(size < 200, "{size} bytes");
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn stopped(state: StoppedState, second: i64) -> Health {
        Health {
            stopped: Some(Stopped {
                state,
                reason: "so".to_owned(),
                at: at(second),
            }),
            ..Health::default()
        }
    }

    #[test]
    fn what_stopped_a_webhook_holds_until_it_is_restarted() {
        let (mut webhook, _) = rows();
        for (state, expected) in [
            (StoppedState::Failed, WebhookState::Failed),
            (StoppedState::Disabled, WebhookState::Disabled),
        ] {
            webhook.restarted_at = Some(at(9));
            let found = standing(&webhook, Some(&stopped(state, 10)));
            assert_eq!(found.state, expected);
            assert_eq!((found.reason.as_deref(), found.since), (Some("so"), Some(at(10))));
            webhook.restarted_at = Some(at(10));
            assert_eq!(standing(&webhook, Some(&stopped(state, 10))), ACTIVE);
        }
        webhook.active = false;
        webhook.restarted_at = None;
        let found = standing(&webhook, Some(&stopped(StoppedState::Failed, 10)));
        assert_eq!(found.state, WebhookState::Paused, "the owner's switch comes first");
    }

    #[test]
    fn a_webhook_is_pending_until_the_very_check_it_has_to_pass_is_passed() {
        let (mut webhook, _) = rows();
        let (wanted, other) = (EventKey::of_message(at(100), 1), EventKey::of_message(at(50), 1));
        webhook.check = Some(wanted.as_uuid());
        let checked = |id, error: Option<&str>| Health {
            check: Some(Check {
                id,
                error: error.map(str::to_owned),
            }),
            ..Health::default()
        };
        let found = standing(&webhook, None);
        assert_eq!((found.state, found.since), (WebhookState::Pending, Some(at(100))));
        assert_eq!(standing(&webhook, Some(&checked(other, None))), found);
        let failed = standing(&webhook, Some(&checked(wanted, Some("the receiver answered 404"))));
        assert_eq!(failed.state, WebhookState::Pending);
        assert_eq!(
            failed.reason.as_deref(),
            Some("the endpoint check failed: the receiver answered 404")
        );
        assert_eq!(standing(&webhook, Some(&checked(wanted, None))), ACTIVE);
    }

    #[test]
    fn every_definition_survives_the_way_over_nats() {
        let (webhook, project) = rows();
        let definition = resolved(&webhook, &project);
        assert_eq!(
            definition::Webhook::decode(definition.encode().into()).unwrap(),
            definition
        );
        let profiles = Profiles::load(&common::profile::Config::default()).unwrap();
        let project = super::project(&project, profiles.get(&project.profile).unwrap());
        assert_eq!(definition::Project::decode(project.encode().into()).unwrap(), project);
    }
}
