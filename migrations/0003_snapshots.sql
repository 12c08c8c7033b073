-- Snapshots: how facts leave PostgreSQL. Called by workers (read-through misses) and by the publisher in the jobs.
-- SECURITY DEFINER throughout: the callers' roles have no right on any table. jit = off wherever estimates may look large
-- (here and in later files): compiling took 0.7 s for queries of a millisecond.

-- One row. epoch: a promotion or a point-in-time recovery raises the timeline, so what the new primary says wins over
-- what the lost one had published. A restored dump keeps timeline 1: the runbook raises meta.epoch_manual.
CREATE VIEW billing.current_meta AS
    SELECT m.epoch_manual * 4096 + ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer AS epoch,
           m.catalog_version, m.default_plan
    FROM billing.meta m;

-- Primary only: a standby has no WAL position of its own, and nothing may read snapshots from one.
CREATE FUNCTION billing.epoch() RETURNS integer LANGUAGE plpgsql STABLE
    SECURITY DEFINER SET search_path = billing, pg_temp AS
$$ BEGIN RETURN (SELECT m.epoch FROM current_meta m); END $$;

CREATE FUNCTION billing.stamp(version bigint) RETURNS bigint LANGUAGE plpgsql STABLE
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
BEGIN
    IF version NOT BETWEEN 1 AND 1099511627775 THEN
        RAISE EXCEPTION 'version % is out of range', version USING ERRCODE = '22023';
    END IF;
    RETURN epoch()::bigint << 40 | version;
END $$;

CREATE FUNCTION billing.stamp_text(stamp bigint) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT pg_catalog.lpad(pg_catalog.to_hex(stamp), 16, '0') $$;

CREATE FUNCTION billing.unix(at timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$ SELECT pg_catalog.floor(EXTRACT(epoch FROM at AT TIME ZONE 'UTC'))::bigint $$;

CREATE FUNCTION billing.zone_offset(zone text, at timestamptz) RETURNS integer LANGUAGE sql IMMUTABLE AS
$$ SELECT extract(epoch FROM (at AT TIME ZONE zone) - (at AT TIME ZONE 'UTC'))::integer $$;

-- A time zone around a moment, for hosts, which have no tz database: its offsets from the last five weeks to a year and
-- more ahead, [from, offset in seconds] in order, and how far they hold. Looked up a week apart, then halved to the second.
CREATE FUNCTION billing.zone_spans(zone text, at timestamptz) RETURNS text LANGUAGE plpgsql STABLE
    SET search_path = billing, pg_temp AS $$
DECLARE
    k_week CONSTANT bigint := 7 * 86400;
    v_from bigint := floor(extract(epoch FROM at))::bigint - 5 * k_week;
    v_spans text := '[0,' || zone_offset(zone, to_timestamp(v_from)) || ']';
    c record;
    v_low bigint;
    v_high bigint;
BEGIN
    FOR c IN SELECT s.t, s.o FROM (SELECT g.t, zone_offset(zone_spans.zone, to_timestamp(g.t)) AS o,
                 lag(zone_offset(zone_spans.zone, to_timestamp(g.t))) OVER (ORDER BY g.t) AS before
                 FROM generate_series(v_from, v_from + 62 * k_week, k_week) g(t)) s WHERE s.o <> s.before ORDER BY s.t LOOP
        v_low := c.t - k_week;
        v_high := c.t;
        WHILE v_high - v_low > 1 LOOP
            IF zone_offset(zone, to_timestamp((v_low + v_high) / 2)) = c.o THEN
                v_high := (v_low + v_high) / 2;
            ELSE
                v_low := (v_low + v_high) / 2;
            END IF;
        END LOOP;
        v_spans := v_spans || ',[' || v_high || ',' || c.o || ']';
    END LOOP;
    RETURN '{"spans":[' || v_spans || '],"until":' || v_from + 62 * k_week || '}';
END $$;

-- Concatenation instead of json_build_object: it is compact and a third of the cost, and safe because every text in it is
-- held to a narrow alphabet by a constraint. OFFSET 0 keeps the epoch at one evaluation a query.
CREATE VIEW billing.account_snapshots AS
    SELECT a.id, a.external_id AS account, a.ent_version AS version, e.base | a.ent_version AS stamp,
        '{"id":' || a.id || ',"account":"' || a.external_id
        || '","stamp":"' || billing.stamp_text(e.base | a.ent_version)
        || '","plan":' || a.plan_no || ',"status":"' || a.status
        || '","write_enabled":' || a.write_enabled::text || ',"maintenance":"' || a.maintenance
        || '","enforced":' || a.billing_enforced::text || ',"overage_on":' || a.overage_on::text
        || ',"deleted":' || (a.deleted_at IS NOT NULL)::text
        || ',"grace_until":' || coalesce(billing.unix(a.grace_until)::text, 'null')
        || ',"trial_end":' || coalesce(billing.unix(a.trial_end)::text, 'null')
        || ',"period_end":' || coalesce(billing.unix(a.period_end)::text, 'null')
        || ',"cancel_at":' || coalesce(billing.unix(a.cancel_at)::text, 'null')
        || ',"anchor":' || billing.unix(a.cycle_anchor)
        || ',"zone":' || CASE WHEN a.zone IS NULL THEN 'null' ELSE billing.zone_spans(a.zone, clock_timestamp()) END
        || ',"features":{' || coalesce((
            SELECT string_agg('"' || f.feature_no || '":{"on":' || f.enabled::text || ',"until":'
                || coalesce(billing.unix(f.expires_at)::text, 'null') || '}', ',' ORDER BY f.feature_no)
            FROM billing.account_features f WHERE f.account_id = a.id), '')
        || '},"limits":{' || coalesce((
            SELECT string_agg('"' || l.limit_no || '":{"amount":' || coalesce(l.amount::text, 'null') || ',"until":'
                || coalesce(billing.unix(l.expires_at)::text, 'null') || '}', ',' ORDER BY l.limit_no)
            FROM billing.account_limits l WHERE l.account_id = a.id), '')
        || '}}' AS body
    FROM billing.accounts a
    CROSS JOIN (SELECT m.epoch::bigint << 40 AS base FROM billing.current_meta m OFFSET 0) e;

-- The catalog as hosts hold it. Everything comes from one query snapshot, so stamp and content belong together.
-- Plans that were withdrawn stay listed: accounts may still hold them.
CREATE FUNCTION billing.catalog_document() RETURNS text LANGUAGE sql STABLE
    SECURITY DEFINER SET search_path = billing, pg_temp SET jit = off AS $$
    SELECT '{"stamp":"' || stamp_text(m.epoch::bigint << 40 | m.catalog_version)
        || '","default_plan":' || coalesce(m.default_plan::text, 'null')
        || ',"features":{' || coalesce((SELECT string_agg('"' || feature_key || '":' || feature_no, ',' ORDER BY feature_no)
            FROM features), '')
        || '},"limits":{' || coalesce((SELECT string_agg('"' || limit_key || '":{"no":' || limit_no || ',"period":"' || period
            || coalesce('","length":' || length, '"') || CASE WHEN EXISTS (SELECT FROM plan_limits x
                WHERE x.limit_no = limits.limit_no AND x.overage <> 'none') THEN ',"overage":true}' ELSE '}' END, ',' ORDER BY limit_no)
            FROM limits), '')
        || '},"rates":{' || coalesce((SELECT string_agg('"' || rate_key || '":' || rate_no, ',' ORDER BY rate_no)
            FROM rates), '')
        || '},"credits":{' || coalesce((SELECT string_agg('"' || credit_key || '":' || credit_no, ',' ORDER BY credit_no)
            FROM credit_types), '')
        || '},"stock":{' || coalesce((SELECT string_agg('"' || stock_key || '":' || stock_no, ',' ORDER BY stock_no)
            FROM stocks), '')
        || '},"plans":[' || coalesce((SELECT string_agg('{"no":' || p.plan_no || ',"key":"' || p.plan_key || '","name":'
            || to_json(p.display_name)::text || ',"rank":' || p.rank || ',"free":' || p.is_free::text
            || ',"features":[' || coalesce((SELECT string_agg(f.feature_no::text, ',' ORDER BY f.feature_no)
                FROM plan_features f WHERE f.plan_no = p.plan_no), '')
            || '],"limits":{' || coalesce((SELECT string_agg('"' || l.limit_no || '":' || coalesce(l.amount::text, 'null'),
                ',' ORDER BY l.limit_no) FROM plan_limits l WHERE l.plan_no = p.plan_no), '')
            || '},"rates":{' || coalesce((SELECT string_agg('"' || r.rate_no || '":[' || r.requests || ',' || r.seconds || ']',
                ',' ORDER BY r.rate_no) FROM plan_rates r WHERE r.plan_no = p.plan_no), '')
            || '},"credits":{' || coalesce((SELECT string_agg('"' || c.credit_no || '":' || c.quantity, ',' ORDER BY c.credit_no)
                FROM plan_credits c WHERE c.plan_no = p.plan_no), '')
            || '},"stock":{' || coalesce((SELECT string_agg('"' || s.stock_no || '":' || coalesce(s.amount::text, 'null'),
                ',' ORDER BY s.stock_no) FROM plan_stocks s WHERE s.plan_no = p.plan_no), '')
            || '},"attributes":' || p.attributes::text
            || '}', ',' ORDER BY p.plan_no) FROM plans p), '')
        || ']}'
    FROM current_meta m
$$;

-- Creates the accounts that do not exist yet, each exactly once under any concurrency: whoever loses the race on the
-- unique index waits, then does nothing. Sorted, so that two batches cannot wait for each other in a circle. Ids that
-- are not account ids are passed over: one of them must not fail a batch of other people's requests.
CREATE FUNCTION billing.ensure_accounts(accounts text[]) RETURNS void LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp SET lock_timeout = '250ms' SET jit = off AS $$
DECLARE
    v_plan smallint := (SELECT default_plan FROM meta);
    v_new  bigint[];
BEGIN
    IF v_plan IS NULL THEN
        RAISE EXCEPTION 'no default plan: apply a catalog first' USING ERRCODE = '55000';
    END IF;
    WITH born AS (
        INSERT INTO accounts AS a (external_id, plan_no)
        SELECT DISTINCT u.x COLLATE "C", v_plan FROM unnest(ensure_accounts.accounts) u(x)
        WHERE u.x COLLATE "C" ~ '^[A-Za-z0-9_.@:|-]{1,128}$'
        ORDER BY 1
        ON CONFLICT (external_id) DO NOTHING RETURNING a.id)
    SELECT array_agg(b.id) INTO v_new FROM born b;
    IF v_new IS NULL THEN
        RETURN;
    END IF;
    -- The key does not name the plan: the one-time allocation is once for each account for ever.
    WITH given AS (
        INSERT INTO credit_ledger (account_id, credit_no, action, quantity, balance_after, idem_key, reason)
        SELECT n.id, c.credit_no, 'allocate', c.quantity, c.quantity, 'alloc:free:' || t.credit_key, 'account created'
        FROM unnest(v_new) n(id)
        JOIN plan_credits c ON c.plan_no = v_plan
        JOIN credit_types t USING (credit_no)
        RETURNING account_id, credit_no, quantity)
    INSERT INTO credit_balances (account_id, credit_no, allocated, remaining)
        SELECT g.account_id, g.credit_no, g.quantity, g.quantity FROM given g;
END $$;

-- Read-through for caches. Accounts that exist are only read: no write, no row lock.
-- One row for each account that exists (afterwards), in no order; unknown ones are absent unless created.
-- Held to index look-ups planned once: a plan made while accounts was still empty would read all of it later, until the
-- next ANALYZE.
CREATE FUNCTION billing.snapshots(accounts text[], create_missing boolean)
    RETURNS TABLE (account text, stamp bigint, body text) LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp
    SET plan_cache_mode = force_generic_plan SET jit = off
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
#variable_conflict use_column
DECLARE
    v_seen    text[] := '{}';
    v_missing text[];
BEGIN
    FOR account, stamp, body IN
        SELECT s.account, s.stamp, s.body FROM account_snapshots s WHERE s.account = ANY (snapshots.accounts) LOOP
        v_seen := v_seen || account;
        RETURN NEXT;
    END LOOP;
    IF NOT create_missing OR cardinality(v_seen) >= cardinality(snapshots.accounts) THEN
        RETURN;
    END IF;
    -- Missing is what this answer lacks, not what the table lacks by now: an account born in between must not be lost.
    SELECT array_agg(u.x) INTO v_missing
        FROM (SELECT unnest(snapshots.accounts) EXCEPT SELECT unnest(v_seen)) u(x) WHERE u.x IS NOT NULL;
    IF v_missing IS NOT NULL THEN
        PERFORM ensure_accounts(v_missing);
        RETURN QUERY SELECT s.account, s.stamp, s.body FROM account_snapshots s WHERE s.account = ANY (v_missing);
    END IF;
END $$;
