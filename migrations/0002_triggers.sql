-- Triggers: versions, the dirty set, the append-only rule and the audit. They make a plain SQL edit by anybody as good
-- as one by the module. SECURITY DEFINER: whoever may edit accounts need not have rights on snapshot_dirty or audit_log.

CREATE FUNCTION billing.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% on billing.% is refused: %', TG_OP, TG_TABLE_NAME, TG_ARGV[0] USING ERRCODE = '55000';
END $$;

-- A deleted row would start again at version 1, and caches would refuse its successor as old.
CREATE TRIGGER accounts_keep_row BEFORE DELETE ON billing.accounts FOR EACH ROW
    EXECUTE FUNCTION billing.refuse_change('set deleted_at instead');
CREATE TRIGGER accounts_keep_all BEFORE TRUNCATE ON billing.accounts
    EXECUTE FUNCTION billing.refuse_change('set deleted_at instead');
-- TRUNCATE has no row triggers, so the accounts' versions would not move.
CREATE TRIGGER account_features_keep_all BEFORE TRUNCATE ON billing.account_features
    EXECUTE FUNCTION billing.refuse_change('use DELETE');
CREATE TRIGGER account_limits_keep_all BEFORE TRUNCATE ON billing.account_limits
    EXECUTE FUNCTION billing.refuse_change('use DELETE');
CREATE TRIGGER account_stocks_keep_all BEFORE TRUNCATE ON billing.account_stocks
    EXECUTE FUNCTION billing.refuse_change('use DELETE');
CREATE TRIGGER credit_ledger_append_only BEFORE UPDATE OR DELETE ON billing.credit_ledger FOR EACH ROW
    EXECUTE FUNCTION billing.refuse_change('the table is append-only');
CREATE TRIGGER credit_ledger_keep_all BEFORE TRUNCATE ON billing.credit_ledger
    EXECUTE FUNCTION billing.refuse_change('the table is append-only');
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON billing.audit_log FOR EACH ROW
    EXECUTE FUNCTION billing.refuse_change('the table is append-only');
CREATE TRIGGER audit_log_keep_all BEFORE TRUNCATE ON billing.audit_log
    EXECUTE FUNCTION billing.refuse_change('the table is append-only');

-- ---------------------------------------------------------------- account versions

-- ent_version rises in the row itself: its lock is held to the commit, so for one account version order is commit
-- order. Raising it explicitly is the way to force a new snapshot (child tables, recalls of quota tokens).
CREATE FUNCTION billing.accounts_version() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
BEGIN
    IF NEW.id <> OLD.id OR NEW.external_id <> OLD.external_id THEN
        RAISE EXCEPTION 'id and external_id of an account cannot change: every cache is keyed by them'
            USING ERRCODE = '55000';
    END IF;
    IF NEW.ent_version < OLD.ent_version THEN
        RAISE EXCEPTION 'ent_version of account % cannot go back', OLD.external_id USING ERRCODE = '55000';
    END IF;
    IF NEW.ent_version = OLD.ent_version
       AND ROW(NEW.plan_no, NEW.status, NEW.maintenance, NEW.write_enabled, NEW.billing_enforced, NEW.overage_on,
               NEW.grace_until, NEW.trial_end, NEW.period_end, NEW.cancel_at, NEW.cycle_anchor, NEW.zone,
               NEW.deleted_at IS NULL)
           IS DISTINCT FROM
           ROW(OLD.plan_no, OLD.status, OLD.maintenance, OLD.write_enabled, OLD.billing_enforced, OLD.overage_on,
               OLD.grace_until, OLD.trial_end, OLD.period_end, OLD.cancel_at, OLD.cycle_anchor, OLD.zone,
               OLD.deleted_at IS NULL) THEN
        NEW.ent_version := OLD.ent_version + 1;
    END IF;
    IF NEW.ent_version <> OLD.ent_version THEN
        NEW.ent_changed_at := clock_timestamp();
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER accounts_version BEFORE UPDATE ON billing.accounts FOR EACH ROW
    EXECUTE FUNCTION billing.accounts_version();

CREATE FUNCTION billing.accounts_dirty() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
BEGIN
    INSERT INTO snapshot_dirty AS d (account_id, version) VALUES (NEW.id, NEW.ent_version)
        ON CONFLICT (account_id) DO UPDATE SET version = excluded.version, claimed_until = '-infinity';
    PERFORM pg_notify('billing_dirty', ''); -- empty: many in one transaction merge; only a wake-up
    RETURN NULL;
END $$;
CREATE TRIGGER accounts_dirty_new AFTER INSERT ON billing.accounts FOR EACH ROW
    EXECUTE FUNCTION billing.accounts_dirty();
CREATE TRIGGER accounts_dirty AFTER UPDATE ON billing.accounts FOR EACH ROW
    WHEN (OLD.ent_version <> NEW.ent_version) EXECUTE FUNCTION billing.accounts_dirty();

-- Overrides live in child tables: raise the parent's version, and audit.
CREATE FUNCTION billing.audit_actor() RETURNS text LANGUAGE sql STABLE AS
$$ SELECT coalesce(nullif(pg_catalog.current_setting('billing.actor', true), ''), session_user::text) $$;

CREATE FUNCTION billing.account_child_changed() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    v_before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) - 'account_id' END;
    v_after  jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) - 'account_id' END;
    v_id     bigint := CASE WHEN TG_OP = 'DELETE' THEN OLD.account_id ELSE NEW.account_id END;
    v_name   jsonb;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF OLD.account_id <> NEW.account_id THEN
            RAISE EXCEPTION 'an override cannot move to another account' USING ERRCODE = '55000';
        END IF;
        IF v_before = v_after THEN
            RETURN NULL;
        END IF;
    END IF;
    -- source, reason and limits of stock are not in the snapshot: audited, no new version.
    IF TG_TABLE_NAME <> 'account_stocks' AND (v_before - 'source' - 'reason') IS DISTINCT FROM (v_after - 'source' - 'reason') THEN
        UPDATE accounts SET ent_version = ent_version + 1 WHERE id = v_id;
    END IF;
    IF TG_TABLE_NAME = 'account_features' THEN
        SELECT jsonb_build_object('feature', feature_key) INTO v_name FROM features
            WHERE feature_no = (coalesce(v_after, v_before) ->> 'feature_no')::smallint;
    ELSIF TG_TABLE_NAME = 'account_limits' THEN
        SELECT jsonb_build_object('limit', limit_key) INTO v_name FROM limits
            WHERE limit_no = (coalesce(v_after, v_before) ->> 'limit_no')::smallint;
    ELSE
        SELECT jsonb_build_object('stock', stock_key) INTO v_name FROM stocks
            WHERE stock_no = (coalesce(v_after, v_before) ->> 'stock_no')::smallint;
    END IF;
    INSERT INTO audit_log (account_id, actor, action, before, after)
        VALUES (v_id, audit_actor(), CASE TG_TABLE_NAME WHEN 'account_features' THEN 'feature.override'
            WHEN 'account_limits' THEN 'limit.override' ELSE 'stock.override' END, v_name || v_before, v_name || v_after);
    RETURN NULL;
END $$;
CREATE TRIGGER account_features_changed AFTER INSERT OR UPDATE OR DELETE ON billing.account_features FOR EACH ROW
    EXECUTE FUNCTION billing.account_child_changed();
CREATE TRIGGER account_limits_changed AFTER INSERT OR UPDATE OR DELETE ON billing.account_limits FOR EACH ROW
    EXECUTE FUNCTION billing.account_child_changed();
CREATE TRIGGER account_stocks_changed AFTER INSERT OR UPDATE OR DELETE ON billing.account_stocks FOR EACH ROW
    EXECUTE FUNCTION billing.account_child_changed();

-- The part of an account that the audit keeps; no personal data.
CREATE FUNCTION billing.audit_view(a billing.accounts) RETURNS jsonb LANGUAGE sql STABLE
    SET search_path = billing, pg_temp AS
$$ SELECT jsonb_build_object('plan', (SELECT plan_key FROM plans WHERE plan_no = a.plan_no), 'status', a.status,
        'maintenance', a.maintenance, 'write_enabled', a.write_enabled, 'billing_enforced', a.billing_enforced,
        'overage_on', a.overage_on, 'grace_until', a.grace_until, 'trial_end', a.trial_end,
        'cancel_at', a.cancel_at, 'zone', a.zone, 'deleted', a.deleted_at IS NOT NULL) $$;

CREATE FUNCTION billing.accounts_audit() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    v_old jsonb := audit_view(OLD);
    v_new jsonb := audit_view(NEW);
    v_before jsonb;
    v_after jsonb;
BEGIN
    SELECT jsonb_object_agg(n.key, v_old -> n.key), jsonb_object_agg(n.key, n.value) INTO v_before, v_after
        FROM jsonb_each(v_new) n WHERE n.value IS DISTINCT FROM v_old -> n.key;
    IF v_after IS NOT NULL THEN
        INSERT INTO audit_log (account_id, actor, action, before, after)
            VALUES (NEW.id, audit_actor(), 'account.change', v_before, v_after);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER accounts_audit AFTER UPDATE ON billing.accounts FOR EACH ROW
    WHEN (ROW(NEW.plan_no, NEW.status, NEW.maintenance, NEW.write_enabled, NEW.billing_enforced, NEW.overage_on,
              NEW.grace_until, NEW.trial_end, NEW.cancel_at, NEW.zone, NEW.deleted_at IS NULL)
          IS DISTINCT FROM
          ROW(OLD.plan_no, OLD.status, OLD.maintenance, OLD.write_enabled, OLD.billing_enforced, OLD.overage_on,
              OLD.grace_until, OLD.trial_end, OLD.cancel_at, OLD.zone, OLD.deleted_at IS NULL))
    EXECUTE FUNCTION billing.accounts_audit();

-- A name of the tz database, told in its own spelling. PostgreSQL would also take "EST5EDT4,..." and words of abbreviations.
CREATE FUNCTION billing.accounts_zone() RETURNS trigger LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
BEGIN
    IF NEW.zone !~ '^[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$'
       OR NOT EXISTS (SELECT FROM pg_timezone_names z WHERE z.name COLLATE "C" = NEW.zone) THEN
        RAISE EXCEPTION '"%" is no time zone; write one as Europe/Berlin', NEW.zone USING ERRCODE = '22023';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER accounts_zone_new BEFORE INSERT ON billing.accounts FOR EACH ROW WHEN (NEW.zone IS NOT NULL)
    EXECUTE FUNCTION billing.accounts_zone();
CREATE TRIGGER accounts_zone BEFORE UPDATE OF zone ON billing.accounts FOR EACH ROW
    WHEN (NEW.zone IS NOT NULL AND NEW.zone IS DISTINCT FROM OLD.zone) EXECUTE FUNCTION billing.accounts_zone();

-- ---------------------------------------------------------------- catalog version

-- default_plan and the policies are part of the catalog; the version never goes back.
CREATE FUNCTION billing.meta_version() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
BEGIN
    IF NEW.catalog_version < OLD.catalog_version OR NEW.epoch_manual < OLD.epoch_manual THEN
        RAISE EXCEPTION 'catalog_version and epoch_manual cannot go back' USING ERRCODE = '55000';
    END IF;
    IF ROW(NEW.default_plan, NEW.credits_policy, NEW.free_realloc)
           IS DISTINCT FROM ROW(OLD.default_plan, OLD.credits_policy, OLD.free_realloc)
       AND NEW.catalog_version = OLD.catalog_version THEN
        NEW.catalog_version := OLD.catalog_version + 1;
    END IF;
    IF ROW(NEW.catalog_version, NEW.epoch_manual) IS DISTINCT FROM ROW(OLD.catalog_version, OLD.epoch_manual) THEN
        PERFORM pg_notify('billing_dirty', '');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER meta_version BEFORE UPDATE ON billing.meta FOR EACH ROW EXECUTE FUNCTION billing.meta_version();
CREATE TRIGGER meta_keep_row BEFORE DELETE ON billing.meta FOR EACH ROW
    EXECUTE FUNCTION billing.refuse_change('the row is needed');
CREATE TRIGGER meta_keep_all BEFORE TRUNCATE ON billing.meta EXECUTE FUNCTION billing.refuse_change('the row is needed');

-- Statement triggers see what really changed through transition tables, so an UPDATE that changes nothing (or hits no
-- row) leaves the version alone. One meta row: catalog edits queue behind each other, version order is commit order.
CREATE FUNCTION billing.catalog_changed() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    v_changed boolean := true;
BEGIN
    IF TG_OP = 'INSERT' THEN
        v_changed := EXISTS (SELECT FROM new_rows);
    ELSIF TG_OP = 'DELETE' THEN
        v_changed := EXISTS (SELECT FROM old_rows);
    ELSIF TG_OP = 'UPDATE' THEN
        v_changed := EXISTS (SELECT * FROM new_rows EXCEPT SELECT * FROM old_rows);
    END IF;
    IF v_changed THEN
        UPDATE meta SET catalog_version = catalog_version + 1;
    END IF;
    RETURN NULL;
END $$;

DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['plans', 'plan_prices', 'features', 'plan_features', 'limits', 'plan_limits', 'rates', 'plan_rates',
                             'credit_types', 'plan_credits', 'packs', 'stocks', 'plan_stocks'] LOOP
        EXECUTE format('CREATE TRIGGER %s_inserted AFTER INSERT ON billing.%s REFERENCING NEW TABLE AS new_rows
            FOR EACH STATEMENT EXECUTE FUNCTION billing.catalog_changed()', t, t);
        EXECUTE format('CREATE TRIGGER %s_updated AFTER UPDATE ON billing.%s REFERENCING OLD TABLE AS old_rows
            NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION billing.catalog_changed()', t, t);
        EXECUTE format('CREATE TRIGGER %s_deleted AFTER DELETE ON billing.%s REFERENCING OLD TABLE AS old_rows
            FOR EACH STATEMENT EXECUTE FUNCTION billing.catalog_changed()', t, t);
        EXECUTE format('CREATE TRIGGER %s_truncated AFTER TRUNCATE ON billing.%s
            FOR EACH STATEMENT EXECUTE FUNCTION billing.catalog_changed()', t, t);
    END LOOP;
END $$;

-- What a price of a pack has been sold as is known for good.
CREATE FUNCTION billing.packs_priced() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
BEGIN
    INSERT INTO pack_prices AS x (price_id, pack_key, credit_no, quantity)
        VALUES (NEW.price_id, NEW.pack_key, NEW.credit_no, NEW.quantity)
        ON CONFLICT (price_id) DO UPDATE SET pack_key = excluded.pack_key, credit_no = excluded.credit_no,
            quantity = excluded.quantity
        WHERE ROW(x.pack_key, x.credit_no, x.quantity)
            IS DISTINCT FROM ROW(excluded.pack_key, excluded.credit_no, excluded.quantity);
    RETURN NULL;
END $$;
CREATE TRIGGER packs_priced AFTER INSERT OR UPDATE ON billing.packs FOR EACH ROW WHEN (NEW.price_id IS NOT NULL)
    EXECUTE FUNCTION billing.packs_priced();
