# Promise (O1): account_show tells everything about an account, account_set changes what it is told and nothing else, and both
# say clearly what they do not understand.
use strict;
use warnings;
use Test::More;
use Billing::Database;
use JSON::PP;

my $db = Billing::Database->new->migrate;
$db->apply_catalog({ default_plan => 'free', features => ['a', 'b', 'c'], credits => { logo => {} },
    quotas => { requests => { period => 'month' }, calls => { period => 'minute' }, ever => { period => 'lifetime' } },
    plans => { free => { features => ['a'], quotas => { requests => 20, ever => 3 }, credits => { logo => 4 } },
               pro => { rank => 1, features => ['a', 'b'], quotas => { requests => undef } } } });
my $d = $db->dbi;
$d->do(q{SELECT billing.ensure_accounts('{x}')});

sub show { my $t = $d->selectrow_array('SELECT billing.account_show($1)', undef, $_[0] // 'x'); $t && decode_json($t) }
sub set {
    my ($changes, $account) = @_;
    my $t = $d->selectrow_array('SELECT billing.account_set($1, $2, $3)', undef, $account // 'x',
        ref $changes ? encode_json($changes) : $changes, 'test');
    return $t && decode_json($t);
}
my ($yes, $no) = (JSON::PP::true, JSON::PP::false);

my $limit = $d->selectrow_array(q{SELECT limit_no FROM billing.limits WHERE limit_key = 'requests'});
$d->do("SELECT billing.quota_fund('{1}', '{1}', '{$limit}', '{0}', '{5}', '{5}', '{0}')");
$d->do(q{SELECT billing.usage_flush('00000000-0000-0000-0000-000000000001', 'h', 1, '{1}', $1,
    ARRAY[billing.period_number('month', now())], '{2}', '{0}')}, undef, [$limit]);
my $s = show();
is "$s->{account} $s->{plan} $s->{status} $s->{maintenance}", 'x free active none', 'who, plan, status, maintenance';
is $s->{stamp}, '0000010000000001', 'stamp';
ok $s->{write_enabled} && !$s->{billing_enforced} && $s->{overage_on} && !$s->{deleted}, 'flags';
is_deeply $s->{features}, { a => { on => $yes, origin => 'plan', until => undef } }, 'features of the plan';
is_deeply [sort keys %{ $s->{limits} }], [qw(calls ever requests)], 'all limits, those too that the plan leaves out';
is "@{$s->{limits}{requests}}{qw(amount issued used origin period)}", '20 5 2 plan month', 'a limit with its current period';
like $s->{limits}{requests}{ends}, qr/^\d{4}-\d\d-01T00:00:00Z$/, 'and when that ends';
is $s->{limits}{calls}{amount}, 0, 'left out is none';
is $s->{limits}{ever}{ends}, undef, 'lifetime never ends';
is_deeply $s->{credits}, { logo => { remaining => 4, used => 0, overage => 0, allocated => 4 } }, 'credits';
is show('nobody'), undef, 'an unknown account is NULL';

my $before = show();
$s = set({ plan => 'pro' });
is_deeply $s, show(), 'set answers what show shows';
is_deeply { %$s, map({ $_ => 0 } qw(plan plan_name limits features stamp version changed_at)) },
    { %$before, map({ $_ => 0 } qw(plan plan_name limits features stamp version changed_at)) }, 'nothing else has changed';
ok $s->{limits}{requests}{unlimited} && !defined $s->{limits}{requests}{amount}, 'unlimited shows as such';
$s = set({ features => { b => $no, c => $yes }, limits => { requests => 7, calls => 'unlimited' } });
is_deeply { map { $_ => "$s->{features}{$_}{origin} " . ($s->{features}{$_}{on} ? 'on' : 'off') } keys %{ $s->{features} } },
    { a => 'plan on', b => 'override off', c => 'override on' }, 'feature overrides, either way';
is "$s->{limits}{requests}{amount} $s->{limits}{requests}{origin}", '7 override', 'limit override';
ok $s->{limits}{calls}{unlimited}, 'an unlimited override';
ok exists $s->{limits}{calls}{available} && !defined $s->{limits}{calls}{available}, 'of which any number is available';
my $version = $s->{version};
is set({ features => { b => $no, c => $yes }, limits => { requests => 7, calls => 'unlimited' }, plan => 'pro' })->{version},
    $version, 'the same once more changes nothing';
$s = set({ features => { b => undef, c => undef, a => undef }, limits => { requests => undef, calls => undef } });
is_deeply [sort keys %{ $s->{features} }], ['a', 'b'], 'null drops the override';
is $s->{limits}{calls}{amount}, 0, 'of a limit too';
$d->do(q{INSERT INTO billing.account_features VALUES (1, 2, true, now() - interval '1 s')});
is show()->{features}{c}, undef, 'an expired override does not count';
$d->do(q{UPDATE billing.account_features SET expires_at = now() + interval '1 h'});
like show()->{features}{c}{until}, qr/Z$/, 'a live one says until when';
is set({ features => { c => $yes } })->{features}{c}{until}, undef, 'set makes it permanent';

$s = set({ status => 'past_due', write_enabled => $no, maintenance => 'operator', billing_enforced => $yes,
    grace_until => '2030-01-02T03:04:05Z', email => 'e@x', name => 'N' });
is "@$s{qw(status maintenance grace_until email name)}", 'past_due operator 2030-01-02T03:04:05Z e@x N', 'the other keys';
ok !$s->{write_enabled} && $s->{billing_enforced}, 'and flags';
ok !set({ overage_on => $no })->{overage_on} && set({ overage_on => $yes })->{overage_on}, 'C16: the switch of overage';
is set({ grace_until => 1893553445 })->{grace_until}, '2030-01-02T03:04:05Z', 'a time as unix seconds';
$s = set({ grace_until => undef, email => undef });
ok !defined $s->{grace_until} && !defined $s->{email}, 'null clears';
is set({ plan => 'pro' }, 'nobody'), undef, 'an unknown account is NULL';
is $db->psql('SELECT count(*) FROM billing.accounts'), 1, 'and is not created';

my $state = show();
my @wrong = (
    ['{"colour": 1}', qr/unknown key "colour"/], ['{"plan": "gold"}', qr/unknown plan "gold"/], ['{"plan": null}', qr/unknown plan null/],
    ['{"status": "none"}', qr/unknown status "none"/], ['{"maintenance": true}', qr/maintenance must be none, payment or operator/],
    ['{"write_enabled": "no"}', qr/write_enabled must be true or false, not "no"/],
    ['{"overage_on": "off"}', qr/overage_on must be true or false/],
    ['{"billing_enforced": null}', qr/billing_enforced must be true or false/],
    ['{"grace_until": "soon"}', qr/grace_until: "soon" is not a time/], ['{"grace_until": "infinity"}', qr/grace_until/],
    ['{"grace_until": {}}', qr/grace_until/], ['{"email": 5}', qr/email must be a text or null/],
    ['{"features": {"zzz": true}}', qr/unknown feature "zzz"/], ['{"features": {"a": 1}}', qr/feature "a" must be true, false or null/],
    ['{"features": []}', qr/features must be an object/], ['{"limits": {"zzz": 1}}', qr/unknown limit "zzz"/],
    ['{"limits": {"requests": -1}}', qr/limit "requests" must be a whole number/],
    ['{"limits": {"requests": 1.5}}', qr/limit "requests" must be/], ['{"limits": {"requests": "5"}}', qr/limit "requests" must be/],
    ['{"limits": {"requests": 99999999999999999999}}', qr/limit "requests" must be/], ['[]', qr/changes must be an object/],
);
for (@wrong) {
    my ($changes, $like) = @$_;
    (my $more = $changes) =~ s/^\{/{"name": "changed", /;
    ok !eval { set($more); 1 }, "refused: $changes";
    like $@, $like, 'says why';
    is $d->state, '22023', 'with the code for a wrong argument';
}
is_deeply show(), $state, 'refused changes leave nothing behind';
done_testing;
