-- Applies the operator's catalog file. Called by `ngx-billing catalog apply`, which has validated it; here constraints and
-- the checks below refuse what makes no sense. Every statement touches only rows that differ, so a second apply of the
-- same document changes nothing and the version stays.

-- The lowest free numbers, for names in the order given. Numbers are what hosts and snapshots carry: they stay with
-- their name for as long as the row exists.
CREATE FUNCTION billing.free_numbers(taken smallint[], low integer, high integer, names text[], what text)
    RETURNS TABLE (no smallint, key text) LANGUAGE plpgsql IMMUTABLE SET search_path = billing, pg_temp AS $$
BEGIN
    IF cardinality(names) > high - low + 1 - cardinality(taken) THEN
        RAISE EXCEPTION 'too many %: at most %', what, high - low + 1 USING ERRCODE = '22023';
    END IF;
    RETURN QUERY SELECT f.n, w.name FROM unnest(names) WITH ORDINALITY w(name, i)
        JOIN (SELECT g.n::smallint, row_number() OVER (ORDER BY g.n) AS i FROM generate_series(low, high) g(n)
              WHERE g.n <> ALL (taken)) f USING (i);
END $$;

CREATE FUNCTION billing.catalog_refuse(message text) RETURNS void LANGUAGE plpgsql SET search_path = billing, pg_temp AS
$$ BEGIN RAISE EXCEPTION 'catalog: %', message USING ERRCODE = '22023'; END $$;

-- A whole number from JSON; anything else (1.5, "3", true) is refused with the path of the value.
CREATE FUNCTION billing.catalog_number(value jsonb, path text) RETURNS bigint LANGUAGE plpgsql IMMUTABLE
    SET search_path = billing, pg_temp AS $$
BEGIN
    IF jsonb_typeof(value) IS DISTINCT FROM 'number' OR value::numeric <> trunc(value::numeric) THEN
        RAISE EXCEPTION 'catalog: % must be a whole number', path USING ERRCODE = '22023';
    END IF;
    RETURN value::numeric::bigint;
END $$;

-- What one unit costs in the currency's smallest unit: "40", "0.25".
CREATE FUNCTION billing.catalog_rate(value jsonb, path text) RETURNS numeric LANGUAGE plpgsql IMMUTABLE
    SET search_path = billing, pg_temp AS $$
BEGIN
    IF jsonb_typeof(value) IS DISTINCT FROM 'string' OR (value #>> '{}') !~ '^\d{1,12}(\.\d{1,6})?$' THEN
        RAISE EXCEPTION 'catalog: % must be an amount, as "40" or "0.25"', path USING ERRCODE = '22023';
    END IF;
    RETURN (value #>> '{}')::numeric;
END $$;

-- The members of an object; absent is empty, anything but an object is refused.
CREATE FUNCTION billing.catalog_members(object jsonb, path text) RETURNS TABLE (key text, value jsonb)
    LANGUAGE plpgsql IMMUTABLE SET search_path = billing, pg_temp AS $$
BEGIN
    IF object IS NULL THEN
        RETURN;
    ELSIF jsonb_typeof(object) <> 'object' THEN
        RAISE EXCEPTION 'catalog: % must be an object', path USING ERRCODE = '22023';
    END IF;
    RETURN QUERY SELECT e.key, e.value FROM jsonb_each(object) e ORDER BY e.key COLLATE "C";
END $$;

-- Seconds of "90s", "10m", "10min", "24h", "7d"; "min" is "1min".
CREATE FUNCTION billing.catalog_seconds(value text, path text) RETURNS integer LANGUAGE plpgsql IMMUTABLE
    SET search_path = billing, pg_temp AS $$
DECLARE
    v_parts text[] := regexp_match(value, '^(\d{0,7})(s|sec|m|min|minute|h|hour|d|day|w)$');
BEGIN
    IF v_parts IS NULL THEN
        RAISE EXCEPTION 'catalog: % must be a time, as "24h"', path USING ERRCODE = '22023';
    END IF;
    RETURN coalesce(nullif(v_parts[1], ''), '1')::integer * CASE left(v_parts[2], 1)
        WHEN 's' THEN 1 WHEN 'm' THEN 60 WHEN 'h' THEN 3600 WHEN 'd' THEN 86400 ELSE 7 * 86400 END;
END $$;

-- A quota's limits: itself where it has one period, QUOTA:WINDOW where it has several windows.
CREATE FUNCTION billing.catalog_limits(document jsonb) RETURNS TABLE (key text, period text, length integer)
    LANGUAGE sql IMMUTABLE SET search_path = billing, pg_temp AS $$
    SELECT x.key, x.value ->> 'period', CASE WHEN x.value ->> 'period' = 'sliding'
               THEN catalog_seconds(coalesce(x.value ->> 'length', ''), x.path || '.length') END
    FROM (SELECT q.key, q.value, 'quotas.' || q.key AS path
              FROM catalog_members(document -> 'quotas', 'quotas') q WHERE NOT q.value ? 'windows'
          UNION ALL
          SELECT q.key || ':' || w.key, w.value, 'quotas.' || q.key || '.windows.' || w.key
              FROM catalog_members(document -> 'quotas', 'quotas') q
              CROSS JOIN LATERAL catalog_members(q.value -> 'windows', 'quotas.' || q.key || '.windows') w) x
$$;

-- What a plan gives of them: one amount, or one for each window. An amount is a number, null, or {"quantity": 50, "overage": {...}}.
CREATE FUNCTION billing.catalog_amounts(plan jsonb, path text) RETURNS TABLE (key text, value jsonb, overage jsonb, path text)
    LANGUAGE sql IMMUTABLE SET search_path = billing, pg_temp AS $$
    SELECT x.key, CASE WHEN x.value ? 'quantity' THEN x.value -> 'quantity' ELSE x.value END,
           CASE WHEN x.value ? 'quantity' THEN x.value -> 'overage' END, x.path
    FROM (SELECT q.key, q.value, catalog_amounts.path || '.' || q.key AS path
              FROM catalog_members(plan -> 'quotas', catalog_amounts.path) q
              WHERE jsonb_typeof(q.value) <> 'object' OR q.value ? 'quantity'
          UNION ALL
          SELECT q.key || ':' || w.key, w.value, catalog_amounts.path || '.' || q.key || '.' || w.key
              FROM catalog_members(plan -> 'quotas', catalog_amounts.path) q
              CROSS JOIN LATERAL catalog_members(CASE WHEN jsonb_typeof(q.value) = 'object' THEN q.value END, '') w
              WHERE NOT q.value ? 'quantity') x
$$;

-- Terms of overage: {"amount": "40", "cap": 1000, "always": true, "meter": "NAME"}, or NULL.
CREATE FUNCTION billing.catalog_overage(value jsonb, path text, OUT overage text, OUT amount numeric, OUT cap bigint, OUT meter text)
    LANGUAGE sql IMMUTABLE SET search_path = billing, pg_temp AS $$
    SELECT CASE WHEN value IS NULL THEN 'none' WHEN value -> 'always' = 'true' THEN 'always' ELSE 'switchable' END,
           CASE WHEN value IS NOT NULL THEN catalog_rate(value -> 'amount', path || '.amount') END,
           CASE WHEN value ? 'cap' THEN catalog_number(value -> 'cap', path || '.cap') END,
           value ->> 'meter'
$$;

-- N of "N%", from 1 to 100.
CREATE FUNCTION billing.catalog_percent(value jsonb, path text) RETURNS integer LANGUAGE plpgsql IMMUTABLE
    SET search_path = billing, pg_temp AS $$
BEGIN
    IF value #>> '{}' !~ '^([1-9]\d?|100)%$' THEN
        RAISE EXCEPTION 'catalog: % must be a part, as "80%%"', path USING ERRCODE = '22023';
    END IF;
    RETURN rtrim(value #>> '{}', '%')::integer;
END $$;

-- What a plan gives of credits: 50, or {"quantity": 50, "warn": "80%", "overage": {"amount": "40", "cap": 1000, "always": true,
-- "meter": "NAME"}}. warn: how much of it is gone when the account is told.
CREATE FUNCTION billing.catalog_credits(plan jsonb, path text)
    RETURNS TABLE (key text, quantity bigint, warn_at bigint, overage text, amount numeric, cap bigint, meter text)
    LANGUAGE sql IMMUTABLE SET search_path = billing, pg_temp AS $$
    SELECT c.key, q.value, div(q.value::numeric * (100 - catalog_percent(coalesce(w.value, '"80%"'), p.path || '.warn')), 100)::bigint,
           o.overage, o.amount, o.cap, o.meter
        FROM catalog_members(plan -> 'credits', catalog_credits.path) c
        CROSS JOIN LATERAL (SELECT catalog_credits.path || '.' || c.key) p(path)
        CROSS JOIN LATERAL (SELECT catalog_number(CASE WHEN jsonb_typeof(c.value) = 'object' THEN c.value -> 'quantity' ELSE c.value END,
            p.path)) q(value)
        CROSS JOIN LATERAL (SELECT CASE WHEN jsonb_typeof(c.value) = 'object' THEN c.value -> 'warn' END) w(value)
        CROSS JOIN LATERAL catalog_overage(CASE WHEN jsonb_typeof(c.value) = 'object' THEN c.value -> 'overage' END, p.path || '.overage') o
$$;

-- Features, limits, rates, credit types and stocks: named in the document, or kept while something still refers to them.
CREATE FUNCTION billing.catalog_apply_names(document jsonb) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    v_names text[];
BEGIN
    IF jsonb_typeof(document -> 'features') <> 'array' THEN
        PERFORM catalog_refuse('features must be a list');
    END IF;
    -- declared ones in the order of the file, then those that only plans name
    SELECT array_agg(x.name ORDER BY x.i, x.name COLLATE "C") INTO v_names FROM (
        SELECT y.name, min(y.i) AS i FROM (
            SELECT e.name, e.i FROM jsonb_array_elements_text(document -> 'features') WITH ORDINALITY e(name, i)
            UNION ALL
            SELECT jsonb_array_elements_text(p.value -> 'features'), 1000000
            FROM catalog_members(document -> 'plans', 'plans') p) y GROUP BY y.name) x
        WHERE x.name NOT IN (SELECT feature_key FROM features);
    INSERT INTO features (feature_no, feature_key)
        SELECT f.no, f.key FROM free_numbers(ARRAY(SELECT feature_no FROM features), 0, 127, v_names, 'features') f;

    SELECT array_agg(q.key) INTO v_names FROM catalog_limits(document) q
        WHERE q.key NOT IN (SELECT limit_key FROM limits);
    INSERT INTO limits (limit_no, limit_key, period, length)
        SELECT f.no, f.key, q.period, q.length
        FROM free_numbers(ARRAY(SELECT limit_no FROM limits), 0, 63, v_names, 'quotas') f
        JOIN catalog_limits(document) q ON q.key = f.key;
    UPDATE limits l SET period = q.period, length = q.length FROM catalog_limits(document) q
        WHERE q.key = l.limit_key AND ROW(l.period, l.length) IS DISTINCT FROM ROW(q.period, q.length);

    SELECT array_agg(r.key) INTO v_names FROM catalog_members(document -> 'rates', 'rates') r
        WHERE r.key NOT IN (SELECT rate_key FROM rates);
    INSERT INTO rates (rate_no, rate_key)
        SELECT f.no, f.key FROM free_numbers(ARRAY(SELECT rate_no FROM rates), 0, 63, v_names, 'rates') f;

    SELECT array_agg(c.key) INTO v_names FROM catalog_members(document -> 'credits', 'credits') c
        WHERE c.key NOT IN (SELECT credit_key FROM credit_types);
    INSERT INTO credit_types (credit_no, credit_key)
        SELECT f.no, f.key FROM free_numbers(ARRAY(SELECT credit_no FROM credit_types), 0, 63, v_names, 'credits') f;

    SELECT array_agg(s.key) INTO v_names FROM catalog_members(document -> 'stock', 'stock') s
        WHERE s.key NOT IN (SELECT stock_key FROM stocks);
    INSERT INTO stocks (stock_no, stock_key)
        SELECT f.no, f.key FROM free_numbers(ARRAY(SELECT stock_no FROM stocks), 0, 63, v_names, 'stock') f;
END $$;

CREATE FUNCTION billing.catalog_apply_plans(document jsonb) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    v_names text[];
BEGIN
    -- Numbers follow rank, so that a first apply reads naturally: the free plan is 1.
    SELECT array_agg(p.key ORDER BY catalog_number(coalesce(p.value -> 'rank', '0'), 'rank'), p.key COLLATE "C")
        INTO v_names FROM catalog_members(document -> 'plans', 'plans') p
        WHERE p.key NOT IN (SELECT plan_key FROM plans);
    INSERT INTO plans (plan_no, plan_key, display_name)
        SELECT f.no, f.key, f.key FROM free_numbers(ARRAY(SELECT plan_no FROM plans), 1, 255, v_names, 'plans') f;
    UPDATE plans p SET display_name = d.name, rank = d.rank, is_free = d.free, active = true, rollover = d.rollover,
            attributes = d.attributes
        FROM (SELECT m.key, coalesce(m.value ->> 'name', m.key) AS name,
                  catalog_number(coalesce(m.value -> 'rank', '0'), 'plans.' || m.key || '.rank')::integer AS rank,
                  coalesce((m.value ->> 'free')::boolean, false) AS free,
                  coalesce((m.value ->> 'rollover')::boolean, false) AS rollover,
                  coalesce(m.value -> 'attributes', '{}') AS attributes
              FROM catalog_members(document -> 'plans', 'plans') m) d
        WHERE d.key = p.plan_key AND ROW(p.display_name, p.rank, p.is_free, p.active, p.rollover, p.attributes)
              IS DISTINCT FROM ROW(d.name, d.rank, d.free, true, d.rollover, d.attributes);

    -- What the document's plans grant. Withdrawn plans keep what they had: accounts may still hold them.
    DELETE FROM plan_features pf USING plans p WHERE p.plan_no = pf.plan_no AND document -> 'plans' ? p.plan_key
        AND NOT coalesce(document -> 'plans' -> p.plan_key -> 'features'
                ? (SELECT f.feature_key FROM features f WHERE f.feature_no = pf.feature_no), false);
    INSERT INTO plan_features (plan_no, feature_no)
        SELECT DISTINCT p.plan_no, f.feature_no FROM catalog_members(document -> 'plans', 'plans') m
        JOIN plans p ON p.plan_key = m.key
        CROSS JOIN LATERAL jsonb_array_elements_text(m.value -> 'features') e(name)
        JOIN features f ON f.feature_key = e.name
        WHERE NOT EXISTS (SELECT FROM plan_features x WHERE x.plan_no = p.plan_no AND x.feature_no = f.feature_no);

    DELETE FROM plan_limits pl USING plans p, limits l WHERE p.plan_no = pl.plan_no AND l.limit_no = pl.limit_no
        AND document -> 'plans' ? p.plan_key
        AND NOT EXISTS (SELECT FROM catalog_amounts(document -> 'plans' -> p.plan_key, '') q WHERE q.key = l.limit_key);
    INSERT INTO plan_limits AS pl (plan_no, limit_no, amount, unlimited, overage, overage_amount, overage_cap, overage_meter)
        SELECT p.plan_no, l.limit_no, CASE WHEN q.value <> 'null' THEN catalog_number(q.value, q.path) END,
               q.value = 'null', o.overage, o.amount, o.cap, o.meter
        FROM catalog_members(document -> 'plans', 'plans') m
        JOIN plans p ON p.plan_key = m.key
        CROSS JOIN LATERAL catalog_amounts(m.value, 'plans.' || m.key || '.quotas') q
        CROSS JOIN LATERAL catalog_overage(q.overage, q.path || '.overage') o
        JOIN limits l ON l.limit_key = q.key
        ON CONFLICT (plan_no, limit_no) DO UPDATE SET amount = excluded.amount, unlimited = excluded.unlimited, overage = excluded.overage,
            overage_amount = excluded.overage_amount, overage_cap = excluded.overage_cap, overage_meter = excluded.overage_meter
        WHERE ROW(pl.amount, pl.unlimited, pl.overage, pl.overage_amount, pl.overage_cap, pl.overage_meter) IS DISTINCT FROM
            ROW(excluded.amount, excluded.unlimited, excluded.overage, excluded.overage_amount, excluded.overage_cap, excluded.overage_meter);

    -- null is no row: without bound
    DELETE FROM plan_rates pr USING plans p, rates r WHERE p.plan_no = pr.plan_no AND r.rate_no = pr.rate_no
        AND document -> 'plans' ? p.plan_key AND (document -> 'plans' -> p.plan_key -> 'rates' ->> r.rate_key) IS NULL;
    INSERT INTO plan_rates AS pr (plan_no, rate_no, requests, seconds)
        SELECT p.plan_no, r.rate_no, catalog_number(to_jsonb(x.parts[1]::bigint), x.path),
               catalog_seconds(x.parts[2], x.path)
        FROM catalog_members(document -> 'plans', 'plans') m
        JOIN plans p ON p.plan_key = m.key
        CROSS JOIN LATERAL (SELECT c.key, 'plans.' || m.key || '.rates.' || c.key AS path,
                coalesce(regexp_match(c.value #>> '{}', '^(\d{1,7})/(.*)$'), ARRAY['0', '']) AS parts
            FROM catalog_members(m.value -> 'rates', 'plans.' || m.key || '.rates') c WHERE c.value <> 'null') x
        JOIN rates r ON r.rate_key = x.key
        ON CONFLICT (plan_no, rate_no) DO UPDATE SET requests = excluded.requests, seconds = excluded.seconds
        WHERE ROW(pr.requests, pr.seconds) IS DISTINCT FROM ROW(excluded.requests, excluded.seconds);

    DELETE FROM plan_stocks ps USING plans p, stocks s WHERE p.plan_no = ps.plan_no AND s.stock_no = ps.stock_no
        AND document -> 'plans' ? p.plan_key
        AND NOT coalesce(document -> 'plans' -> p.plan_key -> 'stock' ? s.stock_key, false);
    INSERT INTO plan_stocks AS ps (plan_no, stock_no, amount, unlimited)
        SELECT p.plan_no, s.stock_no,
               CASE WHEN c.value <> 'null' THEN catalog_number(c.value, 'plans.' || m.key || '.stock.' || c.key) END,
               c.value = 'null'
        FROM catalog_members(document -> 'plans', 'plans') m
        JOIN plans p ON p.plan_key = m.key
        CROSS JOIN LATERAL catalog_members(m.value -> 'stock', 'plans.' || m.key || '.stock') c
        JOIN stocks s ON s.stock_key = c.key
        ON CONFLICT (plan_no, stock_no) DO UPDATE SET amount = excluded.amount, unlimited = excluded.unlimited
        WHERE ROW(ps.amount, ps.unlimited) IS DISTINCT FROM ROW(excluded.amount, excluded.unlimited);

    DELETE FROM plan_credits pc USING plans p, credit_types t WHERE p.plan_no = pc.plan_no
        AND t.credit_no = pc.credit_no AND document -> 'plans' ? p.plan_key
        AND NOT coalesce(document -> 'plans' -> p.plan_key -> 'credits' ? t.credit_key, false);
    INSERT INTO plan_credits AS pc (plan_no, credit_no, quantity, warn_at, overage, overage_amount, overage_cap, overage_meter)
        SELECT p.plan_no, t.credit_no, x.quantity, x.warn_at, x.overage, x.amount, x.cap, x.meter
        FROM catalog_members(document -> 'plans', 'plans') m
        JOIN plans p ON p.plan_key = m.key
        CROSS JOIN LATERAL catalog_credits(m.value, 'plans.' || m.key || '.credits') x
        JOIN credit_types t ON t.credit_key = x.key
        ON CONFLICT (plan_no, credit_no) DO UPDATE SET quantity = excluded.quantity, warn_at = excluded.warn_at,
            overage = excluded.overage, overage_amount = excluded.overage_amount, overage_cap = excluded.overage_cap, overage_meter = excluded.overage_meter
        WHERE ROW(pc.quantity, pc.warn_at, pc.overage, pc.overage_amount, pc.overage_cap, pc.overage_meter) IS DISTINCT FROM
            ROW(excluded.quantity, excluded.warn_at, excluded.overage, excluded.overage_amount, excluded.overage_cap, excluded.overage_meter);
END $$;

-- Prices and packs. A price id belongs to one plan; an id may be absent until it exists at Stripe.
CREATE FUNCTION billing.catalog_apply_prices(document jsonb) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    d record;
BEGIN
    UPDATE plan_prices x SET active = false FROM plans p WHERE p.plan_no = x.plan_no AND x.active
        AND nullif(document #>> ARRAY['plans', p.plan_key, 'price', x.interval, 'id'], '') IS DISTINCT FROM x.price_id;
    DELETE FROM plan_prices x USING plans p WHERE p.plan_no = x.plan_no AND x.price_id IS NULL
        AND document #> ARRAY['plans', p.plan_key, 'price', x.interval] IS NULL;
    FOR d IN SELECT p.plan_no, c.key AS interval, nullif(c.value ->> 'id', '') AS price_id,
                 catalog_number(c.value -> 'amount', 'plans.' || m.key || '.price.' || c.key || '.amount') AS amount,
                 c.value ->> 'currency' AS currency
             FROM catalog_members(document -> 'plans', 'plans') m
             JOIN plans p ON p.plan_key = m.key
             CROSS JOIN LATERAL catalog_members(m.value -> 'price', 'plans.' || m.key || '.price') c LOOP
        UPDATE plan_prices x SET plan_no = d.plan_no, interval = d.interval, amount = d.amount, currency = d.currency,
                active = true
            WHERE (x.price_id = d.price_id
                   OR x.price_id IS NULL AND d.price_id IS NULL AND x.plan_no = d.plan_no AND x.interval = d.interval)
            AND ROW(x.plan_no, x.interval, x.amount, x.currency, x.active)
                IS DISTINCT FROM ROW(d.plan_no, d.interval, d.amount, d.currency, true);
        INSERT INTO plan_prices (plan_no, interval, price_id, amount, currency)
            SELECT d.plan_no, d.interval, d.price_id, d.amount, d.currency WHERE NOT EXISTS (
                SELECT FROM plan_prices x WHERE x.price_id = d.price_id
                OR x.price_id IS NULL AND d.price_id IS NULL AND x.plan_no = d.plan_no AND x.interval = d.interval);
    END LOOP;

    UPDATE packs x SET active = false WHERE x.active AND NOT coalesce(document -> 'packs' ? x.pack_key, false);
    -- An id that another pack has from now on: one that got another name, or two that change theirs with each other.
    UPDATE packs x SET price_id = NULL FROM catalog_members(document -> 'packs', 'packs') c
        WHERE x.price_id = c.value #>> '{price,id}' AND x.pack_key <> c.key;
    INSERT INTO packs AS x (pack_key, credit_no, quantity, price_id, amount, currency)
        SELECT c.key, t.credit_no, catalog_number(c.value -> 'quantity', 'packs.' || c.key || '.quantity'),
               nullif(c.value #>> '{price,id}', ''),
               catalog_number(c.value #> '{price,amount}', 'packs.' || c.key || '.price.amount'),
               c.value #>> '{price,currency}'
        FROM catalog_members(document -> 'packs', 'packs') c
        JOIN credit_types t ON t.credit_key = c.value ->> 'credit'
        ON CONFLICT (pack_key) DO UPDATE SET credit_no = excluded.credit_no, quantity = excluded.quantity,
            price_id = excluded.price_id, amount = excluded.amount, currency = excluded.currency, active = true
        WHERE ROW(x.credit_no, x.quantity, x.price_id, x.amount, x.currency, x.active) IS DISTINCT FROM
            ROW(excluded.credit_no, excluded.quantity, excluded.price_id, excluded.amount, excluded.currency, true);
END $$;

-- Names that point nowhere. (Features need no declaration.)
CREATE FUNCTION billing.catalog_check(document jsonb) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    v_bad text;
BEGIN
    IF document IS NULL OR jsonb_typeof(document) <> 'object' THEN
        PERFORM catalog_refuse('the document must be an object');
    ELSIF (SELECT count(*) FROM catalog_members(document -> 'plans', 'plans')) = 0 THEN
        PERFORM catalog_refuse('plans must name at least one plan');
    ELSIF NOT coalesce(document -> 'plans' ? (document ->> 'default_plan'), false) THEN
        PERFORM catalog_refuse('default_plan must be one of the plans');
    END IF;
    SELECT 'plans.' || p.key || ' must be an object' INTO v_bad
        FROM catalog_members(document -> 'plans', 'plans') p WHERE jsonb_typeof(p.value) <> 'object';
    IF v_bad IS NOT NULL THEN
        PERFORM catalog_refuse(v_bad);
    END IF;
    SELECT x.path || ' is not declared' INTO v_bad FROM (
        SELECT q.path FROM catalog_members(document -> 'plans', 'plans') p
            CROSS JOIN LATERAL catalog_amounts(p.value, 'plans.' || p.key || '.quotas') q
            WHERE q.key NOT IN (SELECT l.key FROM catalog_limits(document) l)
        UNION ALL
        SELECT 'plans.' || p.key || '.rates.' || r.key FROM catalog_members(document -> 'plans', 'plans') p
            CROSS JOIN LATERAL catalog_members(p.value -> 'rates', 'plans.' || p.key || '.rates') r
            WHERE NOT coalesce(document -> 'rates' ? r.key, false)
        UNION ALL
        SELECT 'plans.' || p.key || '.credits.' || c.key FROM catalog_members(document -> 'plans', 'plans') p
            CROSS JOIN LATERAL catalog_members(p.value -> 'credits', 'plans.' || p.key || '.credits') c
            WHERE NOT coalesce(document -> 'credits' ? c.key, false)
        UNION ALL
        SELECT 'plans.' || p.key || '.stock.' || c.key FROM catalog_members(document -> 'plans', 'plans') p
            CROSS JOIN LATERAL catalog_members(p.value -> 'stock', 'plans.' || p.key || '.stock') c
            WHERE NOT coalesce(document -> 'stock' ? c.key, false)
        UNION ALL
        SELECT 'packs.' || k.key || '.credit' FROM catalog_members(document -> 'packs', 'packs') k
            WHERE NOT coalesce(document -> 'credits' ? (k.value ->> 'credit'), false)) x;
    IF v_bad IS NOT NULL THEN
        PERFORM catalog_refuse(v_bad);
    END IF;
    SELECT q.path || '.overage is for quotas whose period ends, and for amounts that are not null' INTO v_bad
        FROM catalog_members(document -> 'plans', 'plans') p
        CROSS JOIN LATERAL catalog_amounts(p.value, 'plans.' || p.key || '.quotas') q
        JOIN catalog_limits(document) l ON l.key = q.key
        WHERE q.overage IS NOT NULL AND (l.period IN ('sliding', 'lifetime') OR q.value = 'null');
    IF v_bad IS NOT NULL THEN
        PERFORM catalog_refuse(v_bad);
    END IF;
    SELECT 'plans.' || p.key || '.attributes must be an object of at most 32 texts of printable ASCII, whole numbers, true or '
            'false, under names of a-z 0-9 _' INTO v_bad
        FROM catalog_members(document -> 'plans', 'plans') p
        WHERE NOT valid_attributes(coalesce(p.value -> 'attributes', '{}'));
    IF v_bad IS NOT NULL THEN
        PERFORM catalog_refuse(v_bad);
    END IF;
END $$;

-- The document with the ids that its prices have got at Stripe (ngx-billing catalog push), where it names none itself and
-- the price is still the same.
CREATE FUNCTION billing.catalog_with_ids(document jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    v_document jsonb := document;
    x          record;
BEGIN
    FOR x IN
        SELECT ARRAY['plans', m.key, 'price', c.key] AS path, y.price_id
        FROM catalog_members(document -> 'plans', 'plans') m
        CROSS JOIN LATERAL catalog_members(m.value -> 'price', 'plans.' || m.key || '.price') c
        JOIN plans p ON p.plan_key = m.key
        CROSS JOIN LATERAL (SELECT z.price_id FROM plan_prices z WHERE z.plan_no = p.plan_no AND z.interval = c.key
            AND to_jsonb(z.amount) = c.value -> 'amount' AND z.currency = c.value ->> 'currency' AND z.price_id IS NOT NULL
            ORDER BY z.active DESC, z.price_no DESC LIMIT 1) y
        WHERE coalesce(c.value ->> 'id', '') = ''
        UNION ALL
        SELECT ARRAY['packs', c.key, 'price'], k.price_id FROM catalog_members(document -> 'packs', 'packs') c
        JOIN packs k ON k.pack_key = c.key AND k.price_id IS NOT NULL AND to_jsonb(k.amount) = c.value #> '{price,amount}'
            AND k.currency = c.value #>> '{price,currency}'
        WHERE coalesce(c.value #>> '{price,id}', '') = ''
    LOOP
        v_document := jsonb_set(v_document, x.path || 'id'::text, to_jsonb(x.price_id));
    END LOOP;
    RETURN v_document;
END $$;

-- All or nothing, one at a time (the lock on meta). Plans that left the file stay, inactive, if accounts hold them or they have
-- ever been for sale at Stripe: somebody may pay for one, or go on paying.
CREATE FUNCTION billing.catalog_apply(document jsonb) RETURNS jsonb LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp SET jit = off AS $$
DECLARE
    v_before bigint;
    v_after  bigint;
BEGIN
    SELECT catalog_version INTO v_before FROM meta FOR NO KEY UPDATE;
    PERFORM catalog_check(document);
    document := catalog_with_ids(document);
    PERFORM catalog_apply_names(document);
    PERFORM catalog_apply_plans(document);
    PERFORM catalog_apply_prices(document);

    UPDATE meta SET default_plan = n.plan_no, credits_policy = n.credits, free_realloc = n.free_realloc
        FROM (SELECT p.plan_no, coalesce(document #>> '{policies,credits}', 'keep_used') AS credits,
                  coalesce((document #>> '{policies,free_realloc}')::boolean, false) AS free_realloc
              FROM plans p WHERE p.plan_key = document ->> 'default_plan') n
        WHERE ROW(meta.default_plan, meta.credits_policy, meta.free_realloc)
            IS DISTINCT FROM ROW(n.plan_no, n.credits, n.free_realloc);
    DELETE FROM plans p WHERE NOT document -> 'plans' ? p.plan_key
        AND NOT EXISTS (SELECT FROM accounts a WHERE a.plan_no = p.plan_no)
        AND NOT EXISTS (SELECT FROM plan_prices x WHERE x.plan_no = p.plan_no AND x.price_id IS NOT NULL)
        AND NOT EXISTS (SELECT FROM subscriptions s WHERE s.plan_no = p.plan_no);
    UPDATE plans p SET active = false WHERE p.active AND NOT document -> 'plans' ? p.plan_key;
    DELETE FROM features f WHERE NOT coalesce(document -> 'features' ? f.feature_key, false)
        AND NOT EXISTS (SELECT FROM plan_features x WHERE x.feature_no = f.feature_no)
        AND NOT EXISTS (SELECT FROM account_features x WHERE x.feature_no = f.feature_no);
    DELETE FROM rates r WHERE NOT coalesce(document -> 'rates' ? r.rate_key, false)
        AND NOT EXISTS (SELECT FROM plan_rates x WHERE x.rate_no = r.rate_no);
    DELETE FROM limits l WHERE l.limit_key NOT IN (SELECT q.key FROM catalog_limits(document) q)
        AND NOT EXISTS (SELECT FROM plan_limits x WHERE x.limit_no = l.limit_no)
        AND NOT EXISTS (SELECT FROM account_limits x WHERE x.limit_no = l.limit_no)
        AND NOT EXISTS (SELECT FROM quota_periods x WHERE x.limit_no = l.limit_no);
    DELETE FROM stocks s WHERE NOT coalesce(document -> 'stock' ? s.stock_key, false)
        AND NOT EXISTS (SELECT FROM plan_stocks x WHERE x.stock_no = s.stock_no)
        AND NOT EXISTS (SELECT FROM account_stocks x WHERE x.stock_no = s.stock_no)
        AND NOT EXISTS (SELECT FROM stock_levels x WHERE x.stock_no = s.stock_no);
    DELETE FROM credit_types t WHERE NOT coalesce(document -> 'credits' ? t.credit_key, false)
        AND NOT EXISTS (SELECT FROM plan_credits x WHERE x.credit_no = t.credit_no)
        AND NOT EXISTS (SELECT FROM packs x WHERE x.credit_no = t.credit_no)
        AND NOT EXISTS (SELECT FROM pack_prices x WHERE x.credit_no = t.credit_no)
        AND NOT EXISTS (SELECT FROM credit_balances x WHERE x.credit_no = t.credit_no)
        AND NOT EXISTS (SELECT FROM credit_ledger x WHERE x.credit_no = t.credit_no);

    SELECT catalog_version INTO v_after FROM meta;
    RETURN jsonb_build_object('changed', v_after <> v_before, 'version', v_after);
END $$;
