-- What the operator's command calls: show and set one account. Names in, names out; numbers stay inside.

CREATE FUNCTION billing.iso(at timestamptz) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT pg_catalog.to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') $$;

-- Where each limit of an account stands. Of windows that overlap others issued and used are what counts against the cap;
-- available is what can still be issued, overage too (NULL: without bound), ends the end of the present period (of a sliding window: of its
-- bucket), or, where such a window has nothing left, when it has.
CREATE FUNCTION billing.limit_states(p_account_id bigint)
    RETURNS TABLE (limit_no smallint, issued bigint, used bigint, available bigint, ends timestamptz)
    LANGUAGE sql STABLE SET search_path = billing, pg_temp AS $$
    SELECT e.limit_no,
        coalesce(e.cap - w.room, q.issued, 0), coalesce(e.cap - w.could_be, q.used, 0),
        CASE WHEN e.cap IS NOT NULL AND e.beyond < 4611686018427387904 -- it would pass over NULL
             THEN greatest(0, coalesce(w.room, e.cap - coalesce(q.issued, 0)) + CASE WHEN e.beyond > 0
                 THEN greatest(e.beyond, coalesce(q.charged, 0)) + greatest(0, coalesce(q.spared, 0) - e.cap) ELSE coalesce(q.charged, 0) END) END,
        CASE WHEN w.room < 1 THEN window_resets(e.account_id, e.limit_no, e.kind, e.length, p.no, e.cap, 1, clock_timestamp())
             ELSE b.ends END
    FROM effective_limits e
    CROSS JOIN LATERAL (SELECT period_no(e.kind, e.length, e.anchor, e.zone, clock_timestamp()) AS no) p
    CROSS JOIN LATERAL period_bounds(e.kind, e.anchor, e.zone, p.no) b
    LEFT JOIN quota_periods q ON q.account_id = e.account_id AND q.limit_no = e.limit_no AND q.period = p.no
    LEFT JOIN LATERAL window_room(e.account_id, e.limit_no, e.kind, e.length, p.no, e.cap, clock_timestamp()) w
        ON e.kind IN ('cycle', 'sliding') AND e.cap IS NOT NULL
    WHERE e.account_id = p_account_id
$$;

-- How many of a thing an account may have. cap NULL = unlimited.
CREATE VIEW billing.effective_stocks AS
    SELECT a.id AS account_id, s.stock_no, s.stock_key,
        CASE WHEN a.deleted_at IS NOT NULL THEN 0
             WHEN o.account_id IS NOT NULL THEN o.amount
             WHEN p.plan_no IS NOT NULL THEN p.amount
             ELSE 0 END AS cap,
        CASE WHEN o.account_id IS NOT NULL THEN 'override' ELSE 'plan' END AS origin, o.expires_at
    FROM billing.accounts a
    CROSS JOIN billing.stocks s
    LEFT JOIN billing.account_stocks o ON o.account_id = a.id AND o.stock_no = s.stock_no
        AND (o.expires_at IS NULL OR o.expires_at > clock_timestamp())
    LEFT JOIN billing.plan_stocks p ON p.plan_no = a.plan_no AND p.stock_no = s.stock_no;

-- Everything about one account; NULL when there is none. Limits: null amount = unlimited; overage: how many more are allowed (2^62: any).
CREATE FUNCTION billing.account_show(p_account text) RETURNS jsonb LANGUAGE sql STABLE
    SECURITY DEFINER SET search_path = billing, pg_temp SET jit = off AS $$
    SELECT jsonb_build_object(
        'account', a.external_id, 'id', a.id, 'plan', p.plan_key, 'plan_name', p.display_name, 'status', a.status,
        'stamp', stamp_text(m.epoch::bigint << 40 | a.ent_version), 'version', a.ent_version,
        'write_enabled', a.write_enabled, 'maintenance', a.maintenance, 'billing_enforced', a.billing_enforced,
        'overage_on', a.overage_on, 'deleted', a.deleted_at IS NOT NULL,
        'email', a.email, 'name', a.name, 'stripe_customer_id', a.stripe_customer_id,
        'grace_until', iso(a.grace_until), 'trial_end', iso(a.trial_end), 'period_start', iso(a.period_start),
        'period_end', iso(a.period_end), 'cancel_at', iso(a.cancel_at), 'cycle_anchor', iso(a.cycle_anchor), 'zone', a.zone,
        'created_at', iso(a.created_at),
        'changed_at', iso(a.ent_changed_at),
        'limits', coalesce((SELECT jsonb_object_agg(e.limit_key, jsonb_build_object(
                'amount', e.cap, 'unlimited', e.cap IS NULL, 'origin', e.origin, 'until', iso(e.expires_at),
                'period', e.kind, 'length', e.length, 'issued', coalesce(s.issued, 0), 'used', coalesce(s.used, 0),
                'available', s.available, 'overage', e.beyond, 'ends', iso(s.ends)))
            FROM effective_limits e JOIN limit_states(a.id) s USING (limit_no) WHERE e.account_id = a.id), '{}'),
        'rates', coalesce((SELECT jsonb_object_agg(r.rate_key, x.requests || '/' || x.seconds || 's')
            FROM plan_rates x JOIN rates r USING (rate_no) WHERE x.plan_no = a.plan_no), '{}'),
        'stock', coalesce((SELECT jsonb_object_agg(e.stock_key, jsonb_build_object(
                'amount', e.cap, 'unlimited', e.cap IS NULL, 'origin', e.origin, 'until', iso(e.expires_at),
                'current', coalesce(s.current, 0), 'reserved', coalesce(s.reserved, 0),
                'available', CASE WHEN e.cap < s.current + s.reserved THEN 0 ELSE e.cap - coalesce(s.current + s.reserved, 0) END))
            FROM effective_stocks e LEFT JOIN stock_levels s USING (account_id, stock_no) WHERE e.account_id = a.id), '{}'),
        'features', coalesce((SELECT jsonb_object_agg(f.feature_key, jsonb_build_object(
                'on', coalesce(o.enabled, true), 'origin', CASE WHEN o.account_id IS NULL THEN 'plan' ELSE 'override' END,
                'until', iso(o.expires_at)))
            FROM features f
            LEFT JOIN plan_features pf ON pf.plan_no = a.plan_no AND pf.feature_no = f.feature_no
            LEFT JOIN account_features o ON o.account_id = a.id AND o.feature_no = f.feature_no
                AND (o.expires_at IS NULL OR o.expires_at > clock_timestamp())
            WHERE pf.plan_no IS NOT NULL OR o.account_id IS NOT NULL), '{}'),
        'credits', coalesce((SELECT jsonb_object_agg(t.credit_key, jsonb_build_object('remaining', b.remaining,
                'used', b.used, 'overage', b.overage, 'allocated', b.allocated))
            FROM credit_balances b JOIN credit_types t USING (credit_no) WHERE b.account_id = a.id), '{}'))
    FROM accounts a JOIN plans p USING (plan_no) CROSS JOIN current_meta m
    WHERE a.external_id = p_account
$$;

CREATE FUNCTION billing.account_refuse(message text) RETURNS void LANGUAGE plpgsql SET search_path = billing, pg_temp AS
$$ BEGIN RAISE EXCEPTION '%', message USING ERRCODE = '22023'; END $$;

-- A time from JSON: null, whole unix seconds, or text that PostgreSQL reads as a time.
CREATE FUNCTION billing.account_time(value jsonb, name text) RETURNS timestamptz LANGUAGE plpgsql STABLE
    SET search_path = billing, pg_temp AS $$
DECLARE
    v_time timestamptz;
BEGIN
    CASE jsonb_typeof(value)
        WHEN 'null' THEN RETURN NULL;
        WHEN 'number' THEN v_time := to_timestamp(value::numeric::double precision);
        WHEN 'string' THEN v_time := (value #>> '{}')::timestamptz;
        ELSE PERFORM account_refuse(name || ' must be a time or null');
    END CASE;
    IF NOT isfinite(v_time) THEN
        PERFORM account_refuse(name || ' must be finite');
    END IF;
    RETURN v_time;
EXCEPTION WHEN data_exception THEN
    PERFORM account_refuse(format('%s: %s is not a time', name, value));
END $$;

-- Refuses unknown keys and values before anything is written.
CREATE FUNCTION billing.account_check(p_changes jsonb) RETURNS void LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    c record;
    e record;
BEGIN
    IF p_changes IS NULL OR jsonb_typeof(p_changes) <> 'object' THEN
        PERFORM account_refuse('changes must be an object');
    END IF;
    FOR c IN SELECT x.key, x.value, jsonb_typeof(x.value) AS type, x.value #>> '{}' AS text FROM jsonb_each(p_changes) x LOOP
        CASE
            WHEN c.key = 'plan' THEN
                IF c.type <> 'string' OR NOT EXISTS (SELECT FROM plans WHERE plan_key = c.text) THEN
                    PERFORM account_refuse('unknown plan ' || c.value::text);
                END IF;
            WHEN c.key = 'status' THEN
                IF c.type <> 'string' OR c.text NOT IN ('active', 'trialing', 'past_due', 'canceled', 'unpaid', 'paused',
                                                        'incomplete', 'incomplete_expired') THEN
                    PERFORM account_refuse('unknown status ' || c.value::text);
                END IF;
            WHEN c.key = 'maintenance' THEN
                IF c.type <> 'string' OR c.text NOT IN ('none', 'payment', 'operator') THEN
                    PERFORM account_refuse('maintenance must be none, payment or operator, not ' || c.value::text);
                END IF;
            WHEN c.key IN ('write_enabled', 'billing_enforced', 'overage_on') THEN
                IF c.type <> 'boolean' THEN
                    PERFORM account_refuse(c.key || ' must be true or false, not ' || c.value::text);
                END IF;
            WHEN c.key = 'grace_until' THEN
                PERFORM account_time(c.value, c.key);
            WHEN c.key = 'cycle_anchor' THEN
                IF account_time(c.value, c.key) IS NULL THEN
                    PERFORM account_refuse('cycle_anchor must be a time');
                END IF;
            WHEN c.key = 'zone' THEN
                IF c.type NOT IN ('string', 'null') THEN
                    PERFORM account_refuse('zone must be a time zone, as Europe/Berlin, or null for UTC');
                END IF;
            WHEN c.key IN ('email', 'name') THEN
                IF c.type NOT IN ('string', 'null') THEN
                    PERFORM account_refuse(c.key || ' must be a text or null');
                END IF;
            WHEN c.key IN ('features', 'limits', 'stock') THEN
                IF c.type <> 'object' THEN
                    PERFORM account_refuse(c.key || ' must be an object');
                END IF;
                FOR e IN SELECT x.key, x.value, jsonb_typeof(x.value) AS type FROM jsonb_each(c.value) x LOOP
                    IF c.key = 'features' THEN
                        IF NOT EXISTS (SELECT FROM features WHERE feature_key = e.key) THEN
                            PERFORM account_refuse('unknown feature "' || e.key || '"');
                        ELSIF e.type NOT IN ('boolean', 'null') THEN
                            PERFORM account_refuse('feature "' || e.key || '" must be true, false or null');
                        END IF;
                    ELSIF c.key = 'limits' AND NOT EXISTS (SELECT FROM limits WHERE limit_key = e.key) THEN
                        PERFORM account_refuse('unknown limit "' || e.key || '"');
                    ELSIF c.key = 'stock' AND NOT EXISTS (SELECT FROM stocks WHERE stock_key = e.key) THEN
                        PERFORM account_refuse('unknown stock "' || e.key || '"');
                    ELSIF e.value NOT IN ('null', '"unlimited"')
                          AND NOT (e.type = 'number' AND (e.value #>> '{}') ~ '^\d{1,18}$') THEN
                        PERFORM account_refuse(CASE c.key WHEN 'stock' THEN 'stock "' ELSE 'limit "' END || e.key || '" must be a whole number, "unlimited" or null');
                    END IF;
                END LOOP;
            ELSE
                PERFORM account_refuse('unknown key "' || c.key || '"');
        END CASE;
    END LOOP;
END $$;

-- Changes what the keys of p_changes name and nothing else; answers account_show. NULL when there is no such account.
-- features: true | false | null (drop the override); limits and stock: number | "unlimited" | null (drop the override).
-- The account's row is locked first, so overrides and columns change together and in one order.
CREATE FUNCTION billing.account_set(p_account text, p_changes jsonb, p_actor text) RETURNS jsonb LANGUAGE plpgsql VOLATILE
    SECURITY DEFINER SET search_path = billing, pg_temp SET jit = off AS $$
DECLARE
    v_id     bigint;
    v_actor  text := current_setting('billing.actor', true);
    c        jsonb := p_changes;
BEGIN
    PERFORM account_check(c);
    SELECT a.id INTO v_id FROM accounts a WHERE a.external_id = p_account FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM set_config('billing.actor', coalesce(p_actor, ''), true);
    UPDATE accounts a SET
        plan_no = CASE WHEN c ? 'plan' THEN (SELECT p.plan_no FROM plans p WHERE p.plan_key = c ->> 'plan') ELSE a.plan_no END,
        status = CASE WHEN c ? 'status' THEN c ->> 'status' ELSE a.status END,
        maintenance = CASE WHEN c ? 'maintenance' THEN c ->> 'maintenance' ELSE a.maintenance END,
        write_enabled = CASE WHEN c ? 'write_enabled' THEN (c ->> 'write_enabled')::boolean ELSE a.write_enabled END,
        billing_enforced = CASE WHEN c ? 'billing_enforced' THEN (c ->> 'billing_enforced')::boolean
                           ELSE a.billing_enforced END,
        overage_on = CASE WHEN c ? 'overage_on' THEN (c ->> 'overage_on')::boolean ELSE a.overage_on END,
        grace_until = CASE WHEN c ? 'grace_until' THEN account_time(c -> 'grace_until', 'grace_until') ELSE a.grace_until END,
        cycle_anchor = CASE WHEN c ? 'cycle_anchor' THEN account_time(c -> 'cycle_anchor', 'cycle_anchor')
                       ELSE a.cycle_anchor END,
        zone = CASE WHEN c ? 'zone' THEN c ->> 'zone' ELSE a.zone END,
        email = CASE WHEN c ? 'email' THEN c ->> 'email' ELSE a.email END,
        name = CASE WHEN c ? 'name' THEN c ->> 'name' ELSE a.name END
        WHERE a.id = v_id;

    DELETE FROM account_features x USING features f, jsonb_each(c -> 'features') e
        WHERE x.account_id = v_id AND x.feature_no = f.feature_no AND f.feature_key = e.key AND e.value = 'null';
    INSERT INTO account_features AS x (account_id, feature_no, enabled)
        SELECT v_id, f.feature_no, e.value::boolean FROM jsonb_each(c -> 'features') e
        JOIN features f ON f.feature_key = e.key WHERE e.value <> 'null'
        ON CONFLICT (account_id, feature_no) DO UPDATE
            SET enabled = excluded.enabled, expires_at = NULL, source = excluded.source
        WHERE ROW(x.enabled, x.expires_at, x.source) IS DISTINCT FROM ROW(excluded.enabled, NULL, excluded.source);

    DELETE FROM account_limits x USING limits l, jsonb_each(c -> 'limits') e
        WHERE x.account_id = v_id AND x.limit_no = l.limit_no AND l.limit_key = e.key AND e.value = 'null';
    INSERT INTO account_limits AS x (account_id, limit_no, amount, unlimited)
        SELECT v_id, l.limit_no, CASE WHEN e.value <> '"unlimited"' THEN e.value::bigint END, e.value = '"unlimited"'
        FROM jsonb_each(c -> 'limits') e JOIN limits l ON l.limit_key = e.key WHERE e.value <> 'null'
        ON CONFLICT (account_id, limit_no) DO UPDATE
            SET amount = excluded.amount, unlimited = excluded.unlimited, expires_at = NULL, reason = NULL
        WHERE ROW(x.amount, x.unlimited, x.expires_at) IS DISTINCT FROM ROW(excluded.amount, excluded.unlimited, NULL);

    DELETE FROM account_stocks x USING stocks s, jsonb_each(c -> 'stock') e
        WHERE x.account_id = v_id AND x.stock_no = s.stock_no AND s.stock_key = e.key AND e.value = 'null';
    INSERT INTO account_stocks AS x (account_id, stock_no, amount, unlimited)
        SELECT v_id, s.stock_no, CASE WHEN e.value <> '"unlimited"' THEN e.value::bigint END, e.value = '"unlimited"'
        FROM jsonb_each(c -> 'stock') e JOIN stocks s ON s.stock_key = e.key WHERE e.value <> 'null'
        ON CONFLICT (account_id, stock_no) DO UPDATE
            SET amount = excluded.amount, unlimited = excluded.unlimited, expires_at = NULL, reason = NULL
        WHERE ROW(x.amount, x.unlimited, x.expires_at) IS DISTINCT FROM ROW(excluded.amount, excluded.unlimited, NULL);

    -- Later statements of the caller's transaction are not this actor's.
    PERFORM set_config('billing.actor', coalesce(v_actor, ''), true);
    RETURN account_show(p_account);
END $$;
