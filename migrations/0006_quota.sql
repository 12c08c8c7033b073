-- Quota tokens: the only mint (quota_fund) and the only way back (usage_flush). Called by workers, batched.
-- Neither waits for an account row while it holds quota rows, and both lock quota rows in primary-key order, so they cannot
-- deadlock with each other or with whoever locks an account first.

-- UTC, from 1970 on. One number a period, without gaps: the one before n is n - 1. Like period_start without a pinned
-- search_path, and with immutable parts only, so that the planner can inline them: a call costs more than a whole statement.
CREATE FUNCTION billing.period_number(kind text, at timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE kind
        WHEN 'minute' THEN billing.unix(at) / 60
        WHEN 'hour' THEN billing.unix(at) / 3600
        WHEN 'day' THEN billing.unix(at) / 86400
        WHEN 'month' THEN (extract(year FROM at AT TIME ZONE 'UTC') * 12
                           + extract(month FROM at AT TIME ZONE 'UTC') - 1)::bigint
        WHEN 'lifetime' THEN 0
    END
$$;

-- The first instant of a period; its end is the next one's start. NULL for lifetime.
CREATE FUNCTION billing.period_start(kind text, no bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE kind
        WHEN 'minute' THEN pg_catalog.to_timestamp((no * 60)::double precision)
        WHEN 'hour' THEN pg_catalog.to_timestamp((no * 3600)::double precision)
        WHEN 'day' THEN pg_catalog.to_timestamp((no * 86400)::double precision)
        WHEN 'month' THEN pg_catalog.make_timestamp((no / 12)::integer, (no % 12)::integer + 1, 1, 0, 0, 0)
                          AT TIME ZONE 'UTC'
    END
$$;

-- The number 2^60 + n says: a billing month that begins in the n-th 16 seconds since 1970.
CREATE FUNCTION billing.cycle_start(anchor timestamptz, at timestamptz) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    a CONSTANT timestamp := anchor AT TIME ZONE 'UTC';
    t CONSTANT timestamp := at AT TIME ZONE 'UTC';
    k integer := (extract(year FROM t) - extract(year FROM a)) * 12 + extract(month FROM t) - extract(month FROM a);
BEGIN
    IF a + pg_catalog.make_interval(months => k) > t THEN
        k := k - 1;
    END IF;
    RETURN (a + pg_catalog.make_interval(months => k)) AT TIME ZONE 'UTC'; -- the day clamped to the month, from the anchor's own
END $$;

-- The first instant at which clocks of the zone show this time or a later one. PostgreSQL by itself takes the second of two,
-- and for a time that clocks skip one that is not the first after it.
CREATE FUNCTION billing.zone_start(zone text, local timestamp) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_high bigint := billing.unix(local AT TIME ZONE zone);
    v_low  bigint := v_high - 86400;
BEGIN
    IF pg_catalog.to_timestamp(v_high) AT TIME ZONE zone = local
       AND pg_catalog.to_timestamp(v_high - 1) AT TIME ZONE zone < local THEN
        RETURN pg_catalog.to_timestamp(v_high);
    END IF;
    WHILE v_high - v_low > 1 LOOP
        IF pg_catalog.to_timestamp((v_low + v_high) / 2) AT TIME ZONE zone >= local THEN
            v_high := (v_low + v_high) / 2;
        ELSE
            v_low := (v_low + v_high) / 2;
        END IF;
    END LOOP;
    RETURN pg_catalog.to_timestamp(v_high);
END $$;

-- The period of an account that holds a moment, whatever its kind. anchor and length matter to cycle and sliding, zone to
-- day and month. The bucket of a sliding window is a twentieth of its length; its number is size << 32 | n.
CREATE FUNCTION billing.period_no(kind text, length integer, anchor timestamptz, zone text, at timestamptz) RETURNS bigint
    LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN kind = 'cycle'
            THEN (1::bigint << 60) + pg_catalog.floor(billing.unix(billing.cycle_start(anchor, at)) / 16.0)::bigint
        WHEN kind = 'sliding' THEN ((length + 19) / 20)::bigint << 32 | billing.unix(at) / ((length + 19) / 20)
        WHEN kind IN ('day', 'month') AND zone IS NOT NULL
            THEN billing.period_number(kind, (at AT TIME ZONE zone) AT TIME ZONE 'UTC')
        ELSE billing.period_number(kind, at) END
$$;

CREATE FUNCTION billing.period_bounds(kind text, anchor timestamptz, zone text, no bigint,
                                      OUT starts timestamptz, OUT ends timestamptz) LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF kind = 'cycle' THEN
        starts := billing.cycle_start(anchor, pg_catalog.to_timestamp(((no - (1::bigint << 60)) * 16 + 15)::double precision));
        ends := billing.cycle_start(anchor, starts + interval '32 days');
    ELSIF kind = 'sliding' THEN
        starts := pg_catalog.to_timestamp(((no >> 32) * (no & 4294967295))::double precision);
        ends := starts + pg_catalog.make_interval(secs => no >> 32);
    ELSIF kind IN ('day', 'month') AND zone IS NOT NULL THEN
        starts := billing.zone_start(zone, billing.period_start(kind, no) AT TIME ZONE 'UTC');
        ends := billing.zone_start(zone, billing.period_start(kind, no + 1) AT TIME ZONE 'UTC');
    ELSE
        starts := billing.period_start(kind, no);
        ends := billing.period_start(kind, no + 1);
    END IF;
END $$;

-- The cap of an account: an override that has not expired, else what the plan gives, else 0. NULL = unlimited.
-- beyond: how many units of overage its plan and its own switch allow in a period (2^62: any number). An override of 0 means none at all.
-- A plain view of the present; quota_fund reads it after it has its locks.
CREATE VIEW billing.effective_limits AS
    SELECT a.id AS account_id, l.limit_no, l.limit_key, l.period AS kind, l.length,
        a.cycle_anchor AS anchor, a.zone,
        CASE WHEN a.deleted_at IS NOT NULL THEN 0
             WHEN o.account_id IS NOT NULL THEN o.amount
             WHEN p.plan_no IS NOT NULL THEN p.amount
             ELSE 0 END AS cap,
        CASE WHEN o.account_id IS NOT NULL THEN 'override' ELSE 'plan' END AS origin, o.expires_at, a.plan_no,
        CASE WHEN a.deleted_at IS NOT NULL OR o.unlimited OR o.amount = 0 OR p.unlimited THEN 0
             WHEN p.overage = 'always' OR p.overage = 'switchable' AND a.overage_on
             THEN coalesce(p.overage_cap, 4611686018427387904)
             ELSE 0 END AS beyond
    FROM billing.accounts a
    CROSS JOIN billing.limits l
    LEFT JOIN billing.account_limits o ON o.account_id = a.id AND o.limit_no = l.limit_no
        AND (o.expires_at IS NULL OR o.expires_at > clock_timestamp())
    LEFT JOIN billing.plan_limits p ON p.plan_no = a.plan_no AND p.limit_no = l.limit_no;

-- Of windows that may overlap others: what stands beside the row `no` when it is asked for more. left is what may be issued
-- from it now, could_be what that would be if all came back that hosts hold; NULL cap: no bound.
--
-- cycle: a new anchor begins a new month while the old one is running. What matters is each month that has not ended, as it
-- was when it began: within it, over all rows, no more is issued than the largest cap under which any of it was (peak), so
-- that no sequence of cancelling and subscribing again brings more than the best plan held. Of another row all counts if it
-- was issued from after the month's begin. Within `no` itself the present cap holds.
-- sliding: the twenty buckets before this one, whose last seconds are within the length as long as this one runs.
CREATE FUNCTION billing.window_room(p_account bigint, p_limit smallint, p_kind text, p_length integer, p_no bigint,
        p_cap bigint, p_now timestamptz, OUT room bigint, OUT could_be bigint)
    LANGUAGE plpgsql STABLE SET search_path = billing, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    IF p_kind = 'sliding' THEN
        SELECT p_cap - coalesce(sum(q.issued), 0), p_cap - coalesce(sum(q.used), 0) INTO room, could_be FROM quota_periods q
            WHERE q.account_id = p_account AND q.limit_no = p_limit
              AND q.period >= p_no - (p_length + (p_no >> 32) - 1) / (p_no >> 32) AND q.period < ((p_no >> 32) + 1) << 32;
        RETURN;
    END IF;
    SELECT min(x.bound - x.issued), min(x.bound - x.used) INTO room, could_be FROM (
        SELECT CASE WHEN w.period = p_no THEN p_cap ELSE greatest(w.peak, p_cap) END AS bound,
            sum(r.issued) AS issued, sum(r.used) AS used
        FROM quota_periods w JOIN quota_periods r ON r.account_id = p_account AND r.limit_no = p_limit
            AND r.period > 0 AND (r.period IN (p_no, w.period) OR r.issued_at >= w.starts)
        WHERE w.account_id = p_account AND w.limit_no = p_limit AND w.period > 0 AND (w.period = p_no OR w.ends > p_now)
        GROUP BY w.period, w.peak) x;
END $$;

-- When p_need units can be had again, if nothing else is taken; NULL: not at all.
CREATE FUNCTION billing.window_resets(p_account bigint, p_limit smallint, p_kind text, p_length integer, p_no bigint,
        p_cap bigint, p_need bigint, p_now timestamptz) RETURNS timestamptz
    LANGUAGE plpgsql STABLE SET search_path = billing, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    IF p_cap < p_need THEN
        RETURN NULL;
    ELSIF p_kind = 'sliding' THEN -- buckets leave it one after the other, the oldest first
        RETURN (SELECT min(x.leaves) FROM (
            SELECT to_timestamp(((q.period & 4294967295) + (p_length + (p_no >> 32) - 1) / (p_no >> 32) + 1) * (p_no >> 32)) AS leaves,
                sum(q.issued) OVER (ORDER BY q.period DESC) - q.issued AS stays
            FROM quota_periods q WHERE q.account_id = p_account AND q.limit_no = p_limit
              AND q.period >= p_no - (p_length + (p_no >> 32) - 1) / (p_no >> 32) AND q.period < ((p_no >> 32) + 1) << 32) x
            WHERE x.stays <= p_cap - p_need);
    END IF;
    RETURN (SELECT min(c.ends) FROM quota_periods c, quota_periods n
        WHERE n.account_id = p_account AND n.limit_no = p_limit AND n.period = p_no
          AND c.account_id = p_account AND c.limit_no = p_limit AND c.period > 0 AND c.ends > p_now
          AND (c.ends >= n.ends
               OR (window_room(p_account, p_limit, p_kind, p_length, p_no, p_cap, c.ends)).room >= p_need));
END $$;

-- Moves tokens out of the database. Requests with the same group number get all their needs or nothing.
--   need >= 1: units without which the request fails; want >= need: what the host would like to hold;
--   spent_here: what the asking host has spent of that period and not yet reported (only decides about a recall).
-- Answer, one row for each request (ord = its place, from 1): granted (0 = refused), the period that the tokens belong to
-- (the one asked for if it is PostgreSQL's current one or the one before, else the current one; of cycle and sliding windows
-- always the current one), cap (NULL = unlimited), issued and used afterwards (of windows that overlap others: cap less what
-- is left, and would be left if all came back), ends in unix seconds (NULL for lifetime; of a refusal: when the need can be
-- met, NULL for never), recall: hosts were asked to return what they hold, beyond: units of overage that are allowed on top of cap.
-- issued and used are told without the overage that is charged for, as cap is.
-- Not idempotent on purpose: a grant whose reply is lost is forfeited, never asked for again.
-- The planner is held to index look-ups planned once: with array parameters it would plan anew at each call, dearer than the
-- work, and a plan made while a table was still empty reads the whole table when it is not any more (measured: 1.6 ms).
CREATE FUNCTION billing.quota_fund(groups integer[], account_ids bigint[], limit_nos smallint[], periods bigint[],
                                   needs bigint[], wants bigint[], spent_here bigint[])
    RETURNS TABLE (ord integer, granted bigint, period bigint, cap bigint, issued bigint, used bigint, ends bigint,
                   recall boolean, beyond bigint)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = billing, pg_temp SET lock_timeout = '250ms' -- a row that somebody holds must not hold up the others' requests
    SET plan_cache_mode = force_generic_plan SET jit = off
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
#variable_conflict use_column
DECLARE
    k_most      CONSTANT bigint := 1099511627776;       -- 2^40, the most one request may ask for
    k_unlimited CONSTANT bigint := 4096; -- a take of an unlimited quota: what a host loses counts once the plan gets a limit
    k_full      CONSTANT bigint := 9223372036854775807;
    v_now   timestamptz := clock_timestamp();
    -- period_number() by hand: a call for each row would cost as much as all the rest
    v_unix  bigint := floor(extract(epoch FROM v_now));
    v_month bigint := extract(year FROM v_now AT TIME ZONE 'UTC') * 12 + extract(month FROM v_now AT TIME ZONE 'UTC') - 1;
    n       integer := cardinality(groups);
    -- requests, ordered by group, then place
    r_ord integer[]; r_group integer[]; r_account bigint[]; r_limit smallint[]; r_period bigint[]; r_known boolean[];
    r_need bigint[]; r_want bigint[]; r_spent bigint[]; r_key integer[];
    r_head boolean[];
    v_missing boolean; v_heads boolean;
    -- distinct (account, limit, period), in primary-key order; r_key points here
    k_account bigint[]; k_limit smallint[]; k_period bigint[]; k_cap bigint[]; k_issued bigint[]; k_used bigint[];
    k_ends bigint[]; k_stored bigint[]; k_recalled timestamptz[]; k_nearly timestamptz[];
    k_before bigint[]; k_pending bigint[]; k_granted bigint[];
    k_peak bigint[]; k_issued_at timestamptz[]; k_length integer[]; k_kind text[];
    k_other bigint[]; k_other_used bigint[]; -- what others count against the cap
    k_beyond bigint[]; k_charged bigint[]; k_spared bigint[]; k_plan smallint[]; k_overage_plan smallint[]; -- k_beyond: on top of the cap
    v_bump bigint[] := '{}'; v_nearly integer[] := '{}'; v_recall integer[] := '{}'; v_bumped bigint[] := '{}';
    v_changed boolean := false;
    i integer; j integer; k integer; v_ok boolean; v_left bigint; g bigint; v_room record;
BEGIN
    IF n IS NULL OR cardinality(account_ids) <> n OR cardinality(limit_nos) <> n OR cardinality(periods) <> n
       OR cardinality(needs) <> n OR cardinality(wants) <> n OR cardinality(spent_here) <> n THEN
        RAISE EXCEPTION 'quota_fund: the arrays differ in length' USING ERRCODE = '22023';
    ELSIF n = 0 THEN
        RETURN;
    END IF;

    -- 1. The requests, with the period that each will draw from.
    SELECT array_agg(s.ord), array_agg(s.grp), array_agg(s.account_id), array_agg(s.limit_no), array_agg(s.period),
           array_agg(s.known), array_agg(s.need), array_agg(s.want), array_agg(s.spent), array_agg(s.key), array_agg(s.head),
           bool_or(s.known AND q.account_id IS NULL), bool_or(s.head)
        INTO r_ord, r_group, r_account, r_limit, r_period, r_known, r_need, r_want, r_spent, r_key, r_head, v_missing, v_heads
        FROM (SELECT p.*, dense_rank() OVER (ORDER BY p.account_id, p.limit_no, p.period)::integer AS key
              FROM (SELECT u.ord::integer, u.grp, u.account_id, u.limit_no, u.need, u.want, u.spent,
                           a.id IS NOT NULL AND l.limit_no IS NOT NULL AS known,
                           a.id IS NOT NULL AND coalesce(l.period IN ('cycle', 'sliding'), false) AS head,
                           CASE WHEN l.limit_no IS NULL OR u.period BETWEEN c.no - 1 AND c.no
                                AND l.period NOT IN ('lifetime', 'cycle', 'sliding')
                                THEN u.period ELSE c.no END AS period
                    FROM unnest(groups, account_ids, limit_nos, periods, needs, wants, spent_here)
                         WITH ORDINALITY u(grp, account_id, limit_no, period, need, want, spent, ord)
                    LEFT JOIN limits l ON l.limit_no = u.limit_no
                    LEFT JOIN accounts a ON a.id = u.account_id
                    CROSS JOIN LATERAL (SELECT CASE l.period WHEN 'minute' THEN v_unix / 60 WHEN 'hour' THEN v_unix / 3600
                        WHEN 'day' THEN CASE WHEN a.zone IS NULL THEN v_unix / 86400
                                        ELSE period_no('day', NULL, NULL, a.zone, v_now) END
                        WHEN 'month' THEN CASE WHEN a.zone IS NULL THEN v_month
                                          ELSE period_no('month', NULL, NULL, a.zone, v_now) END
                        WHEN 'cycle' THEN coalesce(period_no('cycle', NULL, a.cycle_anchor, NULL, v_now), 0)
                        WHEN 'sliding' THEN period_no('sliding', l.length, NULL, NULL, v_now)
                        ELSE 0 END AS no) c) p
              ORDER BY grp, ord) s
        LEFT JOIN quota_periods q
            ON q.account_id = s.account_id AND q.limit_no = s.limit_no AND q.period = s.period;
    FOR i IN 1..n LOOP
        IF r_group[i] IS NULL OR r_account[i] IS NULL OR r_limit[i] IS NULL OR r_period[i] IS NULL
           OR r_need[i] IS NULL OR r_want[i] IS NULL OR r_spent[i] IS NULL THEN
            RAISE EXCEPTION 'quota_fund: NULL in request %', r_ord[i] USING ERRCODE = '22023';
        ELSIF r_need[i] < 1 OR r_want[i] < r_need[i] OR r_want[i] > k_most OR r_spent[i] NOT BETWEEN -k_most AND k_most THEN
            RAISE EXCEPTION 'quota_fund: request % needs %, wants %, spent %: out of range',
                r_ord[i], r_need[i], r_want[i], r_spent[i] USING ERRCODE = '22023';
        END IF;
    END LOOP;

    -- 2. Rows that do not exist yet. All before the first lock: whoever waits here holds only rows nobody else can see.
    IF v_missing THEN
        INSERT INTO quota_periods (account_id, limit_no, period, starts, ends, cap)
            SELECT u.account_id, u.limit_no, u.period, b.starts, b.ends, 0
            FROM (SELECT DISTINCT x.account_id, x.limit_no, CASE WHEN h.head THEN 0 ELSE x.period END AS period, h.head
                  FROM unnest(r_account, r_limit, r_period, r_known, r_head) x(account_id, limit_no, period, known, windowed)
                  CROSS JOIN (VALUES (false), (true)) h(head)
                  WHERE x.known AND (x.windowed OR NOT h.head)) u
            JOIN limits l ON l.limit_no = u.limit_no
            JOIN accounts a ON a.id = u.account_id
            CROSS JOIN LATERAL period_bounds(l.period, a.cycle_anchor, a.zone, CASE WHEN NOT u.head THEN u.period END) b
            ORDER BY 1, 2, 3
            ON CONFLICT DO NOTHING;
    END IF;

    -- 3. Windows that overlap others: who holds the row 0 is alone with all of the account's rows of that limit.
    IF v_heads THEN
        PERFORM FROM (SELECT DISTINCT u.account_id, u.limit_no FROM unnest(r_account, r_limit, r_head) u(account_id, limit_no, head)
                      WHERE u.head) u
            JOIN quota_periods q ON q.account_id = u.account_id AND q.limit_no = u.limit_no AND q.period = 0
            ORDER BY q.account_id, q.limit_no FOR NO KEY UPDATE OF q;
    END IF;

    -- 4. Lock, then look: caps are read by a statement that starts after the locks are held, so a grant never uses a cap
    -- that was lowered while it waited.
    PERFORM FROM unnest(r_account, r_limit, r_period) u(account_id, limit_no, period)
        JOIN quota_periods q ON q.account_id = u.account_id AND q.limit_no = u.limit_no AND q.period = u.period
        ORDER BY q.account_id, q.limit_no, q.period FOR NO KEY UPDATE OF q;
    SELECT array_agg(s.account_id), array_agg(s.limit_no), array_agg(s.period),
           array_agg(s.cap), array_agg(s.issued), array_agg(s.issued), array_agg(s.used), array_agg(s.ends),
           array_agg(s.stored), array_agg(s.recalled_at), array_agg(s.nearly_at),
           array_agg(0::bigint), array_agg(0::bigint), array_agg(0::bigint), array_agg(0::bigint),
           array_agg(s.peak), array_agg(s.issued_at), array_agg(s.length), array_agg(s.kind),
           -- where a larger cap has let issue more than this one is: on top of that
           array_agg(CASE WHEN s.cap IS NULL THEN 0 ELSE least(k_full - k_most - s.cap, CASE WHEN s.beyond > 0
               THEN greatest(s.beyond, s.charged) + greatest(0, s.spared - s.cap) ELSE s.charged END) END),
           array_agg(s.charged), array_agg(s.spared), array_agg(s.plan_no), array_agg(s.overage_plan)
        INTO k_account, k_limit, k_period, k_cap, k_issued, k_before, k_used, k_ends, k_stored, k_recalled, k_nearly,
             k_pending, k_granted, k_other, k_other_used, k_peak, k_issued_at, k_length, k_kind,
             k_beyond, k_charged, k_spared, k_plan, k_overage_plan
        FROM (SELECT u.account_id, u.limit_no, u.period,
                     CASE WHEN e.account_id IS NULL THEN 0 ELSE e.cap END AS cap,
                     coalesce(q.issued, 0) AS issued, coalesce(q.used, 0) AS used,
                     unix(q.ends) AS ends, q.cap AS stored, q.recalled_at, q.nearly_at, q.peak, q.issued_at, e.length, e.kind,
                     coalesce(e.beyond, 0) AS beyond, coalesce(q.charged, 0) AS charged, coalesce(q.spared, 0) AS spared,
                     e.plan_no, q.overage_plan
              FROM (SELECT DISTINCT x.* FROM unnest(r_account, r_limit, r_period) x(account_id, limit_no, period)) u
              LEFT JOIN quota_periods q
                  ON q.account_id = u.account_id AND q.limit_no = u.limit_no AND q.period = u.period
              LEFT JOIN effective_limits e ON e.account_id = u.account_id AND e.limit_no = u.limit_no
              ORDER BY u.account_id, u.limit_no, u.period) s;

    IF v_heads THEN
        FOR k IN 1..cardinality(k_account) LOOP
            IF k_kind[k] IN ('cycle', 'sliding') AND k_cap[k] IS NOT NULL THEN
                v_room := window_room(k_account[k], k_limit[k], k_kind[k], k_length[k], k_period[k], k_cap[k], v_now);
                k_other[k] := k_cap[k] - k_issued[k] - v_room.room;
                k_other_used[k] := k_cap[k] - k_used[k] - v_room.could_be;
            END IF;
        END LOOP;
    END IF;

    -- 5. Decide, group by group; later groups see what earlier ones took.
    i := 1;
    WHILE i <= n LOOP
        v_ok := true;
        j := i;
        WHILE j <= n AND r_group[j] = r_group[i] LOOP -- may name the same quota twice: the needs add up
            k := r_key[j];
            k_pending[k] := k_pending[k] + r_need[j];
            IF NOT r_known[j] OR coalesce(k_cap[k], k_full - k_most) + k_beyond[k] - k_issued[k] - k_other[k] < k_pending[k] THEN
                v_ok := false;
            END IF;
            j := j + 1;
        END LOOP;
        FOR m IN i..j - 1 LOOP
            k := r_key[m];
            IF v_ok THEN
                k_pending[k] := k_pending[k] - r_need[m];
                v_left := k_cap[k] + k_charged[k] - k_issued[k] - k_other[k] - k_pending[k];
                IF v_left <= 0 THEN -- all of what comes is overage; a piece is never partly
                    v_left := v_left + k_beyond[k] - k_charged[k];
                END IF;
                g := CASE WHEN v_left IS NULL THEN greatest(r_want[m], k_unlimited)
                          WHEN v_left < 512 THEN r_need[m]
                          ELSE greatest(r_need[m], least(v_left / 8, r_want[m])) END;
                IF v_left IS NULL AND k_issued[k] > k_full - k_most - k_pending[k] - g THEN
                    g := r_need[m];
                END IF;
                k_issued[k] := k_issued[k] + g;
                k_granted[m] := g; -- by request from here on
                k_spared[k] := greatest(k_spared[k], k_issued[k] - greatest(k_beyond[k], k_charged[k]),
                                        least(k_issued[k] - k_charged[k], greatest(0, k_cap[k] - k_other[k])));
                IF k_issued[k] - k_charged[k] > k_spared[k] THEN
                    k_overage_plan[k] := k_plan[k];
                END IF;
                IF r_head[m] THEN
                    k_peak[k] := greatest(k_peak[k], coalesce(k_cap[k], k_full));
                    k_issued_at[k] := least(v_now, to_timestamp(k_ends[k] - 1));
                END IF;
                IF k_nearly[k] IS NULL AND k_cap[k] >= 512 AND k_issued[k] + k_other[k] >= k_cap[k] - k_cap[k] / 10 THEN
                    v_nearly := v_nearly || k;
                    v_bump := v_bump || k_account[k];
                END IF;
            ELSE
                k_granted[m] := 0;
                -- Worth a recall only if the tokens that are out could cover the need, were all of them to come back.
                IF r_known[m] AND k_cap[k] + k_beyond[k] - k_issued[k] - k_other[k] < k_pending[k]
                   AND k_issued[k] + k_other[k] - k_used[k] - k_other_used[k] - r_spent[m] > 0
                   AND k_cap[k] + k_beyond[k] - k_used[k] - k_other_used[k] - greatest(r_spent[m], 0) >= k_pending[k]
                   AND (k_recalled[k] IS NULL OR k_recalled[k] < v_now - interval '1 s') THEN
                    v_recall := v_recall || k;
                    v_bump := v_bump || k_account[k];
                END IF;
            END IF;
        END LOOP;
        IF NOT v_ok THEN
            FOR m IN i..j - 1 LOOP
                k_pending[r_key[m]] := 0;
            END LOOP;
        END IF;
        i := j;
    END LOOP;

    -- 6. A new snapshot makes hosts return what they hold. An account that somebody else has locked is passed over, and
    -- its mark not set: the next fund tries again. Waiting here could deadlock with whoever holds it.
    IF v_bump <> '{}' THEN
        WITH free AS (
            SELECT a.id FROM accounts a WHERE a.id = ANY (v_bump) ORDER BY a.id FOR NO KEY UPDATE SKIP LOCKED),
        bumped AS (
            UPDATE accounts a SET ent_version = a.ent_version + 1 FROM free f WHERE a.id = f.id RETURNING a.id)
        SELECT coalesce(array_agg(b.id), '{}') INTO v_bumped FROM bumped b;
    END IF;
    FOR k IN 1..cardinality(k_account) LOOP
        IF k = ANY (v_nearly) AND k_account[k] = ANY (v_bumped) THEN
            k_nearly[k] := v_now;
            v_changed := true;
        END IF;
        IF k = ANY (v_recall) AND k_account[k] = ANY (v_bumped) THEN
            k_recalled[k] := v_now;
            v_changed := true;
        END IF;
        v_changed := v_changed OR k_issued[k] <> k_before[k] OR k_cap[k] IS DISTINCT FROM k_stored[k];
    END LOOP;
    IF v_changed THEN -- a flood of refusals writes nothing
        UPDATE quota_periods q SET cap = s.cap, issued = s.issued, nearly_at = s.nearly_at, recalled_at = s.recalled_at,
                peak = s.peak, issued_at = s.issued_at, spared = s.spared, overage_plan = s.overage_plan
            FROM unnest(k_account, k_limit, k_period, k_cap, k_issued, k_nearly, k_recalled, k_peak, k_issued_at, k_spared, k_overage_plan)
                 s(account_id, limit_no, period, cap, issued, nearly_at, recalled_at, peak, issued_at, spared, overage_plan)
            WHERE q.account_id = s.account_id AND q.limit_no = s.limit_no AND q.period = s.period
              AND ROW(q.cap, q.issued, q.nearly_at, q.recalled_at)
                  IS DISTINCT FROM ROW(s.cap, s.issued, s.nearly_at, s.recalled_at);
    END IF;

    FOR m IN 1..n LOOP
        k := r_key[m];
        ord := r_ord[m];
        granted := k_granted[m];
        period := k_period[k];
        cap := k_cap[k];
        issued := k_issued[k] + k_other[k] - k_charged[k];
        used := k_used[k] + k_other_used[k] - k_charged[k];
        beyond := greatest(0, k_beyond[k] - k_charged[k]);
        ends := k_ends[k];
        IF granted = 0 AND r_head[m] THEN
            ends := unix(window_resets(k_account[k], k_limit[k], k_kind[k], k_length[k], k_period[k], k_cap[k], r_need[m], v_now));
        END IF;
        recall := granted = 0 AND k = ANY (v_recall) AND k_account[k] = ANY (v_bumped);
        RETURN NEXT;
    END LOOP;
END $$;

-- 'ok': this batch is the next of its instance, and from here on counts as applied; 'dup': it was applied before; 'gap': one
-- is missing. A host resends the same frozen batch until it hears 'ok' or 'dup'. The instance's row serializes its batches;
-- a first batch that comes twice at once meets on the primary key. A batch that a lost timeline had acknowledged (a fail-over
-- without its last commits, a restore) never comes again: in another epoch than that of its last one an instance goes on
-- where it is, once.
CREATE FUNCTION billing.take_turn(p_instance uuid, p_host text, p_seq bigint, p_late boolean)
    RETURNS text LANGUAGE plpgsql VOLATILE SET search_path = billing, pg_temp AS $$
DECLARE
    v_epoch integer := epoch();
    v_last  bigint;
    v_then  integer;
BEGIN
    IF p_seq >= 1 THEN
        INSERT INTO instances (instance_id, host) VALUES (p_instance, p_host) ON CONFLICT DO NOTHING;
    END IF;
    SELECT CASE WHEN p_late THEN s.late_seq ELSE s.last_seq END, CASE WHEN p_late THEN s.late_epoch ELSE s.last_epoch END
        INTO v_last, v_then FROM instances s WHERE s.instance_id = p_instance FOR NO KEY UPDATE;
    v_last := coalesce(v_last, 0);
    IF p_seq <= v_last THEN
        RETURN 'dup';
    ELSIF p_seq > v_last + 1 AND v_then = v_epoch THEN
        RETURN 'gap';
    ELSIF p_seq > v_last + 1 THEN
        RAISE WARNING 'take_turn: instance % goes on with batch % after %: what it reported in between is lost with another timeline',
            p_instance, p_seq, v_last;
    END IF;
    UPDATE instances s SET host = p_host, seen_at = clock_timestamp(),
            last_seq = CASE WHEN p_late THEN s.last_seq ELSE p_seq END,
            last_epoch = CASE WHEN p_late THEN s.last_epoch ELSE v_epoch END,
            late_seq = CASE WHEN p_late THEN p_seq ELSE s.late_seq END,
            late_epoch = CASE WHEN p_late THEN v_epoch ELSE s.late_epoch END
        WHERE s.instance_id = p_instance;
    RETURN 'ok';
END $$;

-- quota:threshold: so many percent of a quota are used, once for each of the hosts' thresholds and each period; of a sliding window
-- once within its length. quotas and percents: the thresholds. The caller has just changed the usage and holds the rows' locks.
CREATE FUNCTION billing.quota_warn(account_ids bigint[], limit_nos smallint[], periods bigint[], quotas text[], percents integer[])
    RETURNS void LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    w      record;
    v_used bigint;
BEGIN
    FOR w IN
        SELECT q.account_id, q.limit_no, q.period, q.ends, q.cap, q.used, l.limit_key, l.period AS kind, l.length, p.percent
        FROM (SELECT DISTINCT x.* FROM unnest(account_ids, limit_nos, periods) x(account_id, limit_no, period)) u
        JOIN limits l ON l.limit_no = u.limit_no
        JOIN (SELECT DISTINCT x.* FROM unnest(quotas, percents) x(quota, percent)) p ON p.quota = l.limit_key
        JOIN quota_periods q ON q.account_id = u.account_id AND q.limit_no = u.limit_no AND q.period = u.period
        WHERE q.cap > 0 AND p.percent <> ALL (q.warned)
          AND (l.period IN ('cycle', 'sliding') OR q.used >= q.cap / 100 * p.percent + (q.cap % 100 * p.percent + 99) / 100)
        ORDER BY 1, 2, 3, p.percent
    LOOP
        v_used := w.used;
        IF w.kind IN ('cycle', 'sliding') THEN
            v_used := w.cap - (window_room(w.account_id, w.limit_no, w.kind, w.length, w.period, w.cap, clock_timestamp())).could_be;
            CONTINUE WHEN v_used < w.cap / 100 * w.percent + (w.cap % 100 * w.percent + 99) / 100;
            CONTINUE WHEN w.kind = 'sliding' AND EXISTS (SELECT FROM quota_periods q
                WHERE q.account_id = w.account_id AND q.limit_no = w.limit_no AND w.percent = ANY (q.warned)
                  AND q.period >= w.period - (w.length + (w.period >> 32) - 1) / (w.period >> 32) AND q.period < ((w.period >> 32) + 1) << 32);
        END IF;
        UPDATE quota_periods q SET warned = q.warned || w.percent
            WHERE q.account_id = w.account_id AND q.limit_no = w.limit_no AND q.period = w.period;
        PERFORM outbox_put('quota:threshold', concat_ws(':', 'quota:threshold', w.account_id, w.limit_key, w.period, w.percent), w.account_id,
            jsonb_strip_nulls(jsonb_build_object('quota', w.limit_key, 'threshold', w.percent, 'used', v_used, 'limit', w.cap,
                'periodEnd', CASE WHEN w.kind <> 'sliding' THEN iso(w.ends) END)));
    END LOOP;
END $$;

-- What a host has spent and what it gives back since its last report, exactly once (take_turn). spent < 0 is a refund of what
-- was reported before; returned >= 0. warn_quotas, warn_percents: the host's thresholds (quota_warn).
CREATE FUNCTION billing.usage_flush(instance uuid, host text, seq bigint, account_ids bigint[], limit_nos smallint[],
                                    periods bigint[], spent bigint[], returned bigint[],
                                    warn_quotas text[] DEFAULT '{}', warn_percents integer[] DEFAULT '{}')
    RETURNS text LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = billing, pg_temp SET lock_timeout = '100ms' -- shorter than quota_fund's, which waits for rows held here
    SET plan_cache_mode = force_generic_plan SET jit = off
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
DECLARE
    n      integer := cardinality(account_ids);
    v_turn text;
    v_keys bigint;
    v_done bigint;
BEGIN
    IF n IS NULL OR cardinality(limit_nos) <> n OR cardinality(periods) <> n OR cardinality(spent) <> n
       OR cardinality(returned) <> n OR instance IS NULL OR host IS NULL OR seq IS NULL THEN
        RAISE EXCEPTION 'usage_flush: an argument is NULL or the arrays differ in length' USING ERRCODE = '22023';
    ELSIF array_position(account_ids, NULL) IS NOT NULL OR array_position(limit_nos, NULL) IS NOT NULL
       OR array_position(periods, NULL) IS NOT NULL OR array_position(spent, NULL) IS NOT NULL
       OR array_position(returned, NULL) IS NOT NULL OR 0 > ANY (returned) THEN
        RAISE EXCEPTION 'usage_flush: NULL, or a negative return' USING ERRCODE = '22023';
    END IF;

    v_turn := take_turn(instance, host, seq, false);
    IF v_turn <> 'ok' THEN
        RETURN v_turn;
    END IF;

    PERFORM FROM unnest(account_ids, limit_nos, periods) u(account_id, limit_no, period)
        JOIN quota_periods q ON q.account_id = u.account_id AND q.limit_no = u.limit_no AND q.period = u.period
        ORDER BY q.account_id, q.limit_no, q.period FOR NO KEY UPDATE OF q;
    -- One sum for each row: a batch may name it twice. The cast refuses what does not fit into a bigint.
    WITH sums AS (
        SELECT u.account_id, u.limit_no, u.period, sum(u.spent)::bigint AS spent, sum(u.returned)::bigint AS returned
        FROM unnest(account_ids, limit_nos, periods, usage_flush.spent, usage_flush.returned)
             u(account_id, limit_no, period, spent, returned)
        GROUP BY u.account_id, u.limit_no, u.period),
    done AS (
        UPDATE quota_periods q SET used = q.used + s.spent, issued = q.issued - s.returned,
                overage_ends = CASE WHEN q.used + s.spent - q.charged > q.spared THEN q.ends END FROM sums s
        WHERE q.account_id = s.account_id AND q.limit_no = s.limit_no AND q.period = s.period
          AND q.used + s.spent >= 0 AND q.issued - s.returned >= 0 RETURNING 1)
    SELECT (SELECT count(*) FROM sums), (SELECT count(*) FROM done) INTO v_keys, v_done;
    IF v_done < v_keys THEN -- an error would come back with every resend, and take the other accounts' usage with it
        RAISE WARNING 'usage_flush: instance % batch %: % of % rows are dropped: their quota periods are gone, or would fall below 0',
            instance, seq, v_keys - v_done, v_keys;
    END IF;
    IF warn_quotas <> '{}' THEN
        PERFORM quota_warn(account_ids, limit_nos, periods, warn_quotas, warn_percents);
    END IF;
    RETURN v_turn;
END $$;

-- What hosts let through while they could not ask (billing_on_error allow), exactly once (take_turn): used in the period of
-- its time, and issued with it, whatever the cap. at = unix seconds; an account that is not known is made where `creates`
-- says so. What names no account or no quota cannot be charged, and is said in the log.
CREATE FUNCTION billing.charge_late(instance uuid, host text, seq bigint, accounts text[], limits text[], at bigint[],
                                    units bigint[], creates boolean[],
                                    warn_quotas text[] DEFAULT '{}', warn_percents integer[] DEFAULT '{}')
    RETURNS text LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = billing, pg_temp SET lock_timeout = '250ms' SET jit = off AS $$
#variable_conflict use_column
DECLARE
    n      integer := cardinality(accounts);
    v_turn text;
    r_account bigint[]; r_limit smallint[]; r_period bigint[]; r_units bigint[]; r_at timestamptz[]; r_head boolean[];
    v_rows bigint;
BEGIN
    IF n IS NULL OR cardinality(limits) <> n OR cardinality(at) <> n OR cardinality(units) <> n OR cardinality(creates) <> n
       OR instance IS NULL OR host IS NULL OR seq IS NULL THEN
        RAISE EXCEPTION 'charge_late: an argument is NULL or the arrays differ in length' USING ERRCODE = '22023';
    ELSIF array_position(accounts, NULL) IS NOT NULL OR array_position(limits, NULL) IS NOT NULL
       OR array_position(at, NULL) IS NOT NULL OR array_position(units, NULL) IS NOT NULL
       OR array_position(creates, NULL) IS NOT NULL OR 0 >= ANY (units) THEN
        RAISE EXCEPTION 'charge_late: NULL, or units below 1' USING ERRCODE = '22023';
    END IF;
    v_turn := take_turn(instance, host, seq, true);
    IF v_turn <> 'ok' THEN
        RETURN v_turn;
    END IF;

    IF true = ANY (creates) THEN
        PERFORM ensure_accounts(array_agg(u.account)) FROM unnest(accounts, creates) u(account, creates) WHERE u.creates;
    END IF;
    SELECT array_agg(s.account_id), array_agg(s.limit_no), array_agg(s.period), array_agg(s.units), array_agg(s.at),
           array_agg(s.head), coalesce(sum(s.rows), 0)
        INTO r_account, r_limit, r_period, r_units, r_at, r_head, v_rows
        FROM (SELECT a.id AS account_id, l.limit_no,
                     period_no(l.period, l.length, a.cycle_anchor, a.zone, to_timestamp(u.at)) AS period,
                     sum(u.units)::bigint AS units, to_timestamp(max(u.at)) AS at,
                     bool_or(l.period IN ('cycle', 'sliding')) AS head, count(*) AS rows
              FROM unnest(accounts, limits, charge_late.at, charge_late.units) u(account, limit_key, at, units)
              JOIN accounts a ON a.external_id = u.account COLLATE "C"
              JOIN limits l ON l.limit_key = u.limit_key
              GROUP BY 1, 2, 3 ORDER BY 1, 2, 3) s;
    IF v_rows < n THEN
        RAISE WARNING 'charge_late: instance % batch %: % of % rows name no account or no quota', instance, seq, n - v_rows, n;
    END IF;

    -- Rows and locks as in quota_fund: all that is missing, then the rows that stand for windows, then the rows themselves.
    INSERT INTO quota_periods (account_id, limit_no, period, starts, ends, cap)
        SELECT DISTINCT x.account_id, x.limit_no, p.no, b.starts, b.ends, 0
        FROM unnest(r_account, r_limit, r_period, r_head) x(account_id, limit_no, period, windowed)
        CROSS JOIN (VALUES (false), (true)) h(head)
        CROSS JOIN LATERAL (SELECT CASE WHEN h.head THEN 0 ELSE x.period END AS no) p
        JOIN limits l ON l.limit_no = x.limit_no
        JOIN accounts a ON a.id = x.account_id
        CROSS JOIN LATERAL period_bounds(l.period, a.cycle_anchor, a.zone, CASE WHEN NOT h.head THEN x.period END) b
        WHERE x.windowed OR NOT h.head
        ORDER BY 1, 2, 3
        ON CONFLICT DO NOTHING;
    PERFORM FROM unnest(r_account, r_limit, r_head) u(account_id, limit_no, head)
        JOIN quota_periods q ON q.account_id = u.account_id AND q.limit_no = u.limit_no AND q.period = 0
        WHERE u.head ORDER BY q.account_id, q.limit_no FOR NO KEY UPDATE OF q;
    PERFORM FROM unnest(r_account, r_limit, r_period) u(account_id, limit_no, period)
        JOIN quota_periods q ON q.account_id = u.account_id AND q.limit_no = u.limit_no AND q.period = u.period
        ORDER BY q.account_id, q.limit_no, q.period FOR NO KEY UPDATE OF q;
    UPDATE quota_periods q SET issued = q.issued + s.units, used = q.used + s.units, late = q.late + s.units, cap = e.cap,
            spared = o.spared, overage_plan = CASE WHEN q.issued + s.units - q.charged > o.spared THEN e.plan_no ELSE q.overage_plan END,
            overage_ends = CASE WHEN q.used + s.units - q.charged > o.spared THEN q.ends END,
            peak = CASE WHEN s.head THEN greatest(q.peak, coalesce(e.cap, 9223372036854775807)) ELSE q.peak END,
            issued_at = CASE WHEN s.head THEN greatest(q.issued_at, least(s.at, q.ends - interval '1 s')) ELSE q.issued_at END
        FROM unnest(r_account, r_limit, r_period, r_units, r_at, r_head) s(account_id, limit_no, period, units, at, head)
        JOIN effective_limits e ON e.account_id = s.account_id AND e.limit_no = s.limit_no
        JOIN quota_periods x ON x.account_id = s.account_id AND x.limit_no = s.limit_no AND x.period = s.period
        CROSS JOIN LATERAL (SELECT greatest(x.spared, x.issued + s.units - greatest(e.beyond, x.charged),
            least(x.issued + s.units - x.charged, e.cap)) AS spared) o -- as in quota_fund
        WHERE q.account_id = s.account_id AND q.limit_no = s.limit_no AND q.period = s.period;
    INSERT INTO audit_log (account_id, actor, action, after)
        SELECT s.account_id, 'gate', 'charge_late', pg_catalog.jsonb_build_object('quota', l.limit_key, 'units', s.units, 'at', s.at, 'host', host)
        FROM unnest(r_account, r_limit, r_units, r_at) s(account_id, limit_no, units, at)
        JOIN limits l ON l.limit_no = s.limit_no;
    IF warn_quotas <> '{}' THEN
        PERFORM quota_warn(r_account, r_limit, r_period, warn_quotas, warn_percents);
    END IF;
    RETURN v_turn;
END $$;
