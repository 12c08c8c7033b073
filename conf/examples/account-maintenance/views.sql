-- accounts, account_features and billing_events, for an application that reads them by these names. Run it after `ngx-billing migrate`, as the
-- role that owns the schema billing, in the schema of your choice, and again after an update:
--
--   psql -v ON_ERROR_STOP=1 -c 'SET search_path = app' -f views.sql
--
-- Nobody writes here. A role that is in billing_reader reads the one account that it has named in its transaction,
-- `SELECT set_config('billing.account_id', 'acme', true)`, or nothing; a role that you GRANT SELECT to by itself reads all of them.
-- What events carried is never shown.

CREATE OR REPLACE VIEW accounts WITH (security_barrier) AS
    SELECT a.external_id AS id, a.name, p.plan_key AS plan_id,
        CASE a.status WHEN 'canceled' THEN 'cancelled' ELSE a.status END AS plan_status,
        a.maintenance <> 'none' AS maintenance_mode, a.stripe_customer_id, a.created_at
    FROM billing.accounts a JOIN billing.plans p USING (plan_no)
    WHERE a.deleted_at IS NULL AND (a.external_id = nullif(current_setting('billing.account_id', true), '')
        OR current_setting('is_superuser')::boolean OR NOT pg_has_role('billing_reader', 'MEMBER'));

-- Each feature of the catalog, on or off: the plan's, unless the account has an exception.
CREATE OR REPLACE VIEW account_features WITH (security_barrier) AS
    SELECT a.external_id AS account_id, f.feature_key AS feature, coalesce(o.enabled, g.plan_no IS NOT NULL) AS enabled
    FROM billing.accounts a CROSS JOIN billing.features f
    LEFT JOIN billing.plan_features g ON g.plan_no = a.plan_no AND g.feature_no = f.feature_no
    LEFT JOIN billing.account_features o ON o.account_id = a.id AND o.feature_no = f.feature_no
        AND (o.expires_at IS NULL OR o.expires_at > clock_timestamp())
    WHERE a.deleted_at IS NULL AND (a.external_id = nullif(current_setting('billing.account_id', true), '')
        OR current_setting('is_superuser')::boolean OR NOT pg_has_role('billing_reader', 'MEMBER'));

-- Events of Stripe's that have been dealt with.
CREATE OR REPLACE VIEW billing_events WITH (security_barrier) AS
    SELECT w.event_id, w.type AS event_type, a.external_id AS account_id, w.processed_at
    FROM billing.webhook_events w LEFT JOIN billing.accounts a ON a.id = w.account_id
    WHERE w.processed_at IS NOT NULL AND (a.external_id = nullif(current_setting('billing.account_id', true), '')
        OR current_setting('is_superuser')::boolean OR NOT pg_has_role('billing_reader', 'MEMBER'));

REVOKE ALL ON accounts, account_features, billing_events FROM PUBLIC;
GRANT SELECT ON accounts, account_features, billing_events TO billing_reader;
