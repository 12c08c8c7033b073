-- Customers and checkouts. Called by the endpoints of workers and by the jobs. Whoever calls Stripe does so between two of
-- these calls, never within one: the account's row is locked for the length of a statement.

-- Links a customer to an account; both columns are unique, the link in force stays. Returns the customer in force.
-- The caller holds the account's row.
CREATE FUNCTION billing.customer_bind(p_account_id bigint, p_customer text) RETURNS text
    LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    v_now text;
BEGIN
    IF coalesce(p_customer, '') = '' THEN
        RAISE EXCEPTION 'no customer to link' USING ERRCODE = '22023';
    END IF;
    SELECT a.stripe_customer_id INTO v_now FROM accounts a WHERE a.id = p_account_id FOR UPDATE;
    IF v_now IS NOT NULL THEN
        RETURN v_now;
    END IF;
    PERFORM customer_lock(p_customer);
    IF EXISTS (SELECT FROM accounts a WHERE a.stripe_customer_id = p_customer) THEN
        RAISE EXCEPTION 'customer % belongs to another account', p_customer USING ERRCODE = 'BI002';
    END IF;
    UPDATE accounts a SET stripe_customer_id = p_customer WHERE a.id = p_account_id;
    DELETE FROM checkout_intents i WHERE i.account_id = p_account_id AND i.kind = 'customer';
    DELETE FROM former_customers f WHERE f.customer_id = p_customer;
    INSERT INTO audit_log (account_id, actor, action, after)
        VALUES (p_account_id, audit_actor(), 'customer.link', jsonb_build_object('customer', p_customer));
    UPDATE webhook_events w SET status = 'received', next_attempt_at = clock_timestamp()
        WHERE w.customer_id = p_customer AND w.status = 'parked';
    IF FOUND THEN
        PERFORM pg_notify('billing_inbox', '');
    END IF;
    RETURN p_customer;
END $$;

-- 'linked', or 'already' with the customer in force (which may be this one). BI002: it belongs to another account.
-- No row: unknown account. Events that waited for the customer are processed from here on.
CREATE FUNCTION billing.customer_link(p_account text, p_customer text) RETURNS TABLE (outcome text, customer text)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET enable_seqscan = off
    SET lock_timeout = '1s' AS $$
#variable_conflict use_column
DECLARE
    a accounts;
BEGIN
    SELECT x.* INTO a FROM accounts x WHERE x.external_id = p_account FOR UPDATE;
    IF FOUND THEN
        RETURN QUERY SELECT CASE WHEN a.stripe_customer_id IS NULL THEN 'linked' ELSE 'already' END,
            customer_bind(a.id, p_customer);
    END IF;
END $$;

-- NULL: the account has none, or there is no such account.
CREATE FUNCTION billing.customer_of(p_account text) RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = billing, pg_temp AS
$$ SELECT a.stripe_customer_id FROM accounts a WHERE a.external_id = p_account AND a.deleted_at IS NULL $$;

-- For a customer that Stripe does not know (any more): the next checkout makes a new one. 'unlinked'; 'other' where that
-- customer is not the one in force; 'live' where a subscription says that it must exist (so rather the key is wrong).
CREATE FUNCTION billing.customer_unlink(p_account text, p_customer text) RETURNS text
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET enable_seqscan = off
    SET lock_timeout = '1s' AS $$
DECLARE
    a accounts;
BEGIN
    SELECT x.* INTO a FROM accounts x WHERE x.external_id = p_account FOR UPDATE;
    IF NOT FOUND OR a.stripe_customer_id IS DISTINCT FROM p_customer THEN
        RETURN 'other';
    ELSIF EXISTS (SELECT FROM subscriptions s WHERE s.account_id = a.id
                  AND s.status NOT IN ('canceled', 'incomplete_expired')) THEN
        RETURN 'live';
    END IF;
    PERFORM customer_drop(a.id);
    RETURN 'unlinked';
END $$;

-- The caller holds the account's row. Open checkouts and calls under way name a customer that is gone.
CREATE FUNCTION billing.customer_drop(p_account_id bigint) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    v_customer text := (SELECT a.stripe_customer_id FROM accounts a WHERE a.id = p_account_id);
BEGIN
    UPDATE accounts a SET stripe_customer_id = NULL WHERE a.id = p_account_id;
    INSERT INTO former_customers (customer_id, account_id) VALUES (v_customer, p_account_id)
        ON CONFLICT (customer_id) DO UPDATE SET account_id = excluded.account_id, dropped_at = excluded.dropped_at;
    UPDATE checkout_sessions c SET status = 'expired' WHERE c.account_id = p_account_id AND c.status = 'open';
    DELETE FROM checkout_intents i WHERE i.account_id = p_account_id;
    INSERT INTO audit_log (account_id, actor, action, before)
        VALUES (p_account_id, audit_actor(), 'customer.unlink', jsonb_build_object('customer', v_customer));
END $$;

-- Whose event is it, and a ticket for the look at Stripe that follows. p_account: what a checkout session of ours names
-- (NULL for all other events); it counts only where neither the customer nor the account has a link. p_payment: the payment
-- intent that the event is about; what was sold to an account stays its own, whatever has become of its customer.
-- No row: unknown. conflict: the link in force says otherwise; there is no ticket, and nothing may be applied. customer: the
-- link in force. former: p_customer was the account's, and is gone; what Stripe still lists of it says nothing any more.
CREATE FUNCTION billing.customer_ticket(p_customer text, p_account text, p_payment text DEFAULT NULL)
    RETURNS TABLE (account_id bigint, account text, customer text, ticket bigint, conflict boolean, former boolean)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    a accounts;
BEGIN
    conflict := false;
    former := false;
    SELECT x.* INTO a FROM accounts x WHERE x.stripe_customer_id = p_customer;
    IF FOUND THEN
        conflict := a.external_id <> p_account;
    ELSE
        SELECT x.* INTO a FROM accounts x WHERE x.external_id = p_account;
        IF FOUND THEN
            former := EXISTS (SELECT FROM former_customers f WHERE f.customer_id = p_customer AND f.account_id = a.id);
            conflict := a.stripe_customer_id <> p_customer AND NOT former;
        ELSIF p_account IS NOT NULL THEN
            RETURN;
        ELSE
            SELECT x.* INTO a FROM accounts x WHERE x.id = coalesce(
                (SELECT f.account_id FROM former_customers f WHERE f.customer_id = p_customer),
                (SELECT min(c.account_id) FROM checkout_sessions c WHERE c.payment_intent = p_payment),
                (SELECT min(i.account_id) FROM invoices i WHERE i.payment_intent = p_payment));
            IF NOT FOUND THEN
                RETURN;
            END IF;
            former := p_customer IS NOT NULL;
        END IF;
    END IF;
    conflict := coalesce(conflict, false);
    IF NOT conflict THEN
        UPDATE accounts x SET fetch_seq = x.fetch_seq + 1 WHERE x.id = a.id RETURNING x.fetch_seq INTO ticket;
    END IF;
    account_id := a.id;
    account := a.external_id;
    customer := a.stripe_customer_id;
    RETURN NEXT;
END $$;

-- ---------------------------------------------------------------- what is for sale

-- p_name: a plan's key, a plan's key with its interval ('pro_monthly'), a pack's key, or a price id. p_interval: day, week,
-- month, year, also as daily, weekly, monthly, yearly, annual; NULL: month, else the only one there is. p_livemode is for
-- catalogs that hold test and live ids side by side; today's hold one id, which serves both.
-- One row; every: the price's interval. outcome 'ok', 'unknown' (no such plan, price or interval), 'no_price' (the plan is
-- free, or its price has no id).
CREATE FUNCTION billing.resolve_price(p_name text, p_interval text, p_livemode boolean)
    RETURNS TABLE (outcome text, price_id text, mode text, plan text, every text, pack text, credit text, quantity bigint,
                   amount bigint, currency text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
#variable_conflict use_column
DECLARE
    k_intervals CONSTANT jsonb := '{"day": "day", "daily": "day", "week": "week", "weekly": "week", "month": "month",
        "monthly": "month", "year": "year", "yearly": "year", "annual": "year", "annually": "year"}';
    v_interval text := k_intervals ->> lower(p_interval);
    v_plan     plans;
BEGIN
    outcome := 'unknown';
    IF p_interval <> '' AND v_interval IS NULL THEN
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT p.* INTO v_plan FROM plans p WHERE p.plan_key = p_name AND p.active;
    IF NOT FOUND AND v_interval IS NULL THEN
        SELECT p.* INTO v_plan FROM plans p WHERE p.active
            AND p.plan_key = regexp_replace(p_name, '_(daily|weekly|monthly|yearly|annual|annually)$', '')
            AND p_name <> p.plan_key;
        v_interval := CASE WHEN FOUND THEN k_intervals ->> regexp_replace(p_name, '^.*_', '') END;
    END IF;
    IF v_plan.plan_no IS NOT NULL THEN
        SELECT CASE WHEN x.price_id IS NULL THEN 'no_price' ELSE 'ok' END, x.price_id, x.interval, x.amount, x.currency
            INTO outcome, price_id, every, amount, currency
            FROM plan_prices x WHERE x.plan_no = v_plan.plan_no AND x.active AND x.interval = coalesce(v_interval, x.interval)
            AND (v_interval IS NOT NULL OR x.interval = 'month'
                 OR (SELECT count(*) FROM plan_prices y WHERE y.plan_no = v_plan.plan_no AND y.active) = 1)
            LIMIT 1;
        IF NOT FOUND THEN
            outcome := CASE WHEN EXISTS (SELECT FROM plan_prices x WHERE x.plan_no = v_plan.plan_no AND x.active)
                       THEN 'unknown' ELSE 'no_price' END;
        END IF;
        plan := v_plan.plan_key;
        mode := CASE WHEN every = 'one_time' THEN 'payment' ELSE 'subscription' END;
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT x.price_id, CASE WHEN x.interval = 'one_time' THEN 'payment' ELSE 'subscription' END, p.plan_key, x.interval,
           x.amount, x.currency
        INTO price_id, mode, plan, every, amount, currency
        FROM plan_prices x JOIN plans p USING (plan_no) WHERE x.price_id = p_name AND x.active AND p.active;
    IF FOUND THEN
        outcome := 'ok';
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT CASE WHEN k.price_id IS NULL THEN 'no_price' ELSE 'ok' END, k.price_id, 'payment', k.pack_key, t.credit_key,
           k.quantity, k.amount, k.currency
        INTO outcome, price_id, mode, pack, credit, quantity, amount, currency
        FROM packs k JOIN credit_types t USING (credit_no)
        WHERE k.active AND (k.pack_key = p_name OR k.price_id = p_name) ORDER BY k.pack_key = p_name DESC LIMIT 1;
    outcome := coalesce(outcome, 'unknown');
    RETURN NEXT;
END $$;

-- ---------------------------------------------------------------- checkouts

-- The intent of that kind: the one that others are just pursuing, or a new one. The caller holds the account's row.
CREATE FUNCTION billing.checkout_intent(p_account_id bigint, p_kind text, p_price text, p_style text, p_now timestamptz,
        p_life interval)
    RETURNS billing.checkout_intents LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    i checkout_intents;
BEGIN
    INSERT INTO checkout_intents AS x (account_id, kind, intent_key, price_id, style, started_at)
        VALUES (p_account_id, p_kind, p_kind || ':' || gen_random_uuid(), p_price, p_style, p_now)
        ON CONFLICT (account_id, kind) DO UPDATE SET intent_key = excluded.intent_key, price_id = excluded.price_id,
            style = excluded.style, started_at = excluded.started_at
        WHERE ROW(x.price_id, x.style) IS DISTINCT FROM ROW(excluded.price_id, excluded.style)
           OR x.started_at <= p_now - p_life OR x.started_at > p_now + p_life;
    SELECT x.* INTO i FROM checkout_intents x WHERE x.account_id = p_account_id AND x.kind = p_kind;
    RETURN i;
END $$;

-- The intent to make the account's customer; Stripe keeps idempotency keys for a day. The caller holds the account's row.
CREATE FUNCTION billing.customer_intent(p_account_id bigint, p_now timestamptz) RETURNS text
    LANGUAGE sql SET search_path = billing, pg_temp AS
$$ SELECT intent_key FROM checkout_intent(p_account_id, 'customer', NULL, NULL, p_now, '23 hours') $$;

-- The account, locked; of email and name those are stored that it does not have yet ('' counts as none), so that all who
-- make its customer make the same one.
CREATE FUNCTION billing.account_contact(p_account text, p_email text, p_name text) RETURNS billing.accounts
    LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    a accounts;
BEGIN
    SELECT x.* INTO a FROM accounts x WHERE x.external_id = p_account AND x.deleted_at IS NULL FOR NO KEY UPDATE;
    IF FOUND AND a.stripe_customer_id IS NULL AND (a.email IS NULL AND p_email <> '' OR a.name IS NULL AND p_name <> '') THEN
        UPDATE accounts x SET email = coalesce(x.email, nullif(p_email, '')), name = coalesce(x.name, nullif(p_name, ''))
            WHERE x.id = a.id RETURNING x.* INTO a;
    END IF;
    RETURN a;
END $$;

-- For a portal that makes customers: as checkout_begin, without anything to buy. No row: unknown account.
CREATE FUNCTION billing.customer_begin(p_account text, p_email text, p_name text)
    RETURNS TABLE (customer text, email text, name text, customer_intent text)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET enable_seqscan = off
    SET lock_timeout = '1s' AS $$
DECLARE
    a accounts := account_contact(p_account, p_email, p_name);
BEGIN
    IF a.id IS NOT NULL THEN
        RETURN QUERY SELECT a.stripe_customer_id, a.email, a.name,
            CASE WHEN a.stripe_customer_id IS NULL THEN customer_intent(a.id, clock_timestamp()) END;
    END IF;
END $$;

-- All that an endpoint needs before it calls Stripe; changes nothing that decides. p_style: names what goes into the session
-- besides the price, its pages and options. One row, outcome:
--   'unknown_account' | 'unknown_price'
--   'subscribed'  a subscription that is not over stands in the way; plan and status are the account's
--   'paid'        a checkout has been paid and its event is on the way, for as long as Stripe sends events again
--   'reuse'       session and url: the open one for the same price and style
--   'replace'     session: another open one. Expire it at Stripe, call checkout_closed, then go on as 'create'
--   'create'      make the session under the idempotency key intent, the same for all who ask at the same time, and call
--                 checkout_opened. Whatever goes into the request must follow from this row or into the key
-- customer NULL: make one first under customer_intent, and call customer_link. first: there was never a subscription.
CREATE FUNCTION billing.checkout_begin(p_account text, p_price text, p_style text DEFAULT NULL, p_email text DEFAULT NULL,
        p_name text DEFAULT NULL, p_now timestamptz DEFAULT clock_timestamp())
    RETURNS TABLE (outcome text, account_id bigint, customer text, email text, name text, mode text, plan text, credit text,
                   quantity bigint, session text, url text, intent text, customer_intent text, first boolean,
                   current_plan text, current_status text)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET enable_seqscan = off
    SET lock_timeout = '1s' AS $$
#variable_conflict use_column
DECLARE
    k_session CONSTANT interval := '10 minutes'; -- a session made longer ago may be over
    a accounts := account_contact(p_account, p_email, p_name);
    c checkout_sessions;
    v_style text;
BEGIN
    IF a.id IS NULL THEN
        outcome := 'unknown_account';
        RETURN NEXT;
        RETURN;
    END IF;
    account_id := a.id;
    customer := a.stripe_customer_id;
    email := a.email;
    name := a.name;
    current_status := a.status;
    first := NOT EXISTS (SELECT FROM subscriptions s WHERE s.account_id = a.id);
    v_style := concat_ws(' ', p_style, CASE WHEN first THEN 'first' END); -- which has its trial in it
    SELECT p.plan_key INTO current_plan FROM plans p WHERE p.plan_no = a.plan_no;
    SELECT r.outcome, r.mode, r.plan, r.credit, r.quantity INTO outcome, mode, plan, credit, quantity
        FROM resolve_price(p_price, NULL, NULL) r WHERE r.price_id = p_price;
    IF outcome IS DISTINCT FROM 'ok' THEN
        outcome := 'unknown_price';
        RETURN NEXT;
        RETURN;
    END IF;
    outcome := 'create';
    IF mode = 'subscription' THEN
        IF EXISTS (SELECT FROM subscriptions s WHERE s.account_id = a.id
                   AND s.status NOT IN ('canceled', 'incomplete_expired')) THEN
            outcome := 'subscribed';
            RETURN NEXT;
            RETURN;
        END IF;
        UPDATE checkout_sessions x SET status = 'expired'
            WHERE x.account_id = a.id AND x.status = 'open' AND x.mode = 'subscription' AND x.expires_at <= p_now;
        IF EXISTS (SELECT FROM checkout_sessions x WHERE x.account_id = a.id AND x.status = 'paid'
                   AND x.mode = 'subscription' AND x.created_at > p_now - interval '3 days') THEN
            outcome := 'paid';
            RETURN NEXT;
            RETURN;
        END IF;
        SELECT x.* INTO c FROM checkout_sessions x
            WHERE x.account_id = a.id AND x.status = 'open' AND x.mode = 'subscription';
        session := c.session_id;
        IF c.price_id = p_price AND c.style = v_style AND c.expires_at > p_now + interval '1 minute' THEN
            outcome := 'reuse';
            url := c.url;
            RETURN NEXT;
            RETURN;
        ELSIF c.session_id IS NOT NULL THEN
            outcome := 'replace';
        END IF;
    END IF;
    SELECT i.intent_key INTO intent FROM checkout_intent(a.id, mode, p_price, v_style, p_now, k_session) i;
    IF customer IS NULL THEN
        customer_intent := customer_intent(a.id, p_now);
    END IF;
    RETURN NEXT;
END $$;

-- The session that Stripe made for an intent. 'open' (whoever stores it first; the others of the same intent get the same);
-- 'paid', 'complete' or 'expired' where that is over already; 'superseded': another checkout of the account has begun since or is
-- open. Then expire this one at Stripe and do not show it: nobody may hold two that can be paid.
CREATE FUNCTION billing.checkout_opened(p_account text, p_intent text, p_session text, p_url text, p_expires bigint)
    RETURNS text LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET enable_seqscan = off
    SET lock_timeout = '1s' AS $$
DECLARE
    v_id     bigint;
    v_status text;
    i        checkout_intents;
BEGIN
    SELECT a.id INTO v_id FROM accounts a WHERE a.external_id = p_account FOR NO KEY UPDATE;
    SELECT c.status INTO v_status FROM checkout_sessions c WHERE c.session_id = p_session AND c.account_id = v_id;
    IF FOUND THEN
        UPDATE checkout_sessions c SET url = coalesce(c.url, p_url), intent_key = coalesce(c.intent_key, p_intent)
            WHERE c.session_id = p_session;
        DELETE FROM checkout_intents x WHERE x.account_id = v_id AND x.intent_key = p_intent;
        RETURN v_status;
    END IF;
    SELECT x.* INTO i FROM checkout_intents x WHERE x.account_id = v_id AND x.intent_key = p_intent;
    IF NOT FOUND OR i.kind = 'subscription' AND EXISTS (SELECT FROM checkout_sessions c
            WHERE c.account_id = v_id AND c.mode = 'subscription' AND c.status = 'open') THEN
        RETURN 'superseded';
    END IF;
    PERFORM live_mode_note(p_session LIKE 'cs\_live\_%');
    INSERT INTO checkout_sessions (session_id, account_id, intent_key, price_id, style, mode, status, url, expires_at)
        VALUES (p_session, v_id, p_intent, i.price_id, i.style, i.kind, 'open', p_url,
                coalesce(to_timestamp(p_expires), clock_timestamp() + interval '1 day'));
    DELETE FROM checkout_intents x WHERE x.account_id = v_id AND x.intent_key = p_intent;
    RETURN 'open';
END $$;

-- An intent whose call Stripe answered with a definite no: its key would only bring the same answer again.
CREATE FUNCTION billing.checkout_failed(p_intent text) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp AS
$$ DELETE FROM checkout_intents i WHERE i.intent_key = p_intent $$;

-- What Stripe says of a session, without an event: 'paid' or 'expired'. False: it was not open.
CREATE FUNCTION billing.checkout_closed(p_session text, p_status text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET enable_seqscan = off
    SET lock_timeout = '1s' AS $$
BEGIN
    IF p_status IS NULL OR p_status NOT IN ('paid', 'expired') THEN
        RAISE EXCEPTION 'a checkout ends paid or expired, not %', p_status USING ERRCODE = '22023';
    END IF;
    PERFORM FROM accounts a WHERE a.id = (SELECT c.account_id FROM checkout_sessions c WHERE c.session_id = p_session)
        FOR NO KEY UPDATE;
    UPDATE checkout_sessions c SET status = p_status WHERE c.session_id = p_session AND c.status = 'open';
    RETURN FOUND;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    billing.customer_link(text, text),
    billing.customer_unlink(text, text),
    billing.customer_of(text),
    billing.resolve_price(text, text, boolean),
    billing.customer_begin(text, text, text),
    billing.checkout_begin(text, text, text, text, text, timestamptz),
    billing.checkout_opened(text, text, text, text, bigint),
    billing.checkout_failed(text),
    billing.checkout_closed(text, text)
    TO billing_gate, billing_jobs;
GRANT EXECUTE ON FUNCTION billing.customer_ticket(text, text, text) TO billing_jobs;
