-- profiles (id, plan_tier), for an application that reads tiers by that name. Run it after `ngx-billing migrate`, as the role that owns
-- the schema billing, in the schema of your choice, and again after an update:
--
--   psql -v ON_ERROR_STOP=1 -c 'SET search_path = app' -f views.sql
--
-- Nobody writes here. A role that is in billing_reader reads the one account that it has named in its transaction,
-- `SELECT set_config('billing.account_id', 'u1', true)`, or nothing; a role that you GRANT SELECT to by itself reads all of them.

CREATE OR REPLACE VIEW profiles WITH (security_barrier) AS
    SELECT a.external_id AS id, p.plan_key AS plan_tier
    FROM billing.accounts a JOIN billing.plans p USING (plan_no)
    WHERE a.deleted_at IS NULL AND (a.external_id = nullif(current_setting('billing.account_id', true), '')
        OR current_setting('is_superuser')::boolean OR NOT pg_has_role('billing_reader', 'MEMBER'));

REVOKE ALL ON profiles FROM PUBLIC;
GRANT SELECT ON profiles TO billing_reader;
