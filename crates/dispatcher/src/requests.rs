//! Webhooks ready for requests, as they are defined now.

use std::sync::Arc;

use common::crypto::KeyRing;
use common::egress::{Client, Guard};
use common::request::{Error, Prepared};
use http::HeaderValue;
use papaya::{Compute, Operation};
use proto_schemas::definition::Webhook;
use proto_schemas::id::WebhookId;
use tokio::time::Instant;

use crate::access_token::{AccessToken, Missing};

/// A webhook ready for requests.
pub struct Ready {
    /// What is the same in all of them.
    pub prepared: Prepared,
    access_token: Arc<AccessToken>,
}

impl Ready {
    /// Whether access tokens are had for the webhook by this definition as they are here.
    fn is_authenticated_like(&self, webhook: &Webhook) -> bool {
        let here = &self.prepared.webhook;
        here.authentication == webhook.authentication && here.tls == webhook.tls
    }

    /// The header `authorization` of a request, where it has to be had first. `begun`: when the attempt began.
    ///
    /// # Errors
    /// [`Missing`]
    pub async fn access_token(&self, client: &Client, begun: Instant) -> Result<Option<HeaderValue>, Missing> {
        match &self.prepared.client_credentials {
            None => Ok(None),
            Some(credentials) => self
                .access_token
                .get(credentials, &self.prepared, client, begun)
                .await
                .map(Some),
        }
    }

    /// The receiver has refused this access token: the next request is to have another.
    pub fn refused(&self, access_token: &HeaderValue) {
        self.access_token.refused(access_token);
    }
}

/// Prepared webhooks, each made again when its definition has changed; its access token is kept where that is had as before.
pub struct Requests {
    keys: KeyRing,
    guard: Guard,
    ready: papaya::HashMap<WebhookId, Arc<Ready>>,
}

impl Requests {
    /// None prepared yet.
    #[must_use]
    pub fn new(keys: KeyRing, guard: Guard) -> Self {
        Self {
            keys,
            guard,
            ready: papaya::HashMap::new(),
        }
    }

    /// The webhook, ready for requests.
    ///
    /// # Errors
    /// [`Error`]
    pub fn prepare(&self, webhook: &Arc<Webhook>) -> Result<Arc<Ready>, Error> {
        let ready = self.ready.pin();
        let before = ready.get(&webhook.id);
        let is_it = |found: &Ready| Arc::ptr_eq(&found.prepared.webhook, webhook);
        if let Some(found) = before.filter(|found| is_it(found)) {
            return Ok(Arc::clone(found));
        }
        let access_token = before
            .filter(|before| before.is_authenticated_like(webhook))
            .map(|before| Arc::clone(&before.access_token));
        let made = self.make(webhook, access_token.unwrap_or_default())?;
        // Of several made at once one is everybody's, and so is its access token.
        let kept = ready.compute(webhook.id, |entry| match entry {
            Some((_, found)) if is_it(found) => Operation::Abort(Arc::clone(found)),
            _ => Operation::Insert(Arc::clone(&made)),
        });
        match kept {
            Compute::Aborted(found) => Ok(found),
            _ => Ok(made),
        }
    }

    /// The same of a definition that may never be seen again.
    ///
    /// # Errors
    /// [`Error`]
    pub fn prepare_once(&self, webhook: &Arc<Webhook>) -> Result<Arc<Ready>, Error> {
        self.make(webhook, Arc::default())
    }

    /// Drops those of webhooks that are gone, and with them what was decrypted of them.
    pub fn forget(&self, is_gone: impl Fn(WebhookId) -> bool) {
        self.ready.pin().retain(|webhook, _| !is_gone(*webhook));
    }

    fn make(&self, webhook: &Arc<Webhook>, access_token: Arc<AccessToken>) -> Result<Arc<Ready>, Error> {
        Ok(Arc::new(Ready {
            prepared: Prepared::of(webhook, &self.keys, &self.guard)?,
            access_token,
        }))
    }
}

#[cfg(test)]
mod tests {
    use common::egress::Config;
    use proto_schemas::definition::Authentication;
    use proto_schemas::id::ProjectId;
    use uuid::Uuid;

    use super::*;

    fn requests() -> Requests {
        let keys = KeyRing::parse("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        Requests::new(keys, Guard::new(&Config::default()).unwrap())
    }

    fn webhook() -> Webhook {
        let (id, project) = (Uuid::from_u128(2), Uuid::from_u128(1));
        Webhook {
            url: "https://example.com/".to_owned(),
            ..Webhook::blank(WebhookId::from_uuid(id), ProjectId::from_uuid(project))
        }
    }

    /// In PEM.
    fn certificate() -> String {
        let made = rcgen::generate_simple_self_signed(["id.example.com".to_owned()]).unwrap();
        made.cert.pem()
    }

    #[test]
    fn of_many_made_at_once_one_is_everybodys() {
        let (requests, webhook) = (requests(), Arc::new(webhook()));
        for _ in 0..50 {
            let webhook = Arc::new(Webhook::clone(&webhook));
            let barrier = std::sync::Barrier::new(8);
            let made: Vec<_> = std::thread::scope(|scope| {
                let prepare = || {
                    barrier.wait();
                    requests.prepare(&webhook).unwrap()
                };
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(prepare)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(made.iter().all(|one| Arc::ptr_eq(one, &made[0])));
        }
    }

    #[test]
    fn an_access_token_is_kept_while_it_is_had_in_the_same_way() {
        let requests = requests();
        let first = requests.prepare(&Arc::new(webhook())).unwrap();
        let renamed = Webhook {
            name: "other".to_owned(),
            ..webhook()
        };
        let second = requests.prepare(&Arc::new(renamed)).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&first.access_token, &second.access_token));
        let context = common::crypto::Context {
            project: webhook().project,
            object: webhook().id.as_uuid(),
            field: proto_schemas::definition::SEALED_CLIENT_SECRET,
        };
        let authenticated = Webhook {
            authentication: Some(Authentication::ClientCredentials {
                token_url: "https://id.example.com/".to_owned(),
                client_id: "me".to_owned(),
                sealed_client_secret: requests.keys.seal(&context, b"hush"),
                scope: None,
            }),
            ..webhook()
        };
        let third = requests.prepare(&Arc::new(authenticated.clone())).unwrap();
        assert!(!Arc::ptr_eq(&third.access_token, &second.access_token));
        // The same credentials, shown to the token endpoint in another session.
        let with_tls = Webhook {
            tls: Some(proto_schemas::definition::Tls {
                ca: Some(certificate()),
                client_certificate: None,
            }),
            ..authenticated
        };
        let fourth = requests.prepare(&Arc::new(with_tls)).unwrap();
        assert!(!Arc::ptr_eq(&fourth.access_token, &third.access_token));
    }

    #[test]
    fn of_webhooks_that_are_gone_nothing_is_kept() {
        let requests = requests();
        let stays = requests.prepare(&Arc::new(webhook())).unwrap();
        for number in 100..200 {
            let id = WebhookId::from_uuid(Uuid::from_u128(number));
            let made = requests.prepare(&Arc::new(Webhook { id, ..webhook() })).unwrap();
            let made = Arc::downgrade(&made);
            assert!(made.upgrade().is_some());
            requests.forget(|webhook| webhook == id);
            assert_eq!(requests.ready.len(), 1, "{number}");
        }
        let found = requests.prepare(&stays.prepared.webhook).unwrap();
        assert!(Arc::ptr_eq(&found, &stays));
    }
}
