-- Requests that name a key of their own (Idempotency-Key) are charged once for each key, however often and by whatever host they
-- are repeated. A key belongs to the account and the route; it is claimed before anything is taken, under the name that the
-- takings have, and is free again when the request comes to nothing. Where a worker died on it, the ledger knows whether its
-- credits were kept; quotas keep no such record, so their key is free again.

CREATE TABLE billing.idempotency_keys (
    account_id bigint NOT NULL REFERENCES billing.accounts,
    key        bytea NOT NULL CHECK (octet_length(key) = 32),     -- SHA-256 of the route and the client's key
    request    bytea NOT NULL CHECK (octet_length(request) = 32), -- SHA-256 of all else that makes it this request
    name       text COLLATE "C" NOT NULL,                         -- of its takings
    done       boolean NOT NULL DEFAULT false,
    window_s   integer NOT NULL CHECK (window_s > 0),
    expires_at timestamptz NOT NULL, -- done: forgotten then; else: nobody works on it any more
    PRIMARY KEY (account_id, key),
    CONSTRAINT idempotency_keys_name UNIQUE (account_id, name)
) WITH (fillfactor = 80);
CREATE INDEX idempotency_keys_expires_at ON billing.idempotency_keys (expires_at);

-- Whether credits were taken, or things made or removed, under a name, and not all given back.
CREATE FUNCTION billing.taking_stands(p_account_id bigint, p_name text) RETURNS boolean LANGUAGE plpgsql STABLE
    SET search_path = billing, pg_temp AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM credit_types t JOIN credit_ledger l ON l.account_id = p_account_id
            AND l.idem_key IN ('take:' || p_name || ':' || t.credit_key, 'over:' || p_name || ':' || t.credit_key)
        GROUP BY t.credit_no, t.credit_key
        HAVING sum(-l.quantity) > coalesce((SELECT sum((b.metadata ->> 'units')::bigint) FROM credit_ledger b
            WHERE b.account_id = p_account_id
              AND b.idem_key IN ('back:' || p_name || ':' || t.credit_key, 'rest:' || p_name || ':' || t.credit_key)), 0)) OR EXISTS (
        SELECT FROM stocks s WHERE stock_kept(p_account_id, s.stock_no, p_name) > 0) OR EXISTS (
        SELECT FROM stocks s JOIN stock_ledger l ON l.account_id = p_account_id
            AND l.idem_key = 'delete:' || p_name || ':' || s.stock_key);
END $$;

-- Whether it may still be decided what becomes of them.
CREATE FUNCTION billing.taking_is_open(p_account_id bigint, p_name text) RETURNS boolean LANGUAGE plpgsql STABLE
    SET search_path = billing, pg_temp AS $$
BEGIN
    RETURN EXISTS (SELECT FROM credit_holds h WHERE h.account_id = p_account_id AND h.name = p_name)
        OR EXISTS (SELECT FROM stock_holds h WHERE h.account_id = p_account_id AND h.name = p_name);
END $$;

-- Claims a key for a request whose takings are to be called p_name.
--   new: it is claimed, also when this call is a repeated one; done: the request has been charged, and this is the same one again;
--   busy: another is under way; other: the key was used for another request.
-- p_hold_s: after so long without a word the request is believed dead; p_window_s: how long a charged one is remembered.
CREATE FUNCTION billing.idempotency_begin(p_account_id bigint, p_key bytea, p_request bytea, p_name text, p_hold_s integer,
                                          p_window_s integer) RETURNS text
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = billing, pg_temp SET lock_timeout = '250ms' AS $$
DECLARE
    v_now CONSTANT timestamptz := clock_timestamp();
    k idempotency_keys;
BEGIN
    INSERT INTO idempotency_keys AS x (account_id, key, request, name, window_s, expires_at)
        VALUES (p_account_id, p_key, p_request, p_name::taking_name, p_window_s, v_now + make_interval(secs => p_hold_s))
        ON CONFLICT (account_id, key) DO NOTHING;
    IF FOUND THEN
        RETURN 'new';
    END IF;
    SELECT x.* INTO k FROM idempotency_keys x WHERE x.account_id = p_account_id AND x.key = p_key FOR UPDATE;
    IF NOT FOUND THEN -- given up at this very moment
        RETURN 'busy';
    ELSIF k.name = p_name THEN
        RETURN 'new';
    ELSIF k.expires_at <= v_now AND NOT k.done AND taking_stands(p_account_id, k.name) THEN
        k.done := NOT taking_is_open(p_account_id, k.name);
        UPDATE idempotency_keys x SET done = true, expires_at = v_now + make_interval(secs => x.window_s)
            WHERE k.done AND x.account_id = p_account_id AND x.key = p_key;
    ELSIF k.expires_at <= v_now THEN
        UPDATE idempotency_keys x SET request = p_request, name = p_name, done = false, window_s = p_window_s,
                expires_at = v_now + make_interval(secs => p_hold_s)
            WHERE x.account_id = p_account_id AND x.key = p_key;
        RETURN 'new';
    END IF;
    RETURN CASE WHEN k.request <> p_request THEN 'other' WHEN k.done THEN 'done' ELSE 'busy' END;
END $$;

-- What became of requests, for many at once, as in credits_settle. keeps: NULL = charged, 0 = it came to nothing, the key is free.
-- Calls may be repeated.
CREATE FUNCTION billing.idempotency_end(names text[], account_ids bigint[], nos smallint[], keeps bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = billing, pg_temp SET lock_timeout = '250ms' AS $$
BEGIN
    PERFORM FROM idempotency_keys x JOIN unnest(names, account_ids) u(name, account_id)
            ON x.account_id = u.account_id AND x.name = u.name
        ORDER BY x.account_id, x.key FOR UPDATE OF x;
    UPDATE idempotency_keys x SET done = true, expires_at = clock_timestamp() + make_interval(secs => x.window_s)
        FROM unnest(names, account_ids, keeps) u(name, account_id, keep)
        WHERE u.keep IS NULL AND x.account_id = u.account_id AND x.name = u.name AND NOT x.done;
    DELETE FROM idempotency_keys x USING unnest(names, account_ids, keeps) u(name, account_id, keep)
        WHERE u.keep = 0 AND x.account_id = u.account_id AND x.name = u.name AND NOT x.done;
END $$;

-- Forgets what is over. What nobody has decided stays for its window, since its credits may have been kept.
CREATE FUNCTION billing.idempotency_purge(most integer) RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER
    SET search_path = billing, pg_temp AS $$
    WITH old AS (
        SELECT x.account_id, x.key FROM idempotency_keys x
        WHERE x.expires_at < clock_timestamp() AND (x.done OR x.expires_at < clock_timestamp() - make_interval(secs => x.window_s))
        ORDER BY x.expires_at LIMIT most FOR UPDATE SKIP LOCKED),
    gone AS (
        DELETE FROM idempotency_keys x USING old o WHERE x.account_id = o.account_id AND x.key = o.key RETURNING 1)
    SELECT count(*) FROM gone
$$;

REVOKE ALL ON ALL TABLES IN SCHEMA billing FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    billing.idempotency_begin(bigint, bytea, bytea, text, integer, integer),
    billing.idempotency_end(text[], bigint[], smallint[], bigint[])
    TO billing_gate, billing_jobs;
GRANT EXECUTE ON FUNCTION billing.idempotency_purge(integer) TO billing_jobs;
