-- Credits that requests and jobs spend: taken before the work, kept or given back by its outcome. Exact: a balance changes
-- only here and in the migrations of payments, under its row's lock, together with its ledger row.
--
-- A taking has a name, which the asker chooses, once for each account; the ledger is its memory: "take:NAME:TYPE" took,
-- "over:NAME:TYPE" took beyond the balance, "back:NAME:TYPE" gave back, "rest:NAME:TYPE" gave back what settling had left. So whoever repeats a call gets what was done the first
-- time, and a taking that was given back before it arrived is never taken. While it is not decided there is a row in
-- credit_holds; one that nobody decides is given back when its time is over (credits_sweep).
-- What the plan gave is spent before what was bought; what goes back goes where it came from, the last taken first. What a
-- plan gave in a period that has been closed since does not come back, nor overage that is charged for; the ledger says so.
--
-- Lock order: credit_balances by (account, type), then credit_holds by (account, name, type).

-- Of a deduct row: how many of its units were bought ones. Of deduct, overage and refund rows: the balance's period whose use they
-- count in; metadata of a refund: units = what goes back, over = of it overage, closed = of it what a closed period does not get, by = settling or sweep.
ALTER TABLE billing.credit_ledger
    ADD COLUMN from_bought bigint NOT NULL DEFAULT 0 CHECK (from_bought >= 0),
    ADD COLUMN period_seq  bigint;

CREATE TABLE billing.credit_holds (
    account_id bigint NOT NULL,
    name       text COLLATE "C" NOT NULL,
    credit_no  smallint NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, name, credit_no)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX credit_holds_expires_at ON billing.credit_holds (expires_at);

-- Units that may be taken beyond the balance now: by the plan, unless the account has switched it off, below the plan's cap; and how
-- few left are told of. NULL where the plan has none of that type.
CREATE FUNCTION billing.credit_room(b billing.credit_balances, OUT room bigint, OUT warn_at bigint) LANGUAGE plpgsql STABLE
    SET search_path = billing, pg_temp AS $$
BEGIN
    SELECT CASE WHEN pc.overage = 'always' OR pc.overage = 'switchable' AND a.overage_on
                THEN greatest(0, coalesce(pc.overage_cap, 4611686018427387904) - b.overage) ELSE 0 END, -- 2^62
           pc.warn_at
        INTO room, warn_at
        FROM accounts a JOIN plan_credits pc ON pc.plan_no = a.plan_no AND pc.credit_no = b.credit_no
        WHERE a.id = b.account_id;
END $$;

-- credits:low: no more than the plan's warn_at are left. credits:exhausted: nothing is, nor is overage allowed, or not what
-- somebody has just asked for. Each once until there is a refill; what goes back and is taken again is told anew after an hour.
-- The caller holds the balance's lock.
CREATE FUNCTION billing.credits_tell(p_account_id bigint, p_credit_no smallint, p_warn_at bigint, p_exhausted boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    b     credit_balances;
BEGIN
    UPDATE credit_balances x SET low_at = v_now, exhausted_at = CASE WHEN p_exhausted THEN v_now ELSE x.exhausted_at END
        WHERE x.account_id = p_account_id AND x.credit_no = p_credit_no RETURNING * INTO b;
    IF FOUND THEN
        PERFORM outbox_put(n.topic, concat_ws(':', n.topic, p_account_id, t.credit_key, extract(epoch FROM v_now)), p_account_id,
                jsonb_strip_nulls(jsonb_build_object('credit', t.credit_key, 'remaining', b.remaining, 'allocated', b.allocated,
                    'threshold', p_warn_at, 'overage', nullif(b.overage, 0), 'periodEnd', iso(b.period_end))))
            FROM credit_types t CROSS JOIN (SELECT CASE WHEN p_exhausted THEN 'credits:exhausted' ELSE 'credits:low' END) n(topic)
            WHERE t.credit_no = p_credit_no;
    END IF;
END $$;

CREATE DOMAIN billing.taking_name AS text COLLATE "C" CHECK (VALUE ~ '^[!-9;-~]{1,128}$'); -- printable, without a colon

-- Takes credits for many requests at once; those of a group all or nothing. Later groups see what earlier ones took.
--   names: of the taking, the same for a whole group; hold_seconds: undecided takings come back after so long, NULL: it is
--   decided already and kept.
-- Answer, one row for each request (ord = its place, from 1): kept = units that the taking has (0 = refused), repeated: this name
-- was known and nothing happened now; remaining and allocated of the balance afterwards, room: units of overage that may still be taken, ends of its period in unix
-- seconds.
-- Errors: 22023 for arrays of different length, NULL, a quantity below 1, a name that is none.
CREATE FUNCTION billing.credits_take(groups integer[], names text[], account_ids bigint[], credit_nos smallint[],
                                     quantities bigint[], hold_seconds integer[], jobs text[])
    RETURNS TABLE (ord integer, kept bigint, repeated boolean, remaining bigint, allocated bigint, room bigint, ends bigint)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = billing, pg_temp SET lock_timeout = '250ms'
    SET plan_cache_mode = force_generic_plan SET jit = off -- as in quota_fund
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
#variable_conflict use_column
DECLARE
    k_most CONSTANT bigint := 1099511627776; -- 2^40, the most that one request may take
    n      integer := cardinality(groups);
    -- requests by group, then place; r_key points to the balances
    r_ord integer[]; r_group integer[]; r_name text[]; r_account bigint[]; r_credit smallint[]; r_quantity bigint[];
    r_hold integer[]; r_key integer[]; r_type text[]; r_job text[]; r_known boolean[]; r_kept bigint[]; r_new boolean[];
    r_bought bigint[]; r_over bigint[]; r_after bigint[]; r_first integer[]; r_twice boolean;
    -- distinct (account, type) in primary-key order
    b_account bigint[]; b_credit smallint[]; b_left bigint[]; b_bought bigint[]; b_allocated bigint[]; b_seq bigint[];
    b_ends bigint[]; b_room bigint[]; b_taken bigint[]; b_taken_bought bigint[]; b_taken_over bigint[];
    b_warn bigint[]; b_low timestamptz[]; b_exhausted timestamptz[]; v_short integer[] := '{}'; v_hour timestamptz;
    i integer; j integer; k integer; v_ok boolean; v_any boolean := false;
BEGIN
    IF n IS NULL OR cardinality(names) <> n OR cardinality(account_ids) <> n OR cardinality(credit_nos) <> n
       OR cardinality(quantities) <> n OR cardinality(hold_seconds) <> n OR cardinality(jobs) <> n THEN
        RAISE EXCEPTION 'credits_take: the arrays differ in length' USING ERRCODE = '22023';
    ELSIF n = 0 THEN
        RETURN;
    END IF;

    -- 1. Lock, then look: what is read below is read by statements that start after the locks are held.
    PERFORM FROM (SELECT DISTINCT u.account_id, u.credit_no FROM unnest(account_ids, credit_nos) u(account_id, credit_no)) u
        JOIN credit_balances b ON b.account_id = u.account_id AND b.credit_no = u.credit_no
        ORDER BY b.account_id, b.credit_no FOR UPDATE OF b;
    SELECT array_agg(s.ord), array_agg(s.grp), array_agg(s.name), array_agg(s.account_id), array_agg(s.credit_no),
           array_agg(s.quantity), array_agg(s.hold), array_agg(s.key), array_agg(s.credit_key), array_agg(s.job),
           array_agg(s.known), array_agg(s.kept), array_agg(s.first), bool_or(s.twice)
        INTO r_ord, r_group, r_name, r_account, r_credit, r_quantity, r_hold, r_key, r_type, r_job, r_known, r_kept,
             r_first, r_twice
        FROM (SELECT p.*, coalesce(p.took, p.back) IS NOT NULL AS known,
                     CASE WHEN p.took IS NULL THEN 0 ELSE greatest(0, p.took - coalesce(p.back, 0) + coalesce(
                         (SELECT -l.quantity FROM credit_ledger l WHERE l.account_id = p.account_id
                            AND l.idem_key = ('over:' || p.name || ':' || p.credit_key) COLLATE "C"), 0)) END AS kept,
                     dense_rank() OVER (ORDER BY p.account_id, p.credit_no)::integer AS key,
                     min(p.place) OVER (PARTITION BY p.account_id, p.name, p.credit_no)::integer AS first,
                     count(*) OVER (PARTITION BY p.grp, p.account_id, p.credit_no) > 1 AS twice
              FROM (SELECT u.ord::integer, u.grp, u.name, u.account_id, u.credit_no, u.quantity, u.hold, u.job, t.credit_key,
                           row_number() OVER (ORDER BY u.grp, u.ord) AS place,
                           (SELECT -l.quantity FROM credit_ledger l WHERE l.account_id = u.account_id
                              AND l.idem_key = ('take:' || u.name || ':' || t.credit_key) COLLATE "C") AS took,
                           (SELECT (l.metadata ->> 'units')::bigint FROM credit_ledger l WHERE l.account_id = u.account_id
                              AND l.idem_key = ('back:' || u.name || ':' || t.credit_key) COLLATE "C") AS back
                    FROM unnest(groups, names, account_ids, credit_nos, quantities, hold_seconds, jobs)
                         WITH ORDINALITY u(grp, name, account_id, credit_no, quantity, hold, job, ord)
                    LEFT JOIN credit_types t ON t.credit_no = u.credit_no) p
              ORDER BY p.place) s;
    FOR i IN 1..n LOOP
        IF r_group[i] IS NULL OR r_account[i] IS NULL OR r_quantity[i] IS NULL OR r_type[i] IS NULL
           OR r_quantity[i] NOT BETWEEN 1 AND k_most OR r_hold[i] < 1 OR r_twice THEN
            RAISE EXCEPTION 'credits_take: request %: % of type %: out of range', r_ord[i], r_quantity[i], r_credit[i]
                USING ERRCODE = '22023';
        END IF;
    END LOOP;
    PERFORM x.name::taking_name FROM unnest(names) x(name);
    SELECT array_agg(s.account_id), array_agg(s.credit_no), array_agg(s.remaining), array_agg(s.bought),
           array_agg(s.allocated), array_agg(s.seq), array_agg(s.ends), array_agg(s.room),
           array_agg(0::bigint), array_agg(0::bigint), array_agg(0::bigint),
           array_agg(s.warn_at), array_agg(s.low_at), array_agg(s.exhausted_at)
        INTO b_account, b_credit, b_left, b_bought, b_allocated, b_seq, b_ends, b_room, b_taken, b_taken_bought, b_taken_over,
             b_warn, b_low, b_exhausted
        FROM (SELECT u.account_id, u.credit_no, coalesce(b.remaining, 0) AS remaining, coalesce(b.bought, 0) AS bought,
                     coalesce(b.allocated, 0) AS allocated, coalesce(b.period_seq, 0) AS seq, unix(b.period_end) AS ends,
                     coalesce(c.room, 0) AS room, c.warn_at, b.low_at, b.exhausted_at
              FROM (SELECT DISTINCT x.* FROM unnest(r_account, r_credit) x(account_id, credit_no)) u
              LEFT JOIN credit_balances b ON b.account_id = u.account_id AND b.credit_no = u.credit_no
              CROSS JOIN LATERAL credit_room(b) c
              ORDER BY u.account_id, u.credit_no) s;

    -- 2. Decide, group by group.
    r_new := array_fill(false, ARRAY[n]);
    r_bought := array_fill(0::bigint, ARRAY[n]);
    r_over := array_fill(0::bigint, ARRAY[n]);
    r_after := array_fill(0::bigint, ARRAY[n]);
    i := 1;
    WHILE i <= n LOOP
        v_ok := true;
        j := i;
        WHILE j <= n AND r_group[j] = r_group[i] LOOP
            IF r_first[j] < j THEN -- the same name further up in this very call
                r_known[j] := true;
                r_kept[j] := r_kept[r_first[j]];
            END IF;
            v_ok := v_ok AND NOT r_known[j] AND r_quantity[j] <= b_left[r_key[j]] + b_room[r_key[j]];
            j := j + 1;
        END LOOP;
        FOR m IN i..j - 1 LOOP
            k := r_key[m];
            IF v_ok THEN
                r_new[m] := true;
                r_kept[m] := r_quantity[m];
                r_over[m] := greatest(0, r_quantity[m] - b_left[k]);
                r_bought[m] := greatest(0, r_quantity[m] - r_over[m] - (b_left[k] - b_bought[k]));
                b_left[k] := b_left[k] - r_quantity[m] + r_over[m];
                b_bought[k] := b_bought[k] - r_bought[m];
                b_room[k] := b_room[k] - r_over[m];
                b_taken[k] := b_taken[k] + r_quantity[m] - r_over[m];
                b_taken_bought[k] := b_taken_bought[k] + r_bought[m];
                b_taken_over[k] := b_taken_over[k] + r_over[m];
                r_after[m] := b_left[k];
                v_any := true;
            ELSIF NOT r_known[m] AND r_quantity[m] > b_left[k] + b_room[k] AND b_exhausted[k] IS NULL
                  AND b_left[k] <= coalesce(b_warn[k], b_left[k]) THEN
                v_short := v_short || k;
            END IF;
        END LOOP;
        i := j;
    END LOOP;

    -- 3. Write: one statement for each table.
    IF v_any THEN
        UPDATE credit_balances b SET remaining = b.remaining - u.taken, bought = b.bought - u.bought, used = b.used + u.taken,
                overage = b.overage + u.over
            FROM unnest(b_account, b_credit, b_taken, b_taken_bought, b_taken_over)
                 u(account_id, credit_no, taken, bought, over)
            WHERE b.account_id = u.account_id AND b.credit_no = u.credit_no AND u.taken + u.over > 0;
        INSERT INTO credit_ledger (account_id, credit_no, action, quantity, balance_after, idem_key, from_bought, period_seq,
                                   job_id)
            SELECT u.account_id, u.credit_no, CASE WHEN p.over THEN 'overage' ELSE 'deduct' END,
                   CASE WHEN p.over THEN -u.over ELSE u.over - u.quantity END, u.after,
                   CASE WHEN p.over AND u.over < u.quantity THEN 'over:' ELSE 'take:' END || u.name || ':' || u.type,
                   CASE WHEN p.over THEN 0 ELSE u.bought END, b_seq[u.key], u.job
            FROM unnest(r_account, r_credit, r_quantity, r_over, r_after, r_name, r_type, r_bought, r_key, r_new, r_job)
                 WITH ORDINALITY u(account_id, credit_no, quantity, over, after, name, type, bought, key, new, job, place)
            CROSS JOIN (VALUES (false), (true)) p(over)
            WHERE u.new AND CASE WHEN p.over THEN u.over > 0 ELSE u.over < u.quantity END
            ORDER BY u.place, p.over;
        INSERT INTO credit_holds (account_id, name, credit_no, expires_at)
            SELECT u.account_id, u.name, u.credit_no, clock_timestamp() + make_interval(secs => u.hold)
            FROM unnest(r_account, r_name, r_credit, r_hold, r_new) u(account_id, name, credit_no, hold, new)
            WHERE u.new AND u.hold IS NOT NULL;
    END IF;

    -- 4. Tell, as a rule nothing.
    FOR k IN 1..cardinality(b_account) LOOP
        IF b_left[k] > b_warn[k] AND b_left[k] > 0 OR b_taken[k] + b_taken_over[k] = 0 AND v_short = '{}' THEN
            CONTINUE;
        END IF;
        v_hour := clock_timestamp() - interval '1 hour';
        IF k = ANY (v_short)
           OR b_left[k] + b_room[k] = 0 AND b_taken[k] + b_taken_over[k] > 0 AND coalesce(b_exhausted[k] < v_hour, true) THEN
            PERFORM credits_tell(b_account[k], b_credit[k], b_warn[k], true);
        ELSIF b_taken[k] > 0 AND b_left[k] <= b_warn[k]
              AND (b_low[k] IS NULL OR b_left[k] + b_taken[k] > b_warn[k] AND b_low[k] < v_hour) THEN
            PERFORM credits_tell(b_account[k], b_credit[k], b_warn[k], false);
        END IF;
    END LOOP;
    RETURN QUERY SELECT u.ord, u.kept, u.known, b_left[u.key], b_allocated[u.key], b_room[u.key], b_ends[u.key]
        FROM unnest(r_ord, r_kept, r_known, r_key) u(ord, kept, known, key) ORDER BY u.ord;
END $$;

-- Gives back what a taking has beyond p_keep units, once; a later call for less changes nothing. A name that took nothing (yet)
-- is noted, so that it never will. Answers the units given back. The caller holds the lock of the balance, if there is one.
--   p_settled: units that its settling has given back; what is left can be given back once more.
--   p_by: "settling" or "sweep", kept in metadata; a reason is for people, and may be anybody's words.
CREATE FUNCTION billing.credit_give_back(p_account_id bigint, p_credit_no smallint, p_name text, p_keep bigint, p_reason text,
                                         p_settled bigint DEFAULT 0, p_by text DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql
    SET search_path = billing, pg_temp AS $$
DECLARE
    v_key    text := p_name || ':' || (SELECT t.credit_key FROM credit_types t WHERE t.credit_no = p_credit_no);
    b        credit_balances := credit_balance(p_account_id, p_credit_no);
    v_plan   bigint; -- what was taken, by where it came from; then what of it goes back
    v_bought bigint;
    v_over   bigint;
    v_seq    bigint;
    v_units  bigint;
    v_closed bigint := 0;
    v_last   bigint; -- its row of the ledger
BEGIN
    SELECT coalesce(sum(-l.quantity - l.from_bought) FILTER (WHERE l.action = 'deduct'), 0), coalesce(sum(l.from_bought), 0),
           coalesce(sum(-l.quantity) FILTER (WHERE l.action = 'overage'), 0), max(l.period_seq), max(l.id)
        INTO v_plan, v_bought, v_over, v_seq, v_last
        FROM credit_ledger l WHERE l.account_id = p_account_id AND l.idem_key IN ('take:' || v_key, 'over:' || v_key);
    v_plan := v_plan - greatest(0, p_settled - v_over - v_bought);
    v_bought := v_bought - least(v_bought, greatest(0, p_settled - v_over));
    v_over := v_over - least(v_over, p_settled);
    v_units := greatest(0, v_plan + v_bought + v_over - p_keep);
    IF v_units = 0 AND v_seq IS NOT NULL THEN
        RETURN 0;
    END IF;
    v_over := least(v_over, v_units);
    v_bought := least(v_bought, v_units - v_over);
    v_plan := v_units - v_over - v_bought;
    b.bought := b.bought + v_bought;
    b.remaining := b.remaining + v_bought;
    IF v_seq = b.period_seq THEN
        IF v_last < (SELECT max(c.before_row) FROM usage_charges c WHERE c.account_id = p_account_id AND c.credit_no = p_credit_no
                         AND c.period_seq = v_seq) THEN -- is charged for already: a change of plan came between
            v_closed := v_over;
            v_over := 0;
        END IF;
        b.remaining := b.remaining + v_plan;
        b.used := b.used - v_plan - v_bought;
        b.overage := b.overage - v_over;
    ELSE
        v_closed := v_plan + v_over;
        v_over := 0;
        v_seq := NULL;
    END IF;
    INSERT INTO credit_ledger (account_id, credit_no, action, quantity, balance_after, idem_key, reason, period_seq, metadata)
        VALUES (p_account_id, p_credit_no, 'refund', v_units - v_closed, b.remaining,
                CASE WHEN p_settled > 0 THEN 'rest:' ELSE 'back:' END || v_key, p_reason, v_seq,
                jsonb_strip_nulls(jsonb_build_object('units', v_units, 'over', nullif(v_over, 0), 'closed', nullif(v_closed, 0),
                                                     'by', p_by)))
        ON CONFLICT ON CONSTRAINT credit_ledger_once DO NOTHING;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    IF v_units > 0 THEN
        PERFORM credit_save(b);
    END IF;
    RETURN v_units;
END $$;

-- Takes what is there, and what overage allows, for work that is done already; what is not covered raises an alarm.
CREATE FUNCTION billing.credit_take_late(p_account_id bigint, p_credit_no smallint, p_name text, p_units bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    b      credit_balances := credit_balance(p_account_id, p_credit_no);
    v_more bigint;
    v_kept bigint;
BEGIN
    SELECT t.kept, t.remaining + t.room INTO v_kept, v_more
        FROM credits_take('{1}', ARRAY[p_name], ARRAY[p_account_id], ARRAY[p_credit_no], ARRAY[p_units], '{NULL}', '{NULL}') t;
    IF v_kept > 0 THEN
        RETURN;
    END IF;
    IF v_more > 0 THEN
        PERFORM credits_take('{1}', ARRAY[p_name], ARRAY[p_account_id], ARRAY[p_credit_no], ARRAY[v_more], '{NULL}', '{NULL}');
    END IF;
    PERFORM alarm(p_account_id, 'credits_not_covered', p_name || ':' || b.credit_no,
        jsonb_build_object('name', p_name, 'units', p_units - greatest(0, v_more)));
END $$;

-- What became of takings, for many at once. keeps: the units that the work was worth, NULL = all that were taken, 0 = it failed.
-- Answer, for some of them (ord = their place): late = units that are owed beyond what the taking has, because the work was worth more than was taken, or was done
-- after its time (credits_sweep had given them back); the caller asks for them by credits_late, in a transaction of its own.
-- Calls may be repeated.
CREATE FUNCTION billing.credits_settle(names text[], account_ids bigint[], credit_nos smallint[], keeps bigint[])
    RETURNS TABLE (ord integer, late bigint) LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = billing, pg_temp SET lock_timeout = '250ms'
    SET plan_cache_mode = force_generic_plan SET jit = off
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
#variable_conflict use_column
DECLARE
    r record;
BEGIN
    PERFORM FROM (SELECT DISTINCT u.account_id, u.credit_no
                  FROM unnest(account_ids, credit_nos, keeps) u(account_id, credit_no, keep) WHERE u.keep IS NOT NULL) u
        JOIN credit_balances b ON b.account_id = u.account_id AND b.credit_no = u.credit_no
        ORDER BY b.account_id, b.credit_no FOR UPDATE OF b;
    FOR r IN
        WITH asked AS (
            SELECT u.* FROM unnest(names, account_ids, credit_nos, keeps) WITH ORDINALITY u(name, account_id, credit_no, keep, ord)),
        held AS (
            SELECT h.account_id, h.name, h.credit_no FROM asked u
            JOIN credit_holds h ON h.account_id = u.account_id AND h.name = u.name AND h.credit_no = u.credit_no
            ORDER BY 1, 2, 3 FOR UPDATE OF h),
        gone AS (
            DELETE FROM credit_holds h USING held x
            WHERE h.account_id = x.account_id AND h.name = x.name AND h.credit_no = x.credit_no
            RETURNING h.account_id, h.name, h.credit_no)
        SELECT u.*, g.name IS NOT NULL AS was_held FROM asked u
        LEFT JOIN gone g ON g.account_id = u.account_id AND g.name = u.name AND g.credit_no = u.credit_no
        WHERE u.keep IS NOT NULL OR g.name IS NULL ORDER BY u.ord
    LOOP
        IF r.keep = 0 THEN
            PERFORM credit_give_back(r.account_id, r.credit_no, r.name, 0, 'work failed');
            CONTINUE;
        END IF;
        ord := r.ord;
        late := credit_settle_one(r.account_id, r.credit_no, r.name, r.keep, r.was_held);
        IF late > 0 THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;

-- One that is kept, but not simply all of it, or not in time. Answers what is owed beyond what it has.
CREATE FUNCTION billing.credit_settle_one(p_account_id bigint, p_credit_no smallint, p_name text, p_keep bigint, p_held boolean)
    RETURNS bigint LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    v_key   text := p_name || ':' || (SELECT t.credit_key FROM credit_types t WHERE t.credit_no = p_credit_no);
    v_taken bigint := (SELECT -sum(l.quantity) FROM credit_ledger l
        WHERE l.account_id = p_account_id AND l.idem_key IN ('take:' || v_key, 'over:' || v_key));
BEGIN
    IF p_held THEN
        PERFORM credit_give_back(p_account_id, p_credit_no, p_name, p_keep, 'settled', p_by => 'settling');
    ELSIF EXISTS (SELECT FROM credit_ledger l WHERE l.account_id = p_account_id AND l.idem_key = 'back:' || v_key
                      AND l.metadata ->> 'by' = 'sweep') THEN
        RETURN coalesce(p_keep, v_taken);
    END IF;
    RETURN coalesce(greatest(0, p_keep - v_taken), 0); -- also when asked again: credits_late takes it once
END $$;

CREATE FUNCTION billing.credits_late(names text[], account_ids bigint[], credit_nos smallint[], units bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = billing, pg_temp SET lock_timeout = '250ms' SET jit = off AS $$
BEGIN
    PERFORM credit_take_late(u.account_id, u.credit_no, 'late.' || u.name, u.units) FROM (
        SELECT * FROM unnest(names, account_ids, credit_nos, units) x(name, account_id, credit_no, units)
        WHERE x.units > 0 ORDER BY x.account_id, x.credit_no, x.name) u;
END $$;

-- Gives back takings that nobody has decided in their time: their worker or its host is gone. Answers how many.
CREATE FUNCTION billing.credits_sweep(most integer) RETURNS integer LANGUAGE plpgsql VOLATILE SECURITY DEFINER
    SET search_path = billing, pg_temp SET lock_timeout = '250ms' SET jit = off AS $$
DECLARE
    v_accounts bigint[];
    v_credits  smallint[];
    v_names    text[];
    h          record;
    n          integer := 0;
BEGIN
    SELECT array_agg(x.account_id), array_agg(x.credit_no), array_agg(x.name) INTO v_accounts, v_credits, v_names
        FROM (SELECT y.* FROM credit_holds y WHERE y.expires_at < clock_timestamp() ORDER BY y.expires_at LIMIT most) x;
    PERFORM FROM (SELECT DISTINCT u.account_id, u.credit_no FROM unnest(v_accounts, v_credits) u(account_id, credit_no)) u
        JOIN credit_balances b ON b.account_id = u.account_id AND b.credit_no = u.credit_no
        ORDER BY b.account_id, b.credit_no FOR UPDATE OF b;
    FOR h IN SELECT u.* FROM unnest(v_accounts, v_credits, v_names) u(account_id, credit_no, name)
             ORDER BY u.account_id, u.name, u.credit_no LOOP
        DELETE FROM credit_holds y WHERE y.account_id = h.account_id AND y.name = h.name AND y.credit_no = h.credit_no
            AND y.expires_at < clock_timestamp();
        IF FOUND THEN
            PERFORM credit_give_back(h.account_id, h.credit_no, h.name, 0, 'not decided in time', p_by => 'sweep');
            n := n + 1;
        END IF;
    END LOOP;
    RETURN n;
END $$;

-- ---------------------------------------------------------------- by names, for applications and operators

-- The account's number, or NULL.
CREATE FUNCTION billing.account_no(p_account text) RETURNS bigint LANGUAGE sql STABLE SET search_path = billing, pg_temp AS
$$ SELECT a.id FROM accounts a WHERE a.external_id = p_account AND a.deleted_at IS NULL $$;

CREATE FUNCTION billing.credit_no(p_credit text) RETURNS smallint LANGUAGE sql STABLE SET search_path = billing, pg_temp AS
$$ SELECT t.credit_no FROM credit_types t WHERE t.credit_key = p_credit $$;

-- What an answer says of a refusal: a code for programs and words for people.
CREATE FUNCTION billing.credit_refusal(p_code text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT pg_catalog.jsonb_build_object('success', false, 'code', p_code, 'error', CASE p_code
        WHEN 'UNKNOWN_ACCOUNT' THEN 'Unknown account' WHEN 'UNKNOWN_CREDIT' THEN 'Unknown credit type'
        WHEN 'INVALID_QUANTITY' THEN 'The quantity must be a whole number from 1'
        WHEN 'INVALID_KEY' THEN 'The key must be 1 to 100 printable characters, without spaces and colons'
        WHEN 'INSUFFICIENT_CREDITS' THEN 'Insufficient credits' WHEN 'REFUNDED' THEN 'Refunded'
        WHEN 'NOTHING_TAKEN' THEN 'Nothing was taken under this key' END)
$$;

-- Why a call cannot be meant so; NULL: it can.
CREATE FUNCTION billing.credit_mistake(p_account text, p_credit text, p_quantity bigint, p_key text) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = billing, pg_temp AS $$
    SELECT credit_refusal(x.code) FROM (SELECT CASE
        WHEN account_no(p_account) IS NULL THEN 'UNKNOWN_ACCOUNT'
        WHEN credit_no(p_credit) IS NULL THEN 'UNKNOWN_CREDIT'
        WHEN coalesce(p_quantity, 0) NOT BETWEEN 1 AND 1099511627776 THEN 'INVALID_QUANTITY'
        WHEN coalesce(p_key !~ '^[!-9;-~]{1,100}$', true) THEN 'INVALID_KEY' END AS code) x WHERE x.code IS NOT NULL
$$;

-- Whether p_quantity units could be taken now. Takes nothing.
CREATE FUNCTION billing.check_credits(p_account text, p_credit text, p_quantity bigint) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    v_mistake jsonb := credit_mistake(p_account, p_credit, p_quantity, 'x');
    v_left    bigint;
    v_room    bigint;
BEGIN
    IF v_mistake IS NOT NULL THEN
        RETURN v_mistake - 'success' || '{"allowed": false}';
    END IF;
    SELECT b.remaining, c.room INTO v_left, v_room FROM credit_balances b CROSS JOIN LATERAL credit_room(b) c
        WHERE b.account_id = account_no(p_account) AND b.credit_no = credit_no(p_credit);
    v_left := coalesce(v_left, 0);
    v_room := coalesce(v_room, 0);
    RETURN jsonb_build_object('allowed', v_left + v_room >= p_quantity, 'remaining', v_left, 'required', p_quantity,
        'needsUpgrade', v_left + v_room < p_quantity, 'overageAllowed', v_room > 0);
END $$;

-- Takes p_quantity units, once for each p_key. With p_hold they come back by themselves unless commit_credits is called in that
-- time. Answers {"success", "balance_after", "is_overage", "overage_quantity", "error"}; a repeated call says "repeated", and
-- what the first one did.
CREATE FUNCTION billing.deduct_credits(p_account text, p_credit text, p_quantity bigint, p_key text,
                                       p_hold interval DEFAULT NULL, p_job text DEFAULT NULL) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    v_mistake jsonb := credit_mistake(p_account, p_credit, p_quantity, p_key);
    v_account bigint := account_no(p_account);
    v_over    bigint;
    t         record;
BEGIN
    IF v_mistake IS NOT NULL THEN
        RETURN v_mistake;
    END IF;
    SELECT x.* INTO t FROM credits_take('{1}', ARRAY[p_key], ARRAY[v_account], ARRAY[credit_no(p_credit)], ARRAY[p_quantity],
        ARRAY[ceil(extract(epoch FROM p_hold))::integer], ARRAY[p_job]) x;
    SELECT coalesce(sum(-l.quantity), 0) INTO v_over FROM credit_ledger l
        WHERE l.account_id = v_account AND l.action = 'overage'
          AND l.idem_key IN ('take:' || p_key || ':' || p_credit, 'over:' || p_key || ':' || p_credit);
    IF t.repeated AND t.kept > 0 THEN
        t.kept := t.kept - coalesce((SELECT (l.metadata ->> 'units')::bigint FROM credit_ledger l
            WHERE l.account_id = v_account AND l.idem_key = 'rest:' || p_key || ':' || p_credit), 0);
    END IF;
    RETURN jsonb_strip_nulls(jsonb_build_object('success', t.kept > 0, 'balance_after', t.remaining, 'is_overage', v_over > 0,
            'overage_quantity', v_over, 'repeated', nullif(t.repeated, false)))
        || CASE WHEN t.kept > 0 THEN '{}'
                WHEN t.repeated THEN credit_refusal('REFUNDED') ELSE credit_refusal('INSUFFICIENT_CREDITS') END;
END $$;

-- The work of a taking is done: what was taken is kept, or p_quantity of it, the rest goes back; more is taken as far as there
-- is more. A taking whose time is over is taken again.
CREATE FUNCTION billing.commit_credits(p_account text, p_credit text, p_key text, p_quantity bigint DEFAULT NULL) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    v_mistake jsonb := credit_mistake(p_account, p_credit, coalesce(p_quantity, 1), p_key);
    v_account bigint := account_no(p_account);
    v_late    bigint;
BEGIN
    IF v_mistake IS NULL AND NOT EXISTS (SELECT FROM credit_ledger l
            WHERE l.account_id = v_account AND l.idem_key = 'take:' || p_key || ':' || p_credit) THEN
        v_mistake := credit_refusal('NOTHING_TAKEN');
    END IF;
    IF v_mistake IS NOT NULL THEN
        RETURN v_mistake;
    END IF;
    PERFORM credit_balance(v_account, credit_no(p_credit)); -- credits_late is called in the same transaction here
    SELECT coalesce(sum(s.late), 0) INTO v_late FROM credits_settle(ARRAY[p_key], ARRAY[v_account], ARRAY[credit_no(p_credit)], ARRAY[p_quantity]) s;
    PERFORM credits_late(ARRAY[p_key], ARRAY[v_account], ARRAY[credit_no(p_credit)], ARRAY[v_late]);
    RETURN jsonb_build_object('success', true, 'balance_after', coalesce((credit_balance(v_account, credit_no(p_credit))).remaining, 0));
END $$;

-- What a name has by the ledger: units that it took, and of them those that its settling gave back.
CREATE FUNCTION billing.credit_taken(p_account_id bigint, p_credit text, p_name text, OUT taken bigint, OUT settled bigint)
    LANGUAGE sql STABLE SET search_path = billing, pg_temp AS $$
    SELECT coalesce(sum(-l.quantity) FILTER (WHERE l.action <> 'refund'), 0),
           coalesce(sum((l.metadata ->> 'units')::bigint) FILTER (WHERE l.action = 'refund' AND l.metadata ->> 'by' = 'settling'), 0)
    FROM credit_ledger l WHERE l.account_id = p_account_id
        AND l.idem_key IN ('take:' || p_name || ':' || p_credit, 'over:' || p_name || ':' || p_credit, 'back:' || p_name || ':' || p_credit)
$$;

-- The work of a taking has failed, now or long after it was committed: what it cost goes back, or p_quantity of it, once; what
-- was taken late, when it was committed, first. A key under which nothing was taken never will be. Answers {"success", "refunded",
-- "balance_after", "error"}.
CREATE FUNCTION billing.refund_credits(p_account text, p_credit text, p_key text, p_quantity bigint DEFAULT NULL,
                                       p_reason text DEFAULT 'refunded') RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    v_mistake jsonb := credit_mistake(p_account, p_credit, coalesce(p_quantity, 1), p_key);
    v_account bigint := account_no(p_account);
    v_credit  smallint := credit_no(p_credit);
    v_late    bigint;
    v_wanted  bigint;
    v_back    bigint := 0;
    t         record;
BEGIN
    IF v_mistake IS NOT NULL THEN
        RETURN v_mistake;
    END IF;
    PERFORM credit_balance(v_account, v_credit);
    DELETE FROM credit_holds h WHERE h.account_id = v_account AND h.name = p_key AND h.credit_no = v_credit;
    SELECT x.* INTO t FROM credit_taken(v_account, p_credit, p_key) x;
    v_late := (SELECT x.taken FROM credit_taken(v_account, p_credit, 'late.' || p_key) x);
    v_wanted := coalesce(p_quantity, v_late + t.taken);
    IF v_late > 0 THEN
        v_back := credit_give_back(v_account, v_credit, 'late.' || p_key, greatest(0, v_late - v_wanted), p_reason);
    END IF;
    v_back := v_back + credit_give_back(v_account, v_credit, p_key, greatest(0, t.taken - t.settled - greatest(0, v_wanted - v_late)),
                                        p_reason, t.settled);
    RETURN jsonb_build_object('success', true, 'refunded', v_back,
            'balance_after', (credit_balance(v_account, v_credit)).remaining)
        || CASE WHEN t.taken = 0 THEN credit_refusal('NOTHING_TAKEN') ELSE '{}' END;
END $$;

-- Units given, beside what plans allocate; they do not expire. Once for each p_key.
CREATE FUNCTION billing.grant_credits(p_account text, p_credit text, p_quantity bigint, p_key text, p_reason text) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    v_mistake jsonb := credit_mistake(p_account, p_credit, p_quantity, p_key);
    b         credit_balances;
BEGIN
    IF v_mistake IS NOT NULL THEN
        RETURN v_mistake;
    END IF;
    PERFORM FROM accounts a WHERE a.id = account_no(p_account) FOR NO KEY UPDATE;
    b := credit_balance(account_no(p_account), credit_no(p_credit));
    b.remaining := b.remaining + p_quantity;
    b.bought := b.bought + p_quantity;
    IF NOT credit_move(b, 'grant', p_quantity, 'grant:' || p_key, NULL, p_reason, '{}') THEN
        b.remaining := b.remaining - p_quantity;
        RETURN jsonb_build_object('success', true, 'repeated', true, 'balance_after', b.remaining);
    END IF;
    RETURN jsonb_build_object('success', true, 'balance_after', b.remaining);
END $$;

-- A correction by p_delta units, which may be negative, but not more than there are. Once for each p_key.
CREATE FUNCTION billing.adjust_credits(p_account text, p_credit text, p_delta bigint, p_key text, p_reason text) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    v_mistake jsonb := credit_mistake(p_account, p_credit, greatest(p_delta, -greatest(p_delta, -1099511627777)), p_key);
    b         credit_balances;
BEGIN
    IF v_mistake IS NOT NULL THEN
        RETURN v_mistake;
    END IF;
    PERFORM FROM accounts a WHERE a.id = account_no(p_account) FOR NO KEY UPDATE;
    b := credit_balance(account_no(p_account), credit_no(p_credit));
    IF EXISTS (SELECT FROM credit_ledger l WHERE l.account_id = b.account_id AND l.idem_key = 'adjust:' || p_key || ':' || p_credit) THEN
        RETURN jsonb_build_object('success', true, 'repeated', true, 'balance_after', b.remaining);
    ELSIF b.remaining + p_delta < 0 THEN
        RETURN credit_refusal('INSUFFICIENT_CREDITS') || jsonb_build_object('balance_after', b.remaining);
    END IF;
    b.bought := least(greatest(b.bought + greatest(p_delta, 0), 0), b.remaining + p_delta);
    b.remaining := b.remaining + p_delta;
    PERFORM credit_move(b, 'adjust', p_delta, 'adjust:' || p_key, NULL, p_reason, '{}');
    RETURN jsonb_build_object('success', true, 'balance_after', b.remaining);
END $$;

REVOKE ALL ON ALL TABLES IN SCHEMA billing FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    billing.credits_take(integer[], text[], bigint[], smallint[], bigint[], integer[], text[]),
    billing.credits_settle(text[], bigint[], smallint[], bigint[]),
    billing.credits_late(text[], bigint[], smallint[], bigint[]),
    billing.check_credits(text, text, bigint),
    billing.deduct_credits(text, text, bigint, text, interval, text),
    billing.commit_credits(text, text, text, bigint),
    billing.refund_credits(text, text, text, bigint, text),
    billing.grant_credits(text, text, bigint, text, text),
    billing.adjust_credits(text, text, bigint, text, text)
    TO billing_gate, billing_jobs;
GRANT EXECUTE ON FUNCTION billing.credits_sweep(integer) TO billing_jobs;
