-- What an account's own application and billing page read about it.

-- Stripe's amounts are in the currency's smallest unit: hundredths, but for these.
-- https://docs.stripe.com/currencies#zero-decimal
CREATE FUNCTION billing.whole_units(p_amount bigint, p_currency text) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_currency IN ('bif', 'clp', 'djf', 'gnf', 'jpy', 'kmf', 'krw', 'mga', 'pyg', 'rwf', 'vnd', 'vuv', 'xaf',
                                    'xof', 'xpf') THEN p_amount
                ELSE pg_catalog.trim_scale(p_amount / 100.0) END
$$;

-- The plan's attributes, by names as documents have them: brand_limit is brandLimit.
CREATE FUNCTION billing.camel_attributes(p_attributes jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(pg_catalog.jsonb_object_agg(n.name, a.value), '{}') FROM pg_catalog.jsonb_each(p_attributes) a
    CROSS JOIN LATERAL (SELECT pg_catalog.string_agg(CASE WHEN w.ord = 1 THEN w.word ELSE pg_catalog.initcap(w.word) END, '' ORDER BY w.ord)
        AS name FROM pg_catalog.string_to_table(a.key, '_') WITH ORDINALITY w(word, ord)) n
$$;

-- A plan as it is offered, to compare and to choose.
CREATE FUNCTION billing.plan_document(p_plan_no smallint) RETURNS jsonb LANGUAGE sql STABLE
    SET search_path = billing, pg_temp AS $$
    SELECT jsonb_build_object('plan', p.plan_key, 'name', p.display_name, 'free', p.is_free,
        'prices', coalesce((SELECT jsonb_object_agg(x.interval, jsonb_build_object(
                'amount', whole_units(x.amount, x.currency), 'currency', x.currency))
            FROM plan_prices x WHERE x.plan_no = p.plan_no AND x.active), '{}'),
        'features', coalesce((SELECT jsonb_agg(f.feature_key ORDER BY f.feature_key)
            FROM plan_features x JOIN features f USING (feature_no) WHERE x.plan_no = p.plan_no), '[]'),
        'limits', coalesce((SELECT jsonb_object_agg(l.limit_key, x.amount)
            FROM plan_limits x JOIN limits l USING (limit_no) WHERE x.plan_no = p.plan_no), '{}')
            || coalesce((SELECT jsonb_object_agg(s.stock_key, x.amount)
            FROM plan_stocks x JOIN stocks s USING (stock_no) WHERE x.plan_no = p.plan_no), '{}'),
        'credits', coalesce((SELECT jsonb_object_agg(t.credit_key, x.quantity)
            FROM plan_credits x JOIN credit_types t USING (credit_no) WHERE x.plan_no = p.plan_no), '{}'),
        'attributes', camel_attributes(p.attributes))
    FROM plans p WHERE p.plan_no = p_plan_no
$$;

-- All that an account may know of itself. NULL: there is no such account. Times are ISO 8601, amounts of money whole units of
-- their currency, limits null where there is none.
CREATE FUNCTION billing.account_document(p_account text) RETURNS jsonb LANGUAGE sql STABLE
    SECURITY DEFINER SET search_path = billing, pg_temp SET jit = off AS $$
    WITH held AS ( -- the best one, as it decides on the plan
        SELECT s.*, x.amount, x.currency, x.interval FROM subscriptions s JOIN accounts a ON a.id = s.account_id
        LEFT JOIN plan_prices x ON x.price_id = s.price_id LEFT JOIN plans p ON p.plan_no = s.plan_no
        WHERE a.external_id = p_account AND s.status NOT IN ('canceled', 'incomplete_expired')
        ORDER BY s.plan_no IS NOT DISTINCT FROM a.plan_no DESC, s.status = a.status DESC, p.rank DESC NULLS LAST, s.started_at
        LIMIT 1)
    SELECT jsonb_build_object(
        'account', a.external_id, 'plan', p.plan_key, 'tier', p.plan_key, 'status', a.status,
        'tierConfig', camel_attributes(p.attributes) || jsonb_build_object('displayName', p.display_name,
            'price', coalesce((SELECT whole_units(x.amount, x.currency) FROM plan_prices x
                WHERE x.plan_no = p.plan_no AND x.active ORDER BY array_position('{month,year,week,day,one_time}', x.interval) LIMIT 1), 0),
            'features', plan_document(p.plan_no) -> 'features'),
        'subscription', (SELECT jsonb_build_object('status', h.status, 'currentPeriodStart', iso(h.period_start),
                'currentPeriodEnd', iso(h.period_end), 'cancelAtPeriodEnd', h.cancel_at IS NOT NULL, 'cancelAt', iso(h.cancel_at),
                'trialEnd', iso(h.trial_end), 'price', CASE WHEN h.amount IS NOT NULL THEN jsonb_build_object(
                    'amount', whole_units(h.amount, h.currency), 'currency', h.currency, 'interval', h.interval) END) FROM held h),
        'graceUntil', iso(a.grace_until), 'maintenance', a.maintenance <> 'none', 'writeEnabled', a.write_enabled,
        'billingEnforced', a.billing_enforced,
        'features', coalesce((SELECT jsonb_agg(f.feature_key ORDER BY f.feature_key) FROM features f
            LEFT JOIN plan_features pf ON pf.plan_no = a.plan_no AND pf.feature_no = f.feature_no
            LEFT JOIN account_features o ON o.account_id = a.id AND o.feature_no = f.feature_no
                AND (o.expires_at IS NULL OR o.expires_at > clock_timestamp())
            WHERE coalesce(o.enabled, pf.plan_no IS NOT NULL)), '[]'),
        'limits', coalesce(l.caps, '{}') || coalesce(s.caps, '{}'),
        'usage', coalesce(l.used, '{}') || coalesce(s.used, '{}'),
        'resets', coalesce(l.ends, '{}'),
        'credits', (SELECT jsonb_object_agg(t.credit_key, jsonb_build_object('remaining', b.remaining, 'used', b.used,
                'overage', b.overage)) || jsonb_build_object('periodEnd', iso(min(b.period_end)))
            FROM credit_balances b JOIN credit_types t USING (credit_no) WHERE b.account_id = a.id),
        'overage', overage_settings(p_account, NULL, NULL) - ARRAY['credits', 'quotas'],
        'plans', (SELECT jsonb_agg(plan_document(x.plan_no) || jsonb_build_object('current', x.plan_no = a.plan_no)
            ORDER BY x.rank, x.plan_key) FROM plans x WHERE x.active))
    FROM accounts a JOIN plans p USING (plan_no)
    LEFT JOIN LATERAL (SELECT jsonb_object_agg(e.limit_key, e.cap) AS caps, jsonb_object_agg(e.limit_key, coalesce(x.used, 0)) AS used,
            jsonb_object_agg(e.limit_key, iso(x.ends)) FILTER (WHERE x.ends IS NOT NULL) AS ends
        FROM effective_limits e JOIN limit_states(a.id) x USING (limit_no) WHERE e.account_id = a.id) l ON true
    LEFT JOIN LATERAL (SELECT jsonb_object_agg(e.stock_key, e.cap) AS caps, jsonb_object_agg(e.stock_key, coalesce(x.current, 0)) AS used
        FROM effective_stocks e LEFT JOIN stock_levels x USING (account_id, stock_no) WHERE e.account_id = a.id) s ON true
    WHERE a.external_id = p_account AND a.deleted_at IS NULL
$$;

-- The short form for applications that ask for one quota and one feature: what is left is what no host has spent or holds for
-- itself. Limits are null where there is none.
CREATE FUNCTION billing.account_entitlements(p_account text, p_limit text, p_feature text) RETURNS jsonb LANGUAGE sql STABLE
    SECURITY DEFINER SET search_path = billing, pg_temp SET jit = off AS $$
    SELECT jsonb_build_object('tier', p.plan_key, 'quota', e.cap, 'remaining', CASE WHEN e.cap IS NOT NULL THEN
            greatest(0, e.cap - coalesce(x.used, 0)) END,
        'previewAllowed', coalesce((SELECT coalesce(o.enabled, pf.plan_no IS NOT NULL) FROM features f
            LEFT JOIN plan_features pf ON pf.plan_no = a.plan_no AND pf.feature_no = f.feature_no
            LEFT JOIN account_features o ON o.account_id = a.id AND o.feature_no = f.feature_no
                AND (o.expires_at IS NULL OR o.expires_at > clock_timestamp())
            WHERE f.feature_key = p_feature), false))
    FROM accounts a JOIN plans p USING (plan_no)
    LEFT JOIN effective_limits e ON e.account_id = a.id AND e.limit_key = p_limit
    LEFT JOIN LATERAL (SELECT y.used FROM limit_states(a.id) y WHERE y.limit_no = e.limit_no) x ON true
    WHERE a.external_id = p_account AND a.deleted_at IS NULL
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON FUNCTION billing.account_document(text), billing.account_entitlements(text, text, text) TO billing_gate, billing_jobs;
