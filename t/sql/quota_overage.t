# Promise (G15): where the plan allows it, requests beyond a quota's amount get their units, what the account has is taken first, and only
# what is used beyond it is charged, at the rate that it was used at, under the plan's cap, unless the account has switched it off: once,
# in the transaction that closes the period, however late hosts report, and whatever becomes of the plan meanwhile.
use strict;
use warnings;
use Billing::Clock;
use Billing::Conservation qw(overage_astray);
use Billing::Database;
use JSON::PP;
use Test::More;
use Time::Local qw(timegm);

my ($yes, $no) = (JSON::PP::true, JSON::PP::false);
my $clock = Billing::Clock->new;
my $noon = timegm(0, 0, 12, 10, 5, 2029);
$clock->advance($noon - $clock->now);
my $db = Billing::Database->new(env => $clock->environment)->migrate;
my $price = sub { return { month => { id => "price_$_[0]", amount => 100, currency => 'eur' } } };
my $catalog = { default_plan => 'free',
    quotas => { calls => { period => 'day' }, more => { windows => { day => { period => 'day' }, cycle => { period => 'cycle' } } }, ever => { period => 'lifetime' }, slide => { period => 'sliding', length => '1h' } },
    plans  => {
        free => { free => $yes, quotas => { calls => 10, more => { day => 5, cycle => 100 } } },
        pro  => { rank => 1, price => $price->('pro'), quotas => { calls => { quantity => 10, overage => { amount => '2.5', cap => 20, meter => 'calls_over' } },
            more => { day => 5, cycle => { quantity => 100, overage => { amount => '1' } } } } },
        max  => { rank => 2, price => $price->('max'), quotas => { calls => { quantity => 100, overage => { amount => '1', always => $yes } }, more => { day => undef, cycle => undef } } },
        pay  => { rank => 3, price => $price->('pay'), quotas => { calls => { quantity => 0, overage => { amount => '3', meter => 'pay' } }, more => { day => 10000, cycle => { quantity => 10000, overage => { amount => '1' } } } } } } };
$db->apply_catalog($catalog);
my $d = $db->dbi;
my %limit = map { @$_ } @{ $d->selectall_arrayref('SELECT limit_key, limit_no FROM billing.limits') };
sub value { my ($sql, @bind) = @_; return scalar $d->selectrow_array($sql, undef, @bind) }

my ($serial, $batch) = (0, 0);
sub account {
    my ($plan) = @_;
    my $name = 'acct' . ++$serial;
    $d->do("SELECT billing.ensure_accounts('{$name}')");
    $d->do("UPDATE billing.accounts SET plan_no = (SELECT plan_no FROM billing.plans WHERE plan_key = \$1) WHERE external_id = \$2", undef, $plan, $name);
    return value('SELECT id FROM billing.accounts WHERE external_id = $1', $name);
}
sub on { my ($id, $plan) = @_; $d->do('UPDATE billing.accounts SET plan_no = (SELECT plan_no FROM billing.plans WHERE plan_key = $1) WHERE id = $2', undef, $plan, $id); return }
sub switch { my ($id, $to) = @_; $d->do('UPDATE billing.accounts SET overage_on = $1 WHERE id = $2', undef, $to, $id); return }
sub fund {
    my ($id, $need, $want, $limit, $period) = @_;
    return $d->selectrow_hashref('SELECT * FROM billing.quota_fund($1, $2, $3, $4, $5, $6, $7)', undef, [1], [$id], [$limit{ $limit // 'calls' }],
        [$period // 0], [$need], [$want // $need], [0]);
}
sub report {
    my ($id, $period, $spent, $returned, $limit) = @_;
    return value(q{SELECT billing.usage_flush('00000000-0000-0000-0000-000000000001', 'h', $1, $2, $3, $4, $5, $6)}, ++$batch, [$id], [$limit{ $limit // 'calls' }],
        [$period], [$spent], [$returned // 0]);
}
# Units asked for, had and used at once; how many were had.
sub spend {
    my ($id, $units, $limit) = @_;
    my $r = fund($id, $units, $units, $limit);
    report($id, $r->{period}, $units, $r->{granted} - $units, $limit) if $r->{granted};
    return $r->{granted} ? $units : 0;
}
sub row { my ($id, $limit) = @_; return value(q{SELECT issued || '/' || used || '/' || charged FROM billing.quota_periods WHERE account_id = $1 AND limit_no = $2 AND period > 0
    ORDER BY period DESC LIMIT 1}, $id, $limit{ $limit // 'calls' }) }
sub charges { my ($id) = @_; return join ' ', map { "$_->{quantity}:" . ($_->{amount} + 0) . ':' . ($_->{meter} // '-') }
    @{ $d->selectall_arrayref('SELECT * FROM billing.usage_charges WHERE account_id = $1 ORDER BY charge_no', { Slice => {} }, $id) } }
sub close_periods { return value('SELECT billing.overage_close(50)') }
sub next_day { my ($seconds) = @_; my $now = $clock->now; $clock->advance((int($now / 86400) + 1) * 86400 + ($seconds // 11) - $now); return }

# --- the catalog
is_deeply $d->selectall_arrayref(q{SELECT plan_key, amount, overage, overage_amount + 0 AS rate, overage_cap AS cap, overage_meter AS meter FROM billing.plan_limits
    JOIN billing.plans USING (plan_no) WHERE limit_no = $1 ORDER BY rank}, { Slice => {} }, $limit{calls}),
    [{ plan_key => 'free', amount => 10, overage => 'none', rate => undef, cap => undef, meter => undef },
     { plan_key => 'pro', amount => 10, overage => 'switchable', rate => '2.500000', cap => 20, meter => 'calls_over' },
     { plan_key => 'max', amount => 100, overage => 'always', rate => '1.000000', cap => undef, meter => undef },
     { plan_key => 'pay', amount => 0, overage => 'switchable', rate => '3.000000', cap => undef, meter => 'pay' }], 'G15: of each plan';
is $db->apply_catalog($catalog)->{changed}, $no, 'a second apply changes nothing';
sub refused {
    my ($like, $name, $quota, $amount) = @_;
    my $wrong = decode_json(encode_json($catalog));
    $wrong->{plans}{pro}{quotas}{$quota} = $amount;
    ok !eval { $db->apply_catalog($wrong); 1 }, $name;
    like $@, $like, "$name: with its path";
    return;
}
refused(qr/plans\.pro\.quotas\.calls\.overage\.amount must be an amount/, 'what is no amount', calls => { quantity => 1, overage => { amount => 4 } });
refused(qr/plans\.pro\.quotas\.ever\.overage is for quotas whose period ends/, 'what never ends', ever => { quantity => 1, overage => { amount => '4' } });
refused(qr/plans\.pro\.quotas\.slide\.overage is for quotas whose period ends/, 'what has no end of its own', slide => { quantity => 1, overage => { amount => '4' } });
refused(qr/plans\.pro\.quotas\.calls\.overage is for quotas .* not null/, 'beyond what has no bound', calls => { quantity => undef, overage => { amount => '4' } });

# --- what the account has first, then overage, under the cap
my $p = account('pro');
is spend($p, 8), 8, 'within';
my $r = fund($p, 5);
is "@$r{qw(granted cap issued beyond)}", '5 10 13 20', 'G15: 5 with 2 left: three are overage';
report($p, $r->{period}, 5);
is row($p), '13/13/0', 'nothing is charged within the period';
is spend($p, 18), 0, 'G15: beyond the cap';
is spend($p, 17), 17, 'G15: up to the cap';
is fund($p, 1)->{granted}, 0, 'and not one more';
report($p, $r->{period}, -10, 10);
is spend($p, 10), 10, 'what failed can be had again';
next_day(5);
is close_periods(), 0, 'a moment after its end the period is open: hosts have still to report';
next_day(11);
is close_periods(), 1, 'then it is closed';
is charges($p), '20:50:calls_over', 'G15: what was used beyond is charged, at the rate of the plan';
is close_periods(), 0, 'G15: once';
is_deeply $d->selectrow_hashref(q{SELECT c.currency, billing.unix(c.period_start) AS s, billing.unix(c.period_end) AS e FROM billing.usage_charges c WHERE account_id = $1}, undef, $p),
    { currency => 'eur', s => $noon - 43200, e => $noon + 43200 }, 'G15: for which period';
is_deeply decode_json(value(q{SELECT after - 'identifier' FROM billing.audit_log WHERE action = 'overage.charged'})),
    { quota => 'calls', quantity => 20, amount => 50, currency => 'eur', meter => 'calls_over' }, 'G15: audited';
is spend($p, 10), 10, 'the next period begins anew';
is row($p), '10/10/0', 'G15: with what the account has';

# --- what is issued is not used
my $q = account('pro');
my $had = fund($q, 10, 10);
$r = fund($q, 15, 15);
report($q, $had->{period}, 4, 6);
report($q, $r->{period}, 8, 7);
is row($q), '12/12/0', '12 are used of 25 that were issued';
next_day();
close_periods();
is charges($q), '2:5:calls_over', 'G15: what is used counts, whichever units it was';

# --- the switch; a plan without; an exception for the account
my $s = account('pro');
switch($s, 'f');
is spend($s, 11), 0, 'C16: switched off';
is spend($s, 10), 10, 'what the account has is not concerned';
is fund($s, 1)->{beyond}, 0, 'C16: none';
switch($s, 't');
is spend($s, 1), 1, 'C16: and on again';
my $f = account('free');
is spend($f, 11), 0, 'a plan without';
my $m = account('max');
switch($m, 'f');
is spend($m, 150), 150, 'G15: where the plan says always, the switch does not count';
my $pay = account('pay');
is spend($pay, 3), 3, 'G15: a plan that gives nothing and charges for all';
is_deeply decode_json(value('SELECT billing.overage_settings($1, NULL, NULL)', 'acct' . ($serial - 1)))->{quotas}, { calls => { always => $yes, amount => '1', used => 50 } },
    'C16: what it stands at';
$d->do(q{INSERT INTO billing.account_limits (account_id, limit_no, amount) VALUES ($1, $2, 0)}, undef, $pay, $limit{calls});
is spend($pay, 1), 0, 'an exception of 0 is none at all';
$d->do(q{UPDATE billing.account_limits SET amount = 5 WHERE account_id = $1}, undef, $pay);
is spend($pay, 10), 10, 'another one gives units that are not charged';
next_day();
close_periods();
is join('|', map { charges($_) } $s, $m, $pay), '1:2.5:calls_over|50:50:-|8:24:pay', 'G15: each as its plan says';

# --- large quotas: pieces, and of one kind each
my $l = account('pay');
$r = fund($l, 1, 100000, 'more:cycle');
is $r->{granted}, 1250, 'an eighth of what the account has';
report($l, $r->{period}, 1250, 0, 'more:cycle');
spend($l, 8700, 'more:cycle');
$r = fund($l, 100, 5000, 'more:cycle');
is "$r->{granted} $r->{issued}", '100 10050', 'a need that is partly overage is met alone';
$r = fund($l, 1, 5000, 'more:cycle');
is $r->{granted}, 5000, 'then hosts get what they want: overage costs no round trip for each request';
is report($l, $r->{period}, 10, 4990, 'more:cycle'), 'ok', 'and give back what they do not use';
is row($l, 'more:cycle'), '10060/9960/0', 'as ever';

# --- a plan that changes
my $u = account('pro');
spend($u, 15);
on($u, 'max');
is charges($u), '5:12.5:calls_over', 'G15: an upgrade: what was used by then costs what it did';
is fund($u, 1)->{issued}, 11, 'and counts no more against what the account has';
report($u, int($clock->now / 86400), 0, 1);
spend($u, 90);
is row($u), '105/105/5', 'up to the new amount';
spend($u, 7);
on($u, 'pro');
is charges($u), '5:12.5:calls_over 7:7:-', 'G15: a downgrade: at the rate before';
is spend($u, 9), 0, 'G15: the new cap is over all of the period';
is spend($u, 8), 8, 'up to it all is overage: what was used within the larger plan is not';
on($u, 'free');
is spend($u, 1), 0, 'a plan without';
next_day();
close_periods();
is charges($u), '5:12.5:calls_over 7:7:- 8:20:calls_over', 'G15: each at its rate, what the larger plan gave at none';

# the catalog's rate, late reports
my $c = account('pro');
spend($c, 12);
$catalog->{plans}{pro}{quotas}{calls}{overage}{amount} = '4';
$db->apply_catalog($catalog);
is charges($c), '2:5:calls_over', 'G15: a rate that changes';
my $late = fund($c, 3);
next_day();
close_periods();
report($c, $late->{period}, 2, 1);
is charges($c), '2:5:calls_over', 'what a host reports when its period is closed';
close_periods();
is charges($c), '2:5:calls_over 2:8:calls_over', 'G15: closes it again, with a row of its own';
report($c, $late->{period}, -1, 1);
is close_periods(), 0, 'what is charged is final';
$late = fund($c, 1, 1, 'calls', $late->{period});
report($c, $late->{period}, 1);
is close_periods(), 0, 'but makes room for as much';
is value(q{SELECT billing.charge_late('00000000-0000-0000-0000-000000000001', 'h', 1, $1, $2, $3, $4, $5)}, ["acct$serial"], ['calls'], [$clock->now], [35], ['f']), 'ok',
    'what was let through unasked';
next_day();
close_periods();
is charges($c), '2:5:calls_over 2:8:calls_over 20:80:calls_over', 'G15: is charged up to the cap';
my $moved = account('pro');
spend($moved, 10);
$late = fund($moved, 4);
next_day();
close_periods();
on($moved, 'max');
report($moved, $late->{period}, 4);
close_periods();
is charges($moved), '4:16:calls_over', 'G15: what is reported after a change of plan costs what it did when it was had';
$catalog->{plans}{pro}{quotas}{calls} = 10;
my $gone = account('pro');
spend($gone, 11);
$db->apply_catalog($catalog);
is charges($gone), '1:4:calls_over', 'terms that leave the catalog charge what there is';
is spend($gone, 1), 0, 'and allow no more';
is value('SELECT count(DISTINCT identifier) = count(*) FROM billing.usage_charges'), 1, 'each has a name of its own';
is value(q{SELECT bool_and(amount > 0) FROM billing.usage_charges}), 1, 'and a price';
is_deeply [overage_astray($d)], [], 'every unit is charged for once';

# --- billing months: a period of the account's own, and another one begun within it
my $month = account('pay');
spend($month, 10005, 'more:cycle');
$clock->advance(5 * 86400);
$d->do(q{UPDATE billing.accounts SET cycle_anchor = date_trunc('second', clock_timestamp()) WHERE id = $1}, undef, $month);
$r = fund($month, 7, 7, 'more:cycle');
report($month, $r->{period}, 7, 0, 'more:cycle');
is close_periods(), 0, 'both are open';
$clock->advance(32 * 86400);
close_periods();
is charges($month), '5:5:- 7:7:-', 'G15: within the month that was begun first, there is nothing but overage';
is_deeply [overage_astray($d)], [], 'every unit is charged for once';

# --- twelve hosts at once, and the job beside them: no more than the cap, each unit charged once
$catalog->{plans}{pro}{quotas}{calls} = { quantity => 100, overage => { amount => '2', cap => 150 } };
$db->apply_catalog($catalog);
my $hot = account('pro');
my $day = int($clock->now / 86400);
my @hosts = map { my $n = $_; my $pid = fork // die; if (!$pid) {
    my $mine = $db->dbi;
    my $sent = 0;
    for (1 .. 40) {
        my $units = 1 + int rand 3;
        my ($got) = $db->until_unlocked($mine, sub { $mine->selectall_arrayref('SELECT granted, period FROM billing.quota_fund($1, $2, $3, $4, $5, $6, $7)', {}, [1], [$hot],
            [$limit{calls}], [$day], [$units], [$units + 5], [0]) })->[0];
        next if !$got->[0];
        my $used = rand() < 0.8 ? $units : 0;
        ++$sent;
        $db->until_unlocked($mine, sub { $mine->selectrow_array(q{SELECT billing.usage_flush($1, 'h', $2, $3, $4, $5, $6, $7)}, undef,
            sprintf('00000000-0000-0000-0002-%012d', $n), $sent, [$hot], [$limit{calls}], [$day], [$used], [$got->[0] - $used]) });
        $mine->selectrow_array(q{SELECT billing.overage_close(50)}) if rand() < 0.2;
        $mine->do(q{UPDATE billing.accounts SET plan_no = plan_no, overage_on = NOT overage_on WHERE id = $1}, undef, $hot) if rand() < 0.05;
    }
    require POSIX;
    POSIX::_exit(0);
} $pid } 1 .. 12;
waitpid $_, 0 for @hosts;
my ($issued, $used) = $d->selectrow_array('SELECT issued, used FROM billing.quota_periods WHERE account_id = $1 AND limit_no = $2', undef, $hot, $limit{calls});
is $issued, $used, 'all that was issued is used or came back';
cmp_ok $used, '<=', 250, "G15: no more than the cap ($used)";
cmp_ok $used, '>', 100, 'but more than the amount';
next_day();
close_periods();
is value('SELECT sum(quantity) FROM billing.usage_charges WHERE account_id = $1', $hot), $used - 100, 'G15: what was used beyond is charged';

# --- at random: what is charged is what was used beyond the amount at the time, whatever happens in between
$catalog->{plans}{pro}{quotas}{calls} = { quantity => 10, overage => { amount => '2', cap => 30 } };
$db->apply_catalog($catalog);
my $seed = $ENV{SEED} // 20290610;
srand $seed;
for my $round (1 .. 40) {
    my $plan = 'pro';
    my $id = account($plan);
    my %amount = (free => 10, pro => 10, max => 100);
    my ($within, $over, $on) = (0, 0, 1);    # used within, and beyond
    for (1 .. 25) {
        my $do = int rand 10;
        if ($do < 7) {
            my $units = 1 + int rand 12;
            my $room = $plan eq 'max' ? 1e9 : $plan eq 'pro' && $on ? 30 - $over : 0;
            my $own = $amount{$plan} > $within ? $amount{$plan} - $within : 0;
            my $wanted = $units <= $own + ($room > 0 ? $room : 0) ? $units : 0;
            my $got = spend($id, $units);
            if ($got != $wanted) { fail("seed $seed round $round: $plan within $within over $over: $units, got $got, not $wanted"); last }
            my $mine = $got < $own ? $got : $own;
            $within += $mine;
            $over += $got - $mine;
        } elsif ($do < 9) {
            $plan = (qw(free pro max))[rand 3];
            on($id, $plan);
        } else {
            $on = !$on;
            switch($id, $on ? 't' : 'f');
        }
    }
    next_day();
    close_periods();
    my $charged = value('SELECT coalesce(sum(quantity), 0) FROM billing.usage_charges WHERE account_id = $1', $id);
    is $charged, $over, "G15: seed $seed round $round: $over of " . ($within + $over) . ' are charged';
}
is_deeply [overage_astray($d)], [], 'every unit is charged for once';
done_testing;
