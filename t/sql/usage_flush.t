# Promise (3.4): a host's report is applied exactly once and in order, however often it is sent.
use strict;
use warnings;
use Test::More;
use Billing::Database;

my $db = Billing::Database->new->migrate;
$db->apply_catalog({ default_plan => 'free', quotas => { a => { period => 'lifetime' }, b => { period => 'lifetime' } },
    plans => { free => { quotas => { a => 100, b => 100 } } } });
my $d = $db->dbi;
$d->do(q{SELECT billing.ensure_accounts('{x,y}')});
$d->do(q{SELECT billing.quota_fund('{1,1,1}', '{1,1,2}', '{0,1,0}', '{0,0,0}', '{50,50,50}', '{50,50,50}', '{0,0,0}')});
my ($one, $two) = ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000002');

# rows: [account, limit, spent, returned]
sub flush {
    my ($instance, $seq, @rows) = @_;
    my @c = map { my $i = $_; [map { $_->[$i] } @rows] } 0 .. 3;
    return scalar $d->selectrow_array('SELECT billing.usage_flush($1, $2, $3, $4, $5, $6, $7, $8)', undef, $instance, 'h1',
        $seq, $c[0], $c[1], [map { 0 } @rows], $c[2], $c[3]);
}
sub state { $db->psql("SELECT issued, used FROM billing.quota_periods WHERE account_id = $_[0] AND limit_no = $_[1]") }
sub last_seq { $db->psql("SELECT last_seq FROM billing.instances WHERE instance_id = '$_[0]'") }
sub refused {
    my ($like, $name, @args) = @_;
    my ($state, $seq) = (state(1, 0), last_seq($one));
    ok !eval { flush(@args); 1 }, $name;
    like $@, $like, "$name: says why";
    is state(1, 0) . last_seq($one), $state . $seq, "$name: changes nothing";
}

is flush($one, 0, [1, 0, 1, 0]), 'dup', 'nothing comes before 1';
is last_seq($one), '', 'and leaves no row';
is flush($one, 1, [1, 0, 7, 3], [1, 1, 2, 0], [2, 0, 1, 1]), 'ok', 'the first batch';
is state(1, 0), '47|7', 'spent is used, returned is no longer issued';
is state(1, 1), '50|2', 'each row for itself';
is state(2, 0), '49|1', 'each account too';
is flush($one, 1, [1, 0, 7, 3], [1, 1, 2, 0], [2, 0, 1, 1]), 'dup', 'sent again';
is state(1, 0), '47|7', 'nothing happens';
is flush($one, 3, [1, 0, 1, 0]), 'gap', 'a batch too early';
is state(1, 0), '47|7', 'is not applied';
is last_seq($one), 1, 'and not counted';
is flush($two, 1, [1, 0, 1, 0]), 'ok', 'another instance has its own sequence';
is flush($one, 2), 'ok', 'an empty batch counts';
is flush($one, 3, [1, 0, -3, 0]), 'ok', 'spent below zero';
is state(1, 0), '47|5', 'is a refund of what was reported';
is flush($one, 4, [1, 0, 5, 0], [1, 0, -9, 2], [1, 0, 1, 1]), 'ok', 'a row named more than once';
is state(1, 0), '44|2', 'counts in sum';
refused(qr/negative return/, 'a negative return', $one, 5, [1, 0, 0, -1]);
refused(qr/out of range/, 'a sum beyond a bigint', $one, 5, [1, 0, 9223372036854775807, 0], [1, 0, 9223372036854775807, 0]);
refused(qr/usage_flush: NULL/, 'a NULL', $one, 5, [1, 0, undef, 0]);

# A row that cannot be applied must not stop the host for ever, nor cost the other accounts theirs.
is flush($one, 5, [1, 0, 1, 0], [999, 0, 5, 0]), 'ok', 'a quota period that does not exist is passed over';
is state(1, 0), '44|3', 'the others count';
like $db->log, qr/WARNING:  usage_flush: instance \S+1 batch 5: 1 of 2 rows are dropped/, 'and the log says so';
ok $db->psql("SELECT seen_at > now() - interval '1 min' AND host = 'h1' FROM billing.instances WHERE instance_id = '$one'")
    eq 't', 'the instance is seen';
is flush($one, 6, [1, 0, -99, 0], [1, 0, 0, 0]), 'ok', 'used below zero is passed over';
is flush($one, 7, [1, 0, 0, 99]), 'ok', 'more returned than issued too';
is state(1, 0), '44|3', 'nothing is clamped';

# A fail-over to a PostgreSQL that misses the last commits, a restore: what the lost timeline acknowledged never comes again.
my ($new_host, $again) = ('00000000-0000-0000-0000-000000000004', '00000000-0000-0000-0000-000000000005');
is flush($again, 1), 'ok', 'E6: an instance of the epoch before';
$d->do('UPDATE billing.meta SET epoch_manual = epoch_manual + 1');
is flush($one, 12, [1, 0, 1, 0]), 'ok', 'E6: in another epoch an instance goes on where it is';
like $db->log, qr/WARNING:  take_turn: instance \S+1 goes on with batch 12 after 7: .*lost/, 'and the log says so';
is flush($one, 12, [1, 0, 1, 0]), 'dup', 'E6: the same batch is applied once';
is flush($one, 14, [1, 0, 1, 0]), 'gap', 'E6: and it does so once';
is flush($one, 13, [1, 0, -1, 0]), 'ok', 'it has its sequence again';
is flush($new_host, 5, [1, 0, 1, 0]), 'ok', 'E6: one of which nothing is left, too';
is flush($new_host, 7, [1, 0, 1, 0]), 'gap', 'once';
is flush($again, 2, [1, 0, -1, 0]), 'ok', 'E6: who has lost nothing goes on as ever';
is state(1, 0), '44|3', 'each was applied once';

# What came back can be issued again, and no snapshot is made by any of this.
is $db->psql('SELECT string_agg(ent_version::text, $$ $$) FROM billing.accounts'), '1 1', 'usage makes no snapshots';
is $db->psql(q{SELECT granted FROM billing.quota_fund('{1}', '{1}', '{0}', '{0}', '{56}', '{56}', '{0}')}), 56,
    'returned tokens are issued again';

# The same batch on two connections at once.
my @said;
for my $seq (1, 2) {
    my @children;
    my $holder = $db->dbi;
    $holder->begin_work;
    $holder->do('SELECT 1 FROM billing.quota_periods WHERE account_id = 2 FOR UPDATE');    # both must meet
    for (1 .. 2) {
        pipe my $from, my $to;
        my $pid = fork // die;
        if (!$pid) {
            $d = $db->dbi;
            print {$to} eval { flush('00000000-0000-0000-0000-000000000003', $seq, [2, 0, 1, 0]) } // $@;
            close $to;
            POSIX::_exit(0);
        }
        close $to;
        push @children, [$pid, $from];
    }
    my $until = time + 20;
    until ($db->psql(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'}) == 2) {
        die 'they never met' if time > $until;
        select undef, undef, undef, 0.01;
    }
    $holder->commit;
    push @said, map { my $line = readline $_->[1]; waitpid $_->[0], 0; $line } @children;
}
is join(' ', sort @said), 'dup dup ok ok', 'sent twice at once: applied once, the first batch of an instance too';
is state(2, 0), '49|3', 'with one effect each';
done_testing;
