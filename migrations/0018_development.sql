-- For development alone: a plan without paying, behind billing_upgrade. Whoever holds the workers' connection could call it, so
-- a database that has ever seen anything of Stripe's live mode refuses it for good.

-- 'ok', 'unknown_plan', 'unknown_account', or 'live'.
CREATE FUNCTION billing.development_upgrade(p_account text, p_plan text) RETURNS text
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET lock_timeout = '1s' AS $$
BEGIN
    IF EXISTS (SELECT FROM live_mode) THEN
        RETURN 'live';
    ELSIF NOT EXISTS (SELECT FROM plans p WHERE p.plan_key = p_plan AND p.active) THEN
        RETURN 'unknown_plan';
    END IF;
    RETURN CASE WHEN account_set(p_account, jsonb_build_object('plan', p_plan, 'status', 'active'), 'development') IS NULL
        THEN 'unknown_account' ELSE 'ok' END;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON FUNCTION billing.development_upgrade(text, text) TO billing_gate;
