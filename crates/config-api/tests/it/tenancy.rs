//! The second wall between projects: what Postgres holds every statement to, whatever its conditions are.

use jiff::civil::date;
use proto_schemas::id::{EventKey, ProjectId};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use store::partitions;
use uuid::Uuid;

use crate::support::*;

/// Projects of the tests that speak SQL themselves.
const PROJECTS: [Uuid; 2] = [Uuid::from_u128(0xa), Uuid::from_u128(0xb)];

/// Tables of rows that belong to no project, and of such as name theirs by another row.
const OF_NO_PROJECT: [&str; 2] = ["poisoned_entries", "reconciliation"];

/// Policies beside that of the project: what else may be seen, or begun, in a project.
const BESIDE: [&str; 3] = ["outbox", "reconciliation", "tokens"];

/// A row of a project in every table. `{p}` is the project; `{n}` its number, which tells its rows from others'.
const ROWS: &str = "
    INSERT INTO projects VALUES ('{p}', 'p{n}', 'standard', now());
    INSERT INTO tokens VALUES ('{p}', '{p}', 'own', '\\x0{n}', '{read}', now());
    INSERT INTO webhooks (id, project_id, name, url, events, headers, active, revision, created_at, updated_at)
        VALUES ('{p}', '{p}', 'w', 'https://example.com', '{*}', '[]', true, 1, now(), now());
    INSERT INTO webhook_revisions VALUES ('{p}', 1, '{}', '{p}', now());
    INSERT INTO outbox (key) VALUES ('webhook.{p}.{p}');
    INSERT INTO events VALUES ('{key}', 'e', '{p}', 't', now(), now(), NULL, 'application/json', '', '', '{}', '{}', '{}');
    INSERT INTO attempts (event_key, webhook_id, run, attempt, project_id, event_id, event_type, webhook_revision,
                          started_at, duration_us, outcome, response_truncated, request_sha256, handed_out)
        VALUES ('{key}', '{p}', 0, 1, '{p}', 'e', 't', 1, now(), 1, 'delivered', false, '', 1);
    INSERT INTO pending_deliveries (event_key, webhook_id, run, project_id, state, reason, attempt, release, updated_at)
        VALUES ('{key}', '{p}', 0, '{p}', 'dead', 'r', 1, 0, now());
    INSERT INTO rejected_events VALUES ('{key}', '{p}', 's', 'r', 'd', '', 0, now());
    INSERT INTO event_types (project_id, name, version, description, deprecated, created_at, updated_at)
        VALUES ('{p}', 't', '1', '', false, now(), now());
    INSERT INTO tests VALUES ('{key}', '{p}', 'test', '{p}', '{p}', 't', '', now());
    INSERT INTO idempotency_keys VALUES ('{p}', 'k', '', NULL, now());
    INSERT INTO sessions VALUES (decode(repeat('0{n}', 32), 'hex'), '{p}', now(), now());
    INSERT INTO webhook_health (webhook_id) VALUES ('{p}');
    INSERT INTO missing_deliveries VALUES ('{key}', '{p}', '{p}', 'e', now());
    INSERT INTO drains VALUES ('{p}', now());
    INSERT INTO replays (id, project_id, kind, states, token_id, token_name, created_at)
        VALUES ('{p}', '{p}', 'replay', '{}', '{p}', 'own', now());
    INSERT INTO replay_progress (replay_id, started_at, counted_at, next_look_at) VALUES ('{p}', now(), now(), now());
    INSERT INTO operational_events (id, project_id, type, reason, detail, occurred_at)
        VALUES ('o{n}', '{p}', 't', 'r', '{}', now());
    INSERT INTO stopped_webhooks VALUES ('{p}', now());
    INSERT INTO expiring_secrets VALUES ('{p}', '{p}', now());
    INSERT INTO alerts (project_id, webhook_id, type, events, reason, detail, first_at, last_at)
        VALUES ('{p}', '{p}', 't', 1, 'r', '{}', now(), now());
    INSERT INTO alert_pauses VALUES ('{p}', '{p}', now());
    INSERT INTO audit_entries (id, project_id, token_id, method, path, request_id, begun_at)
        VALUES ('{p}', '{p}', '{p}', 'POST', '/', 'r', now());";

/// And of none.
const ROWS_OF_NONE: &str = "
    INSERT INTO tokens VALUES ('{p}', NULL, 'of all', '\\xff', '{admin}', now());
    INSERT INTO poisoned_entries VALUES (1, now(), 's', 'r', '');
    INSERT INTO reconciliation (checked_to, checked_at, claimed_until) VALUES ('{p}', now(), now());
    INSERT INTO rejected_events VALUES ('{p}', NULL, 's', 'r', 'd', '', 0, now());
    INSERT INTO audit_entries (id, token_id, method, path, request_id, begun_at) VALUES ('{p}', '{p}', 'POST', '/', 'r', now());";

/// A database with the schema, and one day's partitions, made as retry-scheduler does.
async fn migrated(world: &World) -> PgConnection {
    let store = world.store().await;
    store.database().migrate().await.unwrap();
    let mut transaction = store.begin().await.unwrap();
    let day = date(2026, 1, 2);
    assert!(partitions::ensure(&mut transaction, day).await.unwrap());
    transaction.commit().await.unwrap();
    PgConnection::connect(&world.database).await.unwrap()
}

async fn run(connection: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
}

async fn number(connection: &mut PgConnection, sql: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await
}

/// The code of an error of Postgres'.
fn code(error: &sqlx::Error) -> String {
    error.as_database_error().unwrap().code().unwrap().into_owned()
}

/// Tables, partitions among them, each with whether it names the project of its rows.
async fn tables(connection: &mut PgConnection) -> Vec<(String, bool)> {
    let rows = sqlx::query(
        "SELECT relname::text, EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname ~ 'project')
         FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
           AND relname <> '_sqlx_migrations' ORDER BY relname",
    );
    let rows = rows.fetch_all(connection).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// One row of each project in every table, and of none where there may be.
async fn filled(connection: &mut PgConnection) {
    let of = |sql: &str, project: Uuid, n: &str| {
        let project = project.to_string();
        let noon = "2026-01-02T12:00:00Z".parse().unwrap();
        let key = EventKey::of_message(noon, n.parse().unwrap()).to_string();
        sql.replace("{p}", &project).replace("{n}", n).replace("{key}", &key)
    };
    run(connection, "SET posthaste.project = 'all'").await.unwrap();
    for (project, n) in PROJECTS.into_iter().zip(["1", "2"]) {
        run(connection, &of(ROWS, project, n)).await.unwrap();
    }
    run(connection, &of(ROWS_OF_NONE, Uuid::from_u128(0xc), "3"))
        .await
        .unwrap();
}

#[tokio::test]
async fn every_table_is_held_to_the_project() {
    let world = World::new().await;
    let mut connection = migrated(&world).await;
    let tables = tables(&mut connection).await;
    assert!(tables.iter().any(|(name, _)| name == "attempts_20260102"), "{tables:?}");
    for (name, names_project) in &tables {
        let row = sqlx::query(
            "SELECT relrowsecurity AND relforcerowsecurity,
                    (SELECT pg_get_expr(polqual, polrelid) FROM pg_policy
                     WHERE polrelid = c.oid AND polname = 'project' AND polcmd = '*' AND polwithcheck IS NULL),
                    (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid)
             FROM pg_class c WHERE oid = $1::text::regclass",
        );
        let row = row.bind(name).fetch_one(&mut connection).await.unwrap();
        assert!(
            row.get::<bool, _>(0),
            "{name}: ENABLE and FORCE ROW LEVEL SECURITY, as 0014_tenancy.sql does"
        );
        let policy: Option<String> = row.get(1);
        let policy = policy.unwrap_or_else(|| panic!("{name} has no policy `project`; see 0014_tenancy.sql"));
        if *names_project {
            let own = "(( SELECT all_in_reach() AS all_in_reach) OR (project_id = ( SELECT project_in_reach() AS project_in_reach)))";
            assert_eq!(policy, own, "{name}");
        }
        let is_beside = i64::from(BESIDE.contains(&name.as_str()));
        assert_eq!(
            row.get::<i64, _>(2),
            1 + is_beside,
            "{name} has a policy that this test knows nothing of"
        );
    }
    let exempt = "SELECT count(*) FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolbypassrls)";
    assert_eq!(
        number(&mut connection, exempt).await.unwrap(),
        0,
        "nobody is held to it who is exempt"
    );
    let held_to_its_owner =
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'
        AND NOT coalesce(reloptions @> '{security_invoker=true}', false)";
    assert_eq!(number(&mut connection, held_to_its_owner).await.unwrap(), 0);
}

#[tokio::test]
async fn plain_sql_in_a_project_finds_and_changes_nothing_of_another() {
    let world = World::new().await;
    let mut connection = migrated(&world).await;
    filled(&mut connection).await;
    let tables = tables(&mut connection).await;

    // Who has not said is refused, and does not take that for there being nothing.
    run(&mut connection, "SET posthaste.project = ''").await.unwrap();
    for (name, _) in &tables {
        let refused = number(&mut connection, &format!("SELECT count(*) FROM {name}")).await;
        assert_eq!(code(&refused.unwrap_err()), "42501", "{name}");
    }

    for [own, other] in [PROJECTS, [PROJECTS[1], PROJECTS[0]]] {
        for (name, names_project) in &tables {
            let of_no_project = OF_NO_PROJECT.contains(&name.as_str());
            run(&mut connection, "SET posthaste.project = 'all'").await.unwrap();
            let in_all = number(&mut connection, &format!("SELECT count(*) FROM {name}"))
                .await
                .unwrap();
            assert!(
                in_all >= if of_no_project { 1 } else { 2 },
                "{name}: add a row to this test"
            );
            // Another's row, whole.
            let theirs: Option<Value> = match names_project {
                true => {
                    let sql = format!("SELECT to_jsonb(t) FROM {name} t WHERE project_id = '{other}'");
                    Some(
                        sqlx::query_scalar(AssertSqlSafe(sql))
                            .fetch_one(&mut connection)
                            .await
                            .unwrap(),
                    )
                }
                false => None,
            };

            run(&mut connection, &format!("SET posthaste.project = '{own}'"))
                .await
                .unwrap();
            let seen = number(&mut connection, &format!("SELECT count(*) FROM {name}"))
                .await
                .unwrap();
            let of_all = i64::from(name == "tokens" || name == "reconciliation");
            assert_eq!(seen, i64::from(!of_no_project) + of_all, "{name}");
            let column = match names_project {
                true => "project_id",
                false => first_column(&mut connection, name).await,
            };
            for change in [
                format!("DELETE FROM {name}"),
                format!("UPDATE {name} SET {column} = {column}"),
            ] {
                run(&mut connection, "BEGIN").await.unwrap();
                let changed = format!("WITH changed AS ({change} RETURNING 1) SELECT count(*) FROM changed");
                // An identity cannot be updated, by anybody.
                match number(&mut connection, &changed).await {
                    Ok(changed) => assert_eq!(changed, i64::from(!of_no_project), "{change}"),
                    Err(error) => assert_eq!(code(&error), "428C9", "{change}"),
                }
                run(&mut connection, "ROLLBACK").await.unwrap();
            }
            let Some(theirs) = theirs else { continue };
            let insert = format!(
                "INSERT INTO {name} OVERRIDING SYSTEM VALUE SELECT * FROM jsonb_populate_record(NULL::{name}, $1)"
            );
            let inserted = sqlx::query(AssertSqlSafe(insert))
                .bind(theirs)
                .execute(&mut connection)
                .await;
            assert_eq!(code(&inserted.unwrap_err()), "42501", "{name}");
            let given_away = run(&mut connection, &format!("UPDATE {name} SET project_id = '{other}'")).await;
            assert_eq!(code(&given_away.unwrap_err()), "42501", "{name}");
        }
    }
}

async fn first_column(connection: &mut PgConnection, table: &str) -> &'static str {
    let sql = "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum = 1";
    let name: String = sqlx::query_scalar(sql).bind(table).fetch_one(connection).await.unwrap();
    name.leak()
}

async fn names_of_projects(connection: &mut PgConnection) -> String {
    let names = sqlx::query_scalar("SELECT string_agg(name, ' ' ORDER BY name) FROM projects");
    names.fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn a_connection_is_about_what_it_was_handed_out_for_and_about_nothing_when_it_is_back() {
    let world = World::new().await;
    let mut observer = migrated(&world).await;
    filled(&mut observer).await;
    let database = world
        .store_with(&["--database-connections", "1"])
        .await
        .database()
        .clone();
    let [a, b] = PROJECTS.map(ProjectId::from_uuid);
    for (store, expected) in [
        (database.of_project(a), "p1"),
        (database.of_all_projects(), "p1 p2"),
        (database.of_project(b), "p2"),
        (database.of_project_or_all(None), "p1 p2"),
        (database.of_project_or_all(Some(a)), "p1"),
    ] {
        let mut connection = store.connection().await.unwrap();
        assert_eq!(names_of_projects(&mut connection).await, expected);
        drop(connection);
        // What its only connection was told last, since it is back.
        until("nothing is left of it", async || {
            let told = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'one' AND state = 'idle'
                AND datname = current_database() AND query LIKE '%SET posthaste.project = ''''%'";
            number(&mut observer, told).await.unwrap() == 1
        })
        .await;
        let mut transaction = store.begin().await.unwrap();
        assert_eq!(names_of_projects(&mut transaction).await, expected);
        transaction.commit().await.unwrap();
    }
}

#[tokio::test]
async fn who_goes_away_while_a_transaction_begins_leaves_none_to_whoever_comes_next() {
    let world = World::new().await;
    let mut observer = migrated(&world).await;
    let store = world.store_with(&["--database-connections", "1"]).await;
    drop(store.connection().await.unwrap());
    let mut begun = Box::pin(store.begin());
    until("one has begun that nobody has been told of", async || {
        if futures::poll!(&mut begun).is_ready() {
            begun = Box::pin(store.begin());
            return false;
        }
        let has_begun = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'one'
            AND datname = current_database() AND state = 'idle in transaction'";
        number(&mut observer, has_begun).await.unwrap() == 1
    })
    .await;
    drop(begun);

    let mut connection = store.connection().await.unwrap();
    run(
        &mut connection,
        "INSERT INTO projects VALUES (gen_random_uuid(), 'kept', 'standard', now())",
    )
    .await
    .unwrap();
    drop(connection);
    // What would be undone together with a transaction that is dropped.
    drop(store.begin().await.unwrap());
    drop(store.connection().await.unwrap());
    run(&mut observer, "SET posthaste.project = 'all'").await.unwrap();
    assert_eq!(number(&mut observer, "SELECT count(*) FROM projects").await.unwrap(), 1);
}

#[tokio::test]
async fn a_connection_that_broke_while_nobody_used_it_is_replaced() {
    let world = World::new().await;
    let mut observer = migrated(&world).await;
    let database = world
        .store_with(&["--database-connections", "3"])
        .await
        .database()
        .clone();
    let store = database.of_all_projects();
    for round in 0..2 {
        let (one, two, three) = tokio::try_join!(store.connection(), store.connection(), store.connection()).unwrap();
        drop((one, two, three));
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE application_name = 'one' AND datname = current_database()";
        until("they are ended", async || {
            number(&mut observer, end).await.unwrap() == 0
        })
        .await;
        match round {
            0 => drop(store.connection().await.unwrap()),
            _ => store.begin().await.unwrap().rollback().await.unwrap(),
        }
    }
}

/// Takes the conditions of config-api's own statements away: to them, every webhook is of every project.
const NO_FIRST_WALL: &str = "
    SET posthaste.project = 'all';
    ALTER TABLE webhooks RENAME TO kept_webhooks;
    DO $$ DECLARE columns text; BEGIN
        SELECT string_agg(CASE attname WHEN 'project_id' THEN 'projects.id AS project_id' ELSE 'kept.' || attname END, ', '
                          ORDER BY attnum)
        INTO columns FROM pg_attribute WHERE attrelid = 'kept_webhooks'::regclass AND attnum > 0 AND NOT attisdropped;
        EXECUTE format('CREATE VIEW webhooks WITH (security_invoker = true) AS
                        SELECT %s FROM kept_webhooks AS kept CROSS JOIN projects', columns);
    END $$";

#[tokio::test]
async fn a_request_in_a_project_is_shown_nothing_of_another_even_by_statements_without_a_condition() {
    let world = World::new().await;
    let service = world.start().await;
    let client = &service.client;
    for name in ["one", "two"] {
        client.post("/v1/projects", json!({ "name": name })).await;
        let webhooks = format!("/v1/projects/{name}/webhooks");
        client.post(&webhooks, simple(&format!("of-{name}"))).await;
    }
    let token = json!({ "name": "t", "scopes": ["admin"] });
    let token = client.post("/v1/projects/one/tokens", token).await;
    let own = client.with_token(token["token"].as_str().unwrap());
    let names = async |client: &Client, project: &str| {
        let page = client.get(&format!("/v1/projects/{project}/webhooks")).await;
        let mut names: Vec<String> = (page["items"].as_array().unwrap().iter())
            .map(|webhook| webhook["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let mut connection = PgConnection::connect(&world.database).await.unwrap();
    run(&mut connection, NO_FIRST_WALL).await.unwrap();

    // An administrator's request is in its project as well.
    for client in [client, &own] {
        assert_eq!(names(client, "one").await, ["of-one"]);
        let path = "/v1/projects/one/webhooks/of-two";
        assert_eq!(client.call(Method::GET, path, None).await.0, 404);
    }
    assert_eq!(names(client, "two").await, ["of-two"]);
    // What is to be changed is looked for in the same way, in a transaction.
    let change = async |client: &Client, method: Method| {
        let body = (method == Method::PATCH).then(|| json!({ "active": false }));
        let path = "/v1/projects/one/webhooks/of-two";
        client.call(method, path, body).await.0
    };
    for client in [client, &own] {
        for method in [Method::PATCH, Method::DELETE] {
            assert_eq!(change(client, method.clone()).await, 404, "{method}");
        }
    }

    // The test would see what is let through.
    run(&mut connection, "ALTER TABLE kept_webhooks NO FORCE ROW LEVEL SECURITY")
        .await
        .unwrap();
    assert_eq!(names(&own, "one").await, ["of-one", "of-two"]);
    for method in [Method::PATCH, Method::DELETE] {
        assert_ne!(change(&own, method.clone()).await, 404, "{method}");
    }
    service.stop().await;
}
