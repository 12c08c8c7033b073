-- Members: which person has which role in an account, for billing_subject. Written by the application, or by hand; nothing else
-- of the gate looks here.

CREATE TABLE billing.account_members (
    account_id bigint NOT NULL REFERENCES billing.accounts,
    subject    text COLLATE "C" NOT NULL CHECK (length(subject) BETWEEN 1 AND 256),
    role       text COLLATE "C" NOT NULL CHECK (role ~ '^[A-Za-z0-9_.:-]{1,64}$'),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (account_id, subject)
);

-- However a role changes, it leaves a row (S11).
CREATE FUNCTION billing.account_members_changed() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    v_before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN jsonb_build_object('subject', OLD.subject, 'role', OLD.role) END;
    v_after  jsonb := CASE WHEN TG_OP <> 'DELETE' THEN jsonb_build_object('subject', NEW.subject, 'role', NEW.role) END;
BEGIN
    IF v_before IS DISTINCT FROM v_after THEN
        INSERT INTO audit_log (account_id, actor, action, before, after)
            VALUES (coalesce(NEW.account_id, OLD.account_id), audit_actor(), 'role.change', v_before, v_after);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER account_members_changed AFTER INSERT OR UPDATE OR DELETE ON billing.account_members FOR EACH ROW
    EXECUTE FUNCTION billing.account_members_changed();
CREATE TRIGGER account_members_keep_all BEFORE TRUNCATE ON billing.account_members
    EXECUTE FUNCTION billing.refuse_change('use DELETE');

-- '' for who is no member; also of an account that is not there.
CREATE FUNCTION billing.member_role(p_account text, p_subject text) RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
    SELECT coalesce((SELECT m.role FROM accounts a JOIN account_members m ON m.account_id = a.id
        WHERE a.external_id = p_account AND a.deleted_at IS NULL AND m.subject = p_subject), '')
$$;

-- For the application: the role that somebody has from now on; NULL or '' for none. False: there is no such account.
CREATE FUNCTION billing.member_set(p_account text, p_subject text, p_role text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = billing, pg_temp AS $$
DECLARE
    v_id bigint := (SELECT a.id FROM accounts a WHERE a.external_id = p_account AND a.deleted_at IS NULL);
BEGIN
    IF v_id IS NULL THEN
        RETURN false;
    ELSIF coalesce(p_role, '') = '' THEN
        DELETE FROM account_members m WHERE m.account_id = v_id AND m.subject = p_subject;
    ELSE
        INSERT INTO account_members AS m (account_id, subject, role) VALUES (v_id, p_subject, p_role)
            ON CONFLICT (account_id, subject) DO UPDATE SET role = excluded.role WHERE m.role <> excluded.role;
    END IF;
    RETURN true;
END $$;

REVOKE ALL ON billing.account_members FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
GRANT EXECUTE ON FUNCTION billing.member_role(text, text) TO billing_gate, billing_jobs, billing_app;
GRANT EXECUTE ON FUNCTION billing.member_set(text, text, text) TO billing_app;
