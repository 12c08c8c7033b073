-- What is known from Stripe: the inbox of events, subscriptions, invoices, checkouts, and the outbox. Functions in the files
-- that follow. Nothing here decides a request: what decides stands in accounts, computed from these rows.

-- The row is the queue: stored once, claimed with a lease, marked in the transaction of its effects.
-- attempts: number of claims, the fencing token; never goes back. failures: tries that count (five are the end);
-- waits: tries in a row that failed only because somebody could not be reached; losses: in a row, of which nothing was heard.
-- lane: events of one customer are handed out one at a time.
CREATE TABLE billing.webhook_events (
    stripe_account  text COLLATE "C" NOT NULL DEFAULT '',
    event_id        text COLLATE "C" NOT NULL CHECK (event_id <> ''),
    type            text NOT NULL,
    api_version     text,
    livemode        boolean,
    stripe_created  timestamptz,
    customer_id     text COLLATE "C",
    account_id      bigint REFERENCES billing.accounts,
    payload         bytea NOT NULL, -- the bytes that were signed; empty once purged
    purged          boolean NOT NULL DEFAULT false, -- the row stays: an event is one that is known for ever
    status          text NOT NULL DEFAULT 'received'
                        CHECK (status IN ('received', 'processing', 'processed', 'ignored', 'parked', 'dead')),
    attempts        integer NOT NULL DEFAULT 0,
    failures        integer NOT NULL DEFAULT 0,
    waits           integer NOT NULL DEFAULT 0,
    losses          integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_error      text,
    received_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    processed_at    timestamptz,
    lane            text COLLATE "C" NOT NULL
                        GENERATED ALWAYS AS (stripe_account || coalesce(' customer ' || customer_id, ' event ' || event_id))
                        STORED,
    PRIMARY KEY (stripe_account, event_id)
) WITH (fillfactor = 80);
CREATE INDEX webhook_events_due ON billing.webhook_events (stripe_created, received_at, event_id)
    WHERE status IN ('received', 'processing');
CREATE INDEX webhook_events_busy ON billing.webhook_events (lane) WHERE status = 'processing';
CREATE INDEX webhook_events_parked ON billing.webhook_events (customer_id) WHERE status = 'parked';
CREATE INDEX webhook_events_done ON billing.webhook_events (coalesce(processed_at, received_at))
    WHERE status IN ('processed', 'ignored') AND NOT purged;
CREATE INDEX webhook_events_dead ON billing.webhook_events (received_at) WHERE status = 'dead';

-- Not unique for an account, not even the live ones: Stripe may hold two, and their events must apply.
-- status is Stripe's word, also one that we do not know. plan_no and price_id follow from prices and the catalog.
CREATE TABLE billing.subscriptions (
    subscription_id text COLLATE "C" PRIMARY KEY CHECK (subscription_id <> ''),
    account_id      bigint NOT NULL REFERENCES billing.accounts,
    customer_id     text COLLATE "C",
    status          text NOT NULL,
    prices          text[] NOT NULL DEFAULT '{}',
    price_id        text COLLATE "C", -- NULL: the catalog knows none of the prices
    plan_no         smallint REFERENCES billing.plans ON DELETE SET NULL, -- of price_id, or the last one that was known
    quantity        bigint,
    period_start    billing.moment,
    period_end      billing.moment,
    cancel_at       billing.moment,
    trial_end       billing.moment,
    anchor          billing.moment, -- its billing months are [anchor + k months)
    started_at      billing.moment,
    ended_at        billing.moment,
    past_due_since  billing.moment, -- when we first saw it owing
    grace_until     billing.moment, -- while it owes
    held            boolean NOT NULL DEFAULT false, -- owes, and the policy is maintenance
    credits_from    billing.moment, -- start of the period that its first credits were given for
    pause           text, -- of collection, while its status says nothing of it: void, keep_as_draft, mark_uncollectible
    paused_from     billing.moment, -- void: its next period is not paid for, and gives nothing
    changed_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX subscriptions_account ON billing.subscriptions (account_id);

-- One row for each invoice that was paid or failed. An invoice is never skipped as stale: its id is the key.
CREATE TABLE billing.invoices (
    invoice_id      text COLLATE "C" PRIMARY KEY CHECK (invoice_id <> ''),
    account_id      bigint NOT NULL REFERENCES billing.accounts,
    subscription_id text COLLATE "C",
    billing_reason  text,
    amount          bigint,
    currency        text,
    payment_intent  text COLLATE "C",
    period_start    billing.moment, -- of the service, not the invoice's own
    period_end      billing.moment,
    first_failed_at billing.moment,
    attempts        integer NOT NULL DEFAULT 0,
    policy          text CHECK (policy IN ('grace', 'maintenance')), -- as of the first failure
    grace_seconds   bigint CHECK (grace_seconds >= 0),
    paid_at         billing.moment,
    settled         boolean NOT NULL DEFAULT false -- paid, or its subscription went on without it
);
CREATE INDEX invoices_subscription ON billing.invoices (subscription_id);
CREATE INDEX invoices_payment ON billing.invoices (payment_intent) WHERE payment_intent IS NOT NULL;

-- A payment of which something went back, or which is contested. owed: the units of its pack that this stands for; taken: as
-- many of them as were still there.
CREATE TABLE billing.charges (
    charge_id      text COLLATE "C" PRIMARY KEY CHECK (charge_id <> ''),
    account_id     bigint NOT NULL REFERENCES billing.accounts,
    payment_intent text COLLATE "C",
    invoice_id     text COLLATE "C", -- which it paid, where Stripe says so
    amount         bigint NOT NULL CHECK (amount >= 0),
    currency       text,
    owed           bigint NOT NULL DEFAULT 0,
    taken          bigint NOT NULL DEFAULT 0,
    moves          integer NOT NULL DEFAULT 0, -- of its units, away and back: each has its own key in the ledger
    seen_seq       bigint NOT NULL DEFAULT 0, -- ticket of the last look at its refunds
    CONSTRAINT charges_taken_of_owed CHECK (taken BETWEEN 0 AND owed)
);
CREATE INDEX charges_payment ON billing.charges (payment_intent) WHERE payment_intent IS NOT NULL;

-- stands: the money went back, or is about to; false: it failed or was canceled.
CREATE TABLE billing.refunds (
    refund_id text COLLATE "C" PRIMARY KEY CHECK (refund_id <> ''),
    charge_id text COLLATE "C" NOT NULL REFERENCES billing.charges,
    amount    bigint NOT NULL CHECK (amount >= 0),
    stands    boolean NOT NULL
);
CREATE INDEX refunds_charge ON billing.refunds (charge_id);

-- status is Stripe's word. holds: the policy was maintenance when it was first seen, and neither has it ended well since nor
-- has somebody else ended the maintenance.
CREATE TABLE billing.disputes (
    dispute_id text COLLATE "C" PRIMARY KEY CHECK (dispute_id <> ''),
    account_id bigint NOT NULL REFERENCES billing.accounts,
    charge_id  text COLLATE "C" NOT NULL REFERENCES billing.charges,
    amount     bigint NOT NULL CHECK (amount >= 0),
    status     text NOT NULL,
    holds      boolean NOT NULL DEFAULT false,
    seen_seq   bigint NOT NULL DEFAULT 0
);
CREATE INDEX disputes_charge ON billing.disputes (charge_id);
CREATE INDEX disputes_holding ON billing.disputes (account_id) WHERE holds;

CREATE TABLE billing.checkout_sessions (
    session_id     text COLLATE "C" PRIMARY KEY CHECK (session_id <> ''),
    account_id     bigint NOT NULL REFERENCES billing.accounts,
    intent_key     text COLLATE "C",
    price_id       text COLLATE "C",
    style          text COLLATE "C", -- pages and options that it was made with
    mode           text NOT NULL CHECK (mode IN ('subscription', 'payment')),
    status         text NOT NULL CHECK (status IN ('open', 'paid', 'complete', 'expired')), -- paid: its event is on the way
    url            text,
    payment_intent text COLLATE "C", -- finds the pack of a refund
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at     timestamptz
);
CREATE UNIQUE INDEX checkout_sessions_one_open ON billing.checkout_sessions (account_id)
    WHERE status = 'open' AND mode = 'subscription';
CREATE INDEX checkout_sessions_url ON billing.checkout_sessions (created_at) WHERE url IS NOT NULL;
CREATE INDEX checkout_sessions_account ON billing.checkout_sessions (account_id);
CREATE INDEX checkout_sessions_payment ON billing.checkout_sessions (payment_intent) WHERE payment_intent IS NOT NULL;

-- A call to Stripe that is about to be made or under way, so that all who want the same at the same time share its
-- idempotency key. Gone once its result is stored.
CREATE TABLE billing.checkout_intents (
    account_id bigint NOT NULL REFERENCES billing.accounts,
    kind       text NOT NULL CHECK (kind IN ('customer', 'subscription', 'payment')),
    intent_key text COLLATE "C" NOT NULL UNIQUE,
    price_id   text COLLATE "C",
    style      text COLLATE "C",
    started_at billing.moment NOT NULL,
    PRIMARY KEY (account_id, kind)
);

-- Links that were dropped because the customer is gone: a late event must not bring one back.
CREATE TABLE billing.former_customers (
    customer_id text COLLATE "C" PRIMARY KEY,
    account_id  bigint NOT NULL REFERENCES billing.accounts,
    dropped_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Facts to tell others, written with the change that they tell of. For one account in the order of id.
CREATE TABLE billing.outbox (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic           text NOT NULL,
    dedupe_key      text COLLATE "C" NOT NULL CONSTRAINT outbox_once UNIQUE,
    account_id      bigint REFERENCES billing.accounts,
    payload         jsonb NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at         timestamptz,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX outbox_due ON billing.outbox (id) WHERE done_at IS NULL;

-- Tickets: a look at Stripe begins with fetch_seq + 1; what it saw is applied only if no later look at the same was: at the
-- subscriptions (applied_seq), the customer itself, its entitlements.
ALTER TABLE billing.accounts
    ADD COLUMN fetch_seq bigint NOT NULL DEFAULT 0,
    ADD COLUMN applied_seq bigint NOT NULL DEFAULT 0,
    ADD COLUMN customer_seq bigint NOT NULL DEFAULT 0,
    ADD COLUMN entitlements_seq bigint NOT NULL DEFAULT 0,
    ADD COLUMN entitlements text[], -- lookup keys of the features that Stripe grants; NULL: it never told
    ADD CONSTRAINT accounts_tickets CHECK (applied_seq <= fetch_seq);

-- remaining = what the plan gave and is left + bought. Spending takes the plan's part first.
-- one_time_left: the rest of the free plan's one-time allocation, set aside while a subscription provides; NULL while
-- the plan's part is that rest itself.
-- plan_no: whose allocation the plan's part is of. owed: what a downgrade by prorate could not take because it was spent.
ALTER TABLE billing.credit_balances
    ADD COLUMN plan_no smallint REFERENCES billing.plans ON DELETE SET NULL,
    ADD COLUMN owed bigint NOT NULL DEFAULT 0 CHECK (owed >= 0),
    ADD COLUMN bought bigint NOT NULL DEFAULT 0,
    ADD COLUMN one_time_left bigint CHECK (one_time_left >= 0),
    ADD CONSTRAINT credit_balances_bought CHECK (bought BETWEEN 0 AND remaining);
CREATE INDEX credit_balances_ending ON billing.credit_balances (period_end) WHERE period_end IS NOT NULL;

ALTER TABLE billing.audit_log
    ADD COLUMN invoice_id text COLLATE "C",
    ADD COLUMN amount bigint,
    ADD COLUMN currency text,
    ADD COLUMN attempt integer;

-- ---------------------------------------------------------------- used by the files that follow

-- Unix seconds from JSON; absent and null are NULL.
CREATE FUNCTION billing.stripe_time(value jsonb) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS
$$ SELECT pg_catalog.to_timestamp((value #>> '{}')::bigint) $$;

-- False: told already.
CREATE FUNCTION billing.outbox_put(p_topic text, p_key text, p_account_id bigint, p_payload jsonb) RETURNS boolean
    LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
BEGIN
    INSERT INTO outbox (topic, dedupe_key, account_id, payload) VALUES (p_topic, p_key, p_account_id, p_payload)
        ON CONFLICT ON CONSTRAINT outbox_once DO NOTHING;
    RETURN FOUND;
END $$;

-- Something that a person should look at: told once for each key, and audited.
CREATE FUNCTION billing.alarm(p_account_id bigint, p_kind text, p_key text, p_details jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = billing, pg_temp AS $$
DECLARE
    v_payload jsonb := jsonb_build_object('alarm', p_kind) || p_details;
BEGIN
    IF outbox_put('alarm', 'alarm:' || p_kind || ':' || p_key, p_account_id, v_payload) THEN
        INSERT INTO audit_log (account_id, actor, action, after) VALUES (p_account_id, audit_actor(), 'alarm', v_payload);
    END IF;
END $$;

REVOKE ALL ON ALL TABLES IN SCHEMA billing FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing FROM PUBLIC;
