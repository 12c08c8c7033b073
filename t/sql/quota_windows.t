# Promise (Q1, G10, plan changes): windows of an account's own, its billing months and sliding windows, never give more than the
# cap: not over period ends, not by a new anchor, not by cancelling and subscribing again, not at once by several. And they give
# all of it: a refusal ends when it should, and says when.
use strict;
use warnings;
use Test::More;
use Billing::Clock;
use Billing::Database;
use JSON::PP;
use Time::Local qw(timegm);

my $clock = Billing::Clock->new;
my $db = Billing::Database->new(env => $clock->environment)->migrate;
$db->apply_catalog({ default_plan => 'free',
    quotas => { cycle => { period => 'cycle' }, hour => { period => 'sliding', length => '1h' }, day => { period => 'day' },
        both => { windows => { month => { period => 'cycle' }, '10m' => { period => 'sliding', length => '10m' } } } },
    plans  => {
        free => { quotas => { cycle => 20, hour => 20, day => 5, both => { month => 100, '10m' => 10 } } },
        pro  => { rank => 1, quotas => { cycle => 1000, hour => undef, both => { month => undef, '10m' => 50 } } },
        max  => { rank => 2, quotas => { cycle => undef } } } });
my $d = $db->dbi;
my %limit = map { @$_ } @{ $d->selectall_arrayref('SELECT limit_key, limit_no FROM billing.limits') };
is join(' ', sort keys %limit), 'both:10m both:month cycle day hour', 'a window is a limit of its own';
my ($serial, $batch) = (0, 0);

sub value { my ($sql, @bind) = @_; return scalar $d->selectrow_array($sql, undef, @bind) }
sub account {
    my $name = 'acct' . ++$serial;
    $d->do("SELECT billing.ensure_accounts('{$name}')");
    return value('SELECT id FROM billing.accounts WHERE external_id = $1', $name);
}
sub set { my ($id, %to) = @_; $d->do("UPDATE billing.accounts SET $_ = \$1 WHERE id = \$2", undef, $to{$_}, $id) for keys %to; return }
sub on { my ($id, $plan) = @_; return set($id, plan_no => value('SELECT plan_no FROM billing.plans WHERE plan_key = $1', $plan)) }
sub fund {
    my ($id, $limit, $need, $want, $period) = @_;
    return $d->selectrow_hashref('SELECT * FROM billing.quota_fund($1, $2, $3, $4, $5, $6, $7)', undef,
        [1], [$id], [$limit{$limit}], [$period // 0], [$need], [$want // $need], [0]);
}
sub granted { fund(@_)->{granted} }
sub take_back {    # as a host returns what it holds
    my ($id, $limit, $period, $units) = @_;
    is value(q{SELECT billing.usage_flush('00000000-0000-0000-0000-000000000001', 'h', $1, $2, $3, $4, $5, $6)}, ++$batch,
        [$id], [$limit{$limit}], [$period], [0], [$units]), 'ok', 'returned';
    return;
}
# Sets the clock; the tests below live in 2027.
my $now = $clock->now;
sub at { my ($time) = @_; $clock->advance($time - $clock->now); return }
sub date { my ($y, $m, $d, $h, $mi, $s) = @_; return timegm($s // 0, $mi // 0, $h // 0, $d, $m - 1, $y) }
sub iso { my ($s, $m, $h, $day, $month, $year) = gmtime $_[0]; return sprintf '%04d-%02d-%02dT%02d:%02d:%02dZ', $year + 1900, $month + 1, $day, $h, $m, $s }
my $soon = 5;    # seconds that statements may take, before a boundary

# Half open, walking by months from the anchor's own day.
{
    at(date(2027, 1, 31, 12, 0, 0) + 1);
    my $a = account();
    set($a, cycle_anchor => '2027-01-31T12:00:00Z');
    my $r = fund($a, 'cycle', 20);
    is "$r->{granted} " . iso($r->{ends}), '20 2027-02-28T12:00:00Z', 'cycle: 31 January to 28 February';
    at(date(2027, 2, 28, 12) - $soon);
    is granted($a, 'cycle', 1), 0, 'not a unit more before its end';
    at(date(2027, 2, 28, 12));
    $r = fund($a, 'cycle', 20);
    is "$r->{granted} " . iso($r->{ends}), '20 2027-03-31T12:00:00Z', 'no webhook: the next month begins by itself, and ends on the 31st';
    is granted($a, 'cycle', 1, 1, $r->{period}), 0, 'with its own cap';
    my $old = value('SELECT min(period) FROM billing.quota_periods WHERE account_id = $1 AND period > 0', $a);
    is fund($a, 'cycle', 1, 1, $old)->{period}, $r->{period}, 'a host that is behind is told the present one';
    is value('SELECT issued FROM billing.quota_periods WHERE account_id = $1 AND period = $2', $a, $old), 20, 'the month before stays closed';
}

# A new anchor in the middle of a month.
{
    at(date(2027, 5, 1));
    my $a = account();
    is granted($a, 'cycle', 20), 20, 'free: all of the month';
    at(date(2027, 5, 10));
    on($a, 'pro');
    set($a, cycle_anchor => '2027-05-10T00:00:00Z');
    my $r = fund($a, 'cycle', 981);
    is "$r->{granted} $r->{cap} " . ($r->{cap} - $r->{issued}), '0 1000 980', 'subscribed: what was used counts while its month runs';
    is iso($r->{ends}), '2027-06-01T00:00:00Z', 'a refusal says when that ends';
    is granted($a, 'cycle', 500), 500, 'the rest is there at once';
    at(date(2027, 5, 15));
    on($a, 'free');
    set($a, cycle_anchor => '2027-05-01T00:00:00Z');
    is granted($a, 'cycle', 1), 0, 'cancelled: the free month has none left';
    at(date(2027, 5, 20));
    on($a, 'pro');
    set($a, cycle_anchor => '2027-05-20T00:00:00Z');
    is granted($a, 'cycle', 481), 0, 'subscribed again within the first subscription\'s month: no second thousand';
    $r = fund($a, 'cycle', 480, 480);
    is $r->{granted}, 480, 'but the rest of the first';
    take_back($a, 'cycle', $r->{period}, 100);
    is granted($a, 'cycle', 101), 0, 'what a host gives back';
    is granted($a, 'cycle', 100), 100, 'is there again, and no more';
    at(date(2027, 6, 1));
    $r = fund($a, 'cycle', 21);
    is "$r->{granted} " . iso($r->{ends}), '0 2027-06-10T00:00:00Z', 'the free month has ended, the first subscription\'s has not';
    is granted($a, 'cycle', 20), 20, 'the twenty of the free month are back';
    at(date(2027, 6, 10));
    is granted($a, 'cycle', 501), 0, 'its own month still counts';
    is granted($a, 'cycle', 500), 500, 'from here on only that';
    at(date(2027, 6, 20));
    is granted($a, 'cycle', 1000), 1000, 'renewed';
}

# Down to free at the end: the free month is not starved by what was paid for.
{
    at(date(2027, 9, 1));
    my $a = account();
    at(date(2027, 9, 10));
    on($a, 'pro');
    set($a, cycle_anchor => '2027-09-10T00:00:00Z');
    is granted($a, 'cycle', 700), 700, 'pro';
    at(date(2027, 10, 2));
    on($a, 'free');
    set($a, cycle_anchor => '2027-09-01T00:00:00Z');
    is granted($a, 'cycle', 21), 0, 'free again, in a month that began after';
    is granted($a, 'cycle', 20), 20, 'has its twenty: fewer than the best plan held in each month';
    on($a, 'max');
    is granted($a, 'cycle', 5000), 5000, 'unlimited is without bound';
    on($a, 'pro');
    is granted($a, 'cycle', 1), 0, 'and counts when it ends';
}

# Sliding: never more than the cap within the length, and not refused for longer than a twentieth of it.
{
    my $start = date(2027, 12, 1);    # a bucket is 180 s
    at($start + 10);
    my $a = account();
    is granted($a, 'hour', 12), 12, 'sliding: in the first bucket';
    at($start + 1000);
    my $r = fund($a, 'hour', 9);
    is "$r->{granted} $r->{cap} $r->{issued}", '0 20 12', 'counted together';
    is iso($r->{ends}), iso($start + 3780), 'the refusal says when the first bucket has left the window';
    is granted($a, 'hour', 8), 8, 'up to the cap';
    at($start + 3610);
    is granted($a, 'hour', 1), 0, 'an hour later the bucket is still in it in part';
    at($start + 3780 - $soon);
    is granted($a, 'hour', 1), 0, 'till its end';
    at($start + 3780);
    is granted($a, 'hour', 13), 0, 'then as much comes back';
    $r = fund($a, 'hour', 12);
    is "$r->{granted} $r->{issued}", '12 20', 'as it was';
    $r = fund($a, 'hour', 1);
    is iso($r->{ends}), iso($start + 900 + 3780), 'next come those of the second bucket';
    is fund($a, 'hour', 21)->{ends}, undef, 'more than the cap never comes';
    take_back($a, 'hour', $r->{period}, 5);
    is granted($a, 'hour', 5), 5, 'returned units are there at once';
    on($a, 'pro');
    is fund($a, 'hour', 1000)->{cap}, undef, 'unlimited';
    on($a, 'free');
    $r = fund($a, 'hour', 1);
    is "$r->{granted} " . iso($r->{ends}), '0 ' . iso($start + 3780 + 3780), 'and counted when it is not any more';
    my $show = decode_json(value('SELECT billing.account_show($1)', 'acct' . $serial))->{limits};
    is $show->{hour}{period} . $show->{hour}{length}, 'sliding3600', 'account show tells the window';
    is $show->{hour}{available}, 0, 'and that nothing is left';
    is $show->{cycle}{available}, 20, 'while the month has all';
}

# A quota with two windows: each for itself, refused together.
{
    at(date(2028, 2, 1));
    my $a = account();
    my $rows = $d->selectall_arrayref('SELECT granted FROM billing.quota_fund($1, $2, $3, $4, $5, $6, $7) ORDER BY ord', undef,
        [1, 1], [$a, $a], [@limit{qw(both:month both:10m)}], [0, 0], [11, 11], [11, 11], [0, 0]);
    is_deeply $rows, [[0], [0]], 'all windows or none';
    $rows = $d->selectall_arrayref('SELECT granted FROM billing.quota_fund($1, $2, $3, $4, $5, $6, $7) ORDER BY ord', undef,
        [1, 1], [$a, $a], [@limit{qw(both:month both:10m)}], [0, 0], [10, 10], [10, 10], [0, 0]);
    is_deeply $rows, [[10], [10]], 'together';
    is granted($a, 'both:10m', 1), 0, 'the short one is used up';
    is granted($a, 'both:month', 1), 1, 'the long one is not';
}

# Days of the account's own zone.
{
    at(date(2027, 3, 27, 22, 30));
    my $a = account();
    set($a, zone => 'Europe/Berlin');
    my $r = fund($a, 'day', 5);
    is "$r->{granted} " . iso($r->{ends}), '5 2027-03-27T23:00:00Z', 'zone: the day ends at midnight there';
    at(date(2027, 3, 27, 23));
    $r = fund($a, 'day', 5);
    is "$r->{granted} " . iso($r->{ends}), '5 2027-03-28T22:00:00Z', 'the next has 23 hours';
    is fund($a, 'day', 1, 1, $r->{period} - 1)->{period}, $r->{period} - 1, 'the day before is honoured for hosts that are behind';
    set($a, zone => undef);
    is granted($a, 'day', 1), 0, 'another zone does not begin the day anew: its name is the date';
    ok !eval { set($a, zone => $_); 1 }, "no zone: $_" for 'Berlin', 'europe/berlin', 'CET-1CEST', '', '../etc/passwd';
    like $@, qr/is no time zone; write one as Europe\/Berlin/, 'says what to write';
}

# Whatever the sequence: within each month that was ever running, no more units than the best plan held in it.
for my $seed (1 .. 6) {
    srand $seed;
    my $t = date(2030 + $seed, 1, 3);
    at($t);
    my $a = account();
    my $born = $t;
    my %cap = (free => 20, pro => 1000);
    my ($plan, $anchor) = ('free', $born);
    my (@grants, @caps, %windows, %out);
    for my $step (1 .. 60) {
        $t += int rand 6 * 86400;
        at($t);
        my $roll = rand;
        if ($roll < 0.35) {    # subscribe, cancel, change
            ($plan, $anchor) = $plan eq 'free' ? ('pro', $t - int rand 3600) : rand() < 0.7 ? ('free', $born) : ('pro', $t);
            on($a, $plan);
            set($a, cycle_anchor => iso($anchor));
        }
        my ($s, $e) = map { value('SELECT billing.unix(b.' . $_ . ') FROM billing.period_bounds($1, to_timestamp($2), NULL,
            billing.period_no($1, NULL, to_timestamp($2), NULL, to_timestamp($3))) b', 'cycle', $anchor, $t) } qw(starts ends);
        $windows{"$s-$e"} = [$s, $e];
        push @caps, [$t, $cap{$plan}];
        my $want = 1 + int rand($roll < 0.7 ? $cap{$plan} : 30);
        my $r = fund($a, 'cycle', $want);
        if (!$r->{granted}) {    # then all that is left is given
            my $left = $r->{cap} - $r->{issued};
            $r = fund($a, 'cycle', $left) if $left > 0;
            fail "$left were said to be left" if $left > 0 && $r->{granted} != $left;
        }
        push @grants, [$t, $r->{granted}, $r->{period}] if $r->{granted};
        if (@grants && rand() < 0.3) {    # a host returns part of what it holds
            my $g = $grants[-1];
            my $back = int rand(1 + $g->[1]);
            $g->[1] -= $back;
            $d->do(q{SELECT billing.usage_flush('00000000-0000-0000-0000-000000000001', 'h', $1, $2, $3, $4, $5, $6)}, undef,
                ++$batch, [$a], [$limit{cycle}], [$g->[2]], [0], [$back]);
        }
    }
    my @broken;
    for my $w (values %windows) {
        my ($sum, $most) = (0, 0);
        $sum += $_->[1] for grep { $_->[0] >= $w->[0] && $_->[0] < $w->[1] } @grants;
        for (grep { $_->[0] >= $w->[0] && $_->[0] < $w->[1] } @caps) { $most = $_->[1] if $_->[1] > $most }
        push @broken, iso($w->[0]) . ": $sum of $most" if $sum > $most;
    }
    my $total = 0;
    $total += $_->[1] for @grants;
    is "@broken", '', "N-semantics: seed $seed, no sequence brings more than the best plan held ($total units in " . keys(%windows) . ' months)';
}
done_testing;
