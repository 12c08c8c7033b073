-- The inbox of Stripe's events. Workers store; the jobs claim, process and say how it went. An event is named by
-- (stripe_account, event id) and, once claimed, by the attempt that the claim gave: whoever comes with another attempt has
-- lost the event to somebody else and changes nothing.

-- To compress it is half of what storing an event costs. lz4 takes most of that away, where PostgreSQL was built with it
-- (Debian's is).
DO $$
BEGIN
    ALTER TABLE billing.webhook_events ALTER payload SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END $$;

-- One row once anything of Stripe's live mode has been seen here, and for ever after.
CREATE TABLE billing.live_mode (
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    once    boolean PRIMARY KEY DEFAULT true CHECK (once)
);

CREATE FUNCTION billing.live_mode_note(p_live boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
BEGIN
    IF p_live AND NOT EXISTS (SELECT FROM live_mode) THEN
        INSERT INTO live_mode DEFAULT VALUES ON CONFLICT (once) DO NOTHING;
    END IF;
END $$;

-- A row for each event, in the order given: n from 1 on, and whether it was not there yet. Arrays of equal length; NULL is
-- for what an event does not say. p_created: unix seconds. p_ignored: why nothing is to be done (wrong mode, foreign
-- account, a type nobody handles), or NULL: then the jobs are woken. p_payloads: all of them, one after the other, of
-- p_sizes bytes each. Rows are inserted in the order of their keys: two hosts with the same events do not lock each other out.
CREATE FUNCTION billing.stripe_events_store(p_stripe_accounts text[], p_events text[], p_types text[], p_api_versions text[],
        p_livemodes boolean[], p_created bigint[], p_customers text[], p_ignored text[], p_sizes integer[], p_payloads bytea)
    RETURNS TABLE (n bigint, fresh boolean)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_wake    boolean := false;
    v_ignored boolean;
BEGIN
    FOR n, fresh, v_ignored IN
        WITH given AS (
            SELECT g.*, coalesce(g.account, '') AS stripe_account,
                   sum(g.size) OVER (ORDER BY g.n) - g.size AS skip,
                   row_number() OVER (PARTITION BY coalesce(g.account, ''), g.event_id ORDER BY g.n) AS time
            FROM unnest(p_stripe_accounts, p_events, p_types, p_api_versions, p_livemodes, p_created, p_customers, p_ignored,
                        p_sizes) WITH ORDINALITY
                AS g (account, event_id, type, api_version, livemode, created, customer_id, ignored, size, n)),
        added AS (
            INSERT INTO webhook_events (stripe_account, event_id, type, api_version, livemode, stripe_created, customer_id,
                                        payload, status, last_error)
                SELECT g.stripe_account, g.event_id, g.type, g.api_version, g.livemode, to_timestamp(g.created),
                       nullif(g.customer_id, ''), substr(p_payloads, g.skip::integer + 1, g.size),
                       CASE WHEN g.ignored IS NULL THEN 'received' ELSE 'ignored' END, left(g.ignored, 500)
                FROM given g WHERE g.time = 1 ORDER BY g.stripe_account, g.event_id
                ON CONFLICT (stripe_account, event_id) DO NOTHING
                RETURNING stripe_account, event_id)
        SELECT g.n, g.time = 1 AND a.event_id IS NOT NULL, g.ignored IS NOT NULL
        FROM given g LEFT JOIN added a ON a.stripe_account = g.stripe_account AND a.event_id = g.event_id
    LOOP
        v_wake := v_wake OR (fresh AND NOT v_ignored);
        RETURN NEXT;
    END LOOP;
    IF v_wake THEN
        PERFORM pg_notify('billing_inbox', '');
    END IF;
    PERFORM live_mode_note(true = ANY (p_livemodes));
END $$;

-- One event: 'stored' or 'duplicate'.
CREATE FUNCTION billing.stripe_event_store(p_stripe_account text, p_event text, p_type text, p_api_version text,
        p_livemode boolean, p_created bigint, p_customer text, p_payload bytea, p_ignored text) RETURNS text
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
    SELECT CASE WHEN fresh THEN 'stored' ELSE 'duplicate' END
    FROM stripe_events_store(ARRAY[p_stripe_account], ARRAY[p_event], ARRAY[p_type], ARRAY[p_api_version], ARRAY[p_livemode],
        ARRAY[p_created], ARRAY[p_customer], ARRAY[p_ignored], ARRAY[length(p_payload)], p_payload)
$$;

-- At most p_batch events, oldest first, each for p_lease: whoever is not done by then loses it, without anybody having to
-- notice a death. At most one of a customer, none while another of that customer is under way: one account's events do
-- not queue on its row while others wait. A lease that runs out says nothing against the event (its worker was killed,
-- PostgreSQL's answer was lost) and uses no try up; but the twentieth in a row is the last, for it may be what kills.
-- stripe_created in unix seconds (or NULL); attempt is the fencing token for all that follows.
CREATE FUNCTION billing.stripe_event_claim(p_batch integer, p_lease interval)
    RETURNS TABLE (stripe_account text, event_id text, attempt integer, type text, api_version text, livemode boolean,
                   stripe_created bigint, customer_id text, payload bytea)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET jit = off
    SET enable_seqscan = off SET enable_sort = off AS $$ -- in the order of the index, for as far as it is needed
#variable_conflict use_column
DECLARE
    v_now   timestamptz;
    v_count integer := 0;
    v_lanes text[] := '{}'; -- looked at already
    k       record;
    e       webhook_events;
BEGIN
    IF p_batch IS NULL OR p_batch NOT BETWEEN 1 AND 1000 OR p_lease IS NULL OR p_lease <= interval '0' THEN
        RAISE EXCEPTION 'stripe_event_claim: batch must be 1..1000, lease above 0' USING ERRCODE = '22023';
    END IF;
    -- One claim at a time: the next statement must see what the last claim took, or it would take a customer's second.
    PERFORM pg_advisory_xact_lock(hashtextextended('billing.stripe_event_claim', 0));
    v_now := clock_timestamp();
    FOR k IN SELECT w.stripe_account, w.event_id, w.lane FROM webhook_events w
             WHERE w.status IN ('received', 'processing') AND w.next_attempt_at <= v_now
             ORDER BY w.stripe_created, w.received_at, w.event_id LOOP
        CONTINUE WHEN k.lane = ANY (v_lanes);
        v_lanes := v_lanes || k.lane;
        CONTINUE WHEN EXISTS (SELECT FROM webhook_events w
            WHERE w.lane = k.lane AND w.status = 'processing' AND w.next_attempt_at > v_now);
        SELECT w.* INTO e FROM webhook_events w WHERE w.stripe_account = k.stripe_account AND w.event_id = k.event_id
            AND w.status IN ('received', 'processing') FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        UPDATE webhook_events w SET attempts = w.attempts + 1, next_attempt_at = v_now + p_lease,
            losses = w.losses + (w.status = 'processing')::integer,
            last_error = CASE WHEN w.status = 'processing' THEN 'its lease ran out' ELSE w.last_error END,
            status = CASE WHEN w.status = 'processing' AND w.losses >= 19 THEN 'dead' ELSE 'processing' END
            WHERE w.stripe_account = k.stripe_account AND w.event_id = k.event_id RETURNING w.* INTO e;
        IF e.status = 'dead' THEN
            PERFORM stripe_event_died(e);
            CONTINUE;
        END IF;
        RETURN QUERY SELECT e.stripe_account, e.event_id, e.attempts, e.type, e.api_version, e.livemode,
            unix(e.stripe_created), e.customer_id, e.payload;
        v_count := v_count + 1;
        EXIT WHEN v_count = p_batch;
    END LOOP;
END $$;

CREATE FUNCTION billing.stripe_event_died(e billing.webhook_events) RETURNS void
    LANGUAGE sql SET search_path = billing, pg_temp AS $$
    SELECT alarm(e.account_id, 'event_dead', e.stripe_account || e.event_id || ':' || e.attempts,
        jsonb_build_object('event', e.event_id, 'type', e.type, 'error', e.last_error))
$$;

-- 'retry', 'dead', or 'stale' (another attempt has it). A try that counts: again after 5 s, 10 s, 20 s, 40 s (+-20 %), the
-- fifth is the last. One that does not (Stripe or PostgreSQL could not be reached) uses none up; the wait doubles from 5 s
-- to 10 min.
CREATE FUNCTION billing.stripe_event_failed(p_stripe_account text, p_event text, p_attempt integer, p_error text,
        p_counts boolean) RETURNS text
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    e webhook_events;
BEGIN
    UPDATE webhook_events w SET
        status = CASE WHEN p_counts AND w.failures >= 4 THEN 'dead' ELSE 'received' END,
        failures = w.failures + p_counts::integer,
        waits = CASE WHEN p_counts THEN 0 ELSE w.waits + 1 END,
        losses = 0,
        next_attempt_at = clock_timestamp() + (0.8 + random() * 0.4)
            * least(interval '10 min', interval '5 s' * 2 ^ least(CASE WHEN p_counts THEN w.failures ELSE w.waits END, 10)),
        last_error = left(p_error, 500)
        WHERE w.stripe_account = coalesce(p_stripe_account, '') AND w.event_id = p_event AND w.attempts = p_attempt
          AND w.status = 'processing'
        RETURNING w.* INTO e;
    IF NOT FOUND THEN
        RETURN 'stale';
    ELSIF e.status = 'dead' THEN
        PERFORM stripe_event_died(e);
        RETURN 'dead';
    END IF;
    RETURN 'retry';
END $$;

-- Nothing is to be done after all. False: another attempt has it.
CREATE FUNCTION billing.stripe_event_ignore(p_stripe_account text, p_event text, p_attempt integer, p_reason text)
    RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
BEGIN
    UPDATE webhook_events w SET status = 'ignored', processed_at = clock_timestamp(), last_error = left(p_reason, 500)
        WHERE w.stripe_account = coalesce(p_stripe_account, '') AND w.event_id = p_event AND w.attempts = p_attempt
          AND w.status = 'processing';
    RETURN FOUND;
END $$;

-- Links and parkings of one customer take turns: without it an event could be parked while its customer is being linked,
-- and nobody would ever release it. Taken after an account's row and before an event's.
CREATE FUNCTION billing.customer_lock(p_customer text) RETURNS void LANGUAGE sql SET search_path = billing, pg_temp AS
$$ SELECT pg_advisory_xact_lock(hashtextextended('billing.customer.' || p_customer, 0)) $$;

-- Kept until its customer is linked to an account. 'parked'; 'received' where that has happened meanwhile; 'stale'.
-- p_reason NULL: the customer is unknown. Else it stays parked even though the customer is known, with an alarm (a customer
-- that its session names for another account).
CREATE FUNCTION billing.stripe_event_park(p_stripe_account text, p_event text, p_attempt integer, p_customer text,
        p_reason text) RETURNS text
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_status text := 'parked';
    e        webhook_events;
BEGIN
    IF p_customer <> '' THEN
        PERFORM customer_lock(p_customer);
        IF p_reason IS NULL AND EXISTS (SELECT FROM accounts a WHERE a.stripe_customer_id = p_customer) THEN
            v_status := 'received';
        END IF;
    END IF;
    UPDATE webhook_events w SET status = v_status, next_attempt_at = clock_timestamp(),
        customer_id = coalesce(nullif(p_customer, ''), w.customer_id),
        last_error = coalesce(left(p_reason, 500), 'unknown customer')
        WHERE w.stripe_account = coalesce(p_stripe_account, '') AND w.event_id = p_event AND w.attempts = p_attempt
          AND w.status = 'processing'
        RETURNING w.* INTO e;
    IF NOT FOUND THEN
        RETURN 'stale';
    END IF;
    IF p_reason IS NOT NULL THEN
        PERFORM alarm(NULL, 'event_parked', e.stripe_account || e.event_id,
            jsonb_build_object('event', e.event_id, 'type', e.type, 'customer', e.customer_id, 'reason', p_reason));
    END IF;
    RETURN v_status;
END $$;

REVOKE ALL ON billing.live_mode FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    billing.stripe_events_store(text[], text[], text[], text[], boolean[], bigint[], text[], text[], integer[], bytea),
    billing.stripe_event_store(text, text, text, text, boolean, bigint, text, bytea, text)
    TO billing_gate, billing_jobs;
GRANT EXECUTE ON FUNCTION
    billing.stripe_event_claim(integer, interval),
    billing.stripe_event_failed(text, text, integer, text, boolean),
    billing.stripe_event_ignore(text, text, integer, text),
    billing.stripe_event_park(text, text, integer, text, text)
    TO billing_jobs;
