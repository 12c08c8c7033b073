-- What the operator's command and the scheduled pass do beside the inbox: look at stored events and replay them; find what
-- Stripe knows and this database does not (reconcile); link what was at Stripe before (import).

CREATE INDEX webhook_events_received ON billing.webhook_events (received_at);
CREATE INDEX accounts_email ON billing.accounts (lower(email)) WHERE email IS NOT NULL;
CREATE INDEX subscriptions_open ON billing.subscriptions (started_at) WHERE status NOT IN ('canceled', 'incomplete_expired');

-- ---------------------------------------------------------------- events

-- The head of an event; never what it carries.
CREATE FUNCTION billing.event_view(e billing.webhook_events) RETURNS jsonb LANGUAGE sql STABLE
    SET search_path = billing, pg_temp AS $$
    SELECT jsonb_build_object('id', e.event_id, 'stripe_account', nullif(e.stripe_account, ''), 'type', e.type,
        'status', e.status, 'account', coalesce((SELECT a.external_id FROM accounts a WHERE a.id = e.account_id),
            (SELECT a.external_id FROM accounts a WHERE a.stripe_customer_id = e.customer_id)),
        'customer', e.customer_id, 'livemode', e.livemode, 'api_version', e.api_version,
        'created_at', iso(e.stripe_created), 'received_at', iso(e.received_at), 'processed_at', iso(e.processed_at),
        'attempts', e.attempts, 'failures', e.failures, 'waits', e.waits, 'losses', e.losses,
        'next_try_at', CASE WHEN e.status = 'received' AND e.attempts > 0 THEN iso(e.next_attempt_at) END,
        'trouble', e.last_error, 'purged', e.purged)
$$;

-- The newest p_most since then, the newest first; NULL: there is no such account.
CREATE FUNCTION billing.events_list(p_status text, p_account text, p_since timestamptz, p_most integer) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    v_id        bigint;
    v_customers text[];
BEGIN
    IF p_account IS NOT NULL THEN
        SELECT a.id INTO v_id FROM accounts a WHERE a.external_id = p_account;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        v_customers := ARRAY(SELECT a.stripe_customer_id FROM accounts a WHERE a.id = v_id AND a.stripe_customer_id IS NOT NULL
            UNION SELECT f.customer_id FROM former_customers f WHERE f.account_id = v_id);
    END IF;
    RETURN (SELECT coalesce(jsonb_agg(event_view(w.e) ORDER BY w.received_at DESC, w.event_id), '[]') FROM (
        SELECT x AS e, x.received_at, x.event_id FROM webhook_events x
        WHERE (p_status IS NULL OR x.status = p_status) AND (p_since IS NULL OR x.received_at >= p_since)
          AND (v_id IS NULL OR x.customer_id = ANY (v_customers) OR x.account_id = v_id)
        ORDER BY x.received_at DESC, x.event_id LIMIT p_most) w);
END $$;

-- One row: its head, and what it carries if that is wanted; no row: there is none.
CREATE FUNCTION billing.event_show(p_event text, p_payload boolean) RETURNS TABLE (head jsonb, payload text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
    SELECT event_view(w), CASE WHEN p_payload THEN encode(w.payload, 'hex') END FROM webhook_events w
    WHERE w.stripe_account = '' AND w.event_id = p_event
    UNION ALL
    SELECT event_view(w), CASE WHEN p_payload THEN encode(w.payload, 'hex') END FROM webhook_events w
    WHERE w.stripe_account <> '' AND w.event_id = p_event
$$;

-- Once more from the start, with five new tries; harmless, since every effect has a key, and what is of another world is seen
-- to be so again. These events, or, with p_events NULL, all dead ones since then. Answers {"replayed": [id, ...],
-- "busy": [...], "purged": [...], "unknown": [...]}. attempts goes on: it fences off whoever may still hold the old one.
CREATE FUNCTION billing.events_replay(p_events text[], p_since timestamptz, p_actor text) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    v_replayed text[] := '{}';
    v_busy     text[] := '{}';
    v_purged   text[] := '{}';
    e          webhook_events;
BEGIN
    FOR e IN SELECT w.* FROM webhook_events w
             WHERE CASE WHEN p_events IS NULL THEN w.status = 'dead' AND (p_since IS NULL OR w.received_at >= p_since)
                   ELSE w.event_id = ANY (p_events) END
             ORDER BY w.stripe_account, w.event_id FOR UPDATE LOOP
        IF e.status = 'processing' THEN
            v_busy := v_busy || e.event_id;
            CONTINUE;
        ELSIF e.purged THEN
            v_purged := v_purged || e.event_id;
            CONTINUE;
        END IF;
        UPDATE webhook_events w SET status = 'received', failures = 0, waits = 0, losses = 0, next_attempt_at = clock_timestamp(),
            processed_at = NULL
            WHERE w.stripe_account = e.stripe_account AND w.event_id = e.event_id;
        INSERT INTO audit_log (account_id, actor, action, before, after)
            VALUES (coalesce(e.account_id, (SELECT a.id FROM accounts a WHERE a.stripe_customer_id = e.customer_id)), p_actor,
                'event.replay', jsonb_build_object('event', e.event_id, 'type', e.type, 'status', e.status),
                jsonb_build_object('event', e.event_id, 'status', 'received'));
        v_replayed := v_replayed || e.event_id;
    END LOOP;
    IF v_replayed <> '{}' THEN
        PERFORM pg_notify('billing_inbox', '');
    END IF;
    RETURN jsonb_build_object('replayed', v_replayed, 'busy', v_busy, 'purged', v_purged,
        'unknown', ARRAY(SELECT DISTINCT x.id FROM unnest(p_events) x(id) WHERE x.id <> ALL (v_replayed || v_busy || v_purged)));
END $$;

-- ---------------------------------------------------------------- a look at a customer, outside of any event

-- What of an account does not follow from its subscriptions as they are stored: somebody has changed it by hand, or a change
-- was lost. An account that no subscription provides for is as it should be, whatever it is.
CREATE FUNCTION billing.account_strays(p_account_id bigint) RETURNS boolean LANGUAGE sql STABLE
    SET search_path = billing, pg_temp AS $$
    SELECT coalesce(bool_or(ROW(a.plan_no, a.status, a.period_end, a.cancel_at, a.trial_end, a.grace_until)
            IS DISTINCT FROM ROW(s.plan_no,
                CASE WHEN subscription_live(x.state) OR x.state = 'unpaid' THEN x.state ELSE 'paused' END,
                s.period_end, s.cancel_at, s.trial_end, s.grace_until)), false)
    FROM accounts a CROSS JOIN LATERAL subscription_in_force(a.id) s
    CROSS JOIN LATERAL (SELECT subscription_state(s) AS state) x
    WHERE a.id = p_account_id AND s.subscription_id IS NOT NULL
$$;

-- Of a page of Stripe's list of all subscriptions, the newest first: the accounts to look at, because something of theirs is
-- not as it is stored. p_before, p_from: what was created from p_from until before p_before is on this page and nowhere
-- else, so whatever is stored as open and of that time has to be on it. Suspicions: the look itself decides.
-- unlinked: subscriptions that are not over, of customers that no account has.
CREATE FUNCTION billing.stripe_suspects(p_list jsonb, p_from bigint, p_before bigint)
    RETURNS TABLE (account text, customer text, unlinked bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = billing, pg_temp SET jit = off SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY WITH told AS (
        SELECT e ->> 'id' AS id, e ->> 'customer' AS customer, e ->> 'status' AS status,
            ARRAY(SELECT jsonb_array_elements_text(jsonb_path_query_array(e, '$.items[*].price'))) AS prices,
            (e ->> 'quantity')::bigint AS quantity, stripe_time(e -> 'cancel_at') AS cancel_at,
            stripe_time(e -> 'trial_end') AS trial_end, e ->> 'pause' AS pause,
            jsonb_path_query_array(e, '$.items[*].period_end') || jsonb_path_query_array(e, '$.period_end') AS ends
        FROM jsonb_array_elements(jsonb_strip_nulls(p_list)) e),
    suspects AS (
        SELECT a.id FROM told t JOIN accounts a ON a.stripe_customer_id = t.customer
            LEFT JOIN subscriptions s ON s.subscription_id = t.id
            WHERE NOT (subscription_over(t.status) AND (s.subscription_id IS NULL OR subscription_over(s.status)))
              AND (s.subscription_id IS NULL OR s.account_id <> a.id
                   OR ROW(s.status, s.prices, s.quantity, s.cancel_at, s.trial_end, s.pause)
                      IS DISTINCT FROM ROW(t.status, t.prices, t.quantity, t.cancel_at, t.trial_end, t.pause)
                   OR t.ends <> '[]' AND NOT coalesce(t.ends @> to_jsonb(unix(s.period_end)), false)
                   OR s.price_id IS DISTINCT FROM plan_price(s.prices)
                   OR s.plan_no <> (SELECT x.plan_no FROM plan_prices x WHERE x.price_id = s.price_id)
                   OR account_strays(a.id))
        UNION
        SELECT s.account_id FROM subscriptions s
            WHERE s.status NOT IN ('canceled', 'incomplete_expired')
              AND (s.started_at >= to_timestamp(p_from) AND s.started_at < to_timestamp(p_before)
                   OR s.started_at IS NULL AND p_from = 0)
              AND s.subscription_id NOT IN (SELECT t.id FROM told t))
    SELECT a.external_id::text, a.stripe_customer_id::text, NULL::bigint FROM suspects x JOIN accounts a ON a.id = x.id
        WHERE a.stripe_customer_id IS NOT NULL
    UNION ALL
    SELECT NULL, NULL, count(*) FROM told t WHERE NOT subscription_over(t.status)
        AND NOT EXISTS (SELECT FROM accounts a WHERE a.stripe_customer_id = t.customer);
END $$;

-- An account's subscriptions by id, as a person would compare them.
CREATE FUNCTION billing.subscriptions_view(p_account_id bigint) RETURNS jsonb LANGUAGE sql STABLE
    SET search_path = billing, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(s.subscription_id, jsonb_build_object('status', s.status, 'plan', p.plan_key,
            'prices', s.prices, 'quantity', s.quantity, 'period_start', iso(s.period_start), 'period_end', iso(s.period_end),
            'cancel_at', iso(s.cancel_at), 'trial_end', iso(s.trial_end), 'anchor', iso(s.anchor),
            'started_at', iso(s.started_at), 'ended_at', iso(s.ended_at), 'past_due_since', iso(s.past_due_since),
            'grace_until', iso(s.grace_until), 'held', s.held, 'pause', s.pause,
            'paused_from', iso(s.paused_from), 'customer', s.customer_id)), '{}')
    FROM subscriptions s LEFT JOIN plans p USING (plan_no) WHERE s.account_id = p_account_id
$$;

-- What differs, a line for each: [{"subscription", "what", "here", "stripe"}].
CREATE FUNCTION billing.subscriptions_drift(p_before jsonb, p_after jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('subscription', a.key, 'what', f.key, 'here', p_before -> a.key -> f.key,
            'stripe', f.value) ORDER BY a.key, f.key), '[]')
    FROM jsonb_each(p_after) a CROSS JOIN LATERAL jsonb_each(a.value) f
    WHERE coalesce(p_before -> a.key -> f.key, 'null') <> f.value
$$;

-- Within stripe_look, which see.
CREATE FUNCTION billing.stripe_look_apply(p_account text, p_customer text, p_ticket bigint, p_subscriptions jsonb, p_why text,
        p_policy text, p_grace bigint, p_actor text) RETURNS jsonb
    LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    v_actor  text := current_setting('billing.actor', true);
    v_event  text := p_why || '_' || replace(gen_random_uuid()::text, '-', '');
    v_list   jsonb := p_subscriptions;
    v_ticket bigint := p_ticket;
    v_owed   boolean;
    v_mark   bigint;
    v_before jsonb;
    v_answer jsonb;
    v_drift  jsonb;
    v_more   jsonb;
    a        accounts;
    v_force  subscriptions;
BEGIN
    PERFORM set_config('billing.actor', coalesce(p_actor, ''), true);
    IF v_ticket IS NULL THEN -- nothing of this will last
        PERFORM ensure_accounts(ARRAY[p_account]);
        PERFORM customer_bind(x.id, p_customer) FROM accounts x WHERE x.external_id = p_account;
        SELECT t.ticket INTO v_ticket FROM customer_ticket(p_customer, p_account) t;
    END IF;
    SELECT x.* INTO a FROM accounts x WHERE x.external_id = p_account FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no account %', p_account USING ERRCODE = '22023';
    END IF;
    v_mark := coalesce((SELECT max(l.id) FROM audit_log l), 0);
    v_before := subscriptions_view(a.id);
    IF v_ticket > a.applied_seq THEN
        -- stripe_apply never brings back what is over, for Stripe does not either: here it was not Stripe who ended it.
        UPDATE subscriptions s SET status = e ->> 'status', ended_at = NULL FROM jsonb_array_elements(v_list) e
            WHERE s.subscription_id = e ->> 'id' AND s.account_id = a.id AND subscription_over(s.status)
              AND NOT subscription_over(e ->> 'status');
        -- Stripe forgets none: one that it does not list is none of Stripe's.
        v_list := v_list || coalesce((SELECT jsonb_agg(jsonb_build_object('id', s.subscription_id, 'status', 'canceled',
                'prices', to_jsonb(s.prices), 'quantity', s.quantity, 'ended_at', unix(clock_timestamp()),
                'customer', s.customer_id))
            FROM subscriptions s WHERE s.account_id = a.id AND s.customer_id = p_customer AND NOT subscription_over(s.status)
              AND NOT EXISTS (SELECT FROM jsonb_array_elements(v_list) e WHERE e ->> 'id' = s.subscription_id)), '[]');
    END IF;
    INSERT INTO webhook_events (event_id, type, customer_id, account_id, stripe_created, payload, status, attempts)
        VALUES (v_event, 'ngx_billing.' || p_why, p_customer, a.id, date_trunc('second', clock_timestamp()), '{}',
                'processing', 1);
    -- The configured policy is for who is first seen owing now; who owed before stays as an event has judged it.
    v_owed := EXISTS (SELECT FROM subscriptions s WHERE s.account_id = a.id AND s.past_due_since IS NOT NULL);
    v_answer := stripe_apply('', v_event, 1, a.id, v_ticket, v_list, jsonb_build_object('kind', 'subscription',
        'policy', CASE WHEN NOT v_owed THEN p_policy END, 'grace_seconds', CASE WHEN NOT v_owed THEN p_grace END));
    -- Whoever owes has paid before, and the period before this one is what the credits are of; paying refills them.
    v_force := subscription_in_force(a.id);
    IF v_force.status = 'past_due' AND v_force.credits_from IS NULL
       AND v_force.period_start IS NOT NULL THEN
        v_force.period_end := v_force.period_start;
        v_force.period_start := cycle_start(coalesce(v_force.anchor, v_force.period_start), v_force.period_start - interval '1 second');
        PERFORM credits_allocate(v_force, v_force.period_start);
    END IF;
    v_drift := subscriptions_drift(v_before, subscriptions_view(a.id));
    v_more := coalesce((SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('action', l.action, 'before', l.before,
            'after', l.after)) ORDER BY l.id) FROM audit_log l WHERE l.id > v_mark AND l.account_id = a.id), '[]');
    v_answer := v_answer || jsonb_build_object('customer', p_customer, 'event', v_event, 'drift', v_drift, 'changes', v_more,
        'changed', v_drift <> '[]' OR v_more <> '[]',
        'unplanned', EXISTS (SELECT FROM subscriptions s WHERE s.account_id = a.id AND subscription_live(s.status)
            AND s.price_id IS NULL));
    IF v_drift <> '[]' OR v_more <> '[]' THEN
        INSERT INTO audit_log (account_id, actor, action, after) VALUES (a.id, p_actor, 'stripe.' || p_why,
            jsonb_build_object('event', v_event, 'drift', v_drift));
    END IF;
    PERFORM set_config('billing.actor', coalesce(v_actor, ''), true);
    RETURN v_answer;
END $$;

-- Brings an account to what a look at its customer has shown, by the way that events take (stripe_apply), and tells what
-- was not so: {account, plan_before, plan, status_before, status, stale, changed, drift, changes,
-- unplanned}; unplanned: it pays for a price that the catalog does not have. Where all was as it
-- should be nothing is written at all. p_ticket NULL: nothing is to last, it is only to be told what would happen; then the
-- account need not exist yet, nor be linked. p_why: reconcile or import. p_policy, p_grace: what billing_payment_failed says.
CREATE FUNCTION billing.stripe_look(p_account text, p_customer text, p_ticket bigint, p_subscriptions jsonb, p_why text,
        p_policy text, p_grace bigint, p_actor text) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET jit = off
    SET enable_seqscan = off AS $$
DECLARE
    v_answer jsonb;
BEGIN
    IF p_why IS NULL OR p_why NOT IN ('reconcile', 'import') OR p_subscriptions IS NULL THEN
        RAISE EXCEPTION 'stripe_look: nothing was looked at' USING ERRCODE = '22023';
    END IF;
    BEGIN
        v_answer := stripe_look_apply(p_account, p_customer, p_ticket, p_subscriptions, p_why, p_policy, p_grace, p_actor);
        IF p_ticket IS NULL OR NOT (v_answer ->> 'changed')::boolean THEN
            RAISE EXCEPTION 'undone' USING ERRCODE = 'BI003';
        END IF;
    EXCEPTION WHEN SQLSTATE 'BI003' THEN
        NULL; -- the answer stays
    END;
    PERFORM live_mode_note(p_ticket IS NOT NULL AND jsonb_path_exists(p_subscriptions, '$[*] ? (@.livemode == true)'));
    RETURN v_answer;
END $$;

-- ---------------------------------------------------------------- passes over Stripe's lists

-- Which of these events nobody has stored.
CREATE FUNCTION billing.stripe_events_unknown(p_events text[]) RETURNS SETOF text
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = billing, pg_temp SET enable_seqscan = off AS $$
    SELECT x.id FROM unnest(p_events) x(id)
    WHERE NOT EXISTS (SELECT FROM webhook_events w WHERE w.stripe_account = '' AND w.event_id = x.id)
$$;

-- The passes that hosts make by themselves. One host has a pass at a time, for as long as it keeps saying so.
-- seen_until: what Stripe had to tell until then has been seen.
CREATE TABLE billing.stripe_passes (
    kind        text PRIMARY KEY CHECK (kind IN ('events', 'subscriptions', 'months', 'purge')),
    seen_until  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at  timestamptz,
    holder      uuid,
    held_until  timestamptz NOT NULL DEFAULT '-infinity'
);

-- A pass, if one is due and nobody has it: its holder, and since when (unix seconds) it has to look. The first is due once
-- p_every has gone by since this was asked first.
CREATE FUNCTION billing.stripe_pass_begin(p_kind text, p_every interval) RETURNS TABLE (holder uuid, since bigint)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    INSERT INTO stripe_passes (kind) SELECT p_kind WHERE NOT EXISTS (SELECT FROM stripe_passes p WHERE p.kind = p_kind)
        ON CONFLICT (kind) DO NOTHING;
    RETURN QUERY UPDATE stripe_passes p SET holder = gen_random_uuid(), started_at = v_now,
            held_until = v_now + interval '2 min'
        WHERE p.kind = p_kind AND p.finished_at + p_every <= v_now AND p.held_until <= v_now
        RETURNING p.holder, unix(greatest(p.seen_until, v_now - interval '30 days'));
END $$;

-- False: it is in other hands.
CREATE FUNCTION billing.stripe_pass_keep(p_kind text, p_holder uuid) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
BEGIN
    UPDATE stripe_passes p SET held_until = clock_timestamp() + interval '2 min' WHERE p.kind = p_kind AND p.holder = p_holder;
    RETURN FOUND;
END $$;

CREATE FUNCTION billing.stripe_pass_done(p_kind text, p_holder uuid) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
BEGIN
    UPDATE stripe_passes p SET seen_until = p.started_at, finished_at = clock_timestamp(), holder = NULL,
        held_until = '-infinity'
        WHERE p.kind = p_kind AND p.holder = p_holder;
    RETURN FOUND;
END $$;

-- ---------------------------------------------------------------- what is not kept

-- What events carried is personal, and so is the address of a checkout, which opens it to whoever has it. The first goes p_keep
-- after the event was done (those that wait, and dead ones, keep it), the second once the checkout is over. At most p_batch
-- of each; how many there were.
CREATE FUNCTION billing.stripe_purge(p_keep interval, p_batch integer) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET jit = off SET enable_seqscan = off AS $$
DECLARE
    v_count bigint;
BEGIN
    IF p_keep IS NULL OR p_keep < interval '1 day' OR p_batch IS NULL OR p_batch NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'stripe_purge: at least a day is kept, the batch is 1..10000' USING ERRCODE = '22023';
    END IF;
    WITH old AS (
        SELECT w.stripe_account, w.event_id FROM webhook_events w
        WHERE w.status IN ('processed', 'ignored') AND NOT w.purged
          AND coalesce(w.processed_at, w.received_at) <= clock_timestamp() - p_keep
        ORDER BY coalesce(w.processed_at, w.received_at) LIMIT p_batch FOR UPDATE SKIP LOCKED),
    purged AS (
        UPDATE webhook_events w SET payload = '', purged = true FROM old o
        WHERE w.stripe_account = o.stripe_account AND w.event_id = o.event_id RETURNING 1),
    ended AS (
        SELECT c.session_id FROM checkout_sessions c
        WHERE c.url IS NOT NULL AND (c.status <> 'open' OR c.expires_at <= clock_timestamp())
        ORDER BY c.created_at LIMIT p_batch FOR UPDATE SKIP LOCKED),
    closed AS (
        UPDATE checkout_sessions c SET url = NULL FROM ended o WHERE c.session_id = o.session_id RETURNING 1)
    SELECT (SELECT count(*) FROM purged) + (SELECT count(*) FROM closed) INTO v_count;
    RETURN v_count;
END $$;

-- ---------------------------------------------------------------- import

-- Whose is this customer? p_account: the account that its metadata or the operator's list names, which comes into being
-- where there is none; NULL: the one with p_email. Links it, unless p_dry, and takes over email and name that are missing.
-- {outcome, account, created?, customer?}; outcome: linked; already; and, with nothing changed: unmatched, ambiguous (email),
-- invalid (account id), elsewhere (the customer is linked to `account`), taken (`account` has `customer`).
CREATE FUNCTION billing.customer_import(p_customer text, p_account text, p_email text, p_name text, p_livemode boolean,
        p_actor text, p_dry boolean) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_actor   text := current_setting('billing.actor', true);
    v_account text := p_account;
    v_found   bigint;
    a         accounts;
BEGIN
    SELECT x.* INTO a FROM accounts x WHERE x.stripe_customer_id = p_customer;
    IF FOUND THEN
        RETURN jsonb_build_object('outcome', CASE WHEN a.external_id <> p_account THEN 'elsewhere' ELSE 'already' END,
            'account', a.external_id);
    END IF;
    IF v_account IS NULL THEN
        SELECT count(*), min(x.external_id) INTO v_found, v_account FROM accounts x
            WHERE lower(x.email) = lower(p_email) AND x.deleted_at IS NULL;
        IF v_found <> 1 THEN
            RETURN jsonb_build_object('outcome', CASE WHEN v_found = 0 THEN 'unmatched' ELSE 'ambiguous' END);
        END IF;
    ELSIF v_account COLLATE "C" !~ '^[A-Za-z0-9_.@:|-]{1,128}$' THEN
        RETURN jsonb_build_object('outcome', 'invalid');
    END IF;
    SELECT x.* INTO a FROM accounts x WHERE x.external_id = v_account AND x.deleted_at IS NULL;
    v_found := a.id;
    IF a.stripe_customer_id IS NOT NULL THEN
        RETURN jsonb_build_object('outcome', 'taken', 'account', v_account, 'customer', a.stripe_customer_id);
    END IF;
    IF NOT p_dry THEN
        PERFORM set_config('billing.actor', coalesce(p_actor, ''), true);
        PERFORM live_mode_note(p_livemode);
        PERFORM ensure_accounts(ARRAY[v_account]);
        SELECT x.* INTO a FROM accounts x WHERE x.external_id = v_account FOR UPDATE;
        IF customer_bind(a.id, p_customer) <> p_customer THEN
            RETURN jsonb_build_object('outcome', 'taken', 'account', v_account, 'customer', a.stripe_customer_id);
        END IF;
        UPDATE accounts x SET email = coalesce(x.email, nullif(p_email, '')), name = coalesce(x.name, nullif(p_name, ''))
            WHERE x.id = a.id AND (x.email IS NULL AND p_email <> '' OR x.name IS NULL AND p_name <> '');
        PERFORM set_config('billing.actor', coalesce(v_actor, ''), true);
    END IF;
    RETURN jsonb_build_object('outcome', 'linked', 'account', v_account, 'created', v_found IS NULL);
END $$;

REVOKE ALL ON billing.stripe_passes FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    billing.stripe_suspects(jsonb, bigint, bigint),
    billing.stripe_look(text, text, bigint, jsonb, text, text, bigint, text),
    billing.stripe_events_unknown(text[]),
    billing.stripe_purge(interval, integer),
    billing.stripe_pass_begin(text, interval),
    billing.stripe_pass_keep(text, uuid),
    billing.stripe_pass_done(text, uuid)
    TO billing_jobs;
