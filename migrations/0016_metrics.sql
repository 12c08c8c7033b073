-- What an operator looks at: how long the queues are (billing_metrics), and all that is known of one account
-- (ngx-billing account explain).

-- Each count ends at 100000 and reads a partial index that holds nothing but what waits, so this costs a few milliseconds
-- at the very most, however many rows there are of what is done.
CREATE FUNCTION billing.queue_depths()
    RETURNS TABLE (received bigint, processing bigint, parked bigint, dead bigint, oldest_event_s bigint, dirty bigint,
                   outbox bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = billing, pg_temp SET jit = off SET enable_seqscan = off AS $$
BEGIN
    processing := (SELECT count(*) FROM (SELECT FROM webhook_events WHERE status = 'processing' LIMIT 100000) x);
    received := greatest(0, (SELECT count(*) FROM (
        SELECT FROM webhook_events WHERE status IN ('received', 'processing') LIMIT 100000) x) - processing);
    parked := (SELECT count(*) FROM (SELECT FROM webhook_events WHERE status = 'parked' LIMIT 100000) x);
    dead := (SELECT count(*) FROM (SELECT FROM webhook_events WHERE status = 'dead' LIMIT 100000) x);
    oldest_event_s := coalesce((SELECT greatest(0, floor(extract(epoch FROM clock_timestamp() - e.received_at)))
        FROM webhook_events e WHERE e.status IN ('received', 'processing')
        ORDER BY e.stripe_created, e.received_at, e.event_id LIMIT 1), 0);
    dirty := (SELECT count(*) FROM (SELECT FROM snapshot_dirty LIMIT 100000) x);
    outbox := (SELECT count(*) FROM (SELECT FROM billing.outbox WHERE done_at IS NULL LIMIT 100000) x);
    RETURN NEXT;
END $$;

-- The events of a customer, the newest first; and those that name an account and no customer.
CREATE INDEX webhook_events_customer ON billing.webhook_events (customer_id, received_at) WHERE customer_id IS NOT NULL;
CREATE INDEX webhook_events_account ON billing.webhook_events (account_id, received_at)
    WHERE customer_id IS NULL AND account_id IS NOT NULL;

CREATE FUNCTION billing.explain_events(p_account_id bigint, p_most integer) RETURNS jsonb LANGUAGE sql STABLE
    SET search_path = billing, pg_temp AS $$
    WITH customers AS (
        SELECT a.stripe_customer_id AS id FROM accounts a WHERE a.id = p_account_id AND a.stripe_customer_id IS NOT NULL
        UNION SELECT f.customer_id FROM former_customers f WHERE f.account_id = p_account_id),
    found AS (
        (SELECT e.* FROM customers c CROSS JOIN LATERAL (SELECT x.* FROM webhook_events x
            WHERE x.customer_id = c.id ORDER BY x.received_at DESC LIMIT p_most) e)
        UNION ALL
        (SELECT e.* FROM webhook_events e WHERE e.customer_id IS NULL AND e.account_id = p_account_id
            ORDER BY e.received_at DESC LIMIT p_most)),
    latest AS (SELECT f.* FROM found f ORDER BY f.received_at DESC, f.event_id LIMIT p_most)
    SELECT coalesce(jsonb_agg(jsonb_build_object('id', e.event_id, 'type', e.type, 'status', e.status,
            'received_at', iso(e.received_at), 'processed_at', iso(e.processed_at), 'failures', e.failures,
            'next_try_at', CASE WHEN e.status = 'received' AND e.attempts > 0 THEN iso(e.next_attempt_at) END,
            'trouble', e.last_error)
        ORDER BY e.received_at DESC, e.event_id), '[]')
    FROM latest e
$$;

-- Everything that PostgreSQL knows of an account and that decides its requests, or tells why it is as it is; NULL when
-- there is none. snapshot and catalog are the texts that hosts decide by. Nobody notes which host holds how many units of
-- a quota: instances are those that have reported lately, and may.
CREATE FUNCTION billing.account_explain(p_account text) RETURNS jsonb LANGUAGE sql STABLE
    SECURITY DEFINER SET search_path = billing, pg_temp SET jit = off AS $$
    SELECT jsonb_build_object(
        'now', unix(clock_timestamp()), 'account', account_show(a.external_id),
        'snapshot', (SELECT s.body FROM account_snapshots s WHERE s.id = a.id), 'catalog', catalog_document(),
        'unpublished_since', (SELECT iso(d.since) FROM snapshot_dirty d WHERE d.account_id = a.id),
        'customer', a.stripe_customer_id,
        'former_customers', coalesce((SELECT jsonb_agg(f.customer_id ORDER BY f.dropped_at) FROM former_customers f
            WHERE f.account_id = a.id), '[]'),
        'subscriptions', coalesce((SELECT jsonb_agg(jsonb_build_object('id', s.subscription_id, 'status', s.status,
                'plan', p.plan_key, 'price', coalesce(s.price_id, s.prices[1]), 'period_end', iso(s.period_end),
                'cancel_at', iso(s.cancel_at), 'trial_end', iso(s.trial_end), 'ended_at', iso(s.ended_at),
                'past_due_since', iso(s.past_due_since), 'grace_until', iso(s.grace_until), 'held', s.held)
                ORDER BY s.ended_at IS NULL DESC, s.changed_at DESC)
            FROM subscriptions s LEFT JOIN plans p USING (plan_no) WHERE s.account_id = a.id), '[]'),
        'checkout', (SELECT jsonb_build_object('price', c.price_id, 'expires_at', iso(c.expires_at))
            FROM checkout_sessions c WHERE c.account_id = a.id AND c.status = 'open' AND c.mode = 'subscription'),
        'events', explain_events(a.id, 8),
        'instances', coalesce((SELECT jsonb_agg(jsonb_build_object('host', i.host, 'instance', i.instance_id,
                'reported_at', iso(i.seen_at)) ORDER BY i.seen_at DESC)
            FROM (SELECT * FROM instances x WHERE x.seen_at > clock_timestamp() - interval '31 days'
                  ORDER BY x.seen_at DESC LIMIT 8) i), '[]'))
    FROM accounts a WHERE a.external_id = p_account
$$;

REVOKE ALL ON FUNCTION billing.queue_depths(), billing.explain_events(bigint, integer), billing.account_explain(text)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION billing.queue_depths() TO billing_gate, billing_jobs;
