-- Whatever a statement says or leaves out: who works in one project sees and writes that project's rows alone.
--
-- A session says whose rows it is about: `SET posthaste.project` to a project's id, or to `all`. Where it has said nothing,
-- every statement about these tables is refused, so that forgetting it shows nobody anything, and is not taken for there
-- being nothing. The owner of the tables is held to it as well; superusers and roles with BYPASSRLS never are.

-- Whether this session is about all projects. In policies both stand in subqueries, by which they are asked once in a
-- statement and not once for each row; and this one is a boolean of its own, since that is what keeps the planner's
-- estimates as they are, where `IS NULL` has it expect hardly any row.
CREATE FUNCTION all_in_reach() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT current_setting('posthaste.project', true) = 'all'
$$;

-- The project that this session is about; null: all of them. Refused where it has not said.
CREATE FUNCTION project_in_reach() RETURNS uuid LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    reach text := current_setting('posthaste.project', true);
BEGIN
    IF reach = 'all' THEN
        RETURN NULL;
    ELSIF coalesce(reach, '') = '' THEN
        RAISE insufficient_privilege USING
            MESSAGE = 'this session has not said whose rows it is about',
            HINT = 'SET posthaste.project to a project''s id, or to ''all''.';
    END IF;
    RETURN reach;
END
$$;

-- Rows that name their project. A partition has the policy of its table, too: who names the partition itself is held to
-- the partition's alone.
DO $$
DECLARE
    name regclass;
BEGIN
    FOR name IN
        SELECT named FROM unnest(ARRAY[
            'webhooks', 'event_types', 'tests', 'replays', 'audit_entries', 'events', 'attempts', 'pending_deliveries',
            'rejected_events', 'missing_deliveries', 'operational_events', 'alerts', 'alert_pauses'
        ]::regclass[]) AS named
        UNION ALL
        SELECT inhrelid FROM pg_inherits WHERE inhparent IN ('events'::regclass, 'attempts'::regclass)
    LOOP
        EXECUTE format('CREATE POLICY project ON %s USING (
            (SELECT all_in_reach()) OR project_id = (SELECT project_in_reach()))', name);
    END LOOP;
END
$$;

CREATE POLICY project ON projects
    USING ((SELECT all_in_reach()) OR id = (SELECT project_in_reach()));

CREATE POLICY project ON tokens
    USING ((SELECT all_in_reach()) OR project_id = (SELECT project_in_reach()));
-- Who has changed something in a project may have been an administrator, whose token's name is told.
CREATE POLICY of_no_project ON tokens FOR SELECT
    USING ((SELECT project_in_reach()) IS NOT NULL AND project_id IS NULL);

-- Rows that name their project's webhook, replay or token. What is asked of those is held to their own policies.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'webhook_revisions', 'webhook_health', 'drains', 'stopped_webhooks', 'expiring_secrets'
    ] LOOP
        EXECUTE format('CREATE POLICY project ON %I USING (
            (SELECT all_in_reach()) OR EXISTS (SELECT FROM webhooks WHERE webhooks.id = %I.webhook_id))', name, name);
    END LOOP;
END
$$;
CREATE POLICY project ON replay_progress
    USING ((SELECT all_in_reach())
           OR EXISTS (SELECT FROM replays WHERE replays.id = replay_progress.replay_id));
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['idempotency_keys', 'sessions'] LOOP
        EXECUTE format('CREATE POLICY project ON %I USING (
            (SELECT all_in_reach()) OR EXISTS (SELECT FROM tokens WHERE tokens.id = %I.token_id
                                                               AND tokens.project_id = (SELECT project_in_reach())))', name, name);
    END LOOP;
END
$$;

-- `<kind>.<project>.…`, or a token or test, whose keys name no project and which anybody may have published anew.
CREATE POLICY project ON outbox
    USING ((SELECT all_in_reach()) OR split_part(key, '.', 2) = (SELECT project_in_reach())::text);
CREATE POLICY of_no_project ON outbox FOR INSERT
    WITH CHECK ((SELECT project_in_reach()) IS NOT NULL AND split_part(key, '.', 1) IN ('token', 'test'));

-- Of no project. Up to where the record is reconciled, everybody may know.
CREATE POLICY project ON poisoned_entries USING ((SELECT all_in_reach()) OR (SELECT project_in_reach()) IS NULL);
CREATE POLICY project ON reconciliation USING ((SELECT all_in_reach()) OR (SELECT project_in_reach()) IS NULL);
CREATE POLICY of_no_project ON reconciliation FOR SELECT USING ((SELECT project_in_reach()) IS NOT NULL);

-- All that have a policy by now. FORCE: the services' role is the tables' owner.
DO $$
DECLARE
    name regclass;
BEGIN
    FOR name IN SELECT DISTINCT polrelid FROM pg_policy LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
    END LOOP;
END
$$;

-- A view is otherwise held to what its owner may see, who may be another than who asks.
ALTER VIEW delivery_states SET (security_invoker = true);
