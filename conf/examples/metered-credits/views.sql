-- profiles, generation_credits and credit_transactions, for an application that reads them by these names. Run it after
-- `ngx-billing migrate`, as the role that owns the schema billing, in the schema of your choice, and again after an update:
--
--   psql -v ON_ERROR_STOP=1 -c 'SET search_path = app' -f views.sql
--
-- Nobody writes here. A role that is in billing_reader reads the one account that it has named in its transaction,
-- `SELECT set_config('billing.account_id', 'u1', true)`, or nothing; a role that you GRANT SELECT to by itself reads all of them.

CREATE OR REPLACE VIEW profiles WITH (security_barrier) AS
    SELECT a.external_id AS id, p.plan_key AS subscription_tier, a.stripe_customer_id
    FROM billing.accounts a JOIN billing.plans p USING (plan_no)
    WHERE a.deleted_at IS NULL AND (a.external_id = nullif(current_setting('billing.account_id', true), '')
        OR current_setting('is_superuser')::boolean OR NOT pg_has_role('billing_reader', 'MEMBER'));

CREATE OR REPLACE VIEW generation_credits WITH (security_barrier) AS
    SELECT a.external_id AS user_id, t.credit_key AS credit_type, b.remaining, b.used, b.overage, b.period_start, b.period_end,
        b.last_refill_at
    FROM billing.credit_balances b JOIN billing.accounts a ON a.id = b.account_id JOIN billing.credit_types t USING (credit_no)
    WHERE a.deleted_at IS NULL AND (a.external_id = nullif(current_setting('billing.account_id', true), '')
        OR current_setting('is_superuser')::boolean OR NOT pg_has_role('billing_reader', 'MEMBER'));

CREATE OR REPLACE VIEW credit_transactions WITH (security_barrier) AS
    SELECT l.id, a.external_id AS user_id, t.credit_key AS credit_type, l.action, l.quantity, l.balance_after, l.job_id, l.invoice_id,
        l.reason, l.metadata, l.at AS created_at
    FROM billing.credit_ledger l JOIN billing.accounts a ON a.id = l.account_id JOIN billing.credit_types t USING (credit_no)
    WHERE a.deleted_at IS NULL AND (a.external_id = nullif(current_setting('billing.account_id', true), '')
        OR current_setting('is_superuser')::boolean OR NOT pg_has_role('billing_reader', 'MEMBER'));

REVOKE ALL ON profiles, generation_credits, credit_transactions FROM PUBLIC;
GRANT SELECT ON profiles, generation_credits, credit_transactions TO billing_reader;
