-- stripe_apply: one event, one transaction. What an account has is computed from all that is known (its subscriptions as
-- Stripe listed them last, its failed invoices), never from the event at hand; so the order of events does not matter.
-- Money is the exception: invoices and checkouts take effect by their own id, once, also through a stale ticket.

CREATE FUNCTION billing.subscription_over(status text) RETURNS boolean LANGUAGE sql IMMUTABLE AS
$$ SELECT status IN ('canceled', 'incomplete_expired') $$;
CREATE FUNCTION billing.subscription_live(status text) RETURNS boolean LANGUAGE sql IMMUTABLE AS
$$ SELECT status IN ('active', 'trialing', 'past_due') $$;

-- Stripe's word for it, but for one whose invoices are voided: what was paid is had to its end, then it is paused.
CREATE FUNCTION billing.subscription_state(s billing.subscriptions) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT CASE WHEN s.paused_from <= s.period_start AND s.status IN ('active', 'trialing', 'past_due') THEN 'paused' ELSE s.status END $$;

-- Which of a subscription's prices gives the plan: the one of the highest; NULL if the catalog knows none.
CREATE FUNCTION billing.plan_price(prices text[]) RETURNS text LANGUAGE sql STABLE SET search_path = billing, pg_temp AS $$
    SELECT m.price_id FROM plan_prices m JOIN plans p USING (plan_no)
    WHERE m.price_id = ANY (prices) ORDER BY p.rank DESC, m.price_id LIMIT 1
$$;

-- Writes down what a look at Stripe saw. What is over stays over; a period that Stripe does not tell stays as it was.
CREATE FUNCTION billing.subscriptions_store(p_account_id bigint, p_customer text, p_list jsonb, p_at timestamptz)
    RETURNS void LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    v_bad text;
BEGIN
    SELECT s.subscription_id INTO v_bad FROM jsonb_array_elements(p_list) e
        JOIN subscriptions s ON s.subscription_id = e ->> 'id' WHERE s.account_id <> p_account_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'subscription % belongs to another account', v_bad USING ERRCODE = 'BI002';
    END IF;
    -- The period is that of the item which has the plan's price, where items have periods of their own.
    INSERT INTO subscriptions AS s (subscription_id, account_id, customer_id, status, prices, quantity, period_start,
            period_end, cancel_at, trial_end, anchor, started_at, ended_at, past_due_since, pause)
        SELECT DISTINCT ON (e ->> 'id') e ->> 'id', p_account_id, coalesce(e ->> 'customer', p_customer), e ->> 'status',
            x.prices, (e ->> 'quantity')::bigint,
            stripe_time(coalesce(i.item -> 'period_start', e -> 'period_start')),
            stripe_time(coalesce(i.item -> 'period_end', e -> 'period_end')), stripe_time(e -> 'cancel_at'),
            stripe_time(e -> 'trial_end'), stripe_time(e -> 'anchor'), stripe_time(e -> 'created'),
            CASE WHEN subscription_over(e ->> 'status') THEN coalesce(stripe_time(e -> 'ended_at'), p_at) END,
            CASE WHEN e ->> 'status' IN ('past_due', 'unpaid') THEN p_at END, e ->> 'pause'
        FROM jsonb_array_elements(jsonb_strip_nulls(p_list)) e
        CROSS JOIN LATERAL (SELECT ARRAY(SELECT jsonb_array_elements_text(coalesce(e -> 'prices',
            jsonb_path_query_array(e, '$.items[*].price')))) AS prices) x
        LEFT JOIN LATERAL (SELECT j.item FROM jsonb_array_elements(e -> 'items') j(item)
            WHERE j.item ->> 'price' = plan_price(x.prices) LIMIT 1) i ON true
        ORDER BY 1
        ON CONFLICT (subscription_id) DO UPDATE SET customer_id = excluded.customer_id, status = excluded.status,
            prices = excluded.prices, quantity = excluded.quantity,
            period_start = coalesce(excluded.period_start, s.period_start),
            period_end = coalesce(excluded.period_end, s.period_end),
            cancel_at = excluded.cancel_at, trial_end = excluded.trial_end, anchor = coalesce(excluded.anchor, s.anchor),
            started_at = coalesce(excluded.started_at, s.started_at), ended_at = excluded.ended_at,
            past_due_since = CASE WHEN excluded.past_due_since IS NOT NULL
                             THEN coalesce(s.past_due_since, excluded.past_due_since) END,
            pause = excluded.pause, changed_at = clock_timestamp()
        WHERE NOT subscription_over(s.status);
    -- Where Stripe does not tell the anchor, the period's start is one. In February it may have lost days that the month before
    -- still had: then the former one stands as long as it leads to this start.
    UPDATE subscriptions s SET anchor = coalesce(s.period_start, s.started_at)
        FROM jsonb_array_elements(p_list) e
        WHERE s.subscription_id = e ->> 'id' AND NOT subscription_over(s.status) AND stripe_time(e -> 'anchor') IS NULL
          AND coalesce(cycle_start(s.anchor, s.period_start) <> s.period_start, s.anchor IS NULL);
END $$;

-- What follows for each of an account's subscriptions: the plan (the best among its known prices; while none is known, its
-- last one), and while it owes, until when that is let pass and whether it is held. Grace begins at the first failure of the
-- oldest open invoice, or when it was first seen owing while no failure is known. p_policy, p_grace: what is configured now,
-- for the second case.
CREATE FUNCTION billing.subscriptions_settle(p_account_id bigint, p_policy text, p_grace bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    -- Maintenance without a grace of its own: reading goes on until Stripe gives up.
    k_no_end CONSTANT bigint := 365 * 86400;
BEGIN
    UPDATE subscriptions s SET price_id = x.price_id, plan_no = coalesce(x.plan_no, o.plan_no)
        FROM subscriptions o LEFT JOIN plan_prices x ON x.price_id = plan_price(o.prices)
        WHERE o.account_id = p_account_id AND s.subscription_id = o.subscription_id
          AND ROW(s.price_id, s.plan_no) IS DISTINCT FROM ROW(x.price_id, coalesce(x.plan_no, o.plan_no));

    UPDATE invoices i SET settled = true FROM subscriptions s
        WHERE s.account_id = p_account_id AND i.subscription_id = s.subscription_id AND NOT i.settled
          AND (i.paid_at IS NOT NULL OR s.status IN ('active', 'trialing') OR subscription_over(s.status));

    UPDATE subscriptions s SET
        grace_until = CASE WHEN o.past_due_since IS NOT NULL THEN
            coalesce(i.first_failed_at + make_interval(secs => coalesce(i.grace_seconds, p_grace,
                         CASE WHEN coalesce(i.policy, p_policy) = 'maintenance' THEN k_no_end ELSE 0 END)),
                     o.past_due_since + make_interval(secs => coalesce(p_grace,
                         CASE WHEN p_policy = 'maintenance' THEN k_no_end END)),
                     o.grace_until) END,
        held = o.past_due_since IS NOT NULL AND coalesce(i.policy = 'maintenance', p_policy = 'maintenance', o.held)
        FROM subscriptions o LEFT JOIN LATERAL (
            SELECT x.* FROM invoices x WHERE x.subscription_id = o.subscription_id AND x.first_failed_at IS NOT NULL
            AND NOT x.settled ORDER BY x.first_failed_at, x.invoice_id LIMIT 1) i ON true
        WHERE o.account_id = p_account_id AND s.subscription_id = o.subscription_id
          AND (o.past_due_since IS NOT NULL OR o.grace_until IS NOT NULL OR o.held);

    -- Paid for to the end of the last period that an invoice was paid for; where none is known, of the one it was paused in.
    UPDATE subscriptions s SET paused_from = CASE WHEN s.pause = 'void' THEN coalesce(
            (SELECT max(i.period_end) FROM invoices i WHERE i.subscription_id = s.subscription_id AND i.paid_at IS NOT NULL),
            s.paused_from, s.period_end) END
        WHERE s.account_id = p_account_id AND (s.pause IS NOT NULL OR s.paused_from IS NOT NULL);
END $$;

-- The one that provides the plan: the highest plan among the live ones (what owes only within its grace); without one the
-- best of those that give no access but are not over (unpaid, paused, a status that we do not know). A known price goes before
-- one that is not, and who never had a plan has none to provide. Else all NULL: also where a first payment never came
-- (incomplete), for starting a checkout changes nothing.
CREATE FUNCTION billing.subscription_in_force(p_account_id bigint) RETURNS billing.subscriptions LANGUAGE sql STABLE
    SET search_path = billing, pg_temp AS $$
    SELECT s.* FROM subscriptions s JOIN plans p ON p.plan_no = s.plan_no
    WHERE s.account_id = p_account_id AND s.status NOT IN ('canceled', 'incomplete', 'incomplete_expired')
    ORDER BY CASE WHEN NOT subscription_live(subscription_state(s)) THEN 2
                  WHEN s.status = 'past_due' AND s.grace_until < clock_timestamp() THEN 1 ELSE 0 END,
        s.price_id IS NULL, p.rank DESC, s.status = 'past_due', s.started_at DESC NULLS LAST, s.subscription_id DESC
    LIMIT 1
$$;

CREATE FUNCTION billing.stripe_alarms(p_account_id bigint) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    s      subscriptions;
    v_live text[];
BEGIN
    FOR s IN SELECT x.* FROM subscriptions x WHERE x.account_id = p_account_id AND NOT subscription_over(x.status) LOOP
        IF s.price_id IS NULL THEN
            PERFORM alarm(p_account_id, 'unknown_price', s.subscription_id || ':' || array_to_string(s.prices, ','),
                jsonb_build_object('subscription', s.subscription_id, 'prices', s.prices));
        END IF;
        IF s.status NOT IN ('active', 'trialing', 'past_due', 'unpaid', 'paused', 'incomplete') THEN
            PERFORM alarm(p_account_id, 'unknown_status', s.subscription_id || ':' || s.status,
                jsonb_build_object('subscription', s.subscription_id, 'status', s.status));
        END IF;
    END LOOP;
    SELECT array_agg(x.subscription_id ORDER BY x.subscription_id) INTO v_live FROM subscriptions x
        WHERE x.account_id = p_account_id AND subscription_live(x.status);
    IF cardinality(v_live) > 1 THEN
        PERFORM alarm(p_account_id, 'second_subscription', array_to_string(v_live, ','),
            jsonb_build_object('subscriptions', v_live));
    END IF;
END $$;

-- Maintenance by reason of payment: 'payment' or 'none'. An operator's stays.
CREATE FUNCTION billing.maintenance_of(p_now text, p_held boolean) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT CASE WHEN p_now = 'operator' THEN 'operator' WHEN p_held THEN 'payment' ELSE 'none' END $$;

-- An account that no subscription provides for, nor did before this event, keeps what it has: an operator may have given it.
-- But for what disputes hold; p_dispute is what effect_dispute answered.
CREATE FUNCTION billing.account_hold(p_account_id bigint, p_disputed boolean, p_dispute text) RETURNS void
    LANGUAGE sql SET search_path = billing, pg_temp AS $$
    UPDATE accounts a SET maintenance = maintenance_of(a.maintenance, p_disputed OR a.status = 'canceled')
        WHERE a.id = p_account_id AND p_dispute IS NOT NULL AND (p_disputed OR p_dispute = 'released')
$$;

-- The account as its subscriptions have it. p_was: the one in force before, p_now: the one in force. p_at: the
-- present.
CREATE FUNCTION billing.account_recompute(p_account_id bigint, p_was billing.subscriptions, p_now billing.subscriptions,
        p_dispute text, p_at timestamptz) RETURNS void LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    v_state    text := subscription_state(p_now);
    v_disputed boolean := EXISTS (SELECT FROM disputes d WHERE d.account_id = p_account_id AND d.holds);
    v_paid     boolean := false;
    v_free     smallint;
    v_ended    record;
BEGIN
    IF p_now.subscription_id IS NOT NULL THEN
        UPDATE accounts a SET plan_no = p_now.plan_no,
            status = CASE WHEN subscription_live(v_state) OR v_state = 'unpaid' THEN v_state ELSE 'paused' END,
            period_start = p_now.period_start, period_end = p_now.period_end, cancel_at = p_now.cancel_at,
            trial_end = p_now.trial_end, cycle_anchor = coalesce(p_now.anchor, a.cycle_anchor),
            grace_until = p_now.grace_until, maintenance = maintenance_of(a.maintenance, p_now.held OR v_disputed)
            WHERE a.id = p_account_id;
        -- Seen late, owing or no longer paid for: its first period was paid all the same.
        IF v_state NOT IN ('active', 'trialing') AND subscription_live(p_now.status) AND p_now.credits_from IS NULL THEN
            SELECT i.period_start, i.period_end INTO p_now.period_start, p_now.period_end FROM invoices i
                WHERE i.subscription_id = p_now.subscription_id AND i.paid_at IS NOT NULL ORDER BY i.period_start LIMIT 1;
            v_paid := FOUND;
        END IF;
        IF v_state IN ('active', 'trialing') OR v_paid THEN
            PERFORM credits_allocate(p_now, p_at);
        END IF;
        RETURN;
    ELSIF p_was.subscription_id IS NULL THEN
        PERFORM account_hold(p_account_id, v_disputed, p_dispute);
        RETURN;
    END IF;
    SELECT p.plan_no INTO v_free FROM plans p LEFT JOIN meta m ON m.default_plan = p.plan_no
        WHERE p.is_free AND p.active ORDER BY m.default_plan IS NULL, p.rank, p.plan_no LIMIT 1;
    UPDATE accounts a SET plan_no = coalesce(v_free, a.plan_no),
        status = CASE WHEN v_free IS NULL THEN 'canceled' ELSE 'active' END,
        period_start = NULL, period_end = NULL, cancel_at = NULL, trial_end = NULL, grace_until = NULL,
        cycle_anchor = date_trunc('second', a.created_at),
        maintenance = maintenance_of(a.maintenance, v_free IS NULL OR v_disputed)
        WHERE a.id = p_account_id;
    IF v_free IS NOT NULL THEN
        SELECT x.subscription_id, x.ended_at INTO v_ended FROM subscriptions x
            WHERE x.account_id = p_account_id AND subscription_over(x.status) AND x.credits_from IS NOT NULL
            ORDER BY x.ended_at DESC, x.subscription_id LIMIT 1;
        IF FOUND THEN
            PERFORM credits_end(p_account_id, v_ended.subscription_id, v_ended.ended_at, v_free);
        END IF;
    END IF;
END $$;

-- ---------------------------------------------------------------- effects

-- The payment of a pack: told once for its session. (What is paid for a subscription are its invoices.)
CREATE FUNCTION billing.checkout_audit(p_account_id bigint, p_action text, p_price text, e jsonb) RETURNS void LANGUAGE sql
    SET search_path = billing, pg_temp AS $$
    INSERT INTO audit_log (account_id, actor, action, after, amount, currency)
        SELECT p_account_id, audit_actor(), p_action, jsonb_strip_nulls(jsonb_build_object('session', e ->> 'session',
            'price', p_price, 'payment_intent', e ->> 'payment_intent')), (e ->> 'amount')::bigint, e ->> 'currency'
        WHERE NOT EXISTS (SELECT FROM audit_log l WHERE l.account_id = p_account_id AND l.action = p_action
            AND l.after ->> 'session' = e ->> 'session')
$$;

-- checkout_completed: {session, mode, customer?, payment_status, payment_intent?, price?, quantity?, amount?, currency?}. A
-- session of ours names its price itself; the event's counts only for one whose answer has not been stored yet.
CREATE FUNCTION billing.effect_checkout(p_account_id bigint, e jsonb) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    c      checkout_sessions;
    v_bind text;
BEGIN
    IF e ->> 'customer' <> '' AND NOT EXISTS (SELECT FROM former_customers f WHERE f.customer_id = e ->> 'customer') THEN
        v_bind := customer_bind(p_account_id, e ->> 'customer');
        IF v_bind <> e ->> 'customer' THEN
            RAISE EXCEPTION 'the account has another customer than checkout %', e ->> 'session' USING ERRCODE = 'BI002';
        END IF;
    END IF;
    INSERT INTO checkout_sessions AS x (session_id, account_id, price_id, mode, status, payment_intent)
        VALUES (e ->> 'session', p_account_id, e ->> 'price', e ->> 'mode', 'complete', e ->> 'payment_intent')
        ON CONFLICT (session_id) DO UPDATE SET status = 'complete',
            payment_intent = coalesce(excluded.payment_intent, x.payment_intent)
        WHERE x.account_id = excluded.account_id
        RETURNING x.* INTO c;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'checkout % belongs to another account', e ->> 'session' USING ERRCODE = 'BI002';
    END IF;
    DELETE FROM checkout_intents i WHERE i.account_id = p_account_id AND i.kind = c.mode;
    IF c.mode = 'payment' AND e ->> 'payment_status' = 'paid' THEN
        PERFORM checkout_audit(p_account_id, 'payment.succeeded', c.price_id, e);
    END IF;
    IF c.mode = 'payment' AND e ->> 'payment_status' IN ('paid', 'no_payment_required')
       AND NOT credits_buy(p_account_id, c.price_id, coalesce((e ->> 'quantity')::bigint, 1), c.session_id, c.payment_intent) THEN
        PERFORM alarm(p_account_id, 'unknown_price', c.session_id || ':' || coalesce(c.price_id, ''),
            jsonb_build_object('session', c.session_id, 'price', c.price_id));
    END IF;
END $$;

-- checkout_expired: {session, mode}; checkout_failed: {session, mode, price?, payment_intent?, amount?, currency?}. Nothing comes of it.
CREATE FUNCTION billing.effect_checkout_over(p_account_id bigint, e jsonb) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    c checkout_sessions;
BEGIN
    -- Also one whose answer has not been stored yet: it must not come to be open afterwards.
    INSERT INTO checkout_sessions AS x (session_id, account_id, mode, status)
        VALUES (e ->> 'session', p_account_id, coalesce(e ->> 'mode', 'subscription'), 'expired')
        ON CONFLICT (session_id) DO UPDATE SET status = 'expired'
        WHERE x.account_id = excluded.account_id AND x.status IN ('open', 'paid');
    SELECT x.* INTO c FROM checkout_sessions x WHERE x.session_id = e ->> 'session' AND x.account_id = p_account_id;
    IF c.mode = 'payment' AND e ->> 'kind' = 'checkout_failed' THEN
        PERFORM checkout_audit(p_account_id, 'payment.failed', coalesce(c.price_id, e ->> 'price'), e);
    END IF;
END $$;

-- The effect with price and period of the line that pays for the plan. One that is about other items alone (usage of the month
-- before, an add-on with a period of its own) has neither, and is marked: it says nothing of the plan's period.
CREATE FUNCTION billing.invoice_of_plan(e jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE SET search_path = billing, pg_temp AS $$
DECLARE
    k_line CONSTANT text[] := '{lines,price,period_start,period_end}';
    v_lines jsonb := coalesce(e -> 'lines', jsonb_build_array(e));
    v_line  jsonb;
BEGIN
    SELECT j INTO v_line FROM jsonb_array_elements(v_lines) j
        WHERE j ->> 'price' = plan_price(ARRAY(SELECT x ->> 'price' FROM jsonb_array_elements(v_lines) x))
        ORDER BY (j ->> 'period_end')::bigint DESC NULLS LAST LIMIT 1;
    IF v_line IS NOT NULL THEN
        RETURN (e - k_line) || jsonb_strip_nulls(jsonb_build_object('price', v_line -> 'price',
            'period_start', v_line -> 'period_start', 'period_end', v_line -> 'period_end'));
    ELSIF e ? 'price' AND EXISTS (SELECT FROM subscriptions s
            WHERE s.subscription_id = e ->> 'subscription' AND s.price_id IS NOT NULL) THEN
        RETURN (e - k_line) || '{"other_items": true}';
    END IF;
    RETURN e - 'lines';
END $$;

-- One row for each invoice; true if this is news: the first time paid, or a failed attempt not seen before.
CREATE FUNCTION billing.effect_invoice(p_account_id bigint, e jsonb, p_paid boolean, p_at timestamptz) RETURNS boolean
    LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    v_attempt integer := (e ->> 'attempt')::integer;
    v_was     invoices;
BEGIN
    SELECT i.* INTO v_was FROM invoices i WHERE i.invoice_id = e ->> 'invoice';
    IF FOUND AND v_was.account_id <> p_account_id THEN
        RAISE EXCEPTION 'invoice % belongs to another account', e ->> 'invoice' USING ERRCODE = 'BI002';
    END IF;
    INSERT INTO invoices AS i (invoice_id, account_id, subscription_id, billing_reason, amount, currency, payment_intent,
            period_start, period_end, paid_at, first_failed_at, attempts, policy, grace_seconds)
        VALUES (e ->> 'invoice', p_account_id, e ->> 'subscription', e ->> 'billing_reason', (e ->> 'amount')::bigint,
            e ->> 'currency', e ->> 'payment_intent', stripe_time(e -> 'period_start'), stripe_time(e -> 'period_end'),
            CASE WHEN p_paid THEN p_at END, CASE WHEN NOT p_paid THEN p_at END,
            coalesce(v_attempt, 0), CASE WHEN NOT p_paid THEN coalesce(e ->> 'policy', 'grace') END,
            CASE WHEN NOT p_paid THEN (e ->> 'grace_seconds')::bigint END)
        ON CONFLICT (invoice_id) DO UPDATE SET subscription_id = coalesce(i.subscription_id, excluded.subscription_id),
            billing_reason = coalesce(i.billing_reason, excluded.billing_reason),
            amount = coalesce(excluded.amount, i.amount), currency = coalesce(excluded.currency, i.currency),
            payment_intent = coalesce(excluded.payment_intent, i.payment_intent),
            period_start = coalesce(excluded.period_start, i.period_start),
            period_end = coalesce(excluded.period_end, i.period_end),
            paid_at = coalesce(i.paid_at, excluded.paid_at),
            first_failed_at = least(i.first_failed_at, excluded.first_failed_at),
            attempts = greatest(i.attempts, excluded.attempts),
            policy = coalesce(i.policy, excluded.policy), grace_seconds = coalesce(i.grace_seconds, excluded.grace_seconds),
            settled = coalesce(i.paid_at, excluded.paid_at) IS NOT NULL;
    IF p_paid AND v_was.paid_at IS NOT NULL
       OR EXISTS (SELECT FROM audit_log l WHERE NOT p_paid AND l.account_id = p_account_id AND l.action = 'payment.failed'
                  AND l.invoice_id = e ->> 'invoice' AND l.attempt IS NOT DISTINCT FROM v_attempt) THEN
        RETURN false;
    END IF;
    INSERT INTO audit_log (account_id, actor, action, after, invoice_id, amount, currency, attempt)
        VALUES (p_account_id, audit_actor(), CASE WHEN p_paid THEN 'payment.succeeded' ELSE 'payment.failed' END,
            jsonb_strip_nulls(jsonb_build_object('subscription', e ->> 'subscription', 'reason', e ->> 'billing_reason')),
            e ->> 'invoice', (e ->> 'amount')::bigint, e ->> 'currency', v_attempt);
    RETURN true;
END $$;

-- customer_updated: {seen: {email?, name?}}, as they are under p_ticket. Nothing is erased.
CREATE FUNCTION billing.effect_customer(p_account_id bigint, p_ticket bigint, e jsonb) RETURNS void LANGUAGE sql
    SET search_path = billing, pg_temp AS $$
    UPDATE accounts a SET email = coalesce(nullif(e #>> '{seen,email}', ''), a.email),
        name = coalesce(nullif(e #>> '{seen,name}', ''), a.name), customer_seq = p_ticket
        WHERE a.id = p_account_id AND a.customer_seq < p_ticket
$$;

-- entitlements: {seen: [lookup keys]}, all that Stripe grants under p_ticket.
CREATE FUNCTION billing.effect_entitlements(p_account_id bigint, p_ticket bigint, e jsonb) RETURNS void LANGUAGE sql
    SET search_path = billing, pg_temp AS $$
    UPDATE accounts a SET entitlements = ARRAY(SELECT jsonb_array_elements_text(e -> 'seen')), entitlements_seq = p_ticket
        WHERE a.id = p_account_id AND a.entitlements_seq < p_ticket
$$;

-- Of what Stripe grants, the features that the catalog knows by now; beside those of the plan, behind an override by hand.
CREATE FUNCTION billing.entitlements_grant(p_account_id bigint) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
BEGIN
    DELETE FROM account_features x USING accounts a, features f
        WHERE a.id = p_account_id AND x.account_id = a.id AND x.source = 'stripe' AND f.feature_no = x.feature_no
          AND f.feature_key <> ALL (a.entitlements);
    INSERT INTO account_features (account_id, feature_no, enabled, source)
        SELECT a.id, f.feature_no, true, 'stripe' FROM accounts a JOIN features f ON f.feature_key = ANY (a.entitlements)
        WHERE a.id = p_account_id ORDER BY f.feature_no
        ON CONFLICT (account_id, feature_no) DO UPDATE SET enabled = true, expires_at = NULL, source = 'stripe'
            WHERE account_features.expires_at <= clock_timestamp();
END $$;

-- However an override is dropped, what Stripe grants counts again.
CREATE FUNCTION billing.override_dropped() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
BEGIN
    PERFORM entitlements_grant(OLD.account_id);
    RETURN NULL;
END $$;
CREATE TRIGGER account_features_dropped AFTER DELETE ON billing.account_features FOR EACH ROW
    WHEN (OLD.source <> 'stripe') EXECUTE FUNCTION billing.override_dropped();

-- customer_deleted: Stripe has ended all its subscriptions with it, and what they entitled to.
CREATE FUNCTION billing.effect_customer_deleted(p_account_id bigint, p_customer text, p_at timestamptz) RETURNS void
    LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
BEGIN
    UPDATE subscriptions s SET status = 'canceled', ended_at = p_at, past_due_since = NULL, changed_at = clock_timestamp()
        WHERE s.account_id = p_account_id AND s.customer_id = p_customer AND NOT subscription_over(s.status);
    IF EXISTS (SELECT FROM accounts a WHERE a.id = p_account_id AND a.stripe_customer_id = p_customer) THEN
        PERFORM customer_drop(p_account_id);
        UPDATE accounts a SET entitlements = '{}', entitlements_seq = a.fetch_seq WHERE a.id = p_account_id;
    END IF;
END $$;

-- ---------------------------------------------------------------- notices

-- To the front end: {tier, status, cancelAtPeriodEnd?, attemptCount?, message?, nextRetryDate?, ...}.
CREATE FUNCTION billing.subscription_notice(p_account_id bigint, p_topic text, p_key text, p_more jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
BEGIN
    PERFORM outbox_put('subscription:' || p_topic, 'subscription:' || p_topic || ':' || p_key, a.id,
        jsonb_strip_nulls(jsonb_build_object('tier', p.plan_key, 'status', a.status,
            'cancelAtPeriodEnd', CASE WHEN a.cancel_at IS NOT NULL THEN true END) || p_more))
        FROM accounts a JOIN plans p USING (plan_no) WHERE a.id = p_account_id;
END $$;

-- What has become of the account.
CREATE FUNCTION billing.change_notice(p_before billing.accounts, p_was billing.subscriptions, p_now billing.subscriptions,
        p_key text) RETURNS void LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    v_after accounts;
BEGIN
    SELECT a.* INTO v_after FROM accounts a WHERE a.id = p_before.id;
    IF p_now.subscription_id IS NULL AND p_was.subscription_id IS NOT NULL THEN
        PERFORM subscription_notice(p_before.id, 'canceled', p_key, '{"status": "canceled"}');
    ELSIF p_now.subscription_id IS NOT NULL AND p_was.subscription_id IS NULL THEN
        PERFORM subscription_notice(p_before.id, 'activated', p_key, '{}');
    ELSIF ROW(v_after.plan_no, v_after.status, v_after.maintenance, v_after.grace_until, v_after.trial_end, v_after.cancel_at)
          IS DISTINCT FROM ROW(p_before.plan_no, p_before.status, p_before.maintenance, p_before.grace_until,
                               p_before.trial_end, p_before.cancel_at) THEN
        PERFORM subscription_notice(p_before.id, 'updated', p_key, '{}');
    END IF;
END $$;

-- The same of what nobody at Stripe has done: an operator, development, plain SQL.
CREATE FUNCTION billing.accounts_notice() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
BEGIN
    PERFORM subscription_notice(NEW.id, 'updated', NEW.id || ':' || NEW.ent_version, '{}');
    RETURN NULL;
END $$;
CREATE TRIGGER accounts_notice AFTER UPDATE ON billing.accounts FOR EACH ROW
    WHEN (ROW(NEW.plan_no, NEW.status, NEW.maintenance, NEW.grace_until, NEW.trial_end, NEW.cancel_at)
          IS DISTINCT FROM ROW(OLD.plan_no, OLD.status, OLD.maintenance, OLD.grace_until, OLD.trial_end, OLD.cancel_at)
          AND coalesce(current_setting('billing.actor', true), '') NOT LIKE 'event:%')
    EXECUTE FUNCTION billing.accounts_notice();

-- What the event itself has to tell. p_news: it tells it for the first time.
CREATE FUNCTION billing.event_notice(p_account_id bigint, e jsonb, p_news boolean) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    v_trial subscriptions;
BEGIN
    CASE e ->> 'kind'
        WHEN 'invoice_paid' THEN
            IF p_news AND e ->> 'billing_reason' = 'subscription_cycle' THEN
                PERFORM subscription_notice(p_account_id, 'renewed', e ->> 'invoice', '{}');
            END IF;
        WHEN 'invoice_failed' THEN
            IF p_news AND NOT EXISTS (SELECT FROM invoices i WHERE i.invoice_id = e ->> 'invoice' AND i.paid_at IS NOT NULL) THEN
                PERFORM subscription_notice(p_account_id, 'payment-failed',
                    (e ->> 'invoice') || ':' || coalesce(e ->> 'attempt', ''),
                    jsonb_build_object('attemptCount', (e ->> 'attempt')::integer, 'message', 'The payment has failed.',
                                       'nextRetryDate', iso(stripe_time(e -> 'next_attempt'))));
            END IF;
        WHEN 'dispute' THEN
            IF p_news THEN
                PERFORM subscription_notice(p_account_id, 'payment-disputed', e #>> '{seen,id}',
                    jsonb_build_object('amount', (e #>> '{seen,amount}')::bigint, 'currency', e #>> '{seen,charge,currency}',
                                       'message', 'The payment is disputed.'));
            END IF;
        WHEN 'trial_ending' THEN
            SELECT s.* INTO v_trial FROM subscriptions s
                WHERE s.subscription_id = e ->> 'subscription' AND s.account_id = p_account_id AND NOT subscription_over(s.status);
            IF FOUND THEN
                PERFORM subscription_notice(p_account_id, 'trial-ending',
                    v_trial.subscription_id || ':' || coalesce(unix(v_trial.trial_end)::text, ''),
                    jsonb_build_object('trialEnd', iso(v_trial.trial_end), 'message', 'The trial is about to end.'));
            END IF;
        ELSE NULL;
    END CASE;
END $$;

-- ---------------------------------------------------------------- one event

-- What the event's kind has to change by itself. Answers {news: it is told for the first time, dispute: as effect_dispute says}.
CREATE FUNCTION billing.effect_of_kind(p_account_id bigint, p_customer text, p_ticket bigint, e jsonb, p_at timestamptz)
    RETURNS jsonb LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    v_news    boolean := false;
    v_dispute text;
BEGIN
    CASE e ->> 'kind'
        WHEN 'none', 'subscription', 'trial_ending' THEN NULL;
        WHEN 'checkout_completed' THEN PERFORM effect_checkout(p_account_id, e);
        WHEN 'checkout_expired', 'checkout_failed' THEN PERFORM effect_checkout_over(p_account_id, e);
        WHEN 'invoice_paid' THEN v_news := effect_invoice(p_account_id, e, true, p_at);
        WHEN 'invoice_failed' THEN v_news := effect_invoice(p_account_id, e, false, p_at);
        WHEN 'charge' THEN PERFORM effect_charge(p_account_id, p_ticket, e);
        WHEN 'dispute' THEN
            v_dispute := effect_dispute(p_account_id, p_ticket, e);
            v_news := v_dispute = 'opened';
        WHEN 'customer_updated' THEN PERFORM effect_customer(p_account_id, p_ticket, e);
        WHEN 'customer_deleted' THEN PERFORM effect_customer_deleted(p_account_id, p_customer, p_at);
        WHEN 'entitlements' THEN PERFORM effect_entitlements(p_account_id, p_ticket, e);
        ELSE RAISE EXCEPTION 'unknown effect %', coalesce(e ->> 'kind', 'NULL') USING ERRCODE = '22023';
    END CASE;
    RETURN jsonb_build_object('news', coalesce(v_news, false), 'dispute', v_dispute);
END $$;

-- p_subscriptions: all of the customer's subscriptions as seen under p_ticket, or NULL if nobody looked:
--   [{"id", "status", "prices": ["price_.."] or "items": [{"price", "period_start", "period_end"}], "quantity",
--     "period_start", "period_end", "cancel_at", "trial_end", "created", "ended_at", "customer", "pause"}],
--   times in unix seconds or null; what is absent is null.
-- p_effect: {"kind": none | subscription | checkout_completed | checkout_expired | checkout_failed | invoice_paid | invoice_failed |
--   trial_ending | charge | dispute | customer_updated | customer_deleted | entitlements, ...}, see the effects above and, for invoices,
--   {invoice, subscription, billing_reason, price, period_start, period_end, amount, currency, payment_intent, attempt} and, of
--   several items, lines: [{price, period_start, period_end}]; for
--   failed ones also {next_attempt}; {subscription} of trial_ending. "seen" is what a look under p_ticket saw of the object;
--   without it an event that is about one changes nothing. Any kind may carry the configuration:
--   {policy: grace | maintenance, grace_seconds, dispute_policy: notify | maintenance}.
-- Answers {account, plan_before, plan, status_before, status, stale} for the log. Raises BI001 if another attempt has the
-- event, BI002 if something of it belongs to another account; then nothing has happened.
CREATE FUNCTION billing.stripe_apply(p_stripe_account text, p_event text, p_attempt integer, p_account_id bigint,
        p_ticket bigint, p_subscriptions jsonb, p_effect jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET jit = off
    SET enable_seqscan = off AS $$ -- plans made while tables were still empty must not read all of them later
DECLARE
    e         jsonb := jsonb_strip_nulls(coalesce(p_effect, '{"kind": "none"}'));
    v_actor   text := current_setting('billing.actor', true);
    v_event   webhook_events;
    v_at      timestamptz;
    v_present timestamptz;
    v_stale   boolean := false;
    v_done    jsonb := '{}';
    v_before  accounts;
    v_after   accounts;
    v_was     subscriptions; -- in force before, and now
    v_now     subscriptions;
BEGIN
    SELECT x.* INTO v_before FROM accounts x WHERE x.id = p_account_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no account %', p_account_id USING ERRCODE = '22023';
    END IF;
    SELECT x.* INTO v_event FROM webhook_events x
        WHERE x.stripe_account = coalesce(p_stripe_account, '') AND x.event_id = p_event;
    IF NOT FOUND OR p_ticket IS NULL AND (p_subscriptions IS NOT NULL OR e ? 'seen') THEN
        RAISE EXCEPTION 'stripe_apply: unknown event, or a look without a ticket' USING ERRCODE = '22023';
    END IF;
    v_at := coalesce(v_event.stripe_created, v_event.received_at);
    IF EXISTS (SELECT FROM accounts x WHERE x.stripe_customer_id = v_event.customer_id AND x.id <> p_account_id) THEN
        RAISE EXCEPTION 'customer % belongs to another account', v_event.customer_id USING ERRCODE = 'BI002';
    END IF;
    PERFORM set_config('billing.actor', 'event:' || p_event, true);
    v_was := subscription_in_force(p_account_id);

    IF p_subscriptions IS NOT NULL THEN
        v_stale := p_ticket <= v_before.applied_seq;
        IF NOT v_stale THEN
            PERFORM subscriptions_store(p_account_id, v_event.customer_id, p_subscriptions, v_at);
            UPDATE accounts x SET applied_seq = p_ticket WHERE x.id = p_account_id;
        END IF;
    END IF;
    IF e ->> 'kind' IN ('invoice_paid', 'invoice_failed') THEN
        e := invoice_of_plan(e);
    END IF;
    IF e ? 'seen' OR e ->> 'kind' NOT IN ('charge', 'dispute', 'customer_updated', 'entitlements') THEN
        v_done := effect_of_kind(p_account_id, v_event.customer_id, p_ticket, e, v_at);
    END IF;
    IF v_before.entitlements IS NOT NULL OR e ->> 'kind' = 'entitlements' THEN
        PERFORM entitlements_grant(p_account_id);
    END IF;

    PERFORM subscriptions_settle(p_account_id, e ->> 'policy', (e ->> 'grace_seconds')::bigint);
    v_now := subscription_in_force(p_account_id);
    v_present := greatest(v_at, clock_timestamp());
    PERFORM account_recompute(p_account_id, v_was, v_now, v_done ->> 'dispute', v_present);
    PERFORM stripe_alarms(p_account_id);
    IF e ->> 'kind' = 'invoice_paid' AND e ->> 'billing_reason' = 'subscription_cycle'
       AND v_now.subscription_id = e ->> 'subscription' AND NOT e ? 'other_items' THEN
        PERFORM credits_refill(v_now, e ->> 'invoice', e ->> 'price', stripe_time(e -> 'period_start'),
            stripe_time(e -> 'period_end'));
    END IF;
    PERFORM credits_by_month(p_account_id, v_present);

    PERFORM change_notice(v_before, v_was, v_now, v_event.stripe_account || p_event);
    PERFORM event_notice(p_account_id, e, (v_done ->> 'news')::boolean);
    PERFORM set_config('billing.actor', coalesce(v_actor, ''), true);
    SELECT x.* INTO v_after FROM accounts x WHERE x.id = p_account_id;
    UPDATE webhook_events x SET status = 'processed', processed_at = clock_timestamp(), account_id = p_account_id,
        last_error = NULL
        WHERE x.stripe_account = coalesce(p_stripe_account, '') AND x.event_id = p_event AND x.attempts = p_attempt
          AND x.status = 'processing';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'attempt % of event % is not in force', p_attempt, p_event USING ERRCODE = 'BI001';
    END IF;
    RETURN (SELECT jsonb_build_object('account', v_after.external_id, 'plan_before', o.plan_key, 'plan', n.plan_key,
            'status_before', v_before.status, 'status', v_after.status, 'stale', v_stale)
        FROM plans o, plans n WHERE o.plan_no = v_before.plan_no AND n.plan_no = v_after.plan_no);
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON FUNCTION billing.stripe_apply(text, text, integer, bigint, bigint, jsonb, jsonb) TO billing_jobs;
