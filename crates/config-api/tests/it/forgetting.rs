//! What is old is deleted.

use config_api::forgetting::forget_old;
use serde_json::json;

use crate::support::*;

/// What is too old of what is kept, and functions that stand in the way.
const OLD: &str = "
    INSERT INTO idempotency_keys (token_id, key, fingerprint, created_at)
        SELECT (SELECT id FROM tokens), n::text, '', now() - interval '25 hours' FROM generate_series(1, 2500) n;
    INSERT INTO sessions SELECT decode(repeat('01', 32), 'hex'), id, now() - interval '13 hours', now() FROM tokens;
    INSERT INTO audit_entries (id, token_id, method, path, request_id, begun_at)
        SELECT (lpad(to_hex((extract(epoch FROM begun_at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3)
                || '8' || substr(md5(n::text), 4, 15))::uuid, tokens.id, 'POST', '/', 'old', begun_at
        FROM tokens, generate_series(1, 2500) n, LATERAL (SELECT now() - interval '401 days' - n * interval '1 s' AS begun_at) AS old;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
    CREATE FUNCTION refuse_many() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF (SELECT count(*) FROM gone) > 1000 THEN RAISE EXCEPTION 'that is much at once'; END IF; RETURN NULL;
    END $$;
    CREATE TRIGGER refuse_many AFTER DELETE ON audit_entries REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_many();
    CREATE TRIGGER refuse_many AFTER DELETE ON idempotency_keys REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_many();
    CREATE TRIGGER refuse BEFORE DELETE ON audit_entries FOR EACH ROW EXECUTE FUNCTION refuse();";

#[tokio::test]
async fn what_is_old_is_deleted_in_pieces_and_what_stays_of_one_kind_keeps_nothing_of_another() {
    let world = World::new().await;
    let service = world.start().await;
    service.client.post("/v1/projects", json!({ "name": "shop" })).await;
    world.sql(OLD).await;
    let store = world.store().await;
    let forget = async || forget_old(store.database(), common::clock::Clock::System.now()).await;
    let old = "SELECT count(*) FROM audit_entries WHERE request_id = 'old'";

    forget().await;
    assert_eq!(world.number(old).await, 2500);
    for table in ["idempotency_keys", "sessions"] {
        assert_eq!(
            world.number(&format!("SELECT count(*) FROM {table}")).await,
            0,
            "{table}"
        );
    }
    world.sql("DROP TRIGGER refuse ON audit_entries").await;
    forget().await;
    assert_eq!(world.number(old).await, 0);
    assert_eq!(
        world.number("SELECT count(*) FROM audit_entries").await,
        1,
        "what is new stays"
    );
    service.stop().await;
}
