# Promise (S10): an account comes into being once, with the default plan and its one-time allocation, however many ask at once.
use strict;
use warnings;
use Test::More;
use Billing::Database;
use JSON::PP;

my $db = Billing::Database->new->migrate;
my $d = $db->dbi;
ok !eval { $d->do(q{SELECT billing.snapshots('{a}', true)}); 1 }, 'without a catalog nothing can be born';
like $@, qr/no default plan: apply a catalog first/, 'and the message says what to do';

$db->apply_catalog({ default_plan => 'free', credits => { logo => {}, mockup => {} },
    plans => { free => { free => JSON::PP::true, credits => { logo => 4, mockup => 6 } } } });

my $workers = 20;
pipe my $gate, my $open;
my @pids;
for my $w (1 .. $workers) {
    my $pid = fork // die;
    if (!$pid) {
        close $open;
        my $mine = $db->dbi;
        readline $gate;    # all at once
        # Each names the same accounts in another order: a deadlock would show as an error.
        my @names = map { "u$_" } 1 .. 10;
        @names = reverse @names if $w % 2;
        my $rows = eval { $mine->selectall_arrayref('SELECT * FROM billing.snapshots($1, true)', undef, \@names) };
        POSIX::_exit($rows && @$rows == 10 ? 0 : 1);
    }
    push @pids, $pid;
}
close $gate;
close $open;
my $failed = 0;
for (@pids) { waitpid $_, 0; $failed++ if $? }
is $failed, 0, "$workers concurrent creations: everybody gets all ten accounts, no deadlock";
is $db->psql('SELECT count(*), count(DISTINCT external_id) FROM billing.accounts'), '10|10', 'one row for each account';
is $db->psql(q{SELECT count(*), count(DISTINCT (account_id, credit_no)) FROM billing.credit_ledger WHERE action = 'allocate'}),
    '20|20', 'one ledger row for each account and credit type';
is $db->psql(q{SELECT string_agg(DISTINCT credit_key || ':' || remaining || ':' || balance_after || ':' || idem_key, ' ')
    FROM billing.credit_balances b JOIN billing.credit_types USING (credit_no)
    JOIN billing.credit_ledger l USING (account_id, credit_no)}),
    'logo:4:4:alloc:free:logo mockup:6:6:alloc:free:mockup', 'balance and balance_after are the allocation';
is $db->psql('SELECT DISTINCT plan_no, status, ent_version FROM billing.accounts'), '1|active|1', 'default plan, active';

is @{ $d->selectall_arrayref(q{SELECT * FROM billing.snapshots('{u1,nobody}', false)}) }, 1, 'nothing is created unasked';
is @{ $d->selectall_arrayref(q{SELECT * FROM billing.snapshots('{"bad id",u1,"",u1,NULL,new}', true)}) }, 2,
    'an id that is none does not fail its neighbours; a repeated one comes once';
is $db->psql('SELECT count(*) FROM billing.accounts'), 11, 'and only the good one is created';
is $db->psql(q{SELECT count(*) FROM billing.snapshot_dirty}), 11, 'a new account is published';

# Accounts that exist are only read.
$d->do('SET default_transaction_read_only = on');
is @{ $d->selectall_arrayref(q{SELECT * FROM billing.snapshots('{u1,u2}', true)}) }, 2,
    'existing accounts are served in a read-only transaction';
my $holder = $db->dbi;
$holder->begin_work;
$holder->do(q{UPDATE billing.accounts SET status = 'unpaid' WHERE external_id = 'u1'});
$d->do(q{SET lock_timeout = '1s'});
my ($body) = $d->selectrow_array(q{SELECT body FROM billing.snapshots('{u1}', true)});
is decode_json($body)->{status}, 'active', 'and wait for nobody: the committed state is served';
$holder->rollback;

my ($account, $stamp, $text) = $d->selectrow_array(q{SELECT * FROM billing.snapshots('{u3}', false)});
my $json = decode_json($text);
is $json->{stamp}, sprintf('%016x', $stamp), 'the stamp of the row is that of the body';
is $stamp, 1 << 40 | 1, 'epoch (timeline 1) and version';
is_deeply [sort keys %$json], [sort qw(id account stamp plan status write_enabled maintenance enforced overage_on deleted
    grace_until trial_end period_end cancel_at anchor zone features limits)], 'the body has exactly the members hosts know';
done_testing;
