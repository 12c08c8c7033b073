-- Overage: units taken beyond a plan's, of credits and of quotas, once they are charged for; and the account's switch. What is charged is
-- final: it is written in the transaction that closes the period (credit_move, overage_close), or changes the rate (a change of plan,
-- or of the catalog), under the lock of the balance or of the quota's period, and is told to Stripe as a meter event afterwards.

-- Of what: a type of credits, or a quota, in one of its periods, from the unit after from_unit on. meter NULL: Stripe is not told.
-- identifier: Stripe counts one event of that name. Made of what the row is about, so that a row written again, after a fail-over
-- that lost it, is the same event.
CREATE TABLE billing.usage_charges (
    charge_no    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id   bigint NOT NULL REFERENCES billing.accounts,
    credit_no    smallint REFERENCES billing.credit_types,
    limit_no     smallint REFERENCES billing.limits,
    period_seq   bigint NOT NULL, -- of a quota: the period's number
    from_unit    bigint NOT NULL CHECK (from_unit >= 0),
    before_row   bigint, -- of credit_ledger: what was taken in the period by rows before it is charged
    period_start timestamptz,
    period_end   timestamptz,
    plan_no      smallint REFERENCES billing.plans ON DELETE SET NULL,
    quantity     bigint NOT NULL CHECK (quantity > 0),
    amount       numeric(40, 6) NOT NULL CHECK (amount >= 0), -- of all of them, in the currency's smallest unit
    currency     text CHECK (currency ~ '^[a-z]{3}$'),        -- of the plan's price; NULL: it has none
    meter        text COLLATE "C",
    identifier   text COLLATE "C" NOT NULL UNIQUE,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- the report
    next_try_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    tries        integer NOT NULL DEFAULT 0,
    refusals     integer NOT NULL DEFAULT 0,
    unsure_since timestamptz, -- from then on it may have arrived, nobody has seen the answer
    trouble      text,
    sent_at      timestamptz,
    CONSTRAINT usage_charges_of_one CHECK ((credit_no IS NULL) <> (limit_no IS NULL)),
    CONSTRAINT usage_charges_once UNIQUE NULLS NOT DISTINCT (account_id, credit_no, limit_no, period_seq, from_unit)
);
CREATE INDEX usage_charges_unsent ON billing.usage_charges (next_try_at) WHERE sent_at IS NULL AND meter IS NOT NULL;

CREATE POLICY own_account ON billing.usage_charges FOR SELECT TO billing_reader
    USING (account_id = (SELECT billing.reader_account()));
CREATE POLICY others ON billing.usage_charges USING (NOT pg_has_role('billing_reader', 'MEMBER'));
ALTER TABLE billing.usage_charges ENABLE ROW LEVEL SECURITY;

-- A charge at the rate of a plan, and its audit row. `of`: all that says what it is for, by the table's names; key: of the type or quota.
CREATE FUNCTION billing.usage_charge(c billing.usage_charges, p_what text, p_key text, p_rate numeric) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
BEGIN
    INSERT INTO usage_charges (account_id, credit_no, limit_no, period_seq, from_unit, before_row, period_start, period_end, plan_no, quantity,
                               amount, currency, meter, identifier)
        SELECT c.account_id, c.credit_no, c.limit_no, c.period_seq, c.from_unit, c.before_row, c.period_start, c.period_end,
            (SELECT p.plan_no FROM plans p WHERE p.plan_no = c.plan_no), c.quantity, c.quantity * coalesce(p_rate, 0),
            (SELECT x.currency FROM plan_prices x WHERE x.plan_no = c.plan_no ORDER BY x.price_id IN (
                 SELECT s.price_id FROM subscriptions s WHERE s.account_id = a.id) DESC NULLS LAST, x.active DESC, x.price_no LIMIT 1),
            c.meter,
            'overage_' || left(encode(sha256(convert_to(concat_ws(' ', a.external_id, extract(epoch FROM a.created_at),
                nullif(p_what, 'credit'), p_key, c.period_seq, c.from_unit), 'UTF8')), 'hex'), 48)
        FROM accounts a WHERE a.id = c.account_id
        RETURNING * INTO c;
    INSERT INTO audit_log (account_id, actor, action, after)
        VALUES (c.account_id, audit_actor(), 'overage.charged', jsonb_strip_nulls(jsonb_build_object(p_what, p_key,
            'quantity', c.quantity, 'amount', trim_scale(c.amount), 'currency', c.currency, 'meter', c.meter, 'identifier', c.identifier)));
END $$;

-- Charges for the overage of a balance that is not charged for yet, at the rate of p_plan. The caller holds the balance's lock, and
-- notes in it that it is charged.
CREATE FUNCTION billing.overage_charge(b billing.credit_balances, p_plan smallint) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    c     usage_charges;
    v_key text := (SELECT t.credit_key FROM credit_types t WHERE t.credit_no = b.credit_no);
    v_at  numeric;
BEGIN
    IF b.overage = b.charged THEN
        RETURN;
    END IF;
    c.account_id := b.account_id;
    c.credit_no := b.credit_no;
    c.period_seq := b.period_seq;
    c.from_unit := b.charged;
    c.before_row := nextval(pg_get_serial_sequence('billing.credit_ledger', 'id'));
    c.period_start := b.period_start;
    c.period_end := b.period_end;
    c.plan_no := p_plan;
    c.quantity := b.overage - b.charged;
    SELECT x.overage_amount, x.overage_meter INTO v_at, c.meter FROM plan_credits x WHERE x.plan_no = p_plan AND x.credit_no = b.credit_no;
    PERFORM usage_charge(c, 'credit', v_key, v_at);
END $$;

-- The same of a quota's period, which it notes there. The caller holds the row's lock. What hosts have not reported yet is charged
-- when they do, by a row of its own; what they take back of what is charged makes room for as much.
CREATE FUNCTION billing.quota_charge(q billing.quota_periods, p_plan smallint) RETURNS void LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    c     usage_charges;
    v_key text := (SELECT l.limit_key FROM limits l WHERE l.limit_no = q.limit_no);
    v_at  numeric;
BEGIN
    c.quantity := greatest(0, q.used - q.charged - q.spared);
    IF c.quantity > 0 THEN
        c.account_id := q.account_id;
        c.limit_no := q.limit_no;
        c.period_seq := q.period;
        c.from_unit := q.charged;
        c.period_start := q.starts;
        c.period_end := q.ends;
        c.plan_no := coalesce(q.overage_plan, p_plan);
        SELECT x.overage_amount, x.overage_meter INTO v_at, c.meter FROM plan_limits x WHERE x.plan_no = c.plan_no AND x.limit_no = q.limit_no;
        PERFORM usage_charge(c, 'quota', v_key, v_at);
    END IF;
    UPDATE quota_periods x SET charged = x.charged + c.quantity, overage_ends = NULL
        WHERE x.account_id = q.account_id AND x.limit_no = q.limit_no AND x.period = q.period;
END $$;

-- Closes the periods of quotas that have ended with overage: charges for it. A while after the end, when hosts have reported; what is
-- reported later still closes its period again. Answers how many. For the jobs, each few seconds.
CREATE FUNCTION billing.overage_close(most integer) RETURNS integer LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = billing, pg_temp SET jit = off SET enable_seqscan = off AS $$
DECLARE
    q quota_periods;
    n integer := 0;
BEGIN
    FOR q IN SELECT x.* FROM quota_periods x WHERE x.overage_ends < clock_timestamp() - interval '10 s'
             ORDER BY x.overage_ends LIMIT most FOR NO KEY UPDATE SKIP LOCKED LOOP
        PERFORM quota_charge(q, (SELECT a.plan_no FROM accounts a WHERE a.id = q.account_id));
        n := n + 1;
    END LOOP;
    RETURN n;
END $$;

-- Units are charged at the rate that they were taken at: before it changes, what there is by now.
CREATE FUNCTION billing.overage_rate_ends() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    b credit_balances;
    q quota_periods;
BEGIN
    FOR b IN SELECT x.* FROM credit_balances x WHERE x.account_id = NEW.id ORDER BY x.credit_no FOR NO KEY UPDATE LOOP
        PERFORM overage_charge(b, OLD.plan_no);
        UPDATE credit_balances x SET charged = x.overage
            WHERE x.account_id = b.account_id AND x.credit_no = b.credit_no AND x.charged <> x.overage;
    END LOOP;
    FOR q IN SELECT x.* FROM quota_periods x WHERE x.account_id = NEW.id AND x.overage_ends IS NOT NULL
             ORDER BY x.limit_no, x.period FOR NO KEY UPDATE LOOP
        PERFORM quota_charge(q, OLD.plan_no);
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER accounts_overage_rate AFTER UPDATE OF plan_no ON billing.accounts FOR EACH ROW
    WHEN (OLD.plan_no <> NEW.plan_no) EXECUTE FUNCTION billing.overage_rate_ends();

CREATE FUNCTION billing.overage_price_ends() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    b credit_balances;
BEGIN
    FOR b IN SELECT x.* FROM credit_balances x JOIN accounts a ON a.id = x.account_id
             WHERE x.credit_no = OLD.credit_no AND x.overage > x.charged AND a.plan_no = OLD.plan_no
             ORDER BY x.account_id FOR NO KEY UPDATE OF x LOOP
        PERFORM overage_charge(b, OLD.plan_no);
        UPDATE credit_balances x SET charged = x.overage WHERE x.account_id = b.account_id AND x.credit_no = b.credit_no;
    END LOOP;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER plan_credits_overage_price BEFORE UPDATE ON billing.plan_credits FOR EACH ROW
    WHEN (OLD.overage <> 'none' AND ROW(OLD.overage_amount, OLD.overage_meter) IS DISTINCT FROM ROW(NEW.overage_amount, NEW.overage_meter))
    EXECUTE FUNCTION billing.overage_price_ends();
CREATE TRIGGER plan_credits_overage_end BEFORE DELETE ON billing.plan_credits FOR EACH ROW
    WHEN (OLD.overage <> 'none') EXECUTE FUNCTION billing.overage_price_ends();

CREATE FUNCTION billing.quota_price_ends() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    q quota_periods;
BEGIN
    FOR q IN SELECT x.* FROM quota_periods x JOIN accounts a ON a.id = x.account_id
             WHERE x.overage_ends IS NOT NULL AND x.limit_no = OLD.limit_no AND coalesce(x.overage_plan, a.plan_no) = OLD.plan_no
             ORDER BY x.account_id, x.period FOR NO KEY UPDATE OF x LOOP
        PERFORM quota_charge(q, OLD.plan_no);
    END LOOP;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER plan_limits_overage_price BEFORE UPDATE ON billing.plan_limits FOR EACH ROW
    WHEN (OLD.overage <> 'none' AND ROW(OLD.overage_amount, OLD.overage_meter) IS DISTINCT FROM ROW(NEW.overage_amount, NEW.overage_meter))
    EXECUTE FUNCTION billing.quota_price_ends();
CREATE TRIGGER plan_limits_overage_end BEFORE DELETE ON billing.plan_limits FOR EACH ROW
    WHEN (OLD.overage <> 'none') EXECUTE FUNCTION billing.quota_price_ends();

-- ---------------------------------------------------------------- told to Stripe

-- One charge that is to be reported now, for a minute; whoever has it sends it, and says how it went. Accounts without a customer
-- wait. unsure: an earlier try may have arrived. Stripe knows an identifier again for a day, and no longer: what has been unsure for
-- almost that long is left to the operator.
CREATE FUNCTION billing.overage_claim()
    RETURNS TABLE (charge_no bigint, try integer, refusals integer, unsure boolean, customer text, meter text, quantity bigint, identifier text)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    c usage_charges;
BEGIN
    FOR c IN SELECT x.* FROM usage_charges x WHERE x.sent_at IS NULL AND x.meter IS NOT NULL AND x.next_try_at <= clock_timestamp()
             AND x.unsure_since < clock_timestamp() - interval '20 hours' LIMIT 10 FOR UPDATE SKIP LOCKED LOOP
        UPDATE usage_charges x SET next_try_at = 'infinity', trouble = 'unsure' WHERE x.charge_no = c.charge_no;
        PERFORM alarm(c.account_id, 'overage_unsure', c.identifier, jsonb_build_object('identifier', c.identifier, 'meter', c.meter,
            'quantity', c.quantity, 'amount', c.amount));
    END LOOP;
    RETURN QUERY
        WITH due AS (
            SELECT x.charge_no, x.unsure_since IS NOT NULL AS unsure, a.stripe_customer_id
            FROM usage_charges x JOIN accounts a ON a.id = x.account_id AND a.stripe_customer_id IS NOT NULL
            WHERE x.sent_at IS NULL AND x.meter IS NOT NULL AND x.next_try_at <= clock_timestamp()
            ORDER BY x.next_try_at LIMIT 1 FOR UPDATE OF x SKIP LOCKED)
        UPDATE usage_charges x SET next_try_at = clock_timestamp() + interval '1 min', tries = x.tries + 1,
                unsure_since = coalesce(x.unsure_since, clock_timestamp())
            FROM due d WHERE x.charge_no = d.charge_no
            RETURNING x.charge_no, x.tries, x.refusals, d.unsure, d.stripe_customer_id, x.meter, x.quantity, x.identifier;
END $$;

-- How it went: sent; later = Stripe is away; refused = asked again, less and less often, until the operator has made the meter,
-- say. p_unsure: this try, or an earlier one, may have arrived. A charge whose minute was over is another's.
CREATE FUNCTION billing.overage_told(p_charge_no bigint, p_try integer, p_outcome text, p_unsure boolean, p_trouble text) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    c usage_charges;
BEGIN
    SELECT x.* INTO c FROM usage_charges x WHERE x.charge_no = p_charge_no AND x.sent_at IS NULL FOR UPDATE;
    IF NOT FOUND OR c.tries <> p_try AND p_outcome <> 'sent' THEN
        RETURN;
    END IF;
    UPDATE usage_charges x SET trouble = nullif(p_trouble, ''),
            sent_at = CASE WHEN p_outcome = 'sent' THEN clock_timestamp() END,
            refusals = x.refusals + (p_outcome = 'refused')::integer,
            unsure_since = CASE WHEN p_unsure THEN x.unsure_since END,
            next_try_at = clock_timestamp() + CASE WHEN p_outcome = 'refused' THEN make_interval(mins => least(60, 2 ^ least(x.refusals, 6))::integer)
                ELSE interval '10 seconds' END
        WHERE x.charge_no = p_charge_no;
    IF p_outcome = 'refused' THEN
        PERFORM alarm(c.account_id, 'overage_refused', c.identifier, jsonb_build_object('identifier', c.identifier, 'meter', c.meter,
            'quantity', c.quantity, 'trouble', p_trouble));
    END IF;
END $$;

-- ---------------------------------------------------------------- the account's switch

-- What the switch stands at, for the account's own eyes; sets it to p_on before, unless that is NULL. overage: units beyond the
-- plan's may be taken, as far as the switch is concerned; switchable: the plan leaves it open.
CREATE FUNCTION billing.overage_settings(p_account text, p_on boolean, p_actor text) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET jit = off AS $$
DECLARE
    v_actor text := current_setting('billing.actor', true);
    a       accounts;
    v_open  boolean;
BEGIN
    IF p_on IS NULL THEN
        SELECT x.* INTO a FROM accounts x WHERE x.external_id = p_account AND x.deleted_at IS NULL;
    ELSE
        SELECT x.* INTO a FROM accounts x WHERE x.external_id = p_account AND x.deleted_at IS NULL FOR NO KEY UPDATE;
    END IF;
    IF a.id IS NULL THEN
        RETURN jsonb_build_object('code', 'UNKNOWN_ACCOUNT', 'error', 'Unknown account');
    END IF;
    v_open := EXISTS (SELECT FROM plan_credits pc WHERE pc.plan_no = a.plan_no AND pc.overage = 'switchable')
        OR EXISTS (SELECT FROM plan_limits pl WHERE pl.plan_no = a.plan_no AND pl.overage = 'switchable');
    IF p_on IS NOT NULL AND NOT v_open THEN
        RETURN jsonb_build_object('code', 'NOT_SWITCHABLE', 'error', 'The plan does not leave overage to its account');
    ELSIF p_on <> a.overage_on THEN
        PERFORM set_config('billing.actor', coalesce(p_actor, ''), true);
        UPDATE accounts x SET overage_on = p_on WHERE x.id = a.id;
        PERFORM set_config('billing.actor', coalesce(v_actor, ''), true);
        a.overage_on := p_on;
    END IF;
    RETURN jsonb_build_object('switchable', v_open,
        'overage', CASE WHEN v_open THEN a.overage_on
            ELSE EXISTS (SELECT FROM plan_credits pc WHERE pc.plan_no = a.plan_no AND pc.overage = 'always')
                OR EXISTS (SELECT FROM plan_limits pl WHERE pl.plan_no = a.plan_no AND pl.overage = 'always') END,
        'credits', coalesce((SELECT jsonb_object_agg(t.credit_key, jsonb_strip_nulls(jsonb_build_object(
                'always', pc.overage = 'always', 'amount', trim_scale(pc.overage_amount)::text, 'cap', pc.overage_cap,
                'used', coalesce(b.overage, 0))))
            FROM plan_credits pc JOIN credit_types t USING (credit_no)
            LEFT JOIN credit_balances b ON b.account_id = a.id AND b.credit_no = pc.credit_no
            WHERE pc.plan_no = a.plan_no AND pc.overage <> 'none'), '{}'),
        'quotas', coalesce((SELECT jsonb_object_agg(l.limit_key, jsonb_strip_nulls(jsonb_build_object(
                'always', pl.overage = 'always', 'amount', trim_scale(pl.overage_amount)::text, 'cap', pl.overage_cap,
                'used', greatest(0, coalesce(q.used - q.spared, 0)))))
            FROM plan_limits pl JOIN limits l USING (limit_no)
            LEFT JOIN quota_periods q ON q.account_id = a.id AND q.limit_no = pl.limit_no
                AND q.period = period_no(l.period, l.length, a.cycle_anchor, a.zone, clock_timestamp())
            WHERE pl.plan_no = a.plan_no AND pl.overage <> 'none'), '{}'));
END $$;

REVOKE ALL ON ALL TABLES IN SCHEMA billing FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT SELECT ON billing.usage_charges TO billing_reader;
GRANT EXECUTE ON FUNCTION billing.overage_settings(text, boolean, text) TO billing_gate, billing_jobs;
GRANT EXECUTE ON FUNCTION billing.overage_close(integer), billing.overage_claim(), billing.overage_told(bigint, integer, text, boolean, text) TO billing_jobs;
