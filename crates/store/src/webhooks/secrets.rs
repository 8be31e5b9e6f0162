//! A webhook's signing secrets: one JSON value beside the rest of its row.

use jiff::Timestamp;
use proto_schemas::definition::{self, SecretKind};
use proto_schemas::id::{ProjectId, SecretId, WebhookId};
use serde::{Deserialize, Serialize};
use sqlx::query_as;
use sqlx::types::Json;
use std::collections::BTreeMap;
use uuid::Uuid;

use super::{Authentication, NamedValue, Row, Settings, StoredRetry, Tls, Webhook, secrets};
use crate::time::to_sql;
use crate::{Connection, Error};

/// A signing secret, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// The secret, sealed.
    pub sealed: definition::Secret,
    /// What receivers verify with, where that is no secret.
    pub public_key: Option<String>,
}

impl Secret {
    /// Whether requests made at `now` are signed with it.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.sealed.is_live(now)
    }
}

/// A [`Secret`] in JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    id: Uuid,
    kind: Kind,
    sealed: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    created_at_us: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_us: Option<i64>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    V1,
    V1a,
}

/// Secrets on their way into their column.
pub(super) fn stored(secrets: &[Secret]) -> Vec<Stored> {
    secrets
        .iter()
        .map(|Secret { sealed, public_key }| Stored {
            id: sealed.id.as_uuid(),
            kind: match sealed.kind {
                SecretKind::V1 => Kind::V1,
                SecretKind::V1a => Kind::V1a,
            },
            sealed: sealed.sealed.clone(),
            public_key: public_key.clone(),
            created_at_us: sealed.created_at.as_microsecond(),
            expires_at_us: sealed.expires_at.map(Timestamp::as_microsecond),
        })
        .collect()
}

/// Secrets from their columns; `None` where an instant is beyond all time. `written_beside` is the `sealed_secret` of when
/// they were written: with another one, the release before has replaced them all by that, or by none.
pub(super) fn read(
    stored: Vec<Stored>,
    written_beside: Option<&str>,
    sealed_secret: Option<&str>,
    created_at: Timestamp,
) -> Option<Vec<Secret>> {
    if written_beside != sealed_secret {
        let before = |sealed: &str| Secret {
            sealed: definition::Secret::before(sealed.to_owned(), created_at),
            public_key: None,
        };
        return Some(sealed_secret.map(before).into_iter().collect());
    }
    let secret = |stored: Stored| {
        Some(Secret {
            sealed: definition::Secret {
                id: SecretId::from_uuid(stored.id),
                kind: match stored.kind {
                    Kind::V1 => SecretKind::V1,
                    Kind::V1a => SecretKind::V1a,
                },
                sealed: stored.sealed,
                created_at: Timestamp::from_microsecond(stored.created_at_us).ok()?,
                expires_at: match stored.expires_at_us {
                    None => None,
                    Some(micros) => Some(Timestamp::from_microsecond(micros).ok()?),
                },
            },
            public_key: stored.public_key,
        })
    };
    stored.into_iter().map(secret).collect()
}

/// When the first of them expires.
pub(super) fn first_expiry(secrets: &[Secret]) -> Option<Timestamp> {
    secrets.iter().filter_map(|secret| secret.sealed.expires_at).min()
}

/// Up to `limit` webhooks that have a secret that has expired at `now`, or one that the release before has left behind;
/// deleted webhooks included.
///
/// # Errors
/// Any [`Error`].
pub async fn with_secrets_to_erase(
    connection: &mut Connection,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<(ProjectId, WebhookId)>, Error> {
    let rows = sqlx::query!(
        r#"-- webhooks::with_secrets_to_erase
         SELECT project_id AS "project_id!", id AS "id!" FROM webhooks WHERE secrets_expire_at <= $1
         UNION
         SELECT project_id, id FROM webhooks
         WHERE secrets_of IS DISTINCT FROM sealed_secret OR (deleted_at IS NOT NULL AND secrets <> '[]')
         UNION
         SELECT project_id, id FROM webhooks
         WHERE deleted_at IS NOT NULL AND (tls IS NOT NULL OR authentication IS NOT NULL)
         LIMIT $2"#,
        to_sql(now),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (ProjectId::from_uuid(row.project_id), WebhookId::from_uuid(row.id)))
        .collect())
}

/// The webhook of that id, deleted or not; nobody else changes it until the transaction ends.
///
/// # Errors
/// Any [`Error`].
pub async fn lock(connection: &mut Connection, id: WebhookId) -> Result<Option<Webhook>, Error> {
    let row = query_as!(
        Row,
        r#"-- webhooks::lock
         SELECT id, project_id, name, url, events, headers AS "headers: Json<Vec<NamedValue>>",
                variables AS "variables: Json<Vec<NamedValue>>", sealed_secret,
                secrets AS "secrets: Json<Vec<secrets::Stored>>", secrets_of, active, description,
                labels AS "labels: Json<BTreeMap<String, String>>",
                attributes AS "attributes: Json<BTreeMap<String, String>>", settings AS "settings: Json<Settings>",
                tls AS "tls: Json<Tls>", authentication AS "authentication: Json<Authentication>", check_id,
                restarted_at, retry AS "retry: Json<StoredRetry>", timeout_ms, revision, created_at, updated_at,
                deleted_at
         FROM webhooks WHERE id = $1 FOR UPDATE"#,
        id.as_uuid(),
    )
    .fetch_optional(connection)
    .await?;
    row.map(Webhook::try_from).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn secret(id: u128, kind: SecretKind, expires_at: Option<Timestamp>) -> Secret {
        Secret {
            sealed: definition::Secret {
                id: SecretId::from_uuid(Uuid::from_u128(id)),
                kind,
                sealed: format!("v1|k|n|{id}"),
                created_at: at(5),
                expires_at,
            },
            public_key: (kind == SecretKind::V1a).then(|| "whpk_…".to_owned()),
        }
    }

    fn json(secrets: &[Secret]) -> Vec<Stored> {
        serde_json::from_value(serde_json::to_value(stored(secrets)).unwrap()).unwrap()
    }

    #[test]
    fn secrets_are_read_as_they_were_written() {
        let secrets = vec![
            secret(3, SecretKind::V1a, None),
            secret(2, SecretKind::V1, Some(at(90))),
            secret(1, SecretKind::V1, Some(at(60))),
        ];
        assert_eq!(read(json(&secrets), Some("s"), Some("s"), at(0)).unwrap(), secrets);
        assert_eq!(first_expiry(&secrets), Some(at(60)));
        assert_eq!(first_expiry(&secrets[..1]), None);
    }

    #[test]
    fn what_the_release_before_has_written_since_is_all_there_is() {
        let secrets = [secret(3, SecretKind::V1a, None)];
        let before = definition::Secret::before("new".to_owned(), at(7));
        for written_beside in [None, Some("old")] {
            let found = read(json(&secrets), written_beside, Some("new"), at(7)).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!((&found[0].sealed, &found[0].public_key), (&before, &None));
        }
        assert_eq!(read(json(&secrets), Some("old"), None, at(7)).unwrap(), []);
    }
}
