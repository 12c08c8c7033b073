-- The application's own look at what it sells: the role billing_reader reads tables, and of those that belong to accounts only
-- the rows of the one account that it has named in its transaction:
--
--   BEGIN; SELECT set_config('billing.account_id', 'acme', true); SELECT remaining FROM billing.credit_balances; COMMIT;
--
-- Without that it reads none of them; whom the operator has given rights on a table by himself uses them as ever. Set for a transaction, so that connections may be pooled. The module's own roles have no
-- right on any table; its functions run as their owner, whom row security does not concern. Nobody but them reads Stripe's
-- events, keys, notifications, or what hosts tell.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'billing_reader') THEN
        BEGIN
            CREATE ROLE billing_reader NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- roles belong to the cluster: another database has just made it
        END;
    END IF;
END $$;

-- The account that the transaction has named; NULL for none, or one that there is not.
CREATE FUNCTION billing.reader_account() RETURNS bigint LANGUAGE sql STABLE
    SECURITY DEFINER SET search_path = billing, pg_temp AS
$$ SELECT a.id FROM accounts a WHERE a.external_id = nullif(current_setting('billing.account_id', true), '') $$;

GRANT USAGE ON SCHEMA billing TO billing_reader;
REVOKE ALL ON FUNCTION billing.reader_account() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION billing.reader_account() TO billing_reader;

-- What is for sale is nobody's secret.
GRANT SELECT ON billing.plans, billing.plan_prices, billing.features, billing.plan_features, billing.limits, billing.plan_limits,
    billing.rates, billing.plan_rates, billing.credit_types, billing.plan_credits, billing.packs,
    billing.stocks, billing.plan_stocks TO billing_reader;

DO $$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['accounts', 'account_features', 'account_limits', 'account_members', 'subscriptions', 'invoices',
                                   'charges', 'disputes', 'credit_balances', 'credit_ledger', 'quota_periods', 'account_stocks', 'stock_levels',
                                   'audit_log'] LOOP
        EXECUTE format('CREATE POLICY own_account ON billing.%I FOR SELECT TO billing_reader '
                       'USING (%I = (SELECT billing.reader_account()))',
                       v_table, CASE v_table WHEN 'accounts' THEN 'id' ELSE 'account_id' END);
        EXECUTE format('CREATE POLICY others ON billing.%I USING (NOT pg_has_role(''billing_reader'', ''MEMBER''))', v_table);
        EXECUTE format('ALTER TABLE billing.%I ENABLE ROW LEVEL SECURITY', v_table);
        EXECUTE format('GRANT SELECT ON billing.%I TO billing_reader', v_table);
    END LOOP;
END $$;
-- Of a charge, whose row its reader may see or not.
CREATE POLICY own_account ON billing.refunds FOR SELECT TO billing_reader
    USING (EXISTS (SELECT FROM billing.charges c WHERE c.charge_id = refunds.charge_id));
CREATE POLICY others ON billing.refunds USING (NOT pg_has_role('billing_reader', 'MEMBER'));
ALTER TABLE billing.refunds ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON billing.refunds TO billing_reader;
