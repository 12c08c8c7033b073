# The promise: what every end-to-end test asks at its end, whether a unit has gone astray, is answered rightly: each way in which units
# can be missing, or be made of nothing, is told; and only that. U2, U7.
use v5.36;
use Billing::Conservation qw(credits_astray quotas_astray);
use Billing::Database;
use JSON::PP ();
use Test::More;

my $db = Billing::Database->new->migrate;
$db->apply_catalog({default_plan => 'free', quotas => {calls => {period => 'month'}}, credits => {logo => {}},
    plans => {free => {free => JSON::PP::true(), quotas => {calls => 100}, credits => {logo => 10}}}});
my $dbh = $db->dbi;
$dbh->do(q{SELECT billing.ensure_accounts(ARRAY['a'])});
my ($account) = $dbh->selectrow_array(q{SELECT id FROM billing.accounts WHERE external_id = 'a'});
my ($limit) = $dbh->selectrow_array('SELECT limit_no FROM billing.limits');
my ($period) = $dbh->selectrow_array(q{SELECT billing.period_number('month', now())});
my $sequence = 0;
sub fund($units) {
    my ($granted) = $dbh->selectrow_array('SELECT granted FROM billing.quota_fund(ARRAY[1], ARRAY[?::bigint], ARRAY[?::smallint],
        ARRAY[?::bigint], ARRAY[?::bigint], ARRAY[?::bigint], ARRAY[0::bigint])', undef, $account, $limit, $period, $units, $units);
    return $granted;
}
sub report($spent, $returned) {
    return $dbh->selectrow_array(q{SELECT billing.usage_flush('00000000-0000-0000-0000-000000000001', 'h', ?, ARRAY[?::bigint],
        ARRAY[?::smallint], ARRAY[?::bigint], ARRAY[?::bigint], ARRAY[?::bigint])}, undef, ++$sequence, $account, $limit, $period, $spent, $returned);
}
sub astray($pattern, $what, %allowed) {
    my @lines = quotas_astray($dbh, \%allowed);
    return is_deeply \@lines, [], $what if !defined $pattern;
    return is(@lines, 1, $what) && like $lines[0], $pattern, $what;
}

is_deeply [quotas_astray($dbh), credits_astray($dbh)], [], 'at first nothing is';
is fund(10), 10, 'ten are issued';
astray(qr/external_id=a forfeited=10 /, 'and neither used nor back');
is report(7, 0), 'ok', 'seven are used';
astray(qr/forfeited=3 /, 'three are missing');
astray(undef, 'three may be', a => 3);
astray(undef, 'or of anybody', '*' => 3);
astray(qr/forfeited=3 /, 'two may not', a => 2);
astray(qr/forfeited=3 /, 'nor may those of another', b => 3);
is report(0, 3), 'ok', 'they come back';
astray(undef, 'all is well');
is report(0, 1), 'ok', 'one too many comes back';
astray(qr/least=-1 /, 'it was made of nothing, and no test may declare that', a => 100);
$dbh->do('UPDATE billing.quota_periods SET issued = used, late = used + 1');
astray(qr/negative=-1 /, 'more is charged late than is issued');

$dbh->selectrow_array(q{SELECT billing.grant_credits('a', 'logo', 5, 'gift', 'gift')});
is_deeply [credits_astray($dbh)], [], 'credits: a gift';
$dbh->do('UPDATE billing.credit_balances SET remaining = remaining + 1');
is scalar(credits_astray($dbh)), 1, 'and what was no gift';
done_testing;
