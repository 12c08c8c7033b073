-- The publisher's two calls (jobs). Between them no row is locked: the trigger's upsert hits the same rows, and a stalled
-- Redis must not stall anybody's commit. A publisher that dies leaves a claim that lapses after 10 s; publishing twice is
-- harmless, because every copy is written by compare-and-set.

-- First row (account NULL): watermark in unix ms, epoch, stamp of the catalog. Then the claimed accounts, oldest first.
-- The watermark is read before the scan's snapshot is taken (a VOLATILE plpgsql function takes one for each statement),
-- so every commit before it is either seen by the scan or, if a lock or the batch's size hides it, still dirty.
CREATE FUNCTION billing.publish_claim(batch integer)
    RETURNS TABLE (id bigint, account text, version bigint, stamp bigint, body text,
                   watermark bigint, epoch integer, catalog_stamp bigint)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_now     timestamptz := clock_timestamp();
    v_claimed bigint[];
BEGIN
    IF batch IS NULL OR batch NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'batch must be 1..10000' USING ERRCODE = '22023';
    END IF;
    WITH due AS (
        SELECT d.account_id FROM snapshot_dirty d WHERE d.claimed_until < v_now
        ORDER BY d.since LIMIT batch FOR UPDATE SKIP LOCKED),
    claimed AS (
        UPDATE snapshot_dirty d SET claimed_until = v_now + interval '10 s'
        FROM due WHERE d.account_id = due.account_id RETURNING d.account_id)
    SELECT array_agg(c.account_id) INTO v_claimed FROM claimed c;

    RETURN QUERY SELECT NULL::bigint, NULL::text, NULL::bigint, NULL::bigint, NULL::text,
        floor(extract(epoch FROM v_now) * 1000)::bigint, m.epoch, m.epoch::bigint << 40 | m.catalog_version
        FROM current_meta m;
    IF v_claimed IS NOT NULL THEN
        RETURN QUERY SELECT s.id, s.account, s.version, s.stamp, s.body, NULL::bigint, NULL::integer, NULL::bigint
            FROM unnest(v_claimed) WITH ORDINALITY c(id, n) JOIN account_snapshots s ON s.id = c.id ORDER BY c.n;
    END IF;
END $$;

-- Forgets what was published, unless a newer version came meanwhile. Rows locked by an open transaction are left: it is
-- about to make them dirty again, and waiting would let anybody's open transaction stop the publisher.
-- Returns the oldest since of what remains, in unix ms (NULL: nothing); the heartbeat is min(watermark, this).
CREATE FUNCTION billing.publish_done(ids bigint[], versions bigint[]) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
BEGIN
    DELETE FROM snapshot_dirty d USING (
        SELECT s.account_id FROM unnest(ids, versions) p(id, version)
        JOIN snapshot_dirty s ON s.account_id = p.id AND s.version <= p.version
        FOR UPDATE OF s SKIP LOCKED) gone
    WHERE d.account_id = gone.account_id;
    RETURN (SELECT floor(extract(epoch FROM min(s.since)) * 1000)::bigint FROM snapshot_dirty s);
END $$;
