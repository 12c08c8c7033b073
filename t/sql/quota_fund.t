# Promise (Q1, G10, G18): tokens come from one place, never more than the cap, in the sizes and periods that hosts rely on.
use strict;
use warnings;
use Test::More;
use Billing::Database;

my $db = Billing::Database->new->migrate;
$db->apply_catalog({ default_plan => 'free',
    quotas => { map({ $_ => { period => $_ } } qw(minute hour day month lifetime)), big => { period => 'month' } },
    plans  => {
        free => { quotas => { minute => 10, hour => 10, day => 10, month => 10, lifetime => 10, big => 10000 } },
        pro  => { rank => 1, quotas => { month => 20, big => undef } },
        none => { rank => 2 } } });
my $d = $db->dbi;
my %limit = map { @$_ } @{ $d->selectall_arrayref('SELECT limit_key, limit_no FROM billing.limits') };
my $serial = 0;

sub account {
    my ($plan) = @_;
    my $name = 'acct' . ++$serial;
    $d->do("SELECT billing.ensure_accounts('{$name}')");
    my ($id) = $d->selectrow_array('SELECT id FROM billing.accounts WHERE external_id = $1', undef, $name);
    $d->do("UPDATE billing.accounts SET plan_no = (SELECT plan_no FROM billing.plans WHERE plan_key = '$plan') WHERE id = $id")
        if $plan;
    return $id;
}

# Each request: [group, account, limit, need, want, spent_here, period]
sub fund {
    my @r = map { [@$_] } @_;
    my @column = map { my $i = $_; [map { $_->[$i] } @r] } 0 .. 6;
    my $rows = $d->selectall_arrayref('SELECT * FROM billing.quota_fund($1, $2, $3, $4, $5, $6, $7) ORDER BY ord',
        { Slice => {} }, $column[0], $column[1], [map { $limit{$_} // $_ } @{ $column[2] }], [map { $_ // 0 } @{ $column[6] }],
        $column[3], [map { $_->[4] // $_->[3] } @r], [map { $_ // 0 } @{ $column[5] }]);
    return @$rows;
}
sub granted { join ' ', map { $_->{granted} } fund(@_) }
sub version { scalar $d->selectrow_array('SELECT ent_version FROM billing.accounts WHERE id = $1', undef, $_[0]) }
sub refused {
    my ($like, $name, @r) = @_;
    ok !eval { fund(@r); 1 }, $name;
    like $@, $like, "$name: says why";
}

# Small caps are exact.
my $a = account();
my ($r) = fund([1, $a, 'month', 1, 100]);
is "$r->{granted} $r->{cap} $r->{issued} $r->{used}", '1 10 1 0', 'below 512 left: exactly the need, whatever is wanted';
is granted([1, $a, 'month', 9, 9]), 9, 'up to the cap';
($r) = fund([1, $a, 'month', 1, 1]);
is "$r->{granted} $r->{issued}", '0 10', 'and not one more';

# Larger ones are taken in pieces.
$a = account();
is granted([1, $a, 'big', 1, 100]), 100, 'a want within an eighth is met';
is granted([1, $a, 'big', 1, 100000]), 1237, 'a larger one is cut to an eighth of what is left (9900 / 8)';
is granted([1, $a, 'big', 3000, 3000]), 3000, 'a need is met beyond the eighth';
is granted([1, $a, 'big', 5163, 5200]), 5163, 'leaving 500';
is granted([1, $a, 'big', 2, 400]), 2, 'below 512 exactly the need again';
is granted([1, $a, 'big', 499, 499]), 0, 'a need larger than the rest gets nothing';
is granted([1, $a, 'big', 498, 498]), 498, 'the rest';
is $db->psql("SELECT issued = cap FROM billing.quota_periods WHERE account_id = $a"), 't', 'issued is the cap';

# Groups: all or nothing, duplicates add up, later groups see what earlier ones took.
$a = account();
is granted([1, $a, 'month', 5], [1, $a, 'day', 11]), '0 0', 'a group with one need that cannot be met gets nothing';
is $db->psql("SELECT sum(issued) FROM billing.quota_periods WHERE account_id = $a"), 0, 'and takes nothing';
is granted([1, $a, 'month', 5], [1, $a, 'day', 10]), '5 10', 'all its needs otherwise';
is granted([1, $a, 'month', 3], [1, $a, 'month', 3]), '0 0', 'needs of one group for one quota add up';
is granted([1, $a, 'month', 3], [1, $a, 'month', 2]), '3 2', 'and are granted together';
my $b = account();
is granted([7, $b, 'month', 6], [3, $b, 'month', 6], [5, $b, 'month', 4]), '0 6 4',
    'groups are decided by their number, each in full';
is granted([1, $b, 'hour', 1], [2, $b, 'hour', 10], [1, $b, 'minute', 1]), '1 0 1', 'a group need not be contiguous';
my ($x, $y) = (account(), account());
is granted([1, $x, 'big', 1, 2000], [1, $x, 'big', 4900, 4900], [1, $y, 'month', 1]), '637 4900 1',
    'the surplus of one request never eats the need of another';

# Who gets nothing at all.
is granted([1, 999999, 'month', 1]), 0, 'an unknown account';
is granted([1, account(), 'month', 1], [1, 999999, 'month', 1]), '0 0', 'refuses its group';
is granted([1, account(), 60, 1]), 0, 'an unknown limit';
is granted([1, account('none'), 'month', 1]), 0, 'a limit that the plan does not name';
$a = account();
$d->do("UPDATE billing.accounts SET deleted_at = now() WHERE id = $a");
is granted([1, $a, 'month', 1]), 0, 'a deleted account';
is_deeply [fund()], [], 'no request, no answer';

# Periods: PostgreSQL's current one and the one before are honoured, anything else becomes the current one.
for my $kind (qw(minute hour day month lifetime)) {
    my ($current, @got) = (-1);
    while ($current != $db->psql("SELECT billing.period_number('$kind', clock_timestamp())")) {    # again if it rolled meanwhile
        $current = $db->psql("SELECT billing.period_number('$kind', clock_timestamp())");
        $a = account();
        @got = map { (fund([1, $a, $kind, 1, 1, 0, $current + $_]))[0] } -2, -1, 0, 1;
    }
    my $before = $kind eq 'lifetime' ? 0 : $current - 1;
    is join(' ', map { $_->{period} } @got), "$current $before $current $current", "$kind: the period that was asked for, if sane";
    is join(' ', map { $_->{issued} } @got), $kind eq 'lifetime' ? '1 2 3 4' : '1 1 2 3', "$kind: each period for itself";
    $kind eq 'lifetime'
        ? is($got[0]{ends}, undef, 'lifetime has no end')
        : ok($got[0]{ends} > time - 1 && $got[1]{ends} <= time, "$kind: ends in unix seconds");
}
($r) = fund([1, account(), 'month', 1, 1, 0, $db->psql(q{SELECT billing.period_number('month', now()) - 1})]);
is $r->{ends}, $db->psql(q{SELECT extract(epoch FROM date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')::bigint}),
    'last month ends where this one starts';
is $db->psql(q{SELECT billing.period_number('month', '2026-12-31 23:59:59.9Z'), billing.period_number('month', '2027-01-01Z'),
    billing.period_start('month', 2026 * 12 + 12) = '2027-01-01Z', billing.period_number('day', '2026-11-21 23:59:59Z'),
    billing.period_number('minute', '1970-01-01 00:01:59.9Z'), billing.period_start('hour', 5) = '1970-01-01 05:00Z'}),
    '24323|24324|t|20778|1|t', 'period numbers are UTC, half-open';

# Unlimited, overrides, plans that change in mid-period.
$a = account('pro');
($r) = fund([1, $a, 'big', 5, 10]);
is "$r->{granted} " . ($r->{cap} // 'null'), '4096 null', 'unlimited: enough for an outage, little to lose; cap NULL';
is granted([1, $a, 'big', 1 << 31, 1 << 31]), 1 << 31, 'or the need, if larger';
$d->do("UPDATE billing.quota_periods SET issued = 9223372036854775807 - 1099511627776 - 100 WHERE account_id = $a");
is granted([1, $a, 'big', 5, 5]), 5, 'near the end of a bigint still something';
is granted([1, $a, 'big', 1 << 40, 1 << 40], [2, account(), 'month', 1]), '0 1',
    'then a refusal, not an error for the neighbours';
$a = account();
is granted([1, $a, 'month', 10]), 10, 'the free plan gives 10';
my $pro = "UPDATE billing.accounts SET plan_no = (SELECT plan_no FROM billing.plans WHERE plan_key = 'pro') WHERE id = $a";
$d->do($pro);
($r) = fund([1, $a, 'month', 10]);
is "$r->{granted} $r->{cap} $r->{issued}", '10 20 20', 'an upgrade gives the difference at once';
$d->do("UPDATE billing.accounts SET plan_no = 1 WHERE id = $a");
($r) = fund([1, $a, 'month', 1]);
is "$r->{granted} $r->{cap} $r->{issued}", '0 10 20', 'a downgrade funds no more, and forgets nothing';
is $db->psql("SELECT cap FROM billing.quota_periods WHERE account_id = $a"), 10, 'the row shows the cap of the last look';
$d->do($pro);
is granted([1, $a, 'month', 1]), 0, 'going up again makes nothing new';
$d->do("INSERT INTO billing.account_limits (account_id, limit_no, amount) VALUES ($a, $limit{month}, 25)");
is granted([1, $a, 'month', 5]), 5, 'an override raises';
$d->do("UPDATE billing.account_limits SET expires_at = now() - interval '1 s' WHERE account_id = $a");
is((fund([1, $a, 'month', 1]))[0]{cap}, 20, 'until it expires');
$d->do("UPDATE billing.account_limits SET expires_at = NULL, amount = NULL, unlimited = true WHERE account_id = $a");
is granted([1, $a, 'month', 1]), 4096, 'or lifts the limit';
$d->do("UPDATE billing.account_limits SET amount = 0, unlimited = false WHERE account_id = $a");
is granted([1, $a, 'month', 1]), 0, 'or closes it';

# Crossing 90 %: every host is asked, once a period, to return what it holds.
$a = account();
my $v = version($a);
granted([1, $a, 'big', 8999]);
is version($a), $v, 'below 90 % nothing happens';
granted([1, $a, 'big', 1]);
is version($a), $v + 1, 'crossing it makes a new snapshot';
granted([1, $a, 'big', 100], [2, $a, 'big', 100]);
$d->do("UPDATE billing.quota_periods SET issued = 5000 WHERE account_id = $a");
granted([1, $a, 'big', 4500]);
is version($a), $v + 1, 'once in a period, also if it is crossed again';
$a = account();
$v = version($a);
granted([1, $a, 'month', 10]);
is version($a), $v, 'not for caps below 512';
$a = account();
my $other = $db->dbi;
$other->begin_work;
$other->do("UPDATE billing.accounts SET email = 'x' WHERE id = $a");
$d->do(q{SET lock_timeout = '2s'});
is granted([1, $a, 'big', 9500]), 9500, 'somebody else\'s lock on the account does not hold up a grant';
$other->commit;
$v = version($a);
granted([1, $a, 'big', 1]);
is version($a), $v + 1, 'and the crossing is told by the next one';

# Recall: tokens are out that could help.
$a = account();
granted([1, $a, 'month', 10]);
$v = version($a);
($r) = fund([1, $a, 'month', 1, 1, 10]);
is "$r->{granted} $r->{recall}", '0 0', 'all of it was spent here: nothing to recall';
is version($a), $v, 'no new snapshot';
($r) = fund([1, $a, 'month', 1, 1, 4]);
is "$r->{granted} $r->{recall}", '0 1', 'six are out elsewhere: recalled';
is version($a), $v + 1, 'by a new snapshot';
($r) = fund([1, $a, 'month', 1, 1, 4]);
is $r->{recall}, 0, 'not again within a second';
is version($a), $v + 1, 'no second snapshot';
$d->do("UPDATE billing.quota_periods SET recalled_at = recalled_at - interval '1 s' WHERE account_id = $a");
is((fund([1, $a, 'month', 1, 1, 4], [2, $a, 'month', 1, 1, 4]))[1]{recall}, 1, 'again after it');
is version($a), $v + 2, 'once for all requests of a call';
$d->do("UPDATE billing.quota_periods SET recalled_at = NULL WHERE account_id = $a");
is((fund([1, $a, 'month', 7, 7, 4]))[0]{recall}, 0, 'no recall that could not cover the need');
is((fund([1, $a, 'month', 1, 1, 4], [1, $a, 'day', 99]))[1]{recall}, 0, 'only the quota that is short and out is recalled');
$d->do("UPDATE billing.quota_periods SET used = 10 WHERE account_id = $a AND limit_no = $limit{month}");
is((fund([1, $a, 'month', 1]))[0]{recall}, 0, 'used up is used up');

# Refusals write nothing.
my $row = "SELECT ctid FROM billing.quota_periods WHERE account_id = $a AND limit_no = $limit{month}";
my $place = $db->psql($row);
granted([1, $a, 'month', 1]) for 1 .. 3;
is $db->psql($row), $place, 'a flood of refusals writes nothing';

refused(qr/request 1 needs 0/, 'a need of nothing', [1, $a, 'month', 0, 1]);
refused(qr/request 1 needs -1/, 'a negative need', [1, $a, 'month', -1, 1]);
refused(qr/request 2 needs 5, wants 4/, 'a want below the need', [1, $a, 'month', 1], [2, $a, 'month', 5, 4]);
refused(qr/out of range/, 'a want beyond all measure', [1, $a, 'month', 1, 1 << 41]);
ok !eval { $d->do(q{SELECT billing.quota_fund('{1}', '{1,2}', '{1}', '{1}', '{1}', '{1}', '{1}')}); 1 }, 'ragged arrays';
like $@, qr/differ in length/, 'say so';
ok !eval { $d->do(q{SELECT billing.quota_fund('{1}', '{NULL}', '{1}', '{1}', '{1}', '{1}', '{1}')}); 1 }, 'a NULL';
like $@, qr/NULL in request 1/, 'says where';
done_testing;
