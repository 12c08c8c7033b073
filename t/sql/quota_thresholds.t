# Promise (G16, N1): of each threshold an account is told once for each period, in the transaction that brings its usage there, however
# many hosts report, in whatever order, and whatever comes back.
use strict;
use warnings;
use Billing::Clock;
use Billing::Database;
use JSON::PP;
use Test::More;
use Time::Local qw(timegm);

my $clock = Billing::Clock->new;
my $db = Billing::Database->new(env => $clock->environment)->migrate;
my $day = timegm(0, 0, 12, 10, 5, 2029);
$clock->advance($day - $clock->now);
$db->apply_catalog({ default_plan => 'free',
    quotas => { day => { period => 'day' }, cycle => { period => 'cycle' }, hour => { period => 'sliding', length => '1h' }, free => { period => 'day' } },
    plans  => { free => { quotas => { day => 11, cycle => 100, hour => 20, free => undef } }, pro => { rank => 1, quotas => { day => 100 } } } });
my $d = $db->dbi;
my %limit = map { @$_ } @{ $d->selectall_arrayref('SELECT limit_key, limit_no FROM billing.limits') };
sub value { my ($sql, @bind) = @_; return scalar $d->selectrow_array($sql, undef, @bind) }
my @thresholds = ([qw(day day cycle hour free)], [50, 80, 80, 80, 80]);

my %last = map { $_ => 0 } 1 .. 9;
sub fund {
    my ($id, $limit, $need, $period) = @_;
    return $d->selectrow_hashref('SELECT * FROM billing.quota_fund($1, $2, $3, $4, $5, $6, $7)', undef, [1], [$id], [$limit{$limit}], [$period // 0], [$need], [$need], [0]);
}
# Units that a host had from PostgreSQL, and reports.
sub spent {
    my ($host, $id, $limit, $units, %o) = @_;
    my $period = $o{period} // fund($id, $limit, $units)->{period};
    return value(q{SELECT billing.usage_flush($1, 'h', $2, $3, $4, $5, $6, $7, $8, $9)}, "00000000-0000-0000-0000-00000000000$host", ++$last{$host},
        [$id], [$limit{$limit}], [$period], [$units], [$o{returned} // 0], $o{none} ? ([], []) : @thresholds);
}
my $seen = 0;
sub told {
    my $rows = $d->selectall_arrayref(q{SELECT id, account_id, topic, payload FROM billing.outbox WHERE id > $1 AND topic LIKE 'quota:%' ORDER BY id}, { Slice => {} }, $seen);
    $seen = $rows->[-1]{id} if @$rows;
    return join ' ', map { my $p = decode_json($_->{payload}); "$_->{topic}=$_->{account_id}:$p->{quota}:$p->{threshold}:$p->{used}/$p->{limit}" } @$rows;
}

$d->do(q{SELECT billing.ensure_accounts('{a,b,c,e,f,g,h}')});
spent(1, 1, 'day', 5);
is told(), '', 'five of eleven are not half';
spent(2, 1, 'day', 1);
is told(), 'quota:threshold=1:day:50:6/11', 'G16: six are more than half, over two hosts';
is decode_json(value('SELECT payload FROM billing.outbox ORDER BY id DESC LIMIT 1'))->{periodEnd}, '2029-06-11T00:00:00Z', 'G16: and until when';
spent(1, 1, 'day', 2);
is told(), '', 'G16: once';
spent(1, 1, 'day', -4, period => fund(1, 'day', 3)->{period});
spent(2, 1, 'day', 4, period => fund(1, 'day', 11)->{period});
is told(), '', 'G16: also when units came back and were spent again';
spent(2, 1, 'day', 1, none => 1);
is told(), '', 'a host that has no thresholds tells of none';
spent(1, 1, 'day', 0, period => int($day / 86400));
is told(), 'quota:threshold=1:day:80:9/11', 'G16: the next that has some does';
spent(1, 2, 'day', 11);
is told(), 'quota:threshold=2:day:50:11/11 quota:threshold=2:day:80:11/11', 'G16: both at once; each account for itself';
spent(1, 2, 'free', 1000);
is told(), '', 'of what has no bound there is no part';
$clock->advance(86400);
spent(1, 1, 'day', 6);
is told(), 'quota:threshold=1:day:50:6/11', 'G16: anew in the next period';
spent(2, 1, 'day', 3, period => int($day / 86400));
is told(), '', 'what is late belongs to the period before, of which all is told';
$d->do(q{UPDATE billing.accounts SET plan_no = (SELECT plan_no FROM billing.plans WHERE plan_key = 'pro') WHERE id = 3});
told();
spent(1, 3, 'day', 49);
is told(), '', 'G16: of what the account has';
spent(1, 3, 'day', 1);
is told(), 'quota:threshold=3:day:50:50/100', 'G16: by its plan';
value(q{SELECT billing.charge_late('00000000-0000-0000-0000-000000000001', 'h', 1, $1, $2, $3, $4, $5, $6, $7)}, ['c'], ['day'], [$clock->now], [30], ['f'], @thresholds);
is told(), 'quota:threshold=3:day:80:80/100', 'G16: what was let through unasked counts, too';

# windows of an account's own
spent(1, 4, 'cycle', 79);
is told(), '', 'a billing month';
spent(1, 4, 'cycle', 1);
is told(), 'quota:threshold=4:cycle:80:80/100', 'G16: has one notification';
spent(1, 4, 'cycle', 5);
is told(), '', 'G16: not two';
spent(1, 5, 'hour', 10);
$clock->advance(1200);
spent(2, 5, 'hour', 6);
is told(), 'quota:threshold=5:hour:80:16/20', 'G16: a sliding window: over its buckets';
$clock->advance(600);
spent(1, 5, 'hour', 1);
is told(), '', 'G16: once within its length';
$clock->advance(4000);
spent(1, 5, 'hour', 16);
is told(), 'quota:threshold=5:hour:80:16/20', 'G16: and then anew';

# sixteen hosts at once
my @hosts = map { my $n = $_; pipe my $from, my $to; my $pid = fork // die; if (!$pid) {
    my $mine = $db->dbi;
    my $got = 0;
    for my $round (1 .. 20) {
        my $one = $mine->selectrow_hashref('SELECT * FROM billing.quota_fund($1, $2, $3, $4, $5, $6, $7)', undef, [1], [6], [$limit{cycle}], [0], [1], [1], [0]);
        next if !$one->{granted};
        my $instance = sprintf '00000000-0000-0000-0001-%012d', $n;
        until (eval { $mine->selectrow_array(q{SELECT billing.usage_flush($1, 'h', $2, $3, $4, $5, $6, $7, $8, $9)}, undef, $instance, ++$got,
            [6], [$limit{cycle}], [$one->{period}], [1], [0], @thresholds) }) { --$got }
    }
    require POSIX;
    POSIX::_exit(0);
} $pid } 1 .. 16;
waitpid $_, 0 for @hosts;
is value(q{SELECT used FROM billing.quota_periods WHERE account_id = 6 AND period > 0}), 100, 'sixteen hosts spend all of it';
like told(), qr{^quota:threshold=6:cycle:80:8\d/100$}, 'G16: and it is told once';
done_testing;
