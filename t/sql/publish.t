# Promise (R3, S5, 2.2): every change is published; the heartbeat never claims more than was published; a publisher that dies
# or meets a newer version loses nothing.
use strict;
use warnings;
use Test::More;
use Billing::Database;

my $db = Billing::Database->new->migrate;
$db->apply_catalog({ default_plan => 'free', plans => { free => {} } });
my $d = $db->dbi;
$d->do(q{SELECT billing.ensure_accounts('{a,b,c}')});

sub claim {
    my ($batch) = @_;
    my $rows = $d->selectall_arrayref('SELECT * FROM billing.publish_claim($1)', { Slice => {} }, $batch // 100);
    return (shift @$rows, @$rows);
}
sub done {
    my @rows = @_;
    return scalar $d->selectrow_array('SELECT billing.publish_done($1, $2)', undef,
        [map { $_->{id} } @rows], [map { $_->{version} } @rows]);
}
sub change { my ($h, $to, $id) = @_; $h->do("UPDATE billing.accounts SET status = '$to' WHERE id = " . ($id // 1)) }
sub unix_ms { scalar $_[0]->selectrow_array('SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint') }

my $before = unix_ms($d);
my ($head, @rows) = claim();
my $after = unix_ms($d);
ok !defined $head->{account}, 'the first row is the head';
ok $head->{watermark} >= $before && $head->{watermark} <= $after, 'its watermark is PostgreSQL\'s clock at the claim';
is $head->{epoch}, 1, 'epoch';
is $head->{catalog_stamp}, 1 << 40 | $d->selectrow_array('SELECT catalog_version FROM billing.meta'), 'stamp of the catalog';
is_deeply [sort map { $_->{account} } @rows], [qw(a b c)], 'all dirty accounts are claimed';
is_deeply [grep { $_->{stamp} != (1 << 40 | $_->{version}) } @rows], [], 'stamps are epoch and version';
is $rows[0]{body}, $d->selectrow_array('SELECT body FROM billing.snapshots($1, false)', undef, [$rows[0]{account}]),
    'the body is the snapshot';
is scalar((claim())[1]), undef, 'what is claimed is not claimed again';

my $left = done(@rows);
ok !defined $left, 'nothing remains after done';
is $db->psql('SELECT count(*) FROM billing.snapshot_dirty'), 0, 'the set is drained';

# A change between claim and done survives.
change($d, 'past_due');
($head, @rows) = claim();
is @rows, 1, 'one account changed';
my $since = $db->psql('SELECT floor(extract(epoch FROM since) * 1000)::bigint FROM billing.snapshot_dirty');
change($d, 'active');
is done(@rows), $since, 'done keeps the newer version, and its since is still that of the first change';
($head, @rows) = claim();
is @rows, 1, 'it can be claimed at once: the change undid the claim';
like $rows[0]{body}, qr/"status":"active"/, 'with the new content';
ok !defined done(@rows), 'and is done';

# A crash between claim and done: the claim lapses.
change($d, 'unpaid');
claim();
is scalar((claim())[1]), undef, 'the dead publisher\'s claim holds';
$d->do(q{UPDATE billing.snapshot_dirty SET claimed_until = claimed_until - interval '10 s'});
($head, @rows) = claim();
is $rows[0]{account}, 'a', 'after 10 s somebody else gets it';
my $claim = $db->psql(q{SELECT extract(epoch FROM claimed_until - clock_timestamp()) FROM billing.snapshot_dirty});
ok $claim > 5 && $claim <= 10, 'for 10 s again';
done(@rows);

# The watermark never passes a commit that is not published: an open transaction commits after the claim.
my $open = $db->dbi;
change($d, 'active');
$open->begin_work;
change($open, 'paused', 2);
($head, @rows) = claim();
is_deeply [map { $_->{account} } @rows], ['a'], 'an uncommitted change is not seen';
$open->commit;
$left = done(@rows);
ok defined $left, 'the new one remains';
my ($b) = $d->selectrow_array('SELECT floor(extract(epoch FROM since) * 1000)::bigint FROM billing.snapshot_dirty');
is $left, $b, 'and holds the heartbeat back to the start of its transaction';
($head, @rows) = claim();
ok $rows[0]{account} eq 'b' && $left <= $head->{watermark}, 'it is claimed by the next round';
done(@rows);

# An open transaction on a dirty account neither stops the publisher nor is overtaken by the heartbeat.
change($d, 'unpaid');
($head, @rows) = claim();
$open->begin_work;
change($open, 'paused', 1);
$d->do(q{SET lock_timeout = '2s'});
$left = eval { done(@rows) };
is $@, '', 'done does not wait for an open transaction';
ok defined $left && $left <= $head->{watermark}, 'the account stays dirty, with its old since';
is eval { scalar((claim())[1]) // 'none' }, 'none', 'neither does claim';
$open->commit;
($head, @rows) = claim();
like $rows[0]{body}, qr/"status":"paused"/, 'then its commit is published';
ok !defined done(@rows), 'and done';

# Batches take the oldest first and the rest holds the heartbeat back.
change($d, 'incomplete', $_) for 3, 2, 1;
($head, @rows) = claim(2);
is_deeply [map { $_->{id} } @rows], [3, 2], 'the oldest two';
$left = done(@rows);
is $left, $db->psql('SELECT floor(extract(epoch FROM since) * 1000)::bigint FROM billing.snapshot_dirty'),
    'the third holds the heartbeat back';
ok $left <= $head->{watermark}, 'before the watermark';
done((claim())[1]);

# Two publishers share the work.
change($d, 'trialing', $_) for 1 .. 3;
$open->begin_work;
my $theirs = $open->selectall_arrayref('SELECT id FROM billing.publish_claim(1) OFFSET 1');
(undef, @rows) = claim();
is @rows, 2, 'a claim in flight is passed over, not waited for';
$open->commit;
is_deeply [sort map({ $_->{id} } @rows), $theirs->[0][0]], [1, 2, 3], 'nothing is claimed twice';

# The watermark is read before the scan: one that waits in front of the scan must not count as later than what commits then.
$open->begin_work;
$open->do('LOCK TABLE billing.snapshot_dirty IN ACCESS EXCLUSIVE MODE');
pipe my $from, my $to;
my $pid = fork // die;
if (!$pid) {
    $d = $db->dbi;
    my ($mine) = claim();
    print {$to} $mine->{watermark}, "\n";
    close $to;
    POSIX::_exit(0);
}
close $to;
my $until = time + 20;
until ($db->psql(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'})) {
    die 'the publisher never came to its scan' if time > $until;
    select undef, undef, undef, 0.01;
}
my $waited = unix_ms($d);
$open->commit;
chomp(my $watermark = readline $from);
waitpid $pid, 0;
ok $watermark <= $waited, 'the watermark is older than the scan';

# A restored dump: epoch_manual makes every stamp larger.
my ($old) = $d->selectrow_array(q{SELECT stamp FROM billing.snapshots('{a}', false)});
$d->do('UPDATE billing.meta SET epoch_manual = epoch_manual + 1');
my ($new) = $d->selectrow_array(q{SELECT stamp FROM billing.snapshots('{a}', false)});
is $new >> 40, 4097, 'epoch = epoch_manual * 4096 + timeline';
ok $new > $old, 'a new epoch beats every version of the old';
is $d->selectrow_array('SELECT billing.epoch()'), 4097, 'epoch()';
is $d->selectrow_array('SELECT billing.stamp(7)'), 4097 << 40 | 7, 'stamp()';
ok !eval { $d->do('SELECT billing.stamp(1::bigint << 40)'); 1 }, 'a version out of range is refused';
done_testing;
