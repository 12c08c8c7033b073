-- Tables of the first slice. Owner of every fact: PostgreSQL; Redis and shared memory hold copies.
-- Applied by the migration runner, one transaction a file, connected as the owner of schema billing.

CREATE SCHEMA IF NOT EXISTS billing;

-- Times that travel in snapshots as whole unix seconds. Infinity has no such form: one infinite value would break the
-- snapshot of its account and with it the publisher's whole batch.
CREATE DOMAIN billing.moment AS timestamptz(0) CHECK (isfinite(VALUE));

-- Names that operators choose in the catalog; they appear in JSON, headers and metrics without escaping.
CREATE DOMAIN billing.catalog_key AS text COLLATE "C" CHECK (VALUE ~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}$');

-- ---------------------------------------------------------------- catalog

-- What applications may want to know of a plan. Hosts put the values into header fields.
CREATE FUNCTION billing.valid_attributes(attributes jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_typeof(attributes) = 'object' AND (SELECT count(*) <= 32 AND coalesce(bool_and(
        a.key COLLATE "C" ~ '^[a-z0-9_]{1,48}$' AND CASE jsonb_typeof(a.value)
            WHEN 'boolean' THEN true
            WHEN 'number' THEN a.value::text ~ '^-?[0-9]{1,19}$'
                AND a.value::numeric BETWEEN -9223372036854775808 AND 9223372036854775807
            WHEN 'string' THEN (a.value #>> '{}') COLLATE "C" ~ '^[ -~]{1,255}$'
            ELSE false END), true)
        FROM jsonb_each(CASE WHEN jsonb_typeof(attributes) = 'object' THEN attributes ELSE '{}' END) a)
$$;

CREATE TABLE billing.plans (
    plan_no      smallint PRIMARY KEY CHECK (plan_no BETWEEN 1 AND 255),
    plan_key     billing.catalog_key NOT NULL UNIQUE,
    display_name text NOT NULL,
    rank         integer NOT NULL DEFAULT 0,
    is_free      boolean NOT NULL DEFAULT false,
    active       boolean NOT NULL DEFAULT true,
    rollover     boolean NOT NULL DEFAULT false, -- what is left of its credits at a renewal stays
    attributes   jsonb NOT NULL DEFAULT '{}' CHECK (billing.valid_attributes(attributes))
);

-- A former price keeps its row (active = false): subscriptions bought at it still name its id.
CREATE TABLE billing.plan_prices (
    price_no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan_no  smallint NOT NULL REFERENCES billing.plans ON DELETE CASCADE,
    interval text NOT NULL CHECK (interval IN ('day', 'week', 'month', 'year', 'one_time')),
    price_id text COLLATE "C" UNIQUE CHECK (price_id <> '' AND price_id NOT LIKE 'prod\_%'),
    amount   bigint NOT NULL CHECK (amount >= 0),
    currency text NOT NULL CHECK (currency ~ '^[a-z]{3}$'),
    active   boolean NOT NULL DEFAULT true
);
CREATE UNIQUE INDEX plan_prices_one_active ON billing.plan_prices (plan_no, interval) WHERE active;

CREATE TABLE billing.features (
    feature_no  smallint PRIMARY KEY CHECK (feature_no BETWEEN 0 AND 127),
    feature_key billing.catalog_key NOT NULL UNIQUE
);

CREATE TABLE billing.plan_features (
    plan_no    smallint NOT NULL REFERENCES billing.plans ON DELETE CASCADE,
    feature_no smallint NOT NULL REFERENCES billing.features,
    PRIMARY KEY (plan_no, feature_no)
);

CREATE TABLE billing.limits (
    limit_no  smallint PRIMARY KEY CHECK (limit_no BETWEEN 0 AND 63),
    limit_key billing.catalog_key NOT NULL UNIQUE,
    kind      text NOT NULL DEFAULT 'counter' CHECK (kind = 'counter'),
    period    text NOT NULL CHECK (period IN ('minute', 'hour', 'day', 'month', 'lifetime', 'cycle', 'sliding')),
    length    integer CHECK (length BETWEEN 60 AND 366 * 86400), -- of a sliding window, seconds
    CONSTRAINT limits_length_of_sliding CHECK ((period = 'sliding') = (length IS NOT NULL))
);

-- A limit without a row here is 0 for the plan. Unlimited is its own flag: NULL alone never means it. overage: as in plan_credits,
-- of units beyond the amount.
CREATE TABLE billing.plan_limits (
    plan_no        smallint NOT NULL REFERENCES billing.plans ON DELETE CASCADE,
    limit_no       smallint NOT NULL REFERENCES billing.limits,
    amount         bigint CHECK (amount >= 0),
    unlimited      boolean NOT NULL DEFAULT false,
    overage        text NOT NULL DEFAULT 'none' CHECK (overage IN ('none', 'switchable', 'always')),
    overage_amount numeric(20, 6) CHECK (overage_amount >= 0),
    overage_cap    bigint CHECK (overage_cap > 0),
    overage_meter  text COLLATE "C" CHECK (overage_meter ~ '^[!-~]{1,100}$'),
    PRIMARY KEY (plan_no, limit_no),
    CONSTRAINT plan_limits_amount_or_unlimited CHECK (unlimited = (amount IS NULL)),
    CONSTRAINT plan_limits_overage_amount CHECK ((overage = 'none') = (overage_amount IS NULL)),
    CONSTRAINT plan_limits_overage_of_amount CHECK (overage = 'none' OR NOT unlimited)
);

-- Short-term rates protect, they are not sold as units: hosts count them by themselves, nothing is kept here.
CREATE TABLE billing.rates (
    rate_no  smallint PRIMARY KEY CHECK (rate_no BETWEEN 0 AND 63),
    rate_key billing.catalog_key NOT NULL UNIQUE
);

-- So many requests in so many seconds. A rate without a row here is without bound for the plan.
CREATE TABLE billing.plan_rates (
    plan_no  smallint NOT NULL REFERENCES billing.plans ON DELETE CASCADE,
    rate_no  smallint NOT NULL REFERENCES billing.rates,
    requests integer NOT NULL CHECK (requests BETWEEN 0 AND 1000000),
    seconds  integer NOT NULL CHECK (seconds BETWEEN 1 AND 366 * 86400),
    PRIMARY KEY (plan_no, rate_no)
);

CREATE TABLE billing.credit_types (
    credit_no  smallint PRIMARY KEY CHECK (credit_no BETWEEN 0 AND 63),
    credit_key billing.catalog_key NOT NULL UNIQUE
);

-- Things that an account has at a time, as projects or users, and may have so many of.
CREATE TABLE billing.stocks (
    stock_no  smallint PRIMARY KEY CHECK (stock_no BETWEEN 0 AND 63),
    stock_key billing.catalog_key NOT NULL UNIQUE
);

-- A stock without a row here is 0 for the plan.
CREATE TABLE billing.plan_stocks (
    plan_no   smallint NOT NULL REFERENCES billing.plans ON DELETE CASCADE,
    stock_no  smallint NOT NULL REFERENCES billing.stocks,
    amount    bigint CHECK (amount >= 0),
    unlimited boolean NOT NULL DEFAULT false,
    PRIMARY KEY (plan_no, stock_no),
    CONSTRAINT plan_stocks_amount_or_unlimited CHECK (unlimited = (amount IS NULL))
);

-- warn_at: the account is told when it has no more than so many units left; 0: not before it has none.
-- overage: whether units beyond the balance may be taken, to be paid afterwards: never, unless the account has switched it
-- off, or always; at overage_amount (in the currency's smallest unit) each, up to overage_cap of them in a period, told to Stripe
-- as events of overage_meter.
CREATE TABLE billing.plan_credits (
    plan_no        smallint NOT NULL REFERENCES billing.plans ON DELETE CASCADE,
    credit_no      smallint NOT NULL REFERENCES billing.credit_types,
    quantity       bigint NOT NULL CHECK (quantity >= 0),
    warn_at        bigint NOT NULL DEFAULT 0 CHECK (warn_at >= 0),
    overage        text NOT NULL DEFAULT 'none' CHECK (overage IN ('none', 'switchable', 'always')),
    overage_amount numeric(20, 6) CHECK (overage_amount >= 0),
    overage_cap    bigint CHECK (overage_cap > 0),
    overage_meter  text COLLATE "C" CHECK (overage_meter ~ '^[!-~]{1,100}$'),
    PRIMARY KEY (plan_no, credit_no),
    CONSTRAINT plan_credits_overage_amount CHECK ((overage = 'none') = (overage_amount IS NULL))
);

CREATE TABLE billing.packs (
    pack_key  billing.catalog_key PRIMARY KEY,
    credit_no smallint NOT NULL REFERENCES billing.credit_types,
    quantity  bigint NOT NULL CHECK (quantity > 0),
    price_id  text COLLATE "C" UNIQUE CHECK (price_id <> '' AND price_id NOT LIKE 'prod\_%'),
    amount    bigint NOT NULL CHECK (amount >= 0),
    currency  text NOT NULL CHECK (currency ~ '^[a-z]{3}$'),
    active    boolean NOT NULL DEFAULT true
);

-- What each price that a pack has ever had stands for: it may be paid when the catalog has another one by then. Kept by a
-- trigger of packs; outlives them.
CREATE TABLE billing.pack_prices (
    price_id  text COLLATE "C" PRIMARY KEY,
    pack_key  billing.catalog_key NOT NULL,
    credit_no smallint NOT NULL REFERENCES billing.credit_types,
    quantity  bigint NOT NULL CHECK (quantity > 0)
);

-- One row. epoch_manual goes up by one when a dump is restored (a dump keeps the timeline, see billing.epoch()).
CREATE TABLE billing.meta (
    one             boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch_manual    integer NOT NULL DEFAULT 0 CHECK (epoch_manual BETWEEN 0 AND 2047),
    catalog_version bigint NOT NULL DEFAULT 1 CHECK (catalog_version BETWEEN 1 AND 1099511627775),
    default_plan    smallint REFERENCES billing.plans,
    -- what a change of plan does to credits, and whether who ends a subscription has the free plan's allocation again
    credits_policy  text NOT NULL DEFAULT 'keep_used' CHECK (credits_policy IN ('keep_used', 'reset', 'prorate')),
    free_realloc    boolean NOT NULL DEFAULT false
);
INSERT INTO billing.meta DEFAULT VALUES;

-- ---------------------------------------------------------------- accounts

CREATE TABLE billing.accounts (
    id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY CHECK (id < 1099511627776), -- hosts keep 40 bits
    external_id        text COLLATE "C" NOT NULL UNIQUE CHECK (external_id ~ '^[A-Za-z0-9_.@:|-]{1,128}$'),
    plan_no            smallint NOT NULL REFERENCES billing.plans,
    status             text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'trialing', 'past_due', 'canceled',
                           'unpaid', 'paused', 'incomplete', 'incomplete_expired')),
    maintenance        text NOT NULL DEFAULT 'none' CHECK (maintenance IN ('none', 'payment', 'operator')),
    write_enabled      boolean NOT NULL DEFAULT true,
    billing_enforced   boolean NOT NULL DEFAULT false,
    overage_on         boolean NOT NULL DEFAULT true, -- its own switch, where its plan leaves it one
    grace_until        billing.moment,
    trial_end          billing.moment,
    period_start       billing.moment,
    period_end         billing.moment,
    cancel_at          billing.moment,
    -- Billing months begin here: [anchor + k months). The subscription's, else the moment at which the account came into being.
    cycle_anchor       billing.moment NOT NULL DEFAULT date_trunc('second', now()),
    zone               text COLLATE "C", -- of days and months, as Europe/Berlin; NULL: UTC
    email              text,
    name               text,
    stripe_customer_id text COLLATE "C" UNIQUE,
    ent_version        bigint NOT NULL DEFAULT 1 CHECK (ent_version BETWEEN 1 AND 1099511627775),
    ent_changed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at         timestamptz,
    created_at         timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 85);
CREATE INDEX accounts_ent_changed_at ON billing.accounts (ent_changed_at); -- the reconciler's "changed within the hour"

-- Overrides only; what the plan grants is derived from the catalog.
CREATE TABLE billing.account_features (
    account_id bigint NOT NULL REFERENCES billing.accounts,
    feature_no smallint NOT NULL REFERENCES billing.features,
    enabled    boolean NOT NULL,
    expires_at billing.moment,
    source     text NOT NULL DEFAULT 'override' CHECK (source IN ('override', 'support', 'stripe')),
    PRIMARY KEY (account_id, feature_no)
);

CREATE TABLE billing.account_limits (
    account_id bigint NOT NULL REFERENCES billing.accounts,
    limit_no   smallint NOT NULL REFERENCES billing.limits,
    amount     bigint CHECK (amount >= 0),
    unlimited  boolean NOT NULL DEFAULT false,
    expires_at billing.moment,
    reason     text,
    PRIMARY KEY (account_id, limit_no),
    CONSTRAINT account_limits_amount_or_unlimited CHECK (unlimited = (amount IS NULL))
);

CREATE TABLE billing.account_stocks (
    account_id bigint NOT NULL REFERENCES billing.accounts,
    stock_no   smallint NOT NULL REFERENCES billing.stocks,
    amount     bigint CHECK (amount >= 0),
    unlimited  boolean NOT NULL DEFAULT false,
    expires_at billing.moment,
    reason     text,
    PRIMARY KEY (account_id, stock_no),
    CONSTRAINT account_stocks_amount_or_unlimited CHECK (unlimited = (amount IS NULL))
);

-- ---------------------------------------------------------------- stock

-- current: how many there are; reserved: how many are being made at the moment. Their sum is held to the limit when something is
-- reserved; it is no constraint, for limits may fall and applications may state what there is.
CREATE TABLE billing.stock_levels (
    account_id bigint NOT NULL REFERENCES billing.accounts,
    stock_no   smallint NOT NULL REFERENCES billing.stocks,
    current    bigint NOT NULL DEFAULT 0 CONSTRAINT stock_levels_current_not_negative CHECK (current >= 0),
    reserved   bigint NOT NULL DEFAULT 0 CONSTRAINT stock_levels_reserved_not_negative CHECK (reserved >= 0),
    PRIMARY KEY (account_id, stock_no)
) WITH (fillfactor = 70);

-- ---------------------------------------------------------------- credits

CREATE TABLE billing.credit_balances (
    account_id     bigint NOT NULL REFERENCES billing.accounts,
    credit_no      smallint NOT NULL REFERENCES billing.credit_types,
    allocated      bigint NOT NULL DEFAULT 0 CHECK (allocated >= 0),
    remaining      bigint NOT NULL DEFAULT 0 CHECK (remaining >= 0),
    used           bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    overage        bigint NOT NULL DEFAULT 0 CHECK (overage >= 0),
    charged        bigint NOT NULL DEFAULT 0, -- of overage: is in usage_charges by now, and stays there
    period_seq     bigint NOT NULL DEFAULT 0,
    period_start   timestamptz,
    period_end     timestamptz,
    last_refill_at timestamptz,
    low_at         timestamptz, -- when its account was told that little is left, and that nothing is; NULL: not since a refill
    exhausted_at   timestamptz,
    PRIMARY KEY (account_id, credit_no),
    CONSTRAINT credit_balances_charged CHECK (charged BETWEEN 0 AND overage)
) WITH (fillfactor = 70);

CREATE TABLE billing.credit_ledger (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id    bigint NOT NULL REFERENCES billing.accounts,
    credit_no     smallint NOT NULL REFERENCES billing.credit_types,
    action        text NOT NULL CHECK (action IN
                      ('allocate', 'deduct', 'overage', 'refund', 'refill', 'grant', 'adjust')),
    quantity      bigint NOT NULL,
    balance_after bigint NOT NULL CHECK (balance_after >= 0),
    idem_key      text COLLATE "C" NOT NULL,
    job_id        text,
    invoice_id    text,
    reason        text,
    metadata      jsonb NOT NULL DEFAULT '{}',
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT credit_ledger_once UNIQUE (account_id, idem_key)
);

-- ---------------------------------------------------------------- quotas

-- issued: tokens that left for hosts, less those that came back; used: what hosts reported as spent.
-- period 0 of a cycle or sliding window holds nothing: who funds locks it, so that sums over rows are exact.
-- issued <= cap + the overage that is allowed holds when tokens are issued (quota_fund, under the row's lock); it is no constraint, for
-- caps may fall. cap NULL = unlimited.
-- Overage: what is used beyond spared, units that were issued as what the account has, and charged, those that are in usage_charges. fillfactor: every fund and flush updates the row in place (HOT).
CREATE TABLE billing.quota_periods (
    account_id  bigint NOT NULL REFERENCES billing.accounts,
    limit_no    smallint NOT NULL REFERENCES billing.limits,
    period      bigint NOT NULL,
    starts      timestamptz,
    ends        timestamptz,
    cap         bigint CHECK (cap >= 0),
    issued      bigint NOT NULL DEFAULT 0 CONSTRAINT quota_periods_issued_not_negative CHECK (issued >= 0),
    used        bigint NOT NULL DEFAULT 0 CONSTRAINT quota_periods_used_not_negative CHECK (used >= 0),
    late        bigint NOT NULL DEFAULT 0, -- of issued and of used: charged after the fact, whatever the cap (charge_late)
    -- of windows that may overlap others (cycle, sliding): the largest cap under which units were issued, and when last
    peak        bigint,
    issued_at   timestamptz,
    nearly_at   timestamptz, -- when issued first crossed 90 % of the cap and hosts were asked to return what they hold
    recalled_at timestamptz, -- when hosts were last asked because a request was about to be refused
    spared      bigint NOT NULL DEFAULT 0,
    charged     bigint NOT NULL DEFAULT 0 CHECK (charged >= 0),
    overage_plan smallint,    -- by whose terms units beyond were issued last
    overage_ends timestamptz, -- ends, while there is overage to charge for
    warned      integer[] NOT NULL DEFAULT '{}', -- thresholds, in percent, that its account has been told of
    PRIMARY KEY (account_id, limit_no, period)
) WITH (fillfactor = 60);
CREATE INDEX quota_periods_overage ON billing.quota_periods (overage_ends) WHERE overage_ends IS NOT NULL;
CREATE INDEX quota_periods_overage_of ON billing.quota_periods (account_id) WHERE overage_ends IS NOT NULL;

-- One row for each shared-memory zone ever born; last_seq fences its usage reports, late_seq its late charges.
CREATE TABLE billing.instances (
    instance_id uuid PRIMARY KEY,
    host        text NOT NULL,
    last_seq    bigint NOT NULL DEFAULT 0 CHECK (last_seq >= 0),
    late_seq    bigint NOT NULL DEFAULT 0 CHECK (late_seq >= 0),
    last_epoch  integer NOT NULL DEFAULT -1, -- in which last_seq was written, and late_seq; -1: not yet
    late_epoch  integer NOT NULL DEFAULT -1,
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 60);

-- ---------------------------------------------------------------- audit and publishing

CREATE TABLE billing.audit_log (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    account_id bigint REFERENCES billing.accounts,
    actor      text NOT NULL,
    action     text NOT NULL,
    before     jsonb,
    after      jsonb
);
CREATE INDEX audit_log_account ON billing.audit_log (account_id, id);

-- Accounts whose snapshot is not published yet. since: start of the first transaction that made it dirty; so it is
-- never later than the commit, and a watermark limited by it promises too little rather than too much.
CREATE TABLE billing.snapshot_dirty (
    account_id    bigint PRIMARY KEY REFERENCES billing.accounts,
    version       bigint NOT NULL,
    since         timestamptz NOT NULL DEFAULT now(),
    claimed_until timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX snapshot_dirty_since ON billing.snapshot_dirty (since);
