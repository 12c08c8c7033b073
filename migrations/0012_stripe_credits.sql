-- Credits that follow subscriptions: the first allocation, raises, refills, the end; packs; and payments that go back. Only
-- stripe_apply calls these, under the account's row lock; the ledger's key makes each movement once.
--
-- The rule (keep_used): within a period, what an account used and what it has left together never exceed the largest
-- allocation of a plan that it held in the period, plus what it bought. An upgrade raises to the new allocation less what
-- was used, a downgrade lowers at the next refill, going and coming back brings nothing. A period ends with a paid renewal,
-- or when a new subscription begins after the last one's period; of a yearly price each of its months is one. The free plan's
-- one-time allocation is given at the account's birth and never again: its rest is set aside while a subscription provides.
--
-- The catalog may have other policies. prorate: a change of plan brings or takes the difference for the rest of the period; the
-- bound stands. reset: each change begins a new period with the whole allocation, and so does each new subscription.
-- free_realloc: the end of the last one brings the free plan's allocation again. A plan's rollover: a refill comes on top.

-- Whether its credits come by the month though it is paid for by the year.
CREATE FUNCTION billing.credits_monthly(s billing.subscriptions) RETURNS boolean LANGUAGE sql STABLE
    SET search_path = billing, pg_temp AS $$
    SELECT s.status <> 'trialing' AND s.period_start IS NOT NULL AND s.period_end IS NOT NULL
        AND (s.period_end - s.period_start > interval '300 days'
             OR EXISTS (SELECT FROM plan_prices x WHERE x.price_id = s.price_id AND x.interval = 'year'))
$$;

-- The period that a subscription's credits are for at a moment: its own, or its month.
CREATE FUNCTION billing.credit_period(s billing.subscriptions, p_at timestamptz, OUT starts timestamptz, OUT ends timestamptz)
    LANGUAGE plpgsql STABLE SET search_path = billing, pg_temp AS $$
DECLARE
    v_anchor timestamptz := s.period_start;
BEGIN
    starts := s.period_start;
    ends := s.period_end;
    IF credits_monthly(s) THEN
        IF cycle_start(s.anchor, s.period_start) = s.period_start THEN
            v_anchor := s.anchor; -- a 29 February knows more of its months than the 28th that its period begins with
        END IF;
        starts := cycle_start(v_anchor, greatest(s.period_start, least(p_at, s.period_end - interval '1 second')));
        ends := least(s.period_end, cycle_start(v_anchor, starts + interval '32 days'));
    END IF;
END $$;

-- The balance as it is, locked; a type that the account never had starts at nothing.
CREATE FUNCTION billing.credit_balance(p_account_id bigint, p_credit_no smallint) RETURNS billing.credit_balances
    LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    b credit_balances;
BEGIN
    SELECT x.* INTO b FROM credit_balances x WHERE x.account_id = p_account_id AND x.credit_no = p_credit_no
        FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        b.account_id := p_account_id;
        b.credit_no := p_credit_no;
        b.allocated := 0;
        b.remaining := 0;
        b.used := 0;
        b.overage := 0;
        b.charged := 0;
        b.period_seq := 0;
        b.bought := 0;
        b.owed := 0;
    END IF;
    RETURN b;
END $$;

CREATE FUNCTION billing.credit_save(b billing.credit_balances) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
BEGIN
    INSERT INTO credit_balances SELECT (b).*
        ON CONFLICT (account_id, credit_no) DO UPDATE SET allocated = excluded.allocated, remaining = excluded.remaining,
            used = excluded.used, overage = excluded.overage, charged = excluded.charged, period_seq = excluded.period_seq,
            period_start = excluded.period_start, period_end = excluded.period_end,
            last_refill_at = excluded.last_refill_at, bought = excluded.bought, one_time_left = excluded.one_time_left,
            plan_no = excluded.plan_no, owed = excluded.owed, low_at = excluded.low_at, exhausted_at = excluded.exhausted_at;
END $$;

-- The balance as a new period begins. credit_move saves it, and charges for what was taken beyond the last one's.
CREATE FUNCTION billing.credit_anew(b billing.credit_balances) RETURNS billing.credit_balances LANGUAGE plpgsql IMMUTABLE
    SET search_path = billing, pg_temp AS $$
BEGIN
    b.used := 0;
    b.overage := 0;
    b.charged := 0;
    b.owed := 0;
    b.period_seq := b.period_seq + 1;
    RETURN b;
END $$;

-- One movement: ledger row, balance and audit row, or, if its key is known, nothing at all. p_key gets the type appended. One that
-- begins a period closes the last: its overage is charged, and the row's metadata name it.
CREATE FUNCTION billing.credit_move(b billing.credit_balances, p_action text, p_quantity bigint, p_key text, p_invoice text,
        p_reason text, p_metadata jsonb) RETURNS boolean
    LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    v_type   text := (SELECT t.credit_key FROM credit_types t WHERE t.credit_no = b.credit_no);
    v_was    credit_balances := credit_balance(b.account_id, b.credit_no);
    v_closes boolean := b.period_seq > v_was.period_seq AND v_was.overage > 0;
BEGIN
    INSERT INTO credit_ledger (account_id, credit_no, action, quantity, balance_after, idem_key, invoice_id, reason, metadata)
        VALUES (b.account_id, b.credit_no, p_action, p_quantity, b.remaining, p_key || ':' || v_type, p_invoice, p_reason,
                jsonb_strip_nulls(p_metadata || jsonb_build_object('overage', CASE WHEN v_closes THEN v_was.overage END)))
        ON CONFLICT ON CONSTRAINT credit_ledger_once DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF v_closes THEN
        PERFORM overage_charge(v_was, (SELECT a.plan_no FROM accounts a WHERE a.id = b.account_id));
    END IF;
    IF b.remaining > v_was.remaining OR b.period_seq > v_was.period_seq THEN -- what becomes little again is told again
        b.low_at := NULL;
        b.exhausted_at := NULL;
    END IF;
    PERFORM credit_save(b);
    INSERT INTO audit_log (account_id, actor, action, before, after, invoice_id)
        VALUES (b.account_id, audit_actor(), 'credits.' || p_action,
                jsonb_build_object('credit', v_type, 'remaining', v_was.remaining, 'used', v_was.used),
                jsonb_build_object('credit', v_type, 'remaining', b.remaining, 'used', b.used), p_invoice);
    RETURN true;
END $$;

-- A change of plan by prorate: the difference between the allocations for what is left of the period, rounded against the
-- account. What a downgrade cannot take because it is spent, a later upgrade gives less; and none gives more than its plan has.
CREATE FUNCTION billing.credit_prorate(b billing.credit_balances, p_quantity bigint, p_at timestamptz)
    RETURNS billing.credit_balances LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    v_more   bigint := p_quantity - coalesce((SELECT x.quantity FROM plan_credits x
                           WHERE x.plan_no = b.plan_no AND x.credit_no = b.credit_no), 0);
    v_length numeric := coalesce(nullif(unix(b.period_end) - unix(b.period_start), 0), 1);
    v_left   numeric := coalesce(greatest(0, least(v_length, unix(b.period_end) - unix(p_at))), v_length);
    v_gain   bigint;
    v_loss   bigint;
    v_pays   bigint;
BEGIN
    IF v_more > 0 THEN
        v_gain := least(div(v_more * v_left, v_length), greatest(p_quantity - b.allocated, 0));
        v_pays := least(b.owed, v_gain);
        b.owed := b.owed - v_pays;
        b.allocated := b.allocated + v_gain - v_pays;
        b.remaining := b.remaining + v_gain - v_pays;
    ELSE
        v_loss := div(-v_more * v_left + v_length - 1, v_length);
        v_pays := least(v_loss, b.remaining - b.bought, b.allocated);
        b.owed := b.owed + v_loss - v_pays;
        b.allocated := b.allocated - v_pays;
        b.remaining := b.remaining - v_pays;
    END IF;
    RETURN b;
END $$;

-- What the plan of a subscription gives. The first time that the subscription is seen paid: for the period it begins with,
-- whichever event shows it. Later: what a change of plan brings by the catalog's policy.
CREATE FUNCTION billing.credits_allocate(s billing.subscriptions, p_at timestamptz) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    v_policy  text := (SELECT m.credits_policy FROM meta m);
    v_first   boolean := s.credits_from IS NULL;
    v_period  record := credit_period(s, p_at);
    v_start   timestamptz := coalesce(v_period.starts, s.started_at, now());
    v_plan    text := (SELECT p.plan_key FROM plans p WHERE p.plan_no = s.plan_no);
    v_part    bigint; -- of the plan, as opposed to bought
    v_new     bigint;
    v_anew    boolean;
    v_changes boolean;
    c         record;
    b         credit_balances;
    v_was     credit_balances;
BEGIN
    -- A new period has begun that is not paid for yet: a plan that changes with it changes with its refill.
    IF NOT v_first AND EXISTS (SELECT FROM credit_balances x WHERE x.account_id = s.account_id AND x.one_time_left IS NOT NULL
                               AND x.period_end <= s.period_start) THEN
        RETURN;
    END IF;
    FOR c IN
        SELECT t.credit_no, x.quantity FROM credit_types t
        LEFT JOIN plan_credits x ON x.credit_no = t.credit_no AND x.plan_no = s.plan_no
        LEFT JOIN credit_balances y ON y.account_id = s.account_id AND y.credit_no = t.credit_no
        WHERE x.plan_no IS NOT NULL OR y.one_time_left IS NOT NULL ORDER BY t.credit_no
    LOOP
        b := credit_balance(s.account_id, c.credit_no);
        v_was := b;
        v_part := b.remaining - b.bought;
        IF NOT v_first AND b.period_start IS NULL THEN -- a type that the former plan did not have
            b.period_start := v_period.starts;
            b.period_end := v_period.ends;
        END IF;
        v_changes := NOT v_first AND b.plan_no IS DISTINCT FROM s.plan_no;
        v_anew := v_first AND coalesce(v_start >= b.period_end, false) -- nothing of the last period carries over
            OR v_policy = 'reset' AND (v_first OR v_changes);
        IF v_anew THEN
            v_new := coalesce(c.quantity, 0);
            b := credit_anew(b);
            b.allocated := v_new;
        ELSIF v_policy = 'prorate' AND v_changes AND (b.one_time_left IS NOT NULL OR b.allocated = 0) THEN
            b := credit_prorate(b, coalesce(c.quantity, 0), p_at);
            v_new := b.remaining - b.bought;
        ELSIF c.quantity IS NULL OR v_policy = 'prorate' AND NOT v_first AND b.one_time_left IS NOT NULL THEN
            v_new := v_part;
        ELSE
            -- Who comes from the free plan: what was used counts.
            v_new := CASE WHEN b.one_time_left IS NULL THEN greatest(greatest(b.allocated, c.quantity) - b.used, v_part)
                     ELSE v_part + greatest(c.quantity - b.allocated, 0) END;
            b.allocated := greatest(b.allocated, c.quantity);
        END IF;
        b.one_time_left := coalesce(b.one_time_left, v_part);
        IF v_first THEN
            b.period_start := v_start;
            b.period_end := v_period.ends;
        ELSIF b.period_start = s.period_start THEN
            b.period_end := (credit_period(s, b.period_start)).ends; -- a trial that was made longer
        END IF;
        IF v_first OR v_changes THEN
            b.plan_no := s.plan_no;
        END IF;
        b.remaining := v_new + b.bought;
        -- What the policies move follows from plan_no and happens once by that; the same plan may be come back to.
        IF v_anew THEN
            PERFORM credit_move(b, 'allocate', v_new, CASE WHEN v_first
                    THEN format('alloc:%s:%s:%s', s.subscription_id, unix(v_start), v_plan)
                    ELSE format('plan:%s:%s', s.subscription_id, gen_random_uuid()) END,
                NULL, CASE WHEN v_first THEN 'subscription began' ELSE 'plan changed' END,
                jsonb_build_object('lapsed', v_part, 'carried', b.bought));
        ELSIF v_new <> v_part THEN
            PERFORM credit_move(b, CASE WHEN v_new > v_part THEN 'allocate' ELSE 'adjust' END, v_new - v_part,
                CASE WHEN v_first OR v_policy <> 'prorate'
                    THEN format('alloc:%s:%s:%s', s.subscription_id, unix(b.period_start), v_plan)
                    ELSE format('plan:%s:%s', s.subscription_id, gen_random_uuid()) END, NULL,
                CASE WHEN v_first THEN 'subscription began' ELSE 'plan changed' END, '{}');
        ELSIF b IS DISTINCT FROM v_was THEN
            PERFORM credit_save(b);
        END IF;
    END LOOP;
    UPDATE subscriptions x SET credits_from = v_start WHERE x.subscription_id = s.subscription_id AND x.credits_from IS NULL;
END $$;

-- One type starts anew with an allocation; what is left of the last period lapses, or stays on top; what was bought stays.
-- The ledger row's quantity is the new allocation (the sum of a period begins with it); its metadata name what lapsed.
CREATE FUNCTION billing.credit_refill(b billing.credit_balances, p_quantity bigint, p_rollover boolean, p_key text,
        p_invoice text, p_reason text, p_start timestamptz, p_end timestamptz) RETURNS billing.credit_balances
    LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    v_part bigint := b.remaining - b.bought;
    v_more jsonb := jsonb_build_object('lapsed', CASE WHEN NOT p_rollover THEN v_part END, 'rolled', CASE WHEN p_rollover
                        THEN v_part END, 'carried', b.bought, 'period', unix(p_start));
BEGIN
    b := credit_anew(b);
    b.one_time_left := coalesce(b.one_time_left, v_part);
    b.allocated := p_quantity;
    b.remaining := p_quantity + b.bought + CASE WHEN p_rollover THEN v_part ELSE 0 END;
    b.period_start := p_start;
    b.period_end := p_end;
    b.last_refill_at := clock_timestamp();
    PERFORM credit_move(b, 'refill', p_quantity, p_key, p_invoice, p_reason, v_more);
    RETURN b;
END $$;

-- A paid renewal. Once for an invoice, and never for a period that is not later than the one provided for already; but where a
-- refill comes on top of what is left, a late one still does. p_price: the invoice's; the better of its plan and the present
-- one counts, so that a late event gives what a timely one had given.
CREATE FUNCTION billing.credits_refill(s billing.subscriptions, p_invoice text, p_price text, p_start timestamptz,
        p_end timestamptz) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    v_start timestamptz := coalesce(p_start, s.period_start);
    v_plans smallint[] := ARRAY[s.plan_no, (SELECT x.plan_no FROM plan_prices x WHERE x.price_id = p_price)];
    v_roll  boolean := EXISTS (SELECT FROM plans p WHERE p.plan_no = ANY (v_plans) AND p.rollover);
    v_ends  timestamptz;
    c       record;
    b       credit_balances;
BEGIN
    p_end := coalesce(p_end, CASE WHEN s.period_start = v_start THEN s.period_end END);
    s.period_start := v_start;
    s.period_end := p_end;
    v_ends := (credit_period(s, v_start)).ends;
    FOR c IN
        SELECT t.credit_no, coalesce(max(pc.quantity), 0) AS quantity FROM credit_types t
        LEFT JOIN plan_credits pc ON pc.credit_no = t.credit_no AND pc.plan_no = ANY (v_plans)
        LEFT JOIN credit_balances x ON x.account_id = s.account_id AND x.credit_no = t.credit_no
        WHERE pc.plan_no IS NOT NULL OR x.account_id IS NOT NULL
        GROUP BY t.credit_no ORDER BY t.credit_no
    LOOP
        b := credit_balance(s.account_id, c.credit_no);
        IF NOT coalesce(v_start <= b.period_start, false) THEN
            b.plan_no := s.plan_no;
            b := credit_refill(b, c.quantity, v_roll, 'refill:' || p_invoice, p_invoice, 'subscription renewed', v_start, v_ends);
        ELSIF v_roll AND v_start < b.period_start AND v_start > s.credits_from AND NOT EXISTS (
                SELECT FROM credit_ledger l WHERE l.account_id = s.account_id AND l.credit_no = c.credit_no
                AND l.action = 'refill' AND (l.metadata ->> 'period')::bigint = unix(v_start)) THEN
            b.remaining := b.remaining + c.quantity;
            PERFORM credit_move(b, 'refill', c.quantity, 'refill:' || p_invoice, p_invoice, 'subscription renewed',
                jsonb_build_object('carried', b.bought, 'period', unix(v_start)));
        END IF;
    END LOOP;
END $$;

-- When the next month of a yearly price begins that this balance is to be refilled for; NULL: never, as things are. The first
-- month of a year comes with its invoice, and where another period is still running when a month begins, with the next one.
CREATE FUNCTION billing.credits_next(s billing.subscriptions, b billing.credit_balances) RETURNS timestamptz
    LANGUAGE plpgsql STABLE SET search_path = billing, pg_temp AS $$
DECLARE
    v_state text := subscription_state(s);
    v_next  timestamptz := greatest(b.period_end, s.period_start);
    v_month record;
BEGIN
    IF s.credits_from IS NULL OR b.one_time_left IS NULL OR NOT credits_monthly(s) OR v_state NOT IN ('active', 'past_due')
       OR v_state = 'past_due' AND (s.grace_until < clock_timestamp() -- while it owes, only of a year that is paid for
                                    OR coalesce(b.period_start < s.period_start, true)) THEN
        RETURN NULL;
    END IF;
    v_month := credit_period(s, v_next);
    IF v_month.starts < v_next OR v_month.starts <= s.period_start THEN
        v_next := v_month.ends;
    END IF;
    RETURN CASE WHEN v_next < s.period_end AND (s.cancel_at IS NULL OR v_next < s.cancel_at) THEN v_next END;
END $$;

-- The months of a yearly price that have begun by now, each once. The caller holds the account's row.
CREATE FUNCTION billing.credits_by_month(p_account_id bigint, p_now timestamptz) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    s        subscriptions := subscription_in_force(p_account_id);
    v_roll   boolean := (SELECT p.rollover FROM plans p WHERE p.plan_no = s.plan_no);
    v_amount bigint;
    v_next   timestamptz;
    b        credit_balances;
BEGIN
    IF credits_monthly(s) IS NOT TRUE THEN
        RETURN;
    END IF;
    FOR b IN SELECT x.* FROM credit_balances x WHERE x.account_id = p_account_id ORDER BY x.credit_no FOR NO KEY UPDATE LOOP
        v_amount := coalesce((SELECT x.quantity FROM plan_credits x WHERE x.plan_no = s.plan_no AND x.credit_no = b.credit_no), 0);
        LOOP
            v_next := credits_next(s, b);
            EXIT WHEN v_next IS NULL OR v_next > p_now;
            b.plan_no := s.plan_no;
            b := credit_refill(b, v_amount, v_roll, format('month:%s:%s', s.subscription_id, unix(v_next)), NULL,
                'month of a yearly subscription', v_next, (credit_period(s, v_next)).ends);
        END LOOP;
    END LOOP;
END $$;

-- The same for accounts that no event comes for; at most so many. Answers how many it was: call again while it is all of them.
-- Accounts that somebody has in hand are left for the next time.
CREATE FUNCTION billing.credits_months(p_most integer, p_now timestamptz DEFAULT clock_timestamp()) RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET jit = off SET enable_seqscan = off AS $$
DECLARE
    v_actor text := current_setting('billing.actor', true);
    v_count integer := 0;
    a       record;
BEGIN
    PERFORM set_config('billing.actor', 'jobs', true);
    FOR a IN SELECT x.id FROM accounts x WHERE x.id IN (SELECT b.account_id FROM credit_balances b
                 CROSS JOIN LATERAL subscription_in_force(b.account_id) s
                 WHERE b.period_end <= p_now AND credits_next(s, b) <= p_now)
             ORDER BY x.id LIMIT p_most FOR NO KEY UPDATE SKIP LOCKED LOOP
        BEGIN
            PERFORM credits_by_month(a.id, p_now);
            v_count := v_count + 1;
        EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
            PERFORM alarm(a.id, 'credits', format('%s:%s', a.id, SQLSTATE), jsonb_build_object('trouble', SQLERRM));
        END;
    END LOOP;
    PERFORM set_config('billing.actor', coalesce(v_actor, ''), true);
    RETURN v_count;
END $$;

-- The last subscription has ended, and the account is on the free plan: what is left of its one-time allocation. If that
-- happens within the period, not more than was left of the period either, and the period's use is remembered: whoever comes
-- back before its end goes on where he was. With free_realloc all of the allocation again, whatever was left.
CREATE FUNCTION billing.credits_end(p_account_id bigint, p_subscription text, p_ended timestamptz, p_free smallint) RETURNS void
    LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    v_again boolean := (SELECT m.free_realloc FROM meta m);
    v_part  bigint;
    v_new   bigint;
    v_key   text;
    v_over  bigint; -- of the period, which this closes
    b       credit_balances;
BEGIN
    FOR b IN SELECT x.* FROM credit_balances x WHERE x.account_id = p_account_id AND x.one_time_left IS NOT NULL
             ORDER BY x.credit_no FOR NO KEY UPDATE LOOP
        v_part := b.remaining - b.bought;
        v_key := format('end:%s:%s', p_subscription, b.period_seq);
        v_over := 0;
        IF v_again THEN
            b.one_time_left := greatest(b.one_time_left, (SELECT x.quantity FROM plan_credits x
                WHERE x.plan_no = p_free AND x.credit_no = b.credit_no));
        END IF;
        IF p_ended >= b.period_end THEN
            v_new := b.one_time_left;
            v_over := b.overage;
            b := credit_anew(b);
            b.allocated := greatest(v_new, coalesce((SELECT l.quantity FROM credit_ledger l JOIN credit_types t USING (credit_no)
                WHERE l.account_id = p_account_id AND l.credit_no = b.credit_no
                  AND l.idem_key = 'alloc:free:' || t.credit_key), 0));
            b.used := b.allocated - v_new;
            b.period_start := NULL;
            b.period_end := NULL;
        ELSE
            v_new := CASE WHEN v_again THEN b.one_time_left ELSE least(b.one_time_left, v_part) END;
        END IF;
        b.one_time_left := NULL;
        b.plan_no := NULL;
        b.owed := 0;
        b.remaining := v_new + b.bought;
        IF v_new = v_part AND v_over = 0 THEN
            PERFORM credit_save(b);
        ELSE
            PERFORM credit_move(b, 'adjust', v_new - v_part, v_key, NULL, 'subscription ended', '{}');
        END IF;
    END LOOP;
END $$;

-- A pack that was paid, once for its checkout. Prices and quantities are the catalog's, at the time at which it had the price.
-- False: no pack has had it.
CREATE FUNCTION billing.credits_buy(p_account_id bigint, p_price text, p_count bigint, p_session text,
        p_payment_intent text) RETURNS boolean LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    k pack_prices;
    b credit_balances;
BEGIN
    SELECT x.* INTO k FROM pack_prices x WHERE x.price_id = p_price;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    b := credit_balance(p_account_id, k.credit_no);
    b.remaining := b.remaining + k.quantity * p_count;
    b.bought := b.bought + k.quantity * p_count;
    PERFORM credit_move(b, 'grant', k.quantity * p_count, 'pack:' || p_session, NULL, 'pack bought',
        jsonb_build_object('pack', k.pack_key, 'session', p_session, 'payment_intent', p_payment_intent));
    PERFORM charge_settle(x.charge_id) FROM charges x WHERE x.payment_intent = p_payment_intent AND x.account_id = p_account_id;
    RETURN true;
END $$;

-- ---------------------------------------------------------------- payments that go back

-- What a pack owes for the part of its payment that went back, by refunds and lost disputes, in proportion and rounded down:
-- settled against what is left of bought units, once. What is spent already is not taken from anything else, nor later. A
-- refund that fails brings back what had been taken for it. Without a pack (yet) there is nothing to do: buying one settles.
CREATE FUNCTION billing.charge_settle(p_charge text) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    c       charges;
    g       credit_ledger; -- the grant of the pack
    v_back  bigint;
    v_owed  bigint;
    v_taken bigint;
    b       credit_balances;
BEGIN
    SELECT x.* INTO c FROM charges x WHERE x.charge_id = p_charge FOR NO KEY UPDATE;
    SELECT l.* INTO g FROM checkout_sessions s CROSS JOIN credit_types t
        JOIN credit_ledger l ON l.account_id = s.account_id AND l.idem_key = 'pack:' || s.session_id || ':' || t.credit_key
        WHERE s.payment_intent = c.payment_intent AND s.account_id = c.account_id;
    IF NOT FOUND OR c.amount = 0 THEN
        RETURN;
    END IF;
    v_back := least(c.amount,
        (SELECT coalesce(sum(r.amount), 0) FROM refunds r WHERE r.charge_id = p_charge AND r.stands)
        + (SELECT coalesce(sum(d.amount), 0) FROM disputes d WHERE d.charge_id = p_charge AND d.status = 'lost'));
    v_owed := div(g.quantity::numeric * v_back, c.amount);
    IF v_owed = c.owed THEN
        RETURN;
    END IF;
    b := credit_balance(c.account_id, g.credit_no);
    v_taken := CASE WHEN v_owed > c.owed THEN c.taken + least(v_owed - c.owed, b.bought) ELSE least(c.taken, v_owed) END;
    UPDATE charges x SET owed = v_owed, taken = v_taken, moves = x.moves + 1 WHERE x.charge_id = p_charge;
    IF v_taken <> c.taken THEN
        b.remaining := b.remaining + c.taken - v_taken;
        b.bought := b.bought + c.taken - v_taken;
        PERFORM credit_move(b, 'adjust', c.taken - v_taken, format('back:%s:%s', p_charge, c.moves + 1), NULL,
            CASE WHEN v_owed > c.owed THEN 'payment went back' ELSE 'refund failed' END,
            jsonb_build_object('charge', p_charge, 'payment_intent', c.payment_intent));
    END IF;
    IF v_taken - c.taken < v_owed - c.owed THEN
        PERFORM alarm(c.account_id, 'spent_before_refund', p_charge || ':' || c.moves + 1,
            jsonb_build_object('charge', p_charge, 'owed', v_owed - c.owed, 'taken', v_taken - c.taken));
    END IF;
END $$;

-- What a look saw of a charge: {id, payment_intent, invoice, amount, currency}.
CREATE FUNCTION billing.charge_store(p_account_id bigint, c jsonb) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
BEGIN
    INSERT INTO charges AS x (charge_id, account_id, payment_intent, invoice_id, amount, currency)
        VALUES (c ->> 'id', p_account_id, c ->> 'payment_intent', coalesce(c ->> 'invoice',
                    (SELECT min(i.invoice_id) FROM invoices i WHERE i.payment_intent = c ->> 'payment_intent')),
                (c ->> 'amount')::bigint, c ->> 'currency')
        ON CONFLICT (charge_id) DO UPDATE SET payment_intent = coalesce(excluded.payment_intent, x.payment_intent),
            invoice_id = coalesce(excluded.invoice_id, x.invoice_id)
        WHERE x.account_id = excluded.account_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'charge % belongs to another account', c ->> 'id' USING ERRCODE = 'BI002';
    END IF;
END $$;

CREATE FUNCTION billing.charge_audit(p_account_id bigint, p_action text, p_charge text, p_amount bigint, p_details jsonb)
    RETURNS void LANGUAGE sql SET search_path = billing, pg_temp AS $$
    INSERT INTO audit_log (account_id, actor, action, after, invoice_id, amount, currency)
        SELECT p_account_id, audit_actor(), p_action, jsonb_build_object('charge', p_charge) || jsonb_strip_nulls(p_details),
            c.invoice_id, p_amount, c.currency
        FROM charges c WHERE c.charge_id = p_charge
$$;

-- charge: {seen: {id, payment_intent, invoice, amount, currency, refunds: [{id, amount, status}]}}: all refunds of one charge, as they
-- are under p_ticket.
CREATE FUNCTION billing.effect_charge(p_account_id bigint, p_ticket bigint, e jsonb) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    v_charge text := e #>> '{seen,id}';
    v_was    boolean;
    r        record;
BEGIN
    PERFORM charge_store(p_account_id, e -> 'seen');
    UPDATE charges x SET seen_seq = p_ticket WHERE x.charge_id = v_charge AND x.seen_seq < p_ticket;
    IF NOT FOUND THEN
        RETURN; -- a later look has been applied
    END IF;
    FOR r IN SELECT j ->> 'id' AS id, (j ->> 'amount')::bigint AS amount,
                 coalesce(j ->> 'status', '') NOT IN ('failed', 'canceled') AS stands
             FROM jsonb_array_elements(e #> '{seen,refunds}') j ORDER BY 1 LOOP
        SELECT x.stands INTO v_was FROM refunds x WHERE x.refund_id = r.id;
        CONTINUE WHEN v_was = r.stands;
        INSERT INTO refunds AS x (refund_id, charge_id, amount, stands) VALUES (r.id, v_charge, r.amount, r.stands)
            ON CONFLICT (refund_id) DO UPDATE SET stands = excluded.stands;
        -- One that has failed before it was known was made all the same: the audit does not depend on when we looked.
        IF v_was IS NULL OR r.stands THEN
            PERFORM charge_audit(p_account_id, 'payment.refunded', v_charge, r.amount, jsonb_build_object('refund', r.id));
        END IF;
        IF NOT r.stands THEN
            PERFORM charge_audit(p_account_id, 'refund.failed', v_charge, r.amount, jsonb_build_object('refund', r.id));
        END IF;
    END LOOP;
    PERFORM charge_settle(v_charge);
END $$;

-- dispute: {seen: {id, amount, status, reason, charge: {as above, without refunds}}, dispute_policy: notify | maintenance}.
-- Answers 'opened' if it was not known before, 'released' if its maintenance is over, else NULL.
CREATE FUNCTION billing.effect_dispute(p_account_id bigint, p_ticket bigint, e jsonb) RETURNS text LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    d        jsonb := e -> 'seen';
    v_status text := coalesce(d ->> 'status', '');
    v_well   boolean := v_status IN ('won', 'warning_closed', 'prevented');
    v_was    disputes;
    v_more   jsonb := jsonb_build_object('dispute', d ->> 'id', 'reason', d ->> 'reason', 'status', v_status);
BEGIN
    PERFORM charge_store(p_account_id, d -> 'charge');
    SELECT x.* INTO v_was FROM disputes x WHERE x.dispute_id = d ->> 'id';
    IF v_was.seen_seq >= p_ticket THEN
        RETURN NULL; -- a later look has been applied
    END IF;
    INSERT INTO disputes AS x (dispute_id, account_id, charge_id, amount, status, holds, seen_seq)
        VALUES (d ->> 'id', p_account_id, d #>> '{charge,id}', (d ->> 'amount')::bigint, v_status,
                e ->> 'dispute_policy' = 'maintenance' AND NOT v_well, p_ticket)
        ON CONFLICT (dispute_id) DO UPDATE SET amount = excluded.amount, status = excluded.status,
            holds = x.holds AND NOT v_well, seen_seq = excluded.seen_seq;
    IF v_was.dispute_id IS NULL THEN
        PERFORM charge_audit(p_account_id, 'payment.disputed', d #>> '{charge,id}', (d ->> 'amount')::bigint, v_more);
    END IF;
    IF (v_well OR v_status = 'lost') AND v_status IS DISTINCT FROM v_was.status THEN
        PERFORM charge_audit(p_account_id, CASE WHEN v_well THEN 'dispute.won' ELSE 'dispute.lost' END,
            d #>> '{charge,id}', (d ->> 'amount')::bigint, v_more);
    END IF;
    PERFORM charge_settle(d #>> '{charge,id}');
    RETURN CASE WHEN v_was.dispute_id IS NULL THEN 'opened' WHEN v_was.holds AND v_well THEN 'released' END;
END $$;

-- Whoever ends a maintenance by hand ends what the disputes known so far hold; a later one holds anew.
CREATE FUNCTION billing.disputes_release() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
BEGIN
    UPDATE disputes d SET holds = false WHERE d.account_id = NEW.id AND d.holds;
    RETURN NULL;
END $$;
CREATE TRIGGER accounts_disputes_release AFTER UPDATE OF maintenance ON billing.accounts FOR EACH ROW
    WHEN (OLD.maintenance <> 'none' AND NEW.maintenance = 'none') EXECUTE FUNCTION billing.disputes_release();

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON FUNCTION billing.credits_months(integer, timestamptz) TO billing_jobs;
