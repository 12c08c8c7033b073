-- API keys: who holds one asks as its account. Only a digest of a key is here; the key itself was shown once, to who made it.
-- Hosts remember a key together with the stamp of its account: whatever changes a key raises that stamp, and is published
-- like every change of an account.

CREATE TABLE billing.api_keys (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES billing.accounts,
    prefix     text COLLATE "C" NOT NULL UNIQUE CHECK (prefix ~ '^bk_[a-z2-7]{10}$'),
    sha256     bytea NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    name       text CHECK (length(name) BETWEEN 1 AND 200),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at billing.moment,
    revoked_at timestamptz
);
CREATE INDEX api_keys_account ON billing.api_keys (account_id);

-- A key that has been revoked stays so: who was told that it is dead must not meet it again.
CREATE FUNCTION billing.api_keys_hold() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
BEGIN
    IF ROW(NEW.id, NEW.account_id, NEW.prefix, NEW.sha256) IS DISTINCT FROM ROW(OLD.id, OLD.account_id, OLD.prefix, OLD.sha256) THEN
        RAISE EXCEPTION 'an API key stays what it is: revoke it and make another one' USING ERRCODE = '55000';
    END IF;
    IF OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at THEN
        RAISE EXCEPTION 'API key % has been revoked for good: make another one', OLD.prefix USING ERRCODE = '55000';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER api_keys_hold BEFORE UPDATE ON billing.api_keys FOR EACH ROW EXECUTE FUNCTION billing.api_keys_hold();
-- TRUNCATE has no row triggers, so no host would hear of it.
CREATE TRIGGER api_keys_keep_all BEFORE TRUNCATE ON billing.api_keys
    EXECUTE FUNCTION billing.refuse_change('use DELETE');

-- A new key needs no news: nobody can have asked for it before.
CREATE FUNCTION billing.api_keys_changed() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    v_before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) - '{id,account_id,sha256}'::text[] END;
    v_after  jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) - '{id,account_id,sha256}'::text[] END;
    v_id     bigint := CASE WHEN TG_OP = 'DELETE' THEN OLD.account_id ELSE NEW.account_id END;
    v_what   text := 'key.change';
BEGIN
    IF TG_OP = 'UPDATE' AND v_before = v_after THEN
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' AND (v_before - 'name') IS DISTINCT FROM (v_after - 'name') THEN
        UPDATE accounts SET ent_version = ent_version + 1 WHERE id = v_id;
    END IF;
    IF TG_OP = 'INSERT' THEN
        v_what := 'key.create';
    ELSIF TG_OP = 'DELETE' THEN
        v_what := 'key.delete';
    ELSIF OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL THEN
        v_what := 'key.revoke';
    END IF;
    INSERT INTO audit_log (account_id, actor, action, before, after) VALUES (v_id, audit_actor(), v_what, v_before, v_after);
    RETURN NULL;
END $$;
CREATE TRIGGER api_keys_changed AFTER INSERT OR UPDATE OR DELETE ON billing.api_keys FOR EACH ROW
    EXECUTE FUNCTION billing.api_keys_changed();

-- ---------------------------------------------------------------- workers

-- Of these digests (hex) the keys that are good, each with the stamp its account has in the same look. `expires`: unix
-- seconds, NULL = never. Held to index look-ups, as billing.snapshots() is.
CREATE FUNCTION billing.api_keys_find(digests text[])
    RETURNS TABLE (digest text, account text, stamp bigint, expires bigint) LANGUAGE plpgsql STABLE
    SECURITY DEFINER SET search_path = billing, pg_temp
    SET plan_cache_mode = force_generic_plan SET jit = off
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_material = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT encode(k.sha256, 'hex'), a.external_id::text, e.base | a.ent_version, unix(k.expires_at)
        FROM (SELECT m.epoch::bigint << 40 AS base FROM current_meta m OFFSET 0) e
        CROSS JOIN unnest(digests) d(x)
        JOIN api_keys k ON k.sha256 = decode(d.x, 'hex')
        JOIN accounts a ON a.id = k.account_id
        WHERE k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
          AND a.deleted_at IS NULL;
END $$;

-- ---------------------------------------------------------------- the operator's command

CREATE FUNCTION billing.api_key_show(p_prefix text) RETURNS jsonb LANGUAGE sql STABLE
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
    SELECT jsonb_build_object('prefix', k.prefix, 'account', a.external_id, 'name', k.name,
        'state', CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.expires_at <= clock_timestamp() THEN 'expired'
                 ELSE 'good' END,
        'created_at', iso(k.created_at), 'expires_at', iso(k.expires_at), 'revoked_at', iso(k.revoked_at))
    FROM api_keys k JOIN accounts a ON a.id = k.account_id WHERE k.prefix = p_prefix
$$;

-- NULL when there is no such account and none is to be made.
CREATE FUNCTION billing.api_key_create(p_account text, p_prefix text, p_sha256 text, p_name text, p_expires timestamptz,
                                       p_make boolean, p_actor text) RETURNS jsonb LANGUAGE plpgsql VOLATILE
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    v_actor text := current_setting('billing.actor', true);
    v_id    bigint;
BEGIN
    IF p_account !~ '^[A-Za-z0-9_.@:|-]{1,128}$' THEN
        PERFORM account_refuse('an account id has 1-128 of A-Z a-z 0-9 _ . @ : | -');
    END IF;
    IF p_expires <= clock_timestamp() THEN
        PERFORM account_refuse('the key would have expired already');
    END IF;
    IF p_make THEN
        PERFORM ensure_accounts(ARRAY[p_account]);
    END IF;
    SELECT a.id INTO v_id FROM accounts a WHERE a.external_id = p_account AND a.deleted_at IS NULL;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM set_config('billing.actor', coalesce(p_actor, ''), true);
    INSERT INTO api_keys (account_id, prefix, sha256, name, expires_at)
        VALUES (v_id, p_prefix, decode(p_sha256, 'hex'), p_name, p_expires);
    PERFORM set_config('billing.actor', coalesce(v_actor, ''), true);
    RETURN api_key_show(p_prefix);
END $$;

-- NULL when there is no such key. Once more changes nothing.
CREATE FUNCTION billing.api_key_revoke(p_prefix text, p_actor text) RETURNS jsonb LANGUAGE plpgsql VOLATILE
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    v_actor text := current_setting('billing.actor', true);
BEGIN
    PERFORM set_config('billing.actor', coalesce(p_actor, ''), true);
    UPDATE api_keys k SET revoked_at = clock_timestamp() WHERE k.prefix = p_prefix AND k.revoked_at IS NULL;
    PERFORM set_config('billing.actor', coalesce(v_actor, ''), true);
    RETURN api_key_show(p_prefix);
END $$;

-- Of one account, or of all (NULL); the newest last. An array.
CREATE FUNCTION billing.api_key_list(p_account text) RETURNS jsonb LANGUAGE sql STABLE
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
    SELECT coalesce(jsonb_agg(api_key_show(k.prefix) ORDER BY k.id), '[]')
    FROM api_keys k JOIN accounts a ON a.id = k.account_id WHERE p_account IS NULL OR a.external_id = p_account
$$;

REVOKE ALL ON billing.api_keys FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON FUNCTION billing.api_keys_find(text[]) TO billing_gate, billing_jobs;
