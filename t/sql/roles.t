# Promise (S4, R1): the workers' roles can call what they need and nothing else; no table is open to them.
use strict;
use warnings;
use Test::More;
use Billing::Database;

my $db = Billing::Database->new->migrate;
$db->apply_catalog({ default_plan => 'free', quotas => { a => { period => 'month' } }, plans => { free => { quotas => { a => 5 } } } });
$db->psql('CREATE ROLE gate LOGIN IN ROLE billing_gate');
$db->psql('CREATE ROLE jobs LOGIN IN ROLE billing_jobs');
$db->psql('CREATE ROLE stranger LOGIN');
my %as = map { $_ => $db->dbi(user => $_) } qw(gate jobs stranger);

my %calls = (
    'epoch'            => 'SELECT billing.epoch()',
    'stamp'            => 'SELECT billing.stamp(1)',
    'snapshots'        => q{SELECT * FROM billing.snapshots('{x}', true)},
    'catalog_document' => 'SELECT billing.catalog_document()',
    'quota_fund'       => q{SELECT * FROM billing.quota_fund('{1}', '{1}', '{0}', '{0}', '{1}', '{1}', '{0}')},
    'usage_flush'      => q{SELECT billing.usage_flush(gen_random_uuid(), 'h', 1, '{1}', '{0}', '{0}', '{0}', '{0}')},
    'publish_claim'    => 'SELECT * FROM billing.publish_claim(10)',
    'publish_done'     => q{SELECT billing.publish_done('{}', '{}')},
    'catalog_apply'    => q{SELECT billing.catalog_apply('{"default_plan": "free", "plans": {"free": {}}}')},
    'account_set'      => q{SELECT billing.account_set('x', '{}', 'me')},
    'account_show'     => q{SELECT billing.account_show('x')},
    'ensure_accounts'  => q{SELECT billing.ensure_accounts('{y}')},
);
my @gate = qw(epoch stamp snapshots catalog_document quota_fund usage_flush);
my %may = (gate => { map { $_ => 1 } @gate }, jobs => { map { $_ => 1 } @gate, qw(publish_claim publish_done) }, stranger => {});
for my $role (sort keys %may) {
    for my $call ('snapshots', sort keys %calls) {    # snapshots first: it makes the account
        my $worked = eval { $as{$role}->do($calls{$call}); 1 };
        is !!$worked, !!$may{$role}{$call}, "$role " . ($may{$role}{$call} ? 'may' : 'may not') . " call $call" or diag $@;
        like $@, qr/permission denied/, "$role: $call is a matter of permission" if !$worked;
    }
}

my $tables = $db->dbi->selectcol_arrayref(q{SELECT relname FROM pg_class WHERE relnamespace = 'billing'::regnamespace
    AND relkind IN ('r', 'v', 'p', 'm')});
ok @$tables > 15, 'all tables and views';
is $db->psql(q{SELECT count(*) FROM pg_class c, unnest('{gate,jobs,stranger}'::text[]) r, unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) p
    WHERE relnamespace = 'billing'::regnamespace AND relkind IN ('r', 'v') AND has_table_privilege(r, c.oid, p)}), 0,
    'no role has any right on any of them';
ok !eval { $as{gate}->do('UPDATE billing.accounts SET plan_no = 1'); 1 }, 'the gate cannot write accounts';
like $@, qr/permission denied/, 'for lack of permission';

# A function that runs with its owner's rights must not look up names where its caller can plant them.
is $db->psql(q{SELECT string_agg(proname, ' ') FROM pg_proc WHERE pronamespace = 'billing'::regnamespace AND prosecdef
    AND NOT coalesce(proconfig::text LIKE '%search_path=billing, pg_temp%', false)}), '', 'every SECURITY DEFINER function pins search_path';
is $db->psql(q{SELECT string_agg(DISTINCT proname, ' ') FROM pg_proc p, aclexplode(p.proacl) a
    WHERE pronamespace = 'billing'::regnamespace AND a.grantee = 0}), '', 'no function is open to everybody';
is $db->psql(q{SELECT count(*) FROM pg_proc WHERE pronamespace = 'billing'::regnamespace AND proacl IS NULL}), 0,
    'not by default either';
$as{gate}->do('CREATE TEMP TABLE accounts (id bigint, external_id text)');
my ($account) = $as{gate}->selectrow_array(q{SELECT account FROM billing.snapshots('{x}', false)});
is $account, 'x', 'a temporary table of the caller does not stand in for ours';

# Other databases of the cluster share the roles, also when both are made at once.
$db->psql('CREATE DATABASE second');
$db->psql('CREATE DATABASE third');
ok eval { $db->migrate(dbname => 'second') }, 'migrates where the roles exist already' or diag $@;
$db->psql('DROP OWNED BY gate');
for my $name (qw(second billing)) { my $h = $db->dbi(dbname => $name); $h->do('DROP OWNED BY billing_gate, billing_jobs'); $h->disconnect }
$_->disconnect for values %as;
$db->psql('DROP ROLE billing_gate');
$db->psql('CREATE DATABASE fourth');
my $rival = $db->dbi(dbname => 'fourth');
$rival->begin_work;
$rival->do('CREATE ROLE billing_gate NOLOGIN');
my $pid = fork // die;
if (!$pid) { POSIX::_exit(eval { $db->migrate(dbname => 'third'); 1 } ? 0 : 1) }
my $until = time + 20;
until ($db->psql(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'})) {
    die 'the migration never met its rival' if time > $until;
    select undef, undef, undef, 0.01;
}
$rival->commit;
waitpid $pid, 0;
is $?, 0, 'a role that another database makes at the same moment is no error';
done_testing;
