# Promise (R2, S5): an account's version rises exactly when its snapshot changes, in the order of the commits, whoever writes.
use strict;
use warnings;
use Test::More;
use Billing::Database;

my $db = Billing::Database->new->migrate;
$db->apply_catalog({ default_plan => 'free', features => ['export'], quotas => { requests => { period => 'month' } },
    plans => { free => { quotas => { requests => 10 } }, pro => { rank => 1 } } });
my $d = $db->dbi;
$d->do(q{SELECT billing.ensure_accounts('{a,b}')});
$d->do(q{INSERT INTO billing.quota_periods (account_id, limit_no, period) VALUES (1, 0, 1)});

sub version { scalar $d->selectrow_array(q{SELECT ent_version FROM billing.accounts WHERE external_id = 'a'}) }
sub body    { scalar $d->selectrow_array(q{SELECT body FROM billing.snapshots('{a}', false)}) }
sub dirty   { scalar $d->selectrow_array(q{SELECT version FROM billing.snapshot_dirty WHERE account_id = 1}) // 0 }

# bump: how far the version must move
sub moves {
    my ($bump, $name, $sql) = @_;
    my $before = version();
    my $was = body();
    $d->do('DELETE FROM billing.snapshot_dirty');
    $d->do('LISTEN billing_dirty');
    1 while $d->pg_notifies;
    $d->do($sql);
    is version() - $before, $bump, "$name: version +$bump";
    is dirty(), $bump ? version() : 0, "$name: " . ($bump ? 'dirty at the new version' : 'stays clean');
    $d->do('SELECT 1');
    is !!$d->pg_notifies, !!$bump, "$name: " . ($bump ? 'wakes the publisher' : 'wakes nobody');
    (my $x = $was) =~ s/"stamp":"\w+"//;
    (my $y = body()) =~ s/"stamp":"\w+"//;
    is $x ne $y, !!$bump, "$name: body and version agree" if $bump < 2;
}

is version(), 1, 'a new account starts at 1';
is dirty(), 1, 'and is dirty';
moves(0, 'no-op update', q{UPDATE billing.accounts SET plan_no = plan_no, status = status});
moves(0, 'email', q{UPDATE billing.accounts SET email = 'x@example.com', name = 'X'});
moves(1, $_, "UPDATE billing.accounts SET $_ WHERE id = 1") for
    "status = 'past_due'", 'plan_no = 2', 'write_enabled = false', "maintenance = 'operator'", 'billing_enforced = true',
    'overage_on = false', "grace_until = '2030-01-01'", "trial_end = '2030-01-01'", "period_end = '2030-01-01'",
    "cancel_at = '2030-01-01'", 'deleted_at = now()';
moves(0, 'a fraction of a second', "UPDATE billing.accounts SET grace_until = '2030-01-01 00:00:00.3Z' WHERE id = 1");
moves(0, 'deleted again', 'UPDATE billing.accounts SET deleted_at = clock_timestamp() WHERE id = 1');
moves(1, 'revived', 'UPDATE billing.accounts SET deleted_at = NULL WHERE id = 1');
moves(1, 'feature added', 'INSERT INTO billing.account_features (account_id, feature_no, enabled) VALUES (1, 0, true)');
moves(1, 'feature changed', 'UPDATE billing.account_features SET enabled = false');
moves(0, 'feature no-op', 'UPDATE billing.account_features SET enabled = false');
moves(0, 'feature source', q{UPDATE billing.account_features SET source = 'support'});
moves(1, 'feature expiry', q{UPDATE billing.account_features SET expires_at = '2030-01-01'});
moves(1, 'feature removed', 'DELETE FROM billing.account_features');
moves(1, 'limit added', 'INSERT INTO billing.account_limits (account_id, limit_no, amount) VALUES (1, 0, 5)');
moves(1, 'limit unlimited', 'UPDATE billing.account_limits SET amount = NULL, unlimited = true');
moves(0, 'limit reason', q{UPDATE billing.account_limits SET reason = 'sales'});
moves(1, 'limit removed', 'DELETE FROM billing.account_limits');
moves(0, 'counters', 'UPDATE billing.quota_periods SET issued = 5, used = 3');
moves(2, 'explicit raise', 'UPDATE billing.accounts SET ent_version = ent_version + 2 WHERE id = 1');

sub refused {
    my ($sql, $like, $name) = @_;
    ok !eval { $d->do($sql); 1 }, $name;
    like $@, $like, "$name: says why";
}
refused('DELETE FROM billing.accounts WHERE id = 1', qr/set deleted_at/, 'deleting an account is refused');
refused('TRUNCATE billing.accounts CASCADE', qr/is refused/, 'truncating accounts is refused');
refused('TRUNCATE billing.account_features', qr/use DELETE/, 'truncating overrides is refused');
refused('UPDATE billing.accounts SET ent_version = 1 WHERE id = 1', qr/cannot go back/, 'a version cannot go back');
refused(q{UPDATE billing.accounts SET external_id = 'z' WHERE id = 1}, qr/cannot change/, 'an account keeps its id');
refused(q{UPDATE billing.accounts SET grace_until = 'infinity' WHERE id = 1}, qr/violates check/, 'no infinite times');

# Version order is commit order: the second writer waits for the first, and builds on its version.
my ($one, $two) = ($db->dbi, $db->dbi);
my $start = version();
$one->begin_work;
$one->do(q{UPDATE billing.accounts SET status = 'unpaid' WHERE id = 1});
my $pid = fork // die;
if (!$pid) {
    my $mine = $db->dbi;
    $mine->do(q{UPDATE billing.accounts SET status = 'active' WHERE id = 1});
    POSIX::_exit(0);
}
my $until = time + 20;
until ($two->selectrow_array(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'})) {
    die 'the second writer never came' if time > $until;
    select undef, undef, undef, 0.01;
}
is version(), $start, 'nothing is visible before the commit';
$one->commit;
waitpid $pid, 0;
is version(), $start + 2, 'the later commit has the higher version';
like body(), qr/"status":"active"/, 'and its content stands';
done_testing;
