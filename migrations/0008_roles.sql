-- Least privilege. billing_gate: workers that serve requests; billing_jobs: the background loops; billing_app: the application
-- itself. All get functions only, no table: every function they may call is SECURITY DEFINER with a pinned search_path.

-- Roles belong to the whole cluster: another database may have made them already, or be making them right now.
DO $$
DECLARE
    v_role text;
BEGIN
    FOREACH v_role IN ARRAY ARRAY['billing_gate', 'billing_jobs', 'billing_app'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = v_role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', v_role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
    END LOOP;
END $$;

-- Functions are executable by everybody unless told otherwise.
REVOKE ALL ON SCHEMA billing FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA billing FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT USAGE ON SCHEMA billing TO billing_gate, billing_jobs, billing_app;
GRANT EXECUTE ON FUNCTION
    billing.epoch(),
    billing.stamp(bigint),
    billing.snapshots(text[], boolean),
    billing.catalog_document(),
    billing.quota_fund(integer[], bigint[], smallint[], bigint[], bigint[], bigint[], bigint[]),
    billing.usage_flush(uuid, text, bigint, bigint[], smallint[], bigint[], bigint[], bigint[], text[], integer[]),
    billing.charge_late(uuid, text, bigint, text[], text[], bigint[], bigint[], boolean[], text[], integer[])
    TO billing_gate, billing_jobs;
GRANT EXECUTE ON FUNCTION billing.publish_claim(integer), billing.publish_done(bigint[], bigint[]) TO billing_jobs;
