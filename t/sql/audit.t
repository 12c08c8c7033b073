# Promise (S11): every change of plan, status, flag and override leaves one audit row that says who, before and after, whoever
# makes it; the audit and the ledger can only grow.
use strict;
use warnings;
use Test::More;
use Billing::Database;
use JSON::PP;

my $db = Billing::Database->new->migrate;
$db->apply_catalog({ default_plan => 'free', features => ['export'], quotas => { requests => { period => 'month' } },
    credits => { logo => {} }, plans => { free => { credits => { logo => 4 } }, pro => {} } });
my $d = $db->dbi;
$d->do(q{SELECT billing.ensure_accounts('{a}')});
my $seen = 0;

sub audited {
    my ($name, $sql, $actor, $action, $before, $after) = @_;
    $d->do($sql);
    my $rows = $d->selectall_arrayref('SELECT id, actor, action, before, after, account_id FROM billing.audit_log
        WHERE id > $1 ORDER BY id', { Slice => {} }, $seen);
    $seen = $rows->[-1]{id} if @$rows;
    if (!defined $action) { is @$rows, 0, "$name: no row"; return }
    is @$rows, 1, "$name: one row" or return;
    is "$rows->[0]{actor} $rows->[0]{action} $rows->[0]{account_id}", "$actor $action 1", "$name: who, what, whose";
    my %got = map { $_ => $rows->[0]{$_} && decode_json($rows->[0]{$_}) } qw(before after);
    for my $side ([before => $before], [after => $after]) {
        my ($key, $want) = @$side;
        my $have = $got{$key};
        $have = { map { $_ => $have->{$_} } keys %$want } if $have && $want && $action =~ /override/;
        is_deeply $have, $want, "$name: $key";
    }
}
my ($yes, $no) = (JSON::PP::true, JSON::PP::false);

audited('creation', 'SELECT 1', undef, undef);
audited('plan', 'UPDATE billing.accounts SET plan_no = 2', 'postgres', 'account.change', { plan => 'free' }, { plan => 'pro' });
audited('status and a flag', q{UPDATE billing.accounts SET status = 'past_due', write_enabled = false, email = 'x@y'},
    'postgres', 'account.change', { status => 'active', write_enabled => $yes }, { status => 'past_due', write_enabled => $no });
audited('no-op', 'UPDATE billing.accounts SET plan_no = 2', undef, undef);
audited('personal data', q{UPDATE billing.accounts SET name = 'N', email = 'z@y'}, undef, undef);
audited('a raised version', 'UPDATE billing.accounts SET ent_version = ent_version + 1', undef, undef);
audited('maintenance', q{UPDATE billing.accounts SET maintenance = 'operator'}, 'postgres', 'account.change',
    { maintenance => 'none' }, { maintenance => 'operator' });
audited('deletion', 'UPDATE billing.accounts SET deleted_at = now()', 'postgres', 'account.change', { deleted => $no }, { deleted => $yes });
audited('revival', 'UPDATE billing.accounts SET deleted_at = NULL', 'postgres', 'account.change', { deleted => $yes }, { deleted => $no });
audited('feature', 'INSERT INTO billing.account_features (account_id, feature_no, enabled) VALUES (1, 0, true)', 'postgres',
    'feature.override', undef, { feature => 'export', enabled => $yes });
audited('feature changed', 'UPDATE billing.account_features SET enabled = false', 'postgres', 'feature.override',
    { feature => 'export', enabled => $yes }, { feature => 'export', enabled => $no });
audited('feature no-op', 'UPDATE billing.account_features SET enabled = false', undef, undef);
audited('feature removed', 'DELETE FROM billing.account_features', 'postgres', 'feature.override',
    { feature => 'export', enabled => $no }, undef);
audited('limit', 'INSERT INTO billing.account_limits (account_id, limit_no, amount) VALUES (1, 0, 5)', 'postgres',
    'limit.override', undef, { limit => 'requests', amount => 5, unlimited => $no });
audited('limit changed', 'UPDATE billing.account_limits SET amount = NULL, unlimited = true', 'postgres', 'limit.override',
    { amount => 5 }, { amount => undef, unlimited => $yes });

# The actor is what billing.actor says, for one transaction; account_set names its own and gives it back.
$d->begin_work;
$d->do(q{SET LOCAL billing.actor = 'event:evt_1'});
audited('actor', q{UPDATE billing.accounts SET maintenance = 'none'}, 'event:evt_1', 'account.change',
    { maintenance => 'operator' }, { maintenance => 'none' });
audited('account_set', q{SELECT billing.account_set('a', '{"plan": "free"}', 'cli:ann')}, 'cli:ann', 'account.change',
    { plan => 'pro' }, { plan => 'free' });
audited('after account_set', q{UPDATE billing.accounts SET status = 'active'}, 'event:evt_1', 'account.change',
    { status => 'past_due' }, { status => 'active' });
$d->commit;
audited('after the transaction', q{UPDATE billing.accounts SET status = 'unpaid'}, 'postgres', 'account.change',
    { status => 'active' }, { status => 'unpaid' });
$d->do(q{CREATE ROLE support LOGIN; GRANT USAGE ON SCHEMA billing TO support; GRANT SELECT, UPDATE ON billing.accounts TO support});
my $support = $db->dbi(user => 'support');
$support->do(q{UPDATE billing.accounts SET status = 'active'});
audited('another user', 'SELECT 1', 'support', 'account.change', { status => 'unpaid' }, { status => 'active' });
is $db->psql('SELECT count(*) FROM billing.snapshot_dirty'), 1, 'whose right on accounts is enough to have it published';

for my $table (qw(audit_log credit_ledger)) {
    ok $db->psql("SELECT count(*) FROM billing.$table") > 0, "$table has rows";
    for my $sql ("UPDATE billing.$table SET at = now()", "DELETE FROM billing.$table", "TRUNCATE billing.$table") {
        ok !eval { $d->do($sql); 1 }, "refused: $sql";
        like $@, qr/append-only/, 'and says why';
    }
}
ok !eval { $d->do(q{INSERT INTO billing.credit_ledger (account_id, credit_no, action, quantity, balance_after, idem_key)
    VALUES (1, 0, 'grant', 1, 1, 'alloc:free:logo')}); 1 }, 'an idempotency key counts once for an account';
like $@, qr/credit_ledger_once/, 'by constraint';
done_testing;
