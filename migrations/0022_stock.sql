-- Stock: how many things an account has at a time, as projects or users, and may have. A create reserves its place before the
-- application is asked, takes it when the thing is there, gives it back when it failed or when nobody tells in time; a delete
-- gives back when the thing is gone. Exact: a level changes only here, under its row's lock, together with its row of the ledger.
--
-- Names as in 0019: whoever repeats a call gets what was done the first time. "create:NAME:STOCK" made, "back:NAME:STOCK" was not
-- made after all, "delete:NAME:STOCK" removed, "set:KEY:STOCK" stated by the application. A place that was given back before it
-- was asked for is never reserved.
-- Nothing but a create is ever refused: a limit may fall below what there is.
--
-- Lock order: stock_levels by (account, stock), then stock_holds.

CREATE TABLE billing.stock_holds (
    account_id bigint NOT NULL,
    name       text COLLATE "C" NOT NULL,
    stock_no   smallint NOT NULL,
    quantity   bigint NOT NULL CHECK (quantity > 0),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, name, stock_no)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX stock_holds_expires_at ON billing.stock_holds (expires_at);

-- quantity: by how much current has changed. units: of a row "back", what was reserved until then.
CREATE TABLE billing.stock_ledger (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id    bigint NOT NULL REFERENCES billing.accounts,
    stock_no      smallint NOT NULL REFERENCES billing.stocks,
    action        text NOT NULL CHECK (action IN ('create', 'back', 'delete', 'set')),
    quantity      bigint NOT NULL,
    units         bigint,
    current_after bigint NOT NULL CHECK (current_after >= 0),
    idem_key      text COLLATE "C",
    reason        text,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT stock_ledger_once UNIQUE (account_id, idem_key)
);
CREATE TRIGGER stock_ledger_append_only BEFORE UPDATE OR DELETE ON billing.stock_ledger FOR EACH ROW
    EXECUTE FUNCTION billing.refuse_change('the table is append-only');
CREATE TRIGGER stock_ledger_keep_all BEFORE TRUNCATE ON billing.stock_ledger
    EXECUTE FUNCTION billing.refuse_change('the table is append-only');

-- As in 0020.
CREATE POLICY own_account ON billing.stock_ledger FOR SELECT TO billing_reader
    USING (account_id = (SELECT billing.reader_account()));
CREATE POLICY others ON billing.stock_ledger USING (NOT pg_has_role('billing_reader', 'MEMBER'));
ALTER TABLE billing.stock_ledger ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON billing.stock_ledger TO billing_reader;

-- What may still be made; NULL: without bound.
CREATE FUNCTION billing.stock_room(cap bigint, l billing.stock_levels) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$ SELECT CASE WHEN cap < l.current + l.reserved THEN 0 ELSE cap - l.current - l.reserved END $$;

-- Locks levels, which it makes where there are none yet. What is read of them afterwards must be read by another statement.
CREATE FUNCTION billing.stock_lock(account_ids bigint[], stock_nos smallint[]) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
BEGIN
    INSERT INTO stock_levels (account_id, stock_no)
        SELECT DISTINCT u.account_id, u.stock_no FROM unnest(account_ids, stock_nos) u(account_id, stock_no)
        WHERE NOT EXISTS (SELECT FROM stock_levels l WHERE l.account_id = u.account_id AND l.stock_no = u.stock_no)
        ORDER BY 1, 2 ON CONFLICT DO NOTHING;
    PERFORM FROM (SELECT DISTINCT u.account_id, u.stock_no FROM unnest(account_ids, stock_nos) u(account_id, stock_no)) u
        JOIN stock_levels l ON l.account_id = u.account_id AND l.stock_no = u.stock_no
        ORDER BY l.account_id, l.stock_no FOR UPDATE OF l;
END $$;

-- Changes what there is, once for each key; false: it is done already. The caller holds the lock.
CREATE FUNCTION billing.stock_move(p_account_id bigint, p_stock_no smallint, p_action text, p_key text, p_quantity bigint,
                                   p_units bigint, p_reason text) RETURNS boolean LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
BEGIN
    INSERT INTO stock_ledger (account_id, stock_no, action, quantity, units, current_after, idem_key, reason)
        SELECT l.account_id, l.stock_no, p_action, p_quantity, p_units, l.current + p_quantity, p_key, p_reason
        FROM stock_levels l WHERE l.account_id = p_account_id AND l.stock_no = p_stock_no
        ON CONFLICT ON CONSTRAINT stock_ledger_once DO NOTHING;
    IF FOUND AND p_quantity <> 0 THEN
        UPDATE stock_levels l SET current = l.current + p_quantity
            WHERE l.account_id = p_account_id AND l.stock_no = p_stock_no;
    END IF;
    RETURN FOUND;
END $$;

-- What a name has: what it holds or has made, 0: given back; NULL: nobody has heard of it.
CREATE FUNCTION billing.stock_kept(p_account_id bigint, p_stock_no smallint, p_name text) RETURNS bigint LANGUAGE plpgsql STABLE
    SET search_path = billing, pg_temp AS $$
DECLARE
    v_key text := p_name || ':' || (SELECT s.stock_key FROM stocks s WHERE s.stock_no = p_stock_no);
BEGIN
    RETURN coalesce(
        (SELECT h.quantity FROM stock_holds h WHERE h.account_id = p_account_id AND h.name = p_name AND h.stock_no = p_stock_no),
        (SELECT l.quantity FROM stock_ledger l WHERE l.account_id = p_account_id AND l.idem_key = ('create:' || v_key)),
        (SELECT l.quantity FROM stock_ledger l WHERE l.account_id = p_account_id AND l.idem_key = ('back:' || v_key)));
END $$;

-- Reserves places for many requests at once; those of a group all or nothing. Later groups see what earlier ones reserved.
--   names: of the taking, the same for a whole group; hold_seconds: after so long an undecided place is free again.
-- Answer, one row for each request (ord = its place, from 1): kept = places that the name has (0 = refused), repeated: this name
-- was known and nothing happened now; cap of the stock (NULL: unlimited), used: what there is and is being made, remaining.
-- Errors: 22023 for arrays of different length, NULL, a quantity below 1; 23514 for a name that is none.
CREATE FUNCTION billing.stock_take(groups integer[], names text[], account_ids bigint[], stock_nos smallint[],
                                   quantities bigint[], hold_seconds integer[])
    RETURNS TABLE (ord integer, kept bigint, repeated boolean, remaining bigint, cap bigint, used bigint)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = billing, pg_temp SET lock_timeout = '250ms'
    SET plan_cache_mode = force_generic_plan SET jit = off -- as in quota_fund
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
#variable_conflict use_column
DECLARE
    k_most CONSTANT bigint := 1099511627776; -- 2^40, the most that one request may take
    n      integer := cardinality(groups);
    v_new  integer[] := '{}';
    g      integer;
BEGIN
    IF n IS NULL OR cardinality(names) <> n OR cardinality(account_ids) <> n OR cardinality(stock_nos) <> n
       OR cardinality(quantities) <> n OR cardinality(hold_seconds) <> n THEN
        RAISE EXCEPTION 'stock_take: the arrays differ in length' USING ERRCODE = '22023';
    END IF;
    PERFORM x.name::taking_name FROM unnest(names) x(name);
    IF EXISTS (SELECT FROM unnest(groups, names, account_ids, stock_nos, quantities, hold_seconds)
                   u(grp, name, account_id, stock_no, quantity, hold)
               WHERE u.grp IS NULL OR u.name IS NULL OR u.account_id IS NULL OR NOT coalesce(u.quantity BETWEEN 1 AND k_most, false)
                  OR NOT coalesce(u.hold > 0, false) OR NOT EXISTS (SELECT FROM stocks s WHERE s.stock_no = u.stock_no))
       OR EXISTS (SELECT FROM unnest(groups, account_ids, stock_nos) u(grp, account_id, stock_no)
                  GROUP BY u.grp, u.account_id, u.stock_no HAVING count(*) > 1) THEN
        RAISE EXCEPTION 'stock_take: out of range' USING ERRCODE = '22023';
    END IF;
    PERFORM stock_lock(account_ids, stock_nos);
    FOR g IN SELECT DISTINCT u.grp FROM unnest(groups) u(grp) ORDER BY 1 LOOP
        IF (SELECT bool_and(stock_kept(u.account_id, u.stock_no, u.name) IS NULL
                            AND (e.cap IS NULL OR l.current + l.reserved + u.quantity <= e.cap))
            FROM unnest(groups, names, account_ids, stock_nos, quantities) u(grp, name, account_id, stock_no, quantity)
            JOIN stock_levels l ON l.account_id = u.account_id AND l.stock_no = u.stock_no
            JOIN effective_stocks e ON e.account_id = u.account_id AND e.stock_no = u.stock_no
            WHERE u.grp = g) THEN
            INSERT INTO stock_holds (account_id, name, stock_no, quantity, expires_at)
                SELECT u.account_id, u.name, u.stock_no, u.quantity, clock_timestamp() + make_interval(secs => u.hold)
                FROM unnest(groups, names, account_ids, stock_nos, quantities, hold_seconds)
                     u(grp, name, account_id, stock_no, quantity, hold) WHERE u.grp = g;
            UPDATE stock_levels l SET reserved = l.reserved + u.quantity
                FROM unnest(groups, account_ids, stock_nos, quantities) u(grp, account_id, stock_no, quantity)
                WHERE u.grp = g AND l.account_id = u.account_id AND l.stock_no = u.stock_no;
            v_new := v_new || g;
        END IF;
    END LOOP;
    RETURN QUERY SELECT u.ord::integer, coalesce(k.kept, 0), k.kept IS NOT NULL AND u.grp <> ALL (v_new),
            stock_room(e.cap, l), e.cap, l.current + l.reserved
        FROM unnest(groups, names, account_ids, stock_nos) WITH ORDINALITY u(grp, name, account_id, stock_no, ord)
        JOIN stock_levels l ON l.account_id = u.account_id AND l.stock_no = u.stock_no
        JOIN effective_stocks e ON e.account_id = u.account_id AND e.stock_no = u.stock_no
        CROSS JOIN LATERAL (SELECT stock_kept(u.account_id, u.stock_no, u.name) AS kept OFFSET 0) k
        ORDER BY u.ord;
END $$;

-- What became of requests, for many at once. keeps: NULL = the thing is there, 0 = it is not, below zero = so many were removed.
-- Calls may be repeated.
CREATE FUNCTION billing.stock_settle(names text[], account_ids bigint[], stock_nos smallint[], keeps bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = billing, pg_temp SET lock_timeout = '250ms'
    SET plan_cache_mode = force_generic_plan SET jit = off
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
BEGIN
    PERFORM x.name::taking_name FROM unnest(names) x(name);
    PERFORM stock_lock(account_ids, stock_nos);
    PERFORM stock_settle_one(u.account_id, u.stock_no, u.name, u.keep) FROM (
        SELECT * FROM unnest(names, account_ids, stock_nos, keeps) WITH ORDINALITY x(name, account_id, stock_no, keep, ord)
        ORDER BY x.ord) u;
END $$;

-- One of them. A thing that was made although its place had been given back, since nobody told in time, is there all the same.
CREATE FUNCTION billing.stock_settle_one(p_account_id bigint, p_stock_no smallint, p_name text, p_keep bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    k_late CONSTANT text := 'not decided in time';
    v_key  text := p_name || ':' || (SELECT s.stock_key FROM stocks s WHERE s.stock_no = p_stock_no);
    v_units bigint;
BEGIN
    IF p_keep < 0 THEN
        SELECT -least(-p_keep, l.current) INTO v_units FROM stock_levels l
            WHERE l.account_id = p_account_id AND l.stock_no = p_stock_no;
        PERFORM stock_move(p_account_id, p_stock_no, 'delete', 'delete:' || v_key, v_units, NULL, NULL);
        RETURN;
    END IF;
    DELETE FROM stock_holds h WHERE h.account_id = p_account_id AND h.name = p_name AND h.stock_no = p_stock_no
        RETURNING h.quantity INTO v_units;
    UPDATE stock_levels l SET reserved = l.reserved - v_units
        WHERE v_units > 0 AND l.account_id = p_account_id AND l.stock_no = p_stock_no;
    IF p_keep = 0 THEN
        PERFORM stock_move(p_account_id, p_stock_no, 'back', 'back:' || v_key, 0, v_units, 'work failed')
            WHERE NOT EXISTS (SELECT FROM stock_ledger l
                WHERE l.account_id = p_account_id AND l.idem_key = ('create:' || v_key));
        RETURN;
    END IF;
    v_units := coalesce(v_units, (SELECT l.units FROM stock_ledger l
        WHERE l.account_id = p_account_id AND l.idem_key = ('back:' || v_key) AND l.reason = k_late));
    IF v_units IS NOT NULL THEN
        PERFORM stock_move(p_account_id, p_stock_no, 'create', 'create:' || v_key, v_units, NULL, NULL);
    END IF;
END $$;

-- Gives back places of which nobody has told in their time: their worker or its host is gone. Answers how many.
CREATE FUNCTION billing.stock_sweep(most integer) RETURNS integer LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = billing, pg_temp SET lock_timeout = '250ms' SET jit = off AS $$
DECLARE
    v_accounts bigint[];
    v_stocks   smallint[];
    v_names    text[];
    h          record;
    n          integer := 0;
BEGIN
    SELECT array_agg(x.account_id), array_agg(x.stock_no), array_agg(x.name) INTO v_accounts, v_stocks, v_names
        FROM (SELECT y.* FROM stock_holds y WHERE y.expires_at < clock_timestamp() ORDER BY y.expires_at LIMIT most) x;
    PERFORM stock_lock(v_accounts, v_stocks);
    FOR h IN SELECT u.*, s.stock_key FROM unnest(v_accounts, v_stocks, v_names) u(account_id, stock_no, name)
             JOIN stocks s USING (stock_no) ORDER BY u.account_id, u.name, u.stock_no LOOP
        UPDATE stock_levels l SET reserved = l.reserved - x.quantity FROM stock_holds x
            WHERE x.account_id = h.account_id AND x.name = h.name AND x.stock_no = h.stock_no
              AND x.expires_at < clock_timestamp() AND l.account_id = h.account_id AND l.stock_no = h.stock_no;
        IF FOUND THEN
            PERFORM stock_move(h.account_id, h.stock_no, 'back', 'back:' || h.name || ':' || h.stock_key, 0, x.quantity,
                               'not decided in time')
                FROM stock_holds x WHERE x.account_id = h.account_id AND x.name = h.name AND x.stock_no = h.stock_no;
            DELETE FROM stock_holds x WHERE x.account_id = h.account_id AND x.name = h.name AND x.stock_no = h.stock_no;
            n := n + 1;
        END IF;
    END LOOP;
    RETURN n;
END $$;

-- For applications: how many things of p_stock an account has; with p_current it states the truth, once for each p_key where
-- there is one. What is being made at the moment is counted when it is there; p_current does not include it.
-- Answers {"success", "current", "reserved", "limit", "remaining"}; null: without bound.
CREATE FUNCTION billing.stock_count(p_account text, p_stock text, p_current bigint, p_key text DEFAULT NULL,
                                    p_reason text DEFAULT 'stated by the application') RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    v_account  bigint := account_no(p_account);
    v_stock    smallint := (SELECT s.stock_no FROM stocks s WHERE s.stock_key = p_stock);
    v_change   bigint := 0;
    v_repeated boolean := false;
BEGIN
    IF v_account IS NULL THEN
        RETURN credit_refusal('UNKNOWN_ACCOUNT');
    ELSIF v_stock IS NULL THEN
        RETURN jsonb_build_object('success', false, 'code', 'UNKNOWN_STOCK', 'error', 'Unknown stock');
    ELSIF p_current NOT BETWEEN 0 AND 1099511627776 THEN
        RETURN jsonb_build_object('success', false, 'code', 'INVALID_QUANTITY',
            'error', 'The current count must be a whole number from 0');
    ELSIF p_key !~ '^[!-9;-~]{1,100}$' THEN
        RETURN credit_refusal('INVALID_KEY');
    END IF;
    IF p_current IS NOT NULL THEN
        PERFORM stock_lock(ARRAY[v_account], ARRAY[v_stock]);
        SELECT p_current - l.current INTO v_change FROM stock_levels l WHERE l.account_id = v_account AND l.stock_no = v_stock;
        v_repeated := (v_change <> 0 OR p_key IS NOT NULL) AND NOT stock_move(v_account, v_stock, 'set',
            'set:' || p_key || ':' || p_stock, v_change, NULL, p_reason);
    END IF;
    RETURN (SELECT jsonb_build_object('success', true, 'current', coalesce(l.current, 0), 'reserved', coalesce(l.reserved, 0),
                'limit', e.cap, 'remaining', CASE WHEN l IS NULL THEN e.cap ELSE stock_room(e.cap, l) END)
            FROM effective_stocks e LEFT JOIN stock_levels l USING (account_id, stock_no)
            WHERE e.account_id = v_account AND e.stock_no = v_stock)
        || CASE WHEN v_repeated THEN '{"repeated": true}'::jsonb ELSE '{}' END;
END $$;

REVOKE ALL ON ALL TABLES IN SCHEMA billing FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    billing.stock_take(integer[], text[], bigint[], smallint[], bigint[], integer[]),
    billing.stock_settle(text[], bigint[], smallint[], bigint[]),
    billing.stock_count(text, text, bigint, text, text)
    TO billing_gate, billing_jobs;
GRANT EXECUTE ON FUNCTION billing.stock_sweep(integer) TO billing_jobs;
